//! libFuzzer on the target `meta_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::meta_file::TARGET.run)(input));
