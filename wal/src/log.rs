//! The set of segments: append, roll, trim. Owned by one thread.
//!
//! Owns the append position. Records are queued by `push` and become durable together by
//! `flush`; everything in a segment that is not the newest was durable before the next one got
//! its name.

use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::prepare::{LARGE_WRITE_BYTES, PREPARED, Preparation, Prepared, Writes};
use crate::reader::Reader;
use crate::record::{History, Kind, Link, Lsn, Record};
use crate::segment::{self, HEADER_AREA, Header, STAMP_BYTES, Stamp};
use crate::storage::{File, Storage};
pub use crate::terms::{Cut, DamagedRange, End, Identity, Options, Reach, Recovered, Space};
use crate::view::Shared;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

/// The log of one node.
pub struct Log<S: Storage> {
    pub(crate) storage: S,
    /// Keeps other processes out while the log is open.
    pub(crate) _lock: S::Lock,
    pub(crate) identity: Identity,
    pub(crate) options: Options,
    /// The newest snapshot's position when the log was opened.
    pub(crate) opened_at: Link,
    /// All segments, oldest first; the last one is appended to. Never empty.
    pub(crate) headers: VecDeque<Header>,
    pub(crate) file: Arc<S::File>,
    /// Where the next stamp goes in `file`.
    pub(crate) offset: u64,
    /// Records pushed and not yet durable, in order.
    pub(crate) queue: VecDeque<Record>,
    /// Bytes that the queue will take on disk, without what is lost at the ends of segments.
    pub(crate) queued_bytes: u64,
    pub(crate) durable: Link,
    /// The stamps of the write under way; kept for its memory.
    pub(crate) stamps: Vec<[u8; STAMP_BYTES]>,
    /// A closing stamp on disk says that everything in the log is durable.
    pub(crate) settled: bool,
    pub(crate) prepared: Option<Prepared<S>>,
    /// A `Preparation` was handed out and has not come back.
    pub(crate) preparing: bool,
    /// Since the last preparation.
    pub(crate) writes: Writes,
    /// The last preparation found no space.
    pub(crate) disk_full: bool,
    /// After the first error nothing is written any more.
    pub(crate) failed: bool,
    /// The file that keeps what made the log suspect.
    pub(crate) suspect: Option<String>,
    /// What `open` found damaged and nobody repaired yet; nothing is appended while there is any.
    pub(crate) damaged: Vec<DamagedRange>,
    pub(crate) shared: Arc<Shared<S>>,
}

impl<S: Storage> Log<S> {
    /// Queues a record; it must follow `written()`. Copies no bytes.
    pub fn push(&mut self, record: Record) {
        assert!(
            self.damaged.is_empty(),
            "damaged ranges are repaired before anything is appended: {:?}",
            self.damaged
        );
        let written = self.written();
        assert!(
            record.follows(written).is_ok(),
            "I3: {record:?} pushed behind {written:?}"
        );
        self.queued_bytes += disk_bytes(&record);
        self.queue.push_back(record);
    }

    /// Writes everything queued with one vectored write and one fdatasync (per segment touched)
    /// and returns the durable end. Below `written()` only while the disk is full or the next
    /// segment is still being prepared elsewhere: call again later.
    pub fn flush(&mut self) -> Result<Lsn, Error> {
        self.alive()?;
        while let Some(first) = self.queue.front() {
            let needed = first.bytes().len();
            let count = self.fitting();
            if count > 0 {
                let done = self.write_group(count);
                self.latch(done)?;
            } else {
                let advanced = self.advance(needed);
                if !self.latch(advanced)? {
                    break;
                }
            }
        }
        Ok(self.durable.position.lsn)
    }

    /// How many queued records fit the newest segment.
    fn fitting(&self) -> usize {
        let end = self.newest().records_end();
        let mut at = self.offset;
        let fits = |record: &&Record| {
            at += disk_bytes(record);
            at <= end
        };
        self.queue.iter().take_while(fits).count()
    }

    /// One write and one sync for the first `count` queued records.
    fn write_group(&mut self, count: usize) -> Result<(), Error> {
        let salt = self.newest().salt();
        let stamp = Stamp {
            durable_through: self.durable.position.lsn,
            sealed: false,
        };
        self.stamps.clear();
        let mut at = self.offset;
        for record in self.queue.iter().take(count) {
            self.stamps.push(stamp.encode(salt, at));
            at += disk_bytes(record);
        }
        // The closing stamp tells a finished write from a torn one.
        self.stamps.push(stamp.encode(salt, at));
        assert!(
            at <= self.newest().records_end(),
            "a group ends at {at}, inside the space prepared for it"
        );
        let mut parts = Vec::with_capacity(2 * count + 1);
        for (record, stamp) in self.queue.iter().take(count).zip(&self.stamps) {
            parts.push(IoSlice::new(stamp));
            parts.push(IoSlice::new(record.bytes()));
        }
        parts.push(IoSlice::new(&self.stamps[count]));
        let name = self.newest_name();
        self.file
            .write_vectored_at(self.offset, &mut parts)
            .map_err(Error::io(&name, "append"))?;
        self.file.sync().map_err(Error::io(&name, "sync"))?;
        // Durable here: the first `count` queued records.
        self.durable = self.queue[count - 1].link();
        let bytes = at - self.offset;
        if bytes >= LARGE_WRITE_BYTES {
            // The pages serve the next write, which so touches no fresh memory. Peers that lag are
            // served from the core's tail.
            self.file.release(self.offset, bytes);
        }
        self.queued_bytes -= bytes;
        self.writes.note(bytes);
        self.queue.drain(..count);
        self.offset = at;
        self.settled = false;
        self.shared.extend(self.durable.position.lsn, at);
        Ok(())
    }

