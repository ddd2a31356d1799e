//! The captures themselves: all are listed, unchanged, and read as their facts say.

use mirror_tests::capture::{expected, facts, pcap, sha256, srt_folder};
use serde_json::Value;

/// The names of the captures in the folder.
pub(crate) fn names() -> Vec<String> {
    let folder = std::fs::read_dir(srt_folder()).expect("the folder of captures");
    let mut names: Vec<String> = folder
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".pcap")?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Reads a capture.
pub(crate) fn read(name: &str) -> pcap::Capture {
    pcap::read(&srt_folder().join(format!("{name}.pcap"))).expect("a capture")
}

#[test]
fn captures_are_unchanged_and_have_facts() {
    for name in names() {
        let bytes = std::fs::read(srt_folder().join(format!("{name}.pcap"))).expect("readable");
        assert_eq!(expected(&name)["sha256"], sha256(&bytes), "{name}");
    }
}

#[test]
fn what_a_capture_says_on_the_wire_is_what_its_facts_say() {
    for name in names() {
        let expected = expected(&name);
        let found = facts::of(&read(&name));
        for key in [
            "packets",
            "duration_s",
            "counts",
            "handshakes",
            "acks",
            "naks",
            "nak_count",
            "shutdowns",
            "ext_control_messages",
        ] {
            // An empty list may be left out.
            if expected[key].is_null() {
                let empty = matches!(&found[key], Value::Array(a) if a.is_empty());
                let none = matches!(&found[key], Value::Object(o) if o.is_empty());
                assert!(
                    empty || none || found[key] == 0,
                    "{name}: {key} {}",
                    found[key]
                );
            } else {
                assert_eq!(found[key], expected[key], "{name}: {key}");
            }
        }
        compare_flows(&name, &found["flows"], &expected["flows"]);
    }
}

fn compare_flows(name: &str, found: &Value, expected: &Value) {
    let (found, expected) = (found.as_object().unwrap(), expected.as_object().unwrap());
    assert_eq!(found.len(), expected.len(), "{name}");
    for (path, facts) in expected {
        let clear = facts["kk"].as_object().unwrap().keys().all(|k| k == "0");
        for (key, value) in facts.as_object().unwrap() {
            // Payload facts are those of the decrypted payload; which file it is, is not on
            // the wire.
            if key.starts_with("payload_is") || key.starts_with("payload_") && !clear {
                continue;
            }
            assert_eq!(&found[path][key], value, "{name}: {path} {key}");
        }
    }
}
