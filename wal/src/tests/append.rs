//! Append, read, roll, trim, cut and reset without faults.

use super::{HISTORY, IDENTITY, create, open, options, push, read_all};
use crate::kept::Kept;
use crate::record::{Epoch, History, Kind, Link, Lsn, Record};
use crate::storage::Storage;
use crate::storage::disk::Disk;
use crate::storage::sim::SimDisk;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{End, ErrorKind, Log, Options, Reach, ReadError, Space};

fn fill(log: &mut Log<impl Storage>, groups: usize) -> Vec<Record> {
    let mut records = Vec::new();
    for group in 0..groups {
        for at in 0..group % 4 + 1 {
            records.push(push(log, group * 37 % 700 + at));
        }
        let durable = log.flush().expect("flush");
        assert_eq!(durable, log.written().position.lsn);
    }
    records
}

fn appended_records_are_read_and_found_again<S: Storage>(storage: &S) {
    let log = Log::create(
        storage.clone(),
        IDENTITY,
        HISTORY,
        Link::default(),
        options(),
    );
    let mut log = log.expect("create");
    let records = fill(&mut log, 60);
    assert!(log.reader().segments().len() > 3, "several segments");
    assert_eq!(read_all(&log, Lsn::ZERO), records);
    let middle = records[records.len() / 2].last_lsn();
    assert_eq!(read_all(&log, middle), records[records.len() / 2 + 1..]);
    // One byte of budget still gives one record, so that a reader always gets on.
    assert_eq!(log.reader().read(Lsn::ZERO, 1).expect("read"), records[..1]);
    let tail = log.written();
    drop(log);

    let (log, recovered) = open(storage, options()).expect("open");
    assert_eq!((recovered.tail, &recovered.end), (tail, &End::Clean));
    assert_eq!((recovered.first_lsn, recovered.history), (Lsn(1), HISTORY));
    assert_eq!(recovered.reach, Reach::Contains);
    assert_eq!(read_all(&log, Lsn::ZERO), records);
}

#[test]
fn a_log_works_on_the_simulated_disk() {
    appended_records_are_read_and_found_again(&SimDisk::new(1));
}

#[test]
fn a_log_works_on_the_real_disk() {
    let directory = tempfile::tempdir().expect("scratch");
    appended_records_are_read_and_found_again(&Disk::open(directory.path()).expect("open"));
}

#[test]
fn only_one_log_at_a_time_and_never_over_another() {
    let disk = SimDisk::new(1);
    let log = create(&disk, options());
    let refused = open(&disk, options()).err().expect("locked");
    assert!(matches!(refused.kind, ErrorKind::Locked), "{refused}");
    drop(log);
    let again = Log::create(disk.clone(), IDENTITY, HISTORY, Link::default(), options());
    assert!(matches!(
        again.err().expect("refused").kind,
        ErrorKind::Exists
    ));
    let stranger = crate::Identity {
        cluster: crate::ClusterId(99),
        ..IDENTITY
    };
    let refused = Log::open(disk, stranger, Link::default(), options()).err();
    assert!(matches!(
        refused.expect("refused").kind,
        ErrorKind::Foreign("cluster")
    ));
    let nothing = open(&SimDisk::new(2), options()).err().expect("refused");
    assert!(matches!(nothing.kind, ErrorKind::Missing), "{nothing}");
}

