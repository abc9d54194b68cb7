//! The protection modes when synchronous copies are lost: what is acknowledged, what is refused,
//! and who may take over afterwards.

use crate::turn;
use rig::cluster::{PATIENCE, PROMPT};
use rig::{Cluster, Conn, Node, Spec, Value, holds_for, until};
use std::time::{Duration, Instant};

/// I5: a node that was not in the sync set is never promoted without force.
#[test]
fn a_stale_backup_that_returns_after_the_primary_died_is_never_promoted() {
    let mut cluster = turn::start(&Spec::pair());
    let primary = cluster.primary();
    let backup = cluster.backup();
    let mut client = cluster.client();
    assert_eq!(client.call(&["SET", "k", "on both"]).unwrap(), Value::ok());

    cluster.kill(&backup);
    let lost = Instant::now();
    assert_eq!(
        client.call(&["SET", "k", "on the primary"]).unwrap(),
        Value::ok()
    );
    let waited = lost.elapsed();
    println!("the first write after the backup was killed took {waited:?}");
    assert!(
        waited < Duration::from_secs(3),
        "writes go on within sync_timeout, not {waited:?}"
    );

    cluster.kill(&primary);
    cluster.restart(&backup);
    assert!(
        rig::cluster::answers(&backup.client, PROMPT),
        "the stale backup runs"
    );
    // Several times failover_timeout, in which it would have been promoted if it could be.
    let mut conn: Option<Conn> = None;
    holds_for(Duration::from_secs(4), || {
        assert_eq!(
            cluster.try_primary(),
            None,
            "nobody may serve: the only copy is down"
        );
        let reply = match &mut conn {
            None => {
                conn = Conn::open(&backup.client, PROMPT).ok();
                return;
            }
            Some(open) => open.call(&["GET", "k"]).and_then(|read| {
                let write = open.call(&["SET", "k", "on the stale backup"])?;
                Ok((read, write))
            }),
        };
        match reply {
            Ok((read, write)) => {
                assert!(read.refusal().is_some(), "a stale node answered {read:?}");
                assert!(
                    write.refusal().is_some(),
                    "a stale node acknowledged {write:?}"
                );
            }
            Err(_) => conn = None,
        }
    });

    cluster.restart(&primary);
    let again = cluster.primary();
    assert_eq!(
        again.id, primary.id,
        "the node with the acknowledged write serves again"
    );
    let read = cluster.client().call(&["GET", "k"]).unwrap();
    assert_eq!(read, Value::bulk("on the primary"));
    cluster.wait_sync_backups(1);
    cluster.wait_equal_digests(&cluster.data_nodes());
}

/// A paused backup keeps its port, so that only `sync_timeout` can tell that it is lost.
#[test]
fn writes_go_on_within_sync_timeout_when_the_backup_only_hangs() {
    let cluster = turn::start(&Spec::pair());
    let backup = cluster.backup();
    let mut client = cluster.client();
    client.set_timeout(PATIENCE).unwrap();
    cluster.pause(&backup);
    let lost = Instant::now();
    assert_eq!(client.call(&["SET", "k", "v"]).unwrap(), Value::ok());
    println!(
        "the first write after the backup was paused took {:?}",
        lost.elapsed()
    );
    assert!(
        lost.elapsed() < Duration::from_secs(5),
        "{:?}",
        lost.elapsed()
    );
    cluster.resume(&backup);
    cluster.wait_sync_backups(1);
    cluster.wait_equal_digests(&cluster.data_nodes());
}

/// What OUTCOME says of an ordered command.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Pending,
    Never,
    /// With the reply, unless the node has forgotten it.
    Done(Option<Value>),
}

fn outcome(conn: &mut Conn, of: &[String; 3]) -> Option<Fate> {
    let reply = conn.call(&["OUTCOME", &of[0], &of[1], &of[2]]).ok()?;
    if reply.refusal().is_some() {
        return None;
    }
    let mut parts = reply.array();
    match parts[0].text().as_str() {
        "pending" => Some(Fate::Pending),
        "never" => Some(Fate::Never),
        "done" => Some(Fate::Done(parts.drain(1..).next())),
        other => panic!("OUTCOME answers {other}"),
    }
}

/// Waits for an outcome and holds it against what the key says: whoever is primary now, both must
/// tell the same story of the write.
fn assert_true_outcome(cluster: &Cluster, place: &[String; 3]) {
    let mut client = until("the cluster takes writes again", PATIENCE, || {
        let mut client = cluster.client();
        (client.call(&["SET", "probe", "x"]).ok()? == Value::ok()).then_some(client)
    });
    let fate = until("the ordered write has an outcome", PATIENCE, || {
        outcome(&mut client, place).filter(|fate| *fate != Fate::Pending)
    });
    let value = client.call(&["GET", "k"]).unwrap();
    println!("{fate:?}, and the key holds {value:?}");
    match fate {
        Fate::Done(reply) => {
            assert_eq!(value, Value::bulk("ordered"));
            assert!(reply.is_none_or(|reply| reply == Value::ok()));
        }
        Fate::Never => assert_eq!(value, Value::bulk("before")),
        Fate::Pending => unreachable!("waited for another"),
    }
    cluster.wait_equal_digests(&cluster.data_nodes());
}

