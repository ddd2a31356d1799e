//! Which room may stand on which (architecture, "The rooms"), and what the sans-IO rooms may
//! pull in from outside: nothing but pure crates when they are built without their default
//! features, and with them the crypto backend of `srt`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::source::root;

/// Each room and the rooms it may depend on directly.
const ALLOWED: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("srt", &["base"]),
    ("rtp", &["base"]),
    // MPEG-TS and payload formats stand on RTP's packet types.
    ("media", &["base", "rtp"]),
    ("stream", &["base", "srt", "rtp", "media"]),
    // Where the cores meet outside of a shard: over files.
    ("inspect", &["base", "srt", "rtp", "media"]),
    ("uring", &["base"]),
    ("shard", &["base", "srt", "rtp", "media", "stream", "uring"]),
    // Control knows command, snapshot and record types, and derives keys for `srt`; not the shard.
    ("control", &["base", "srt", "media", "stream"]),
    (
        "daemon",
        &[
            "base", "srt", "rtp", "media", "stream", "inspect", "uring", "shard", "control",
        ],
    ),
    ("netem", &["base"]),
    (
        "loadtest",
        &[
            "base", "srt", "rtp", "media", "stream", "uring", "shard", "netem",
        ],
    ),
    ("fuzz", &["base", "inspect", "media", "rtp", "srt"]),
    (
        "tests",
        &["base", "srt", "rtp", "media", "stream", "inspect", "netem"],
    ),
];

/// Rooms that know no socket, clock, thread or OS randomness.
pub(crate) const SANS_IO: &[&str] = &["base", "srt", "rtp", "media", "stream", "inspect", "netem"];

/// Outside crates that the sans-IO rooms may reach, directly or not. Each is pure computation;
/// crossbeam-channel is here for the reply channels inside `stream`'s command types, which
/// `stream` itself never sends on.
const PURE: &[&str] = &[
    // collections, parsing
    "memchr",
    "smallvec",
    "hashbrown",
    "foldhash",
    "slab",
    "arrayvec",
    "bitflags",
    "cfg-if",
    "equivalent",
    "allocator-api2",
    // seeded randomness and keyed hashes
    "rand_chacha",
    "rand_core",
    "ppv-lite86",
    "zerocopy",
    "siphasher",
    "sha2",
    "digest",
    "block-buffer",
    "crypto-common",
    "hybrid-array",
    "typenum",
    "cpufeatures",
    // histograms
    "hdrhistogram",
    "byteorder",
    "num-traits",
    "libm",
    // H.264 parameter sets
    "h264-reader",
    "bitstream-io",
    "core2",
    "hex-slice",
    "log",
    "mpeg4-audio-const",
    "rfc6381-codec",
    "four-cc",
    "mp4ra-rust",
    // JSON, as a value in memory
    "serde_json",
    "serde",
    "serde_core",
    "itoa",
    "ryu",
    "zmij",
    // error types
    "thiserror",
    // types that cross to control
    "crossbeam-channel",
    "crossbeam-utils",
    // wipes secrets
    "zeroize",
];

/// What `srt`'s feature `crypto` adds: ciphers in C and assembly, and what builds or calls them.
/// Computation as well, without I/O, but not portable Rust: the sans-IO build leaves it out.
const CRYPTO: &[&str] = &[
    "aes",
    "aes-kw",
    "aws-lc-rs",
    "aws-lc-sys",
    "cipher",
    "cpubits",
    "cpufeatures",
    "crypto-common",
    "hybrid-array",
    "inout",
    "libc",
    "typenum",
];

struct Metadata {
    value: Value,
}

impl Metadata {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--locked"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Metadata {
            value: serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON"),
        }
    }

    fn packages(&self) -> impl Iterator<Item = &Value> {
        self.value["packages"].as_array().expect("packages").iter()
    }
}

fn package_of(room: &str) -> String {
    format!("mirror-{room}")
}

