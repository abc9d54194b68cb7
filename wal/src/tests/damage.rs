//! Every byte and every length of a 64 KiB segment: nothing wrong is ever believed, and nothing
//! acknowledged is ever lost in silence.

use super::{create, open, options, push, read_all};
use crate::record::{Lsn, Record};
use crate::scan::{Entry, Scan};
use crate::segment::{self, Header, STAMP_BYTES};
use crate::storage::sim::SimDisk;
use crate::{End, ErrorKind, Log, Options};
use std::ops::Range;

const SEGMENT: u64 = 64 << 10;

/// A log of two segments, and where its records lie in one of them.
struct Sample {
    disk: SimDisk,
    name: String,
    records: Vec<Record>,
    /// The segment's records with their places.
    entries: Vec<Entry>,
    /// What the stamps on disk call durable.
    known_durable: Lsn,
}

/// What is examined: the newest segment with or without a settled end, or the sealed one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Case {
    Settled,
    Unsettled,
    Sealed,
}

fn peers() -> Options {
    Options {
        segment_bytes: SEGMENT,
        ..options()
    }
}

fn alone() -> Options {
    Options {
        alone: true,
        ..peers()
    }
}

impl Sample {
    fn new(case: Case) -> Sample {
        let disk = SimDisk::new(7);
        let mut log = create(&disk, peers());
        let mut records = Vec::new();
        let sizes = [0usize, 5, 3000, 8, 300, 1, 40, 900];
        let mut groups = 0..;
        let mut known_durable = Lsn::ZERO;
        // Twelve groups reach into the second segment only where the first is examined as sealed.
        let want = |log: &Log<SimDisk>, groups: usize| match case {
            Case::Sealed => log.reader().segments().len() < 2,
            _ => groups < 16,
        };
        for group in &mut groups {
            if !want(&log, group) {
                break;
            }
            known_durable = log.durable();
            let scale = if case == Case::Sealed { 3 } else { 1 };
            for at in 0..group % 3 + 1 {
                records.push(push(
                    &mut log,
                    sizes[(group + 3 * at) % sizes.len()] * scale,
                ));
            }
            log.flush().expect("flush");
        }
        if case == Case::Settled {
            log.settle().expect("settle");
            known_durable = log.durable();
        }
        let header = *log.headers.front().expect("a segment");
        drop(log);
        let name = segment::name(header.first_lsn());
        let entries = entries(&disk, &name, &header);
        Sample {
            disk,
            name,
            records,
            entries,
            known_durable,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.disk.contents(&self.name).expect("there")
    }

    fn used(&self) -> usize {
        self.entries[self.entries.len() - 1].end() + STAMP_BYTES
    }

    /// The disk with other bytes in the segment.
    fn with(&self, bytes: Vec<u8>) -> SimDisk {
        let disk = self.disk.fork(1);
        disk.put(&self.name, bytes);
        disk.restart()
    }

    /// The record whose bytes hold this place; `None` for headers, stamps and zeros.
    fn hit(&self, at: usize) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| (entry.record_at()..entry.end()).contains(&at))
    }

    /// Opens with and without peers and checks what must hold whatever was damaged.
    fn check(&self, bytes: &[u8], place: usize, hit: Option<&Entry>) {
        let acknowledged = self.records.len();
        match open(&self.with(bytes.to_vec()), alone()) {
            // Alone, the log is whole or refused: nothing that was acknowledged is forgotten.
            Ok((log, recovered)) => {
                assert!(hit.is_none(), "alone, byte {place}: {hit:?} was believed");
                assert_eq!(
                    read_all(&log, Lsn::ZERO),
                    self.records,
                    "alone, byte {place}"
                );
                assert!(
                    !matches!(recovered.end, End::Suspect { .. }),
                    "alone, byte {place}"
                );
            }
            Err(error) => {
                assert!(is_damage(&error), "byte {place}: {error}");
                let Some(hit) = hit else { return };
                let told = (error.file.as_str(), error.offset, error.lsn);
                let where_it_is = (
                    self.name.as_str(),
                    Some(hit.offset as u64),
                    Some(hit.head.first_lsn),
                );
                assert_eq!(told, where_it_is, "byte {place}");
            }
        }
        let (log, recovered) = open(&self.with(bytes.to_vec()), peers()).expect("with peers");
        match (hit, recovered.damaged.first()) {
            (Some(hit), Some(range)) => {
                assert_eq!(recovered.damaged.len(), 1, "byte {place}");
                assert_eq!(
                    (range.first_lsn, range.last_lsn, range.offset),
                    (hit.head.first_lsn, hit.head.last_lsn(), hit.offset as u64),
                    "byte {place}"
                );
            }
            // What is cut lies above everything known durable, and the log says so.
            (Some(hit), None) => {
                assert!(
                    hit.head.first_lsn > self.known_durable,
                    "byte {place}: {hit:?} cut"
                );
                assert!(matches!(recovered.end, End::Suspect { .. }), "byte {place}");
                let kept = read_all(&log, Lsn::ZERO);
                assert_eq!(kept, self.records[..kept.len()], "byte {place}");
                assert_eq!(recovered.tail.position.lsn.next(), hit.head.first_lsn);
            }
            (None, None) => {
                assert_eq!(
                    read_all(&log, Lsn::ZERO).len(),
                    acknowledged,
                    "byte {place}"
                );
            }
            (None, Some(range)) => panic!("byte {place}: {range:?} is not damaged"),
        }
    }
}

