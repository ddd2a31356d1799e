//! Replays the fuzz corpora: every input that the targets of `tests/fuzz` found worth keeping,
//! and every one that once broke something.

use std::path::Path;

/// The inputs of a target's corpus, in order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a folder's entry").path();
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            (path.display().to_string(), bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

fn replay(name: &str) {
    let target = mirror_fuzz::TARGETS.iter().find(|(n, _)| *n == name);
    let (_, run) = target.unwrap_or_else(|| panic!("no target {name}"));
    let inputs = corpus(name);
    assert!(inputs.len() >= 5, "the corpus of {name} was found");
    for (path, bytes) in inputs {
        // A panic names the input.
        let caught = std::panic::catch_unwind(|| run(&bytes));
        assert!(caught.is_ok(), "{path} breaks {name}");
    }
}

#[test]
fn packets_that_were_found_by_fuzzing_break_nothing() {
    replay("packet");
}

#[test]
fn handshakes_that_were_found_by_fuzzing_break_nothing() {
    replay("handshake");
}

#[test]
fn rendezvous_that_were_found_by_fuzzing_break_nothing() {
    replay("rendezvous");
}

#[test]
fn loss_lists_that_were_found_by_fuzzing_break_nothing() {
    replay("loss_list");
}

#[test]
fn drop_requests_that_were_found_by_fuzzing_break_nothing() {
    replay("drop_request");
}

#[test]
fn key_material_that_was_found_by_fuzzing_breaks_nothing() {
    replay("key_material");
}

#[test]
fn stream_ids_that_were_found_by_fuzzing_break_nothing() {
    replay("stream_id");
}

#[test]
fn sequences_of_operations_that_were_found_by_fuzzing_break_nothing() {
    replay("connection");
}

#[test]
fn rtp_headers_that_were_found_by_fuzzing_break_nothing() {
    replay("rtp_header");
}

#[test]
fn rtcp_that_was_found_by_fuzzing_breaks_nothing() {
    replay("rtcp");
}

#[test]
fn rtp_sessions_that_were_found_by_fuzzing_break_nothing() {
    replay("rtp_session");
}

#[test]
fn session_descriptions_that_were_found_by_fuzzing_break_nothing() {
    replay("sdp");
}

#[test]
fn captures_that_were_found_by_fuzzing_break_nothing() {
    replay("capture");
}

#[test]
fn transport_streams_that_were_found_by_fuzzing_break_nothing() {
    replay("transport_stream");
}

#[test]
fn h264_streams_that_were_found_by_fuzzing_break_nothing() {
    replay("h264");
}

#[test]
fn hevc_streams_that_were_found_by_fuzzing_break_nothing() {
    replay("h265");
}

#[test]
fn mpeg2_streams_that_were_found_by_fuzzing_break_nothing() {
    replay("mpeg2");
}

#[test]
fn av1_streams_that_were_found_by_fuzzing_break_nothing() {
    replay("av1");
}

#[test]
fn jpeg_xs_streams_that_were_found_by_fuzzing_break_nothing() {
    replay("jpegxs");
}

#[test]
fn rtp_payloads_that_were_found_by_fuzzing_break_nothing() {
    replay("depacketise");
}

#[test]
fn audio_that_was_found_by_fuzzing_breaks_nothing() {
    replay("audio");
}

#[test]
fn payloads_without_a_hint_that_were_found_by_fuzzing_break_nothing() {
    replay("detect");
}

#[test]
fn round_trips_that_were_found_by_fuzzing_break_nothing() {
    replay("round_trip");
}

#[test]
fn every_target_has_a_corpus_and_it_stays_small() {
    for (name, _) in mirror_fuzz::TARGETS {
        let inputs = corpus(name);
        let bytes: usize = inputs.iter().map(|(_, b)| b.len()).sum();
        assert!(
            inputs.len() < 300 && bytes < 1_000_000,
            "{name}: {} inputs, {bytes} bytes",
            inputs.len()
        );
    }
}
