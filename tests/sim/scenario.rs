//! What a seed makes of the world: the path, the latency, the rate, where the sequence numbers
//! begin, and how it ends.

use core::time::Duration;

use mirror_base::PacketSequenceNumber;
use mirror_netem::{BurstLoss, Config as Path};
use mirror_srt::Config;

/// SplitMix64: no dependency, the same sequence each time.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn share(&mut self, most: f64) -> f64 {
        self.below(10_000) as f64 / 10_000.0 * most
    }
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    /// Loss, reordering and duplication that ARQ must repair within the latency.
    Fair,
    /// Bursts, long delays, blackouts: much is lost, and nothing may go wrong beyond that.
    Foul,
    /// Bits flip as well, as if nobody checked UDP checksums.
    Corrupting,
}

/// How the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The sender closes when everything is acknowledged.
    Close,
    /// The path is cut.
    Cut,
}

/// One scenario.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) path: Path,
    pub(crate) config: Config,
    pub(crate) initial: PacketSequenceNumber,
    pub(crate) interval: Duration,
    pub(crate) packets: u64,
    pub(crate) payload_bytes: u64,
    /// Nothing passes from the first to the second packet's time.
    pub(crate) blackout: Option<(u64, u64)>,
    pub(crate) end: End,
}

impl Scenario {
    pub(crate) fn of(seed: u64, weather: Weather) -> Self {
        let mut random = Random(seed);
        let fair = weather == Weather::Fair;
        let delay = Duration::from_micros(random.below(if fair { 20_000 } else { 80_000 }));
        let jitter = Duration::from_micros(random.below(3_000));
        let path = Path {
            loss: random.share(if fair { 0.02 } else { 0.1 }),
            burst_loss: (!fair && random.below(2) == 0).then_some(BurstLoss {
                enter: 0.005,
                leave: 0.1,
                loss: 0.9,
            }),
            reorder: random.share(0.02),
            reorder_delay: Duration::from_micros(random.below(4_000)),
            duplicate: random.share(0.02),
            corrupt: if weather == Weather::Corrupting {
                0.01
            } else {
                0.0
            },
            delay,
            jitter,
            ..Path::default()
        };
        // Six round trips are room for several rounds of repair.
        let latency = if fair {
            (delay + jitter) * 12 + Duration::from_millis(120)
        } else {
            Duration::from_millis(20 + random.below(400))
        };
        let packets = 1_000 + random.below(2_000);
        // Every third begins where the numbers wrap within the run.
        let initial = if random.below(3) == 0 {
            0x7FFF_FFFF - random.below(900)
        } else {
            random.below(1 << 31)
        };
        let blackout = (!fair && random.below(3) == 0).then(|| {
            let start = random.below(packets / 2);
            (start, start + 20 + random.below(300))
        });
        Scenario {
            path,
            config: Config {
                latency,
                peer_latency: latency,
                ..Config::default()
            },
            initial: PacketSequenceNumber::new(initial as u32),
            interval: Duration::from_micros(200 + random.below(3_000)),
            packets,
            payload_bytes: 24 + random.below(1_292),
            blackout,
            end: if random.below(2) == 0 {
                End::Close
            } else {
                End::Cut
            },
        }
    }

    /// The payload of packet `number`: its number, then bytes that follow from it.
    pub(crate) fn payload(&self, number: u64) -> Vec<u8> {
        let mut random = Random(number);
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize_with(self.payload_bytes as usize, || random.next() as u8);
        payload
    }
}
