//! The ledger on real nodes: batches over a lost primary, holds that expire, a restart of all.

use crate::turn;
use rig::cluster::PATIENCE;
use rig::{Cluster, Conn, Spec, Value, until};

pub const CREATED: u32 = u32::MAX;
pub const EXISTS: u32 = 46;
const PENDING: u16 = 2;

/// An account of ledger 1, or with the same layout a transfer.
pub fn record(id: u128, fields: &[(usize, u128)], flags: u16) -> [u8; 128] {
    let mut out = [0; 128];
    out[..16].copy_from_slice(&id.to_le_bytes());
    for (at, value) in fields {
        out[*at..at + 16].copy_from_slice(&value.to_le_bytes());
    }
    out[112..116].copy_from_slice(&1u32.to_le_bytes());
    out[116..118].copy_from_slice(&7u16.to_le_bytes());
    out[118..120].copy_from_slice(&flags.to_le_bytes());
    out
}

fn transfer(id: u128, timeout_s: u32) -> [u8; 128] {
    let (debit, credit) = (id % 10 + 1, (id + 1) % 10 + 1);
    let flags = if timeout_s > 0 { PENDING } else { 0 };
    let mut out = record(id, &[(16, debit), (32, credit), (48, 3)], flags);
    out[108..112].copy_from_slice(&timeout_s.to_le_bytes());
    out
}

/// Sends a batch; its statuses, in order.
pub fn batch(conn: &mut Conn, command: &str, events: &[[u8; 128]]) -> Option<Vec<u32>> {
    conn.push_bytes(&[command.as_bytes(), events.as_flattened()]);
    conn.flush().ok()?;
    let Value::Bulk(results) = conn.read().ok()? else {
        return None;
    };
    let status = |result: &[u8]| u32::from_le_bytes(result[8..12].try_into().expect("4 bytes"));
    Some(results.chunks_exact(16).map(status).collect())
}

/// Sends a batch to whoever is primary until it is answered; all of it must be done, or have been.
fn done(cluster: &Cluster, command: &str, events: &[[u8; 128]]) {
    let statuses = until("a primary answers the batch", PATIENCE, || {
        let primary = cluster.try_primary()?;
        batch(&mut cluster.connect(&primary), command, events)
    });
    assert_eq!(statuses.len(), events.len());
    let is_done = |status: &u32| [CREATED, EXISTS].contains(status);
    assert!(statuses.iter().all(is_done), "{statuses:?}");
}

fn text(conn: &mut Conn, command: &[&str]) -> String {
    format!("{:?}", conn.call(command).expect("the primary answers"))
}

#[test]
fn batches_survive_their_primary_and_holds_their_restart() {
    let mut cluster = turn::start(&Spec::pair());
    cluster.wait_sync_backups(1);
    let accounts: Vec<_> = (1..=10).map(|id| record(id, &[], 0)).collect();
    let opened = batch(&mut cluster.client(), "LEDGER.CREATE_ACCOUNTS", &accounts);
    assert_eq!(opened, Some(vec![CREATED; 10]));
    let transfers = |first: u128| {
        (first..first + 2000)
            .map(|id| transfer(id, 0))
            .collect::<Vec<_>>()
    };
    done(&cluster, "LEDGER.CREATE_TRANSFERS", &transfers(1));
    done(&cluster, "LEDGER.CREATE_TRANSFERS", &transfers(1));
    // Whether the killed primary had ordered it or not: sent again, it is done once.
    let old = cluster.primary();
    let mut conn = cluster.connect(&old);
    conn.push_bytes(&[b"LEDGER.CREATE_TRANSFERS", transfers(2001).as_flattened()]);
    conn.flush().expect("it was sent");
    cluster.kill(&old);
    done(&cluster, "LEDGER.CREATE_TRANSFERS", &transfers(2001));
    cluster.restart(&old);
    cluster.wait_sync_backups(1);
    // Holds of a second: a Tick on an idle cluster gives the money back.
    let holds: Vec<_> = (5001..5101).map(|id| transfer(id, 1)).collect();
    done(&cluster, "LEDGER.CREATE_TRANSFERS", &holds);
    let long: Vec<_> = (6001..6011).map(|id| transfer(id, 100_000)).collect();
    done(&cluster, "LEDGER.CREATE_TRANSFERS", &long);
    let mut client = cluster.client();
    let held = client.call(&["TRANSFER.GET", "6001"]).expect("answered");
    let is_held = |fields: &[Value]| fields.last() == Some(&Value::bulk("PENDING"));
    assert!(
        matches!(&held, Value::Array(fields) if is_held(fields)),
        "{held:?}"
    );
    until("the short holds have expired", PATIENCE, || {
        let audit = client.call(&["LEDGER.AUDIT"]).ok()?;
        (audit == audit_of(4110, 10)).then_some(())
    });
    // From a snapshot, or from the log: the same books.
    client.call(&["BGSAVE"]).expect("a snapshot is taken");
    let nodes = cluster.data_nodes();
    cluster.wait_equal_digests(&nodes);
    let before = text(&mut client, &["LEDGER.TOTALS"]);
    let all = cluster.nodes();
    cluster.kill_all(&all);
    for node in &all {
        cluster.restart(node);
    }
    cluster.wait_sync_backups(1);
    let mut client = cluster.client();
    assert_eq!(text(&mut client, &["LEDGER.TOTALS"]), before);
    assert_eq!(
        client.call(&["LEDGER.AUDIT"]).ok(),
        Some(audit_of(4110, 10))
    );
    cluster.wait_equal_digests(&cluster.data_nodes());
}

