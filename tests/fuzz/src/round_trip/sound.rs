//! Audio: AAC (RFC 3640) in AU headers and fragments; AC-3 (RFC 4184) and MPEG audio (RFC 2250)
//! in frames and fragments; Opus (RFC 7587) and PCM (RFC 3551), whose packets are units.

use mirror_media::{FormatParameters, PayloadFormat, PayloadHint};

use super::{Came, Choices, Receiver, Sent, assert_same};

/// Frames of such lengths as a stream has them.
fn frames(choices: &mut Choices<'_>, longest: usize) -> Vec<Vec<u8>> {
    let count = choices.between(1, 40);
    let frame = |choices: &mut Choices<'_>| {
        let most = *choices.pick(&[40, 400, longest]);
        let mut frame = Vec::new();
        let size = choices.between(4, most.min(longest));
        choices.filling(&mut frame, size);
        frame
    };
    (0..count).map(|_| frame(choices)).collect()
}

fn assert_times(came: &[Came], ticks: i64) {
    for pair in came.windows(2) {
        let (a, b) = (pair[0].0.pts, pair[1].0.pts);
        assert_eq!(a.zip(b).map(|(a, b)| b - a), Some(ticks), "{pair:?}");
    }
}

/// RFC 3640, AAC-hbr (3.3.6) and AAC-lbr (3.3.5): a packet holds whole units, or a fragment.
pub(super) fn aac(choices: &mut Choices<'_>) {
    let high = !choices.once_in(4);
    // sizeLength 13 or 6, index lengths 3 or 2; AAC-LC, 48 kHz, stereo.
    let fmtp = if high {
        "mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190"
    } else {
        "mode=AAC-lbr;sizelength=6;indexlength=2;indexdeltalength=2;config=1190"
    };
    let format = PayloadFormat::Mpeg4Generic;
    let parameters = FormatParameters::parse(format, fmtp).expect("good parameters");
    let frames = frames(choices, if high { 3_000 } else { 63 });
    let mtu = *choices.pick(&[1_400, 500, 100]);
    let first = choices.u32();
    let mut sent = Vec::new();
    let mut at = 0;
    while at < frames.len() {
        let timestamp = first.wrapping_add(at as u32 * 1_024);
        let mut room = mtu - 2;
        let header = |bytes: usize| if high { bytes + 2 } else { bytes + 1 };
        let fitting = frames[at..].iter().take_while(|f| {
            let needed = header(f.len());
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        });
        let fitting = fitting.count();
        if fitting > 0 {
            let count = choices.between(1, fitting.min(20));
            let some = &frames[at..at + count];
            sent.push(Sent {
                payload: au_packet(high, some),
                timestamp,
                marker: true,
            });
            at += count;
            continue;
        }
        let frame = &frames[at];
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            let (now, after) = rest.split_at(rest.len().min(mtu - 4));
            let mut payload = au_header(high, frame.len());
            payload.extend(now);
            sent.push(Sent {
                payload,
                timestamp,
                marker: after.is_empty(),
            });
            rest = after;
        }
        at += 1;
    }
    let came = Receiver::rtp(PayloadHint { format, parameters }, 48_000).all(&sent);
    assert_same(&came, frames.iter().map(Vec::as_slice), &(high, mtu));
    assert_times(&came, 1_920);
}

/// The AU header section of one unit, or of a fragment of it: its size is that of the whole.
fn au_header(high: bool, size: usize) -> Vec<u8> {
    if high {
        vec![0, 16, (size >> 5) as u8, (size << 3) as u8]
    } else {
        vec![0, 8, (size << 2) as u8]
    }
}

fn au_packet(high: bool, frames: &[Vec<u8>]) -> Vec<u8> {
    let bits = frames.len() * if high { 16 } else { 8 };
    let mut out = (bits as u16).to_be_bytes().to_vec();
    for frame in frames {
        out.extend(&au_header(high, frame.len())[2..]);
    }
    out.extend(frames.iter().flatten());
    out
}

