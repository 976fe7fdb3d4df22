//! Fuzzes the parsers that `berth_fuzz::targets::console` names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| berth_fuzz::targets::console(bytes));
