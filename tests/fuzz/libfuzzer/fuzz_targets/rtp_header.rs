//! libFuzzer's entry to `mirror_fuzz::rtp_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::rtp_header::run(data));
