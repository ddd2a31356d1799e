//! AAC in LATM (RFC 6416) and KLV (RFC 6597): elements that tell their own length, several in a
//! packet or cut over packets, the last of which has the marker.

use mirror_media::{FormatParameters, PayloadFormat, PayloadHint};

use super::{Choices, Receiver, Sent, assert_same, transport};

/// AudioMuxElements with the configuration outside of them.
pub(super) fn latm(choices: &mut Choices<'_>) {
    let format = PayloadFormat::Mp4aLatm;
    // StreamMuxConfig: one layer of AAC-LC, 48 kHz, stereo.
    let fmtp = "cpresent=0;config=400023203fc0";
    let parameters = FormatParameters::parse(format, fmtp).expect("good parameters");
    let count = choices.between(1, 40);
    let element = |choices: &mut Choices<'_>| {
        let longest = *choices.pick(&[30, 254, 255, 600, 2_000]);
        let size = choices.between(1, longest);
        let mut element = vec![0xFF; size / 255];
        element.push((size % 255) as u8);
        choices.filling(&mut element, size);
        element
    };
    let elements: Vec<Vec<u8>> = (0..count).map(|_| element(choices)).collect();
    let mtu = *choices.pick(&[1_400, 400, 100]);
    let first = choices.u32();
    let mut sent = Vec::new();
    let mut at = 0;
    while at < elements.len() {
        let timestamp = first.wrapping_add(at as u32 * 1_024);
        let mut bytes = 0;
        let fitting = elements[at..].iter().take_while(|e| {
            bytes += e.len();
            bytes <= mtu
        });
        let together = choices.between(1, fitting.count().clamp(1, 6));
        let payload = elements[at..at + together].concat();
        cut(&payload, mtu, timestamp, &mut sent);
        at += together;
    }
    let came = Receiver::rtp(PayloadHint { format, parameters }, 48_000).all(&sent);
    assert_same(&came, elements.iter().map(Vec::as_slice), &mtu);
    for pair in came.windows(2) {
        let times = pair[0].0.pts.zip(pair[1].0.pts);
        assert_eq!(times.map(|(a, b)| b - a), Some(1_920), "{pair:?}");
    }
}

/// KLV units, one for each timestamp.
pub(super) fn klv(choices: &mut Choices<'_>) {
    let count = choices.between(1, 30);
    let units: Vec<Vec<u8>> = (0..count).map(|_| transport::klv(choices)).collect();
    let mtu = *choices.pick(&[1_400, 300, 60]);
    let first = choices.u32();
    let mut sent = Vec::new();
    for (n, unit) in (0_u32..).zip(&units) {
        let timestamp = first.wrapping_add(n * 3_000);
        cut(unit, mtu, timestamp, &mut sent);
    }
    let came = Receiver::rtp(PayloadFormat::Smpte336m, 90_000).all(&sent);
    assert_same(&came, units.iter().map(Vec::as_slice), &mtu);
}

/// In one packet, or in as many as it takes.
fn cut(payload: &[u8], mtu: usize, timestamp: u32, sent: &mut Vec<Sent>) {
    let pieces = payload.len().div_ceil(mtu);
    for (n, piece) in payload.chunks(mtu).enumerate() {
        sent.push(Sent {
            payload: piece.to_vec(),
            timestamp,
            marker: n + 1 == pieces,
        });
    }
}
