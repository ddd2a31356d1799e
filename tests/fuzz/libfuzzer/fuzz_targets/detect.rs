//! libFuzzer's entry to `mirror_fuzz::detect`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::detect::run(data));
