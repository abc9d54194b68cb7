//! libFuzzer on the target `wal_recovery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::wal_recovery::TARGET.run)(input));
