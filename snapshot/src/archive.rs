//! Puts snapshots and committed log into an archive, where nothing is ever overwritten.
//!
//! `<cluster>/<generation>-<history id>/` holds `history` (the card), `snapshot-<lsn>` and
//! `log-<first>-<last>`; `<cluster>/segments/` what the snapshots of all histories refer to,
//! segments (`segment.rs`) and parts (`part.rs`), each once. What a name stands for follows from
//! it: two nodes that ship the same history cannot spoil each other's work, whatever one of them
//! slept through. An object whose bytes were damaged meanwhile is replaced.
//!
//! Encrypted, the same contents are other bytes each time, and no node can read them. What has a
//! name is held against one's own by what it says in clear: the place in the one log of its
//! history, by the chain; and against itself by the digest of its stored bytes.

mod marks;
mod removal;
mod unlisted;
mod upload;

use crate::card::Card;
use crate::catalogue::{self, CARD_NAME};
use crate::error::{Error, Reason};
use crate::new_file::place_of;
use crate::object::{LogHead, check_log, encode_log};
use crate::seal::{Identities, Recipients};
use crate::store::{Shared, Store, join};
use crate::survey::{self, Survey};
use crate::{Result, object};
use bytes::Bytes;
use standfast_wal::{Link, Lsn, Mark, Record, Storage};
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use unlisted::Unlisted;

pub use marks::MARK_FOR;
pub use removal::{REMOVAL_FOR, remove};
pub use unlisted::MANIFEST_PIECES;
pub use upload::{Sent, Upload};

/// A piece of log is closed when the next record would make it longer than this.
pub const LOG_CLOSE_BYTES: usize = 8 << 20;

/// What one call added to the archive.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shipped {
    /// The LSN of the snapshot, if one was given.
    pub snapshot_lsn: Option<Lsn>,
    /// Pieces of log written (or found there, equal).
    pub pieces: u64,
    pub records: u64,
    /// Bytes that were written into the archive.
    pub stored_bytes: u64,
    /// The end of the log in the archive now.
    pub end: Option<Link>,
    /// The last LSN before a hole and the first behind it, where the records did not go on from
    /// what the archive had. A snapshot at or behind the hole makes restores possible again.
    pub gap: Option<(Lsn, Lsn)>,
}

/// What became of an object that was to be put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    New,
    /// The same contents had the name already.
    Present,
    /// Damaged bytes had the name, and were replaced.
    Repaired,
}

/// A put whose name nobody has and that did not come about is tried again so often.
const PUTS_MAX: usize = 3;

/// Ships one history into an archive, from a thread that may wait.
#[derive(Clone, Debug)]
pub struct Shipper {
    store: Shared,
    dir: String,
    card: Card,
    recipients: Recipients,
    end: Option<Link>,
    inherited: Lsn,
    unlisted: Unlisted,
}

/// Ships, in plain, a snapshot (if given) and the records that the archive lacks. `head` names the
/// history; the records are committed, of that history, and follow one another.
pub fn ship(
    store: &Shared,
    head: &Card,
    snapshot: Option<&Path>,
    records: impl IntoIterator<Item = io::Result<Record>>,
) -> Result<Shipped> {
    let (mut shipper, _) = Shipper::open(store, head, &Recipients::default())?;
    let mut shipped = shipper.put_log(records)?;
    if let Some(path) = snapshot {
        let (lsn, sent) = shipper.put_snapshot(path)?;
        shipped.snapshot_lsn = Some(lsn);
        shipped.stored_bytes += sent.put;
        shipper.note_snapshot(lsn)?;
    }
    shipper.put_manifest()?;
    Ok(shipped)
}

