//! Rebuilds the state of one point from an archive: loads a snapshot, replays log, proves it.
//!
//! Everything that is read is proved before it counts: the snapshot's checksums, its BLAKE3 and its
//! state digest; each piece's checksums; each record's place in the chain; and the digest of the
//! state at every Attestation on the way. The next pieces are read and unpacked while this one is
//! applied.

use super::{Source, check_keys, refused};
use crate::cli::exit::{ExitCode, Failure};
use crate::node::copies::decode_epochs;
use crate::node::shelf;
use crate::replication::{EpochEntry, EpochTable};
use crate::state::ledger::Transfer;
use crate::state::{Attestation, Digest, State};
use standfast_snapshot::catalogue::SnapshotEntry;
use standfast_snapshot::object::{LogHead, link_inside};
use standfast_snapshot::plan::{Plan, Step, Stop};
use standfast_snapshot::sealed::fetch_snapshot;
use standfast_snapshot::{Error, SegmentRef, archive, segment, store};
use standfast_wal::{ClusterId, Kind, Link, Lsn, Mark, Record};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

/// Digests kept while replaying: an Attestation names a point that is applied, not far behind it.
const DIGESTS_KEPT: usize = 64 << 10;
/// Pieces that are read and unpacked ahead of the one being applied: at most so many, and so many
/// bytes. A store that is far away answers many requests in the time of one.
const PIECES_AHEAD: usize = 16;
const BYTES_AHEAD: u64 = 64 << 20;

/// What was read and proved on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub snapshot_lsn: Option<Lsn>,
    pub records: u64,
    pub commands: u64,
    /// Attestations whose digest was held against the state's.
    pub attestations: u64,
    /// The last LSN whose digest was attested.
    pub attested_lsn: Lsn,
    /// Bytes of state and records, unpacked.
    pub raw_bytes: u64,
}

/// A state, and where it stands.
pub struct Rebuilt {
    pub state: State,
    pub link: Link,
    pub epochs: EpochTable,
    pub tally: Tally,
}

/// Why there is no such state.
pub struct Broken {
    /// The object that is damaged or gone, if it is one: another way may do without it.
    pub object: Option<String>,
    /// It is sound, and not the one that was listed.
    pub is_other: bool,
    pub failure: Failure,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Broken {
        Broken {
            object: None,
            is_other: false,
            failure,
        }
    }
}

/// How far a restore is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    Loading { file_bytes: u64 },
    Replaying { done_bytes: u64, all_bytes: u64 },
    Writing { raw_bytes: u64 },
}

