//! A snapshot on its way into the archive, with those of its segments and parts that are not there.
//!
//! One object a step, so that whoever takes the steps may be stopped between any two, and others
//! may work in the same archive meanwhile. The snapshot comes after all that it refers to.

use super::marks::Mark;
use super::{Shipper, put};
use crate::Result;
use crate::catalogue::{self, SnapshotEntry};
use crate::error::{Error, Reason};
use crate::format::Header;
use crate::part::{self, Blocks};
use crate::read::{Reader, Stored};
use crate::seal::RecipientsId;
use crate::sealed::{self, Clear, SealedHead};
use crate::segment::{self, SegmentRef};
use crate::store::join;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use standfast_wal::{Lsn, Storage};
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot file of `storage`, and the segments beside it, on their way.
pub struct Upload<S: Storage> {
    shipper: Shipper,
    storage: S,
    name: String,
    snapshot: Reader<Stored<S::File>>,
    /// What the snapshot's blocks are sent as.
    parts: BTreeMap<SegmentRef, Blocks>,
    /// All that it refers to: its segments, and these parts.
    named: Vec<SegmentRef>,
    /// Of those named: what was not there when it was looked.
    missing: Vec<SegmentRef>,
    /// What is there may be damaged, and is read.
    is_wary: bool,
    /// What is still to be read.
    unread: Vec<SegmentRef>,
    /// Keeps those that expire backups from removing what it refers to.
    mark: Option<Mark>,
    done: Done,
    sent: Sent,
}

/// How much of a snapshot was sent; bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// The snapshot with everything that it refers to, as it lies on the disk.
    pub whole: u64,
    /// What had to be put: the rest was there already.
    pub put: u64,
}

/// What of it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Done {
    Nothing,
    Marked,
    Segments,
    Snapshot,
    Released,
    All,
}

impl<S: Storage> Upload<S> {
    pub(super) fn begin(shipper: &Shipper, storage: S, name: &str) -> Result<Upload<S>> {
        let reader = Reader::open_in(&storage, name)?;
        let card = shipper.card();
        reader.check_cluster(card.cluster)?;
        let header = reader.header();
        if header.history != card.history {
            let expected = Box::new(card.history);
            let found = Box::new(header.history);
            let reason = Reason::History { expected, found };
            return Err(Error::new(reader.file(), None, reason));
        }
        reader.check_whole()?;
        let mut named = reader.segments()?;
        let of_segments: u64 = named.iter().map(|one| one.bytes).sum();
        let parts = part::split(&reader, shipper.recipients.salt())?;
        named.extend(parts.keys());
        Ok(Upload {
            shipper: shipper.clone(),
            storage,
            name: name.to_string(),
            parts,
            named,
            missing: Vec::new(),
            is_wary: false,
            unread: Vec::new(),
            mark: None,
            done: Done::Nothing,
            sent: Sent {
                whole: reader.file_bytes() + of_segments,
                put: 0,
            },
            snapshot: reader,
        })
    }

    /// Something in the archive is damaged: reads what it would share with other snapshots, and
    /// puts again what is not sound.
    pub fn wary(self, is_wary: bool) -> Upload<S> {
        Upload { is_wary, ..self }
    }

    fn header(&self) -> &Header {
        self.snapshot.header()
    }

    pub fn lsn(&self) -> Lsn {
        self.header().link.position.lsn
    }

    /// What was put so far.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Puts the next object that is not there; true once all are. After an error it is given up.
    pub fn step(&mut self) -> Result<bool> {
        let result = self.try_step();
        if result.as_ref().is_err_and(|error| !error.is_unanswered())
            && let Some(mark) = self.mark.take()
        {
            // Every request was answered: nothing of it is under way. What cannot be taken away is
            // the mark of a dead one.
            let _ = mark.release();
        }
        result
    }

