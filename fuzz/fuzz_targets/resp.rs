//! libFuzzer on the target `resp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::resp::TARGET.run)(input));
