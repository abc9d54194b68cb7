//! libFuzzer on the target `wal_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::wal_record::TARGET.run)(input));
