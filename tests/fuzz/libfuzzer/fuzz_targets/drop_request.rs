//! libFuzzer's entry to `mirror_fuzz::drop_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::drop_request::run(data));
