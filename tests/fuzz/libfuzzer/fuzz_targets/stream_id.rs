//! libFuzzer's entry to `mirror_fuzz::stream_id`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::stream_id::run(data));
