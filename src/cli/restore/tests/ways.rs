//! What is damaged or gone is done without where another way leads to the same state, and is told.

use super::*;
use standfast_snapshot::Store;
use standfast_snapshot::store::Listing;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Changes an object of the archive whose name begins like this, the last of them; its path.
pub fn spoil(dir: &Path, prefix: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let home = match prefix {
        "segment-" => catalogue::segments_beside(&history_home(), None),
        _ => history_home(),
    };
    let home = dir.join("archive").join(home);
    let names = fs::read_dir(&home).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.filter(|name| name.starts_with(prefix)).max().unwrap();
    let mut bytes = fs::read(home.join(&name)).unwrap();
    change(&mut bytes);
    fs::write(home.join(&name), bytes).unwrap();
    name
}

fn history_home() -> String {
    catalogue::history_dir(CLUSTER, FIRST)
}

pub fn flip_middle(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

#[test]
fn a_damaged_snapshot_is_passed_over_and_named() {
    let targets = [Target::Latest, Target::Lsn(Lsn(32))];
    let targets = targets.into_iter().cycle();
    for (prefix, target) in ["snapshot-", "snapshot-", "segment-", "segment-"]
        .into_iter()
        .zip(targets)
    {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let primary = build(dir);
        let name = spoil(dir, prefix, |bytes| flip_middle(bytes));
        let restored = restore_to(dir, target).unwrap();
        assert_eq!(restored.tally.snapshot_lsn, None);
        let [reason] = &restored.passed_over[..] else {
            panic!("one object was damaged: {:?}", restored.passed_over)
        };
        assert!(reason.contains(&name), "{reason}");
        let digest = load(dir).1.digest();
        assert_eq!(
            Some(&digest),
            primary.digests.get(&restored.link.position.lsn)
        );
        // It does not matter for what lies before it.
        let restored = restore_to(dir, Target::Lsn(Lsn(11))).unwrap();
        assert_eq!(restored.passed_over, [""; 0]);
    }
}

#[test]
fn a_snapshot_whose_head_is_damaged_is_named_as_well() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let name = spoil(dir, "snapshot-", |bytes| bytes[20] ^= 1);
    let restored = restore_to(dir, Target::Latest).unwrap();
    assert_eq!(restored.tally.snapshot_lsn, None);
    assert!(
        restored.passed_over.iter().any(|one| one.contains(&name)),
        "{:?}",
        restored.passed_over
    );
}

/// Sound bytes of a state that was not: no checksum of the file can tell.
#[test]
fn a_snapshot_of_rotten_memory_is_found_and_passed_over() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build_with(dir, |_, blocks| {
        *blocks[0].bytes.last_mut().unwrap() ^= 1;
    });
    let findings = proved(&dir.join("archive")).histories.remove(0).findings;
    let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(
        found.len() == 1 && found[0].contains("state: the digest is"),
        "{found:?}"
    );
    let restored = restore_to(dir, Target::Latest).unwrap();
    assert_eq!(restored.tally.snapshot_lsn, None);
    assert!(
        restored.passed_over[0].contains("state: the digest is"),
        "{:?}",
        restored.passed_over
    );
}

/// Whoever wrote it had applied something else, and the log's attestations tell.
#[test]
fn a_snapshot_that_an_attestation_refutes_is_passed_over() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let primary = build_with(dir, |header, blocks| {
        *blocks[0].bytes.last_mut().unwrap() ^= 1;
        let limits = state_limits(CLUSTER);
        let part = state::load_block(&limits, &blocks[0].bytes).unwrap();
        assert_eq!(blocks.len(), 1);
        header.digest = part.tally().digest.0;
    });
    let restored = restore_to(dir, Target::Latest).unwrap();
    assert_eq!(restored.tally.snapshot_lsn, None);
    let digest = load(dir).1.digest();
    let at = restored.link.position.lsn;
    assert_eq!(Some(&digest), primary.digests.get(&at));
    assert!(
        restored.passed_over[0].contains("I2: the restored state differs"),
        "{:?}",
        restored.passed_over
    );
}

