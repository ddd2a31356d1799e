//! HEVC (ITU-T H.265, ISO 23008-2) as far as access units need it: VPS timing, SPS ([`sps`]),
//! PPS, the start of slice segment headers and picture order count ([`slice`]). Called by
//! [`crate::assembler`].

mod references;
pub mod slice;
pub mod sps;

pub use slice::Slice;
pub use sps::{Sps, parse_sps};

use super::bits::BitReader;
use super::sei::TimingSyntax;
use super::{VideoInfo, rate};
use crate::DisplayOrder;

/// A picture parameter set (7.3.2.3), the fields that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pps {
    /// `pps_pic_parameter_set_id`.
    pub id: u8,
    /// `pps_seq_parameter_set_id`.
    pub sps: u8,
    dependent_slices: bool,
    output_flag: bool,
    extra_bits: u32,
}

/// Parses a PPS's start; `rbsp` begins behind the NAL unit's two header bytes.
pub fn parse_pps(rbsp: &[u8]) -> Option<Pps> {
    let mut r = BitReader::new(rbsp);
    Some(Pps {
        id: u8::try_from(r.ue_max(63)?).ok()?,
        sps: u8::try_from(r.ue_max(15)?).ok()?,
        dependent_slices: r.flag()?,
        output_flag: r.flag()?,
        extra_bits: r.u(3)?,
    })
}

/// The frame rate in a VPS (7.3.2.1), for streams whose SPS has none, with the VPS's id.
pub fn parse_vps(rbsp: &[u8]) -> Option<(u8, (u32, u32))> {
    let mut r = BitReader::new(rbsp);
    let id = r.byte(4)?;
    r.skip(8)?;
    let sub_layers = r.u(3)?;
    if sub_layers > 6 {
        return None;
    }
    r.skip(17)?;
    sps::profile_tier_level(&mut r, sub_layers)?;
    let first = if r.flag()? { 0 } else { sub_layers };
    for _ in first..=sub_layers {
        r.ue()?;
        r.ue()?;
        r.ue()?;
    }
    let max_layer = r.u(6)?;
    for _ in 0..r.ue_max(1023)? {
        r.skip(max_layer + 1)?;
    }
    if !r.flag()? {
        return Some((id, (0, 0)));
    }
    let tick = r.u(32)?;
    let scale = r.u(32)?;
    Some((id, rate(u64::from(scale), u64::from(tick))))
}

/// All parameter sets seen, the slice before, and the count of the pictures.
#[derive(Debug)]
pub struct State {
    vps_rate: [(u32, u32); 16],
    sps: [Option<Box<Sps>>; 16],
    pps: [Option<Pps>; 64],
    /// The SPS that the last slice referred to.
    active: Option<u8>,
    /// Grows when that, or what it (or its VPS) says, changes.
    generation: u32,
    previous: Option<Slice>,
    poc: slice::Counter,
    /// What the last slice says of its references.
    references: Option<references::References>,
    pictures: references::Pictures,
}

impl Default for State {
    fn default() -> Self {
        State {
            vps_rate: [(0, 0); 16],
            sps: [const { None }; 16],
            pps: [None; 64],
            active: None,
            generation: 0,
            previous: None,
            poc: slice::Counter::default(),
            references: None,
            pictures: references::Pictures::default(),
        }
    }
}

impl State {
    /// Stores a VPS's timing and returns its id; `None` if it breaks the syntax. `rbsp` begins
    /// behind the NAL unit's header, as for the others.
    pub fn add_vps(&mut self, rbsp: &[u8]) -> Option<u8> {
        let (id, rate) = parse_vps(rbsp)?;
        let place = self.vps_rate.get_mut(usize::from(id))?;
        if *place != rate {
            *place = rate;
            self.generation += 1;
        }
        Some(id)
    }

    /// How picture timing messages are coded: by the SPS in use, or by the first one.
    pub fn timing_syntax(&self) -> Option<TimingSyntax> {
        let of = |id: u8| self.sps.get(usize::from(id))?.as_deref();
        let active = self.active.and_then(of);
        let sps = active.or_else(|| self.sps.iter().flatten().next().map(|s| &**s))?;
        Some(TimingSyntax {
            pic_struct: sps.field_info,
            ..TimingSyntax::default()
        })
    }

    /// Stores an SPS and returns its id and that of its VPS; `None` if it breaks the syntax.
    pub fn add_sps(&mut self, rbsp: &[u8]) -> Option<(u8, u8)> {
        let sps = parse_sps(rbsp)?;
        let ids = (sps.id, sps.vps);
        let place = self.sps.get_mut(usize::from(sps.id))?;
        if place.as_deref() != Some(&sps) {
            *place = Some(Box::new(sps));
            self.generation += u32::from(self.active == Some(ids.0));
        }
        Some(ids)
    }

