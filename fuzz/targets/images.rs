//! Archives and layouts of images are read.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::images::check(data));
