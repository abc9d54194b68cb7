//! One failover or switchover under load on a fresh cluster, measured as clients feel it. Tests run
//! a few, `bench failover` runs ten of each kind.

use crate::cluster::{Cluster, PATIENCE};
use crate::load::{Audit, Load};
use crate::poll::until;
use crate::spec::Spec;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is done to the primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP; SIGCONT once the trial is over.
    Pause,
    /// The planned change of primary.
    Switchover,
}

/// How many connections write: as many as the promise names.
pub const CONNECTIONS: usize = 4;

/// How long the cluster runs under load before anything is done to it.
const WARM_UP: Duration = Duration::from_millis(1500);

/// What one trial gave.
#[derive(Debug)]
pub struct Outcome {
    /// From the last acknowledgement before to the first after, over all connections.
    pub gap: Duration,
    pub audit: Audit,
    /// Error replies that clients saw, by first word.
    pub refusals: BTreeMap<String, u64>,
    pub reconnects: u64,
}

/// Runs one trial; panics when the cluster does not serve again.
pub fn run(binary: &Path, spec: &Spec, fault: Fault) -> Outcome {
    run_in(binary, spec, fault, &std::env::temp_dir())
}

/// As `run`, with the data directories below `parent`.
pub fn run_in(binary: &Path, spec: &Spec, fault: Fault, parent: &Path) -> Outcome {
    let mut cluster = Cluster::start_in(binary, spec, parent);
    let load = Load::start(&cluster.addresses(), CONNECTIONS, "trial");
    // A voter agrees that the primary is lost only once it has been up for `failover_timeout`:
    // what is measured is a cluster that has been running, not one that has just begun.
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP {
        load.wait_more(100);
    }
    let old = cluster.primary();
    let moment = Instant::now();
    match fault {
        Fault::Kill => cluster.kill(&old),
        Fault::Pause => cluster.pause(&old),
        Fault::Switchover => switchover(&cluster),
    }
    until("another node is primary", PATIENCE, || {
        cluster.try_primary().filter(|node| node.id != old.id)
    });
    load.wait_more(500);
    let report = load.stop();
    if fault == Fault::Pause {
        cluster.resume(&old);
    }
    Outcome {
        gap: report.longest_gap_after(moment),
        audit: report.audit(&mut cluster.client()),
        refusals: report.refusals(),
        reconnects: report.reconnects(),
    }
}

/// Asks the primary to hand over, and waits until it says that it has.
pub fn switchover(cluster: &Cluster) {
    let reply = cluster
        .client()
        .call(&["FAILOVER"])
        .expect("FAILOVER is answered");
    assert!(
        reply.refusal().is_none(),
        "the switchover was refused: {reply:?}"
    );
}