#[test]
fn a_cut_takes_the_tail_keeps_it_aside_and_stays() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    let records = fill(&mut log, 50);
    // Backwards through the queue, the newest segment, sealed ones, and to the base.
    let unwritten = push(&mut log, 50);
    let mut left = records.len();
    let cut = log.cut(records[left - 1].last_lsn()).expect("cut");
    assert_eq!(
        (cut.records, cut.tail),
        (vec![unwritten], records[left - 1].link())
    );
    for keep in [left - 1, left - 4, left / 2, left / 2 - 1, 1, 0] {
        let after = keep
            .checked_sub(1)
            .map_or(Link::default(), |at| records[at].link());
        let cut = log.cut(after.position.lsn).expect("cut");
        assert_eq!(cut.tail, after);
        assert_eq!(cut.records, records[keep..left], "what was cut, once");
        let kept = Kept::read(&disk, &cut.file.expect("kept")).expect("readable");
        assert_eq!(kept.records, cut.records);
        assert_eq!((kept.after, kept.history), (after, HISTORY));
        assert_eq!((log.written(), log.durable()), (after, after.position.lsn));
        assert_eq!(read_all(&log, Lsn::ZERO), records[..keep]);
        left = keep;
        let (reopened, recovered) = {
            drop(log);
            open(&disk, options()).expect("open")
        };
        assert_eq!((recovered.tail, recovered.end), (after, End::Clean));
        log = reopened;
    }
    let nothing = log.cut(Lsn::ZERO).expect("cut");
    assert!(nothing.records.is_empty() && nothing.file.is_none());
    let again = fill(&mut log, 30);
    assert_eq!(read_all(&log, Lsn::ZERO), again);
}

#[test]
fn a_cut_at_a_segment_boundary_leaves_the_older_segment_alone() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    let records = fill(&mut log, 30);
    let segments = log.reader().segments();
    let boundary = segments[segments.len() - 2].base;
    let cut = log.cut(boundary.position.lsn).expect("cut");
    assert_eq!(cut.tail, boundary);
    drop(log);
    let (mut log, recovered) = open(&disk, options()).expect("open");
    assert_eq!((recovered.tail, recovered.end), (boundary, End::Clean));
    let more = fill(&mut log, 10);
    let kept: Vec<_> = records
        .iter()
        .filter(|r| r.last_lsn() <= boundary.position.lsn)
        .cloned()
        .collect();
    assert_eq!(read_all(&log, Lsn::ZERO), [kept, more].concat());
}

#[test]
fn readers_go_on_over_maps_of_segments_that_are_cut() {
    let directory = tempfile::tempdir().expect("scratch");
    let disk = Disk::open(directory.path()).expect("open");
    let log = Log::create(disk, IDENTITY, HISTORY, Link::default(), options());
    let mut log = log.expect("create");
    let records = fill(&mut log, 40);
    let before = read_all(&log, Lsn::ZERO);
    log.cut(records[3].last_lsn()).expect("cut");
    assert_eq!(before, records, "what was handed out does not change");
    assert_eq!(read_all(&log, Lsn::ZERO), records[..4]);
}

#[test]
fn a_reset_begins_behind_the_snapshot_and_keeps_what_was_not_verified() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    let records = fill(&mut log, 50);
    let segments = log.reader().segments();
    let base = Link {
        position: crate::Position {
            epoch: Epoch(7),
            lsn: Lsn(5000),
        },
        chain: crate::Chain(99),
        timestamp: 1 << 40,
    };
    let history = History {
        generation: 2,
        id: 44,
    };
    let verified = segments[2].base.position.lsn;
    log.reset(base, history, verified).expect("reset");
    assert_eq!(
        (log.written(), log.first_lsn(), log.history()),
        (base, Lsn(5001), history)
    );
    assert!(matches!(
        log.reader().read(records[0].last_lsn(), 100),
        Err(ReadError::Gone {
            first_lsn: Lsn(5001)
        })
    ));
    let aside = disk.list("divergent").expect("list");
    assert_eq!(
        aside.len(),
        segments.len() - 2,
        "only what is above `verified`: {aside:?}"
    );
    let more = fill(&mut log, 5);
    drop(log);
    let (log, recovered) = Log::open(disk.clone(), IDENTITY, base, options()).expect("open");
    assert_eq!(
        (recovered.reach, recovered.history),
        (Reach::Contains, history)
    );
    assert_eq!(read_all(&log, Lsn(5000)), more);
    drop(log);
    let refused = open(&disk, options()).err().expect("refused");
    assert!(matches!(
        refused.kind,
        ErrorKind::DoesNotReach(Reach::StartsAbove)
    ));
}