/// What LEDGER.AUDIT answers of clean books with ten accounts of one ledger.
fn audit_of(transfers: i64, open_holds: i64) -> Value {
    Value::Array(vec![
        Value::bulk("accounts"),
        Value::Int(10),
        Value::bulk("transfers"),
        Value::Int(transfers),
        Value::bulk("open_holds"),
        Value::Int(open_holds),
        Value::bulk("ledgers"),
        Value::Int(1),
    ])
}

/// Files of full segments in a directory, by name.
fn segments_in(dir: &std::path::Path) -> Vec<String> {
    let found = std::fs::read_dir(dir).map(|entries| {
        let names = entries.flatten().map(|entry| entry.file_name());
        let names = names.filter_map(|name| name.into_string().ok());
        names.filter(|name| name.starts_with("segment-")).collect()
    });
    let mut found: Vec<String> = found.unwrap_or_default();
    found.sort();
    found
}

#[test]
fn full_segments_are_kept_in_files_and_survive_kill_backup_and_restore() {
    let mut cluster = turn::start(&Spec::pair());
    let accounts: Vec<_> = (1..=10).map(|id| record(id, &[], 0)).collect();
    done(&cluster, "LEDGER.CREATE_ACCOUNTS", &accounts);
    let mut next = 1u128;
    let mut book = |cluster: &Cluster, batches: usize| {
        for _ in 0..batches {
            let events: Vec<_> = (next..next + 8000).map(|id| transfer(id, 0)).collect();
            done(cluster, "LEDGER.CREATE_TRANSFERS", &events);
            next += 8000;
        }
    };
    book(&cluster, 9);
    let primary = cluster.primary();
    let store = cluster.scratch().join("backup");
    let place = store.display().to_string();
    let back_up = |cluster: &Cluster| {
        let node = &cluster.primary().client;
        cluster
            .cli(&["backup", "now", "--node", node, "--to", &place])
            .success();
    };
    back_up(&cluster);
    let snapshots = primary.data_dir.join("snapshots");
    let first = segments_in(&snapshots);
    assert_eq!(first.len(), 1, "{first:?}");
    // What is written is written once, on the node and in the backup.
    book(&cluster, 9);
    back_up(&cluster);
    let second = segments_in(&snapshots);
    assert_eq!((second.len(), &second[..1]), (2, &first[..]));
    cluster
        .cli(&["backup", "verify", "--from", &place])
        .success();
    let nodes = cluster.data_nodes();
    let (_, digest) = cluster.wait_equal_digests(&nodes);
    let to = cluster.scratch().join("restored");
    let to = to.display().to_string();
    let said = cluster
        .cli(&["restore", "--from", &place, "--to", &to, "--json"])
        .success();
    assert!(said.contains(&digest), "{digest}: {said}");
    let restored = std::path::Path::new(&to).join("snapshots");
    assert_eq!(segments_in(&restored), second);
    // All at once, and from what the files hold.
    cluster.kill_all(&nodes);
    nodes.iter().for_each(|node| cluster.restart(node));
    cluster.wait_sync_backups(1);
    let (_, again) = cluster.wait_equal_digests(&nodes);
    assert_eq!(again, digest);
    book(&cluster, 1);
    let audit = cluster.client().call(&["LEDGER.AUDIT"]);
    assert_eq!(audit.ok(), Some(audit_of(152_000, 0)));
}
