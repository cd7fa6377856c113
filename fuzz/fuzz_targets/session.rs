#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replog_fuzz::targets::session(data));
