//! One simulated node: the production engine, log, files and opening over simulated disks; what
//! `node::run` and `node::files` are for real.

use super::check::Trusted;
use super::finished::Finished;
use super::offsite::Shipping;
use super::plan::Tuning;
use super::random::Random;
use super::starter::{Starter, engine_settings};
use standfast::node::client::{Answer, SessionId};
use standfast::node::clock::Now;
use standfast::node::copies::{Copies, CopyEvent, CopyOutput};
use standfast::node::directory::sim::SimDir;
use standfast::node::engine::{Engine, Event, Output};
use standfast::node::link::LinkEvent;
use standfast::node::meta::{self, MetaFile};
use standfast::node::open::{self, LogFiles, Opened};
use standfast::node::parcel::{Arriving, Outgoing};
use standfast::node::shelf;
use standfast::node::wire::{Frame, Head, Piece};
use standfast::replication::{Body, Fence, Introduction, Replica, Time};
use standfast_snapshot::{NewFile, Options as SnapshotOptions, SegmentRef, Writer};
use standfast_wal::scribe::Command;
use standfast_wal::{Log, Lsn, NodeId, Reader, Record, Scribe, SimDisk, Storage};
use std::collections::VecDeque;

/// What the thread of the log is at.
#[derive(Default)]
pub struct LogOwner {
    pub busy: bool,
    /// A look at the idle log is due.
    idle: bool,
    /// It does nothing more.
    failed: bool,
    /// The log is about to be cut to here; what comes behind is given to it later.
    pub cutting: Option<Lsn>,
    later: VecDeque<Command>,
}

/// A running process.
pub struct Process {
    pub engine: Engine,
    random: Random,
    pub dir: SimDir,
    scribe: Option<Scribe<SimDisk>>,
    pub log: LogOwner,
    meta: MetaFile,
    stores: VecDeque<(MetaFile, u64)>,
    pub meta_busy: bool,
    piece_bytes: usize,
    snapshot_stall: u64,
    /// The writer of the snapshot under way takes no block before.
    room_from: u64,
    boot: u64,
    /// The snapshot that it started from.
    pub from: Option<Lsn>,
    /// Why it began a new life.
    pub anew: Option<String>,
    writing: Option<(Writer<NewFile<SimDisk>>, Lsn, u64)>,
    finished: Finished,
    receiving: Option<(NodeId, Arriving<SimDir>)>,
    /// A write or sync failed in this life: the node must halt.
    pub disk_failed: bool,
    pub shipping: Option<Shipping>,
    _lock: <SimDisk as Storage>::Lock,
}

/// What a node wants of the world after a turn.
#[derive(Default)]
pub struct Wants {
    pub frames: Vec<(NodeId, Frame)>,
    pub built: Vec<Record>,
    pub answers: Vec<(SessionId, Answer)>,
    /// Start the disk: log or meta work is queued.
    pub log_work: bool,
    pub meta_work: bool,
    /// A promise or a vote is to be kept.
    pub has_voted: bool,
    /// A round of the archiver begins.
    pub ships: bool,
    /// Look at the log again in a second.
    pub log_idle: bool,
    pub events: Vec<Event>,
    pub promoted: u64,
    pub cuts: u64,
    /// Log up to here is dropped.
    pub trims: Option<Lsn>,
    pub installed: u64,
    /// To whom a snapshot was offered or sent.
    pub copies: Vec<NodeId>,
    /// A snapshot was taken and is durable.
    pub taken: Option<Lsn>,
    pub lines: Vec<String>,
    /// The node has stopped itself, with this story.
    pub halted: Option<String>,
    /// Loss statements, as JSON.
    pub losses: Vec<String>,
    /// Who was to get what is not committed yet, at any moment of the turn.
    pub trusted: Trusted,
    /// Of which reigns heartbeats came, and what they say is committed.
    pub beats: Vec<(Fence, Lsn)>,
}

fn beat_in(event: &Event) -> Option<(Fence, Lsn)> {
    let Event::Link(LinkEvent::Frame { frame, .. }) = event else {
        return None;
    };
    let Head::Core { message } = &frame.head else {
        return None;
    };
    let Body::Heartbeat(beat) = &message.body else {
        return None;
    };
    let (history, epoch) = (message.history, beat.epoch);
    Some((Fence { history, epoch }, beat.commit))
}

