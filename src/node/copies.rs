//! Snapshots: taken while writes go on, sent to members that lag, received and installed.
//!
//! Owns what is under way; the bytes are moved by the shell. The state is copied slot by slot in
//! the engine's own turns (3-storage, "Snapshot"), never beyond what is committed and durable
//! here (I6). An install is made atomic by the log: the received file is durable under its waiting
//! name first, then the log is reset to its LSN, then the file gets its final name; a crash in
//! between is finished or forgotten at the next start by what the log's base says.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod transfer;

use crate::limits;
use crate::node::backup::What;
use crate::node::engine::{Engine, Output};
use crate::node::pending::Client;
use crate::node::refusal::Refusal;
use crate::node::shelf::{Kept, Written};
use crate::node::statement::Statement;
use crate::node::wire::Piece;
use crate::replication::{EpochTable, Input, SnapshotHead, Time};
use crate::state::{Block, Reply, Segment, State};
use bytes::Bytes;
use standfast_snapshot::{Header, SegmentRef};
use standfast_wal::scribe::Command;
use standfast_wal::{Link, Lsn, Mark, NodeId, Record};
use std::collections::BTreeMap;

/// What the shell tells of snapshot work.
#[derive(Debug)]
pub enum CopyEvent {
    /// A file holds this segment of the snapshot under way.
    Kept(Box<Kept>),
    /// The snapshot that was begun by this number is durable under its name, or came to nothing.
    Written {
        job: u64,
        result: Result<Written, String>,
    },
    /// How many blocks the writer takes without waiting.
    Room(usize),
    /// This node is ready to take in the snapshot at `lsn`, without the segments that it has.
    Ready {
        from: NodeId,
        lsn: Lsn,
        have: Vec<SegmentRef>,
    },
    /// What `from` sent is whole, proved and loaded; it waits under its waiting name.
    Loaded {
        from: NodeId,
        header: Box<Header>,
        state: Box<State>,
    },
    ReceiveFailed {
        from: NodeId,
        why: String,
    },
    /// The snapshot at this LSN cannot be read, so it cannot be sent.
    SendFailed {
        to: NodeId,
        lsn: Lsn,
        why: String,
    },
    /// A backup is in its archive; the text is JSON.
    BackedUp {
        ticket: u64,
        result: Result<String, String>,
    },
}

/// What the shell must do for snapshots, in order.
#[derive(Debug)]
pub enum CopyOutput {
    Begin {
        job: u64,
        header: Box<Header>,
    },
    Blocks(Vec<Block>),
    /// The last block was given; these segments belong to it. Of the older files the newest stays,
    /// and those at these LSNs, which peers were offered.
    Finish {
        keep: Vec<Lsn>,
        segments: Vec<Segment>,
    },
    /// Drop this: many megabytes of memory.
    Free(Segment),
    /// Stream the newest snapshot to this peer, which has some of its segments.
    Stream {
        to: NodeId,
        lsn: Lsn,
        have: Vec<SegmentRef>,
    },
    /// A snapshot whose own file has `total` bytes comes from this peer, once this node is ready.
    Receive {
        from: NodeId,
        lsn: Lsn,
        total: u64,
    },
    Receiving {
        from: NodeId,
        offset: u64,
        bytes: Bytes,
    },
    StopReceiving,
    /// The log stands at this LSN now: the received file becomes the newest snapshot.
    Adopt {
        lsn: Lsn,
    },
    /// Put a snapshot and the committed log into an archive.
    BackUp {
        ticket: u64,
        to: String,
        what: What,
        who: String,
    },
}

/// A snapshot on this node's disk.
#[derive(Clone, Debug)]
pub struct Newest {
    pub head: SnapshotHead,
    pub bytes: u64,
    /// Seconds since 1970.
    pub finished: u64,
}

#[derive(Debug)]
struct Job {
    number: u64,
    head: SnapshotHead,
    /// What never changes again is not copied.
    segments: Vec<Segment>,
    /// Everything else is copied; the file is being finished.
    copied: bool,
}

#[derive(Debug)]
struct Backup {
    client: Client,
    to: String,
    who: String,
}

