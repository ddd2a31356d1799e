//! Runs a transport stream file through one reader, again and again, for comparing speeds on one
//! file. It is read piece by piece, as any tool would: a piece stays in the processor's cache.
//!
//! ```text
//! cargo build --release -p mirror-media --examples
//! side_by_side ours   FILE.ts [ROUNDS]   # demultiplexer, access units, GOPs, TR 101 290
//! side_by_side demux  FILE.ts [ROUNDS]   # PES packets, their times, TR 101 290
//! side_by_side reader FILE.ts [ROUNDS]   # the crate mpeg2ts-reader: PES packets, their times
//! side_by_side framed FILE.ts [ROUNDS]   # mpeg2ts-reader, and memchr's search for start codes
//! side_by_side file   FILE.ts [ROUNDS]   # nothing: what reading the file costs them all
//! side_by_side all    FILE.ts [ROUNDS]   # these in turns
//! ```
//!
//! `plain` and `bare` are `ours` and `demux` without TR 101 290. `demux` hands on PES packets as
//! they are (`Units::PesPackets`, in the configuration `frame.units = "pes"`). Times are those on
//! a processor; the first round of each is not counted.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Seek as _};
use std::time::Instant as Clock;

use mirror_base::Instant;
use mirror_media::gop::GopTracker;
use mirror_media::{Format, Limits, Packet, Pipeline, Units};

mod reader;

/// Bytes of a payload, as a network brings them.
const PAYLOAD: usize = 7 * 188;
/// Bytes that are read at once.
const PIECE: usize = 128 * PAYLOAD;

/// Bytes that are read between two looks at the clock, at least.
const LEAST_BYTES: usize = 1 << 31;

/// What can be run.
const KINDS: [&str; 7] = ["file", "ours", "plain", "demux", "bare", "reader", "framed"];

/// What a reader has found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// PES packets or access units.
    units: u64,
    /// Those with a time.
    timed: u64,
    /// Groups of pictures, or start codes.
    groups: u64,
}

/// Reads the file from its beginning to its end.
fn pieces(file: &mut File, mut each: impl FnMut(&[u8])) {
    let mut buffer = vec![0; PIECE];
    file.rewind().expect("a file, no pipe");
    loop {
        let mut held = 0;
        while held < PIECE {
            match file
                .read(&mut buffer[held..])
                .expect("the file is readable")
            {
                0 => break,
                read => held += read,
            }
        }
        if held == 0 {
            return;
        }
        each(&buffer[..held]);
    }
}

fn ours(file: &mut File, units: Units, tr101290: bool) -> Found {
    let limits = Limits {
        units,
        tr101290,
        ..Limits::default()
    };
    let mut pipeline = Pipeline::new(Format::MpegTs, limits);
    let mut gops = GopTracker::new();
    let mut found = Found::default();
    let mut take = |pipeline: &mut Pipeline| {
        while let Some(unit) = pipeline.poll_unit() {
            found.units += 1;
            found.timed += u64::from(unit.pts.is_some());
            let track = pipeline.tracks().get(usize::from(unit.track));
            if track.is_some_and(|t| t.codec.is_video()) {
                found.groups += u64::from(gops.take(&unit).is_some());
            }
        }
    };
    let mut slot = 0;
    pieces(file, |piece| {
        for payload in piece.chunks(PAYLOAD) {
            pipeline.push(Packet {
                slot,
                arrival: Instant::from_micros(1_000_000 + slot * 206),
                lost_before: 0,
                discontinuity: false,
                timestamp: 0,
                marker: false,
                payload_type: 0,
                payload,
            });
            slot += 1;
            take(&mut pipeline);
        }
    });
    pipeline.finish();
    take(&mut pipeline);
    found
}

fn run(what: &str, file: &mut File) -> Found {
    match what {
        "ours" => ours(file, Units::AccessUnits, true),
        "plain" => ours(file, Units::AccessUnits, false),
        "demux" => ours(file, Units::PesPackets, true),
        "bare" => ours(file, Units::PesPackets, false),
        "reader" => reader::demultiplex(file, false),
        "framed" => reader::demultiplex(file, true),
        "file" => {
            let mut found = Found::default();
            pieces(file, |piece| {
                found.units += u64::from(!black_box(piece).is_empty())
            });
            found
        }
        other => panic!("{other}: {KINDS:?} or all"),
    }
}

/// Nanoseconds that this process was on a processor (Linux, /proc/self/schedstat): who else is
/// busy does not show in it as it does in a clock's time.
fn on_processor() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Milliseconds that one reading took.
fn timed(what: &str, file: &mut File, bytes: usize) -> (f64, Found) {
    // The kernel's figure moves on in steps of a few milliseconds.
    let times = (LEAST_BYTES / bytes.max(1)).max(1);
    let (clock, before) = (Clock::now(), on_processor());
    let mut found = Found::default();
    for _ in 0..times {
        found = black_box(run(what, file));
    }
    let wall = clock.elapsed().as_nanos() as u64;
    let spent = on_processor().zip(before).map_or(wall, |(a, b)| a - b);
    (spent as f64 / 1e6 / times as f64, found)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let file = arguments.next().expect("a file");
    let rounds = arguments.next().and_then(|a| a.parse().ok());
    let rounds: u32 = rounds.unwrap_or(9).max(1);
    let mut file = File::open(&file).expect("the file is readable");
    let bytes = file.metadata().expect("the file is readable").len() as usize;
    let packets = bytes / 188;
    let kinds: &[&str] = match what.as_str() {
        "all" => &KINDS,
        one => &[one],
    };
    let mut all = vec![Vec::new(); kinds.len()];
    for round in 0..=rounds {
        for (kind, times) in kinds.iter().zip(&mut all) {
            let (ms, found) = timed(kind, &mut file, bytes);
            if round == 0 {
                println!("{kind}: {found:?}");
            } else {
                times.push(ms);
            }
        }
    }
    for (kind, times) in kinds.iter().zip(&mut all) {
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        let gigabits = bytes as f64 * 8.0 / median / 1e6;
        let nanos = median * 1e6 / packets as f64;
        println!(
            "{kind}: median {median:.1} ms, least {least:.1} ms, {gigabits:.1} Gb/s, {nanos:.1} ns a packet"
        );
    }
}
