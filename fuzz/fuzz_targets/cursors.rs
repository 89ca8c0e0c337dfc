//! Cursors of lists in pages.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firstcome_fuzz::cursors::check(data));
