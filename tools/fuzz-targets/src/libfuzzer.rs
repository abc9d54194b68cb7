//! libFuzzer's program: the target that `FUZZ_TARGET` names, on what the engine makes up.
#![no_main]

use fuzz_targets::{Target, target};
use std::sync::OnceLock;

static CHOSEN: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        CHOSEN.get_or_init(|| target(&name));
    },
    |input: &[u8]| {
        let target = CHOSEN.get().expect("chosen before the first input");
        (target.run)(input);
    }
);