    /// Goes on to the next segment; false if there is none yet that takes `record_bytes`.
    fn advance(&mut self, record_bytes: usize) -> Result<bool, Error> {
        let needed = segment::bytes_for(record_bytes);
        if self
            .prepared
            .as_ref()
            .is_some_and(|prepared| prepared.bytes < needed)
        {
            self.prepared = None;
        }
        if self.prepared.is_none() {
            if self.preparing {
                return Ok(false);
            }
            let bytes = self.options.segment_bytes.max(needed);
            self.prepared = self.preparation_of(bytes).run()?;
            self.disk_full = self.prepared.is_none();
        }
        let Some(prepared) = self.prepared.take() else {
            return Ok(false);
        };
        self.begin_segment(prepared, self.newest().history)?;
        Ok(true)
    }

    /// Turns the prepared space into the newest segment, whose base is the durable end.
    fn begin_segment(&mut self, prepared: Prepared<S>, history: History) -> Result<(), Error> {
        let old = *self.newest();
        // A newest segment without records is replaced: the new one has its name.
        let replaces = old.base == self.durable;
        let header = Header {
            identity: self.identity,
            history,
            base: self.durable,
            segment_bytes: prepared.bytes,
            previous_first_lsn: if replaces {
                old.previous_first_lsn
            } else {
                old.first_lsn()
            },
        };
        let name = segment::name(header.first_lsn());
        let begin = || {
            prepared.file.write_at(0, &header.encode())?;
            prepared.file.sync()?;
            // Durable here: the new segment, and with its name that the old one is complete.
            durable::publish(&self.storage, PREPARED, &name)
        };
        begin().map_err(Error::io(&name, "begin the segment"))?;
        if replaces {
            self.headers.pop_back();
        } else {
            self.seal(&old)?;
        }
        self.headers.push_back(header);
        self.file = Arc::new(prepared.file);
        self.offset = HEADER_AREA;
        self.settled = true;
        self.shared.begin(header, Arc::clone(&self.file), replaces);
        Ok(())
    }

    /// Notes at the end of a segment that there is a next one, so that the loss of that file is
    /// known. After this nothing is written to the segment again.
    fn seal(&self, old: &Header) -> Result<(), Error> {
        let name = segment::name(old.first_lsn());
        let stamp = Stamp {
            durable_through: self.durable.position.lsn,
            sealed: true,
        };
        let stamp = stamp.encode(old.salt(), self.offset);
        self.file
            .write_at(self.offset, &stamp)
            .map_err(Error::io(&name, "seal the segment"))?;
        // Durable here: the seal, before anything in the next segment is acknowledged.
        self.file.sync().map_err(Error::io(&name, "sync"))
    }

