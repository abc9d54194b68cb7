//! The writer thread: order of events, group commit, space, failure.

use super::{HISTORY, IDENTITY, create, open, options, read_all, record};
use crate::record::{History, Link, Lsn, Record};
use crate::scribe::Command;
use crate::storage::Storage;
use crate::storage::disk::Disk;
use crate::storage::sim::SimDisk;
use crate::{Log, Options, Space, Writer, WriterEvent};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A writer and its events.
struct Bench {
    writer: Writer,
    events: Receiver<WriterEvent>,
    written: Link,
}

impl Bench {
    fn new<S: Storage>(log: Log<S>) -> Bench {
        let (sender, events) = channel();
        let written = log.written();
        let writer = Writer::spawn(log, move |event| {
            let _ = sender.send(event);
        });
        Bench {
            writer,
            events,
            written,
        }
    }

    fn append(&mut self, payload_bytes: usize) -> Record {
        let record = record(self.written, 2, payload_bytes, self.written.position.lsn.0);
        self.written = record.link();
        self.writer.give(Command::Append(record.clone()));
        record
    }

    fn event(&self) -> WriterEvent {
        let patience = Duration::from_secs(60);
        self.events
            .recv_timeout(patience)
            .expect("the writer answers")
    }

    /// Waits until everything appended is durable; returns how many events that took.
    fn wait_durable(&self) -> usize {
        for count in 1.. {
            match self.event() {
                WriterEvent::Durable(lsn) if lsn == self.written.position.lsn => return count,
                WriterEvent::Durable(_) | WriterEvent::Space(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        unreachable!("the loop ends above")
    }
}

fn everything_appended_becomes_durable<S: Storage>(storage: S) {
    let log = Log::create(
        storage.clone(),
        IDENTITY,
        HISTORY,
        Link::default(),
        options(),
    );
    let mut bench = Bench::new(log.expect("create"));
    let mut records = Vec::new();
    for round in 0..60 {
        for _ in 0..round % 5 + 1 {
            records.push(bench.append(round * 11));
        }
        bench.wait_durable();
    }
    bench.writer.close();
    let (log, recovered) = open(&storage, options()).expect("open");
    assert_eq!(recovered.tail, bench.written);
    assert_eq!(read_all(&log, Lsn::ZERO), records);
    assert!(log.reader().segments().len() > 3);
}

#[test]
fn the_thread_writes_to_the_simulated_disk() {
    everything_appended_becomes_durable(SimDisk::new(1));
}

#[test]
fn the_thread_writes_to_the_real_disk() {
    let directory = tempfile::tempdir().expect("scratch");
    everything_appended_becomes_durable(Disk::open(directory.path()).expect("open"));
}

#[test]
fn what_gathers_during_a_write_is_one_write() {
    let disk = SimDisk::new(1);
    let large = Options {
        segment_bytes: 4 << 20,
        ..options()
    };
    let mut bench = Bench::new(create(&disk, large));
    for _ in 0..2000 {
        bench.append(100);
    }
    bench.wait_durable();
    // Each group takes one write and one sync; the rest is preparation.
    let operations = disk.operations();
    assert!(
        operations < 2000,
        "{operations} operations for 2000 records"
    );
    bench.writer.close();
}

#[test]
fn commands_are_done_in_order_and_each_is_answered() {
    let disk = SimDisk::new(1);
    let mut bench = Bench::new(create(&disk, options()));
    let first = bench.append(10);
    let gone = bench.append(20);
    bench.writer.give(Command::Cut(first.last_lsn()));
    bench.written = first.link();
    let next = History {
        generation: 2,
        id: 1,
    };
    bench.writer.give(Command::Roll(next));
    let last = bench.append(30);
    bench.writer.give(Command::Trim(first.last_lsn()));
    bench.writer.give(Command::Trust);
    let base = Link {
        timestamp: 1 << 40,
        ..last.link()
    };
    bench.writer.give(Command::Reset {
        base,
        history: next,
        verified: Lsn::ZERO,
    });
    let mut story = Vec::new();
    loop {
        let event = bench.event();
        story.push(match &event {
            WriterEvent::Durable(_) => continue,
            WriterEvent::Cut(cut) => {
                assert_eq!(
                    (cut.tail, &cut.records),
                    (first.link(), &vec![gone.clone()])
                );
                "cut"
            }
            WriterEvent::Rolled(history) if *history == next => "rolled",
            WriterEvent::Trimmed(lsn) if *lsn == last.first_lsn() => "trimmed",
            WriterEvent::Trusted => "trusted",
            WriterEvent::WasReset(link) if *link == base => break,
            other => panic!("unexpected {other:?}"),
        });
    }
    assert_eq!(story, ["cut", "rolled", "trimmed", "trusted"]);
    bench.written = base;
    let record = bench.append(5);
    bench.wait_durable();
    bench.writer.close();
    let (log, _) = Log::open(disk, IDENTITY, base, options()).expect("open");
    assert_eq!(read_all(&log, base.position.lsn), [record]);
}

#[test]
fn a_full_disk_is_told_and_what_waits_is_written_when_space_comes_back() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    log.prepare().expect("prepare");
    disk.set_capacity(2 * options().segment_bytes + 100);
    let mut bench = Bench::new(log);
    let mut count = 0;
    while bench.writer.admits(500) {
        bench.append(400);
        bench.wait_durable();
        count += 1;
    }
    assert!(count > 20 && bench.writer.room() < 3000, "{count}");
    // More than is there: it waits, nothing fails.
    for _ in 0..30 {
        bench.append(400);
    }
    while !matches!(bench.event(), WriterEvent::Space(Space::Full)) {}
    disk.set_capacity(u64::MAX);
    bench.wait_durable();
    while !bench.writer.admits(500) {
        assert!(matches!(bench.event(), WriterEvent::Space(_)));
    }
    bench.writer.close();
    let (log, _) = open(&disk, options()).expect("open");
    assert_eq!(read_all(&log, Lsn::ZERO).len(), count + 30);
}

#[test]
fn a_cut_says_how_much_of_what_it_leaves_is_durable() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    log.prepare().expect("prepare");
    disk.set_capacity(2 * options().segment_bytes + 100);
    let mut bench = Bench::new(log);
    while bench.writer.admits(500) {
        bench.append(400);
        bench.wait_durable();
    }
    let waiting: Vec<Record> = (0..30).map(|_| bench.append(400)).collect();
    while !matches!(bench.event(), WriterEvent::Space(Space::Full)) {}
    // Room for what is kept aside, not for another segment.
    disk.set_capacity(2 * options().segment_bytes + 2000);
    let last = &waiting[27];
    bench.writer.give(Command::Cut(last.last_lsn()));
    let cut = loop {
        if let WriterEvent::Cut(cut) = bench.event() {
            break cut;
        }
    };
    assert_eq!((cut.tail, cut.records.len()), (last.link(), 2));
    assert!(cut.durable < last.last_lsn(), "{cut:?}");
    disk.set_capacity(u64::MAX);
    bench.written = last.link();
    bench.wait_durable();
}

#[test]
fn a_failed_sync_is_reported_once_and_nothing_comes_after_it() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk, options());
    log.prepare().expect("prepare");
    let mut bench = Bench::new(log);
    let kept = bench.append(10);
    bench.wait_durable();
    disk.halt_after(1); // the write goes out, its sync does not
    for _ in 0..5 {
        bench.append(10);
    }
    bench.writer.give(Command::Cut(Lsn::ZERO));
    assert!(matches!(bench.event(), WriterEvent::Failed(_)));
    for _ in 0..5 {
        bench.append(10);
    }
    bench.writer.give(Command::Trim(Lsn(1)));
    let Bench { writer, events, .. } = bench;
    writer.close();
    assert_eq!(events.iter().count(), 0, "no event after the failure");
    let (log, _) = open(&disk.crash(), options()).expect("open");
    assert_eq!(read_all(&log, Lsn::ZERO)[0], kept);
}

#[test]
fn an_idle_log_is_settled() {
    let disk = SimDisk::new(1);
    let mut bench = Bench::new(create(&disk, options()));
    let record = bench.append(50);
    bench.wait_durable();
    bench.writer.close();
    // Rot in the very last record is told from a torn write once the end is settled.
    let (log, _) = open(&disk, options()).expect("open");
    let name = crate::segment::name(log.first_lsn());
    drop(log);
    disk.flip(&name, crate::segment::HEADER_AREA + 16 + 50, 1);
    let (_, recovered) = open(&disk.restart(), options()).expect("open");
    assert_eq!(recovered.damaged[0].first_lsn, record.first_lsn());
}
