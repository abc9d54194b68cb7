//! What may go, and what must not.

use super::*;
use crate::archive::{Shipper, ship};
use crate::catalogue;
use crate::fixtures::{
    CLUSTER, Opaque, card, fine, flip, link_at, log, put_piece, snapshot_file, stored,
};
use crate::plan::{Target, Unmet, plan};
use crate::seal::{Identities, Recipients};
use standfast_wal::{Link, Record};
use std::path::Path;

/// Snapshots at 20, 40, 60 and 80 (191, 391, 591, 791 ns), log 1..=100 in pieces of twenty.
fn build(dir: &Path) -> Vec<Record> {
    let records = log(Link::default(), 2, 100);
    let card = card(1, &[]);
    for from in [0, 10, 20, 30, 40] {
        put_piece(dir, &card, &records[from..from + 10]);
    }
    for lsn in [20, 40, 60, 80] {
        let path = snapshot_file(dir, link_at(&records, lsn), 1);
        ship(&stored(dir), &card, Some(&path), []).unwrap();
        std::fs::remove_file(path).unwrap();
    }
    records
}

/// LSNs of the snapshots, first LSNs of the pieces that may go.
fn gone(dir: &Path, keep_full: usize, keep_for_ns: u64, now_ns: u64) -> (Vec<u64>, Vec<u64>) {
    let catalogue = catalogue::read(&stored(dir), CLUSTER).unwrap();
    let policy = Policy {
        keep_full,
        keep_for_ns,
    };
    let expiry = expire(&catalogue, policy, now_ns);
    let lsn = |path: &String| {
        let name = crate::store::last_part(path);
        name.split('-').nth(1).unwrap().parse().unwrap()
    };
    let snapshots = expiry.snapshots.iter().map(lsn).collect();
    (snapshots, expiry.logs.iter().map(lsn).collect())
}

#[test]
fn the_newest_and_the_young_are_kept_with_their_log() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let table = [
        ((1, 0, 10_000), (vec![20, 40, 60], vec![1, 21, 41, 61])),
        ((0, 0, 10_000), (vec![20, 40, 60], vec![1, 21, 41, 61])),
        ((2, 0, 10_000), (vec![20, 40], vec![1, 21, 41])),
        // Every point since 500 ns: that is the snapshot at 391 ns and what follows.
        ((1, 9_500, 10_000), (vec![20], vec![1, 21])),
        ((9, 0, 10_000), (vec![], vec![])),
        ((1, 20_000, 10_000), (vec![], vec![])),
    ];
    for ((keep_full, keep_for, now), wanted) in table {
        let found = gone(dir.path(), keep_full, keep_for, now);
        assert_eq!(found, wanted, "{keep_full} {keep_for}");
    }
}

#[test]
fn the_last_way_to_the_newest_point_never_goes() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let catalogue = catalogue::read(&stored(dir.path()), CLUSTER).unwrap();
    let policy = Policy {
        keep_full: 1,
        keep_for_ns: 0,
    };
    let expiry = expire(&catalogue, policy, u64::MAX);
    crate::archive::remove(&stored(dir.path()), &catalogue, &expiry, 1, &|| true).unwrap();
    let left = catalogue::read(&stored(dir.path()), CLUSTER).unwrap();
    let plan = plan(&left, None, Target::Latest).unwrap();
    assert_eq!(plan.newest.lsn, Lsn(100));
    assert_eq!(expire(&left, policy, u64::MAX), Expiry::default());
}

#[test]
fn what_cannot_be_read_is_left_for_somebody_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let home = catalogue::history_dir(CLUSTER, crate::fixtures::history(1));
    let home = dir.path().join(home);
    flip(&home.join(catalogue::snapshot_name(Lsn(80))), 50);
    flip(&home.join(catalogue::log_name(Lsn(1), Lsn(20))), 50);
    assert_eq!(gone(dir.path(), 1, 0, 10_000), (vec![20, 40], vec![21, 41]));
}

