//! libFuzzer's entry to `mirror_fuzz::capture`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::capture::run(data));
