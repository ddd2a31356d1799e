//! What a seed makes of the world: the paths, the clocks, the latencies, who sends what, where
//! the numbers begin, what goes wrong on the way, and how it ends.

use core::time::Duration;

use mirror_base::PacketSequenceNumber;
use mirror_netem::{BurstLoss, Config as Path, RateLimit};
use mirror_srt::{CipherPolicy, Config, InputBandwidth, KeyLength, Passphrase};

use crate::clock::Clock;
use crate::random::Random;
use crate::world::{CALLER, LISTENER};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    /// Loss, reordering and duplication that ARQ must repair within the latency.
    Fair,
    /// Bursts, long delays, outages, narrow links, little memory: much is lost, and nothing may
    /// go wrong beyond that.
    Foul,
    /// Bits flip as well, as if nobody checked UDP checksums.
    Corrupting,
}

/// How the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// This side closes when everything is acknowledged.
    Close(usize),
    /// The path is cut.
    Cut,
}

/// A wire that adds to what one side writes: its numbers begin elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disguise {
    /// Added to the timestamp: the side's clock began so long ago.
    pub(crate) timestamp: u32,
    /// Added to the message numbers, which wrap from 2^26 − 1 to 1.
    pub(crate) message: u32,
}

impl Disguise {
    pub(crate) fn put_on(self, datagram: &mut [u8]) {
        let word =
            |d: &[u8], at: usize| u32::from_be_bytes(d[at..at + 4].try_into().expect("four bytes"));
        let timestamp = word(datagram, 8).wrapping_add(self.timestamp);
        datagram[8..12].copy_from_slice(&timestamp.to_be_bytes());
        const MASK: u32 = (1 << 26) - 1;
        let word1 = word(datagram, 4);
        if datagram[0] & 0x80 == 0 && word1 & MASK != 0 {
            let message = ((word1 & MASK) - 1 + self.message) % MASK + 1;
            datagram[4..8].copy_from_slice(&(word1 & !MASK | message).to_be_bytes());
        }
    }
}

/// What one side sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) packets: u64,
    /// Between two bursts.
    pub(crate) interval: Duration,
    /// Packets at once.
    pub(crate) burst: u64,
    /// Payload sizes, from and to.
    pub(crate) bytes: (u64, u64),
    /// Packets of a transport stream, as far as they are looked at.
    pub(crate) is_ts: bool,
}

impl Stream {
    fn of(random: &mut Random, largest: u64, long: bool) -> Self {
        let burst = if random.once_in(3) {
            random.within(2, 16)
        } else {
            1
        };
        let (packets, spacing) = if long {
            (random.within(2_000, 4_000), random.within(10_000, 20_000))
        } else {
            (random.within(500, 2_500), random.within(200, 3_000))
        };
        let most = random.within(8, largest);
        let least = if random.once_in(2) {
            most
        } else {
            random.within(8, most)
        };
        Stream {
            packets,
            interval: Duration::from_micros(spacing * burst),
            burst,
            bytes: (least, most),
            is_ts: false,
        }
    }

    /// Bits a second on the wire, headers of UDP and IP not counted.
    fn rate(&self) -> u64 {
        (self.bytes.1 + 16) * 8 * self.burst * 1_000_000 / self.interval.as_micros() as u64
    }

    fn packets_a_second(&self) -> u64 {
        self.burst * 1_000_000 / self.interval.as_micros() as u64
    }

    /// The payload of packet `number` of `side`: its number, then bytes that follow from it.
    pub(crate) fn payload(&self, side: usize, number: u64) -> Vec<u8> {
        let mut random = Random(number << 1 | side as u64);
        let len = if self.is_ts {
            188 * random.within(1, 7)
        } else {
            random.within(self.bytes.0, self.bytes.1)
        };
        let mut payload = number.to_be_bytes().to_vec();
        while (payload.len() as u64) < len {
            payload.extend(random.next().to_be_bytes());
        }
        payload.truncate(len as usize);
        if self.is_ts {
            payload.chunks_mut(188).for_each(|packet| packet[0] = 0x47);
        }
        payload
    }

    /// The number in a payload.
    pub(crate) fn number(&self, payload: &[u8]) -> Option<u64> {
        let mut number = *payload.first_chunk::<8>()?;
        if self.is_ts {
            number[0] = 0;
        }
        Some(u64::from_be_bytes(number))
    }
}

/// Nothing passes for a while, in one direction or both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    /// After the connection came about.
    pub(crate) from: Duration,
    pub(crate) length: Duration,
    /// By the side that sends into the link.
    pub(crate) links: [bool; 2],
}

