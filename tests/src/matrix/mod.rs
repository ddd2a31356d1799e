//! The interoperation matrix: programs that speak SRT through libsrt, each way round, over every
//! cipher, latency and line, and what the engine delivered held against what they sent, byte for
//! byte. [`Cell`] is one combination; [`run`] plays batches of them at the same time.
//!
//! Called by the test `interop matrix::…` (a selection that covers each pair of factors) and by
//! `scripts/interop` (all of them).

pub mod feed;
pub mod material;
pub mod pairs;
pub mod peer;
pub mod report;
pub mod run;

pub use report::{Outcome, table};
pub use run::Bench;

/// Who sends to the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// libsrt's own tool.
    SrtLiveTransmit,
    /// ffmpeg's protocol `srt`.
    Ffmpeg,
    /// GStreamer's `srtsink`.
    Gstreamer,
}

/// Who calls whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The peer calls the engine's listener.
    PeerCalls,
    /// The engine calls the peer's listener (`[[srt.callers]]`).
    EngineCalls,
}

/// How the stream is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// Not at all.
    Clear,
    /// AES-CTR with a key of so many bytes.
    Aes(usize),
}

/// What the line between them does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// Nothing.
    Clean,
    /// Loses 1 % each way.
    Loss1,
    /// Loses 5 % each way.
    Loss5,
    /// Loses media in bursts of five on average, 2 % in all, and 1 % of what comes back.
    Bursts,
    /// 2 % come after their three successors.
    Reorder,
    /// 5 % come twice.
    Duplicate,
    /// Round trips of 100 ms.
    Rtt100,
    /// Round trips of 100 ms, and 1 % is lost each way.
    Rtt100Loss1,
    /// Up to 10 ms of jitter.
    Jitter,
    /// The caller's address changes each second. Not part of the matrix: libsrt, when it is
    /// called, does not follow a caller that moves.
    Rebind,
}

/// One cell of the matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Who sends.
    pub peer: Peer,
    /// Who calls.
    pub direction: Direction,
    /// How it is encrypted.
    pub encryption: Encryption,
    /// Receive latency, ms.
    pub latency_ms: u32,
    /// The line.
    pub line: Line,
}

/// What must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Nothing is missing, and the bytes are equal.
    Whole,
    /// The latency is too short for ARQ to repair everything: no more is missing than with
    /// libsrt's own receiver over the same line.
    LikeLibsrt,
}

const PEERS: [Peer; 3] = [Peer::SrtLiveTransmit, Peer::Ffmpeg, Peer::Gstreamer];
const DIRECTIONS: [Direction; 2] = [Direction::PeerCalls, Direction::EngineCalls];
const ENCRYPTIONS: [Encryption; 4] = [
    Encryption::Clear,
    Encryption::Aes(16),
    Encryption::Aes(24),
    Encryption::Aes(32),
];
const LATENCIES: [u32; 3] = [20, 120, 1000];
const LINES: [Line; 9] = [
    Line::Clean,
    Line::Loss1,
    Line::Loss5,
    Line::Bursts,
    Line::Reorder,
    Line::Duplicate,
    Line::Rtt100,
    Line::Rtt100Loss1,
    Line::Jitter,
];

/// The passphrase of every encrypted cell.
pub const PASSPHRASE: &str = "passphrase-of-the-matrix";

impl Line {
    /// The relay's options. Media flows towards the engine: from the caller to the listener if
    /// the peer calls.
    pub fn options(self, direction: Direction) -> Vec<&'static str> {
        let (media, back) = match direction {
            Direction::PeerCalls => ("--forward", "--backward"),
            Direction::EngineCalls => ("--backward", "--forward"),
        };
        match self {
            Line::Clean => vec![],
            Line::Loss1 => vec!["--loss", "1%"],
            Line::Loss5 => vec!["--loss", "5%"],
            Line::Bursts => vec![media, "burst=0.4%,20%", back, "loss=1%"],
            Line::Reorder => vec![
                "--reorder",
                "2%",
                "--reorder-packets",
                "3",
                "--reorder-delay",
                "8ms",
            ],
            Line::Duplicate => vec!["--duplicate", "5%"],
            Line::Rtt100 => vec!["--delay", "50ms"],
            Line::Rtt100Loss1 => vec!["--delay", "50ms", "--loss", "1%"],
            Line::Jitter => vec!["--jitter", "10ms"],
            Line::Rebind => vec!["--rebind", "1s/1s"],
        }
    }

    const fn loses(self) -> bool {
        matches!(
            self,
            Line::Loss1 | Line::Loss5 | Line::Bursts | Line::Rtt100Loss1
        )
    }

    const fn rtt_ms(self) -> u32 {
        match self {
            Line::Rtt100 | Line::Rtt100Loss1 => 100,
            Line::Jitter => 10,
            _ => 0,
        }
    }
}

