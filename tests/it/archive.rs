//! The continuous archive under load and faults: what it holds restores to what the primary was.

use crate::ledger::{CREATED, batch, record};
use crate::site_loss::keep_working;
use crate::turn;
use age::secrecy::ExposeSecret;
use rig::cluster::{PATIENCE, digest};
use rig::random::Random;
use rig::{Cluster, Load, S3, Spec, holds_for, until};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the primary was at some LSNs, by its own word.
type Past = Vec<(i64, String)>;

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python")
}

/// Every data node takes a snapshot: the next restores may begin there.
pub fn take_snapshots(cluster: &Cluster) {
    for node in cluster.data_nodes() {
        // One may be under way.
        let _ = cluster.connect(&node).call(&["STANDFAST", "SNAPSHOT"]);
    }
}

/// Notes what the primary is, again and again, for so long.
fn watch(cluster: &Cluster, past: &mut Past, span: Duration) {
    holds_for(span, || {
        let seen = cluster.try_primary().and_then(|one| digest(&one.client));
        if let Some(seen) = seen.filter(|seen| past.last().is_none_or(|last| last.0 < seen.0)) {
            past.push(seen);
        }
    });
}

pub fn archive_status(cluster: &Cluster) -> serde_json::Value {
    cluster.status(&cluster.primary())["archive"].clone()
}

pub fn archiver(cluster: &Cluster) -> rig::spec::Node {
    let id = until("a node archives", PATIENCE, || {
        archive_status(cluster)["archiver"].as_u64()
    });
    cluster.node(&id.to_string())
}

/// Waits until the archive has everything that was written by now.
pub fn wait_archived(cluster: &Cluster) {
    let (lsn, _) = digest(&cluster.primary().client).expect("DIGEST is answered");
    until("the archive has what was written", PATIENCE, || {
        let status = archive_status(cluster);
        let is_proved = status["restorable_age_s"]
            .as_f64()
            .is_some_and(|age| age < 3.0);
        (status["through"].as_i64() >= Some(lsn) && is_proved).then_some(())
    });
}

/// Where an archive is, and the identity file that opens it, if it is encrypted.
#[derive(Clone, Copy)]
struct From<'a> {
    place: &'a str,
    identity: Option<&'a str>,
}

impl From<'_> {
    fn run(&self, cluster: &Cluster, words: &[&str]) -> rig::cluster::Said {
        let mut all = [words, &["--from", self.place]].concat();
        if let Some(file) = self.identity {
            all.extend(["--identity", file]);
        }
        cluster.cli(&all)
    }
}

fn restore(cluster: &Cluster, from: From<'_>, target: &str) -> rig::cluster::Said {
    let to = cluster.scratch().join("restored");
    let _ = fs::remove_dir_all(&to);
    let to = to.display().to_string();
    from.run(
        cluster,
        &["restore", "--to", &to, "--target", target, "--json"],
    )
}

fn json(said: rig::cluster::Said) -> serde_json::Value {
    serde_json::from_str(&said.success()).expect("--json prints JSON")
}

/// What one clerk has done, one transfer of 3 after the other: by id, in order.
type Booked = Vec<u128>;

/// Restores to some points of the past, drawn at random, and to the first and the last: by LSN, by
/// time, and before a transfer.
fn check_past(cluster: &Cluster, from: From<'_>, past: &Past, booked: &Booked) {
    let mut random = Random::new(past.len() as u64);
    let points = turn::count("STANDFAST_RESTORE_POINTS", 6);
    let mut counts = [0; 3];
    for case in 0..points {
        match case % 3 {
            0 => check_lsn(
                cluster,
                from,
                &past[random.below(past.len() as u64) as usize],
            ),
            1 => check_time(
                cluster,
                from,
                &past[random.below(past.len() as u64) as usize],
            ),
            _ => check_before(
                cluster,
                from,
                booked,
                random.below(booked.len() as u64) as usize,
            ),
        }
        counts[case % 3] += 1;
    }
    println!("{counts:?} points by LSN, by time, before a transfer");
    check_lsn(cluster, from, &past[0]);
    check_lsn(cluster, from, &past[past.len() - 1]);
    check_before(cluster, from, booked, 0);
    check_before(cluster, from, booked, booked.len() - 1);
    for beyond in [
        "lsn:0",
        "lsn:999999999",
        "time:2001-01-01T00:00:00Z",
        "time:2200-01-01T00:00:00Z",
        "before:999999999",
    ] {
        let said = restore(cluster, from, beyond);
        assert_eq!(said.code, Some(11), "{beyond}: {said:?}");
    }
}

fn check_lsn(cluster: &Cluster, from: From<'_>, (lsn, digest): &(i64, String)) {
    let said = json(restore(cluster, from, &format!("lsn:{lsn}")));
    assert_eq!(said["digest"], digest.as_str(), "at LSN {lsn}: {said}");
}

