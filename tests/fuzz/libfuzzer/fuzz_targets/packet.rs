//! libFuzzer's entry to `mirror_fuzz::packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::packet::run(data));
