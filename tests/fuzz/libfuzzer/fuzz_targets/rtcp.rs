//! libFuzzer's entry to `mirror_fuzz::rtcp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::rtcp::run(data));
