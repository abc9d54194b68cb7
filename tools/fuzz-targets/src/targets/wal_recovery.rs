//! Recovery of the log: a directory of damaged segments and notes, opened, read, appended to and
//! opened again.
//!
//! Asserted: no panic, and memory stays within a bound; a log that is refused is left as it was;
//! one that opens reads back as one chain from its first record to the tail that recovery named;
//! what recovery cut is kept aside, byte for byte, and holds no stamp that calls more than the tail
//! durable; what is appended then is there after the next start, behind all the rest.

mod directory;

use crate::Target;
use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::samples;
use directory::Directory;
use standfast_wal::log::End;
use standfast_wal::segment::{HEADER_AREA, Header, STAMP_BYTES, Stamp, name};
use standfast_wal::{
    Identity, Kind, Link, Log, Lsn, NodeId, Options, ReadError, Record, Recovered, SimDisk,
};

pub const TARGET: Target = Target {
    name: "wal_recovery",
    decodes: "wal: segment headers, stamps, notes, recovery, cut, reader, reopening",
    run,
    marks: &[
        "refused",
        "damaged",
        "clean",
        "torn",
        "suspect",
        "announced cut or reset",
    ],
    seeds,
};

pub const IDENTITY: Identity = Identity {
    cluster: samples::CLUSTER,
    node: NodeId(1),
    incarnation: samples::INCARNATION,
};

/// The simulated disk's own memory is part of it: segments that are zeros to their ends, and
/// what is kept aside.
const MEMORY: Bound = Bound {
    per_byte: 64,
    fixed: 4 << 20,
};

/// Choices of the first byte, as bits.
const ALONE: u8 = 1;
const CUT_DAMAGED_END: u8 = 2;
const FROM_THE_START: u8 = 4;
const POWER_CUT: u8 = 8;

const DISK_BYTES: u64 = 1 << 20;

pub(super) fn options() -> Options {
    Options {
        segment_bytes: 8 << 10,
        keep_bytes: 1 << 30,
        reserve_bytes: 1 << 10,
        alone: false,
        cut_damaged_end: false,
    }
}

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let mut directory = Directory::read(bytes);
    if how.has(How::REPAIRED) {
        directory.make_good(how.has(How::ALIGNED));
    }
    let choice = how.choice();
    let options = Options {
        alone: choice & ALONE != 0,
        cut_damaged_end: choice & CUT_DAMAGED_END != 0,
        ..options()
    };
    let base = match choice & FROM_THE_START != 0 {
        true => directory.first_base().unwrap_or_default(),
        false => Link::default(),
    };
    MEMORY.hold(bytes.len(), || {
        open(&directory, base, options, choice & POWER_CUT != 0)
    });
}

type Files = Vec<(String, Vec<u8>)>;

fn files(disk: &SimDisk) -> Files {
    let contents = |name: String| (name.clone(), disk.contents(&name).expect("it is listed"));
    disk.files()
        .into_iter()
        .map(|(name, _)| contents(name))
        .collect()
}

fn open(directory: &Directory, base: Link, options: Options, power_cut: bool) {
    let disk = SimDisk::new(7);
    disk.set_capacity(DISK_BYTES);
    directory.put(&disk);
    let before = files(&disk);
    match Log::open(disk.clone(), IDENTITY, base, options) {
        Err(error) => {
            hit("refused");
            assert!(!error.to_string().is_empty());
            if !directory.has_leftovers() {
                assert!(files(&disk) == before, "refused, and changed: {error}");
            }
        }
        Ok((log, recovered)) if !recovered.damaged.is_empty() => {
            hit("damaged");
            assert!(!options.alone, "alone, damage is refused");
            damaged(&log, &recovered);
        }
        Ok((log, recovered)) => {
            hit(match recovered.end {
                End::Clean => "clean",
                End::Torn { .. } => "torn",
                End::Suspect { .. } => "suspect",
                End::Unjudged => panic!("without damage the end is judged"),
            });
            if recovered.finished_interrupted {
                hit("announced cut or reset");
            }
            let records = sound(&log, &recovered);
            if !directory.has_leftovers() {
                kept_what_was_cut(&disk, &before, &recovered, &records);
            }
            let was_suspect = log.is_suspect();
            assert_eq!(was_suspect, matches!(recovered.end, End::Suspect { .. }));
            let all = append(log, records);
            let disk = if power_cut {
                disk.crash()
            } else {
                disk.restart()
            };
            let (log, recovered) = Log::open(disk, IDENTITY, base, options).expect("it opened");
            assert!(recovered.damaged.is_empty() && !recovered.finished_interrupted);
            assert_eq!(
                log.is_suspect(),
                was_suspect,
                "suspicion stays until it is lifted"
            );
            assert!(
                was_suspect || recovered.end == End::Clean,
                "{:?}",
                recovered.end
            );
            assert_eq!(sound(&log, &recovered), all, "the same log, opened again");
        }
    }
}

