//! Random schedules with crashes: what was durable stays, what was cut stays cut.

use super::{HISTORY, IDENTITY, open, options, record};
use crate::record::{Epoch, History, Link, Lsn, Position, Record};
use crate::storage::sim::{Random, SimDisk};
use crate::{Chain, End, Log, Options, Recovered};
use proptest::prelude::*;

/// What a schedule may do.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Queue this many records of about this size.
    Push(u8, u16),
    Flush,
    Settle,
    /// Cut this many of the last records.
    Cut(u8),
    Roll,
    Trim(u8),
    Prepare,
    /// Go on behind a snapshot this far above the end.
    Reset(u8),
    /// End the process, the machine goes on.
    Restart,
    Crash,
    /// Crash in the middle of the next step, at this changing operation.
    CrashInside(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..6u8, 0..900u16).prop_map(|(count, bytes)| Step::Push(count, bytes)),
        8 => Just(Step::Flush),
        1 => Just(Step::Settle),
        2 => (0..12u8).prop_map(Step::Cut),
        1 => Just(Step::Roll),
        1 => any::<u8>().prop_map(Step::Trim),
        1 => Just(Step::Prepare),
        1 => (1..50u8).prop_map(Step::Reset),
        1 => Just(Step::Restart),
        2 => Just(Step::Crash),
        3 => (0..24u8).prop_map(Step::CrashInside),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What must be true of the log, kept beside it.
struct Model {
    /// The log's first base, and what follows it.
    base: Link,
    records: Vec<Record>,
    /// The newest snapshot: trimming and opening go by it, and no cut goes below it.
    snapshot: Link,
    /// How many of them a flush promised, less what was cut.
    durable: usize,
    /// A cut or reset that was under way when the process died: either outcome is right.
    under_way: Option<Doubt>,
    generation: u64,
}

/// What the log may also be after a crash.
enum Doubt {
    /// Cut to so many records.
    Cut(usize),
    /// Begun anew behind this link.
    Reset(Link),
}

impl Model {
    fn tail(&self, count: usize) -> Link {
        count
            .checked_sub(1)
            .map_or(self.base, |at| self.records[at].link())
    }

    /// Checks what a crash left and goes on from it.
    fn accept(&mut self, log: &Log<SimDisk>, recovered: &Recovered) {
        assert!(recovered.damaged.is_empty(), "{:?}", recovered.damaged);
        if let Some(Doubt::Reset(base)) = self.under_way
            && log.first_lsn() == base.position.lsn.next()
        {
            (self.base, self.snapshot, self.durable) = (base, base, 0);
            self.records.clear();
        }
        let tail = recovered.tail;
        let found = (0..=self.records.len()).find(|count| self.tail(*count) == tail);
        let found = found.unwrap_or_else(|| panic!("{tail:?} is no record that was pushed"));
        let least = match self.under_way.take() {
            // A cut in the middle of which the process died was made or was not begun.
            Some(Doubt::Cut(left)) => left.min(self.durable),
            _ => self.durable,
        };
        assert!(
            found >= least,
            "{least} records were durable, {found} are left"
        );
        self.records.truncate(found);
        self.durable = found;
        let first = log.first_lsn();
        let kept: Vec<_> = self
            .records
            .iter()
            .filter(|record| record.first_lsn() >= first)
            .cloned()
            .collect();
        let read = super::read_all(log, Lsn(first.0 - 1));
        assert_eq!(read, kept, "the chain is read back as it was written");
    }
}

/// Opens the log with the first of the snapshots that it belongs to.
fn open_from(
    disk: &SimDisk,
    bases: &[Link],
    options: Options,
) -> Result<(Log<SimDisk>, Recovered), crate::Error> {
    let mut last = None;
    for base in bases {
        match Log::open(disk.clone(), IDENTITY, *base, options) {
            Err(error) if matches!(error.kind, crate::ErrorKind::DoesNotReach(_)) => {
                last = Some(error);
            }
            other => return other,
        }
    }
    Err(last.expect("at least one base"))
}

struct Run {
    disk: SimDisk,
    /// `None` only within a step.
    log: Option<Log<SimDisk>>,
    model: Model,
    options: Options,
    random: Random,
    inside: Option<u8>,
}

impl Run {
    fn new(seed: u64, alone: bool) -> Run {
        let disk = SimDisk::new(seed);
        let options = Options {
            alone,
            // A write that a crash tore out of order is refused when alone; an operator's word
            // lets the schedule go on.
            cut_damaged_end: alone,
            segment_bytes: 8 << 10,
            ..options()
        };
        let log = super::create(&disk, options);
        Run {
            disk,
            log: Some(log),
            model: Model {
                base: Link::default(),
                snapshot: Link::default(),
                records: Vec::new(),
                durable: 0,
                under_way: None,
                generation: 1,
            },
            options,
            random: Random::new(seed),
            inside: None,
        }
    }