/// How the streams are encrypted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encryption {
    pub(crate) length: KeyLength,
    pub(crate) gcm: bool,
    /// The caller does not know the passphrase.
    pub(crate) wrong: bool,
    /// Packets under one key, and how long before its end the next one is announced.
    pub(crate) refresh: (u32, u32),
}

impl Encryption {
    fn of(random: &mut Random, weather: Weather) -> Option<Self> {
        let is_encrypted = random.once_in(2);
        let lengths = [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256];
        let period = random.within(100, 2_000);
        let encryption = Encryption {
            length: lengths[random.below(3) as usize],
            gcm: random.once_in(2),
            wrong: random.once_in(16) && weather == Weather::Foul,
            refresh: (period as u32, random.within(1, period / 2) as u32),
        };
        is_encrypted.then_some(encryption)
    }

    pub(crate) fn policy(&self) -> CipherPolicy {
        if self.gcm {
            CipherPolicy::Gcm
        } else {
            CipherPolicy::Ctr
        }
    }

    /// The passphrase of one side.
    pub(crate) fn passphrase(&self, side: usize) -> Passphrase {
        let text = if self.wrong && side == CALLER {
            "not as good"
        } else {
            "as good as any"
        };
        Passphrase::new(text).expect("a passphrase")
    }
}

/// Both sides call each other (rendezvous, spec section 6).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meeting {
    pub(crate) cookies: [u32; 2],
    /// The number that the other side than the caller begins with.
    pub(crate) initial: PacketSequenceNumber,
    /// Which side begins later than the other, and by how much.
    pub(crate) late: (usize, Duration),
}

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    /// By the side that sends into them.
    pub(crate) paths: [Path; 2],
    pub(crate) corrupt_per_mille: u64,
    pub(crate) clocks: [Clock; 2],
    pub(crate) configs: [Config; 2],
    pub(crate) initial: PacketSequenceNumber,
    /// Nobody listens: they meet.
    pub(crate) meeting: Option<Meeting>,
    pub(crate) disguises: [Disguise; 2],
    pub(crate) streams: [Option<Stream>; 2],
    pub(crate) encryption: Option<Encryption>,
    /// Chunks of packet memory.
    pub(crate) chunks: [usize; 2],
    /// How long the listener's application thinks about a caller.
    pub(crate) authorisation: Duration,
    pub(crate) outages: Vec<Outage>,
    /// When the caller's address changes, after the connection came about.
    pub(crate) moves: Vec<Duration>,
    /// Datagrams that leave in one system call.
    pub(crate) batches: [usize; 2],
    pub(crate) end: End,
}

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let weather = match seed % 10 {
            0..=3 => Weather::Fair,
            4..=8 => Weather::Foul,
            _ => Weather::Corrupting,
        };
        let fair = weather == Weather::Fair;
        let mut paths = [path(&mut random, weather), path(&mut random, weather)];
        // What came later has a course of its own: kept seeds stay the worlds they were.
        let mut later = Random(seed ^ 0x5EED_0000_0000);
        let encryption = Encryption::of(&mut later, weather);
        let mut configs = configs(&mut random, fair, &paths);
        let largest = largest_payload(&configs, encryption.as_ref());
        let mut streams = streams(&mut random, largest);
        for config in &mut configs {
            if let Some(encryption) = encryption {
                (config.refresh_packets, config.announce_packets) = encryption.refresh;
            }
        }
        let moves = moves(&mut later, streams[CALLER]);
        // AES-CTR alone proves nothing: what it decrypts to must look like something.
        let must_be_ts = !moves.is_empty() && encryption.is_some_and(|e| !e.gcm);
        let moves = if must_be_ts && largest < 1316 {
            Vec::new()
        } else {
            moves
        };
        if let Some(stream) = streams[CALLER].as_mut() {
            stream.is_ts = must_be_ts && largest >= 1316;
            stream.bytes = if stream.is_ts {
                (188, 1316)
            } else {
                stream.bytes
            };
        }
        narrow(&mut random, fair, &streams, &mut paths, &mut configs);
        for config in &mut configs {
            if config.max_bandwidth == 0 && later.once_in(5) {
                // At least what sparse packets need while their rate is still to be measured.
                config.input_bandwidth = InputBandwidth::Measured { least: 1_000_000 };
                config.overhead_percent = later.within(if fair { 50 } else { 5 }, 100) as u8;
            }
        }
        let disguises = disguises(&mut random, encryption.as_ref());
        Scenario {
            seed,
            weather,
            corrupt_per_mille: if weather == Weather::Corrupting {
                10
            } else {
                0
            },
            clocks: [clock(&mut random), clock(&mut random)],
            initial: initial(&mut random),
            meeting: None,
            disguises,
            chunks: [
                chunks(&mut random, fair, &configs, streams[LISTENER]),
                chunks(&mut random, fair, &configs, streams[CALLER]),
            ],
            authorisation: Duration::from_micros(random.below(300_000) * random.below(2)),
            outages: if fair {
                Vec::new()
            } else {
                outages(&mut random)
            },
            moves,
            batches: [later.within(1, 8) as usize, later.within(1, 8) as usize],
            end: match random.below(4) {
                0 => End::Cut,
                1 => End::Close(LISTENER),
                _ => End::Close(CALLER),
            },
            paths,
            configs,
            streams,
            encryption,
        }
    }

    /// The same world in which both sides meet by rendezvous. Bits do not flip: what a listener
    /// echoes, so that a caller sees that it was changed, no end of a rendezvous does.
    pub(crate) fn met(seed: u64) -> Self {
        let mut scenario = Self::of(seed);
        let mut random = Random(seed ^ 0x3EE7_0000_0000);
        let mut cookie = || random.within(1, u64::from(u32::MAX)) as u32;
        let cookies = [cookie(), cookie()];
        let late = random.below(2) as usize;
        scenario.meeting = Some(Meeting {
            cookies,
            initial: initial(&mut random),
            late: (late, Duration::from_millis(random.below(3_000))),
        });
        if scenario.weather == Weather::Corrupting {
            scenario.weather = Weather::Foul;
        }
        scenario.corrupt_per_mille = 0;
        scenario
    }

    /// How long the handshake may take.
    pub(crate) fn patience(&self) -> Duration {
        let patience = self.configs[CALLER].connect_timeout;
        match self.meeting {
            None => patience,
            Some(meeting) => patience * 10 + meeting.late.1,
        }
    }

    /// The receive latency of `side`, as the handshake must agree it (spec section 4.1).
    pub(crate) fn latency(&self, side: usize) -> Duration {
        self.configs[side]
            .latency
            .max(self.configs[1 - side].peer_latency)
    }
}

