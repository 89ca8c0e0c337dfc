//! Bodies of requests, and the rows of imports.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firstcome_fuzz::json::check(data));