/// Reads a log that has no damage: one chain to the tail.
fn sound(log: &Log<SimDisk>, recovered: &Recovered) -> Vec<Record> {
    let reader = log.reader();
    let segments = reader.segments();
    let mut link = segments[0].base;
    assert_eq!(link.position.lsn.next(), recovered.first_lsn);
    let mut records = Vec::new();
    loop {
        let more = reader.read(link.position.lsn, 4096);
        let more = more.unwrap_or_else(|error| panic!("an opened log reads: {error}"));
        if more.is_empty() {
            break;
        }
        for record in more {
            assert_eq!(record.follows(link), Ok(()));
            let proved = Record::check(record.bytes());
            assert_eq!(proved, Ok(record.head()));
            link = record.link();
            records.push(record);
        }
    }
    assert_eq!(link, recovered.tail, "the tail that recovery named");
    assert_eq!((log.durable_link(), log.written()), (link, link));
    for segment in &segments {
        let damaged = reader.scrub(segment.first_lsn);
        assert!(damaged.expect("a readable disk").is_empty());
    }
    records
}

/// Reads around damage: what is given out is good, and each hole is named.
fn damaged(log: &Log<SimDisk>, recovered: &Recovered) {
    for range in &recovered.damaged {
        assert!(range.first_lsn <= range.last_lsn, "{range:?}");
        assert_eq!(range.after.position.lsn.next(), range.first_lsn);
    }
    let reader = log.reader();
    let mut at = reader.segments()[0].base.position.lsn;
    loop {
        match reader.read(at, 4096) {
            Ok(records) if records.is_empty() => break,
            Ok(records) => {
                for record in &records {
                    assert_eq!(Record::check(record.bytes()), Ok(record.head()));
                    assert!(record.last_lsn() > at);
                    at = record.last_lsn();
                }
            }
            Err(ReadError::Damaged(range)) => {
                assert!(range.last_lsn > at, "{range:?} is not behind {at}");
                at = range.last_lsn;
            }
            Err(other) => panic!("a readable disk: {other}; {:?}", recovered.damaged),
        }
    }
}

/// The newest segment's bytes behind its last record, as they were, lie in the file that recovery
/// names; and no stamp among them calls anything durable that was cut.
fn kept_what_was_cut(disk: &SimDisk, before: &Files, recovered: &Recovered, log: &[Record]) {
    let (kept, newest) = match &recovered.end {
        End::Torn { kept } | End::Suspect { kept } => {
            let mut segments = before.iter().filter(|(name, _)| name.ends_with(".wal"));
            (kept, segments.next_back().expect("there is a log"))
        }
        End::Clean | End::Unjudged => return,
    };
    if before.iter().any(|(name, _)| name == "suspect") {
        return; // It may name what an earlier start kept.
    }
    let (header, _) = Header::decode(&newest.1).expect("it opened");
    let inside = log
        .iter()
        .filter(|record| record.first_lsn() >= header.first_lsn());
    let records: usize = inside
        .map(|record| STAMP_BYTES + record.bytes().len())
        .sum();
    let from = usize::try_from(HEADER_AREA).expect("small") + records;
    let used = newest
        .1
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(from, |last| last + 1);
    let was = &newest.1[from.min(used)..used];
    let is = disk.contents(kept).expect("what was cut is kept");
    assert!(
        is == was,
        "{} bytes kept of {} cut from {}",
        is.len(),
        was.len(),
        newest.0
    );
    let salt = header.salt();
    for at in (from..used).step_by(8) {
        if let Some(stamp) = Stamp::decode(salt, at as u64, &newest.1[at..]) {
            assert!(
                stamp.durable_through <= recovered.tail.position.lsn,
                "{stamp:?} at {at}"
            );
        }
    }
}

