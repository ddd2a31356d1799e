//! NAL units sent in another order than they are decoded in: the interleaved mode of H.264
//! (RFC 6184, 6.4: STAP-B, MTAP16, MTAP24, FU-B) and HEVC with decoding order numbers (RFC 7798,
//! 4.5). What the session says of it (depths, differences) is no more than what is needed.

use mirror_media::{Codec, FormatParameters, PayloadFormat, PayloadHint};

use super::source::{Picture, choose, display_times, is_slice};
use super::{Choices, Receiver, Sent, assert_same};

/// A NAL unit to be sent.
struct Nal<'a> {
    bytes: &'a [u8],
    time: u32,
    number: u16,
    is_slice: bool,
}

/// Packets that stay together, and the places of their NAL units in decoding order.
struct Group {
    packets: Vec<Sent>,
    nals: core::ops::Range<usize>,
}

/// RFC 6184, packetization-mode 2.
pub(super) fn h264(choices: &mut Choices<'_>) {
    stream(Codec::H264, PayloadFormat::H264, choices);
}

/// RFC 7798, sprop-max-don-diff above 0.
pub(super) fn h265(choices: &mut Choices<'_>) {
    stream(Codec::H265, PayloadFormat::H265, choices);
}

fn stream(codec: Codec, format: PayloadFormat, choices: &mut Choices<'_>) {
    let pictures = choose(codec, choices);
    let times = display_times(&pictures);
    let (first, mut number) = (choices.u32(), choices.u16());
    let mut nals = Vec::new();
    for (picture, time) in pictures.iter().zip(&times) {
        for bytes in &picture.nals {
            nals.push(Nal {
                bytes,
                time: first.wrapping_add(*time),
                number,
                is_slice: is_slice(codec, bytes),
            });
            number = number.wrapping_add(1);
        }
    }
    let mtu = *choices.pick(&[1_400, 600, 250]);
    let mut groups = grouped(codec, &nals, mtu, choices);
    let reach = choices.below(6);
    choices.disorder(&mut groups, reach);
    let order: Vec<usize> = groups.iter().flat_map(|g| g.nals.clone()).collect();
    let parameters = parameters(codec, &nals, &order);
    let what = (codec, mtu, reach, parameters.interleaving_depth);
    let sent: Vec<Sent> = groups.into_iter().flat_map(|g| g.packets).collect();
    let came = Receiver::rtp(PayloadHint { format, parameters }, 90_000).all(&sent);
    let bytes: Vec<Vec<u8>> = pictures.iter().map(Picture::bytes).collect();
    assert_same(&came, bytes.iter().map(Vec::as_slice), &what);
    let base = came.first().and_then(|(u, _)| u.pts).unwrap_or(0) - i64::from(times[0]);
    for ((unit, _), (picture, time)) in came.iter().zip(pictures.iter().zip(&times)) {
        assert_eq!(unit.kind, picture.unit.kind, "{what:?}");
        assert_eq!(unit.pts, Some(base + i64::from(*time)), "{what:?}");
    }
}

