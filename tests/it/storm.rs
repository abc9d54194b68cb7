//! Storms of SIGKILL and SIGSTOP: nodes go down again before the cluster has got over the last
//! time, and the bank must not miss a transfer.

use crate::turn;
use rig::bank::{Bank, Staff};
use rig::cluster::PATIENCE;
use rig::poll::until_moment;
use rig::{Cluster, Node, Random, Spec, until};
use std::time::{Duration, Instant};

fn open_bank(cluster: &Cluster) -> Bank {
    let data = cluster.data_nodes();
    let data: Vec<String> = data.into_iter().map(|node| node.client).collect();
    let staff = Staff {
        accounts: 8,
        clerks: 4,
        pace: Duration::from_millis(2),
        seed: 2,
    };
    let bank = Bank::open(&cluster.addresses(), &data, staff);
    bank.wait_more(50);
    bank
}

fn close(cluster: &Cluster, bank: Bank) {
    cluster.wait_sync_backups(cluster.spec().sync as usize);
    bank.wait_more(50);
    let history = bank.close();
    let audit = history.audit(&mut cluster.client());
    println!("{audit:?}, refusals {:?}", history.refusals);
    audit.assert_clean();
    cluster.wait_equal_digests(&cluster.data_nodes());
}

fn pass(random: &mut Random, most_ms: u64) {
    until_moment(Instant::now() + Duration::from_millis(random.below(most_ms)));
}

/// Any node at any moment, whatever it was doing: just started, recovering, being promoted.
#[test]
fn a_storm_of_kills_loses_and_doubles_nothing() {
    let mut random = Random::from_environment();
    let mut cluster = turn::start(&Spec::triple());
    let bank = open_bank(&cluster);
    let nodes = cluster.nodes();
    let mut down: Vec<Node> = Vec::new();
    for _ in 0..turn::count("STANDFAST_STORM_KILLS", 20) {
        let victim = nodes[random.below(nodes.len() as u64) as usize].clone();
        if down.iter().any(|node| node.id == victim.id) {
            down.retain(|node| node.id != victim.id);
            cluster.restart(&victim);
        } else {
            cluster.kill(&victim);
            down.push(victim);
        }
        pass(&mut random, 300);
    }
    for node in down {
        cluster.restart(&node);
    }
    close(&cluster, bank);
}

/// Every node, one after the other and overlapping, for longer and for shorter than anybody waits.
#[test]
fn a_storm_of_pauses_loses_and_doubles_nothing() {
    let mut random = Random::from_environment();
    let cluster = turn::start(&Spec::pair());
    let bank = open_bank(&cluster);
    let nodes = cluster.nodes();
    let mut paused = vec![false; nodes.len()];
    for _ in 0..turn::count("STANDFAST_STORM_PAUSES", 16) {
        let at = random.below(nodes.len() as u64) as usize;
        if paused[at] {
            cluster.resume(&nodes[at]);
        } else {
            cluster.pause(&nodes[at]);
        }
        paused[at] = !paused[at];
        pass(&mut random, 700);
    }
    let still = nodes.iter().zip(paused).filter(|(_, paused)| *paused);
    still.for_each(|(node, _)| cluster.resume(node));
    close(&cluster, bank);
}

/// The witness is asked only when somebody wants to take over: without it writes go on as ever.
#[test]
fn a_paused_witness_is_missed_by_nobody() {
    let cluster = turn::start(&Spec::pair());
    let bank = open_bank(&cluster);
    let witness = cluster.of_role("witness")[0].clone();
    let primary = cluster.primary();
    cluster.pause(&witness);
    bank.wait_more(500);
    // Two of three voters remain: a planned change of primary needs no more.
    cluster
        .cli(&["switchover", "--node", &primary.client])
        .success();
    until("the other node is primary", PATIENCE, || {
        cluster.try_primary().filter(|node| node.id != primary.id)
    });
    bank.wait_more(100);
    cluster.resume(&witness);
    close(&cluster, bank);
}
