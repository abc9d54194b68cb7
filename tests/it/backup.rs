//! Backup under load, and back: to an LSN, to a time, to the end; equal to the primary at each.

use crate::turn;
use rig::cluster::{PATIENCE, PROMPT, digest};
use rig::{Cluster, Load, Spec, until};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A point at which the primary was seen: nothing was written just before and after.
struct Seen {
    lsn: i64,
    digest: String,
    unix_ms: u128,
}

/// Lets the load rest and notes where the primary stands.
fn rest(cluster: &Cluster, load: Load) -> Seen {
    load.stop()
        .audit(&mut cluster.client())
        .assert_exactly_once();
    let (lsn, digest) = digest(&cluster.primary().client).expect("DIGEST is answered");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970");
    Seen {
        lsn,
        digest,
        unix_ms: now.as_millis(),
    }
}

fn restore(cluster: &Cluster, from: &Path, target: &str) -> (PathBuf, serde_json::Value) {
    let to = cluster
        .scratch()
        .join(format!("restored-{}", target.replace(':', "-")));
    let (from, place) = (from.display().to_string(), to.display().to_string());
    let said = cluster
        .cli(&[
            "restore", "--from", &from, "--to", &place, "--target", target, "--json",
        ])
        .success();
    (
        to,
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}")),
    )
}

/// RFC 3339 of a moment, in UTC.
fn rfc3339(unix_ms: u128) -> String {
    let output = std::process::Command::new("date")
        .args([
            "-u",
            "-d",
            &format!("@{}.{:03}", unix_ms / 1000, unix_ms % 1000),
        ])
        .arg("+%Y-%m-%dT%H:%M:%S.%3NZ")
        .output()
        .expect("date is part of every Linux");
    String::from_utf8(output.stdout)
        .expect("date prints text")
        .trim()
        .to_owned()
}

#[test]
fn a_backup_under_load_is_restored_to_an_lsn_a_time_and_its_end() {
    let cluster = turn::start(&Spec::pair());
    let primary = cluster.primary();
    let store = cluster.scratch().join("backup");
    let place = store.display().to_string();
    let load = |run: &str| Load::start(&cluster.addresses(), 4, run);

    let first = load("first");
    first.wait_more(500);
    // While clients write.
    cluster
        .cli(&["backup", "now", "--node", &primary.client, "--to", &place])
        .success();
    first.wait_more(500);
    let early = rest(&cluster, first);
    let second = load("second");
    second.wait_more(500);
    let late = rest(&cluster, second);
    let third = load("third");
    third.wait_more(500);
    // The second backup brings the log up to here.
    cluster
        .cli(&["backup", "now", "--node", &primary.client, "--to", &place])
        .success();
    third.wait_more(100);
    third
        .stop()
        .audit(&mut cluster.client())
        .assert_exactly_once();

    let list = cluster
        .cli(&["backup", "list", "--from", &place, "--json"])
        .success();
    let list: serde_json::Value = serde_json::from_str(&list).expect("--json prints JSON");
    assert!(!list.is_null(), "the list shows what can be restored");
    cluster
        .cli(&["backup", "verify", "--from", &place])
        .success();

    let (_, by_lsn) = restore(&cluster, &store, &format!("lsn:{}", early.lsn));
    assert_restored(&by_lsn, &early);
    let (_, by_time) = restore(&cluster, &store, &format!("time:{}", rfc3339(late.unix_ms)));
    assert_eq!(by_time["digest"], late.digest.as_str(), "{by_time}");
    let (_, newest) = restore(&cluster, &store, "latest");
    assert!(newest["lsn"].as_i64() > Some(late.lsn), "{newest}");
}

fn assert_restored(said: &serde_json::Value, seen: &Seen) {
    assert_eq!(said["lsn"].as_i64(), Some(seen.lsn), "{said}");
    assert_eq!(
        said["digest"],
        seen.digest.as_str(),
        "the primary's digest there: {said}"
    );
}