/// Does what `plan` says, from where and with what `source` says.
pub fn rebuild(
    source: &Source,
    cluster: ClusterId,
    plan: &Plan,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Rebuilt, Broken> {
    let mut replay = Replay::begin(source, cluster, plan, on_progress)?;
    replay.run(source, cluster, plan, on_progress)?;
    replay.check_target(plan)?;
    // I7: whatever the digests say, a restored ledger is held against its own transfers.
    let books = replay.done.state.ledger().audit();
    books.map_err(|story| replay.refuted(damaged(format!("the ledger at this point: {story}"))))?;
    Ok(replay.done)
}

/// How a plan's way meets a transfer.
#[derive(Clone, Copy, Debug)]
pub enum Sought {
    /// It was there where the way begins.
    There(Transfer),
    /// By the command at this LSN.
    Created(Transfer, Lsn),
    Absent,
}

/// Goes the way of `plan` until the transfer is there, proving all of it.
pub fn seek(
    source: &Source,
    cluster: ClusterId,
    plan: &Plan,
    id: u128,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Sought, Broken> {
    let mut replay = Replay::begin(source, cluster, plan, on_progress)?;
    if let Some(there) = replay.done.state.ledger().transfer(id) {
        return Ok(Sought::There(there));
    }
    replay.watch = Some(Watch { id, created: None });
    replay.run(source, cluster, plan, on_progress)?;
    let found = replay.watch.and_then(|watch| watch.created);
    Ok(found.map_or(Sought::Absent, |(transfer, lsn)| {
        Sought::Created(transfer, lsn)
    }))
}

/// Looks out for the command that creates a transfer.
struct Watch {
    id: u128,
    created: Option<(Transfer, Lsn)>,
}

impl Watch {
    fn apply(&mut self, state: &mut State, record: &Record, through: Lsn) {
        // A batch's events are logged as they were sent. Most records have these bytes nowhere.
        if memchr::memmem::find(&record.payload(), &self.id.to_le_bytes()).is_none() {
            return state.apply_prefix(record, through, |_, _| ());
        }
        state.apply_each(record, through, |state, lsn, _| {
            if self.created.is_none() {
                let there = state.ledger().transfer(self.id);
                self.created = there.map(|transfer| (transfer, lsn));
            }
        });
    }
}

/// Reads one snapshot of the plan's history or of one that it forked from, and proves it.
fn load(
    source: &Source,
    cluster: ClusterId,
    plan: &Plan,
    entry: &SnapshotEntry,
) -> Result<Replay, Broken> {
    let (store, identities) = (&*source.from, &source.identities);
    let path = entry.path.as_str();
    let broken = |error: Error| Broken::of(path, &error);
    let reader = fetch_snapshot(store, path, identities).map_err(broken)?;
    reader.check_cluster(cluster).map_err(broken)?;
    let header = reader.header();
    let known =
        |history| plan.history == history || plan.ancestors.iter().any(|a| a.history == history);
    if header.link != entry.link || !known(header.history) {
        return Err(Broken::not_listed(path, reader.file()));
    }
    reader.check_whole().map_err(broken)?;
    let bad_segment = Mutex::new(None);
    let open = |reference: &SegmentRef| {
        let dir = &entry.segments_dir;
        segment::fetch(store, dir, reference, identities).inspect_err(|error| {
            if Broken::is_of_the_bytes(error) {
                let mut bad = bad_segment.lock().expect(NO_PANIC);
                bad.get_or_insert_with(|| store::join(dir, &reference.name()));
            }
        })
    };
    let limits = source.limits(cluster);
    let loaded = shelf::load_checked(&reader, open, limits, source.threads);
    let (header, state, blocks_bytes) = loaded.map_err(|error| {
        let bad = bad_segment.lock().expect(NO_PANIC);
        Broken::of(bad.as_deref().unwrap_or(path), &error)
    })?;
    let refuse = |error| damaged(format!("{}: {error}", reader.file()));
    let epochs = decode_epochs(&header.epoch_table);
    let mut replay = Replay::new(state, plan.stop);
    replay.snapshot = Some(path.to_owned());
    replay.done.epochs =
        epochs.map_err(|e| Broken::from(refuse(format!("the table of epochs: {e}"))))?;
    replay.done.link = header.link;
    let lsn = header.link.position.lsn;
    replay.done.tally.snapshot_lsn = Some(lsn);
    let segments = entry.segments.iter().filter(|one| !one.is_part());
    let of_segments: u64 = segments.map(|one| one.bytes).sum();
    replay.done.tally.raw_bytes = blocks_bytes + of_segments;
    replay.digests.push_back((lsn, Digest(header.digest)));
    Ok(replay)
}

type Piece = standfast_snapshot::Result<(LogHead, Vec<Record>)>;

/// A state on its way through the log.
struct Replay {
    done: Rebuilt,
    /// What it began with.
    snapshot: Option<String>,
    stop: Stop,
    /// After the last records applied, oldest first.
    digests: VecDeque<(Lsn, Digest)>,
    /// A command behind the target was seen: nothing before it can be missing.
    passed_target: bool,
    watch: Option<Watch>,
}

impl Replay {
    fn new(state: State, stop: Stop) -> Replay {
        Replay {
            done: Rebuilt {
                state,
                link: Link::default(),
                epochs: EpochTable::default(),
                tally: Tally::default(),
            },
            snapshot: None,
            stop,
            digests: VecDeque::new(),
            passed_target: false,
            watch: None,
        }
    }

    /// Where the plan's way begins.
    fn begin(
        source: &Source,
        cluster: ClusterId,
        plan: &Plan,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Replay, Broken> {
        check_keys(plan, source)?;
        let Some(snapshot) = &plan.snapshot else {
            return Ok(Replay::new(State::new(source.limits(cluster)), plan.stop));
        };
        let file_bytes = snapshot.file_bytes;
        on_progress(Progress::Loading { file_bytes });
        load(source, cluster, plan, snapshot)
    }

    /// Replays the plan's log; the next pieces are read and unpacked meanwhile.
    fn run(
        &mut self,
        source: &Source,
        cluster: ClusterId,
        plan: &Plan,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Broken> {
        let largest = plan.steps.iter().map(|step| step.head.raw_bytes).max();
        let fit = BYTES_AHEAD / largest.unwrap_or(0).max(1);
        let lanes = usize::try_from(fit).map_or(PIECES_AHEAD, |fit| fit.clamp(2, PIECES_AHEAD));
        std::thread::scope(|scope| {
            let begin = |lane: usize| {
                // Without a buffer: each lane holds the one piece that it has read.
                let (sender, pieces) = sync_channel(0);
                scope.spawn(move || {
                    for step in plan.steps.iter().skip(lane).step_by(lanes) {
                        let read = archive::read_log(&*source.from, &step.path, &source.identities);
                        // Nobody listens any more once the target is reached or something failed.
                        if sender.send(read).is_err() {
                            return;
                        }
                    }
                });
                pieces
            };
            let pieces: Vec<_> = (0..lanes).map(begin).collect();
            self.follow(plan, cluster, &pieces, on_progress)
        })
    }

    fn follow(
        &mut self,
        plan: &Plan,
        cluster: ClusterId,
        lanes: &[Receiver<Piece>],
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Broken> {
        let all_bytes = plan.steps.iter().map(|step| step.head.raw_bytes).sum();
        let mut done_bytes = 0;
        let histories = plan.steps.windows(2);
        if histories
            .into_iter()
            .any(|two| two[0].head.history != two[1].head.history)
        {
            Mark::RestoreForked.hit();
        }
        for (step, pieces) in plan.steps.iter().zip(lanes.iter().cycle()) {
            on_progress(Progress::Replaying {
                done_bytes,
                all_bytes,
            });
            let read = pieces.recv().expect("one answer for each step");
            let (head, records) = read.map_err(|error| Broken::of(&step.path, &error))?;
            if head != step.head || head.cluster != cluster {
                return Err(Broken::not_listed(&step.path, &step.path));
            }
            self.done.tally.raw_bytes += head.raw_bytes;
            done_bytes += head.raw_bytes;
            for record in &records {
                self.take(step, record)?;
                let is_found = self.watch.as_ref().is_some_and(|w| w.created.is_some());
                if self.passed_target || is_found {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Applies the part of the record that belongs to the target's past, if there is any.
    fn take(&mut self, step: &Step, record: &Record) -> Result<(), Broken> {
        let (first, last) = (record.first_lsn(), record.last_lsn());
        if last <= self.done.link.position.lsn || first > step.through {
            return Ok(());
        }
        let wanted = match self.stop {
            Stop::Lsn(lsn) => lsn,
            Stop::Time(ns) => match ns.checked_sub(record.timestamp()) {
                Some(later) => Lsn(first.0.saturating_add(later)),
                None => Lsn(first.0 - 1),
            },
        };
        if wanted < first {
            self.passed_target = true;
            return Ok(());
        }
        let through = wanted.min(step.through).min(last);
        if through < last {
            Mark::RestoreCutRecord.hit();
        }
        record.follows(self.done.link).map_err(|damage| {
            let file = &step.path;
            damaged(format!("{file}: the record at LSN {first}: {damage}"))
        })?;
        self.apply(step, record, through)?;
        self.passed_target = through == wanted && matches!(self.stop, Stop::Lsn(_))
            || through < last.min(step.through);
        Ok(())
    }

    fn apply(&mut self, step: &Step, record: &Record, through: Lsn) -> Result<(), Broken> {
        let refuse = |what: &str| {
            let (file, lsn) = (&step.path, record.first_lsn());
            let text = format!("{file}: the record at LSN {lsn}: {what}");
            Err(Broken::from(damaged(text)))
        };
        match &mut self.watch {
            Some(watch) => watch.apply(&mut self.done.state, record, through),
            None => self.done.state.apply_prefix(record, through, |_, _| ()),
        }
        self.done.link = link_inside(record, through);
        let tally = &mut self.done.tally;
        tally.records += 1;
        tally.commands += record.first_lsn().distance_to(through) + 1;
        match record.kind() {
            Kind::EpochStart => {
                let Some(entry) = EpochEntry::decode(record) else {
                    return refuse("it is no EpochStart that this program knows");
                };
                let rises = self.done.epochs.last().is_none_or(|last| {
                    entry.fence() > last.fence()
                        && entry.epoch > last.epoch
                        && entry.first_lsn > last.first_lsn
                });
                if !rises {
                    return refuse("its epoch is not above the one before");
                }
                self.done.epochs.push(entry);
            }
            Kind::Attestation => match Attestation::decode(&record.payload()) {
                Some(attestation) => self.check(attestation)?,
                None => return refuse("it is no Attestation that this program knows"),
            },
            Kind::Commands | Kind::Tick | Kind::Operator => {}
        }
        if self.digests.len() == DIGESTS_KEPT {
            self.digests.pop_front();
        }
        self.digests.push_back((through, self.done.state.digest()));
        Ok(())
    }

    /// I2: whoever has applied an LSN of one history has the same state there.
    fn check(&mut self, attestation: Attestation) -> Result<(), Broken> {
        let at = self
            .digests
            .partition_point(|(lsn, _)| *lsn < attestation.lsn);
        // One from before the start of the replay cannot be checked, and proves nothing.
        let Some((lsn, digest)) = self.digests.get(at).filter(|d| d.0 == attestation.lsn) else {
            return Ok(());
        };
        if *digest != attestation.digest {
            let attested = attestation.digest;
            let failure = damaged(format!(
                "I2: the restored state differs from the primary's at LSN {lsn}: digest {digest} \
                 here, {attested} attested"
            ));
            let hint = "restore an earlier point or another history, and keep this archive";
            return Err(self.refuted(failure.hint(hint)));
        }
        self.done.tally.attestations += 1;
        self.done.tally.attested_lsn = *lsn;
        Ok(())
    }

    /// Sound log leads from where this began to what cannot be: another beginning may be right.
    fn refuted(&self, failure: Failure) -> Broken {
        Broken {
            object: self.snapshot.clone(),
            is_other: false,
            failure,
        }
    }

    /// The state is exactly the one that was asked for, or it is not handed out.
    fn check_target(&self, plan: &Plan) -> Result<(), Failure> {
        let link = self.done.link;
        let is_exact = match self.stop {
            Stop::Lsn(lsn) => link.position.lsn == lsn,
            Stop::Time(ns) => {
                self.passed_target
                    || link.timestamp == ns
                    || plan.complete_until.is_some_and(|until| ns <= until)
            }
        };
        if is_exact {
            assert_eq!(
                self.done.state.applied().lsn,
                link.position.lsn,
                "I2: the state and the log stand at one LSN"
            );
            return Ok(());
        }
        let (lsn, ns) = (link.position.lsn, link.timestamp);
        let text = format!("the log ends at LSN {lsn} (time {ns} ns), before the target");
        Err(Failure::new(ExitCode::NotExact, text).hint(format!("--target lsn:{lsn}")))
    }
}

const NO_PANIC: &str = "no thread panics while it holds this";

impl Broken {
    fn of(path: &str, error: &Error) -> Broken {
        Broken {
            object: Broken::is_of_the_bytes(error).then(|| path.to_owned()),
            is_other: false,
            failure: refused(error),
        }
    }

    fn is_of_the_bytes(error: &Error) -> bool {
        error.is_damage() || error.is_absent()
    }

    fn not_listed(path: &str, file: &str) -> Broken {
        Broken {
            object: Some(path.to_owned()),
            is_other: true,
            failure: damaged(format!("{file}: it is not the one that was listed")),
        }
    }
}

fn damaged(error: impl ToString) -> Failure {
    Failure::new(ExitCode::Damaged, error.to_string())
}
