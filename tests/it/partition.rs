//! Partitions: every direction between two nodes can be cut by itself (`rig::proxy`). Whoever is
//! parted from the others acknowledges nothing and serves nothing stale; whoever is not, goes on.

use crate::turn;
use rig::bank::{Bank, Staff};
use rig::cluster::PATIENCE;
use rig::{Cluster, Conn, Load, Mode, Node, Spec, Value, holds_for, until};
use std::time::Duration;

/// Long enough that whoever could be promoted would be: several times failover_timeout.
const LONG: Duration = Duration::from_secs(2);

const PROMPT: Duration = Duration::from_millis(500);

fn epoch(cluster: &Cluster) -> u64 {
    let status = cluster.status(&cluster.primary());
    status["epoch"].as_u64().expect("status tells the epoch")
}

fn open_bank(cluster: &Cluster) -> Bank {
    let data: Vec<String> = cluster
        .data_nodes()
        .into_iter()
        .map(|node| node.client)
        .collect();
    let staff = Staff {
        accounts: 8,
        clerks: 4,
        pace: Duration::from_millis(5),
        seed: 1,
    };
    let bank = Bank::open(&cluster.addresses(), &data, staff);
    bank.wait_more(50);
    bank
}

fn close(cluster: &Cluster, bank: Bank) {
    let history = bank.close();
    let audit = history.audit(&mut cluster.client());
    println!("{audit:?}, refusals {:?}", history.refusals);
    audit.assert_clean();
    cluster.wait_equal_digests(&cluster.data_nodes());
}

/// Who says, at its own client port, that it serves as primary, apart from this node.
fn successor(cluster: &Cluster, old: &Node) -> Node {
    until("another node serves as primary", PATIENCE, || {
        cluster
            .nodes()
            .into_iter()
            .filter(|node| node.id != old.id && node.holds_data())
            .find(serves)
    })
}

fn serves(node: &Node) -> bool {
    let answer = Conn::open(&node.client, PROMPT).and_then(|mut conn| conn.call(&["GET", "truth"]));
    answer.is_ok_and(|reply| reply.refusal().is_none())
}

fn set(node: &Node, value: &str) {
    let reply = Conn::open(&node.client, PATIENCE).and_then(|mut conn| {
        conn.set_timeout(PATIENCE)?;
        conn.call(&["SET", "truth", value])
    });
    assert_eq!(reply.expect("SET is answered"), Value::ok());
}

/// Cuts `cut` at the primary, waits for a successor, and holds the old one to promise 2 all the
/// while, by clients that never look elsewhere.
fn succeed(cluster: &Cluster, round: usize, cut: impl FnOnce(&Cluster, u32)) {
    let old = cluster.primary();
    let before = format!("before {round}");
    set(&old, &before);
    let mut reader = cluster.connect(&old);
    let mut writer = Conn::open(&old.client, PATIENCE).expect("the primary accepts clients");
    cut(cluster, old.number());
    let new = successor(cluster, &old);
    set(&new, &format!("after {round}"));
    // Not one answer of the old primary counts from here on.
    let mut refused = 0;
    reader.set_timeout(PROMPT).expect("a time-out can be set");
    writer.set_timeout(PROMPT).expect("a time-out can be set");
    let mut stay = |conn: &mut Conn, command: &[&str]| match conn.call(command) {
        Ok(reply) => {
            assert!(
                reply.refusal().is_some(),
                "round {round}: {command:?} gave {reply:?}"
            );
            refused += 1;
        }
        // Silence is no answer; what was asked may still be answered by an error.
        Err(_) => {
            *conn = Conn::open(&old.client, PROMPT).expect("the old primary accepts clients");
        }
    };
    holds_for(Duration::from_secs(1), || {
        stay(&mut reader, &["GET", "truth"]);
        stay(&mut writer, &["SET", "truth", "from the old primary"]);
    });
    println!(
        "round {round}: node {} after node {}, {refused} refusals",
        new.id, old.id
    );
    cluster.proxy().heal();
    cluster.wait_sync_backups(cluster.spec().sync as usize);
    let truth = cluster
        .client()
        .call(&["GET", "truth"])
        .expect("GET is answered");
    assert_eq!(truth, Value::bulk(&format!("after {round}")));
}