/// Both configurations are the same in what the handshake does not agree upon.
fn configs(random: &mut Random, fair: bool, paths: &[Path; 2]) -> [Config; 2] {
    let repair = paths.iter().map(time_to_repair).max().unwrap_or_default();
    let payload_size = [1316, 1456][random.below(2) as usize];
    let mss = if random.once_in(6) {
        random.within(200, 1_499) as u16
    } else {
        1_500
    };
    let loss_max_ttl = if random.once_in(3) {
        random.within(1, 40) as u32
    } else {
        0
    };
    // Rounds of repair cost more where gaps are reported later.
    let patience = Duration::from_millis(3) * loss_max_ttl;
    let mut latency = || {
        let any = Duration::from_millis(random.within(20, 1_000));
        if fair {
            any.max(repair + patience)
        } else {
            any
        }
    };
    let mut config = || Config {
        latency: latency(),
        peer_latency: if latency().as_millis() % 3 == 0 {
            latency()
        } else {
            Duration::ZERO
        },
        max_latency: Duration::from_secs(20),
        payload_size,
        mss,
        loss_max_ttl,
        ..Config::default()
    };
    [config(), config()]
}

fn largest_payload(configs: &[Config; 2], encryption: Option<&Encryption>) -> u64 {
    let config = &configs[CALLER];
    let tag = if encryption.is_some_and(|e| e.gcm) {
        16
    } else {
        0
    };
    u64::from(config.payload_size.min(config.mss - 44)).min(1456 - tag) - tag
}

fn path(random: &mut Random, weather: Weather) -> Path {
    let fair = weather == Weather::Fair;
    let bursts = !fair && random.once_in(2);
    Path {
        loss: random.share(if fair { 0.05 } else { 0.1 }) * random.below(2) as f64,
        burst_loss: bursts.then_some(BurstLoss {
            enter: 0.005,
            leave: 0.1,
            loss: 0.9,
        }),
        reorder: random.share(0.03),
        reorder_delay: Duration::from_micros(random.below(if fair { 5_000 } else { 40_000 })),
        duplicate: random.share(0.03),
        delay: Duration::from_micros(random.below(if fair { 25_000 } else { 150_000 })),
        jitter: Duration::from_micros(random.below(5_000)),
        ..Path::default()
    }
}

/// How long ARQ may take until what is still missing is a miracle: a packet is lost with
/// probability p, each round of NAK and retransmission fails with at most 2p, and before there
/// is a measured round trip the periodic NAK waits for 150 ms.
fn time_to_repair(path: &Path) -> Duration {
    let rounds = (1e-10_f64.ln() / (2.0 * path.loss.max(0.001)).ln()).ceil() as u32;
    let once = (path.delay + path.jitter + path.reorder_delay) * 4 + Duration::from_millis(30);
    // The handshake agrees on whole milliseconds.
    Duration::from_millis(200 + (once * rounds).as_millis() as u64)
}

