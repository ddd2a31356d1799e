//! libFuzzer's entry to `mirror_fuzz::jpegxs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::jpegxs::run(data));