    /// Notes on disk that everything written is durable, so that later damage to the last
    /// records is told from a torn write. For idle moments; costs one small write and fdatasync,
    /// nothing if there is nothing new.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.alive()?;
        if self.settled {
            return Ok(());
        }
        let stamp = Stamp {
            durable_through: self.durable.position.lsn,
            sealed: false,
        };
        let stamp = stamp.encode(self.newest().salt(), self.offset);
        let written = self
            .file
            .write_at(self.offset, &stamp)
            .and_then(|()| self.file.sync());
        let written = written.map_err(Error::io(&self.newest_name(), "settle"));
        // Durable here: that the last record is durable.
        self.latch(written)?;
        self.settled = true;
        Ok(())
    }

    /// Starts a new segment that carries `history`, after everything queued was written.
    pub fn roll(&mut self, history: History) -> Result<(), Error> {
        assert!(
            history.generation >= self.history().generation,
            "generations never fall: {history} after {}",
            self.history()
        );
        assert!(!self.preparing, "roll while a preparation is out");
        self.flush()?;
        self.prepare()?;
        let (true, Some(prepared)) = (self.queue.is_empty(), self.prepared.take()) else {
            let full = std::io::ErrorKind::StorageFull.into();
            return Err(Error::new("", ErrorKind::Io("begin a segment", full)));
        };
        let begun = self.begin_segment(prepared, history);
        self.latch(begun)
    }

    /// Drops whole segments whose records are all at or below `below`; returns the first LSN kept.
    pub fn trim(&mut self, below: Lsn) -> Result<Lsn, Error> {
        self.alive()?;
        let goes = |headers: &VecDeque<Header>| {
            headers
                .get(1)
                .is_some_and(|next| next.base.position.lsn <= below)
        };
        let mut trimmed = false;
        while goes(&self.headers) {
            let name = segment::name(self.headers[0].first_lsn());
            // Readers first, so that none of them looks for a file that is gone; oldest first,
            // so that a crash leaves no hole.
            self.headers.pop_front();
            self.shared.trim(self.headers[0].first_lsn());
            let removed = self.storage.remove(&name);
            self.latch(removed.map_err(Error::io(&name, "remove the segment")))?;
            trimmed = true;
        }
        if trimmed {
            // Durable here: the old segments are gone and their space is free.
            let synced = self.storage.sync_dir("");
            self.latch(synced.map_err(Error::io("", "sync the directory")))?;
        }
        Ok(self.first_lsn())
    }

    /// Ends suspicion: the log up to here was verified against this epoch's primary.
    pub fn trust(&mut self) -> Result<(), Error> {
        self.alive()?;
        if self.suspect.take().is_some() {
            // Durable here: the log is believed.
            let removed = crate::note::Note::remove(&self.storage, crate::note::SUSPECT);
            self.latch(removed)?;
        }
        Ok(())
    }

    /// The last record pushed: what the next must follow.
    pub fn written(&self) -> Link {
        self.queue.back().map_or(self.durable, Record::link)
    }

    /// The last LSN that survives any crash.
    pub fn durable(&self) -> Lsn {
        self.durable.position.lsn
    }

    /// The last record that survives any crash.
    pub fn durable_link(&self) -> Link {
        self.durable
    }

    /// The first LSN that the log still holds; above `durable` when it holds none.
    pub fn first_lsn(&self) -> Lsn {
        self.headers[0].first_lsn()
    }

    /// Bytes of all files that hold or will hold records.
    pub fn bytes(&self) -> u64 {
        let prepared = self.prepared.as_ref().map_or(0, |prepared| prepared.bytes);
        self.headers
            .iter()
            .map(|header| header.segment_bytes)
            .sum::<u64>()
            + prepared
    }

    /// Prepared bytes not yet taken by anything pushed.
    pub fn room(&self) -> u64 {
        let newest = self.newest().records_end() - self.offset;
        let next = self.prepared.as_ref().map_or(0, Prepared::room);
        (newest + next).saturating_sub(self.queued_bytes)
    }

    /// Whether a record may be pushed without eating into the reserve (or, for records other
    /// than Commands, into more than is there).
    pub fn admits(&self, kind: Kind, record_bytes: usize) -> bool {
        let reserve = if kind == Kind::Commands {
            self.options.reserve_bytes
        } else {
            0
        };
        admits(self.room(), reserve, record_bytes)
    }

    pub fn space(&self) -> Space {
        if !self.disk_full {
            Space::Ok
        } else if self.room() >= 2 * self.options.reserve_bytes {
            Space::Low
        } else {
            Space::Full
        }
    }

    /// The highest LSN that lies in segments beyond `keep_bytes`: what `trim` may be given even
    /// though somebody still needs it. `Lsn(0)` if there is no such segment.
    pub fn excess(&self) -> Lsn {
        let mut bytes = 0;
        for (at, header) in self.headers.iter().enumerate().rev() {
            bytes += header.segment_bytes;
            if bytes > self.options.keep_bytes
                && let Some(next) = self.headers.get(at + 1)
            {
                return next.base.position.lsn;
            }
        }
        Lsn::ZERO
    }

    /// The history that records are written in now.
    pub fn history(&self) -> History {
        self.newest().history
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether the log must not be believed before a primary has verified it.
    pub fn is_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    /// A handle that reads what is durable, from any thread.
    pub fn reader(&self) -> Reader<S> {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Whether the disk says that all of the log is durable.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    pub fn storage(&self) -> &S {
        &self.storage
    }

    pub(crate) fn newest(&self) -> &Header {
        self.headers
            .back()
            .expect("there is always a newest segment")
    }

    pub(crate) fn newest_name(&self) -> String {
        segment::name(self.newest().first_lsn())
    }

    pub(crate) fn alive(&self) -> Result<(), Error> {
        if self.failed {
            return Err(Error::new("", ErrorKind::Failed));
        }
        Ok(())
    }

    /// Remembers a failure: what is on disk is not known any more, so nothing is written again.
    pub(crate) fn latch<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.failed |= result.is_err();
        result
    }

    pub(crate) fn preparation_of(&self, bytes: u64) -> Preparation<S> {
        Preparation::new(self.storage.clone(), bytes, self.options.reserve_bytes)
    }
}

/// Bytes that a record takes in a segment, its stamp included.
pub(crate) fn disk_bytes(record: &Record) -> u64 {
    (STAMP_BYTES + record.bytes().len()) as u64
}

/// Whether `room` holds a record and leaves the reserve. The record may leave as much unused at
/// the end of a segment as it takes itself.
pub(crate) fn admits(room: u64, reserve_bytes: u64, record_bytes: usize) -> bool {
    let record_bytes = (STAMP_BYTES + record_bytes) as u64;
    2 * record_bytes + reserve_bytes <= room
}
