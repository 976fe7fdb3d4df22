//! Fuzzes the parser that `berth_fuzz::targets::manifest` names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| berth_fuzz::targets::manifest(bytes));