    fn try_step(&mut self) -> Result<bool> {
        if let Some(reference) = self.unread.pop() {
            self.missing
                .extend(self.is_damaged(&reference).then_some(reference));
            return Ok(false);
        }
        if let Some(reference) = self.missing.pop() {
            self.put_named(&reference)?;
            return Ok(false);
        }
        match self.done {
            Done::Nothing if self.is_whole(self.found()?.as_ref())? => self.done = Done::All,
            Done::Nothing => {
                self.mark = self.put_mark()?;
                self.done = Done::Marked;
            }
            Done::Marked => {
                self.missing = self.find_missing()?;
                if self.is_wary {
                    let is_there = |one: &&SegmentRef| !self.missing.contains(one);
                    self.unread = self.named.iter().filter(is_there).copied().collect();
                }
                self.done = Done::Segments;
            }
            Done::Segments => {
                self.put_file()?;
                self.done = Done::Snapshot;
            }
            Done::Snapshot => {
                self.mark.take().map_or(Ok(()), Mark::release)?;
                self.done = Done::Released;
            }
            Done::Released => {
                // Whoever took this one for dead, so long did it take, may have removed some.
                self.missing = self.find_missing()?;
                self.done = Done::All;
            }
            Done::All => return Ok(true),
        }
        Ok(false)
    }

    fn segments_dir(&self) -> String {
        catalogue::segments_beside(&self.shipper.dir, self.shipper.recipients.id())
    }

    /// Marks what the snapshot refers to as needed, and looks whether any is being removed. After
    /// a crash, and where the store did not answer, the mark is that of a dead one.
    fn put_mark(&self) -> Result<Option<Mark>> {
        if self.named.is_empty() {
            return Ok(None);
        }
        let (store, dir) = (&self.shipper.store, self.segments_dir());
        let needed = self.named.iter().map(|one| join(&dir, &one.name()));
        let needed: BTreeSet<String> = needed.collect();
        let mark = Mark::put(store, self.shipper.card.cluster, self.lsn(), &needed)?;
        match mark.going()?.intersection(&needed).next() {
            None => {
                mark.sweep()?;
                Ok(Some(mark))
            }
            Some(path) => {
                mark.release()?;
                Err(Error::new(&store.place(path), None, Reason::Going))
            }
        }
    }

    /// What the archive lacks of all that is referred to.
    fn find_missing(&self) -> Result<Vec<SegmentRef>> {
        let recipients = self.shipper.recipients.id();
        let mut missing = lacking(&self.shipper, &self.segments_dir(), &self.named, recipients)?;
        missing.reverse();
        Ok(missing)
    }

    /// Whether it is to be put again. Where the store does not give it now it is taken for sound:
    /// the next proof judges it, and until then other snapshots are put.
    fn is_damaged(&self, reference: &SegmentRef) -> bool {
        let checked = segment::check(&*self.shipper.store, &self.segments_dir(), reference);
        checked.is_err_and(|error| !error.is_unanswered())
    }