fn without_threads() -> SnapshotOptions {
    SnapshotOptions {
        threads: 0,
        ..Default::default()
    }
}

impl Process {
    /// Starts a process on what the disks hold.
    pub fn start(
        disks: &SimDir,
        now: Now,
        random: &mut Random,
        tuning: &Tuning,
        starter: &Starter<'_>,
    ) -> Result<Process, String> {
        let opening = starter.opening(tuning);
        let opened = open::open(disks, &opening, &mut || random.wide())
            .map_err(|error| error.to_string())?;
        let core = opened.core();
        let Opened {
            lock,
            meta,
            state,
            facts,
            log,
            newest,
            applied,
            anew,
            ..
        } = opened;
        let introduction = Introduction {
            // As `join` does: a node asks to be taken in until it knows of a Config.
            asked: starter.introduction.asked && meta.core.config.version == 0,
            ..starter.introduction.clone()
        };
        let replica = Replica::new(
            tuning.core.clone(),
            Time(now.boot),
            core,
            facts,
            introduction.clone(),
            (0..8).map(|_| random.wide()).collect(),
        );
        let from = newest.as_ref().map(|newest| newest.head.link.position.lsn);
        let reader = log.as_ref().map(Log::reader);
        let engine = Engine::new(
            engine_settings(&meta, tuning, &introduction),
            meta.identity(),
            replica,
            state,
            Box::new(LogFiles(reader)),
            Copies::new(newest, applied),
            log.is_none(),
        );
        let mut process = Process {
            engine,
            random: Random::new(random.next()),
            dir: disks.clone(),
            scribe: log.map(Scribe::new),
            log: LogOwner::default(),
            meta,
            stores: VecDeque::new(),
            meta_busy: false,
            piece_bytes: tuning.piece_bytes,
            snapshot_stall: tuning.snapshot_stall,
            room_from: 0,
            boot: now.boot,
            from,
            anew,
            writing: None,
            finished: Finished::default(),
            receiving: None,
            disk_failed: false,
            shipping: None,
            _lock: lock,
        };
        process.prepare().map_err(|error| error.to_string())?;
        Ok(process)
    }

    /// Where the state stands, if it takes a snapshot.
    pub fn copied_from(&self) -> Option<Lsn> {
        let engine = &self.engine;
        let takes_one = engine.is_taking_snapshot();
        takes_one.then(|| engine.state().applied().lsn)
    }

    /// When it is told of a snapshot that was given up, if nothing is begun in its place.
    pub fn finishes_in_vain(&self) -> Option<u64> {
        let told = self.finished.first();
        told.filter(|_| !self.engine.is_taking_snapshot())
    }

    /// One turn with these events.
    pub fn turn(&mut self, now: Now, events: Vec<Event>) -> Wants {
        self.boot = now.boot;
        let room = if now.boot < self.room_from { 0 } else { 64 };
        let (mut trusted, mut beats) = (Trusted::default(), Vec::new());
        trusted.look_at(self.engine.replica());
        self.engine.handle(now, Event::Copy(CopyEvent::Room(room)));
        let takes_one = self.engine.is_taking_snapshot();
        if let Some(event) = self.finished.next(now.boot, takes_one) {
            self.engine.handle(now, Event::Copy(event));
        }
        for event in events {
            self.disk_failed |= matches!(event, Event::DiskFailed(_));
            beats.extend(beat_in(&event));
            self.engine.handle(now, event);
            trusted.look_at(self.engine.replica());
        }
        let (outputs, answers) = self.engine.end_turn(now);
        trusted.look_at(self.engine.replica());
        let mut wants = Wants {
            answers,
            trusted,
            beats,
            ..Wants::default()
        };
        for output in outputs {
            self.carry_out(output, &mut wants);
        }
        let has_work = self.scribe.as_ref().is_some_and(Scribe::has_pending);
        wants.log_work = has_work && !self.log.busy && !self.log.idle;
        wants.meta_work = !self.stores.is_empty() && !self.meta_busy;
        wants.log_idle = self.log.idle;
        wants
    }

