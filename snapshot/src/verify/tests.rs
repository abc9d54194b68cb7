//! Each kind of damage and of hole is found and named, and a sound archive has no findings.

use super::*;
use crate::archive::ship;
use crate::fixtures::{
    CLUSTER, Opaque, card, fine, flip, history, link_at, log, put_piece, snapshot_file, stored,
};
use crate::seal::Identities;
use standfast_wal::Link;
use standfast_wal::Record;
use std::path::{Path, PathBuf};

/// Snapshots at 20 and 40, log 1..=60 in pieces of twenty.
fn build(dir: &Path) -> Vec<Record> {
    let records = log(Link::default(), 2, 60);
    let card = card(1, &[]);
    for (from, to) in [(0, 10), (10, 20), (20, 30)] {
        put_piece(dir, &card, &records[from..to]);
    }
    for lsn in [20, 40] {
        let path = snapshot_file(dir, link_at(&records, lsn), 1);
        ship(&stored(dir), &card, Some(&path), []).unwrap();
        std::fs::remove_file(path).unwrap();
    }
    records
}

fn proved(dir: &Path) -> Report {
    verify(&stored(dir), CLUSTER, 2, &Identities::default(), &Opaque).unwrap()
}

fn findings(dir: &Path) -> Vec<String> {
    let report = proved(dir);
    assert_eq!(report.is_sound(), report.histories[0].findings.is_empty());
    let one = &report.histories[0];
    one.findings.iter().map(Finding::to_string).collect()
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(catalogue::history_dir(CLUSTER, history(1)))
        .join(name)
}

fn piece(dir: &Path, first: u64, last: u64) -> PathBuf {
    file(dir, &catalogue::log_name(Lsn(first), Lsn(last)))
}

#[test]
fn a_sound_archive_has_no_findings() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let report = proved(dir.path());
    assert!(report.is_sound());
    assert_eq!((report.files, report.cluster_name.as_str()), (6, "bank"));
    let segments = file(dir.path(), "").with_file_name("segments");
    let listed = |dir: PathBuf| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let on_disk: u64 = listed(file(dir.path(), ""))
        .chain(listed(segments))
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let read = ["log-", "snapshot-", "segment-"];
            read.iter().any(|prefix| name.starts_with(prefix))
        })
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert_eq!(report.file_bytes, on_disk);
    let ranges: Vec<_> = report.histories[0]
        .ranges
        .iter()
        .map(|r| (r.snapshot_lsn.map(|lsn| lsn.0), r.from.lsn.0, r.to.lsn.0))
        .collect();
    assert_eq!(
        ranges,
        [(None, 1, 60), (Some(20), 20, 60), (Some(40), 40, 60)]
    );
}

/// What is named and not there, and the holes.
fn split(dir: &Path) -> (Vec<String>, Vec<String>) {
    let all = findings(dir).into_iter();
    all.partition(|one| one.starts_with("damaged"))
}

#[test]
fn a_missing_piece_is_a_hole_by_lsn_and_time() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    std::fs::remove_file(piece(dir.path(), 21, 40)).unwrap();
    let (named, holes) = split(dir.path());
    assert!(
        named[0].contains("it is not there, and manifest-"),
        "{named:?}"
    );
    assert_eq!(
        holes,
        ["no log between lsn:20 (time 191 ns) and lsn:40 (time 391 ns)"]
    );
    assert!(!proved(dir.path()).wants_snapshot(), "one stands behind it");
    std::fs::remove_file(file(dir.path(), &catalogue::snapshot_name(Lsn(40)))).unwrap();
    let (named, holes) = split(dir.path());
    assert_eq!(named.len(), 2, "{named:?}");
    assert_eq!(
        holes,
        ["no log between lsn:20 (time 191 ns) and lsn:41 (time 410 ns)"]
    );
}

