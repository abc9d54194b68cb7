//! libFuzzer on the target `snapshot_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::snapshot_file::TARGET.run)(input));
