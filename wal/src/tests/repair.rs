//! Damaged ranges are found by `open`, by reading and by scrubbing, and filled from a peer.

use super::{create, open, options, push, read_all, record};
use crate::record::{Lsn, Record};
use crate::scan::Scan;
use crate::segment;
use crate::storage::sim::SimDisk;
use crate::{DamagedRange, End, ErrorKind, Log, ReadError};

/// A settled log of several segments.
fn sample() -> (SimDisk, Vec<Record>) {
    let disk = SimDisk::new(5);
    let mut log = create(&disk, options());
    let mut records = Vec::new();
    for group in 0..40 {
        for _ in 0..group % 3 + 1 {
            records.push(push(&mut log, 100 + group * 13));
        }
        log.flush().expect("flush");
    }
    log.settle().expect("settle");
    (disk, records)
}

/// Flips a bit in the middle of the record with this number.
fn damage(disk: &SimDisk, log: &Log<SimDisk>, record: &Record) {
    let (name, offset) = place(disk, log, record);
    disk.flip(&name, offset + 40, 2);
}

fn place(disk: &SimDisk, log: &Log<SimDisk>, record: &Record) -> (String, u64) {
    let lsn = record.first_lsn();
    let header = log
        .headers
        .iter()
        .rfind(|header| header.first_lsn() <= lsn)
        .expect("there");
    let name = segment::name(header.first_lsn());
    let bytes = disk.contents(&name).expect("there");
    let mut scan = Scan::new(&bytes, header);
    loop {
        let entry = scan.step().expect("undamaged before");
        if entry.head.first_lsn == lsn {
            return (name, entry.record_at() as u64);
        }
    }
}

/// What a peer would send for the range.
fn from_peer(range: &DamagedRange, records: &[Record]) -> Vec<Record> {
    let inside = |r: &&Record| r.first_lsn() >= range.first_lsn && r.last_lsn() <= range.last_lsn;
    records.iter().filter(inside).cloned().collect()
}

#[test]
fn whatever_record_is_damaged_a_peer_s_copy_makes_the_log_whole() {
    let (disk, records) = sample();
    for damaged in &records {
        let disk = disk.fork(1).restart();
        let (log, _) = open(&disk, options()).expect("open");
        damage(&disk, &log, damaged);
        drop(log);
        let (mut log, recovered) = open(&disk, options()).expect("open");
        assert_eq!(recovered.end, End::Unjudged);
        let range = &recovered.damaged[0];
        let recovered = log
            .repair(range, &from_peer(range, &records))
            .expect("fits");
        assert_eq!((recovered.damaged.len(), recovered.end), (0, End::Clean));
        assert_eq!(read_all(&log, Lsn::ZERO), records);
        push(&mut log, 10);
        log.flush().expect("the log goes on");
        drop(log);
        let (_, recovered) = open(&disk.crash(), options()).expect("open");
        assert!(recovered.damaged.is_empty() && recovered.end == End::Clean);
    }
}

#[test]
fn many_damaged_ranges_are_repaired_one_by_one() {
    let (disk, records) = sample();
    let (log, _) = open(&disk.restart(), options()).expect("open");
    // Two neighbours, which are one range, and others; the last record of all among them.
    let numbers = [3, 4, 10, records.len() / 2, records.len() - 1];
    let places: Vec<_> = numbers.map(|at| place(&disk, &log, &records[at])).into();
    drop(log);
    for (name, offset) in places {
        disk.flip(&name, offset + 9, 1);
    }
    let disk = disk.restart();
    let (mut log, mut recovered) = open(&disk, options()).expect("open");
    let firsts: Vec<Lsn> = recovered
        .damaged
        .iter()
        .map(|range| range.first_lsn)
        .collect();
    let expected = [3, 10, records.len() / 2, records.len() - 1];
    assert_eq!(firsts, expected.map(|at| records[at].first_lsn()));
    assert_eq!(
        recovered.damaged[3].next_previous_chain, None,
        "nothing stands behind it"
    );
    let mut rounds = 0;
    while let Some(range) = recovered.damaged.last() {
        let answer = from_peer(range, &records);
        recovered = log.repair(range, &answer).expect("fits");
        rounds += 1;
    }
    assert_eq!((rounds, recovered.end), (4, End::Clean));
    assert_eq!(read_all(&log, Lsn::ZERO), records);
}

