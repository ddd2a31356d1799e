//! libFuzzer's entry to `mirror_fuzz::depacketise`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::depacketise::run(data));
