//! Parts are shared, mended, and refused.

use super::*;
use crate::archive::{Sent, Shipper};
use crate::catalogue::{self, SnapshotEntry, read};
use crate::fixtures::{CLUSTER, Opaque, block_of, card, header, key, link_at, log, stored};
use crate::seal::{Identities, Recipients};
use crate::sealed::fetch_snapshot;
use crate::store::{Shared, join as path_of, last_part};
use crate::verify::verify;
use crate::write::Block;
use standfast_wal::{Disk, Link, Record};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The blocks of a state of four ranges, of two blocks each, and one of no range; `changed` names
/// the ranges that have other contents than usual.
fn state(changed: &[u32]) -> Vec<Block> {
    let block = |i: u32| {
        let range = i / 2;
        let salt = if changed.contains(&range) { 97 } else { 1 };
        Block {
            section: 1 + range / 3,
            first: range * 100,
            last: range * 100 + 99,
            bytes: (0..20_000u32)
                .map(|b| (b.wrapping_mul(b).wrapping_mul((i + salt) * 40_503) >> 13) as u8)
                .collect(),
        }
    };
    let loose = Block {
        section: 0,
        first: 0,
        last: 0,
        bytes: vec![changed.len() as u8; 100],
    };
    (0..8).map(block).chain([loose]).collect()
}

fn file(dir: &Path, link: Link, blocks: &[Block]) -> PathBuf {
    let path = dir.join(format!(
        "{}.sfs",
        catalogue::snapshot_name(link.position.lsn)
    ));
    let mut writer = Writer::create(&path, &header(link, 1), Options::default()).unwrap();
    for block in blocks {
        writer.push(block.clone()).unwrap();
    }
    writer.publish().unwrap();
    path
}

fn sorted(mut blocks: Vec<Block>) -> Vec<Block> {
    blocks.sort_by(|a, b| (a.section, a.first, &a.bytes).cmp(&(b.section, b.first, &b.bytes)));
    blocks
}

/// The blocks of an archived snapshot.
fn fetched(store: &Shared, one: &SnapshotEntry, identities: &Identities) -> Result<Vec<Block>> {
    let reader = fetch_snapshot(&**store, &one.path, identities)?;
    reader.check_whole()?;
    let open = |part: &SegmentRef| segment::fetch(&**store, &one.segments_dir, part, identities);
    reader.load_with(2, open, |head, bytes| Ok(block_of(head, bytes)))
}

#[test]
fn what_has_not_changed_between_two_snapshots_is_sent_once() {
    let scratch = tempfile::tempdir().unwrap();
    let (recipient, identities) = key(0);
    let sealed = Recipients::new(&[recipient], 7);
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (place, recipients) in [("plain", Recipients::default()), ("sealed", sealed)] {
        let store = stored(&scratch.path().join(place));
        let records = log(Link::default(), 2, 60);
        let (mut shipper, _) = Shipper::open(&store, &card(1, &[]), &recipients).unwrap();
        shipper.put_log(records.iter().cloned().map(Ok)).unwrap();
        let states = [state(&[]), state(&[2]), state(&[2])];
        let mut sent: Vec<Sent> = Vec::new();
        for (lsn, blocks) in [10, 20, 30].into_iter().zip(&states) {
            let path = file(scratch.path(), link_at(&records, lsn), blocks);
            sent.push(shipper.put_snapshot(&path).unwrap().1);
        }
        assert!(sent[0].put > sent[0].whole * 9 / 10, "{sent:?}");
        assert!(sent[1].put < sent[1].whole * 4 / 10, "{sent:?}");
        assert!(sent[2].put < sent[2].whole / 20, "{sent:?}");
        let catalogue = read(&store, CLUSTER).unwrap();
        let snapshots = &catalogue.histories[0].snapshots;
        for (one, blocks) in snapshots.iter().zip(&states) {
            let back = fetched(&store, one, &identities).unwrap();
            assert!(sorted(back) == sorted(blocks.clone()), "{}", one.path);
        }
        let sizes = catalogue.snapshot_sizes().concat();
        assert!(sizes[2].new < sizes[2].whole / 20, "{sizes:?}");
        assert_eq!(catalogue.segments.len(), 5 + 2);
        // The name of what is sealed proves no guess of what it is.
        let paths = catalogue.segments.iter();
        names.extend(paths.map(|path| last_part(path).to_string()));
    }
    assert_eq!(names.len(), 2 * (5 + 2));
}