/// The three numbers of an `UNKNOWN <generation> <epoch> <lsn> ...`.
fn ordered_as(reply: &Value) -> [String; 3] {
    assert_eq!(reply.refusal(), Some("UNKNOWN"), "{reply:?}");
    let text = reply.text();
    let numbers: Vec<String> = text.split(' ').skip(1).take(3).map(str::to_owned).collect();
    numbers
        .try_into()
        .unwrap_or_else(|_| panic!("three numbers after UNKNOWN: {text}"))
}

/// Pauses the backup, gets a write ordered that cannot commit, and watches the next ones be
/// refused. Returns what the ordered one was told.
fn order_one_on_one_copy(cluster: &Cluster, primary: &Node, backup: &Node) -> [String; 3] {
    let mut client = cluster.connect(primary);
    client.set_timeout(PATIENCE).unwrap();
    assert_eq!(client.call(&["SET", "k", "before"]).unwrap(), Value::ok());
    cluster.pause(backup);
    // Not yet known to be lost: the write is ordered, waits for write_timeout and stays open.
    let ordered = client.call(&["SET", "k", "ordered"]).unwrap();
    let place = ordered_as(&ordered);
    // By now the backup is known to be lost: new writes are refused before they are ordered.
    let refused = until(
        "new writes are refused before they are ordered",
        PATIENCE,
        || {
            let reply = client.call(&["SET", "other", "refused"]).unwrap();
            assert!(
                reply.refusal().is_some(),
                "acknowledged on one copy: {reply:?}"
            );
            (reply.refusal() == Some("NOREPLICAS")).then_some(reply)
        },
    );
    println!("{refused:?}");
    holds_for(Duration::from_secs(1), || {
        let reply = client.call(&["SET", "other", "refused"]).unwrap();
        assert!(
            reply.refusal().is_some(),
            "acknowledged on one copy: {reply:?}"
        );
    });
    assert_eq!(
        outcome(&mut client, &place),
        Some(Fate::Pending),
        "the truth is: not yet known"
    );
    place
}

fn max_protection() -> Spec {
    Spec {
        protection: Some("max-protection"),
        ..Spec::pair()
    }
}

#[test]
fn max_protection_refuses_on_one_copy_and_tells_the_outcome_when_the_backup_returns() {
    let cluster = turn::start(&max_protection());
    let (primary, backup) = (cluster.primary(), cluster.backup());
    let place = order_one_on_one_copy(&cluster, &primary, &backup);
    cluster.resume(&backup);
    assert_true_outcome(&cluster, &place);
}

#[test]
fn max_protection_tells_the_same_outcome_at_the_successor() {
    let mut cluster = turn::start(&max_protection());
    let (primary, backup) = (cluster.primary(), cluster.backup());
    let place = order_one_on_one_copy(&cluster, &primary, &backup);
    // Now the primary dies and the backup wakes up: a successor that is alone serves nothing.
    cluster.kill(&primary);
    cluster.resume(&backup);
    let mut conn = cluster.connect(&backup);
    holds_for(Duration::from_secs(3), || {
        if let Ok(reply) = conn.call(&["SET", "other", "alone"]) {
            assert!(
                reply.refusal().is_some(),
                "acknowledged on one copy: {reply:?}"
            );
        } else {
            conn = cluster.connect(&backup);
        }
    });
    cluster.restart(&primary);
    assert_true_outcome(&cluster, &place);
}

#[test]
fn max_performance_acknowledges_on_the_primary_alone() {
    let mut cluster = turn::start(&Spec {
        protection: Some("max-performance"),
        ..Spec::pair()
    });
    let primary = cluster.primary();
    let others: Vec<Node> = cluster
        .data_nodes()
        .into_iter()
        .filter(|node| node.id != primary.id)
        .collect();
    let mut client = cluster.client();
    assert_eq!(
        client.call(&["SET", "k", "with backup"]).unwrap(),
        Value::ok()
    );
    cluster.wait_equal_digests(&cluster.data_nodes());
    cluster.kill_all(&others);
    let started = Instant::now();
    assert_eq!(
        client.call(&["SET", "k", "without backup"]).unwrap(),
        Value::ok()
    );
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "it waits for nobody"
    );
    for node in &others {
        cluster.restart(node);
    }
    cluster.wait_equal_digests(&cluster.data_nodes());
}