fn is_damage(error: &crate::Error) -> bool {
    matches!(error.kind, ErrorKind::Damaged(_) | ErrorKind::DamagedEnd(_))
}

fn entries(disk: &SimDisk, name: &str, header: &Header) -> Vec<Entry> {
    let bytes = disk.contents(name).expect("there");
    let mut scan = Scan::new(&bytes, header);
    std::iter::from_fn(|| scan.step().ok()).collect()
}

/// One bit of every byte in the range, a different one from byte to byte.
fn flip_each(case: Case, range: impl Fn(&Sample) -> Range<usize>, step: usize) {
    let sample = Sample::new(case);
    let mut bytes = sample.bytes();
    assert_eq!(bytes.len() as u64, SEGMENT);
    for at in range(&sample).step_by(step) {
        let bit = 1 << (at % 8);
        bytes[at] ^= bit;
        sample.check(&bytes, at, sample.hit(at));
        bytes[at] ^= bit;
    }
}

#[test]
fn every_byte_of_the_newest_segment_counts_or_does_not_matter() {
    flip_each(Case::Settled, |sample| 0..sample.used(), 1);
}

#[test]
fn every_byte_of_the_last_write_counts_or_does_not_matter() {
    let last_write = |sample: &Sample| {
        let first = sample
            .entries
            .iter()
            .find(|e| e.head.first_lsn > sample.known_durable);
        first.expect("a last write").offset..sample.used()
    };
    flip_each(Case::Unsettled, last_write, 1);
}

#[test]
fn every_byte_of_a_sealed_segment_counts_or_does_not_matter() {
    flip_each(Case::Sealed, |_| 0..SEGMENT as usize, 5);
}

/// "Zeros followed by anything else are not a clean end."
#[test]
fn a_stray_bit_in_the_unused_space_is_never_a_clean_end() {
    for case in [Case::Settled, Case::Unsettled] {
        let sample = Sample::new(case);
        let mut bytes = sample.bytes();
        for at in (sample.used()..bytes.len()).step_by(97) {
            bytes[at] ^= 1;
            sample.check(&bytes, at, None);
            let (_, recovered) = open(&sample.with(bytes.clone()), peers()).expect("open");
            assert!(matches!(recovered.end, End::Suspect { .. }), "byte {at}");
            bytes[at] ^= 1;
        }
    }
}

