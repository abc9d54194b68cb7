//! libFuzzer on the target `commands`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::commands::TARGET.run)(input));
