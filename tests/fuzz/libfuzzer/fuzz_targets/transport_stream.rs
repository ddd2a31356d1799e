//! libFuzzer's entry to `mirror_fuzz::transport_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::transport_stream::run(data));