/// A crash never shortens a segment, which was durable at full length before its first record:
/// a short file is never a clean end, however its end looks.
#[test]
fn every_length_of_the_newest_segment_is_told_from_the_whole() {
    for case in [Case::Settled, Case::Unsettled] {
        let sample = Sample::new(case);
        let bytes = sample.bytes();
        // Where the end was settled or not makes a difference only behind the last write's begin.
        let last_write = sample
            .entries
            .iter()
            .find(|e| e.head.first_lsn > sample.known_durable);
        let from = last_write.map_or(0, |entry| entry.offset);
        let behind = (sample.used()..bytes.len()).step_by(if from == 0 { 1 } else { 64 });
        for len in (from..sample.used()).chain(behind) {
            let short = bytes[..len].to_vec();
            let refused = open(&sample.with(short.clone()), alone()).err();
            let refused = refused.expect("alone, a shortened segment is refused");
            assert!(is_damage(&refused), "length {len}: {refused}");
            // With peers: said to be damaged, or cut above what is known durable and suspect.
            let Ok((log, recovered)) = open(&sample.with(short), peers()) else {
                assert!(len < 2048, "length {len}: a header copy is left");
                continue;
            };
            let suspect = matches!(recovered.end, End::Suspect { .. });
            assert!(suspect || !recovered.damaged.is_empty(), "length {len}");
            let tail = recovered.tail.position.lsn;
            // What the stamps that are left still say.
            let stamps = sample.entries.iter().filter(|e| e.record_at() <= len);
            let said = stamps.filter_map(|e| e.stamp).map(|s| s.durable_through);
            let said = match len >= sample.used() {
                true => sample.known_durable,
                false => said.max().unwrap_or(Lsn::ZERO),
            };
            assert!(!suspect || tail >= said, "length {len} cut to {tail}");
            if let Some(range) = recovered.damaged.first() {
                let reach = (range.first_lsn, range.last_lsn);
                assert_eq!(reach, (tail.next(), said), "length {len}");
            }
            let there = sample
                .entries
                .iter()
                .filter(|entry| entry.end() <= len)
                .count();
            assert_eq!(
                tail,
                there
                    .checked_sub(1)
                    .map_or(Lsn::ZERO, |at| sample.records[at].last_lsn())
            );
            if len % 16 == 0 {
                let left = read_all(&log, Lsn::ZERO);
                assert_eq!(left, sample.records[..there], "length {len}");
            }
        }
    }
}

#[test]
fn every_length_of_a_sealed_segment_loses_nothing_in_silence() {
    let sample = Sample::new(Case::Sealed);
    let bytes = sample.bytes();
    let end = sample.entries[sample.entries.len() - 1].end();
    for len in (0..bytes.len()).step_by(7) {
        let short = bytes[..len].to_vec();
        let opened = open(&sample.with(short.clone()), alone());
        assert_eq!(opened.is_ok(), len >= end, "alone, length {len}");
        let Ok((log, recovered)) = open(&sample.with(short), peers()) else {
            assert!(len < 2048, "length {len}: a header copy is left");
            continue;
        };
        if len >= end {
            assert!(recovered.damaged.is_empty());
            assert_eq!(read_all(&log, Lsn::ZERO), sample.records, "length {len}");
            continue;
        }
        let lost = sample
            .entries
            .iter()
            .find(|entry| entry.end() > len)
            .expect("some are lost");
        let last = sample.entries[sample.entries.len() - 1].head.last_lsn();
        let range = &recovered.damaged[0];
        assert_eq!(
            (range.first_lsn, range.last_lsn),
            (lost.head.first_lsn, last)
        );
    }
}

#[test]
fn a_missing_segment_file_is_named() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    for _ in 0..200 {
        push(&mut log, 300);
        log.flush().expect("flush");
    }
    let segments = log.reader().segments();
    drop(log);
    assert!(segments.len() > 4);
    for (at, segment) in segments.iter().enumerate() {
        let disk = disk.fork(1).restart();
        let name = segment::name(segment.first_lsn);
        disk.lose(&name);
        let opened = open(&disk, options());
        if at == 0 {
            // Trimmed, for all the log can know: but then a snapshot is needed.
            let error = opened.err().expect("refused");
            let above = crate::Reach::StartsAbove;
            assert!(matches!(error.kind, ErrorKind::DoesNotReach(reach) if reach == above));
            continue;
        }
        let error = opened.err().expect("refused");
        assert!(matches!(error.kind, ErrorKind::SegmentMissing), "{error}");
        let expected = match at + 1 == segments.len() {
            true => segment::name(segments[at - 1].first_lsn), // which says there is a next one
            false => name,
        };
        assert_eq!(error.file, expected);
    }
}

