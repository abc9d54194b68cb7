//! A snapshot on its way into the archive, with those of its segments that are not there.
//!
//! One object a step, so that whoever takes the steps may be stopped between any two, and others
//! may work in the same archive meanwhile. The snapshot comes after its segments.

use super::marks::Mark;
use super::{Shipper, put};
use crate::catalogue;
use crate::error::{Error, Reason};
use crate::format::Header;
use crate::new_file::TEMPORARY;
use crate::read::Reader;
use crate::seal::{Recipients, RecipientsId};
use crate::sealed::{self, Clear, SealedHead};
use crate::segment::{self, SegmentRef};
use crate::store::join;
use crate::{Result, archive::Put};
use bytes::Bytes;
use standfast_wal::{File, Lsn, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot file of `storage`, and the segments beside it, on their way.
pub struct Upload<S: Storage> {
    shipper: Shipper,
    storage: S,
    name: String,
    header: Header,
    named: Vec<SegmentRef>,
    /// Of those named: what was not there when it was looked.
    missing: Vec<SegmentRef>,
    /// Keeps those that expire backups from removing its segments.
    mark: Option<Mark>,
    done: Done,
    bytes: u64,
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
        let header = reader.header().clone();
        if header.history != card.history {
            let expected = Box::new(card.history);
            let found = Box::new(header.history);
            let reason = Reason::History { expected, found };
            return Err(Error::new(reader.file(), None, reason));
        }
        let named = reader.segments()?;
        Ok(Upload {
            shipper: shipper.clone(),
            storage,
            name: name.to_string(),
            header,
            named,
            missing: Vec::new(),
            mark: None,
            done: Done::Nothing,
            bytes: 0,
        })
    }

    pub fn lsn(&self) -> Lsn {
        self.header.link.position.lsn
    }

    /// Bytes that were put so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
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
            self.put_segment(&reference)?;
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

    /// Marks the segments of the snapshot as needed, and looks whether any is being removed. After
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

    /// The segments that the archive lacks. What has the name and the length of one is taken for it
    /// (an encrypted one has any length): `verify` reads it.
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
        let mut missing: Vec<SegmentRef> = self.named.iter().filter(lacks).copied().collect();
        missing.reverse();
        Ok(missing)
    }

    fn put_segment(&mut self, reference: &SegmentRef) -> Result<()> {
        let (store, recipients) = (&*self.shipper.store, &self.shipper.recipients);
        let mut bytes = segment::open(&self.storage, reference)?;
        if recipients.id().is_some() {
            bytes = segment::seal(reference, &bytes, recipients);
        }
        let dir = self.segments_dir();
        put(store, &join(&dir, &reference.name()), &bytes, || {
            segment::check(store, &dir, reference).map(|()| true)
        })?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The snapshot itself, having proved it.
    fn put_file(&mut self) -> Result<()> {
        let (shipper, header) = (&self.shipper, &self.header);
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
        let bytes = self.map().map_err(|e| Error::io(&self.name, e))?;
        let proved = Reader::new(bytes.clone(), &self.name)?;
        proved.check_whole()?;
        let bytes = match shipper.recipients.id() {
            None => bytes,
            Some(id) => self.seal(&proved, &bytes, &shipper.recipients, id)?,
        };
        if put(&*shipper.store, &target, &bytes, is_same)? != Put::Present {
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn map(&self) -> io::Result<Bytes> {
        let file = self.storage.open(&self.name)?;
        file.map(file.len()?)
    }

    /// Seals the snapshot into a file beside it that is gone when its bytes are: it may be larger
    /// than the memory.
    fn seal(
        &self,
        snapshot: &Reader<Bytes>,
        bytes: &Bytes,
        recipients: &Recipients,
        id: RecipientsId,
    ) -> Result<Bytes> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.sealed-{serial}{TEMPORARY}", self.name);
        let mut head = SealedHead {
            clear: Clear::Snapshot(Box::new(snapshot.header().clone()), snapshot.segments()?),
            recipients: id,
            stored_bytes: 0,
            blake3: [0; 32],
        };
        let sealed = (|| {
            let file = self.storage.create(&name)?;
            let at = head.encode().len() as u64;
            let out = Hashing {
                file: &file,
                at,
                hasher: blake3::Hasher::new(),
            };
            let mut out = BufWriter::with_capacity(1 << 20, out);
            recipients.seal_into(bytes, &mut out)?;
            let out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            head.stored_bytes = out.at - at;
            head.blake3 = *out.hasher.finalize().as_bytes();
            file.write_at(0, &head.encode())?;
            file.map(at + head.stored_bytes)
        })();
        // Mapped, its bytes stay; a leftover goes at the node's next start.
        let removed = self.storage.remove(&name);
        let fail = |e| Error::io(&name, e);
        let sealed = sealed.map_err(fail)?;
        removed.map_err(fail)?;
        Ok(sealed)
    }
}

struct Hashing<'a, F> {
    file: &'a F,
    at: u64,
    hasher: blake3::Hasher,
}

impl<F: File> Write for Hashing<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.at, bytes)?;
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
