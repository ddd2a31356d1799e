//! libFuzzer's entry to `mirror_fuzz::rendezvous`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::rendezvous::run(data));