/// Wherever power goes behind the first record of a segment, and with it that segment's file: the
/// one before says that there was a next one.
#[test]
fn a_new_segment_that_is_gone_after_a_loss_of_power_is_missed() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    for _ in 0..60 {
        push(&mut log, 300);
        log.flush().expect("flush");
        let segments = log.reader().segments();
        let [.., before, newest] = &segments[..] else {
            continue;
        };
        for seed in 0..8 {
            let disk = disk.fork(seed).crash();
            disk.lose(&segment::name(newest.first_lsn));
            let error = open(&disk, options()).err().expect("refused");
            assert!(matches!(error.kind, ErrorKind::SegmentMissing), "{error}");
            assert_eq!(error.file, segment::name(before.first_lsn));
        }
    }
}

/// An unfinished write, alone: what trails off into zeros is cut, kept aside and served; an
/// operator's word lets other bytes be cut, too, but never acknowledged ones.
#[test]
fn alone_a_torn_write_is_cut_and_other_damage_needs_a_word() {
    let sample = Sample::new(Case::Unsettled);
    let entry = *sample
        .entries
        .iter()
        .find(|e| e.head.first_lsn > sample.known_durable)
        .unwrap();
    let end = sample.used();
    for torn_at in entry.offset + 1..entry.end() {
        let mut bytes = sample.bytes();
        bytes[torn_at..end].fill(0);
        let disk = sample.with(bytes);
        let (log, recovered) = open(&disk, alone()).expect("open");
        let whole = torn_at >= entry.end() - 8; // the padding is zeros anyway
        if recovered.tail.position.lsn >= entry.head.first_lsn {
            assert!(whole, "byte {torn_at}");
            continue;
        }
        assert_eq!(recovered.tail.position.lsn.next(), entry.head.first_lsn);
        let End::Torn { kept } = recovered.end else {
            // The next write's first stamp alone is a closing stamp like any other.
            let stamp = entry.offset..entry.record_at();
            let whole =
                disk.contents(&sample.name).expect("there")[stamp.clone()] == sample.bytes()[stamp];
            assert!(whole && torn_at <= entry.record_at(), "byte {torn_at}");
            assert_eq!(recovered.end, End::Clean);
            continue;
        };
        let kept = disk.contents(&kept).expect("kept aside");
        assert!(kept.len() <= torn_at - entry.offset && !log.is_suspect());
        drop(log);
        let (_, recovered) = open(&disk, alone()).expect("open");
        assert_eq!(recovered.end, End::Clean, "cut once");
    }
    let mut bytes = sample.bytes();
    bytes[entry.record_at() + 3] ^= 1;
    let word = Options {
        cut_damaged_end: true,
        ..alone()
    };
    assert!(open(&sample.with(bytes.clone()), alone()).is_err());
    let (_, recovered) = open(&sample.with(bytes), word).expect("permitted");
    assert!(matches!(recovered.end, End::Torn { .. }));
    let mut bytes = sample.bytes();
    bytes[sample.entries[0].record_at() + 3] ^= 1;
    assert!(
        open(&sample.with(bytes), word).is_err(),
        "never what was acknowledged"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    })]

    /// Whatever bytes stand in a segment, opening and inspecting it ends, panics never, and hands
    /// out only records that were written.
    #[test]
    fn any_bytes_are_survived(
        seed: u64,
        changes in proptest::collection::vec((0..1usize << 14, 0..600usize, 0..4u8), 1..8),
    ) {
        let sample = Sample::new(Case::Settled);
        let mut random = crate::storage::sim::Random::new(seed);
        let mut bytes = sample.bytes();
        // Zeros over the very end are what a disk leaves that never wrote it: no log can tell.
        let last = sample.entries[sample.entries.len() - 1].offset;
        for (at, len, how) in changes {
            let end = (at + len).min(bytes.len());
            match how {
                0 => bytes[at.min(last)..end.min(last)].fill(0),
                1 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.draw() as u8),
                // Stretches of the segment itself in other places.
                2 => bytes.copy_within(at..end, (at + 8 * len) % (last - 600)),
                _ => bytes.truncate(bytes.len() - len),
            }
        }
        if let Ok(inspection) = crate::inspect::inspect(&bytes) {
            let lines: Vec<String> = inspection.map(|line| line.to_string()).collect();
            assert!(!lines.is_empty(), "the end is always told");
        }
        for options in [peers(), alone()] {
            let Ok((log, recovered)) = open(&sample.with(bytes.clone()), options) else {
                continue;
            };
            let reader = log.reader();
            let mut at = Lsn::ZERO;
            while let Ok(records) = reader.read(at, 1 << 20) {
                let Some(last) = records.last() else { break };
                at = last.last_lsn();
                assert!(records.iter().all(|record| sample.records.contains(record)));
            }
            let whole = recovered.tail.position.lsn >= sample.known_durable;
            assert!(whole || !options.alone, "alone, a log that lost something was served");
            let told = matches!(recovered.end, End::Suspect { .. } | End::Unjudged);
            assert!(whole || told, "something acknowledged was lost in silence");
        }
    }
}

