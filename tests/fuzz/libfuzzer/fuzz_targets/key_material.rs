//! libFuzzer's entry to `mirror_fuzz::key_material`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::key_material::run(data));
