//! SEI messages of H.264 (Annex D) and HEVC (Annex D), as far as a track's facts and random
//! access need them: recovery points, time codes, captions, mastering display and content
//! light. Called by [`crate::assembler`] with a NAL unit's payload, emulation prevention
//! removed. Each message is bounded by the size it says; one that runs past the end ends the
//! walk, one that breaks its own syntax is passed over.

use super::bits::BitReader;
use super::scan::{self, Scan};
use crate::{ContentLight, MasteringDisplay};

/// Which standard's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// H.264.
    H264,
    /// HEVC.
    H265,
}

/// A recovery point message (H.264 D.1.8, HEVC D.2.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// `recovery_frame_cnt`; HEVC: `recovery_poc_cnt`, 0 if that is negative.
    pub count: u16,
    /// `broken_link_flag`: pictures that precede it in display order may be wrong.
    pub broken_link: bool,
}

/// What picture timing messages are coded by: H.264 E.2.1 and E.2.2, HEVC E.3.1, of the SPS in
/// use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimingSyntax {
    /// Bits of `cpb_removal_delay` and `dpb_output_delay`, both together; 0 without an HRD.
    pub delay_bits: u32,
    /// `pic_struct_present_flag`; HEVC: `frame_field_info_present_flag`.
    pub pic_struct: bool,
    /// H.264: `mb_adaptive_frame_field_flag`.
    pub adaptive: bool,
}

/// A time code, as far as a message gives it: hours, minutes, seconds, frames. What it leaves
/// out is as before (D.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timecode {
    hours: Option<u8>,
    minutes: Option<u8>,
    seconds: Option<u8>,
    frames: u8,
}

impl Timecode {
    /// Completed by the one before.
    pub fn after(self, last: Option<[u8; 4]>) -> [u8; 4] {
        let [h, m, s, _] = last.unwrap_or_default();
        [
            self.hours.unwrap_or(h),
            self.minutes.unwrap_or(m),
            self.seconds.unwrap_or(s),
            self.frames,
        ]
    }
}

/// What the messages of one NAL unit told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Messages {
    /// Recovery point.
    pub recovery: Option<Recovery>,
    /// Time code.
    pub timecode: Option<Timecode>,
    /// CEA-608 bytes are among the captions.
    pub cea608: bool,
    /// CEA-708 bytes are among the captions.
    pub cea708: bool,
    /// Dynamic metadata of SMPTE ST 2094-40 (HDR10+).
    pub hdr10_plus: bool,
    /// Mastering display colour volume.
    pub mastering: Option<MasteringDisplay>,
    /// Content light level.
    pub light: Option<ContentLight>,
    /// Alternative transfer characteristics: the preferred ones.
    pub transfer: Option<u8>,
    /// How the picture was scanned.
    pub scan: Option<Scan>,
}

/// The messages of an SEI NAL unit (7.3.2.3): payload type and bytes.
#[derive(Clone, Debug)]
pub struct Payloads<'a> {
    rest: &'a [u8],
}

impl<'a> Payloads<'a> {
    /// `rbsp` begins behind the NAL unit's header.
    pub const fn new(rbsp: &'a [u8]) -> Self {
        Payloads { rest: rbsp }
    }

    fn number(&mut self) -> Option<usize> {
        let mut sum = 0_usize;
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            sum += usize::from(byte);
            if byte != 255 {
                return Some(sum);
            }
        }
    }
}

impl<'a> Iterator for Payloads<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // Two bytes are the least of a message; fewer are rbsp_trailing_bits.
        if self.rest.len() < 2 {
            return None;
        }
        let kind = self.number()?;
        let size = self.number()?;
        let (payload, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        Some((kind, payload))
    }
}

/// Reads the messages of one NAL unit. `timing` tells how picture timing is coded by the SPS of
/// that number, or by the one in use.
pub fn read(
    dialect: Dialect,
    rbsp: &[u8],
    timing: impl Fn(Option<u32>) -> Option<TimingSyntax>,
) -> Messages {
    let mut found = Messages::default();
    let mut sps = None;
    for (kind, payload) in Payloads::new(rbsp) {
        match (kind, dialect) {
            // The buffering period names the SPS that its access unit activates (D.2.1).
            (0, Dialect::H264) => sps = BitReader::raw(payload).ue_max(31),
            (1, Dialect::H264) => {
                if let Some(syntax) = timing(sps) {
                    let _ = pic_timing(payload, syntax, &mut found);
                }
            }
            (1, Dialect::H265) => {
                if let Some(syntax) = timing(None) {
                    found.scan = scan::h265(payload, syntax);
                }
            }
            (4, _) => registered(payload, &mut found),
            (6, _) => found.recovery = found.recovery.or_else(|| recovery(dialect, payload)),
            (136, Dialect::H265) => found.timecode = time_code(payload).or(found.timecode),
            (137, _) => found.mastering = mastering(payload).or(found.mastering),
            (144, _) => found.light = light(payload).or(found.light),
            (147, _) => found.transfer = payload.first().copied().or(found.transfer),
            _ => {}
        }
    }
    found
}