/// A sound record in the place of another one, as a write that went astray leaves it: the record
/// behind does not follow. Found by the fuzzer: a read across it failed as a whole, and so never
/// came past the sound records before it.
#[test]
fn what_stands_before_a_record_out_of_order_is_read() {
    let disk = SimDisk::new(7);
    let mut log = create(&disk, options());
    let records: Vec<Record> = (0..4).map(|_| push(&mut log, 40)).collect();
    log.flush().expect("flush");
    log.settle().expect("settle");
    let header = *log.headers.front().expect("a segment");
    drop(log);
    let name = segment::name(header.first_lsn());
    let second = entries(&disk, &name, &header)[1];
    let (before, was) = (records[0].link(), &records[1]);
    let stray = super::record(before, was.count(), 40, 99);
    let mut bytes = disk.contents(&name).expect("there");
    bytes[second.record_at()..second.end()].copy_from_slice(stray.bytes());
    disk.put(&name, bytes);
    let (log, recovered) = open(&disk.restart(), options()).expect("peers can help");
    assert_eq!(recovered.damaged.len(), 1);
    let read = log
        .reader()
        .read(Lsn::ZERO, usize::MAX)
        .expect("two records");
    assert_eq!(read, [records[0].clone(), stray]);
}

/// A sealed segment that lost its end in the middle of a record's payload: the records before are
/// read, and what is missing is named. Found by the fuzzer: a read from further ahead failed as a
/// whole, with an error instead of a range that a peer can repair.
#[test]
fn what_stands_before_a_record_that_lost_its_end_is_read() {
    let sample = Sample::new(Case::Sealed);
    let cut = &sample.entries[sample.entries.len() / 2];
    let mut bytes = sample.bytes();
    bytes.truncate(cut.record_at() + 48);
    assert!(cut.head.size > 48, "it has a payload");
    let disk = sample.with(bytes);
    let (log, recovered) = open(&disk, peers()).expect("peers can help");
    assert_eq!(recovered.damaged.len(), 1);
    let reader = log.reader();
    let mut at = Lsn::ZERO;
    while at < Lsn(cut.head.first_lsn.0 - 1) {
        let read = reader.read(at, usize::MAX).expect("sound records");
        at = read.last().expect("at least one").last_lsn();
    }
    let error = reader.read(at, usize::MAX).expect_err("they are gone");
    let crate::ReadError::Damaged(range) = error else {
        panic!("a range to repair, not {error}");
    };
    assert_eq!(range.first_lsn, cut.head.first_lsn);
}
