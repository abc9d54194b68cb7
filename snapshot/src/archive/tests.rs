//! Nothing in an archive is overwritten, sent twice, or mixed with another past.

use super::*;
use crate::catalogue::{clusters, read};
use crate::fixtures::{
    CLUSTER, Opaque, card, fine, flip, history, link_at, log, put_piece, record, snapshot_file,
    snapshot_with, stored,
};
use crate::retention::{Policy, expire};
use crate::seal::{Identities, Recipients};
use crate::survey::{Missing, missing};
use crate::verify::verify;
use standfast_wal::{ClusterId, Damage, Kind};
use std::fs;
use std::path::PathBuf;

#[test]
fn what_was_shipped_is_listed() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("a/b/archive");
    let records = log(Link::default(), 2, 40);
    let snapshot = snapshot_file(scratch.path(), link_at(&records, 20), 1);
    let shipped = ship(
        &stored(&dir),
        &card(1, &[]),
        Some(&snapshot),
        fine(&records),
    )
    .unwrap();
    assert_eq!(shipped.snapshot_lsn, Some(Lsn(20)));
    assert_eq!((shipped.pieces, shipped.records), (1, 20));
    assert_eq!(shipped.end, Some(link_at(&records, 40)));
    assert_eq!(clusters(&*stored(&dir)).unwrap(), [CLUSTER]);
    let catalogue = read(&stored(&dir), CLUSTER).unwrap();
    assert_eq!(catalogue.cluster_name, "bank");
    let [entry] = &catalogue.histories[..] else {
        panic!("one history: {catalogue:?}")
    };
    assert_eq!(entry.history, history(1));
    assert_eq!(entry.unreadable, []);
    assert_eq!(entry.snapshots[0].link, link_at(&records, 20));
    assert_eq!(
        read_log(&*stored(&dir), &entry.logs[0].path, &Identities::default())
            .unwrap()
            .1,
        records
    );
    let home = dir.join(catalogue::history_dir(CLUSTER, history(1)));
    let names = fs::read_dir(home).unwrap().count();
    assert_eq!(
        names, 4,
        "card, snapshot, log, manifest, and nothing left over"
    );
}

#[test]
fn what_the_archive_has_is_not_sent_again() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("archive");
    let records = log(Link::default(), 2, 40);
    let snapshot = snapshot_file(scratch.path(), link_at(&records, 20), 1);
    let card = card(1, &[]);
    ship(&stored(&dir), &card, Some(&snapshot), fine(&records[..10])).unwrap();
    let again = ship(&stored(&dir), &card, Some(&snapshot), fine(&records[..10])).unwrap();
    assert_eq!((again.pieces, again.stored_bytes), (0, 0));
    let more = ship(&stored(&dir), &card, None, fine(&records)).unwrap();
    assert_eq!((more.pieces, more.records), (1, 10));
    let logs = &read(&stored(&dir), CLUSTER).unwrap().histories[0].logs;
    assert_eq!(logs.len(), 2);
    assert_eq!(logs[1].head.first_lsn, Lsn(21));
}

#[test]
fn two_nodes_ship_the_same_history_side_by_side() {
    let scratch = tempfile::tempdir().unwrap();
    let records = log(Link::default(), 2, 40);
    let card = card(1, &[]);
    let (mut one, _) =
        Shipper::open(&stored(scratch.path()), &card, &Recipients::default()).unwrap();
    let (mut two, _) =
        Shipper::open(&stored(scratch.path()), &card, &Recipients::default()).unwrap();
    one.put_log(fine(&records[..10])).unwrap();
    let same = two.put_log(fine(&records[..10])).unwrap();
    assert_eq!(
        (same.pieces, same.stored_bytes),
        (1, 0),
        "found there, equal"
    );
    one.put_log(fine(&records[..15])).unwrap();
    two.put_log(fine(&records[..20])).unwrap();
    let logs = &read(&stored(scratch.path()), CLUSTER).unwrap().histories[0].logs;
    let ranges: Vec<(u64, u64)> = logs
        .iter()
        .map(|l| (l.head.first_lsn.0, l.head.last_lsn().0))
        .collect();
    assert_eq!(ranges, [(1, 20), (21, 40), (21, 30)]);
}