#[test]
fn every_room_stands_only_on_the_rooms_it_may() {
    let metadata = Metadata::read();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata.packages() {
        let Some(room) = package["name"]
            .as_str()
            .and_then(|n| n.strip_prefix("mirror-"))
        else {
            continue;
        };
        let Some(may) = allowed.get(room) else {
            wrong.push(format!(
                "{room} is a room that the dependency rule does not know"
            ));
            continue;
        };
        // What Cargo.toml says, dev-dependencies aside.
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(on) = dependency["name"]
                .as_str()
                .and_then(|n| n.strip_prefix("mirror-"))
            else {
                continue;
            };
            if dependency["kind"].is_null() && !may.contains(&on) {
                wrong.push(format!("{room} must not depend on {on}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn srt_and_media_meet_only_in_stream_and_nothing_reaches_up() {
    assert!(
        transitive("mirror-srt").contains("mirror-base"),
        "cargo tree was understood"
    );
    for room in ["base", "srt", "rtp", "media", "stream", "uring"] {
        let reached = transitive(&package_of(room));
        for never in ["shard", "control", "daemon", "loadtest", "tests"] {
            assert!(
                !reached.contains(&package_of(never)),
                "{room} reaches {never}"
            );
        }
        let both = reached.contains("mirror-srt") && reached.contains("mirror-media");
        assert!(!both || room == "stream", "srt and media meet in {room}");
    }
    assert!(!transitive("mirror-srt").contains("mirror-media"));
    assert!(!transitive("mirror-media").contains("mirror-srt"));
    assert!(!transitive("mirror-control").contains("mirror-shard"));
}

/// Names of everything that `package` reaches when it is built by itself with its default
/// features: normal dependencies, proc macros (which run in the compiler) left out.
fn transitive(package: &str) -> BTreeSet<String> {
    reached(package, &[])
}

/// The same without its default features.
fn transitive_without_features(package: &str) -> BTreeSet<String> {
    reached(package, &["--no-default-features"])
}

fn reached(package: &str, features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal,no-proc-macro",
        ])
        .args(features)
        .args(["--prefix", "none", "--format", "|{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split('|').nth(1)?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != package)
        .map(str::to_owned)
        .collect()
}

#[test]
fn sans_io_rooms_reach_only_pure_crates() {
    let mut wrong = Vec::new();
    for room in SANS_IO {
        for name in transitive_without_features(&package_of(room)) {
            let ours = name
                .strip_prefix("mirror-")
                .is_some_and(|n| SANS_IO.contains(&n));
            if !ours && !PURE.contains(&name.as_str()) {
                wrong.push(format!("{room} reaches {name}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not on the list of pure crates (tests/rules/dependencies.rs): {wrong:#?}"
    );
}

/// With its default features `srt` encrypts: nothing but the list of that may come in.
#[test]
fn the_crypto_backend_brings_nothing_but_itself() {
    let with = transitive("mirror-srt");
    let without = transitive_without_features("mirror-srt");
    let brought: Vec<&String> = with
        .difference(&without)
        .filter(|name| !CRYPTO.contains(&name.as_str()) && !PURE.contains(&name.as_str()))
        .collect();
    assert!(brought.is_empty(), "not on the list CRYPTO: {brought:#?}");
    assert!(with.contains("aws-lc-rs") && !without.contains("aws-lc-rs"));
}

/// Where a wasm32 standard library is installed the compiler proves it; elsewhere the other
/// tests of this file and `sources.rs` stand in.
#[test]
fn sans_io_rooms_build_for_wasm32_where_that_target_is_installed() {
    let target = "wasm32-unknown-unknown";
    let sysroot = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(root())
        .output()
        .expect("rustc runs");
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    if !std::path::Path::new(&sysroot)
        .join("lib/rustlib")
        .join(target)
        .join("lib")
        .is_dir()
    {
        eprintln!("{target} is not installed: the source and dependency checks stand in");
        return;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["check", "--offline", "--locked", "--target", target])
        .arg("--no-default-features")
        .current_dir(root());
    for room in SANS_IO {
        cargo.args(["-p", &package_of(room)]);
    }
    cargo.env("CARGO_TARGET_DIR", root().join("target/wasm"));
    let output = cargo.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
