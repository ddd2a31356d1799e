//! AV1 (AOMedia's RTP payload format): OBU elements, with and without their sizes, cut anywhere.

use mirror_media::PayloadFormat;
use mirror_media::codec::av1::{Obu, obu, push_leb128};
use mirror_media::files::obu::{Framing, TemporalUnits};

use super::source::AV1;
use super::{Choices, Receiver, Sent, assert_same};

/// The payload in the making.
#[derive(Default)]
struct Payload {
    elements: Vec<Vec<u8>>,
    /// The first element goes on with what the packet before began.
    continues: bool,
}

impl Payload {
    /// With lengths of two bytes, which the least of them have not.
    fn bytes(&self) -> usize {
        1 + self.elements.iter().map(|e| 2 + e.len()).sum::<usize>()
    }

    fn write(&self, begins_sequence: bool, goes_on: bool, count: bool) -> Vec<u8> {
        let n = self.elements.len();
        let count = count && n <= 3;
        let mut out = vec![
            u8::from(self.continues) << 7
                | u8::from(goes_on) << 6
                | if count { (n as u8) << 4 } else { 0 }
                | u8::from(begins_sequence) << 3,
        ];
        for (i, element) in self.elements.iter().enumerate() {
            if !count || i + 1 < n {
                push_leb128(element.len() as u32, &mut out);
            }
            out.extend(element);
        }
        out
    }
}

/// Temporal units.
pub(super) fn av1(choices: &mut Choices<'_>) {
    let file = *choices.pick(&AV1);
    let mtu = *choices.pick(&[1_400, 1_000, 300, 100, 40]);
    let units: Vec<_> = TemporalUnits::new(file, Framing::LowOverhead)
        .map(|unit| unit.expect("a good file"))
        .take(choices.between(1, 20))
        .collect();
    let first = choices.u32();
    let markers = !choices.once_in(5);
    let mut sent = Vec::new();
    for (n, unit) in (0..).zip(&units) {
        let obus: Vec<Obu<'_>> = unit.obus().map(|o| o.expect("a good file")).collect();
        let begins = obus.iter().any(|o| o.header.kind == obu::SEQUENCE);
        let payloads = packetise(&obus, mtu, begins, choices);
        let count = payloads.len();
        for (k, payload) in payloads.into_iter().enumerate() {
            assert!(payload.len() <= mtu);
            sent.push(Sent {
                payload,
                timestamp: first.wrapping_add(n * 3_000),
                marker: markers && k + 1 == count,
            });
        }
    }
    let came = Receiver::rtp(PayloadFormat::Av1, 90_000).all(&sent);
    assert_same(&came, units.iter().map(|u| u.bytes), &(mtu, markers));
}

fn packetise(
    obus: &[Obu<'_>],
    mtu: usize,
    begins_sequence: bool,
    choices: &mut Choices<'_>,
) -> Vec<Vec<u8>> {
    let (keep_sizes, cut_early) = (choices.once_in(4), choices.once_in(3));
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut payload = Payload::default();
    let mut flush = |payload: &mut Payload, goes_on: bool, choices: &mut Choices<'_>| {
        if !payload.elements.is_empty() {
            let begins = begins_sequence && out.is_empty();
            out.push(payload.write(begins, goes_on, choices.flip()));
            payload.elements.clear();
            payload.continues = goes_on;
        }
    };
    for obu in obus {
        // Section 5: delimiters are not sent.
        if obu.header.kind == obu::DELIMITER {
            continue;
        }
        let mut bytes = Vec::new();
        if keep_sizes {
            obu.write(&mut bytes);
        } else {
            // obu_has_size_field 0.
            let extension = obu.header.bytes() - 1;
            obu.write(&mut bytes);
            let size = bytes.len() - obu.payload.len() - 1 - extension;
            bytes[0] &= !2;
            bytes.drain(1 + extension..1 + extension + size);
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let room = (mtu - 2).saturating_sub(payload.bytes());
            if room == 0 {
                flush(&mut payload, false, choices);
                continue;
            }
            let mut size = room.min(rest.len());
            if cut_early && choices.once_in(3) {
                size = choices.between(1, size);
            }
            let (now, after) = rest.split_at(size);
            payload.elements.push(now.to_vec());
            if !after.is_empty() {
                flush(&mut payload, true, choices);
            }
            rest = after;
        }
        if choices.once_in(3) {
            flush(&mut payload, false, choices);
        }
    }
    flush(&mut payload, false, choices);
    out
}
