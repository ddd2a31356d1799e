//! Round trips: media is packetised as the standards allow it, in ways that the input chooses
//! (sizes, aggregation, fragmentation, interleaving, losses that can be repaired), and what comes
//! out must be what went in. The input is nothing but choices: each is honest, whatever its bytes.

mod elements;
mod nal;
mod numbered;
mod obu;
mod pictures;
mod recovery;
mod rtcp;
mod sdp;
mod sound;
mod source;
mod srt;
mod transport;
mod xs;

use core::time::Duration;

use mirror_base::ring::SlotMeta;
use mirror_base::{Instant, SlotRing};
use mirror_media::{AccessUnit, Format, Limits, Packet, PayloadHint, Pipeline};

/// A round trip: its name, and what it does with the choices.
pub type RoundTrip = (&'static str, fn(&mut Choices<'_>));

/// Every round trip.
pub const ROUND_TRIPS: &[RoundTrip] = &[
    ("h264", nal::h264),
    ("h265", nal::h265),
    ("h264_interleaved", numbered::h264),
    ("h265_interleaved", numbered::h265),
    ("av1", obu::av1),
    ("jpegxs", xs::jpegxs),
    ("aac", sound::aac),
    ("framed_audio", sound::framed),
    ("packet_audio", sound::packets),
    ("latm", elements::latm),
    ("klv", elements::klv),
    ("mpeg_ts", transport::mpeg_ts),
    ("rtcp", rtcp::compound),
    ("sdp", sdp::description),
    ("srt", srt::srt),
    ("fec", recovery::fec),
    ("rtx", recovery::rtx),
    ("two_paths", recovery::two_paths),
    ("mpv", pictures::mpv),
    ("vp8", pictures::vp8),
    ("vp9", pictures::vp9),
];

/// The first byte says which, the rest are its choices.
pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let (_, run) = ROUND_TRIPS[usize::from(*first) % ROUND_TRIPS.len()];
    run(&mut Choices::new(rest));
}

/// What the input chooses. Where it has ended, choices follow from their number.
#[derive(Debug)]
pub struct Choices<'a> {
    rest: &'a [u8],
    noise: u64,
}

impl<'a> Choices<'a> {
    /// From an input.
    pub fn new(rest: &'a [u8]) -> Self {
        let fold = |seed: u64, b: &u8| (seed ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3);
        Choices {
            rest,
            noise: rest.iter().fold(0xCBF2_9CE4_8422_2325, fold),
        }
    }

    fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => self.random() as u8,
        }
    }

    /// The next of a splitmix64 sequence.
    fn random(&mut self) -> u64 {
        self.noise = self.noise.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.noise;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// One of `0..bound`; 0 where there is none.
    fn below(&mut self, bound: usize) -> usize {
        match bound {
            0 | 1 => 0,
            2..=256 => usize::from(self.byte()) % bound,
            _ => (usize::from(self.byte()) << 8 | usize::from(self.byte())) % bound,
        }
    }

    /// One of `from..=to`.
    fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from) + 1)
    }

    fn flip(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.below(of.len())]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    /// Bytes none of which is 0, 0x0B or 0xFF: no start code and no sync word arises of them.
    fn filling(&mut self, out: &mut Vec<u8>, n: usize) {
        for _ in 0..n.div_ceil(8) {
            let bytes = self.random().to_be_bytes();
            out.extend(bytes.iter().map(|b| b & 0x6F | 0x10));
        }
        out.truncate(out.len() - (n.next_multiple_of(8) - n));
    }

    /// Puts `items` in an order in which none is more than `reach` places from its own.
    fn disorder<T>(&mut self, items: &mut [T], reach: usize) {
        for block in items.chunks_mut(reach + 1) {
            for n in (1..block.len()).rev() {
                let other = self.below(n + 1);
                block.swap(n, other);
            }
        }
    }
}

/// A packet of an RTP stream.
#[derive(Debug)]
struct Sent {
    payload: Vec<u8>,
    timestamp: u32,
    marker: bool,
}

/// A unit that came, and its bytes.
type Came = (AccessUnit, Vec<u8>);

/// A pipeline whose units are read as soon as they come.
struct Receiver {
    pipeline: Pipeline,
    ring: SlotRing,
    now: Instant,
    slot: u64,
    units: Vec<Came>,
}

impl Receiver {
    fn new(format: Format) -> Self {
        Receiver {
            pipeline: Pipeline::new(format, Limits::default()),
            ring: SlotRing::with_owned_chunks(64),
            now: Instant::from_millis(1_000),
            slot: 0,
            units: Vec::new(),
        }
    }

    fn rtp(hint: impl Into<PayloadHint>, clock_rate: u32) -> Self {
        Receiver::new(Format::Rtp {
            hint: Some(hint.into()),
            clock_rate,
            ssrc: 7,
        })
    }

    fn push(&mut self, sent: &Sent) {
        let Sent {
            payload,
            timestamp,
            marker,
        } = sent;
        self.now += Duration::from_micros(50);
        let kept = self.ring.capacity_slots() as u64 / 2;
        self.ring.release_before(self.slot.saturating_sub(kept));
        let meta = SlotMeta::new(self.now, *timestamp, u8::from(*marker) << 7 | 96);
        let room = self.ring.insert(self.slot, payload, meta);
        room.expect("the ring has room");
        self.pipeline.push(Packet {
            slot: self.slot,
            arrival: self.now,
            lost_before: 0,
            discontinuity: false,
            timestamp: *timestamp,
            marker: *marker,
            payload_type: 96,
            payload,
        });
        self.slot += 1;
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(unit) = self.pipeline.poll_unit() {
            let mut bytes = Vec::new();
            let read = self.pipeline.extract(&unit, &self.ring, &mut bytes);
            assert!(read, "{unit:?} can be read");
            self.units.push((unit, bytes));
        }
    }

    /// The stream ends: the units of each track.
    fn finish(mut self) -> (Vec<Vec<Came>>, Pipeline) {
        self.pipeline.finish();
        self.drain();
        let c = self.pipeline.counters();
        assert_eq!(c.discards.total(), 0, "{c:?}");
        let mut tracks = vec![Vec::new(); self.pipeline.tracks().len()];
        for (unit, bytes) in self.units {
            tracks[usize::from(unit.track)].push((unit, bytes));
        }
        (tracks, self.pipeline)
    }

    /// All packets, of which one track's units must come.
    fn all(mut self, sent: &[Sent]) -> Vec<Came> {
        for packet in sent {
            self.push(packet);
        }
        let (mut tracks, pipeline) = self.finish();
        assert!(tracks.len() <= 1, "{:?}", pipeline.tracks());
        tracks.pop().unwrap_or_default()
    }
}

/// What came is what was sent, byte for byte, and nothing is called damaged.
fn assert_same<'a>(
    came: &[Came],
    sent: impl ExactSizeIterator<Item = &'a [u8]>,
    what: &dyn core::fmt::Debug,
) {
    assert_eq!(came.len(), sent.len(), "units of {what:?}");
    for (n, ((unit, bytes), sent)) in came.iter().zip(sent).enumerate() {
        assert!(!unit.damaged, "{n}: {unit:?} of {what:?}");
        assert_eq!(bytes.len(), sent.len(), "{n}: {unit:?} of {what:?}");
        assert!(bytes == sent, "{n}: {unit:?} of {what:?}");
        assert_eq!(unit.bytes as usize, sent.len(), "{n}: {unit:?} of {what:?}");
    }
}
