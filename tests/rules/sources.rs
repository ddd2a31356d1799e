//! What may not stand in the sources.

use crate::dependencies::SANS_IO;
use crate::source::{Source, block_end, line_of, sources};

const MAX_FILE_LINES: usize = 800;
/// The aim is 70; a `match` over many cases or a well-commented sequence may need more.
const MAX_FUNCTION_LINES: usize = 85;

/// Every folder with our Rust code.
const EVERYWHERE: &[&str] = &["engine", "loadtest", "tests"];

/// Words that mean a clock, a socket, a thread, a file, a process, the terminal or the
/// operating system's randomness (std's hash maps seed themselves from it).
const IMPURE: &[&str] = &[
    "std::time",
    "SystemTime",
    "Instant::now",
    "std::net",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixDatagram",
    "ToSocketAddrs",
    "std::os",
    "std::thread",
    "thread::spawn",
    "thread::sleep",
    "thread_local",
    "std::fs",
    "fs::File",
    "std::process",
    "std::env",
    "std::io",
    "println!",
    "eprintln!",
    "print!",
    "getrandom",
    "OsRng",
    "ThreadRng",
    "thread_rng",
    "rand::rng",
    "rand::random",
    "from_os_rng",
    "from_entropy",
    "RandomState",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "libc::",
    "extern \"C\"",
];

fn folder_of(room: &str) -> String {
    if room == "netem" {
        "loadtest/netem/src".into()
    } else {
        format!("engine/{room}/src")
    }
}

fn everywhere() -> Vec<Source> {
    let all: Vec<Source> = EVERYWHERE.iter().flat_map(|f| sources(f)).collect();
    assert!(all.len() > 20, "the sources were found");
    all
}

/// Occurrences of `word` that are not part of a longer identifier.
fn occurrences<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let before = at
                .checked_sub(1)
                .and_then(|i| code.as_bytes().get(i))
                .copied();
            let after = code.as_bytes().get(at + word.len()).copied();
            let begins = !word.as_bytes().first().copied().is_some_and(is_word)
                || !before.is_some_and(is_word);
            let ends = !word.as_bytes().last().copied().is_some_and(is_word)
                || !after.is_some_and(is_word);
            begins && ends
        })
}

fn report(source: &Source, code: &str, word: &str, wrong: &mut Vec<String>) {
    for at in occurrences(code, word) {
        wrong.push(format!("{}:{}: {word}", source.path, line_of(code, at)));
    }
}

#[test]
fn sans_io_rooms_know_no_clock_socket_thread_file_or_os_randomness() {
    let mut wrong = Vec::new();
    for room in SANS_IO {
        let files = sources(&folder_of(room));
        assert!(!files.is_empty(), "{room} has sources");
        for source in &files {
            for word in IMPURE {
                report(source, &source.shipped, word, &mut wrong);
            }
            // `use std::{net::…, time::…}` and `use std::collections::{HashMap}`.
            for (at, _) in source.shipped.match_indices("use std::") {
                let statement = source.shipped[at..].split(';').next().unwrap_or("");
                for word in [
                    "net", "time", "thread", "fs", "process", "env", "io", "os", "HashMap",
                    "HashSet",
                ] {
                    if statement.contains('{') && occurrences(statement, word).next().is_some() {
                        wrong.push(format!(
                            "{}:{}: {word}",
                            source.path,
                            line_of(&source.shipped, at)
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Only `uring` talks to the kernel by hand. The load generator's raw floor, which must share no
/// code with `uring`, calls recvmmsg itself.
#[test]
fn unsafe_stands_only_in_uring() {
    let mut wrong = Vec::new();
    for source in everywhere() {
        let allowed = source.path.starts_with("engine/uring/")
            || source.path.starts_with("loadtest/src/bench");
        if !allowed {
            report(&source, &source.code, "unsafe", &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    for source in everywhere() {
        let lines: Vec<&str> = source.text.lines().collect();
        for at in occurrences(&source.code, "unsafe") {
            let is_block = source.code[at + "unsafe".len()..]
                .trim_start()
                .starts_with(['{', 'i']);
            let line = line_of(&source.code, at);
            let near = &lines[line.saturating_sub(8)..line];
            if is_block && !near.iter().any(|l| l.contains("SAFETY:")) {
                wrong.push(format!("{}:{line}", source.path));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe without a SAFETY comment: {wrong:#?}"
    );
}

#[test]
fn nothing_is_left_to_do_and_no_test_is_ignored() {
    let mut wrong = Vec::new();
    for source in everywhere() {
        for word in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            report(&source, &source.code, word, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_short() {
    let wrong: Vec<String> = everywhere()
        .iter()
        .map(|s| (s.text.lines().count(), &s.path))
        .filter(|&(lines, _)| lines > MAX_FILE_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(
        wrong.is_empty(),
        "more than {MAX_FILE_LINES} lines: {wrong:#?}"
    );
}

#[test]
fn functions_stay_short() {
    let mut wrong = Vec::new();
    for source in everywhere() {
        for at in occurrences(&source.shipped, "fn") {
            let rest = &source.shipped[at..];
            let Some(open) = rest.find(['{', ';']) else {
                continue;
            };
            if rest.as_bytes()[open] == b';' {
                continue;
            }
            let lines = rest[..block_end(rest, open)].lines().count();
            if lines > MAX_FUNCTION_LINES {
                wrong.push(format!(
                    "{}:{}: {lines} lines",
                    source.path,
                    line_of(&source.shipped, at)
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "functions of more than {MAX_FUNCTION_LINES} lines: {wrong:#?}"
    );
}

#[test]
fn every_module_opens_with_a_paragraph() {
    let wrong: Vec<String> = everywhere()
        .into_iter()
        .filter(|s| !s.shipped.trim().is_empty() && !s.text.trim_start().starts_with("//!"))
        .map(|s| s.path)
        .collect();
    assert!(wrong.is_empty(), "no module documentation: {wrong:#?}");
}