impl Shipper {
    /// Puts the history's card there, and finds out what the archive has of it. What is put from
    /// then on is encrypted to `recipients`, if there are any.
    pub fn open(store: &Shared, card: &Card, recipients: &Recipients) -> Result<(Shipper, Survey)> {
        let dir = catalogue::history_dir(card.cluster, card.history);
        let path = join(&dir, CARD_NAME);
        put(&**store, &path, &card.encode().into(), || {
            Ok(catalogue::read_card(&**store, &path)? == *card)
        })?;
        for dir in [
            &dir,
            &catalogue::segments_beside(&dir, recipients.id()),
            &catalogue::marks_dir(card.cluster),
        ] {
            let swept = store.sweep(dir);
            swept.map_err(|e| Error::io(store.place(dir), e))?;
        }
        let survey = survey::survey(store, card)?;
        let unlisted = Unlisted::find(store, &dir)?;
        let shipper = Shipper {
            store: Arc::clone(store),
            dir,
            card: card.clone(),
            recipients: recipients.clone(),
            end: survey.end,
            inherited: survey.inherited,
            unlisted,
        };
        Ok((shipper, survey))
    }

    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Where the log in the archive ends, as far as this shipper knows. `None`: there is none.
    pub fn end(&self) -> Option<Link> {
        self.end
    }

    /// The last LSN that need not be put: where the log in the archive ends, or, where there is
    /// none of this history yet, what its ancestors' archives have of it.
    pub fn reached(&self) -> Lsn {
        self.end.map_or(self.inherited, |end| end.position.lsn)
    }

    /// Puts the records behind the archive's end, in pieces; skips what it has.
    pub fn put_log(
        &mut self,
        records: impl IntoIterator<Item = io::Result<Record>>,
    ) -> Result<Shipped> {
        let mut shipped = Shipped::default();
        let mut piece: Vec<Record> = Vec::new();
        let mut piece_bytes = 0;
        for record in records {
            let record = record.map_err(|e| Error::io("the log to be shipped", e))?;
            let last = piece.last().map(Record::link).or(self.end);
            match last {
                Some(last) if record.last_lsn() <= last.position.lsn => continue,
                Some(last) if record.first_lsn() > last.position.lsn.next() => {
                    self.close(&mut piece, &mut shipped)?;
                    piece_bytes = 0;
                    shipped.gap = Some((last.position.lsn, record.first_lsn()));
                }
                Some(last) => self.check_follows(&record, last)?,
                None => {}
            }
            if piece_bytes + record.bytes().len() > LOG_CLOSE_BYTES {
                self.close(&mut piece, &mut shipped)?;
                piece_bytes = 0;
            }
            piece_bytes += record.bytes().len();
            piece.push(record);
        }
        self.close(&mut piece, &mut shipped)?;
        shipped.end = self.end;
        Ok(shipped)
    }

    fn check_follows(&self, record: &Record, last: Link) -> Result<()> {
        record.follows(last).map_err(|damage| {
            let lsn = record.first_lsn();
            let file = format!("{} (the log it is to hold)", self.store.place(&self.dir));
            Error::new(&file, None, Reason::Record { lsn, damage })
        })
    }