#[test]
fn a_new_history_keeps_the_past_that_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let records = build(dir.path());
    // Forked from LSN 90 on, without a snapshot of its own yet.
    let second = log(link_at(&records, 90), 2, 120);
    ship(
        &stored(dir.path()),
        &card(2, &[(1, 90)]),
        None,
        fine(&second),
    )
    .unwrap();
    assert_eq!(
        gone(dir.path(), 1, 0, 10_000),
        (vec![20, 40, 60], vec![1, 21, 41, 61])
    );
    // With its own snapshot the old history may go, once it is old; of its own log the newest piece
    // stays: it says where the archive ends.
    let path = snapshot_file(dir.path(), link_at(&second, 120), 2);
    ship(&stored(dir.path()), &card(2, &[(1, 90)]), Some(&path), []).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(
        gone(dir.path(), 1, 0, 10_000),
        (vec![20, 40, 60, 80], vec![1, 21, 41, 61, 81])
    );
    assert_eq!(
        gone(dir.path(), 1, 9_100, 10_000).0,
        [20, 40, 60],
        "the end of the old history is within the time to keep"
    );
}

#[test]
fn what_is_left_of_an_ended_history_does_not_pass_for_all_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let records = build(dir.path());
    let (store, old) = (stored(dir.path()), card(1, &[]));
    let (mut shipper, _) = Shipper::open(&store, &old, &Recipients::default()).unwrap();
    shipper.put_manifest().unwrap();
    let second = log(link_at(&records, 90), 2, 120);
    ship(&store, &card(2, &[(1, 90)]), None, fine(&second)).unwrap();
    let latest = || {
        let catalogue = catalogue::read(&store, CLUSTER).unwrap();
        let plan = plan(
            &catalogue,
            Some(crate::fixtures::history(1)),
            Target::Latest,
        );
        plan.map(|plan| plan.newest.lsn)
    };
    assert_eq!(latest(), Ok(Lsn(100)), "all of it is there");
    let catalogue = catalogue::read(&store, CLUSTER).unwrap();
    let policy = Policy {
        keep_full: 1,
        keep_for_ns: 0,
    };
    let expiry = expire(&catalogue, policy, 10_000);
    assert_eq!(
        expiry.manifests.len(),
        catalogue.histories[0].manifests.len()
    );
    crate::archive::remove(&store, &catalogue, &expiry, 1, &|| true).unwrap();
    let unmet = latest().unwrap_err();
    assert!(matches!(unmet, Unmet::Expired { .. }), "{unmet}");
    // Whoever has not heard of its end ships on, and makes no whole of it.
    shipper
        .put_log(fine(&log(Link::default(), 2, 110)[50..]))
        .unwrap();
    shipper.put_manifest().unwrap();
    let unmet = latest().unwrap_err();
    assert!(matches!(unmet, Unmet::Expired { .. }), "{unmet}");
    let report = crate::verify::verify(&store, CLUSTER, 1, &Identities::default(), &Opaque);
    assert!(report.unwrap().histories[1].is_sound());
}

/// History 2 was founded at 50 on what was committed through 30, and has put nothing: what lies
/// between is in history 1's archive alone. When it has put that, history 1 is as old as it is.
#[test]
fn what_a_new_history_still_has_to_put_is_kept_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let records = build(dir.path());
    let mut two = card(2, &[(1, 30)]);
    two.ancestors[0].end = Lsn(50);
    Shipper::open(&stored(dir.path()), &two, &Recipients::default()).unwrap();
    let found = gone(dir.path(), 1, 0, 10_000);
    assert_eq!(found, (vec![40, 60, 80], vec![1, 61, 81]));
    put_piece(
        dir.path(),
        &two,
        &[&records[15..25], &log(link_at(&records, 50), 2, 60)[..]].concat(),
    );
    assert_eq!(
        gone(dir.path(), 1, 0, 10_000),
        (vec![40, 60, 80], vec![1, 41, 61, 81])
    );
    // The piece that it took up to 30 is of 391 ns, so nothing that it holds is younger.
    let three = card(3, &[(1, 30), (2, 30)]);
    Shipper::open(&stored(dir.path()), &three, &Recipients::default()).unwrap();
    let catalogue = catalogue::read(&stored(dir.path()), CLUSTER).unwrap();
    let lineage = Lineage::of(&catalogue, three.history).unwrap();
    assert_eq!(lineage.newest().unwrap().timestamp, None);
    assert!(
        lineage.newest_by().is_some_and(|ns| ns <= 591),
        "{:?}",
        lineage.newest_by()
    );
}
