//! Ids and names that come from outside.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firstcome_fuzz::ids::check(data));
