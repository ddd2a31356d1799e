//! libFuzzer's entry to `mirror_fuzz::handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::handshake::run(data));