/// The time is what the log says of that LSN.
fn check_time(cluster: &Cluster, from: From<'_>, (lsn, digest): &(i64, String)) {
    let asked = ["--target", &format!("lsn:{lsn}"), "--query", "DIGEST"];
    let time = json(query(cluster, from, &asked))["time"].clone();
    let time = time.as_str().expect("a time");
    let said = json(restore(cluster, from, &format!("time:{time}")));
    let found = (said["lsn"].as_i64(), said["digest"].as_str());
    assert_eq!(found, (Some(*lsn), Some(digest.as_str())), "{time}");
}

/// Right before the clerk's transfer there are those that it did before, and no other.
fn check_before(cluster: &Cluster, from: From<'_>, booked: &Booked, at: usize) {
    let id = booked[at];
    let target = format!("before:{id}");
    let get = format!("TRANSFER.GET {id}");
    let asked = [
        "--target",
        &target,
        "--query",
        "LEDGER.TOTALS 1",
        "--query",
        &get,
    ];
    let said = json(query(cluster, from, &asked));
    let totals = &said["answers"][0]["reply"][0];
    assert_eq!(totals["debits_posted"], (3 * at).to_string(), "{said}");
    assert!(said["answers"][1]["reply"].is_null(), "{said}");
    let lsn = said["before"]["created_lsn"].as_u64().expect("an LSN");
    assert_eq!(said["lsn"], lsn - 1);
    let asked = ["--target", &format!("lsn:{lsn}"), "--query", &get];
    let after = json(query(cluster, from, &asked));
    let there = &after["answers"][0]["reply"];
    assert_eq!(there["id"], id.to_string(), "{after}");
}

fn query(cluster: &Cluster, from: From<'_>, more: &[&str]) -> rig::cluster::Said {
    from.run(cluster, &[&["restore", "--json"], more].concat())
}

/// Keeps one clerk at work.
struct Clerk {
    stop: Arc<AtomicBool>,
    work: JoinHandle<BTreeSet<u128>>,
}

impl Clerk {
    fn start(cluster: &Cluster) -> Clerk {
        let accounts: Vec<_> = (1..=10).map(|id| record(id, &[], 0)).collect();
        let opened = batch(&mut cluster.client(), "LEDGER.CREATE_ACCOUNTS", &accounts);
        assert_eq!(opened, Some(vec![CREATED; 10]));
        let (stop, nodes) = (Arc::new(AtomicBool::new(false)), cluster.addresses());
        let work = std::thread::spawn({
            let stop = stop.clone();
            move || keep_working(&nodes, 1, &stop)
        });
        Clerk { stop, work }
    }

    fn end(self) -> Booked {
        self.stop.store(true, Ordering::Relaxed);
        let booked = self.work.join().expect("the clerk ends");
        booked.into_iter().collect()
    }
}

/// Load, and in the middle of it: the archiver killed, the next one paused, the store away.
fn ordeal(cluster: &mut Cluster, from: From<'_>, away: impl FnOnce(&Cluster, &mut Past)) {
    let mut past = Past::new();
    let load = Load::start(&cluster.addresses(), 4, "archived");
    load.wait_more(300);
    let clerk = Clerk::start(cluster);
    watch(cluster, &mut past, Duration::from_secs(2));
    take_snapshots(cluster);
    let first = archiver(cluster);
    assert_ne!(first.role, "primary", "a backup pays");
    cluster.kill(&first);
    watch(cluster, &mut past, Duration::from_secs(1));
    cluster.restart(&first);
    watch(cluster, &mut past, Duration::from_secs(2));
    // Whoever takes over while it sleeps puts what it would have put.
    let paused = archiver(cluster);
    cluster.pause(&paused);
    watch(cluster, &mut past, Duration::from_secs(5));
    cluster.resume(&paused);
    watch(cluster, &mut past, Duration::from_secs(2));
    away(cluster, &mut past);
    watch(cluster, &mut past, Duration::from_secs(2));
    take_snapshots(cluster);
    let primary = cluster.primary();
    cluster
        .cli(&["switchover", "--node", &primary.client])
        .success();
    watch(cluster, &mut past, Duration::from_secs(2));
    let booked = clerk.end();
    load.stop()
        .audit(&mut cluster.client())
        .assert_exactly_once();
    watch(cluster, &mut past, Duration::from_millis(100));
    wait_archived(cluster);
    // Nobody asked for it: the node that archives proves the archive by itself.
    until("the archive was proved", PATIENCE, || {
        let verified = archive_status(cluster)["verified"].clone();
        (verified["findings"].as_u64() == Some(0)).then_some(())
    });
    from.run(cluster, &["backup", "verify"]).success();
    assert!(past.len() > 20, "{past:?}");
    check_past(cluster, from, &past, &booked);
}

