//! Nothing in an archive is overwritten, sent twice, or mixed with another past.

use super::*;
use crate::catalogue::{clusters, read};
use crate::fixtures::{
    CLUSTER, card, fine, flip, history, link_at, log, put_piece, record, snapshot_file,
    snapshot_with,
};
use crate::retention::{Policy, expire};
use crate::verify::verify;
use standfast_wal::{ClusterId, Damage, Kind};

#[test]
fn what_was_shipped_is_listed() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("a/b/archive");
    let records = log(Link::default(), 2, 40);
    let snapshot = snapshot_file(scratch.path(), link_at(&records, 20), 1);
    let shipped = ship(&dir, &card(1, &[]), Some(&snapshot), fine(&records)).unwrap();
    assert_eq!(shipped.snapshot_lsn, Some(Lsn(20)));
    assert_eq!((shipped.pieces, shipped.records), (1, 20));
    assert_eq!(shipped.end, Some(link_at(&records, 40)));
    assert_eq!(clusters(&dir).unwrap(), [CLUSTER]);
    let catalogue = read(&dir, CLUSTER).unwrap();
    assert_eq!(catalogue.cluster_name, "bank");
    let [entry] = &catalogue.histories[..] else {
        panic!("one history: {catalogue:?}")
    };
    assert_eq!(entry.history, history(1));
    assert_eq!(entry.unreadable, []);
    assert_eq!(entry.snapshots[0].link, link_at(&records, 20));
    assert_eq!(read_log(&entry.logs[0].path).unwrap().1, records);
    let home = catalogue::history_dir(&dir, CLUSTER, history(1));
    let names = fs::read_dir(home).unwrap().count();
    assert_eq!(names, 3, "card, snapshot, log, and nothing left over");
}

#[test]
fn what_the_archive_has_is_not_sent_again() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("archive");
    let records = log(Link::default(), 2, 40);
    let snapshot = snapshot_file(scratch.path(), link_at(&records, 20), 1);
    let card = card(1, &[]);
    ship(&dir, &card, Some(&snapshot), fine(&records[..10])).unwrap();
    let again = ship(&dir, &card, Some(&snapshot), fine(&records[..10])).unwrap();
    assert_eq!((again.pieces, again.stored_bytes), (0, 0));
    let more = ship(&dir, &card, None, fine(&records)).unwrap();
    assert_eq!((more.pieces, more.records), (1, 10));
    let logs = &read(&dir, CLUSTER).unwrap().histories[0].logs;
    assert_eq!(logs.len(), 2);
    assert_eq!(logs[1].head.first_lsn, Lsn(21));
}

#[test]
fn two_nodes_ship_the_same_history_side_by_side() {
    let scratch = tempfile::tempdir().unwrap();
    let records = log(Link::default(), 2, 40);
    let card = card(1, &[]);
    let mut one = Shipper::open(scratch.path(), &card).unwrap();
    let mut two = Shipper::open(scratch.path(), &card).unwrap();
    one.put_log(fine(&records[..10])).unwrap();
    let same = two.put_log(fine(&records[..10])).unwrap();
    assert_eq!(
        (same.pieces, same.stored_bytes),
        (1, 0),
        "found there, equal"
    );
    one.put_log(fine(&records[..15])).unwrap();
    two.put_log(fine(&records[..20])).unwrap();
    let logs = &read(scratch.path(), CLUSTER).unwrap().histories[0].logs;
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
            let shipped = ship(scratch.path(), &card(1, &[]), None, fine(&records)).unwrap();
            shipped.stored_bytes
        };
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(ship)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    let home = catalogue::history_dir(scratch.path(), CLUSTER, history(1));
    let name = catalogue::log_name(Lsn(1), Lsn(400));
    assert_eq!(bytes, fs::metadata(home.join(name)).unwrap().len());
    assert_eq!(fs::read_dir(home).unwrap().count(), 2);
}

#[test]
fn a_damaged_object_is_replaced_and_a_different_one_is_not() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let card = card(1, &[]);
    let records = log(Link::default(), 2, 40);
    let path = put_piece(dir, &card, &records);
    flip(&path, 300);
    let (head, bytes) = encode_log(CLUSTER, history(1), &records);
    let put = |bytes: &[u8]| {
        put_if_absent(&path, bytes, |there| {
            Ok(is_same_log(&decode_log("there", there)?.0, &head))
        })
    };
    assert_eq!(put(&bytes).unwrap(), Put::Repaired);
    assert_eq!(put(&bytes).unwrap(), Put::Present);
    assert_eq!(read_log(&path).unwrap().1, records);

    let other = [record(Link::default(), 40, Kind::Operator)];
    put_piece(dir, &card, &other);
    let error = put(&bytes).unwrap_err();
    assert!(matches!(error.reason, Reason::Taken), "{error}");
    assert_eq!(read_log(&path).unwrap().1, other, "it was left alone");
}

