//! The writer thread: everything queued becomes one vectored write and one fdatasync.

use crate::error::Error;
use crate::log::{Cut, DamagedRange, Log, Recovered, Space};
use crate::record::{History, Link, Lsn, Record};
use crate::storage::Storage;

/// What the writer thread reports, in the order in which it happened.
#[derive(Debug)]
pub enum WriterEvent {
    /// Everything up to here survives any crash.
    Durable(Lsn),
    Cut(Cut),
    WasReset(Link),
    Rolled(History),
    /// The first LSN that the log still holds.
    Trimmed(Lsn),
    Trusted,
    /// The answer to `repair`; `Err` with `DoesNotFit` changed nothing and is not final.
    Repaired(Result<Recovered, Error>),
    /// Reported when it changes.
    Space(Space),
    /// The log is dead; reported once, nothing comes after it. The node halts.
    Failed(Error),
}

/// The handle of the writer thread. Commands are done in the order in which they were given.
pub struct Writer {}

impl Writer {
    /// Starts the thread. `on_event` runs on it and must not block.
    pub fn spawn<S: Storage>(
        log: Log<S>,
        on_event: impl FnMut(WriterEvent) + Send + 'static,
    ) -> Writer {
        let _ = (log, on_event);
        todo!()
    }

    /// Appends a record behind the last one given; answered by a `Durable` at or above it.
    pub fn append(&self, record: Record) {
        let _ = record;
        todo!()
    }

    pub fn cut(&self, after: Lsn) {
        let _ = after;
        todo!()
    }

    pub fn reset(&self, base: Link, history: History, verified: Lsn) {
        let _ = (base, history, verified);
        todo!()
    }

    pub fn roll(&self, history: History) {
        let _ = history;
        todo!()
    }

    pub fn trim(&self, below: Lsn) {
        let _ = below;
        todo!()
    }

    pub fn trust(&self) {
        todo!()
    }

    pub fn repair(&self, range: DamagedRange, records: Vec<Record>) {
        let _ = (range, records);
        todo!()
    }

    /// Whether a Commands record of this many bytes leaves the reserve alone. Ask before the
    /// commands are ordered; other records may always be appended.
    pub fn admits(&self, record_bytes: usize) -> bool {
        let _ = record_bytes;
        todo!()
    }

    /// Prepared bytes that nothing given so far will take.
    pub fn room(&self) -> u64 {
        todo!()
    }

    /// Writes what is queued, settles the log and ends the thread.
    pub fn close(self) {
        todo!()
    }
}