    /// Opens what is left after the process died, and again after dying in the middle of that.
    fn reopen(&mut self, disk: SimDisk) {
        drop(self.log.take());
        let mut disk = disk;
        // The node tries the snapshot under way, then the one before.
        let mut bases = vec![self.model.snapshot];
        if let Some(Doubt::Reset(base)) = self.model.under_way {
            bases.insert(0, base);
        }
        if self.random.below(3) == 0 {
            disk.halt_after(self.random.below(20));
            let opened = open_from(&disk, &bases, self.options);
            if let Ok((log, recovered)) = opened {
                self.model.accept(&log, &recovered);
            }
            disk = disk.crash();
        }
        let (log, recovered) = open_from(&disk, &bases, self.options).expect("open");
        self.model.accept(&log, &recovered);
        if matches!(recovered.end, End::Suspect { .. }) {
            assert!(log.is_suspect() && !self.options.alone);
        }
        (self.disk, self.log) = (disk, Some(log));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Restart => return self.reopen(self.disk.restart()),
            Step::Crash => return self.reopen(self.disk.crash()),
            Step::CrashInside(operations) => {
                self.inside = Some(operations);
                return;
            }
            _ => {}
        }
        if let Some(operations) = self.inside.take() {
            self.disk.halt_after(u64::from(operations));
        }
        if self.run(step).is_err() {
            self.reopen(self.disk.crash());
        }
    }

    fn run(&mut self, step: Step) -> Result<(), crate::Error> {
        let model = &mut self.model;
        let log = self.log.as_mut().expect("open");
        match step {
            Step::Push(count, bytes) => {
                for at in 0..count {
                    let seed = self.random.draw();
                    let record = record(log.written(), 1 + u32::from(at), bytes.into(), seed);
                    log.push(record.clone());
                    model.records.push(record);
                }
            }
            Step::Flush => {
                let durable = log.flush()?;
                assert_eq!(durable, log.written().position.lsn, "the disk has space");
                model.durable = model.records.len();
            }
            Step::Settle => log.settle()?,
            Step::Cut(count) => {
                let left = model.records.len().saturating_sub(count.into());
                let after = model.tail(left);
                if after.position.lsn < model.snapshot.position.lsn {
                    return Ok(());
                }
                model.under_way = Some(Doubt::Cut(left));
                let cut = log.cut(after.position.lsn)?;
                assert_eq!(cut.records, model.records[left..]);
                assert_eq!(cut.tail, after);
                model.under_way = None;
                model.records.truncate(left);
                model.durable = model.durable.min(left);
            }
            Step::Roll => {
                model.generation += 1;
                log.roll(History {
                    generation: model.generation,
                    ..HISTORY
                })?;
                model.durable = model.records.len();
            }
            Step::Trim(share) => {
                let at = model.durable * usize::from(share) / 256;
                let snapshot = model.tail(at);
                if snapshot.position.lsn > model.snapshot.position.lsn {
                    model.snapshot = snapshot;
                }
                log.trim(model.snapshot.position.lsn)?;
            }
            Step::Prepare => {
                log.prepare()?;
            }
            Step::Reset(distance) => {
                let written = log.written();
                let base = Link {
                    position: Position {
                        epoch: Epoch(written.position.epoch.0.max(1)),
                        lsn: Lsn(written.position.lsn.0 + u64::from(distance)),
                    },
                    chain: Chain(u32::from(distance)),
                    timestamp: written.timestamp + 1000,
                };
                model.under_way = Some(Doubt::Reset(base));
                log.reset(base, log.history(), Lsn::ZERO)?;
                model.under_way = None;
                (model.base, model.snapshot, model.durable) = (base, base, 0);
                model.records.clear();
            }
            Step::Restart | Step::Crash | Step::CrashInside(_) => unreachable!("done in step"),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// "What `flush` returned is there after any crash", unless it was cut; what was cut is gone.
    #[test]
    fn any_schedule_keeps_what_was_durable(seed: u64, alone: bool, steps in steps()) {
        let mut run = Run::new(seed, alone);
        for step in steps {
            run.step(step);
        }
        run.reopen(run.disk.crash());
    }
}

/// Every changing operation of a scenario, in turn, is where the power goes out.
fn crash_everywhere(
    bases: &[Link],
    scenario: impl Fn(&mut Log<SimDisk>) -> Result<(), crate::Error>,
    check: impl Fn(&Log<SimDisk>, &Recovered, bool),
) {
    let mut operations = 0;
    let (mut finished, mut interrupted) = (false, 0);
    while !finished {
        for seed in 0..6 {
            let disk = SimDisk::new(seed);
            let mut log = super::create(&disk, options());
            for _ in 0..120 {
                super::push(&mut log, 300);
                log.flush().expect("flush");
            }
            log.settle().expect("settle");
            disk.halt_after(operations);
            finished = scenario(&mut log).is_ok();
            drop(log);
            let disk = disk.crash();
            let (log, recovered) = open_from(&disk, bases, options()).expect("open");
            interrupted += usize::from(recovered.finished_interrupted);
            check(&log, &recovered, finished);
            drop(log);
            let (log, recovered) = open_from(&disk.crash(), bases, options()).expect("open again");
            check(&log, &recovered, finished);
        }
        operations += 1;
    }
    assert!(
        operations > 5 && interrupted > 0,
        "{operations} {interrupted}"
    );
}

#[test]
fn a_cut_is_made_or_not_wherever_the_power_goes_out() {
    // Into a sealed segment, with later ones to remove, and within the newest.
    for after in [30, 115] {
        let cut_to = move |log: &Log<SimDisk>| {
            let records = super::read_all(log, Lsn(log.first_lsn().0 - 1));
            records
                .into_iter()
                .map(|r| r.last_lsn())
                .rfind(|lsn| lsn.0 <= after)
        };
        crash_everywhere(
            &[Link::default()],
            |log| {
                let after = cut_to(log).expect("a record");
                log.cut(after).map(|cut| assert!(!cut.records.is_empty()))
            },
            |log, recovered, finished| {
                assert_eq!(recovered.end, End::Clean);
                let whole = recovered.tail.position.lsn;
                let cut = cut_to(log).expect("a record");
                let records = super::read_all(log, Lsn::ZERO);
                assert_eq!(records.last().map(Record::link), Some(recovered.tail));
                assert!(
                    whole == cut || (!finished && records.len() == 120),
                    "{whole}"
                );
            },
        );
    }
}

#[test]
fn a_reset_is_made_or_not_wherever_the_power_goes_out() {
    let base = Link {
        position: Position {
            epoch: Epoch(3),
            // An old segment has the very name that the fresh one gets.
            lsn: Lsn(0),
        },
        chain: Chain(5),
        timestamp: 1 << 50,
    };
    crash_everywhere(
        &[base, Link::default()],
        |log| log.reset(base, HISTORY, Lsn::ZERO),
        |log, recovered, finished| {
            assert_eq!(recovered.end, End::Clean);
            let records = super::read_all(log, Lsn::ZERO);
            match log.reader().segments()[0].base == base {
                true => assert!(records.is_empty() && recovered.tail == base),
                false => assert!(records.len() == 120 && !finished, "old log whole"),
            }
        },
    );
}

/// A crash in the middle of the cut of an unfinished end must not make the log look believed.
#[test]
fn suspicion_survives_crashes_until_a_primary_verified_the_log() {
    let mut suspects = 0;
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let mut log = super::create(&disk, options());
        for _ in 0..5 {
            super::push(&mut log, 300);
            log.flush().expect("flush");
        }
        for _ in 0..4 {
            super::push(&mut log, 2000);
        }
        disk.halt_after(1); // the write goes out, the sync does not
        assert!(log.flush().is_err());
        drop(log);
        let mut disk = disk.crash();
        // Is this one suspect, if it is opened in peace?
        let (_, peaceful) = open(&disk.fork(1).restart(), options()).expect("open");
        if !matches!(peaceful.end, End::Suspect { .. }) {
            continue;
        }
        suspects += 1;
        for operations in 0..12 {
            disk.halt_after(operations);
            let opened = open(&disk, options());
            drop(opened);
            disk = disk.crash();
        }
        let (mut log, recovered) = open(&disk, options()).expect("open");
        assert!(
            matches!(recovered.end, End::Suspect { .. }),
            "seed {seed}: {:?}",
            recovered.end
        );
        assert_eq!(recovered.tail, peaceful.tail);
        log.trust().expect("trust");
        drop(log);
        let (log, recovered) = open(&disk.crash(), options()).expect("open");
        assert_eq!((recovered.end, log.is_suspect()), (End::Clean, false));
    }
    assert!(suspects > 20, "{suspects}");
}
