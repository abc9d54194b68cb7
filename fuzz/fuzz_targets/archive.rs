//! libFuzzer on the target `archive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::archive::TARGET.run)(input));