/// Appends two records, if there are LSNs and times left; all records then.
fn append(mut log: Log<SimDisk>, mut records: Vec<Record>) -> Vec<Record> {
    let tail = log.written();
    if tail.position.lsn.0 > u64::MAX / 2 || tail.timestamp > u64::MAX / 2 {
        return records;
    }
    for (count, bytes) in [(1, 5), (3, 3000)] {
        let after = log.written();
        let (epoch, time) = (after.position.epoch, after.timestamp + 1);
        let payload = vec![0xab; bytes];
        let record = Record::build(after, Kind::Commands, epoch, time, count, &payload);
        log.push(record.clone());
        let durable = log.flush().expect("a working disk");
        if durable < record.last_lsn() {
            assert!(disk_is_full(&log));
            return records;
        }
        records.push(record);
    }
    log.settle().expect("a working disk");
    records
}

fn disk_is_full(log: &Log<SimDisk>) -> bool {
    log.space() != standfast_wal::Space::Ok
}

/// A log of three segments on a simulated disk.
fn sample() -> (SimDisk, Log<SimDisk>) {
    let disk = SimDisk::new(1);
    let history = samples::HISTORY;
    let log = Log::create(disk.clone(), IDENTITY, history, Link::default(), options());
    let mut log = log.expect("an empty disk");
    for round in 0..3 {
        for record in samples::records_after(log.written()) {
            log.push(record);
            if round != 1 {
                log.flush().expect("a working disk");
            }
        }
        log.flush().expect("a working disk");
        if round < 2 {
            log.roll(history).expect("a working disk");
        }
    }
    (disk, log)
}

fn seeds() -> Vec<Vec<u8>> {
    let mut directories = Vec::new();
    let (disk, mut log) = sample();
    directories.push(Directory::of(&disk));
    log.settle().expect("a working disk");
    directories.push(Directory::of(&disk));
    // A power cut in the middle of a write.
    for seed in 0..4 {
        let (disk, mut log) = sample();
        for record in samples::records_after(log.written()) {
            log.push(record);
        }
        disk.halt_after(1);
        assert!(log.flush().is_err(), "the disk stopped");
        directories.push(Directory::of(&disk.fork(seed).crash()));
    }
    // A cut, stopped after each of its steps; and a reset.
    for step in 0..24 {
        let (disk, mut log) = sample();
        disk.halt_after(step);
        let _ = log.cut(Lsn(9));
        let (cut, mut log) = (disk, sample().1);
        let reset = log.storage().clone();
        reset.halt_after(step);
        let _ = log.reset(Link::default(), samples::HISTORY, Lsn(3));
        let stopped = [cut, reset].map(|disk| Directory::of(&disk));
        directories.extend(stopped.into_iter().filter(Directory::has_leftovers));
    }
    // The log without its oldest segment, without the one between, without an end.
    for gone in [0, 1, 2] {
        let (disk, _log) = sample();
        let names: Vec<String> = disk.files().into_iter().map(|(name, _)| name).collect();
        let mut segments = names.iter().filter(|name| name.ends_with(".wal"));
        disk.lose(segments.nth(gone).expect("three segments"));
        directories.push(Directory::of(&disk));
    }
    assert!(directories.iter().all(|directory| !directory.is_empty()));
    let bytes: Vec<Vec<u8>> = directories.iter().map(Directory::write).collect();
    let hows = [
        How::of(0, 0),
        How::of(How::REPAIRED, FROM_THE_START),
        How::of(How::REPAIRED | How::ALIGNED, FROM_THE_START | ALONE),
        How::of(
            How::REPAIRED,
            FROM_THE_START | ALONE | CUT_DAMAGED_END | POWER_CUT,
        ),
    ];
    let mut seeds = Vec::new();
    for (number, one) in bytes.iter().enumerate() {
        seeds.push(join(hows[number % hows.len()], one));
        seeds.push(join(hows[(number + 1) % hows.len()], one));
    }
    let (disk, _log) = sample();
    assert!(disk.contents(&name(Lsn(1))).is_some());
    seeds
}