fn recovery(dialect: Dialect, payload: &[u8]) -> Option<Recovery> {
    let mut r = BitReader::raw(payload);
    let count = match dialect {
        Dialect::H264 => i64::from(r.ue()?),
        Dialect::H265 => r.se()?.max(0),
    };
    let _exact_match = r.flag();
    Some(Recovery {
        count: u16::try_from(count).ok()?,
        broken_link: r.flag().unwrap_or(false),
    })
}

/// H.264 D.1.3.
fn pic_timing(payload: &[u8], syntax: TimingSyntax, found: &mut Messages) -> Option<()> {
    let mut r = BitReader::raw(payload);
    r.skip(syntax.delay_bits)?;
    if !syntax.pic_struct {
        return None;
    }
    let pic_struct = r.u(4)?;
    found.scan = scan::h264(pic_struct, None, syntax);
    let stamps = match pic_struct {
        0..=2 => 1,
        3 | 4 | 7 => 2,
        5 | 6 | 8 => 3,
        _ => return None,
    };
    // The first that is there; the others are those of the picture's later fields.
    for _ in 0..stamps {
        if r.flag()? {
            found.scan = scan::h264(pic_struct, Some(r.u(2)?), syntax);
            found.timecode = clock(&mut r, 8).or(found.timecode);
            break;
        }
    }
    Some(())
}

/// HEVC D.2.27.
fn time_code(payload: &[u8]) -> Option<Timecode> {
    let mut r = BitReader::raw(payload);
    for _ in 0..r.u(2)? {
        if r.flag()? {
            return clock(&mut r, 9);
        }
    }
    None
}

/// A clock timestamp from `nuit_field_based_flag` on; `n_frames` has so many bits.
fn clock(r: &mut BitReader<'_>, frame_bits: u32) -> Option<Timecode> {
    r.skip(1 + 5)?;
    let full = r.flag()?;
    r.skip(2)?;
    let frames = u8::try_from(r.u(frame_bits)?).unwrap_or(u8::MAX);
    let mut code = Timecode {
        frames,
        ..Timecode::default()
    };
    if full || r.flag()? {
        code.seconds = Some(r.byte(6)?);
        if full || r.flag()? {
            code.minutes = Some(r.byte(6)?);
            if full || r.flag()? {
                code.hours = Some(r.byte(5)?);
            }
        }
    }
    let right = |value: Option<u8>, limit| value.is_none_or(|v| v < limit);
    (right(code.seconds, 60) && right(code.minutes, 60) && right(code.hours, 24)).then_some(code)
}

/// ITU-T T.35 user data: who registered it, and what it holds.
fn registered(payload: &[u8], found: &mut Messages) {
    match payload {
        // United States; ATSC.
        [0xB5, 0x00, 0x31, user_data @ ..] => {
            let (cea608, cea708) = captions(user_data);
            found.cea608 |= cea608;
            found.cea708 |= cea708;
        }
        // United States; SMPTE ST 2094-40, application 4.
        [0xB5, 0x00, 0x3C, 0x00, 0x01, 0x04, ..] => found.hdr10_plus = true,
        _ => {}
    }
}

/// Caption data (ATSC A/53 part 4, 6.2.3), from its "GA94" on: whether CEA-608 and CEA-708 bytes
/// are in it.
pub fn captions(user_data: &[u8]) -> (bool, bool) {
    let [b'G', b'A', b'9', b'4', 0x03, flags, _em_data, triplets @ ..] = user_data else {
        return (false, false);
    };
    let (mut cea608, mut cea708) = (false, false);
    if flags & 0x40 == 0 {
        return (false, false);
    }
    let count = usize::from(flags & 0x1F);
    for &[head, first, second] in triplets.as_chunks::<3>().0.iter().take(count) {
        // cc_valid, cc_type.
        match head & 7 {
            // 0x80 with odd parity is no character.
            4 | 5 => cea608 |= (first | second) & 0x7F != 0,
            6 | 7 => cea708 = true,
            _ => {}
        }
    }
    (cea608, cea708)
}

fn mastering(payload: &[u8]) -> Option<MasteringDisplay> {
    let mut r = BitReader::raw(payload);
    let mut pair = || Some([r.u(16)? as u16, r.u(16)? as u16]);
    let primaries = [pair()?, pair()?, pair()?];
    let white_point = pair()?;
    Some(MasteringDisplay {
        primaries,
        white_point,
        max_luminance: r.u(32)?,
        min_luminance: r.u(32)?,
    })
}

