//! A snapshot on its way into the archive, with those of its segments and parts that are not there.
//!
//! One object a step, so that whoever takes the steps may be stopped between any two, and others
//! may work in the same archive meanwhile. The snapshot comes after all that it refers to.

use super::marks::Mark;
use super::{Shipper, put};
use crate::catalogue;
use crate::error::{Error, Reason};
use crate::format::Header;
use crate::part::{self, Blocks};
use crate::read::{Reader, Stored};
use crate::sealed::{self, Clear, SealedHead};
use crate::segment::{self, SegmentRef};
use crate::store::join;
use crate::{Result, archive::Put};
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
        if let Some(reference) = self.missing.pop() {
            self.put_named(&reference)?;
            return Ok(false);
        }
        match self.done {
            Done::Nothing => {
                self.mark = self.put_mark()?;
                self.done = Done::Marked;
            }
            Done::Marked => {
                self.missing = self.find_missing()?;
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

    /// What the archive lacks of all that is referred to. What has the name and the length of one
    /// is taken for it (an encrypted one has any length), unless there is reason to be wary:
    /// `verify` reads it.
    fn find_missing(&self) -> Result<Vec<SegmentRef>> {
        if self.named.is_empty() {
            return Ok(Vec::new());
        }
        let is_plain = self.shipper.recipients.id().is_none();
        let there = catalogue::segments_in(&*self.shipper.store, &self.segments_dir())?;
        let there = there.into_iter().map(|one| (one.name, one.bytes));
        let there: BTreeMap<String, u64> = there.collect();
        let lacks = |reference: &&SegmentRef| {
            let found = there.get(&reference.name());
            found.is_none_or(|bytes| is_plain && *bytes != reference.bytes)
        };
        let mut missing = Vec::new();
        for reference in self.named.iter().rev() {
            if lacks(&reference) || self.is_wary && self.is_damaged(reference)? {
                missing.push(*reference);
            }
        }
        Ok(missing)
    }

    fn is_damaged(&self, reference: &SegmentRef) -> Result<bool> {
        match segment::check(&*self.shipper.store, &self.segments_dir(), reference) {
            Ok(()) => Ok(false),
            Err(error) if error.is_damage() || error.is_absent() => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn put_named(&mut self, reference: &SegmentRef) -> Result<()> {
        let (store, recipients) = (&*self.shipper.store, &self.shipper.recipients);
        let mut bytes = match self.parts.get(reference) {
            Some(blocks) => part::join(&self.snapshot, blocks, recipients.salt())?,
            None => segment::open(&self.storage, reference)?,
        };
        if recipients.id().is_some() {
            bytes = segment::seal(reference, &bytes, recipients);
        }
        let dir = self.segments_dir();
        put(store, &join(&dir, &reference.name()), &bytes, || {
            segment::check(store, &dir, reference).map(|()| true)
        })?;
        self.sent.put += bytes.len() as u64;
        Ok(())
    }

    /// The snapshot itself: its header, and what it refers to.
    fn put_file(&mut self) -> Result<()> {
        let (shipper, header) = (&self.shipper, self.header());
        let target = join(&shipper.dir, &catalogue::snapshot_name(self.lsn()));
        let is_same = || {
            let (there, sealed_to) = sealed::check_snapshot(&*shipper.store, &target)?;
            let both_plain = sealed_to.is_none() && shipper.recipients.id().is_none();
            let facts = |one: &Header| (one.cluster, one.history, one.link);
            let is_same_state = !both_plain || there.digest == header.digest;
            Ok(facts(&there) == facts(header) && is_same_state)
        };
        // Nothing is asked to take a snapshot only to say that it has it.
        if catalogue::is_there(&*shipper.store, &target)? && matches!(is_same(), Ok(true)) {
            return Ok(());
        }
        let mut bytes = part::bare(&self.name, header, &self.named)?;
        if let Some(recipients) = shipper.recipients.id() {
            let stored = shipper.recipients.seal(&bytes);
            let head = SealedHead {
                clear: Clear::Snapshot(Box::new(header.clone()), self.named.clone()),
                recipients,
                stored_bytes: stored.len() as u64,
                blake3: *blake3::hash(&stored).as_bytes(),
            };
            bytes = [head.encode(), stored].concat().into();
        }
        if put(&*shipper.store, &target, &bytes, is_same)? != Put::Present {
            self.sent.put += bytes.len() as u64;
        }
        Ok(())
    }
}