fn oldest_log(dir: &Path) -> String {
    let home = dir.join("archive").join(history_home());
    let names = fs::read_dir(home).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("log-")).min().unwrap()
}

#[test]
fn where_no_other_way_leads_there_the_first_damage_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let first = spoil(dir, "segment-", |bytes| flip_middle(bytes));
    // From nothing no way leads there, either.
    let home = dir.join("archive").join(history_home());
    fs::remove_file(home.join(oldest_log(dir))).unwrap();
    let failure = restore_to(dir, Target::Latest).unwrap_err();
    assert_eq!(failure.code, ExitCode::Damaged);
    assert!(failure.message.contains(&first), "{failure}");
    assert!(
        failure.hint.contains("nothing else leads there"),
        "{failure}"
    );
    assert_eq!(left_over(dir), [""; 0]);
}

/// A store in which something happens to an object of this kind when it is read whole.
#[derive(Debug)]
struct Fateful {
    inner: Shared,
    kind: String,
    fate: ErrorKind,
}

impl Store for Fateful {
    fn place(&self, name: &str) -> String {
        self.inner.place(name)
    }

    fn put_if_absent(&self, _: &str, _: &Bytes) -> io::Result<bool> {
        unreachable!("a restore writes nothing there")
    }

    fn replace(&self, _: &str, _: &Bytes) -> io::Result<()> {
        unreachable!("a restore writes nothing there")
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        if name.contains(&self.kind) {
            if self.fate == ErrorKind::NotFound {
                let _ = self.inner.delete(name);
            }
            return Err(self.fate.into());
        }
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, offset: u64, len: u64) -> io::Result<Bytes> {
        self.inner.get_range(name, offset, len)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.inner.length(name)
    }

    fn list(&self, name: &str) -> io::Result<Listing> {
        self.inner.list(name)
    }

    fn delete(&self, _: &str) -> io::Result<()> {
        unreachable!("a restore removes nothing there")
    }

    fn readers(&self) -> usize {
        1
    }
}

fn restore_with(dir: &Path, kind: &str, fate: ErrorKind) -> Result<Restored, Failure> {
    let mut order = order(dir, Target::Latest);
    let (inner, kind) = (order.source.from, kind.to_owned());
    order.source.from = Arc::new(Fateful { inner, kind, fate });
    restore(order, &mut |_| ())
}

#[test]
fn a_store_that_does_not_answer_is_no_damage() {
    for kind in ["log-", "snapshot-"] {
        let scratch = tempfile::tempdir().unwrap();
        build(scratch.path());
        let failure = restore_with(scratch.path(), kind, ErrorKind::TimedOut).unwrap_err();
        assert_eq!(failure.code, ExitCode::Failed, "{kind}: {failure}");
    }
}

#[test]
fn a_store_that_does_not_answer_on_the_way_around_damage_is_none_either() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let damaged = spoil(dir, "segment-", |bytes| flip_middle(bytes));
    let failure = restore_with(dir, &oldest_log(dir), ErrorKind::TimedOut).unwrap_err();
    assert_eq!(failure.code, ExitCode::Failed, "{failure}");
    assert!(failure.hint.contains(&damaged), "{failure}");
}

/// The newest piece goes between being listed and being read, and nothing else names it.
#[test]
fn what_goes_while_it_is_restored_makes_no_earlier_point_the_latest() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let home = dir.join("archive").join(history_home());
    for entry in fs::read_dir(&home).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("manifest-") {
            fs::remove_file(path).unwrap();
        }
    }
    let listed = catalogue::read(&stored(&dir.join("archive")), CLUSTER).unwrap();
    let newest = listed.histories[0].logs.last().unwrap().head;
    let name = catalogue::log_name(newest.first_lsn, newest.last_lsn());
    let failure = restore_with(dir, &name, ErrorKind::NotFound);
    let failure = failure.unwrap_err();
    assert_eq!(failure.code, ExitCode::Damaged, "{failure}");
    assert!(
        failure.hint.contains("nothing else leads there"),
        "{failure}"
    );
}