fn light(payload: &[u8]) -> Option<ContentLight> {
    let &[m0, m1, a0, a1] = payload.first_chunk::<4>()?;
    Some(ContentLight {
        max: u16::from_be_bytes([m0, m1]),
        max_average: u16::from_be_bytes([a0, a1]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hex;

    fn read264(text: &str) -> Messages {
        read(Dialect::H264, &hex(text), |_| {
            Some(TimingSyntax {
                delay_bits: 0,
                pic_struct: true,
                adaptive: false,
            })
        })
    }

    #[test]
    fn recovery_points_are_unsigned_in_h264_and_signed_in_hevc() {
        // ue 9 = 0001010, exact match, no broken link.
        assert_eq!(
            read264("0602151080").recovery,
            Some(Recovery {
                count: 9,
                broken_link: false
            })
        );
        // se: 0001010 is 5.
        let hevc = read(Dialect::H265, &hex("0602151080"), |_| None);
        assert_eq!(hevc.recovery.map(|r| r.count), Some(5));
        // se: 011 is -1, which is over already.
        let hevc = read(Dialect::H265, &hex("06017080"), |_| None);
        assert_eq!(
            hevc.recovery,
            Some(Recovery {
                count: 0,
                broken_link: false
            })
        );
        // ue 0, exact match, broken link.
        assert!(read264("0601f080").recovery.unwrap().broken_link);
    }

    #[test]
    fn mastering_display_and_content_light_are_read_as_they_stand() {
        let found = read(
            Dialect::H265,
            &hex("8918332300c03a4c8bb6000013bd3e863d0e40420098968000000001900403e8019080"),
            |_| None,
        );
        assert_eq!(
            found.light, None,
            "the size says that it is all of the first"
        );
        let mut sei = vec![137, 24];
        for value in [13250_u16, 34500, 7500, 3000, 34000, 16000, 15635, 16450] {
            sei.extend(value.to_be_bytes());
        }
        sei.extend(10_000_000_u32.to_be_bytes());
        sei.extend(50_u32.to_be_bytes());
        sei.extend([144, 4, 0x03, 0xE8, 0x01, 0x90, 147, 1, 18, 0x80]);
        let found = read(Dialect::H265, &sei, |_| None);
        let mastering = found.mastering.unwrap();
        assert_eq!(mastering.primaries[0], [13250, 34500]);
        assert_eq!(mastering.white_point, [15635, 16450]);
        assert_eq!(
            (mastering.max_luminance, mastering.min_luminance),
            (10_000_000, 50)
        );
        assert_eq!(
            found.light,
            Some(ContentLight {
                max: 1000,
                max_average: 400
            })
        );
        assert_eq!(found.transfer, Some(18));
    }

    #[test]
    fn captions_are_told_by_their_valid_triplets() {
        let head = "b5003147413934";
        let sei = |body: &str| {
            let payload = hex(&format!("{head}{body}"));
            let mut sei = vec![4, u8::try_from(payload.len()).unwrap()];
            sei.extend(payload);
            sei.push(0x80);
            let found = read(Dialect::H264, &sei, |_| None);
            (found.cea608, found.cea708)
        };
        assert_eq!(sei("0342fffc9420f98080ff"), (true, false));
        assert_eq!(
            sei("0342fffc8080f98080ff"),
            (false, false),
            "nothing but padding"
        );
        assert_eq!(sei("0341ffff0221ff"), (false, true));
        assert_eq!(sei("0341fffa0000ff"), (false, false), "not valid");
        assert_eq!(sei("0302fffc9420ff"), (false, false), "not to be processed");
        assert_eq!(sei("035ffffc9420"), (true, false), "fewer than it counts");
        assert_eq!(sei("06"), (false, false), "bar data");
    }

    #[test]
    fn time_codes_keep_what_a_message_leaves_out() {
        // pic_struct 0; one timestamp: ct_type 0, full, 7 frames, 10:20:30.
        let mut bits = String::from("0000100000000100");
        bits += "00000111";
        bits += "011110010100";
        bits += "01010";
        let payload = pack(&bits);
        let mut sei = vec![1, u8::try_from(payload.len()).unwrap()];
        sei.extend(payload);
        sei.push(0x80);
        let text: String = sei.iter().map(|b| format!("{b:02x}")).collect();
        let code = read264(&text).timecode.unwrap();
        assert_eq!(code.after(None), [10, 20, 30, 7]);
        // Not full, no seconds.
        let payload = pack("0000100000000000000010000");
        let mut sei = vec![1, u8::try_from(payload.len()).unwrap()];
        sei.extend(payload);
        sei.push(0x80);
        let text: String = sei.iter().map(|b| format!("{b:02x}")).collect();
        let next = read264(&text).timecode.unwrap();
        assert_eq!(next.after(Some([10, 20, 30, 7])), [10, 20, 30, 8]);
    }

    fn pack(bits: &str) -> Vec<u8> {
        bits.as_bytes()
            .chunks(8)
            .map(|c| {
                c.iter()
                    .enumerate()
                    .fold(0, |b, (i, &x)| b | ((x - b'0') << (7 - i)))
            })
            .collect()
    }

    #[test]
    fn messages_that_run_past_the_end_and_odd_ones_are_passed_over() {
        for text in [
            "",
            "80",
            "06",
            "06ff",
            "ffffff",
            "0605c480",
            "01000680",
            "0000060180",
            "8918ff80",
        ] {
            let found = read264(text);
            assert_eq!(
                found.recovery.map(|r| r.count).filter(|&c| c > 0),
                None,
                "{text}"
            );
            assert_eq!(found.mastering, None);
        }
    }
}