    fn carry_out(&mut self, output: Output, wants: &mut Wants) {
        match output {
            Output::ToLog(command) => {
                match &command {
                    Command::Append(record) => wants.built.push(record.clone()),
                    Command::Cut(_) => wants.cuts += 1,
                    Command::Trim(through) => wants.trims = Some(*through),
                    _ => {}
                }
                // Woken by work, the log does not wait until it would look again.
                self.log.idle = false;
                self.give(command);
            }
            Output::StoreMeta { meta, serial } => {
                wants.has_voted |= meta.acceptor != self.meta.core.acceptor;
                self.meta.core = *meta;
                self.stores.push_back((self.meta.clone(), serial));
            }
            Output::Send { to, frame } => {
                let offers = matches!(frame.head, Head::Copy(Piece::Offer { .. }));
                wants.copies.extend(offers.then_some(to));
                wants.frames.push((to, frame));
            }
            Output::Snapshot(copy) => self.copy(copy, wants),
            Output::Log(line) => {
                wants.promoted += u64::from(line.starts_with("serving as primary"));
                wants.lines.push(line);
            }
            Output::Random => wants.events.push(Event::Random(self.random.wide())),
            Output::Halt(story) => wants.halted = Some(story),
            Output::LossStatement { text, .. } => wants.losses.push(text),
            Output::Archive(order) => {
                let shipping = self.shipping.as_mut();
                wants.ships |= shipping.is_some_and(|shipping| shipping.tell(order));
            }
            Output::Peers(_) | Output::Show(_) | Output::Stop => {}
        }
    }

    /// The log's owner may have begun with a cut before it is given what lies behind.
    fn give(&mut self, command: Command) {
        if self.log.cutting.is_some() {
            return self.log.later.push_back(command);
        }
        if let Command::Cut(after) = &command {
            self.log.cutting = Some(*after);
        }
        let scribe = self.scribe.as_mut();
        scribe.expect("a witness appends nothing").give(command);
    }

    fn copy(&mut self, copy: CopyOutput, wants: &mut Wants) {
        let mut tell = |event| wants.events.push(Event::Copy(event));
        match copy {
            CopyOutput::Begin { job, header } => {
                self.room_from = self.boot + self.random.below(self.snapshot_stall + 1);
                match shelf::begin(&self.dir, &header, without_threads()) {
                    Ok(writer) => self.writing = Some((writer, header.link.position.lsn, job)),
                    Err(why) => tell(CopyEvent::Written {
                        job,
                        result: Err(why),
                    }),
                }
            }
            CopyOutput::Blocks(blocks) => {
                for block in blocks {
                    let Some((writer, _, job)) = &mut self.writing else {
                        return;
                    };
                    if let Err(error) = writer.push_now(shelf::file_block(block)) {
                        let (job, result) = (*job, Err(error.to_string()));
                        self.writing = None;
                        tell(CopyEvent::Written { job, result });
                    }
                }
            }
            CopyOutput::Finish { keep, segments } => {
                if let Some((writer, lsn, job)) = self.writing.take() {
                    let kept = |kept| tell(CopyEvent::Kept(Box::new(kept)));
                    let names = (lsn, &keep[..]);
                    let result =
                        shelf::finish(&self.dir, writer, names, segments, kept, || Some(()));
                    wants.taken = result.is_ok().then_some(lsn);
                    // Its thread may be slow to tell; the node may have another state by then.
                    let due = self.boot + self.random.below(self.snapshot_stall * 10 + 1);
                    let told = CopyEvent::Written { job, result };
                    self.finished.tell_at(due, told);
                }
            }
            CopyOutput::Free(_) => {}
            CopyOutput::Stream { to, lsn, have } => self.stream(to, lsn, &have, wants),
            CopyOutput::Receive { from, lsn, total } => {
                self.receiving = None;
                let dir = self.dir.clone();
                match Arriving::begin(dir, self.meta.core.cluster, lsn, total) {
                    Ok((arriving, have)) => {
                        self.receiving = Some((from, arriving));
                        tell(CopyEvent::Ready { from, lsn, have });
                    }
                    Err(why) => tell(CopyEvent::ReceiveFailed { from, why }),
                }
            }
            CopyOutput::Receiving { offset, bytes, .. } => {
                if let Some(event) = self.receive(offset, &bytes) {
                    tell(event);
                }
            }
            CopyOutput::StopReceiving => self.receiving = None,
            CopyOutput::Adopt { lsn } => match shelf::adopt(&self.dir, lsn) {
                Ok(bytes) => {
                    wants.installed += 1;
                    self.engine.set_snapshot_bytes(bytes);
                }
                Err(error) => {
                    let story = format!("cannot name the received snapshot: {error}");
                    wants.events.push(Event::DiskFailed(story));
                }
            },
            CopyOutput::BackUp { .. } => {}
        }
    }