#[test]
fn a_directory_archives_through_kills_pauses_and_an_outage() {
    let scratch = tempfile::tempdir().expect("a scratch directory can be made");
    let place = scratch.path().join("archive");
    let url = format!("file://{}", place.display());
    let key = age::x25519::Identity::generate();
    let spec = Spec::triple().archived(&url);
    let mut cluster = turn::start(&spec.sealed_to(&key.to_public().to_string()));
    let identity = scratch.path().join("identity");
    fs::write(&identity, key.to_string().expose_secret()).expect("the directory is writable");
    let identity = identity.display().to_string();
    let from = From {
        place: &url,
        identity: Some(&identity),
    };
    let aside = scratch.path().join("aside");
    ordeal(&mut cluster, from, |cluster, past| {
        fs::rename(&place, &aside).expect("it is there");
        // What stands in its place is no directory.
        fs::write(&place, "").expect("the scratch directory is writable");
        watch(cluster, past, Duration::from_secs(5));
        let said = archive_status(cluster)["error"].clone();
        assert!(said.is_string(), "the outage is told: {said}");
        fs::remove_file(&place).expect("it is there");
        fs::rename(&aside, &place).expect("it is there");
    });
    let keyless = From {
        identity: None,
        ..from
    };
    let said = keyless.run(&cluster, &["backup", "verify"]).success();
    assert!(said.contains("were not opened"), "{said}");
    let said = restore(&cluster, keyless, "latest");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("--identity FILE"), "{said:?}");
    damage(&cluster, &place, from);
}

#[test]
fn an_s3_archives_through_kills_pauses_and_an_outage() {
    let s3 = S3::start(&python());
    let url = s3.url("bank");
    let mut spec = Spec::triple().archived(&url);
    for (variable, value) in s3.environment() {
        spec = spec.with(variable, &value);
    }
    let mut cluster = turn::start(&spec);
    let from = From {
        place: &url,
        identity: None,
    };
    ordeal(&mut cluster, from, |cluster, past| {
        s3.pause();
        watch(cluster, past, Duration::from_secs(8));
        s3.resume();
    });
}

fn is_a(file: &Path, what: &str) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(what))
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory can be read");
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("a directory can be read").path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            // Of a node that was killed while it put something.
            false if path.extension().is_some_and(|end| end == "tmp") => {}
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// The n-th number in an object's name.
fn number(file: &Path, n: usize) -> u64 {
    let name = file.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.split('-').nth(n)?.parse().ok());
    number.expect("a name with an LSN")
}

/// Whether something is left that knows of this object once it is gone.
fn is_named(file: &Path, files: &[PathBuf]) -> bool {
    let manifests: Vec<_> = files.iter().filter(|one| is_a(one, "manifest-")).collect();
    let named = |n| manifests.iter().map(|one| number(one, n)).max();
    if is_a(file, "manifest-") {
        // Older ones may have expired.
        return [manifests.first(), manifests.last()]
            .iter()
            .all(|end| end.is_some_and(|end| *end != file));
    }
    match (is_a(file, "log-"), is_a(file, "snapshot-")) {
        (true, _) => named(1) >= Some(number(file, 1)),
        (_, true) => named(2) >= Some(number(file, 1)),
        _ => true,
    }
}

/// Hurts one object at a time: `verify` finds it, and no restore gives another state.
fn damage(cluster: &Cluster, place: &Path, from: From<'_>) {
    let latest = |cluster: &Cluster| restore(cluster, from, "latest");
    let keyless = From {
        identity: None,
        ..from
    };
    let sound: serde_json::Value =
        serde_json::from_str(&latest(cluster).success()).expect("--json prints JSON");
    let files = files_below(place);
    let mut random = Random::new(7);
    for case in 0..turn::count("STANDFAST_DAMAGES", 24) {
        let file = &files[random.below(files.len() as u64) as usize];
        let bytes = fs::read(file).expect("an object can be read");
        let other = files
            .iter()
            .find(|one| *one != file && one.parent() == file.parent());
        let other = other.map(|one| fs::read(one).expect("an object can be read"));
        let at = random.below(bytes.len() as u64) as usize;
        let kind = ["truncated", "flipped", "deleted", "swapped"][case % 4];
        match (kind, other) {
            ("truncated", _) => fs::write(file, &bytes[..at]),
            ("deleted", _) => fs::remove_file(file),
            ("swapped", Some(other)) => fs::write(file, other),
            _ => {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << random.below(8);
                fs::write(file, changed)
            }
        }
        .expect("an object can be changed");
        let what = format!("{} {kind} at {at}", file.display());
        // Every other time by whoever has no key.
        let prover = if case / 4 % 2 == 0 { from } else { keyless };
        let said = prover.run(cluster, &["backup", "verify"]);
        let may_be_less = kind == "deleted" && !is_named(file, &files);
        // The newest piece is the archiver's care, which may have put it again.
        let is_newest = files.iter().rfind(|one| is_a(one, "log-")) == Some(file);
        let may_be_sound = may_be_less || is_newest;
        assert!(said.code == Some(7) || may_be_sound, "{what}: {said:?}");
        let said = latest(cluster);
        if said.code == Some(0) {
            let said: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
            let is_same = (&said["lsn"], &said["digest"]) == (&sound["lsn"], &sound["digest"]);
            let is_less = said["lsn"].as_i64() < sound["lsn"].as_i64();
            let is_right = is_same || may_be_less && is_less;
            assert!(is_right, "{what}: {said}");
        }
        fs::write(file, bytes).expect("an object can be changed");
    }
}