#[test]
fn threads_that_race_for_one_name_write_it_once() {
    let scratch = tempfile::tempdir().unwrap();
    let records = log(Link::default(), 2, 400);
    let bytes: u64 = std::thread::scope(|scope| {
        let ship = || {
            let shipped =
                ship(&stored(scratch.path()), &card(1, &[]), None, fine(&records)).unwrap();
            shipped.stored_bytes
        };
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(ship)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    let home = scratch
        .path()
        .join(catalogue::history_dir(CLUSTER, history(1)));
    let name = catalogue::log_name(Lsn(1), Lsn(400));
    assert_eq!(bytes, fs::metadata(home.join(name)).unwrap().len());
    let names = fs::read_dir(home).unwrap().count();
    assert_eq!(names, 3, "card, log, manifest");
}

#[test]
fn a_damaged_object_is_replaced_and_a_different_one_is_not() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let card = card(1, &[]);
    let records = log(Link::default(), 2, 40);
    let path = put_piece(dir, &card, &records);
    flip(&path, 300);
    let (mut shipper, _) = Shipper::open(&stored(dir), &card, &Recipients::default()).unwrap();
    let mut put = || shipper.put_piece(&records).map(|(_, put)| put);
    assert_eq!(put().unwrap(), Put::Repaired);
    assert_eq!(put().unwrap(), Put::Present);
    let there = || object::decode_log("there", &fs::read(&path).unwrap(), &Identities::default());
    assert_eq!(there().unwrap().1, records);

    let other = [record(Link::default(), 40, Kind::Operator)];
    put_piece(dir, &card, &other);
    let error = put().unwrap_err();
    assert!(matches!(error.reason, Reason::Taken), "{error}");
    assert_eq!(there().unwrap().1, other, "it was left alone");
}

#[test]
fn an_answer_that_was_lost_or_false_does_no_harm() {
    let memory = Arc::new(crate::store::Memory::default());
    let store: Shared = memory.clone();
    let records = log(Link::default(), 2, 40);
    let (mut shipper, _) = Shipper::open(&store, &card(1, &[]), &Recipients::default()).unwrap();
    memory.lose_answers(true);
    assert!(shipper.put_log(fine(&records[..10])).is_err());
    memory.lose_answers(false);
    let again = shipper.put_log(fine(&records[..10])).unwrap();
    assert_eq!((again.pieces, again.stored_bytes), (1, 0));
    memory.set_down(true);
    assert!(shipper.put_log(fine(&records)).is_err());
    assert!(shipper.catch_up().is_err());
    memory.set_down(false);
    // Whoever is told that the name is taken finds nobody there, and tries again.
    memory.deny_puts(1);
    shipper.put_log(fine(&records)).unwrap();
    let entry = &read(&store, CLUSTER).unwrap().histories[0];
    assert_eq!(entry.logs.len(), 2);
    assert_eq!(entry.logs[1].head.end, link_at(&records, 40));
}

#[test]
fn whoever_slept_goes_on_where_the_others_have_come() {
    let scratch = tempfile::tempdir().unwrap();
    let store = stored(scratch.path());
    let records = log(Link::default(), 2, 60);
    let (mut one, _) = Shipper::open(&store, &card(1, &[]), &Recipients::default()).unwrap();
    let (mut two, survey) = Shipper::open(&store, &card(1, &[]), &Recipients::default()).unwrap();
    assert_eq!(survey.end, None);
    assert!(!survey.is_whole, "nothing can be restored");
    one.put_log(fine(&records[..10])).unwrap();
    one.put_log(fine(&records[..20])).unwrap();
    assert_eq!(two.catch_up().unwrap().unwrap().last_lsn(), Lsn(40));
    two.put_log(fine(&records)).unwrap();
    one.catch_up().unwrap();
    assert_eq!(one.put_log(fine(&records)).unwrap().pieces, 0);
    let logs = &read(&store, CLUSTER).unwrap().histories[0].logs;
    let ranges: Vec<(u64, u64)> = logs
        .iter()
        .map(|l| (l.head.first_lsn.0, l.head.last_lsn().0))
        .collect();
    assert_eq!(ranges, [(1, 20), (21, 40), (41, 60)]);
}

#[test]
fn a_survey_says_whether_the_end_can_be_restored() {
    let scratch = tempfile::tempdir().unwrap();
    let store = stored(&scratch.path().join("archive"));
    let records = log(Link::default(), 2, 60);
    let card = card(1, &[]);
    let survey = || {
        Shipper::open(&store, &card, &Recipients::default())
            .unwrap()
            .1
    };
    let (mut shipper, _) = Shipper::open(&store, &card, &Recipients::default()).unwrap();
    shipper.put_log(fine(&records[..10])).unwrap();
    assert!(survey().is_whole, "from LSN 1 on");
    let gap = shipper.put_log(fine(&records[15..])).unwrap().gap;
    assert_eq!(gap, Some((Lsn(20), Lsn(31))));
    let found = survey();
    assert_eq!(
        (found.end, found.is_whole),
        (Some(link_at(&records, 60)), false)
    );
    let snapshot = |lsn| {
        let path = snapshot_file(scratch.path(), link_at(&records, lsn), 1);
        shipper.put_snapshot(&path).unwrap();
        survey()
    };
    assert!(!snapshot(20).is_whole, "before the hole");
    let found = snapshot(40);
    assert_eq!((found.snapshot_lsn, found.is_whole), (Some(Lsn(40)), true));
}

#[test]
fn what_is_gone_is_seen_by_the_names_that_are_left() {
    let scratch = tempfile::tempdir().unwrap();
    let store = stored(&scratch.path().join("archive"));
    let records = log(Link::default(), 2, 60);
    let card = card(1, &[]);
    let (mut shipper, _) = Shipper::open(&store, &card, &Recipients::default()).unwrap();
    for ten in records.chunks(5) {
        shipper.put_log(fine(ten)).unwrap();
    }
    let look = || missing(&store, &card, Lsn(60)).unwrap();
    let home = catalogue::history_dir(CLUSTER, history(1));
    let delete = |name: &str| store.delete(&join(&home, name)).unwrap();
    assert_eq!(look(), None, "from LSN 1 on");
    assert_eq!(
        missing(&store, &card, Lsn(61)).unwrap(),
        Some(Missing::Between(Lsn(60), Lsn(62)))
    );
    delete(&catalogue::log_name(Lsn(21), Lsn(30)));
    assert_eq!(look(), Some(Missing::Between(Lsn(20), Lsn(31))));
    let path = snapshot_file(scratch.path(), link_at(&records, 40), 1);
    shipper.put_snapshot(&path).unwrap();
    assert_eq!(look(), None, "behind the snapshot all is there");
    delete(&catalogue::log_name(Lsn(51), Lsn(60)));
    assert_eq!(look(), Some(Missing::Between(Lsn(50), Lsn(61))));
    delete(CARD_NAME);
    assert_eq!(look(), Some(Missing::Everything));
}

#[test]
fn another_past_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("archive");
    let records = log(Link::default(), 2, 40);
    ship(&stored(&dir), &card(1, &[]), None, fine(&records[..10])).unwrap();
    // Records that do not follow the archive's end, although their LSNs do.
    let other = Link {
        chain: standfast_wal::Chain(99),
        ..link_at(&records, 20)
    };
    let error = ship(&stored(&dir), &card(1, &[]), None, fine(&log(other, 2, 30))).unwrap_err();
    let damage = Damage::Order;
    assert!(
        matches!(error.reason, Reason::Record { lsn: Lsn(21), damage: d } if d == damage),
        "{error}"
    );
    // A snapshot of another history, or of another cluster.
    let foreign = snapshot_file(scratch.path(), link_at(&records, 20), 2);
    assert!(ship(&stored(&dir), &card(1, &[]), Some(&foreign), []).is_err());
    let stranger = Card {
        cluster: ClusterId(3),
        ..card(2, &[])
    };
    assert!(ship(&stored(&dir), &stranger, Some(&foreign), []).is_err());
    // The same history with other ancestors.
    assert!(ship(&stored(&dir), &card(1, &[(0, 5)]), None, []).is_err());
}

