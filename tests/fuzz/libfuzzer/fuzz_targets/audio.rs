//! libFuzzer's entry to `mirror_fuzz::audio`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::audio::run(data));
