//! What is found by a part of an archive is what all of it gives, whatever is missing or damaged;
//! and it takes few reads.

use super::*;
use crate::archive::Shipper;
use crate::fixtures::{CLUSTER, card, history, link_at, log, snapshot_file};
use crate::plan::Stop;
use crate::seal::Recipients;
use crate::store::{Listed, Listing, Memory, Store};
use bytes::Bytes;
use standfast_wal::{Link, Record};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the objects that are read.
#[derive(Debug, Default)]
struct Counting {
    inner: Memory,
    reads: AtomicUsize,
}

impl Store for Counting {
    fn place(&self, name: &str) -> String {
        self.inner.place(name)
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, offset: u64, bytes: u64) -> io::Result<Bytes> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.get_range(name, offset, bytes)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.inner.length(name)
    }

    fn put_if_absent(&self, name: &str, bytes: &Bytes) -> io::Result<bool> {
        self.inner.put_if_absent(name, bytes)
    }

    fn replace(&self, name: &str, bytes: &Bytes) -> io::Result<()> {
        self.inner.replace(name, bytes)
    }

    fn list(&self, name: &str) -> io::Result<Listing> {
        self.inner.list(name)
    }

    fn list_behind(&self, name: &str, behind: &str) -> io::Result<Vec<Listed>> {
        self.inner.list_behind(name, behind)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.inner.delete(name)
    }

    fn readers(&self) -> usize {
        2
    }
}

/// Ships `records` in pieces of `each`, and snapshots at these LSNs.
fn ship(store: &Shared, generation: u64, fork: Option<(u64, u64)>, of: &[Record], each: usize) {
    let scratch = tempfile::tempdir().unwrap();
    let ancestors: Vec<_> = fork.into_iter().collect();
    let card = card(generation, &ancestors);
    let (mut shipper, _) = Shipper::open(store, &card, &Recipients::default()).unwrap();
    for (number, piece) in of.chunks(each).enumerate() {
        shipper.put_piece(piece).unwrap();
        if number % 3 == 1 {
            // Inside of the piece.
            let link = piece[piece.len() / 2].link();
            let file = snapshot_file(scratch.path(), link, generation);
            let (lsn, _) = shipper.put_snapshot(&file).unwrap();
            shipper.note_snapshot(lsn).unwrap();
        }
        if number % 3 != 0 {
            shipper.put_manifest().unwrap();
        }
    }
}

/// Two histories; the second forked from the first at LSN 70.
fn build() -> (Arc<Counting>, Shared) {
    let counting = Arc::new(Counting::default());
    let store: Shared = Arc::clone(&counting) as Shared;
    let first = log(Link::default(), 2, 100);
    let second = log(link_at(&first, 70), 3, 160);
    ship(&store, 1, None, &first, 4);
    ship(&store, 2, Some((1, 70)), &second, 3);
    (counting, store)
}

fn targets() -> Vec<Target> {
    let lsns = (1..168).step_by(11).map(|lsn| Target::Lsn(Lsn(lsn)));
    let times = (1..168).step_by(29).map(|lsn| Target::Time(lsn * 10 + 3));
    lsns.chain(times).chain([Target::Latest]).collect()
}

/// Without how far the log behind the target was followed: what is known of that must only suffice.
fn comparable(found: std::result::Result<Plan, Unmet>) -> std::result::Result<Plan, Unmet> {
    found.map(|plan| Plan {
        complete_until: None,
        ..plan
    })
}

fn suffices(plan: &Plan) -> bool {
    match plan.stop {
        Stop::Lsn(_) => true,
        Stop::Time(ns) => plan.complete_until.is_none_or(|until| until >= ns),
    }
}

fn check(store: &Shared, what: &str) {
    let all = catalogue::read(store, CLUSTER).unwrap();
    for which in [None, Some(history(1))] {
        for target in targets() {
            let (_, found) = search(store, CLUSTER, which, target).unwrap();
            let expected = plan(&all, which, target);
            assert!(found.as_ref().is_ok_and(suffices) || found.is_err());
            assert_eq!(
                comparable(found),
                comparable(expected),
                "{what}: {which:?} {target:?}"
            );
        }
    }
}