/// Parted both ways, deaf, and mute: the rest elects a successor each time, and what the old
/// primary had ordered meanwhile is cut away when it comes back.
#[test]
fn a_primary_that_is_parted_deaf_or_mute_is_succeeded_and_answers_nothing() {
    let cluster = turn::start(&Spec::triple().proxied());
    let bank = open_bank(&cluster);
    succeed(&cluster, 1, |cluster, old| {
        cluster.proxy().isolate(old, Mode::Hold)
    });
    succeed(&cluster, 2, |cluster, old| {
        cluster.proxy().to_node(old, Mode::Vanish)
    });
    succeed(&cluster, 3, |cluster, old| {
        cluster.proxy().from_node(old, Mode::Vanish)
    });
    bank.wait_more(50);
    close(&cluster, bank);
}

/// The witness still hears the primary: the backup must not be promoted however long it hears
/// nothing, and writes go on once it is out of the sync set. One direction is enough to part them.
#[test]
fn a_primary_that_lost_only_its_backup_stays_primary() {
    let cluster = turn::start(&Spec::pair().proxied());
    let bank = open_bank(&cluster);
    let (primary, first) = (cluster.primary(), epoch(&cluster));
    let backup = cluster.backup();
    let (from, to) = (primary.number(), backup.number());
    for (way, cut) in [((from, to), Mode::Vanish), ((to, from), Mode::Hold)] {
        cluster.proxy().set(way.0, way.1, cut);
        bank.wait_more(20);
        until("the backup is out of the sync set", PATIENCE, || {
            let members = cluster.of_role("sync-backup");
            members.is_empty().then_some(())
        });
        holds_for(LONG, || {
            assert!(
                !serves(&backup),
                "a backup that nobody took over from serves"
            );
        });
        bank.wait_more(20);
        cluster.proxy().heal();
        cluster.wait_sync_backups(1);
    }
    assert_eq!(cluster.primary().id, primary.id);
    assert_eq!(epoch(&cluster), first, "nobody was promoted");
    close(&cluster, bank);
}

/// Parted from the other voters but not from the asynchronous backup: the primary must stop, the
/// voters go on, and the asynchronous backup follows whom they elected.
#[test]
fn a_primary_that_lost_the_voters_is_succeeded_though_a_backup_still_hears_it() {
    let spec = Spec {
        asynchronous: 1,
        ..Spec::pair()
    };
    let cluster = turn::start(&spec.proxied());
    let bank = open_bank(&cluster);
    // An asynchronous backup that hears nothing hurts nobody, and catches up.
    let remote = cluster.of_role("async-backup")[0].clone();
    let first = epoch(&cluster);
    cluster.proxy().isolate(remote.number(), Mode::Hold);
    let load = Load::start(&cluster.addresses(), 2, "remote");
    load.wait_more(200);
    let report = load.stop();
    report.audit(&mut cluster.client()).assert_exactly_once();
    assert_eq!(epoch(&cluster), first, "nobody was promoted");
    cluster.proxy().heal();
    until("the asynchronous backup has caught up", PATIENCE, || {
        let (theirs, ours) = (
            rig::cluster::digest(&cluster.primary().client)?,
            rig::cluster::digest(&remote.client)?,
        );
        (ours.0 + 1000 >= theirs.0).then_some(())
    });

    let voters: Vec<u32> = cluster
        .nodes()
        .iter()
        .filter(|node| node.role != "async-backup")
        .map(Node::number)
        .collect();
    succeed(&cluster, 1, move |cluster, old| {
        for &voter in voters.iter().filter(|voter| **voter != old) {
            cluster.proxy().between(old, voter, Mode::Vanish);
        }
    });
    let roles: Vec<String> = cluster.nodes().into_iter().map(|node| node.role).collect();
    assert_eq!(
        roles.iter().filter(|role| *role == "async-backup").count(),
        1
    );
    bank.wait_more(50);
    close(&cluster, bank);
}