#[test]
fn a_damaged_snapshot_is_not_shipped() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("archive");
    let records = log(Link::default(), 2, 20);
    let path = snapshot_file(scratch.path(), link_at(&records, 20), 1);
    flip(&path, 290);
    assert!(ship(&stored(&dir), &card(1, &[]), Some(&path), []).is_err());
    let home = dir.join(catalogue::history_dir(CLUSTER, history(1)));
    assert_eq!(fs::read_dir(home).unwrap().count(), 1, "only the card");
}

#[test]
fn a_hole_is_told_and_long_logs_are_cut_into_pieces() {
    let scratch = tempfile::tempdir().unwrap();
    let records = log(Link::default(), 2, 40);
    let card = card(1, &[]);
    ship(&stored(scratch.path()), &card, None, fine(&records[..5])).unwrap();
    let shipped = ship(&stored(scratch.path()), &card, None, fine(&records[8..])).unwrap();
    assert_eq!(shipped.gap, Some((Lsn(10), Lsn(17))));

    let big = vec![7u8; 3 << 20];
    let mut link = link_at(&records, 40);
    let mut long = Vec::new();
    for _ in 0..5 {
        let one = Record::build(
            link,
            Kind::Commands,
            link.position.epoch,
            link.timestamp + 1,
            1,
            &big,
        );
        link = one.link();
        long.push(one);
    }
    let shipped = ship(&stored(scratch.path()), &card, None, fine(&long)).unwrap();
    assert_eq!((shipped.pieces, shipped.records), (3, 5));
    assert_eq!(shipped.end, Some(link));
}

