//! A configuration is read and rendered, patches are applied.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::config::check(data));