#[test]
fn damage_in_what_snapshots_share_is_found_and_the_next_snapshot_mends_it() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("archive");
    let store = stored(&place);
    let records = log(Link::default(), 2, 60);
    let (mut shipper, _) = Shipper::open(&store, &card(1, &[]), &Recipients::default()).unwrap();
    shipper.put_log(records.iter().cloned().map(Ok)).unwrap();
    let path = file(scratch.path(), link_at(&records, 20), &state(&[]));
    shipper.put_snapshot(&path).unwrap();
    let nobody = Identities::default();
    let found = || {
        let report = verify(&store, CLUSTER, 1, &nobody, &Opaque).unwrap();
        report.histories[0]
            .findings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(found(), [""; 0]);
    let one = read(&store, CLUSTER).unwrap().histories[0].snapshots[0].clone();
    let damaged = path_of(&one.segments_dir, &one.segments[1].name());
    let gone = path_of(&one.segments_dir, &one.segments[2].name());
    let next = file(scratch.path(), link_at(&records, 40), &state(&[]));
    let name = next.file_name().unwrap().to_str().unwrap();
    for is_wary in [false, true] {
        crate::fixtures::flip(&place.join(&damaged), 77);
        store.delete(&gone).unwrap();
        assert_eq!(found().len(), 1 + usize::from(is_wary), "{:?}", found());
        let error = fetched(&store, &one, &nobody).unwrap_err();
        assert!(error.is_damage() || error.is_absent(), "{error}");
        let disk = Disk::open(scratch.path()).unwrap();
        let mut upload = shipper.upload(disk, name).unwrap().wary(is_wary);
        while !upload.step().unwrap() {}
        // By its name the damaged one was there.
        assert_eq!(found().len(), if is_wary { 0 } else { 2 }, "{:?}", found());
        if !is_wary {
            crate::fixtures::flip(&place.join(&damaged), 77);
            assert_eq!(found(), [""; 0]);
        }
    }
}

/// An encrypted archive, and who put a snapshot at 20 there.
fn sealed_archive(scratch: &Path) -> (Shared, Shipper, Vec<Record>) {
    let store = stored(&scratch.join("archive"));
    let sealed = Recipients::new(&[key(0).0], 7);
    let records = log(Link::default(), 2, 60);
    let (mut shipper, _) = Shipper::open(&store, &card(1, &[]), &sealed).unwrap();
    shipper.put_log(records.iter().cloned().map(Ok)).unwrap();
    let path = file(scratch, link_at(&records, 20), &state(&[]));
    shipper.put_snapshot(&path).unwrap();
    (store, shipper, records)
}

#[test]
fn what_is_wrong_in_another_way_than_by_a_checksum_is_mended_as_well() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, shipper, records) = sealed_archive(scratch.path());
    let one = read(&store, CLUSTER).unwrap().histories[0].snapshots[0].clone();
    let part = path_of(&one.segments_dir, &one.segments[1].name());
    // Its version.
    crate::fixtures::flip(&scratch.path().join("archive").join(part), 8);
    let findings = || {
        let report = verify(&store, CLUSTER, 1, &Identities::default(), &Opaque).unwrap();
        report.histories[0].findings.len()
    };
    assert_eq!(findings(), 1);
    let next = file(scratch.path(), link_at(&records, 40), &state(&[]));
    let name = next.file_name().unwrap().to_str().unwrap();
    let disk = Disk::open(scratch.path()).unwrap();
    let mut upload = shipper.upload(disk, name).unwrap().wary(true);
    while !upload.step().unwrap() {}
    assert_eq!(findings(), 0);
}

#[test]
fn one_snapshot_of_an_lsn_is_enough_however_its_parts_were_cut() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, _, records) = sealed_archive(scratch.path());
    // Another node has another secret, and so other parts of the same state.
    let other = Recipients::new(&[key(0).0], 8);
    let (shipper, _) = Shipper::open(&store, &card(1, &[]), &other).unwrap();
    let path = file(scratch.path(), link_at(&records, 20), &state(&[]));
    let (_, sent) = shipper.put_snapshot(&path).unwrap();
    assert_eq!(sent.put, 0);
    let parts = || read(&store, CLUSTER).unwrap().segments.len();
    assert_eq!(parts(), 5);
    // One that lacks a part that only its own node could put again is replaced.
    let one = read(&store, CLUSTER).unwrap().histories[0].snapshots[0].clone();
    let part = path_of(&one.segments_dir, &one.segments[1].name());
    store.delete(&part).unwrap();
    shipper.put_snapshot(&path).unwrap();
    assert_eq!(parts(), 4 + 5);
    let one = read(&store, CLUSTER).unwrap().histories[0].snapshots[0].clone();
    let back = fetched(&store, &one, &key(0).1).unwrap();
    assert!(sorted(back) == sorted(state(&[])));
}

#[test]
fn a_part_that_is_none_is_refused() {
    let good = {
        let scratch = tempfile::tempdir().unwrap();
        let records = log(Link::default(), 2, 20);
        let path = file(scratch.path(), link_at(&records, 20), &state(&[]));
        let reader = Reader::open(&path).unwrap();
        join(&reader, &vec![0, 1], &[0; SALT_BYTES]).unwrap()
    };
    let count = |bytes: &[u8]| load("memory", bytes, |_, _| Ok(())).map(|found| found.len());
    assert_eq!(count(&good).unwrap(), 2);
    assert_eq!(count(&good[..SALT_BYTES]).unwrap(), 0);
    for at in (SALT_BYTES + 1..good.len()).step_by(13) {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        assert!(count(&bad).is_err(), "byte {at}");
        assert!(count(&good[..at]).is_err(), "cut at {at}");
    }
    // A block that is not the next one.
    let second = &good[SALT_BYTES..];
    assert!(count(&[&good, second].concat()).is_err());
}