/// Names of the segments in an archive.
fn segments(dir: &Path) -> Vec<String> {
    let home = catalogue::history_dir(CLUSTER, history(1));
    let found = fs::read_dir(dir.join(catalogue::segments_beside(&home, None))).unwrap();
    let names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names
        .filter(|name| name.starts_with("segment-4-"))
        .collect();
    names.sort();
    names
}

/// Snapshots at 20 and 40 that share a segment; the first has one more of its own, the second two.
fn with_segments(scratch: &Path) -> (PathBuf, [u64; 2]) {
    let dir = scratch.join("archive");
    let records = log(Link::default(), 2, 60);
    let of = |lsn, segments: &[&[u8]]| snapshot_with(scratch, link_at(&records, lsn), segments);
    let (shared, first) = ([7; 9000], [8; 9000]);
    let one = of(20, &[&shared, &first]);
    let two = of(40, &[&shared, &[9; 9000], &[10; 9000]]);
    let bytes = [&one, &two].map(|path| {
        let shipped = ship(&stored(&dir), &card(1, &[]), Some(path), fine(&records)).unwrap();
        shipped.stored_bytes
    });
    (dir, bytes)
}

#[test]
fn a_segment_is_put_once_and_proved_with_every_snapshot() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, bytes) = with_segments(scratch.path());
    assert_eq!(segments(&dir).len(), 4);
    assert!(
        bytes[0] > 18_000 && bytes[1] > 18_000 && bytes[1] < 27_000,
        "{bytes:?}"
    );
    let report = verify(&stored(&dir), CLUSTER, 2, &Identities::default(), &Opaque).unwrap();
    assert!(report.is_sound());
    // The blocks of both snapshots are one part.
    assert_eq!(report.files, 1 + 2 + 4 + 1);
    let catalogue = read(&stored(&dir), CLUSTER).unwrap();
    let counts = catalogue.histories[0].snapshots.iter();
    assert!(counts.map(|one| one.segments.len()).eq([2 + 1, 3 + 1]));
    // One that only the second snapshot needs, then the one that both need.
    for (at, damaged) in [(2, 1), (0, 2)] {
        let home = dir
            .join(&catalogue.histories[0].snapshots[0].segments_dir)
            .join(&segments(&dir)[at]);
        flip(&home, 100);
        let report = verify(&stored(&dir), CLUSTER, 2, &Identities::default(), &Opaque).unwrap();
        let findings = report.histories[0].findings.iter().map(ToString::to_string);
        let name = segments(&dir)[at].clone();
        let named = findings.filter(|story| story.contains(&name)).count();
        assert_eq!(named, damaged, "{:?}", report.histories[0].findings);
        flip(&home, 100);
    }
    let home = dir.join(&catalogue.histories[0].snapshots[0].segments_dir);
    fs::remove_file(home.join(&segments(&dir)[0])).unwrap();
    assert!(
        !verify(&stored(&dir), CLUSTER, 2, &Identities::default(), &Opaque)
            .unwrap()
            .is_sound()
    );
}

