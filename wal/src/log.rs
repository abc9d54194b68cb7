//! The set of segments: append position, cut, reset, trim. Owned by one thread.

use crate::error::Error;
use crate::reader::Reader;
use crate::record::{Chain, ClusterId, History, Incarnation, Link, Lsn, NodeId, Record};
use crate::storage::Storage;

/// Whose log this is. Stands in every segment; another one's files are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// Settings of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of one segment file.
    pub segment_bytes: u64,
    /// How much log `excess` leaves in place, whoever needs it.
    pub keep_bytes: u64,
    /// Prepared space that only records other than Commands may use.
    pub reserve_bytes: u64,
    /// No peer holds this log: an unfinished end is cut only where it trails off into zeros, and
    /// damage anywhere else is refused.
    pub alone: bool,
    /// An operator's explicit word for one start: damage above the highest position known
    /// durable may be cut (and kept aside) even when alone.
    pub cut_damaged_end: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            keep_bytes: 16 << 30,
            reserve_bytes: 1 << 20,
            alone: false,
            cut_damaged_end: false,
        }
    }
}

/// What `open` found and did. Positions only: records are read through a `Reader`.
#[derive(Debug)]
pub struct Recovered {
    /// The last good record; what the next one must follow. All of it is durable.
    pub tail: Link,
    /// The first LSN that the log still holds; above `tail` when it holds none.
    pub first_lsn: Lsn,
    /// The history that the newest segment was written in.
    pub history: History,
    /// The EpochStart records above the base, in order.
    pub epoch_starts: Vec<Record>,
    pub end: End,
    /// Acknowledged records that are damaged. While there are any, nothing can be appended:
    /// `repair` them first. Always empty when alone (`open` refuses instead).
    pub damaged: Vec<DamagedRange>,
    /// A cut or reset that a crash had interrupted was finished first.
    pub finished_interrupted: bool,
}

/// How the newest segment ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Nothing but zeros behind the last record.
    Clean,
    /// An unfinished write was cut; it cannot have been acknowledged. `kept` is the file that
    /// holds what was cut.
    Torn { kept: String },
    /// Something was cut (now, or at an earlier start) that cannot be told from acknowledged
    /// records gone bad. Stands until `Log::trust`.
    Suspect { kept: String },
}

/// Damaged records between two good places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
    /// The good record before.
    pub after: Link,
    /// What the first good record behind names as its predecessor; `None` where there is none.
    pub next_previous_chain: Option<Chain>,
    pub file: String,
    pub offset: u64,
}

/// What a cut took away.
#[derive(Debug)]
pub struct Cut {
    /// The end of the log now.
    pub tail: Link,
    /// What was removed, in order, whether it had been durable or not.
    pub records: Vec<Record>,
    /// The file in `divergent/` that keeps them; `None` if nothing was removed.
    pub file: Option<String>,
}

/// Whether there is disk space to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    Ok,
    /// The next segment could not be prepared; what is prepared still takes client commands.
    Low,
    /// Only the reserve is left: client commands must be refused.
    Full,
}

/// The log of one node.
pub struct Log<S: Storage> {
    storage: S,
}

impl<S: Storage> Log<S> {
    /// Makes an empty log whose first record will follow `base`.
    pub fn create(
        storage: S,
        identity: Identity,
        history: History,
        base: Link,
        options: Options,
    ) -> Result<Log<S>, Error> {
        let _ = (storage, identity, history, base, options);
        todo!()
    }

    /// Opens what a stop or crash left. `base` is the newest snapshot's position (or zero): the
    /// records above it are verified one by one.
    pub fn open(
        storage: S,
        identity: Identity,
        base: Link,
        options: Options,
    ) -> Result<(Log<S>, Recovered), Error> {
        let _ = (storage, identity, base, options);
        todo!()
    }

    /// Queues a record; it must follow `written()`. Copies no bytes.
    pub fn push(&mut self, record: Record) {
        let _ = record;
        todo!()
    }

    /// Writes everything queued with one vectored write and one fdatasync (per segment touched)
    /// and returns the durable end. Below `written()` only while the disk is full or the next
    /// segment is still being prepared elsewhere: call again later.
    pub fn flush(&mut self) -> Result<Lsn, Error> {
        todo!()
    }

    /// Notes on disk that everything written is durable, so that later damage to the last
    /// records is told from a torn write. For idle moments; costs one small write and fdatasync,
    /// nothing if there is nothing new.
    pub fn settle(&mut self) -> Result<(), Error> {
        todo!()
    }

    /// Removes every record above `after` (a record's last LSN, or the base), keeping them in
    /// `divergent/`. A crash in the middle is finished at the next open.
    pub fn cut(&mut self, after: Lsn) -> Result<Cut, Error> {
        let _ = after;
        todo!()
    }

    /// Empties the log, which then goes on after `base`: the last step of installing a snapshot.
    /// Segments whose records are all at or below `verified` are removed, the others are moved
    /// to `divergent/`. Either all of it has happened after a crash, or nothing.
    pub fn reset(&mut self, base: Link, history: History, verified: Lsn) -> Result<(), Error> {
        let _ = (base, history, verified);
        todo!()
    }

    /// Starts a new segment that carries `history`.
    pub fn roll(&mut self, history: History) -> Result<(), Error> {
        let _ = history;
        todo!()
    }

    /// Drops whole segments whose records are all at or below `below`; returns the first LSN kept.
    pub fn trim(&mut self, below: Lsn) -> Result<Lsn, Error> {
        let _ = below;
        todo!()
    }

    /// Ends suspicion: the log up to here was verified against this epoch's primary.
    pub fn trust(&mut self) -> Result<(), Error> {
        todo!()
    }

    /// Puts a peer's records into a damaged range. They must fit the chain on both sides,
    /// otherwise nothing is changed. Returns what is known after that.
    pub fn repair(&mut self, range: &DamagedRange, records: &[Record]) -> Result<Recovered, Error> {
        let _ = (range, records);
        todo!()
    }

    /// Prepares the next segment in the foreground if it is missing.
    pub fn prepare(&mut self) -> Result<Space, Error> {
        todo!()
    }

    /// The last record pushed: what the next must follow.
    pub fn written(&self) -> Link {
        todo!()
    }

    /// The last LSN that survives any crash.
    pub fn durable(&self) -> Lsn {
        todo!()
    }

    /// The first LSN that the log still holds.
    pub fn first_lsn(&self) -> Lsn {
        todo!()
    }

    /// Bytes of all segment files.
    pub fn bytes(&self) -> u64 {
        todo!()
    }

    /// Prepared bytes not yet taken by anything pushed.
    pub fn room(&self) -> u64 {
        todo!()
    }

    pub fn space(&self) -> Space {
        todo!()
    }

    /// The highest LSN that lies in segments beyond `keep_bytes`: what `trim` may be given even
    /// though somebody still needs it.
    pub fn excess(&self) -> Lsn {
        todo!()
    }

    pub fn history(&self) -> History {
        todo!()
    }

    /// A handle that reads what is durable, from any thread.
    pub fn reader(&self) -> Reader<S> {
        todo!()
    }

    pub fn storage(&self) -> &S {
        &self.storage
    }
}
