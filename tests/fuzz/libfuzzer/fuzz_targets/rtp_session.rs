//! libFuzzer's entry to `mirror_fuzz::rtp_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::rtp_session::run(data));