#[test]
fn a_snapshot_is_held_against_the_log() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    let records = fill(&mut log, 40);
    drop(log);
    let reach = |base: Link| match Log::open(disk.clone(), IDENTITY, base, options()) {
        Ok((_, recovered)) => recovered.reach,
        Err(error) => match error.kind {
            ErrorKind::DoesNotReach(reach) => reach,
            other => panic!("{other}"),
        },
    };
    for record in &records {
        assert_eq!(reach(record.link()), Reach::Contains, "{record:?}");
    }
    let middle = records[20].link();
    let other = crate::Chain(middle.chain.0 ^ 1);
    assert_eq!(
        reach(Link {
            chain: other,
            ..middle
        }),
        Reach::Diverges
    );
    let mut above = records[records.len() - 1].link();
    above.position.lsn = above.position.lsn.next();
    assert_eq!(reach(above), Reach::EndsBelow);
}

#[test]
fn epoch_starts_above_the_base_are_handed_back() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    let mut starts = Vec::new();
    for epoch in 1..=4 {
        let link = log.written();
        let start = Record::build(
            link,
            Kind::EpochStart,
            Epoch(epoch),
            link.timestamp + 1,
            1,
            b"nonce",
        );
        log.push(start.clone());
        starts.push(start);
        fill(&mut log, 12);
    }
    drop(log);
    let (_, recovered) = open(&disk, options()).expect("open");
    assert_eq!(recovered.epoch_starts, starts);
    let base = starts[1].link();
    let (_, recovered) = Log::open(disk, IDENTITY, base, options()).expect("open");
    assert_eq!(recovered.epoch_starts, starts[2..]);
}

#[test]
fn a_new_history_begins_a_new_segment() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    let next = |generation| History { generation, id: 5 };
    log.roll(next(2)).expect("roll an empty segment");
    assert_eq!(log.reader().segments().len(), 1, "it was replaced");
    let mut records = fill(&mut log, 5);
    log.roll(next(3)).expect("roll");
    records.extend(fill(&mut log, 5));
    assert_eq!(read_all(&log, Lsn::ZERO), records);
    drop(log);
    let (log, recovered) = open(&disk, options()).expect("open");
    assert_eq!((recovered.history, recovered.end), (next(3), End::Clean));
    let histories: Vec<_> = log
        .reader()
        .segments()
        .iter()
        .map(|s| s.history.generation)
        .collect();
    assert_eq!(histories, [2, 3]);
}

#[test]
fn trimming_drops_whole_segments_below_and_nothing_else() {
    let disk = SimDisk::new(1);
    let options = Options {
        keep_bytes: 3 * options().segment_bytes,
        ..options()
    };
    let mut log = create(&disk, options);
    let records = fill(&mut log, 50);
    let segments = log.reader().segments();
    assert_eq!(log.excess(), segments[segments.len() - 3].base.position.lsn);
    let middle = segments[2].base.position.lsn;
    assert_eq!(
        log.trim(Lsn(middle.0 - 1)).expect("trim"),
        segments[1].first_lsn
    );
    assert_eq!(log.trim(middle).expect("trim"), segments[2].first_lsn);
    let early = log.reader().read(segments[1].first_lsn, 100);
    assert!(matches!(early, Err(ReadError::Gone { .. })));
    let rest: Vec<_> = records
        .iter()
        .filter(|r| r.first_lsn() > middle)
        .cloned()
        .collect();
    assert_eq!(read_all(&log, middle), rest);
    log.trim(Lsn(u64::MAX)).expect("trim");
    assert_eq!(log.reader().segments().len(), 1, "the newest stays");
    drop(log);
    let last = records[records.len() - 1].link();
    let (_, recovered) = Log::open(disk, IDENTITY, last, options).expect("open");
    assert_eq!((recovered.reach, recovered.tail), (Reach::Contains, last));
}

