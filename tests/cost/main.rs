//! What a received SRT packet costs in user space, in instructions and allocations: facts that do
//! not wobble (design, D16). The release build of `engine/shard/examples/shard_cost.rs` runs
//! under callgrind, which counts the shards' turns alone: from the buffer that the kernel filled
//! to the packet's release to its stream. The bounds stand a few percent above what is measured
//! (the table is in `engine/docs/SPECIFICATION.md`): who makes a packet dearer sees it here.
//!
//! The payload's copy is counted apart: its instructions are those of libc's `memcpy`, which
//! chooses them by the processor.

mod media;
mod profile;

use std::process::Command;

use mirror_tests::target_dir;
use profile::Profile;

/// What a run came to.
#[derive(Debug)]
struct Cost {
    /// Instructions for each packet, without copying and without the ciphers' own.
    instructions: f64,
    /// Instructions of memory allocation, in all.
    allocation: u64,
}

fn measure(arguments: &[&str]) -> Cost {
    let example = target_dir().join("release/examples/shard_cost");
    assert!(
        example.is_file(),
        "{} is missing: run scripts/test, or cargo build --release -p mirror-shard --examples",
        example.display()
    );
    let folder = target_dir().join("cost");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let file = folder.join(format!("{}.callgrind", arguments.join("-")));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured_turn*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&example)
        .args(arguments)
        .output()
        .expect("valgrind is installed (scripts/test does that)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let packets = number_after(&text, "packets ") - number_after(&text, "again ");
    let profile = Profile::read(&file);
    let copying = profile.of(|name| name.contains("memcpy") || name.contains("memmove"));
    let ciphers = profile.of(|name| name.contains("aes") || name.contains("gcm"));
    let cost = Cost {
        instructions: (profile.total() - copying - ciphers) as f64 / packets,
        allocation: profile.of(|name| {
            ["malloc", "calloc", "realloc", "free", "posix_memalign"]
                .iter()
                .any(|part| name == *part || name.starts_with(&format!("_int_{part}")))
        }),
    };
    println!(
        "{arguments:?}: {:.0} instructions a packet, copying {:.0}, ciphers {:.0}",
        cost.instructions,
        copying as f64 / packets,
        ciphers as f64 / packets
    );
    cost
}

fn number_after(text: &str, word: &str) -> f64 {
    text.split(word)
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no {word}in {text}"))
}

#[track_caller]
fn assert_at_most(cost: &Cost, bound: f64) {
    assert!(
        cost.instructions <= bound,
        "{:.0} instructions a packet, and {bound} are allowed",
        cost.instructions
    );
    assert_eq!(cost.allocation, 0, "memory was allocated or freed");
}

#[test]
fn a_clear_packet_of_25_streams_stays_within_its_instructions_and_allocates_nothing() {
    assert_at_most(&measure(&["wakes"]), 300.0);
}

#[test]
fn bursts_stay_within_their_instructions() {
    assert_at_most(&measure(&["bursts"]), 285.0);
}

#[test]
fn a_packet_that_comes_alone_costs_a_turn_more_and_nothing_else() {
    assert_at_most(&measure(&["even"]), 425.0);
}

#[test]
fn a_socket_that_has_lost_a_datagram_costs_its_packets_only_the_count() {
    let clear = measure(&["wakes", "ms=890"]);
    let counted = measure(&["wakes", "ms=890", "drops=7"]);
    assert!(
        counted.instructions <= clear.instructions + 45.0,
        "{counted:?} with a drop count, {clear:?} without"
    );
    assert_eq!(counted.allocation, 0);
}

#[test]
fn one_percent_loss_makes_a_packet_no_more_than_a_tenth_dearer() {
    let clear = measure(&["wakes", "ms=890"]);
    let lossy = measure(&["wakes", "ms=890", "loss=10"]);
    assert!(
        lossy.instructions <= clear.instructions * 1.1,
        "{lossy:?} with loss, {clear:?} without"
    );
    assert_eq!(lossy.allocation, 0);
}

#[test]
fn an_encrypted_packet_costs_its_cipher_and_little_more() {
    assert_at_most(&measure(&["wakes", "cipher=ctr", "ms=500"]), 785.0);
}

#[test]
fn an_authenticated_packet_costs_its_cipher_and_little_more() {
    assert_at_most(&measure(&["wakes", "cipher=gcm", "ms=500"]), 650.0);
}

#[test]
fn a_packet_costs_the_same_on_one_shard_on_two_and_on_eight() {
    let one = measure(&["wakes", "streams=8", "shards=1", "ms=400"]);
    for (streams, shards) in [("streams=16", "shards=2"), ("streams=64", "shards=8")] {
        let more = measure(&["wakes", streams, shards, "ms=400"]);
        let ratio = more.instructions / one.instructions;
        assert!((0.97..=1.03).contains(&ratio), "{shards}: {ratio:.3}");
    }
}