#[test]
fn a_part_gives_the_plan_that_all_gives() {
    let (counting, store) = build();
    check(&store, "whole");
    for name in counting.inner.names() {
        let bytes = counting.inner.contents(&name).unwrap();
        counting.inner.delete(&name).unwrap();
        check(&store, &format!("without {name}"));
        counting.inner.tamper(&name, |there| {
            *there = bytes.to_vec();
            there[20] ^= 1;
        });
        check(&store, &format!("damaged {name}"));
        counting
            .inner
            .tamper(&name, |there| *there = bytes.to_vec());
    }
}

/// Two shippers at once: what began before the newest snapshots, and reaches furthest, begins before
/// all that a part looks at; only a manifest tells.
#[test]
fn a_longer_piece_that_began_earlier_is_not_overlooked() {
    let counting = Arc::new(Counting::default());
    let store: Shared = Arc::clone(&counting) as Shared;
    let scratch = tempfile::tempdir().unwrap();
    let records = log(Link::default(), 2, 100);
    let open = || Shipper::open(&store, &card(1, &[]), &Recipients::default());
    let (mut one, _) = open().unwrap();
    let (mut other, _) = open().unwrap();
    for shipper in [&mut one, &mut other] {
        shipper.put_piece(&records[..20]).unwrap();
    }
    other.put_piece(&records[20..23]).unwrap();
    other.put_piece(&records[23..31]).unwrap();
    one.put_piece(&records[20..]).unwrap();
    for lsn in [44, 60] {
        let file = snapshot_file(scratch.path(), link_at(&records, lsn), 1);
        one.put_snapshot(&file).unwrap();
    }
    one.put_manifest().unwrap();
    let (_, found) = search(&store, CLUSTER, None, Target::Latest).unwrap();
    assert_eq!(found.unwrap().newest.lsn, Lsn(100));
    check(&store, "overlapping");
}

/// A snapshot ahead of the log, as where log was dropped, that a manifest names and that is gone.
#[test]
fn a_snapshot_that_is_gone_is_missed_although_the_log_ends_before_it() {
    let counting = Arc::new(Counting::default());
    let store: Shared = Arc::clone(&counting) as Shared;
    let scratch = tempfile::tempdir().unwrap();
    let records = log(Link::default(), 2, 100);
    let (mut shipper, _) = Shipper::open(&store, &card(1, &[]), &Recipients::default()).unwrap();
    shipper.put_piece(&records[..25]).unwrap();
    for lsn in [60, 70] {
        let file = snapshot_file(scratch.path(), link_at(&records, lsn), 1);
        let (lsn, _) = shipper.put_snapshot(&file).unwrap();
        shipper.note_snapshot(lsn).unwrap();
    }
    shipper.put_manifest().unwrap();
    check(&store, "with both");
    let name = counting.inner.names();
    let name = name
        .iter()
        .find(|name| name.ends_with("snapshot-00000000000000000070"));
    counting.inner.delete(name.unwrap()).unwrap();
    let (_, found) = search(&store, CLUSTER, None, Target::Latest).unwrap();
    assert!(found.is_err(), "{found:?}");
    check(&store, "without the newest");
}

#[test]
fn few_objects_are_read() {
    let counting = Arc::new(Counting::default());
    let store: Shared = Arc::clone(&counting) as Shared;
    ship(&store, 1, None, &log(Link::default(), 2, 4000), 2);
    let objects = counting.inner.names().len();
    let count = |target| {
        let before = counting.reads.load(Ordering::Relaxed);
        let (_, found) = search(&store, CLUSTER, None, target).unwrap();
        found.unwrap();
        counting.reads.load(Ordering::Relaxed) - before
    };
    // A snapshot's head takes some reads.
    let snapshots = counting.inner.names();
    let snapshots = snapshots.iter().filter(|name| name.contains("snapshot-"));
    let starts = snapshots.count() * 4;
    for target in [Target::Latest, Target::Lsn(Lsn(1000)), Target::Time(20_003)] {
        let reads = count(target);
        assert!(
            reads < starts + 30,
            "{target:?}: {reads} reads, {objects} objects"
        );
    }
}