#[test]
fn a_restored_directory_serves_what_was_backed_up() {
    let mut cluster = turn::start(&Spec::standalone());
    let node = cluster.primary();
    let store = cluster.scratch().join("backup");
    let place = store.display().to_string();
    let mut client = cluster.client();
    for number in 0..100 {
        client
            .call(&["SET", &format!("k{number}"), &number.to_string()])
            .expect("SET");
    }
    client
        .call(&["ONCE", "paid-1", "INCR", "payments"])
        .expect("ONCE");
    let before = digest(&node.client).expect("DIGEST is answered");
    cluster
        .cli(&["backup", "now", "--node", &node.client, "--to", &place])
        .success();

    // The disk is gone; the directory is made again from the backup and started as it was.
    cluster.kill(&node);
    std::fs::rename(&node.data_dir, cluster.scratch().join("lost")).expect("a rename");
    let to = node.data_dir.display().to_string();
    let mut words = vec!["restore", "--from", &place, "--to", &to];
    words.extend(["--node", &node.id, "--activate"]);
    // For all that the archive tells the cluster lives.
    let refused = cluster.cli(&words);
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("seems to be alive"), "{refused:?}");
    assert!(!node.data_dir.exists(), "nothing was made");
    words.push("--ignore-old-cluster");
    cluster.cli(&words).success();
    put_back_config(cluster.scratch(), &node.data_dir);
    cluster.restart(&node);
    let after = until("the restored node serves", PATIENCE, || {
        cluster.try_primary()?;
        digest(&node.client)
    });
    assert_eq!(after.1, before.1, "the state that was backed up");
    let mut client = cluster.client();
    client.set_timeout(PROMPT).expect("a time-out can be set");
    let again = client
        .call(&["ONCE", "paid-1", "INCR", "payments"])
        .expect("ONCE");
    assert_eq!(
        again,
        rig::Value::Int(1),
        "tokens are restored, too: it does not run twice"
    );
}

/// Where `dev` keeps node.toml inside the data directory, the operator's text survives the disk.
fn put_back_config(scratch: &Path, data_dir: &Path) {
    let (kept, place) = (scratch.join("lost/node.toml"), data_dir.join("node.toml"));
    if kept.is_file() && !place.is_file() {
        std::fs::copy(kept, place).expect("a copy");
    }
}

#[test]
fn a_damaged_backup_and_an_impossible_target_are_refused() {
    let cluster = turn::start(&Spec::standalone());
    let node = cluster.primary();
    let store = cluster.scratch().join("backup");
    let place = store.display().to_string();
    let mut client = cluster.client();
    for number in 0..100 {
        client
            .call(&["SET", &format!("k{number}"), "v"])
            .expect("SET");
    }
    cluster
        .cli(&["backup", "now", "--node", &node.client, "--to", &place])
        .success();

    let to = cluster.scratch().join("never");
    let aim = to.display().to_string();
    let far = cluster.cli(&[
        "restore",
        "--from",
        &place,
        "--to",
        &aim,
        "--target",
        "lsn:999999",
    ]);
    assert_ne!(far.code, Some(0), "an LSN beyond the backup: {far:?}");
    assert!(!to.join("wal").exists(), "nothing half-made is left");

    let files = files_below(&store);
    let snapshot = files
        .iter()
        .find(|path| path.to_string_lossy().contains("snapshot"));
    let snapshot = snapshot.unwrap_or_else(|| panic!("no snapshot in {files:?}"));
    let mut bytes = std::fs::read(snapshot).expect("a file that was listed");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(snapshot, bytes).expect("the file can be changed");
    let verified = cluster.cli(&["backup", "verify", "--from", &place]);
    assert_ne!(verified.code, Some(0), "{verified:?}");
    let name = snapshot
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let said = format!("{}{}", verified.stdout, verified.stderr);
    assert!(said.contains(name), "the message names the file: {said}");
    // The log from its beginning leads to the same state.
    let around = cluster.scratch().join("around").display().to_string();
    let restored = cluster.cli(&["restore", "--from", &place, "--to", &around]);
    let told = restored.success();
    assert!(told.contains("DAMAGED") && told.contains(name), "{told}");
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("log-")) {
            std::fs::remove_file(file).expect("a file that was listed");
        }
    }
    let restored = cluster.cli(&["restore", "--from", &place, "--to", &aim]);
    assert_ne!(restored.code, Some(0), "{restored:?}");
    assert!(!to.exists(), "nothing half-made is left");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}