/// Frames whose header says their length: a packet holds some of them, or a fragment of one.
pub(super) fn framed(choices: &mut Choices<'_>) {
    let mpeg = choices.flip();
    let rate = 1 + choices.below(13);
    let count = choices.between(1, 40);
    let frames: Vec<_> = (0..count).map(|_| frame(mpeg, rate, choices)).collect();
    let mtu = *choices.pick(&[1_400, 700, 200]);
    let first = choices.u32();
    // RFC 2250, 2: 90 kHz; else the sample rate.
    let (format, clock_rate, ticks) = if mpeg {
        (PayloadFormat::Mpa, 90_000, 2_160)
    } else {
        (PayloadFormat::Ac3, 48_000, 1_536)
    };
    let mut sent = Vec::new();
    let mut at = 0;
    while at < frames.len() {
        let timestamp = first.wrapping_add(at as u32 * ticks);
        let size = frames[at].len();
        let fitting = ((mtu - 4) / size).min(frames.len() - at);
        if fitting > 0 {
            let count = choices.between(1, fitting);
            let mut payload = if mpeg {
                vec![0; 4]
            } else {
                vec![0, count as u8]
            };
            payload.extend(frames[at..at + count].iter().flatten());
            sent.push(Sent {
                payload,
                timestamp,
                marker: true,
            });
            at += count;
            continue;
        }
        let pieces = size.div_ceil(mtu - 4);
        let mut offset = 0;
        for piece in frames[at].chunks(mtu - 4) {
            // MBZ and offset (RFC 2250, 3.5); FT and the number of fragments (RFC 4184, 4.1.1):
            // 1 begins with 5/8 of the frame, 2 does not, 3 goes on.
            let enough = piece.len() * 8 >= size * 5;
            let mut payload = match (mpeg, offset) {
                (true, _) => vec![0, 0, (offset >> 8) as u8, offset as u8],
                (_, 0) => vec![if enough { 1 } else { 2 }, pieces as u8],
                _ => vec![3, pieces as u8],
            };
            payload.extend(piece);
            offset += piece.len();
            sent.push(Sent {
                payload,
                timestamp,
                marker: offset == size,
            });
        }
        at += 1;
    }
    let came = Receiver::rtp(format, clock_rate).all(&sent);
    assert_same(&came, frames.iter().map(Vec::as_slice), &(mpeg, rate, mtu));
    assert_times(&came, if mpeg { 2_160 } else { 2_880 });
}

/// 48 kHz: AC-3, or MPEG-1 layer II, of the rate with that number.
pub(super) fn frame(mpeg: bool, rate: usize, choices: &mut Choices<'_>) -> Vec<u8> {
    const MPEG: [usize; 15] = [
        0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384,
    ];
    const AC3: [usize; 14] = [
        32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
    ];
    let (mut frame, size) = if mpeg {
        let header = vec![0xFF, 0xFD, (rate as u8) << 4 | 1 << 2, 0];
        (header, 3 * MPEG[rate])
    } else {
        // bsid 8, 2/0.
        let header = vec![0x0B, 0x77, 0x12, 0x34, (rate as u8) << 1, 8 << 3, 2 << 5, 0];
        (header, 4 * AC3[rate])
    };
    choices.filling(&mut frame, size - if mpeg { 4 } else { 8 });
    frame
}

/// Opus, L16, L24: each packet is a unit.
pub(super) fn packets(choices: &mut Choices<'_>) {
    let format = *choices.pick(&[PayloadFormat::Opus, PayloadFormat::L16, PayloadFormat::L24]);
    let channels = choices.between(1, 8);
    let frame = match format {
        PayloadFormat::L16 => 2 * channels,
        _ => 3 * channels,
    };
    let payloads: Vec<Vec<u8>> = (0..choices.between(1, 30))
        .map(|_| {
            let mut payload = Vec::new();
            if format == PayloadFormat::Opus {
                // 20 ms of CELT, one frame.
                payload.push(0xFC);
                let size = choices.between(1, 1_200);
                choices.filling(&mut payload, size);
            } else {
                choices.filling(&mut payload, frame * 48);
            }
            payload
        })
        .collect();
    let ticks = if format == PayloadFormat::Opus {
        960
    } else {
        48
    };
    let first = choices.u32();
    let sent: Vec<Sent> = (0_u32..)
        .zip(&payloads)
        .map(|(n, payload)| Sent {
            payload: payload.clone(),
            timestamp: first.wrapping_add(n * ticks),
            marker: n == 0,
        })
        .collect();
    let parameters = FormatParameters {
        channels: channels as u8,
        ..FormatParameters::default()
    };
    let came = Receiver::rtp(PayloadHint { format, parameters }, 48_000).all(&sent);
    assert_same(&came, payloads.iter().map(Vec::as_slice), &format);
    assert_times(&came, i64::from(ticks) * 15 / 8);
}