fn streams(random: &mut Random, largest: u64) -> [Option<Stream>; 2] {
    let long = random.once_in(12);
    let who = random.below(4);
    [
        (who != 0).then(|| Stream::of(random, largest, long)),
        (who <= 1).then(|| Stream::of(random, largest, long)),
    ]
}

/// Bottlenecks, pacing and small windows.
fn narrow(
    random: &mut Random,
    fair: bool,
    streams: &[Option<Stream>; 2],
    paths: &mut [Path; 2],
    configs: &mut [Config; 2],
) {
    for side in [CALLER, LISTENER] {
        let rate = streams[side].map_or(200_000, |s| s.rate());
        if random.once_in(4) {
            let percent = if fair { 300 } else { random.within(70, 200) };
            paths[side].rate_limit = Some(RateLimit {
                bits_per_second: rate * percent / 100 + 1_000_000,
                queue_bytes: random.within(30_000, 100_000),
            });
        }
        if random.once_in(4) {
            let percent = random.within(90, 300);
            // LiveCC takes all packets for full ones until it has seen some.
            let full = streams[side].map_or(100, |s| s.packets_a_second() * 1_600);
            let bandwidth = if fair {
                full * 2
            } else {
                rate / 8 * percent / 100
            };
            configs[side].max_bandwidth = bandwidth.max(20_000);
        }
        if !fair && random.once_in(6) {
            configs[side].flow_window = random.within(32, 2_000) as u32;
            configs[side].send_buffer_packets = random.within(32, 2_000) as u32;
        }
    }
}

fn clock(random: &mut Random) -> Clock {
    Clock {
        offset: random.below(100_000_000_000_000),
        drift_ppm: random.within(0, 400) as i64 - 200,
    }
}

/// Every third begins where the numbers wrap within the run.
fn initial(random: &mut Random) -> PacketSequenceNumber {
    let any = if random.once_in(3) {
        0x7FFF_FFFF - random.below(900)
    } else {
        random.below(1 << 31)
    };
    PacketSequenceNumber::new(any as u32)
}

/// Timestamps that wrap within the run or soon before it, message numbers that wrap. Not with
/// AES-GCM, which authenticates them.
fn disguises(random: &mut Random, encryption: Option<&Encryption>) -> [Disguise; 2] {
    let mut one = || {
        let near_the_wrap = random.once_in(3);
        let timestamp = 0_u32.wrapping_sub(random.below(40_000_000) as u32);
        let message = (1 << 26) - 2 - random.below(900) as u32;
        let honest = encryption.is_some_and(|e| e.gcm);
        Disguise {
            timestamp: if near_the_wrap && !honest {
                timestamp
            } else {
                0
            },
            message: if random.once_in(3) && !honest {
                message
            } else {
                0
            },
        }
    };
    [one(), one()]
}

/// Memory for what `peer` sends: enough for twice the latency, or in foul weather sometimes not.
fn chunks(random: &mut Random, fair: bool, configs: &[Config; 2], peer: Option<Stream>) -> usize {
    let Some(stream) = peer else { return 2 };
    let latency = configs
        .iter()
        .flat_map(|c| [c.latency, c.peer_latency])
        .max();
    let span = latency.unwrap_or_default() * 2 + Duration::from_millis(500);
    let packets = span.as_micros() as u64 * stream.burst / stream.interval.as_micros() as u64;
    let enough = (packets as usize).min(8_192) / mirror_base::ring::CHUNK_SLOTS + 8;
    if !fair && random.once_in(8) {
        3 + random.below(enough as u64) as usize
    } else {
        enough
    }
}

/// The listener follows a caller that sends, and goes on sending: only data proves who it is.
fn moves(random: &mut Random, stream: Option<Stream>) -> Vec<Duration> {
    let Some(stream) = stream.filter(|s| s.interval < Duration::from_millis(50)) else {
        return Vec::new();
    };
    let lasts = stream.interval * (stream.packets / stream.burst) as u32;
    let within = lasts.as_millis().saturating_sub(700) as u64;
    let times = if within > 0 {
        random.below(9).saturating_sub(6)
    } else {
        0
    };
    (0..times)
        .map(|_| Duration::from_millis(random.below(within)))
        .collect()
}

fn outages(random: &mut Random) -> Vec<Outage> {
    let links = |which| [which != 0, which != 1];
    (0..random.below(3))
        .map(|_| Outage {
            from: Duration::from_millis(random.below(3_000)),
            length: Duration::from_millis(random.within(1, 2_000)),
            links: links(random.below(4)),
        })
        .collect()
}
