//! Messages of events.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firstcome_fuzz::events::check(data));