#[test]
fn records_that_do_not_fit_both_sides_change_nothing() {
    let (disk, records) = sample();
    let (log, _) = open(&disk.restart(), options()).expect("open");
    damage(&disk, &log, &records[20]);
    drop(log);
    let (mut log, recovered) = open(&disk.restart(), options()).expect("open");
    let range = recovered.damaged[0].clone();
    let right = from_peer(&range, &records);
    let count = right[0].count();
    let forged = record(range.after, count, right[0].payload().len(), 999);
    let longer = record(range.after, count, right[0].payload().len() + 8, 999);
    let before = disk.contents(&range.file);
    for wrong in [
        vec![],
        vec![forged],
        vec![longer],
        records[21..22].to_vec(),
        records[20..22].to_vec(),
    ] {
        let error = log.repair(&range, &wrong).expect_err("does not fit");
        assert!(matches!(error.kind, ErrorKind::DoesNotFit(_)), "{error}");
        assert_eq!(disk.contents(&range.file), before);
    }
    log.repair(&range, &right)
        .expect("the right one still fits");
}

#[test]
#[should_panic(expected = "damaged ranges are repaired before anything is appended")]
fn nothing_is_appended_to_a_damaged_log() {
    let (disk, records) = sample();
    let (log, _) = open(&disk.restart(), options()).expect("open");
    damage(&disk, &log, &records[2]);
    drop(log);
    let (mut log, _) = open(&disk.restart(), options()).expect("open");
    push(&mut log, 1);
}

#[test]
fn damage_under_a_running_log_is_scrubbed_out_and_repaired() {
    let (disk, records) = sample();
    let (mut log, _) = open(&disk.restart(), options()).expect("open");
    damage(&disk, &log, &records[5]);
    let reader = log.reader();
    let segments = reader.segments();
    let found = reader.scrub(segments[0].first_lsn).expect("read");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].first_lsn, found[0].last_lsn),
        (records[5].first_lsn(), records[5].last_lsn())
    );
    for sound in &segments[1..] {
        assert_eq!(reader.scrub(sound.first_lsn).expect("read"), []);
    }
    // A reader that runs into it is told the same, and gets everything else.
    assert_eq!(
        reader.read(records[3].last_lsn(), 1).expect("before"),
        records[4..5]
    );
    let told = reader.read(records[4].last_lsn(), 1).expect_err("damaged");
    assert!(
        matches!(&told, ReadError::Damaged(range) if **range == found[0]),
        "{told}"
    );
    assert_eq!(
        reader.read(records[5].last_lsn(), 1).expect("behind"),
        records[6..7]
    );
    push(&mut log, 10);
    let recovered = log.repair(&found[0], &records[5..6]).expect("fits");
    assert_eq!(recovered.tail.position.lsn, log.durable());
    assert_eq!(
        reader.read(records[4].last_lsn(), 1).expect("repaired"),
        records[5..6]
    );
    assert_eq!(reader.scrub(segments[0].first_lsn).expect("read"), []);
    log.flush().expect("what was queued is written");
}

/// Damage to the newest segment under a running log is found by whoever reads it.
#[test]
fn damage_in_the_newest_segment_is_named_by_the_reader() {
    let (disk, records) = sample();
    let (log, _) = open(&disk.restart(), options()).expect("open");
    let last = &records[records.len() - 1];
    damage(&disk, &log, last);
    let before = records[records.len() - 2].last_lsn();
    let told = log.reader().read(before, 1).expect_err("damaged");
    let ReadError::Damaged(range) = told else {
        panic!("{told}")
    };
    assert_eq!(
        (range.first_lsn, range.last_lsn),
        (last.first_lsn(), last.last_lsn())
    );
}

/// A bad sector in a sealed segment is damage like any other: everything around it is read, and a
/// peer's copy goes into a new file.
#[test]
fn a_sector_that_cannot_be_read_is_repaired_in_a_sealed_segment() {
    let (disk, records) = sample();
    let (log, _) = open(&disk.restart(), options()).expect("open");
    let (name, offset) = place(&disk, &log, &records[5]);
    drop(log);
    disk.make_unreadable(&name, offset + 60..offset + 61);
    let disk = disk.restart();
    let (mut log, mut recovered) = open(&disk, options()).expect("open");
    assert!(!recovered.damaged.is_empty());
    while let Some(range) = recovered.damaged.first() {
        let answer = from_peer(range, &records);
        recovered = log.repair(range, &answer).expect("fits");
    }
    assert_eq!(read_all(&log, Lsn::ZERO), records);
}

/// "A disk that cannot read says nothing about what was written": the newest segment is not cut.
#[test]
fn a_read_error_in_the_newest_segment_is_refused_and_changes_nothing() {
    let (disk, records) = sample();
    let (log, _) = open(&disk.restart(), options()).expect("open");
    let (name, offset) = place(&disk, &log, &records[records.len() - 1]);
    drop(log);
    let disk = disk.restart();
    let before = disk.contents(&name);
    disk.make_unreadable(&name, offset..offset + 1);
    let refused = open(&disk, options()).err().expect("refused");
    assert!(matches!(refused.kind, ErrorKind::Io(..)), "{refused}");
    assert_eq!(disk.contents(&name), before);
}
