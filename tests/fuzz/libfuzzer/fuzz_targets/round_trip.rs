//! libFuzzer's entry to `mirror_fuzz::round_trip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::round_trip::run(data));
