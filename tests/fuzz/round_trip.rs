//! The round trips of `src/round_trip`, each with as many choices as a second or so allows, always
//! the same. A failure names the bytes that chose, made as few and as small as they get.

use mirror_fuzz::round_trip::{Choices, ROUND_TRIPS};
use proptest::prelude::any;
use proptest::test_runner::{Config, RngSeed, TestRunner};

fn play(name: &str, cases: u32) {
    let found = ROUND_TRIPS.iter().find(|(n, _)| *n == name);
    let (_, run) = found.unwrap_or_else(|| panic!("no round trip {name}"));
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 1_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(2_022),
        ..Config::default()
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..400);
    let outcome = runner.run(&bytes, |bytes| {
        run(&mut Choices::new(&bytes));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
}

#[test]
fn h264_in_single_packets_aggregates_and_fragments_comes_out_as_it_went_in() {
    play("h264", 150);
}

#[test]
fn hevc_with_and_without_decoding_order_numbers_comes_out_as_it_went_in() {
    play("h265", 150);
}

#[test]
fn interleaved_h264_comes_out_in_decoding_order() {
    play("h264_interleaved", 100);
}

#[test]
fn interleaved_hevc_comes_out_in_decoding_order() {
    play("h265_interleaved", 100);
}

#[test]
fn av1_in_elements_cut_anywhere_comes_out_as_it_went_in() {
    play("av1", 250);
}

#[test]
fn jpeg_xs_in_codestream_and_slice_mode_comes_out_as_it_went_in() {
    play("jpegxs", 60);
}

#[test]
fn aac_in_au_headers_and_fragments_comes_out_as_it_went_in() {
    play("aac", 300);
}

#[test]
fn audio_frames_and_their_fragments_come_out_as_they_went_in() {
    play("framed_audio", 300);
}

#[test]
fn audio_packets_are_units() {
    play("packet_audio", 300);
}

#[test]
fn latm_elements_come_out_as_they_went_in() {
    play("latm", 300);
}

#[test]
fn klv_units_come_out_as_they_went_in() {
    play("klv", 300);
}

#[test]
fn mpeg_ts_on_any_grid_and_cut_anywhere_comes_out_as_it_went_in() {
    play("mpeg_ts", 120);
}

#[test]
fn rtcp_is_read_as_it_was_written() {
    play("rtcp", 1_000);
}

#[test]
fn session_descriptions_are_read_as_they_were_written() {
    play("sdp", 500);
}

#[test]
fn srt_delivers_what_was_sent_in_the_clear_and_under_keys() {
    play("srt", 40);
}

#[test]
fn fec_gives_back_whatever_can_be_computed() {
    play("fec", 150);
}

#[test]
fn retransmission_gives_back_every_packet() {
    play("rtx", 60);
}

#[test]
fn two_paths_give_every_packet_that_came_on_either() {
    play("two_paths", 150);
}

#[test]
fn mpeg_video_in_slices_and_pieces_of_them_comes_out_as_it_went_in() {
    play("mpv", 100);
}

#[test]
fn vp8_in_partitions_cut_anywhere_comes_out_as_it_went_in() {
    play("vp8", 250);
}

#[test]
fn vp9_in_layers_cut_anywhere_comes_out_as_it_went_in() {
    play("vp9", 250);
}

#[test]
fn every_round_trip_is_played() {
    let source = include_str!("round_trip.rs");
    for (name, _) in ROUND_TRIPS {
        assert!(source.contains(&format!("play(\"{name}\"")), "{name}");
    }
}