    fn close(&mut self, piece: &mut Vec<Record>, shipped: &mut Shipped) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        let (head, put) = self.put_piece(piece)?;
        shipped.pieces += 1;
        shipped.records += head.records;
        if put != Put::Present {
            shipped.stored_bytes += head.file_bytes();
        }
        piece.clear();
        Ok(())
    }

    /// Puts these records, which follow one another, as one piece of log: the archive's end is
    /// theirs then. Answers the head of the object that is there.
    pub fn put_piece(&mut self, records: &[Record]) -> Result<(LogHead, Put)> {
        let (cluster, history) = (self.card.cluster, self.card.history);
        let (head, bytes) = encode_log(cluster, history, records, &self.recipients);
        let path = self.path_of(&head);
        let found = Cell::new(head);
        let put = put(&*self.store, &path, &bytes.into(), || {
            let there = check_piece(&*self.store, &path)?;
            found.set(there);
            Ok(there.is_same_log(&head))
        })?;
        self.end = Some(head.end);
        let there = match put {
            Put::Present => found.get(),
            Put::New | Put::Repaired => head,
        };
        self.unlisted.note(&there);
        Ok((there, put))
    }

    /// Has the next manifest name a snapshot that was put.
    pub fn note_snapshot(&mut self, lsn: Lsn) -> Result<()> {
        self.unlisted.note_snapshot(&self.store, &self.dir, lsn)
    }

    /// Whether it is time for a manifest, however young the last one is.
    pub fn is_manifest_due(&self) -> bool {
        self.unlisted.is_due()
    }

    /// Puts a manifest of what none names yet.
    pub fn put_manifest(&mut self) -> Result<()> {
        self.unlisted.put(&*self.store, &self.dir, &self.card)
    }

    fn path_of(&self, head: &LogHead) -> String {
        let name = catalogue::log_name(head.first_lsn, head.last_lsn());
        join(&self.dir, &name)
    }

    /// Reads a piece back and proves it, as far as that takes no key: an encrypted one is what was
    /// put by the digest of its stored bytes. Answers its head.
    pub fn read_back(&self, head: &LogHead) -> Result<LogHead> {
        let path = self.path_of(head);
        let there = check_piece(&*self.store, &path)?;
        if there.is_same_log(head) {
            return Ok(there);
        }
        Err(Error::new(&self.store.place(&path), None, Reason::Taken))
    }

    /// Goes on where another node has come further: it may have shipped while this one slept.
    /// Answers the head of the newest piece of its, if there is one.
    pub fn catch_up(&mut self) -> Result<Option<LogHead>> {
        let next = self.end.map_or(Lsn(1), |end| end.position.lsn.next());
        let mut newest = None;
        for (first, last) in catalogue::pieces_from(&*self.store, &self.dir, next)? {
            let end = self.end.unwrap_or_default();
            if first != end.position.lsn.next() {
                continue;
            }
            let path = join(&self.dir, &catalogue::log_name(first, last));
            match catalogue::read_log_head(&*self.store, &path) {
                Ok(head) if head.before == end.chain => {
                    self.end = Some(head.end);
                    self.unlisted.note(&head);
                    Mark::ArchiveCaughtUp.hit();
                    newest = Some(head);
                }
                Ok(_) => return Err(Error::new(&self.store.place(&path), None, Reason::Taken)),
                // The piece that is put there next repairs it, or goes beside it.
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(newest)
    }

    /// Begins to put the snapshot file `name` of `storage` and the segments beside it.
    pub fn upload<S: Storage>(&self, storage: S, name: &str) -> Result<Upload<S>> {
        Upload::begin(self, storage, name)
    }

    /// Puts the snapshot file at `path`, having proved it, and those of its parts and segments that
    /// are not there yet. Answers its LSN and what was put.
    pub fn put_snapshot(&self, path: &Path) -> Result<(Lsn, Sent)> {
        let (disk, name) = place_of(path).map_err(|e| Error::io(path.display(), e))?;
        let mut upload = self.upload(disk, &name)?;
        while !upload.step()? {}
        Ok((upload.lsn(), upload.sent()))
    }
}

fn check_piece(store: &dyn Store, path: &str) -> Result<LogHead> {
    let place = store.place(path);
    let bytes = store.get(path).map_err(|e| Error::io(&place, e))?;
    check_log(&place, &bytes)
}

/// Puts an object, unless something sound has its name; `is_same` reads that back.
fn put(
    store: &dyn Store,
    name: &str,
    bytes: &Bytes,
    is_same: impl Fn() -> Result<bool>,
) -> Result<Put> {
    let fail = |e| Error::io(store.place(name), e);
    let mut tries = 0;
    loop {
        tries += 1;
        if store.put_if_absent(name, bytes).map_err(fail)? {
            return Ok(Put::New);
        }
        match is_same() {
            Ok(true) => {
                Mark::ArchivePresent.hit();
                return Ok(Put::Present);
            }
            Ok(false) => return Err(Error::new(&store.place(name), None, Reason::Taken)),
            // Somebody else's put was under way, and came to nothing.
            Err(error) if error.is_absent() && tries < PUTS_MAX => Mark::ArchivePutAgain.hit(),
            Err(error) if error.is_damage() => {
                // Whoever damaged it, its contents are ours: the name says what it holds.
                store.replace(name, bytes).map_err(fail)?;
                return Ok(Put::Repaired);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads a piece of log from the archive and proves all of it.
pub fn read_log(
    store: &dyn Store,
    path: &str,
    identities: &Identities,
) -> Result<(LogHead, Vec<Record>)> {
    let place = store.place(path);
    let bytes = store.get(path).map_err(|e| Error::io(&place, e))?;
    object::decode_log(&place, &bytes, identities)
}

#[cfg(test)]
mod proofs;
#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;