/// What has to be signalled for NAL units that are sent in `order`.
fn parameters(codec: Codec, nals: &[Nal<'_>], order: &[usize]) -> FormatParameters {
    let (mut depth, mut waiting, mut difference) = (0, 0, 0);
    for (at, n) in order.iter().enumerate() {
        let early = || order[..at].iter().filter(|before| *before > n);
        difference = early().map(|m| m - n).max().unwrap_or(0).max(difference);
        waiting = waiting.max(early().count());
        // The parameter speaks of slices before a slice; but if more of them stood before a
        // parameter set, no receiver could wait for that.
        depth = depth.max(early().filter(|m| nals[**m].is_slice).count());
    }
    let is_h264 = codec == Codec::H264;
    FormatParameters {
        packetization_mode: if is_h264 { 2 } else { 0 },
        interleaving_depth: is_h264.then_some(depth as u16),
        max_don_diff: Some((difference as u16).max(1)),
        depack_buf_nalus: (!is_h264).then_some(waiting as u16),
        ..FormatParameters::default()
    }
}

fn grouped(codec: Codec, nals: &[Nal<'_>], mtu: usize, choices: &mut Choices<'_>) -> Vec<Group> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < nals.len() {
        let rest = &nals[at..];
        // More than any aggregate takes before a unit.
        let mut bytes = 4;
        let fitting = rest.iter().take(6).take_while(|nal| {
            bytes += nal.bytes.len() + 6;
            let together = codec == Codec::H264 || nal.time == rest[0].time;
            bytes <= mtu && together
        });
        let fitting = fitting.count();
        let (count, packets) = if fitting > 0 && !choices.once_in(6) {
            let count = choices.between(1, fitting);
            let packet = match codec {
                Codec::H264 => h264_aggregate(&rest[..count], choices),
                _ => h265_aggregate(&rest[..count]),
            };
            (count, vec![packet])
        } else {
            (1, fragments(codec, &rest[0], mtu, choices))
        };
        let nals = at..at + count;
        at += count;
        out.push(Group { packets, nals });
    }
    out
}

fn packet(payload: Vec<u8>, timestamp: u32) -> Sent {
    Sent {
        payload,
        timestamp,
        marker: false,
    }
}

/// RFC 6184, 5.7: STAP-B for units of one time, MTAP16 and MTAP24 for any.
fn h264_aggregate(nals: &[Nal<'_>], choices: &mut Choices<'_>) -> Sent {
    let importance = nals.iter().map(|n| n.bytes[0] & 0x60).max().unwrap_or(0);
    let after = |nal: &Nal<'_>| nal.time.wrapping_sub(nals[0].time).cast_signed();
    let earliest = nals.iter().min_by_key(|nal| after(nal)).expect("one");
    let time = earliest.time;
    let one_time = nals.iter().all(|nal| nal.time == time);
    let kind = if one_time && !choices.once_in(4) {
        25
    } else {
        *choices.pick(&[26, 27])
    };
    let mut out = vec![importance | kind];
    out.extend(nals[0].number.to_be_bytes());
    for (dond, nal) in (0..).zip(nals) {
        out.extend((nal.bytes.len() as u16).to_be_bytes());
        if kind > 25 {
            out.push(dond);
            let offset = nal.time.wrapping_sub(time).to_be_bytes();
            out.extend(&offset[if kind == 26 { 2 } else { 1 }..]);
        }
        out.extend(nal.bytes);
    }
    packet(out, time)
}

/// RFC 7798, 4.4.1 and 4.4.2: one alone with its DONL, or an AP.
fn h265_aggregate(nals: &[Nal<'_>]) -> Sent {
    let first = &nals[0];
    let donl = first.number.to_be_bytes();
    if nals.len() == 1 {
        let (header, body) = first.bytes.split_at(2);
        return packet([header, &donl, body].concat(), first.time);
    }
    let lowest = nals.iter().map(|n| n.bytes[1] & 7).min().unwrap_or(1);
    let mut out = vec![48 << 1, lowest];
    for (n, nal) in nals.iter().enumerate() {
        match n {
            0 => out.extend(donl),
            _ => out.push(0),
        }
        out.extend((nal.bytes.len() as u16).to_be_bytes());
        out.extend(nal.bytes);
    }
    packet(out, first.time)
}

/// FU-B and FU-A (RFC 6184, 5.8), FU (RFC 7798, 4.4.3).
fn fragments(codec: Codec, nal: &Nal<'_>, mtu: usize, choices: &mut Choices<'_>) -> Vec<Sent> {
    let header = nal.bytes;
    let (first, more, kind, head) = match codec {
        Codec::H264 => {
            let of = |kind| vec![header[0] & 0xE0 | kind];
            (of(29), of(28), header[0] & 0x1F, 1)
        }
        _ => {
            let head = vec![header[0] & 0x81 | 49 << 1, header[1]];
            (head.clone(), head, header[0] >> 1 & 0x3F, 2)
        }
    };
    let mut rest = &nal.bytes[head..];
    if rest.len() < 2 {
        // Too short to be cut.
        return match codec {
            Codec::H264 => vec![h264_aggregate(core::slice::from_ref(nal), choices)],
            _ => vec![h265_aggregate(core::slice::from_ref(nal))],
        };
    }
    let mut out: Vec<Sent> = Vec::new();
    while !rest.is_empty() {
        let begins = out.is_empty();
        let most = (mtu - 5).min(rest.len() - usize::from(begins));
        let (now, after) = rest.split_at(choices.between(most.div_ceil(2), most));
        let mut payload = if begins { first.clone() } else { more.clone() };
        payload.push(kind | u8::from(begins) << 7 | u8::from(after.is_empty()) << 6);
        if begins {
            payload.extend(nal.number.to_be_bytes());
        }
        payload.extend(now);
        out.push(packet(payload, nal.time));
        rest = after;
    }
    out
}