    /// The snapshot of this LSN that is in the archive already, whole and sound by itself.
    fn found(&self) -> Result<Option<SnapshotEntry>> {
        let (shipper, header) = (&self.shipper, self.header());
        let target = self.target();
        let read = sealed::check_snapshot(&*shipper.store, &target).and_then(|(there, _)| {
            let (entry, _) = catalogue::read_snapshot(&shipper.store, &target)?;
            Ok((there, entry))
        });
        match read {
            Ok((there, entry)) => {
                let facts = |one: &Header| (one.cluster, one.history, one.link);
                let known = entry.state.map(|(digest, _)| digest);
                let is_same_state = known.is_none_or(|digest| digest == header.digest);
                match facts(&there) == facts(header) && is_same_state {
                    true => Ok(Some(entry)),
                    false => {
                        let place = shipper.store.place(&target);
                        Err(Error::new(&place, None, Reason::Taken))
                    }
                }
            }
            Err(error) if error.is_unanswered() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Whether there is nothing to do, for `found` has all that it refers to: whoever put it may
    /// have cut its parts in another way.
    fn is_whole(&self, found: Option<&SnapshotEntry>) -> Result<bool> {
        let Some(entry) = found.filter(|_| !self.is_wary) else {
            return Ok(false);
        };
        let (dir, named) = (&entry.segments_dir, &entry.segments);
        Ok(lacking(&self.shipper, dir, named, entry.recipients)?.is_empty())
    }

    fn target(&self) -> String {
        join(&self.shipper.dir, &catalogue::snapshot_name(self.lsn()))
    }

    fn put_named(&mut self, reference: &SegmentRef) -> Result<()> {
        let (store, recipients) = (&*self.shipper.store, &self.shipper.recipients);
        let mut bytes = match self.parts.get(reference) {
            Some(blocks) => part::made(&self.snapshot, blocks, recipients.salt(), reference)?,
            None => segment::open(&self.storage, reference)?,
        };
        if recipients.id().is_some() {
            bytes = segment::seal(reference, &bytes, recipients);
        }
        let dir = self.segments_dir();
        let name = join(&dir, &reference.name());
        put(store, &name, &bytes, || {
            match segment::check(store, &dir, reference) {
                // The name says what it holds: what is anything else is damaged.
                Err(error) if !error.is_unanswered() && !error.is_absent() => {
                    let place = store.place(&name);
                    Err(Error::new(&place, None, Reason::Checksum("object")))
                }
                checked => checked.map(|()| true),
            }
        })?;
        self.sent.put += bytes.len() as u64;
        Ok(())
    }

    /// The snapshot itself: its header, and what it refers to. In the place of one whose own parts
    /// are not all there, for these are.
    fn put_file(&mut self) -> Result<()> {
        let (shipper, target) = (&self.shipper, self.target());
        let found = self.found()?;
        let recipients = shipper.recipients.id();
        let is_ours =
            |entry: &SnapshotEntry| entry.recipients == recipients && entry.segments == self.named;
        if found.as_ref().is_some_and(is_ours) || self.is_whole(found.as_ref())? {
            return Ok(());
        }
        let bytes = self.file()?;
        let store = &*shipper.store;
        match found {
            Some(_) => {
                let replaced = store.replace(&target, &bytes);
                replaced.map_err(|e| Error::io(store.place(&target), e))?;
            }
            None => {
                put(store, &target, &bytes, || {
                    sealed::check_snapshot(store, &target)?;
                    Ok(self.found()?.is_some())
                })?;
            }
        }
        self.sent.put += bytes.len() as u64;
        Ok(())
    }

    fn file(&self) -> Result<Bytes> {
        let bytes = part::bare(&self.name, self.header(), &self.named)?;
        let Some(recipients) = self.shipper.recipients.id() else {
            return Ok(bytes);
        };
        let stored = self.shipper.recipients.seal(&bytes);
        let head = SealedHead {
            clear: Clear::Snapshot(Box::new(self.header().clone()), self.named.clone()),
            recipients,
            stored_bytes: stored.len() as u64,
            blake3: *blake3::hash(&stored).as_bytes(),
        };
        Ok([head.encode(), stored].concat().into())
    }
}

/// What of `named` is not in `dir`. What has the name and the length of one is taken for it (an
/// encrypted one has any length): `verify` reads it.
fn lacking(
    shipper: &Shipper,
    dir: &str,
    named: &[SegmentRef],
    recipients: Option<RecipientsId>,
) -> Result<Vec<SegmentRef>> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let there = catalogue::segments_in(&*shipper.store, dir)?;
    let there = there.into_iter().map(|one| (one.name, one.bytes));
    let there: BTreeMap<String, u64> = there.collect();
    let lacks = |reference: &&SegmentRef| {
        let found = there.get(&reference.name());
        found.is_none_or(|bytes| recipients.is_none() && *bytes != reference.bytes)
    };
    Ok(named.iter().filter(lacks).copied().collect())
}