#[derive(Debug)]
enum Incoming {
    Receiving {
        from: NodeId,
        head: SnapshotHead,
    },
    Installing {
        from: NodeId,
        head: SnapshotHead,
        state: Box<State>,
        /// What the old log loses by it, and the records.
        lost: Option<Box<(Statement, Vec<Record>)>>,
    },
}

#[derive(Debug, Default)]
pub struct Copies {
    pub newest: Option<Newest>,
    /// Where the applied state stands in the chain.
    pub applied: Link,
    job: Option<Job>,
    /// How many were begun.
    jobs: u64,
    room: usize,
    /// Members that wait for the snapshot under way.
    waiting: BTreeMap<NodeId, Lsn>,
    /// Members that were offered the newest snapshot, or are being sent it.
    offered: BTreeMap<NodeId, Lsn>,
    /// What is offered, until the core has said whether it is taken: at once.
    offer: Option<(NodeId, SnapshotHead, u64)>,
    incoming: Option<Incoming>,
    loaded: Option<(NodeId, Box<State>)>,
    /// What each sender was told last of what became of its snapshot.
    verdicts: BTreeMap<NodeId, Piece>,
    /// Somebody asked for a snapshot that begins from now on.
    wanted: bool,
    asked: Vec<Client>,
    backups: Vec<Backup>,
    shipping: BTreeMap<u64, Client>,
    next_ticket: u64,
    last_begun: Time,
    /// After one that could not be written the next waits a little.
    not_before: Time,
    poll: Option<Time>,
}

impl Copies {
    /// `newest`: the snapshot that the state was loaded from; `applied`: where the state stands.
    pub fn new(newest: Option<Newest>, applied: Link) -> Copies {
        Copies {
            newest,
            applied,
            ..Copies::default()
        }
    }

    pub fn is_running(&self) -> bool {
        self.job.is_some()
    }

    /// The state is about to be replaced: nothing is applied to it any more.
    pub fn is_installing(&self) -> bool {
        matches!(self.incoming, Some(Incoming::Installing { .. }))
    }

    pub fn deadline(&self, has_own_log: bool) -> Option<Time> {
        // Only where one can begin: a deadline that stays in the past would keep the engine's
        // thread spinning.
        let has_state = self.applied.position.lsn > Lsn::ZERO && has_own_log;
        let may_begin = has_state && self.incoming.is_none();
        if self.wanted && self.job.is_none() && may_begin {
            Some(self.not_before)
        } else {
            self.poll
        }
    }

    /// A snapshot that begins after now was asked for; `client` is told when it has begun.
    pub fn want(&mut self, client: Option<Client>) {
        self.wanted = true;
        self.asked.extend(client);
    }

    pub fn want_backup(&mut self, client: Client, to: String, who: String) {
        self.wanted = true;
        self.backups.push(Backup { client, to, who });
    }
}

impl Engine {
    /// Begins, continues or ends the snapshot under way.
    pub(super) fn copies_turn(&mut self) {
        self.copies.poll = None;
        self.stop_receiving_as_primary();
        if !self.replica.has_own_log() {
            self.refuse_snapshots();
        }
        if self.copies.job.is_none() && self.is_snapshot_due() {
            self.begin_snapshot();
            // Copied from the next turn on, as far as the writer has room.
            self.copies.poll = Some(self.time());
            return;
        }
        let Some(job) = &mut self.copies.job else {
            return;
        };
        if job.copied {
            return;
        }
        let mut blocks = Vec::new();
        let budget = self.copies.room.min(limits::SNAPSHOT_BLOCKS_PER_TURN);
        let copied = self
            .state
            .snapshot_step(budget * limits::SNAPSHOT_BLOCK_BYTES, &mut blocks);
        job.copied = copied;
        let finished = copied.then(|| std::mem::take(&mut job.segments));
        if !blocks.is_empty() {
            self.copies.room = self.copies.room.saturating_sub(blocks.len());
            self.emit(Output::Snapshot(CopyOutput::Blocks(blocks)));
        }
        if let Some(segments) = finished {
            let keep = self.copies.offered.values().copied().collect();
            self.emit(Output::Snapshot(CopyOutput::Finish { keep, segments }));
        } else {
            self.copies.poll = Some(self.time().after(limits::SNAPSHOT_POLL));
        }
    }