#[test]
fn a_full_disk_stops_the_log_unharmed_and_it_goes_on_when_space_comes_back() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    assert_eq!(log.prepare().expect("prepare"), Space::Ok);
    disk.set_capacity(2 * options().segment_bytes + 600);
    let mut records = Vec::new();
    while log.admits(Kind::Commands, 500) {
        records.push(push(&mut log, 400));
        log.flush().expect("flush");
        log.prepare().expect("prepare");
    }
    assert_eq!(log.space(), Space::Full);
    // The reserve still takes what is not a client's command.
    let link = log.written();
    let tick = Record::build(link, Kind::Tick, Epoch(1), link.timestamp + 1, 1, b"");
    assert!(log.admits(Kind::Tick, tick.bytes().len()));
    log.push(tick.clone());
    records.push(tick);
    assert_eq!(log.flush().expect("flush"), log.written().position.lsn);
    // More than there is waits in memory, and nothing is harmed.
    for _ in 0..10 {
        records.push(push(&mut log, 400));
    }
    let durable = log.flush().expect("no failure");
    assert!(durable < log.written().position.lsn && log.space() == Space::Full);
    disk.set_capacity(u64::MAX);
    assert_eq!(log.flush().expect("flush"), log.written().position.lsn);
    assert_eq!(log.prepare().expect("prepare"), Space::Ok);
    assert_eq!(read_all(&log, Lsn::ZERO), records);
}

#[test]
fn a_record_larger_than_a_segment_gets_a_larger_segment() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    let mut records = fill(&mut log, 3);
    log.prepare().expect("prepare");
    records.push(push(&mut log, 100_000));
    records.push(push(&mut log, 10));
    log.flush().expect("flush");
    assert_eq!(read_all(&log, Lsn::ZERO), records);
    drop(log);
    let (log, recovered) = open(&disk, options()).expect("open");
    assert_eq!(recovered.end, End::Clean);
    assert_eq!(read_all(&log, Lsn::ZERO), records);
}

#[test]
fn a_failed_write_ends_the_log_s_life() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    let records = fill(&mut log, 3);
    push(&mut log, 10);
    disk.fail_next();
    let failed = log.flush().expect_err("the write fails");
    assert!(
        matches!(failed.kind, ErrorKind::Io("append", _)),
        "{failed}"
    );
    let after = log.flush().expect_err("and nothing is tried again");
    assert!(matches!(after.kind, ErrorKind::Failed), "{after}");
    assert!(log.cut(Lsn::ZERO).is_err() && log.settle().is_err() && log.trim(Lsn(1)).is_err());
    drop(log);
    let (log, _) = open(&disk.crash(), options()).expect("open");
    assert_eq!(read_all(&log, Lsn::ZERO)[..records.len()], records);
}

/// Reads on and on from the begin until `done`; returns how many reads gave records.
fn follow(reader: &crate::Reader<Disk>, done: &AtomicBool) -> u64 {
    let (mut at, mut reads) = (Lsn::ZERO, 0);
    while !done.load(Ordering::Relaxed) {
        match reader.read(at, 3000) {
            Ok(records) => {
                for record in &records {
                    assert!(record.first_lsn() <= at.next() && record.last_lsn() > at);
                    at = record.last_lsn();
                }
                reads += u64::from(!records.is_empty());
                at = at.min(reader.durable()); // it may have been cut under our feet
            }
            Err(ReadError::Gone { first_lsn }) => at = Lsn(first_lsn.0 - 1),
            Err(other) => panic!("{other}"),
        }
    }
    reads
}

/// Readers on other threads see, at every moment, whole records in order and nothing that is not
/// durable, whatever the writer does: append, cut, trim, reset.
#[test]
fn readers_keep_pace_with_appends_cuts_and_trims() {
    let directory = tempfile::tempdir().expect("scratch");
    let disk = Disk::open(directory.path()).expect("open");
    let log = Log::create(disk, IDENTITY, HISTORY, Link::default(), options());
    let mut log = log.expect("create");
    let done = &AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = log.reader();
                scope.spawn(move || follow(&reader, done))
            })
            .collect();
        for round in 0..120u64 {
            fill(&mut log, 4);
            let written = log.written().position.lsn;
            if round % 5 == 4 {
                let records = read_all(&log, Lsn(log.first_lsn().0 - 1));
                let keep = &records[records.len() - records.len() / 4];
                log.cut(keep.last_lsn()).expect("cut");
            }
            if round % 7 == 6 {
                log.trim(Lsn(written.0 * 3 / 4)).expect("trim");
            }
        }
        done.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader"))
            .sum::<u64>()
    });
    assert!(reads > 10, "{reads}");
}
