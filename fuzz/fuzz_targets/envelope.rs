//! The envelope of a job: a message of a line, its headers and its records.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firstcome_fuzz::envelope::check(data));