    fn is_snapshot_due(&self) -> bool {
        let applied = self.copies.applied.position.lsn;
        let newest = self.copies.newest.as_ref();
        let newest = newest.map_or(Lsn::ZERO, |newest| newest.head.link.position.lsn);
        let is_early = self.time() < self.copies.not_before || self.copies.incoming.is_some();
        if self.is_witness || applied == Lsn::ZERO || is_early {
            return false;
        }
        // I6: the state of a history that has ended is not what the new one has at that LSN.
        if !self.replica.has_own_log() {
            return false;
        }
        if self.copies.wanted {
            return true;
        }
        let by_time = self.settings.snapshot_interval.is_some_and(|interval| {
            self.copies.last_begun.after(interval) <= self.time()
                && newest.distance_to(applied) > limits::SNAPSHOT_LSNS_MIN
        });
        let by_size = self
            .settings
            .snapshot_after
            .is_some_and(|bytes| self.log_bytes_behind(newest) > bytes && newest < applied);
        by_time || by_size
    }

    pub(super) fn log_bytes_behind(&self, lsn: Lsn) -> u64 {
        // The log's size is known as a whole; what lies behind the newest snapshot is its share.
        let tip = self.replica.tip().position.lsn;
        let first = self.replica.first_lsn();
        let all = first.distance_to(tip).max(1);
        let behind = lsn.max(first).distance_to(tip).min(all);
        u64::try_from(u128::from(self.log_bytes) * u128::from(behind) / u128::from(all))
            .unwrap_or(u64::MAX)
    }

    fn begin_snapshot(&mut self) {
        let applied = self.copies.applied;
        let begun = self.state.begin_snapshot();
        assert_eq!(
            begun.lsn, applied.position.lsn,
            "a snapshot begins between two records"
        );
        assert!(
            begun.lsn <= self.replica.commit() && begun.lsn <= self.replica.durable(),
            "I6: a snapshot at {} above commit or durable",
            begun.lsn
        );
        let header = self.snapshot_header(&begun);
        let mut epochs = self.replica.epochs().clone();
        epochs.cut(begun.lsn);
        let head = SnapshotHead {
            history: self.replica.history(),
            link: applied,
            epochs,
        };
        self.copies.jobs += 1;
        let number = self.copies.jobs;
        self.copies.job = Some(Job {
            number,
            head,
            segments: self.state.segments(),
            copied: false,
        });
        self.copies.wanted = false;
        self.copies.last_begun = self.time();
        self.copies.room = limits::SNAPSHOT_BLOCKS_PER_TURN;
        for client in std::mem::take(&mut self.copies.asked) {
            let text = Reply::Simple("Background saving started");
            self.pending.answer(client, begun.lsn, text);
        }
        self.emit(Output::Snapshot(CopyOutput::Begin {
            job: number,
            header: Box::new(header),
        }));
    }

    /// Of a snapshot that begins now.
    pub(super) fn snapshot_header(&self, begun: &crate::state::SnapshotHead) -> Header {
        let mut epochs = self.replica.epochs().clone();
        epochs.cut(begun.lsn);
        Header {
            cluster: self.identity.cluster,
            cluster_name: self.identity.cluster_name.clone(),
            node: self.identity.node,
            history: self.replica.history(),
            ancestors: self.replica.config().forks(),
            link: self.copies.applied,
            digest: begun.digest.0,
            counts: [begun.keys, begun.tokens, 0, 0],
            epoch_table: encode_epochs(&epochs),
            state_head: Bytes::new(),
        }
    }

    pub(super) fn on_copy(&mut self, event: CopyEvent) {
        match event {
            CopyEvent::Room(room) => self.copies.room = room,
            CopyEvent::Kept(kept) => self.keep_segment(*kept),
            CopyEvent::Written { job, result } => self.on_written(job, result),
            CopyEvent::Ready { from, lsn, have } => self.on_ready(from, lsn, have),
            CopyEvent::Loaded {
                from,
                header,
                state,
            } => self.on_loaded(from, &header, state),
            CopyEvent::ReceiveFailed { from, why } => {
                self.copies.incoming = None;
                self.note(format!(
                    "the snapshot from node {from} came to nothing: {why}"
                ));
                self.tell_sender(from, Piece::Refuse(why));
                self.step(Input::SnapshotAborted { from });
            }
            CopyEvent::SendFailed { to, lsn, why } => self.on_send_failed(to, lsn, why),
            CopyEvent::BackedUp { ticket, result } => {
                let Some(client) = self.copies.shipping.remove(&ticket) else {
                    return;
                };
                match result {
                    Ok(json) => {
                        let reply = Reply::Bulk(json.into());
                        self.pending.answer(client, Lsn::ZERO, reply);
                    }
                    Err(why) => self.pending.refuse(client, Refusal::Operator(why)),
                }
            }
        }
    }