impl Cell {
    /// Every cell, in a fixed order.
    pub fn all() -> Vec<Cell> {
        let mut all = Vec::new();
        for peer in PEERS {
            for direction in DIRECTIONS {
                for encryption in ENCRYPTIONS {
                    for latency_ms in LATENCIES {
                        all.extend(LINES.map(|line| Cell {
                            peer,
                            direction,
                            encryption,
                            latency_ms,
                            line,
                        }));
                    }
                }
            }
        }
        all
    }

    /// Its name, like "slt-calls-aes128-120ms-loss5"; also its stream's id.
    pub fn name(&self) -> String {
        let peer = match self.peer {
            Peer::SrtLiveTransmit => "slt",
            Peer::Ffmpeg => "ffmpeg",
            Peer::Gstreamer => "gst",
        };
        let direction = match self.direction {
            Direction::PeerCalls => "calls",
            Direction::EngineCalls => "called",
        };
        let encryption = match self.encryption {
            Encryption::Clear => "clear".to_owned(),
            Encryption::Aes(bytes) => format!("aes{}", bytes * 8),
        };
        let line = match self.line {
            Line::Clean => "clean",
            Line::Loss1 => "loss1",
            Line::Loss5 => "loss5",
            Line::Bursts => "bursts",
            Line::Reorder => "reorder",
            Line::Duplicate => "duplicate",
            Line::Rtt100 => "rtt100",
            Line::Rtt100Loss1 => "rtt100-loss1",
            Line::Jitter => "jitter",
            Line::Rebind => "rebind",
        };
        format!(
            "{peer}-{direction}-{encryption}-{}ms-{line}",
            self.latency_ms
        )
    }

    /// The relay's seed: a cell's line takes the same course each time.
    pub fn seed(&self) -> u64 {
        // FNV-1a of the name
        self.name()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
    }

    /// What must hold. ARQ needs several round trips, and several periods of repeated NAKs
    /// (20 ms at the least) where the repair is lost as well.
    pub const fn measure(&self) -> Measure {
        let enough = self.latency_ms >= 120 && self.latency_ms >= 4 * self.line.rtt_ms();
        if self.line.loses() && !enough {
            Measure::LikeLibsrt
        } else {
            Measure::Whole
        }
    }

    /// Whether the sender is made to change its key every 300 packets, three times in a cell:
    /// wherever its program lets us, in every other cell.
    pub fn refreshes_keys(&self) -> bool {
        self.encryption != Encryption::Clear
            && self.peer != Peer::Gstreamer
            && self.seed().is_multiple_of(2)
    }

    /// The place of each factor's value in its list.
    fn levels(&self) -> [usize; 5] {
        fn place<T: PartialEq>(list: &[T], value: &T) -> usize {
            list.iter().position(|v| v == value).unwrap_or(0)
        }
        [
            place(&PEERS, &self.peer),
            place(&DIRECTIONS, &self.direction),
            place(&ENCRYPTIONS, &self.encryption),
            place(&LATENCIES, &self.latency_ms),
            place(&LINES, &self.line),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_names_of_their_own() {
        let mut names: Vec<_> = Cell::all().iter().map(Cell::name).collect();
        assert_eq!(names.len(), 3 * 2 * 4 * 3 * 9);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 648);
    }

    #[test]
    fn only_where_repair_cannot_be_in_time_is_libsrt_the_measure() {
        let cell = |latency_ms, line| Cell {
            peer: Peer::Ffmpeg,
            direction: Direction::PeerCalls,
            encryption: Encryption::Clear,
            latency_ms,
            line,
        };
        for (latency, line) in [(20, Line::Loss1), (120, Line::Rtt100Loss1)] {
            assert_eq!(cell(latency, line).measure(), Measure::LikeLibsrt);
        }
        for (latency, line) in [
            (20, Line::Rtt100),
            (20, Line::Reorder),
            (120, Line::Loss5),
            (1000, Line::Rtt100Loss1),
        ] {
            assert_eq!(cell(latency, line).measure(), Measure::Whole);
        }
    }
}
