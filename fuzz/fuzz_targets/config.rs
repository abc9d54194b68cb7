//! libFuzzer on the target `config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::config::TARGET.run)(input));
