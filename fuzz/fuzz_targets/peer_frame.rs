//! libFuzzer on the target `peer_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (fuzz_targets::targets::peer_frame::TARGET.run)(input));
