//! libFuzzer's entry to `mirror_fuzz::sdp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::sdp::run(data));
