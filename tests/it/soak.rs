//! A short soak: every kind of fault is drawn by a seed, a bank works all through it. The long one
//! is `cargo run --release -p tools -- soak --minutes 30`; docs/soak.md has its figures.

use crate::turn;
use rig::bank::Staff;
use rig::chaos::Kind;
use rig::soak::{self, Plan};
use rig::{Random, Spec};
use std::time::Duration;

#[test]
fn a_bank_survives_whatever_is_done_to_its_cluster() {
    let _turn = turn::wait();
    let seed = Random::from_environment().draw();
    let seconds = turn::count("STANDFAST_SOAK_SECONDS", 20);
    let spec = Spec::triple().proxied();
    let plan = Plan {
        kinds: Kind::all(&spec),
        spec,
        keep: false,
        time: Duration::from_secs(seconds as u64),
        seed,
        staff: Staff {
            accounts: 16,
            clerks: 4,
            pace: Duration::from_millis(10),
            seed,
        },
    };
    let outcome = soak::run(&turn::binary(), &plan, &std::env::temp_dir(), |line| {
        println!("{line}");
    });
    println!("{:?}", outcome.audit);
    outcome.audit.assert_clean();
    assert!(outcome.felt.len() >= 2, "{} faults", outcome.felt.len());
    assert!(outcome.audit.looks > 0 && outcome.audit.stale_looks > 0);
    assert!(outcome.audit.receipts > 0, "no receipt came");
}
