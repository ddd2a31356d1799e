//! libFuzzer's entry to `mirror_fuzz::bitstream::h264`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::bitstream::h264(data));
