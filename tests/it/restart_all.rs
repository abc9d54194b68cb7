//! Every node killed at once: the cluster serves again by itself and has lost nothing.

use crate::turn;
use rig::{Load, Spec};

fn kill_all_and_restart(spec: &Spec) {
    let mut cluster = turn::start(spec);
    let load = Load::start(&cluster.addresses(), 4, "before");
    load.wait_more(300);
    let nodes = cluster.nodes();
    cluster.kill_all(&nodes);
    for node in &nodes {
        cluster.restart(node);
    }
    // The same lanes go on: an operation that was under way when the lights went out is repeated
    // with its token until it has an answer.
    cluster.primary();
    load.wait_more(300);
    let report = load.stop();
    let audit = report.audit(&mut cluster.client());
    println!("{audit:?}, refusals {:?}", report.refusals());
    audit.assert_exactly_once();
    cluster.wait_sync_backups(spec.sync as usize);
    let (lsn, digest) = cluster.wait_equal_digests(&cluster.data_nodes());
    println!("all nodes at LSN {lsn} with digest {digest}");
}

#[test]
fn a_pair_with_a_witness_killed_at_once_serves_again_with_everything() {
    kill_all_and_restart(&Spec::pair());
}

#[test]
fn three_copies_killed_at_once_serve_again_with_everything() {
    kill_all_and_restart(&Spec::triple());
}

#[test]
fn a_standalone_node_killed_serves_again_with_everything() {
    kill_all_and_restart(&Spec::standalone());
}