    fn stream(&self, to: NodeId, lsn: Lsn, have: &[SegmentRef], wants: &mut Wants) {
        wants.copies.push(to);
        if let Err(why) = self.send_pieces(to, lsn, have, wants) {
            let failed = CopyEvent::SendFailed { to, lsn, why };
            wants.events.push(Event::Copy(failed));
        }
    }

    fn send_pieces(
        &self,
        to: NodeId,
        lsn: Lsn,
        have: &[SegmentRef],
        wants: &mut Wants,
    ) -> Result<(), String> {
        let mut outgoing = Outgoing::open(&self.dir, lsn, have)?;
        while let Some((offset, bytes)) = outgoing.next_piece(self.piece_bytes)? {
            let piece = Piece::Chunk { offset, bytes };
            wants.frames.push((to, Frame::plain(Head::Copy(piece))));
        }
        Ok(())
    }

    fn receive(&mut self, offset: u64, bytes: &bytes::Bytes) -> Option<CopyEvent> {
        let (from, mut arriving) = self.receiving.take()?;
        let result = match arriving.push(offset, bytes) {
            Ok(false) => {
                self.receiving = Some((from, arriving));
                return None;
            }
            Ok(true) => arriving.finish(),
            Err(why) => Err(why),
        };
        Some(match result {
            Ok((header, state)) => CopyEvent::Loaded {
                from,
                header: Box::new(header),
                state: Box::new(state),
            },
            Err(why) => CopyEvent::ReceiveFailed { from, why },
        })
    }

    /// The log's disk has had its time: what is queued is done, the next segment prepared.
    pub fn log_done(&mut self) -> Vec<Event> {
        self.log.busy = false;
        let idle = std::mem::take(&mut self.log.idle);
        let mut events = Vec::new();
        let Some(scribe) = self.scribe.as_mut().filter(|_| !self.log.failed) else {
            return events;
        };
        let mut tell = |event| events.extend(Event::of_log(event));
        let mut work = || {
            if idle {
                scribe.settle()?;
            }
            scribe.work(&mut tell)?;
            scribe.report_space(&mut tell);
            Ok::<bool, standfast_wal::Error>(scribe.rests())
        };
        match work() {
            Ok(rests) => self.log.idle = !rests,
            Err(error) => {
                tell(standfast_wal::WriterEvent::Failed(error));
                self.log.failed = true;
            }
        }
        if !scribe.has_pending() {
            self.log.cutting = None;
            for command in std::mem::take(&mut self.log.later) {
                self.give(command);
            }
        }
        if let Err(error) = self.prepare() {
            events.push(Event::DiskFailed(error.to_string()));
        }
        if let Some(scribe) = &self.scribe {
            events.push(Event::LogSize {
                log_bytes: scribe.log().bytes(),
                free_bytes: self.dir.wal.free_space().unwrap_or(0),
                disk_bytes: 0,
            });
        }
        events
    }

    /// The next segment, in no time: a thread of its own does it in production.
    fn prepare(&mut self) -> Result<(), standfast_wal::Error> {
        let Some(scribe) = &mut self.scribe else {
            return Ok(());
        };
        match scribe.preparation() {
            Some(preparation) => scribe.adopt(preparation.run()),
            None => Ok(()),
        }
    }

    /// `None` on a witness.
    pub fn log_reader(&self) -> Option<Reader<SimDisk>> {
        self.scribe.as_ref().map(|scribe| scribe.log().reader())
    }

    /// What the log's owner has synced; `None` on a witness.
    pub fn synced(&self) -> Option<Lsn> {
        self.scribe.as_ref().map(|scribe| scribe.log().durable())
    }

    /// The log keeps a mark that it is not to be believed.
    pub fn has_suspect_log(&self) -> bool {
        self.scribe
            .as_ref()
            .is_some_and(|scribe| scribe.log().is_suspect())
    }

    /// The meta file's disk has had its time.
    pub fn meta_done(&mut self) -> Vec<Event> {
        self.meta_busy = false;
        let Some((meta, serial)) = self.stores.pop_back() else {
            return Vec::new();
        };
        self.stores.clear();
        vec![match meta::store(&self.dir.root, &meta) {
            Ok(()) => Event::MetaStored(serial),
            Err(error) => Event::DiskFailed(format!("cannot replace the meta file: {error}")),
        }]
    }
}
