//! libFuzzer's entry to `mirror_fuzz::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::connection::run(data));
