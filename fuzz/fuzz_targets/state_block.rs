//! libFuzzer on the target `state_block`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::state_block::TARGET.run)(input));
