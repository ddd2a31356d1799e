//! What a TS packet and an RTP packet cost in user space, under callgrind: the release builds of
//! `engine/media/examples/demux_cost.rs`, a stream of 50 Mb/s with audio, clock references and
//! tables, measured by TR 101 290, and of `rtp_cost.rs`. The search for start codes is counted
//! apart: it has to look at every byte, and is held against memchr's over the same bytes.

use std::process::Command;

use mirror_tests::target_dir;

use crate::number_after;
use crate::profile::Profile;

/// Instructions for each packet.
#[derive(Debug)]
struct Cost {
    /// Without the search.
    demultiplexer: f64,
    search: f64,
    text: String,
}

fn measure(arguments: &[&str], what: &str) -> Cost {
    measure_example("demux_cost", arguments, what)
}

fn measure_example(example: &str, arguments: &[&str], what: &str) -> Cost {
    let name = example;
    let example = target_dir().join(format!("release/examples/{name}"));
    assert!(
        example.is_file(),
        "{} is missing: run scripts/test, or cargo build --release -p mirror-media --examples",
        example.display()
    );
    let folder = target_dir().join("cost");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let file = folder.join(format!("{name}-{}.callgrind", arguments.join("-")));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--toggle-collect=*{what}*")])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&example)
        .args(arguments)
        .output()
        .expect("valgrind is installed (scripts/test does that)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}");
    let packets = number_after(&text, "packets ");
    let profile = Profile::read(&file);
    let searches = ["without_code", "holds_half", "memchr::"];
    let search = profile.of(|name| searches.iter().any(|search| name.contains(search)));
    let cost = Cost {
        demultiplexer: (profile.total() - search) as f64 / packets,
        search: search as f64 / packets,
        text,
    };
    println!("{arguments:?}: {cost:.1?}");
    cost
}

#[test]
fn a_ts_packet_costs_at_most_48_instructions_measured_by_tr_101_290() {
    let cost = measure(&["3"], "measured_push");
    assert!(cost.demultiplexer <= 48.0, "{cost:.1?}");
    assert!(!cost.text.contains("Indicator"), "a fault: {}", cost.text);
}

#[test]
fn a_ts_packet_costs_at_most_30_instructions_where_pes_packets_are_handed_on_as_they_are() {
    let cost = measure(&["3", "pes"], "measured_push");
    assert!(cost.demultiplexer + cost.search <= 30.0, "{cost:.1?}");
    assert!(!cost.text.contains("Indicator"), "a fault: {}", cost.text);
}

#[test]
fn tr_101_290_costs_less_than_two_instructions_a_packet() {
    let on = measure(&["2"], "measured_push").demultiplexer;
    let off = measure(&["2", "off"], "measured_push").demultiplexer;
    assert!(on - off < 2.0, "{on:.1} measured, {off:.1} not");
}

#[test]
fn start_codes_are_searched_for_faster_than_memchr_finds_them() {
    let own = measure(&["2"], "measured_push").search;
    let memchr = measure(&["2", "scan"], "demux_cost::scan");
    let memchr = memchr.search + memchr.demultiplexer;
    assert!(
        own < memchr && own <= 50.0,
        "{own:.1} instructions a packet, memchr {memchr:.1}"
    );
}

#[test]
fn an_rtp_packet_of_fragmented_video_costs_at_most_300_instructions() {
    for format in ["h264", "h265"] {
        let cost = measure_example("rtp_cost", &[format], "measured");
        let all = cost.demultiplexer + cost.search;
        assert!(all <= 300.0, "{format}: {cost:.1?}");
    }
}
