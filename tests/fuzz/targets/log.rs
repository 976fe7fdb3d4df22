//! Fuzzes the parser that `berth_fuzz::targets::log` names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| berth_fuzz::targets::log(bytes));
