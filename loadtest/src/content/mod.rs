//! Synthetic media with the structure of an encoder's output: GOPs of H.264 or HEVC access units
//! ([`gop`], [`h264`], [`h265`]), multiplexed into MPEG-TS at a constant bit rate ([`ts`]) or
//! packetised for RTP ([`rtp`]). A loop of the content is made once (a *template*, shared by all
//! senders of the same shape); each sender patches counters, clocks and the stamp per packet.

pub mod bits;
pub mod gop;
pub mod h264;
pub mod h265;
mod mpegts;
pub mod rtp;
pub mod stamp;
pub mod ts;

use gop::GopPlan;

/// The video codec of the content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VideoCodec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
}

/// Shape of the video.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VideoShape {
    /// Codec.
    pub codec: VideoCodec,
    /// Luma samples across.
    pub width: u32,
    /// Luma lines.
    pub height: u32,
    /// Frames a second: numerator.
    pub fps_num: u32,
    /// Frames a second: denominator.
    pub fps_den: u32,
    /// Frames in a GOP.
    pub gop: u32,
    /// B frames between two anchors.
    pub b_frames: u32,
}

impl VideoShape {
    /// Duration of a frame in 90 kHz ticks; `None` where it is no whole number.
    pub const fn frame_ticks(&self) -> Option<u64> {
        let ticks = 90_000 * self.fps_den as u64;
        if self.fps_num == 0 || !ticks.is_multiple_of(self.fps_num as u64) {
            return None;
        }
        Some(ticks / self.fps_num as u64)
    }

    /// The order and references of one GOP's frames.
    pub fn plan(&self) -> GopPlan {
        GopPlan::new(self.gop, self.b_frames)
    }

    /// One access unit as NAL units without start codes, about `target` bytes in all, never
    /// fewer than the headers need.
    pub fn access_unit(
        &self,
        frame: &gop::Frame,
        target: usize,
        noise: &mut Noise,
    ) -> Vec<Vec<u8>> {
        match self.codec {
            VideoCodec::H264 => h264::access_unit(self, frame, target, noise),
            VideoCodec::H265 => h265::access_unit(self, frame, target, noise),
        }
    }
}

/// Pseudo-random bytes (splitmix64): the same seed gives the same content.
#[derive(Clone, Debug)]
pub struct Noise {
    state: u64,
}

impl Noise {
    /// A generator that starts at `seed`.
    pub const fn new(seed: u64) -> Self {
        Noise { state: seed }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound` (which must not be 0).
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// Appends `n` bytes none of which is zero: no start code can arise from them, and no
    /// emulation prevention is needed.
    pub fn append_nonzero(&mut self, out: &mut Vec<u8>, n: usize) {
        out.reserve(n);
        let mut left = n;
        while left > 0 {
            for byte in self.next_u64().to_le_bytes().into_iter().take(left) {
                out.push(if byte == 0 { 0x80 } else { byte });
                left -= 1;
            }
        }
    }
}