    /// Stores a PPS and returns its id and that of its SPS; `None` if it breaks the syntax.
    pub fn add_pps(&mut self, rbsp: &[u8]) -> Option<(u8, u8)> {
        let pps = parse_pps(rbsp)?;
        let ids = (pps.id, pps.sps);
        *self.pps.get_mut(usize::from(pps.id))? = Some(pps);
        Some(ids)
    }

    /// The number of the SPS in use.
    pub const fn active(&self) -> Option<u8> {
        self.active
    }

    /// What the SPS in use (and its VPS) say.
    pub fn info(&self) -> Option<VideoInfo> {
        let sps = self.sps.get(usize::from(self.active?))?.as_deref()?;
        let mut info = sps.info;
        if info.frame_rate == (0, 0) {
            let of_vps = self.vps_rate.get(usize::from(sps.vps));
            info.frame_rate = of_vps.copied().unwrap_or_default();
        }
        Some(info)
    }

    /// Grows with each change of [`State::info`].
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// The slice segment before.
    pub const fn previous(&self) -> Option<Slice> {
        self.previous
    }

    /// `slice` is the one that the next is compared with.
    pub const fn follow(&mut self, slice: Slice) {
        self.previous = Some(slice);
    }

    /// The place in display order of the picture that `slice` belongs to, and whether decoding
    /// begins afresh there (`NoRaslOutputFlag`: its RASL pictures are not decodable). Once for
    /// each picture, in decoding order.
    pub fn picture_order(&mut self, slice: &Slice) -> (Option<DisplayOrder>, bool) {
        let sps = self
            .active
            .and_then(|id| self.sps.get(usize::from(id))?.as_deref());
        let bits = sps.map_or(4, |s| s.log2_max_poc_lsb);
        self.poc.next(bits, slice)
    }

    /// Whether a picture that the picture of `slice` refers to never came. `slice` was the last
    /// one that was parsed, and [`State::picture_order`] has just told `order` and `afresh`.
    pub fn lacks_references(
        &mut self,
        slice: &Slice,
        order: Option<DisplayOrder>,
        afresh: bool,
    ) -> bool {
        let sps = self
            .active
            .and_then(|id| self.sps.get(usize::from(id))?.as_deref());
        let bits = sps.map_or(4, |s| s.log2_max_poc_lsb);
        let references = self.references.as_ref();
        self.pictures.lacks(slice, order, afresh, references, bits)
    }

    /// A sequence ends (NAL unit type 36 or 37): the next CRA picture begins afresh.
    pub const fn end_of_sequence(&mut self) {
        self.poc.end_of_sequence();
    }

    /// The stream starts afresh: the slice before is forgotten, and what follows is not shown
    /// before anything that was.
    pub fn restart(&mut self) {
        self.previous = None;
        self.poc.restart();
        self.pictures.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A VPS (one sub-layer, one layer set) with that timing.
    fn vps(tick: u32, scale: u32) -> Vec<u8> {
        let mut bits = String::new();
        let mut put = |n: usize, value: u64| bits.push_str(&format!("{value:0n$b}"));
        put(4, 5);
        put(2, 3);
        put(6, 0);
        put(3, 0);
        put(1, 1);
        put(16, 0xFFFF);
        // Profile, tier and level.
        put(8, 1);
        put(32, 0x6000_0000);
        put(48, 0x9000_0000_0000);
        put(8, 93);
        put(1, 1);
        // 4, 0, 0; no further layer sets.
        put(5, 0b00101);
        put(2, 0b11);
        put(6, 0);
        put(1, 1);
        put(1, 1);
        put(32, u64::from(tick));
        put(32, u64::from(scale));
        put(1, 1);
        let bytes = bits.as_bytes().chunks(8).map(|c| {
            let byte = c.iter().fold(0, |b, &x| b << 1 | (x - b'0'));
            byte << (8 - c.len())
        });
        let mut escaped = Vec::new();
        for byte in bytes {
            if byte <= 3 && escaped.ends_with(&[0, 0]) {
                escaped.push(3);
            }
            escaped.push(byte);
        }
        escaped
    }

    #[test]
    fn the_frame_rate_may_stand_in_the_vps() {
        assert_eq!(parse_vps(&vps(1001, 60_000)), Some((5, (60_000, 1001))));
        assert_eq!(
            parse_vps(&vps(0, 60_000)),
            Some((5, (0, 0))),
            "no time at all"
        );
        let whole = vps(1, 50);
        for cut in 0..whole.len() - 1 {
            assert_eq!(parse_vps(&whole[..cut]), None, "{cut}");
        }
    }
}
