//! libFuzzer's entry to `mirror_fuzz::av1`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::av1::run(data));