#[test]
fn another_past_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("archive");
    let records = log(Link::default(), 2, 40);
    ship(&dir, &card(1, &[]), None, fine(&records[..10])).unwrap();
    // Records that do not follow the archive's end, although their LSNs do.
    let other = Link {
        chain: standfast_wal::Chain(99),
        ..link_at(&records, 20)
    };
    let error = ship(&dir, &card(1, &[]), None, fine(&log(other, 2, 30))).unwrap_err();
    let damage = Damage::Order;
    assert!(
        matches!(error.reason, Reason::Record { lsn: Lsn(21), damage: d } if d == damage),
        "{error}"
    );
    // A snapshot of another history, or of another cluster.
    let foreign = snapshot_file(scratch.path(), link_at(&records, 20), 2);
    assert!(ship(&dir, &card(1, &[]), Some(&foreign), []).is_err());
    let stranger = Card {
        cluster: ClusterId(3),
        ..card(2, &[])
    };
    assert!(ship(&dir, &stranger, Some(&foreign), []).is_err());
    // The same history with other ancestors.
    assert!(ship(&dir, &card(1, &[(0, 5)]), None, []).is_err());
}

#[test]
fn a_damaged_snapshot_is_not_shipped() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("archive");
    let records = log(Link::default(), 2, 20);
    let path = snapshot_file(scratch.path(), link_at(&records, 20), 1);
    flip(&path, 290);
    assert!(ship(&dir, &card(1, &[]), Some(&path), []).is_err());
    let home = catalogue::history_dir(&dir, CLUSTER, history(1));
    assert_eq!(fs::read_dir(home).unwrap().count(), 1, "only the card");
}

#[test]
fn a_hole_is_told_and_long_logs_are_cut_into_pieces() {
    let scratch = tempfile::tempdir().unwrap();
    let records = log(Link::default(), 2, 40);
    let card = card(1, &[]);
    ship(scratch.path(), &card, None, fine(&records[..5])).unwrap();
    let shipped = ship(scratch.path(), &card, None, fine(&records[8..])).unwrap();
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
    let shipped = ship(scratch.path(), &card, None, fine(&long)).unwrap();
    assert_eq!((shipped.pieces, shipped.records), (3, 5));
    assert_eq!(shipped.end, Some(link));
}

/// Names of the segments in an archive.
fn segments(dir: &Path) -> Vec<String> {
    let home = catalogue::history_dir(dir, CLUSTER, history(1));
    let found = fs::read_dir(catalogue::segments_beside(&home)).unwrap();
    let mut names: Vec<_> = found
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
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
    let stored = [&one, &two].map(|path| {
        let shipped = ship(&dir, &card(1, &[]), Some(path), fine(&records)).unwrap();
        shipped.stored_bytes
    });
    (dir, stored)
}

#[test]
fn a_segment_is_put_once_and_proved_with_every_snapshot() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, stored) = with_segments(scratch.path());
    assert_eq!(segments(&dir).len(), 4);
    assert!(
        stored[0] > 18_000 && stored[1] > 18_000 && stored[1] < 27_000,
        "{stored:?}"
    );
    let report = verify(&dir, CLUSTER, 2).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.files, 1 + 2 + 4);
    let catalogue = read(&dir, CLUSTER).unwrap();
    let counts = catalogue.histories[0].snapshots.iter();
    assert!(counts.map(|one| one.segments.len()).eq([2, 3]));
    // One that only the second snapshot needs, then the one that both need.
    for (at, damaged) in [(2, 1), (0, 2)] {
        let home = catalogue.segments_dir.join(&segments(&dir)[at]);
        flip(&home, 100);
        let report = verify(&dir, CLUSTER, 2).unwrap();
        let findings = report.histories[0].findings.iter().map(ToString::to_string);
        let name = segments(&dir)[at].clone();
        let named = findings.filter(|story| story.contains(&name)).count();
        assert_eq!(named, damaged, "{:?}", report.histories[0].findings);
        flip(&home, 100);
    }
    fs::remove_file(catalogue.segments_dir.join(&segments(&dir)[0])).unwrap();
    assert!(!verify(&dir, CLUSTER, 2).unwrap().is_sound());
}

#[test]
fn segments_go_with_the_last_snapshot_that_needs_them() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, _) = with_segments(scratch.path());
    let policy = Policy {
        keep_full: 1,
        keep_for_ns: 0,
    };
    let catalogue = read(&dir, CLUSTER).unwrap();
    let expiry = expire(&catalogue, policy, u64::MAX);
    assert_eq!((expiry.snapshots.len(), expiry.segments.len()), (1, 1));
    remove(&expiry).unwrap();
    assert_eq!(segments(&dir).len(), 3);
    assert!(verify(&dir, CLUSTER, 2).unwrap().is_sound());
    // What cannot be read may need any of them.
    let last = &read(&dir, CLUSTER).unwrap().histories[0].snapshots[0];
    flip(&last.path, 20);
    let catalogue = read(&dir, CLUSTER).unwrap();
    let expiry = expire(&catalogue, policy, u64::MAX);
    assert!(expiry.segments.is_empty(), "{expiry:?}");
}
