//! libFuzzer's entry to `mirror_fuzz::loss_list`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirror_fuzz::loss_list::run(data));