#[test]
fn segments_go_with_the_last_snapshot_that_needs_them() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, _) = with_segments(scratch.path());
    let policy = Policy {
        keep_full: 1,
        keep_for_ns: 0,
    };
    let catalogue = read(&stored(&dir), CLUSTER).unwrap();
    let expiry = expire(&catalogue, policy, u64::MAX);
    assert_eq!((expiry.snapshots.len(), expiry.segments.len()), (1, 1));
    let gone = remove(&stored(&dir), &catalogue, &expiry, 1, &|| true).unwrap();
    assert_eq!(gone, expiry);
    assert_eq!(segments(&dir).len(), 3);
    assert!(
        verify(&stored(&dir), CLUSTER, 2, &Identities::default(), &Opaque)
            .unwrap()
            .is_sound()
    );
    // What cannot be read may need any of them.
    let last = &read(&stored(&dir), CLUSTER).unwrap().histories[0].snapshots[0];
    flip(&dir.join(&last.path), 20);
    let catalogue = read(&stored(&dir), CLUSTER).unwrap();
    let expiry = expire(&catalogue, policy, u64::MAX);
    assert!(expiry.segments.is_empty(), "{expiry:?}");
}

/// A successor begins where its ancestor's archive ends, as far as that is unbroken and sound.
#[test]
fn a_successor_puts_what_its_ancestors_archive_lacks() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let records = log(Link::default(), 2, 60);
    let one = card(1, &[]);
    let mut generation = 1;
    let mut inherited = |shared: u64| {
        generation += 1;
        let card = card(generation, &[(1, shared)]);
        let opened = Shipper::open(&stored(dir), &card, &Recipients::default());
        opened.unwrap().1.inherited.0
    };
    assert_eq!(inherited(30), 0, "nothing is there");
    let snapshot = snapshot_file(dir, link_at(&records, 24), 1);
    ship(&stored(dir), &one, Some(&snapshot), []).unwrap();
    assert_eq!((inherited(30), inherited(20)), (24, 0), "a snapshot alone");
    put_piece(dir, &one, &records[..10]);
    assert_eq!(inherited(30), 20, "the snapshot is above its log");
    let second = put_piece(dir, &one, &records[10..15]);
    assert_eq!((inherited(40), inherited(27), inherited(15)), (30, 27, 15));
    put_piece(dir, &one, &records[20..25]);
    assert_eq!(inherited(60), 30, "a hole behind it");
    flip(&second, 250);
    assert_eq!(inherited(60), 20, "the last one is damaged");
}