#[test]
fn a_damaged_byte_anywhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let whole = |path: &Path| std::fs::read(path).unwrap();
    let home = file(dir.path(), "");
    let paths: Vec<PathBuf> = std::fs::read_dir(home)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(paths.len(), 8);
    for path in paths {
        let bytes = whole(&path);
        for at in (0..bytes.len()).step_by(13).chain([bytes.len() - 1]) {
            flip(&path, at);
            let found = findings(dir.path());
            let named = format!("damaged: {}", path.display());
            assert!(
                found.iter().any(|one| one.starts_with(&named)),
                "{at}: {found:?}"
            );
            flip(&path, at);
        }
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(
            !findings(dir.path()).is_empty(),
            "{} cut short",
            path.display()
        );
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(findings(dir.path()), [""; 0]);
}

#[test]
fn a_damaged_newest_piece_is_an_open_end() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    flip(&piece(dir.path(), 41, 60), 250);
    let found = findings(dir.path());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("the checksum of the records does not match"));
    assert_eq!(found[1], "no readable log behind lsn:40 (time 391 ns)");
    assert!(proved(dir.path()).wants_snapshot(), "one puts 60 in reach");
}

#[test]
fn files_that_tell_different_stories_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let records = build(dir.path());
    // Another past from LSN 20 on, in a piece that overlaps two others and one snapshot.
    let other = Link {
        timestamp: link_at(&records, 20).timestamp + 1,
        ..link_at(&records, 20)
    };
    let mut strange = vec![records[9].clone()];
    strange.extend(
        log(
            Link {
                chain: records[9].chain(),
                ..other
            },
            1,
            45,
        )
        .into_iter()
        .take(25),
    );
    put_piece(dir.path(), &card(1, &[]), &strange);
    let found = findings(dir.path());
    assert!(
        found
            .iter()
            .any(|one| one.contains("disagree on the record that ends at LSN 40")),
        "{found:?}"
    );
}

#[test]
fn a_file_under_a_wrong_name_is_found() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    std::fs::rename(piece(dir.path(), 41, 60), piece(dir.path(), 41, 61)).unwrap();
    let found = findings(dir.path());
    let is_told = |one: &String| one.ends_with("it is not what its name and directory say");
    assert!(found.iter().any(is_told), "{found:?}");
}

/// Names, lengths and heads tell of what is gone, cut short or of another chain; not of a byte
/// inside.
#[test]
fn a_glance_sees_what_is_not_there_and_reads_nothing_else() {
    let glance = |dir: &Path| glance(&stored(dir), CLUSTER).unwrap();
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let sound = glance(dir.path());
    assert_eq!(sound, proved(dir.path()));
    let home = file(dir.path(), "");
    let beside = home.with_file_name("segments");
    let entries = [home, beside].map(|dir| std::fs::read_dir(dir).unwrap());
    let paths: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(
        paths.len(),
        9,
        "card, 3 pieces, 2 snapshots, 2 manifests, a segment"
    );
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let is_named = |what: &str| {
            let report = glance(dir.path());
            let found = report.histories.iter().flat_map(|one| &one.findings);
            let told: Vec<String> = found.map(ToString::to_string).collect();
            let place = path.display().to_string();
            assert!(
                !report.is_sound() && told.iter().any(|one| one.contains(&place)),
                "{place} {what}: {told:?}"
            );
        };
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        is_named("cut short");
        // A manifest at either end is missed by nobody.
        if !path.to_str().unwrap().contains("manifest-") {
            std::fs::remove_file(&path).unwrap();
            is_named("gone");
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(glance(dir.path()), sound);
    flip(&piece(dir.path(), 21, 40), 250);
    assert!(glance(dir.path()).is_sound() && !findings(dir.path()).is_empty());
}

#[test]
fn an_archive_of_nothing_is_not_sound() {
    let dir = tempfile::tempdir().unwrap();
    ship(&stored(dir.path()), &card(1, &[]), None, []).unwrap();
    assert_eq!(
        findings(dir.path()),
        ["no snapshot, and no log from LSN 1: nothing to restore"]
    );
    let records = log(Link::default(), 2, 20);
    ship(&stored(dir.path()), &card(1, &[]), None, fine(&records)).unwrap();
    assert_eq!(findings(dir.path()), [""; 0]);
}