    fn on_written(&mut self, number: u64, result: Result<Written, String>) {
        // One that was given up, for the state was replaced, may be finished all the same.
        let Some(job) = self.copies.job.take_if(|job| job.number == number) else {
            Mark::SnapshotFinishedInVain.hit();
            return;
        };
        match result {
            Ok(Written { bytes }) => {
                let lsn = job.head.link.position.lsn;
                self.copies.newest = Some(Newest {
                    head: job.head,
                    bytes,
                    finished: self.now.wall / 1_000_000_000,
                });
                self.note(format!("snapshot at {lsn} written, {bytes} bytes"));
                self.trim_log();
                for (to, at_least) in std::mem::take(&mut self.copies.waiting) {
                    self.offer_snapshot(to, at_least);
                }
                self.ship_backups();
            }
            Err(why) => {
                self.state.abort_snapshot();
                self.copies.not_before = self.time().after(limits::SNAPSHOT_RETRY);
                self.note(format!("no snapshot was written: {why}"));
                for (to, _) in std::mem::take(&mut self.copies.waiting) {
                    self.step(Input::SnapshotFailed { to });
                }
                for backup in std::mem::take(&mut self.copies.backups) {
                    let text = format!("the backup's snapshot was not written: {why}");
                    self.pending.refuse(backup.client, Refusal::Operator(text));
                }
            }
        }
    }

    /// The heap gives back what a file holds now, on a thread that has time for it.
    fn keep_segment(&mut self, kept: Kept) {
        self.state
            .keep_segment(&kept.segment, kept.mapped, kept.blake3);
        self.emit(Output::Snapshot(CopyOutput::Free(kept.segment)));
    }

    /// Log that the newest snapshot covers goes, once every member has it or too much is kept.
    pub(super) fn trim_log(&mut self) {
        let Some(newest) = &self.copies.newest else {
            return;
        };
        let covered = newest.head.link.position.lsn;
        let is_mended = self.damaged_through > Lsn::ZERO && self.damaged_through <= covered;
        let mut through = if is_mended || self.log_bytes > self.settings.wal_keep {
            covered
        } else {
            covered.min(self.replica.held_by_all().unwrap_or(Lsn::ZERO))
        };
        // Whoever takes a snapshot needs the log behind it: else it would need the next one, and
        // the one after that, for ever.
        let most = self
            .settings
            .wal_keep
            .saturating_add(limits::OFFERED_LOG_BYTES);
        if let Some(offered) = self.copies.offered.values().min()
            && !is_mended
            && self.log_bytes <= most
        {
            through = through.min(*offered);
        }
        if !is_mended {
            through = through.min(self.archive_lets_go());
        }
        if is_mended {
            // Whole segments go, and never the newest: it may hold the damaged part.
            self.damaged_through = Lsn::ZERO;
            let last = self.replica.epochs().last();
            let history = last.map_or(self.replica.history(), |last| last.history);
            self.give_log(Command::Roll(history));
        }
        if through > Lsn::ZERO {
            Mark::LogTrimmed.hit();
            self.give_log(Command::Trim(through));
        }
    }

    /// Tells the size of the newest snapshot's file once the shell knows it.
    pub fn set_snapshot_bytes(&mut self, bytes: u64) {
        if let Some(newest) = &mut self.copies.newest {
            newest.bytes = bytes;
        }
    }
}

/// The epoch table as snapshots carry it.
pub fn encode_epochs(epochs: &EpochTable) -> Bytes {
    postcard::to_stdvec(epochs)
        .expect("a table of numbers can be encoded")
        .into()
}

pub fn decode_epochs(bytes: &[u8]) -> Result<EpochTable, postcard::Error> {
    postcard::from_bytes(bytes)
}
