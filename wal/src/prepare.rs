//! Prepares the next segment: space that is taken, reads as zeros and is synced before its turn.
//!
//! An append into space that was written with zeros changes no metadata, so its fdatasync is one
//! write of the disk's. Where appends are large, that saves nothing worth a second write of every
//! byte: the space is only reserved then. Either way an append cannot find the disk full.

use crate::durable;
use crate::error::{Error, is_full};
use crate::log::{Log, Space};
use crate::scan::used_end;
use crate::segment::STAMP_BYTES;
use crate::storage::{File, Storage};
use std::io::{self, ErrorKind};

/// The name of the prepared file. It has this name only once its space and zeros are durable.
pub const PREPARED: &str = "prepared";

/// Bytes of a write from which on throughput counts, not latency: one more metadata change or call
/// to the system is not felt.
pub(crate) const LARGE_WRITE_BYTES: u64 = 256 * 1024;

/// How the log was written lately.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    count: u64,
    bytes: u64,
}

impl Writes {
    pub(crate) fn note(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    fn are_large(&self) -> bool {
        self.bytes > self.count * LARGE_WRITE_BYTES
    }
}

/// Space for one segment.
pub struct Prepared<S: Storage> {
    pub(crate) file: S::File,
    pub(crate) bytes: u64,
}

/// The work of preparing a segment, to be done on any thread.
pub struct Preparation<S: Storage> {
    storage: S,
    bytes: u64,
    /// What must stay free besides: the small files of the node are written too.
    margin_bytes: u64,
    /// Reserve the space instead of writing zeros.
    reserve: bool,
}

impl<S: Storage> Prepared<S> {
    /// Bytes for stamps and records.
    pub(crate) fn room(&self) -> u64 {
        self.bytes - crate::segment::HEADER_AREA - STAMP_BYTES as u64
    }
}

impl<S: Storage> Preparation<S> {
    pub(crate) fn new(storage: S, bytes: u64, margin_bytes: u64) -> Preparation<S> {
        Preparation {
            storage,
            bytes,
            margin_bytes,
            reserve: false,
        }
    }

    /// `None` if the disk is too full; nothing is left behind then.
    pub fn run(self) -> Result<Option<Prepared<S>>, Error> {
        let temporary = durable::temporary(PREPARED);
        match self.fill(&temporary) {
            Ok(file) => Ok(Some(Prepared {
                file,
                bytes: self.bytes,
            })),
            Err(error) if is_full(&error) => {
                durable::remove(&self.storage, &temporary)
                    .map_err(Error::io(&temporary, "give space back"))?;
                Ok(None)
            }
            Err(error) => Err(Error::io(&temporary, "prepare a segment")(error)),
        }
    }

    fn fill(&self, temporary: &str) -> io::Result<S::File> {
        // What an earlier attempt or an earlier life left counts as free.
        durable::remove(&self.storage, temporary)?;
        durable::remove(&self.storage, PREPARED)?;
        if self.storage.free_space()? < self.bytes.saturating_add(self.margin_bytes) {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = self.storage.create(temporary)?;
        if self.reserve {
            file.reserve(self.bytes)?;
        } else {
            file.zero(0, self.bytes)?;
        }
        file.sync()?;
        // Durable here: the space, which reads as zeros, under the name that says so.
        durable::publish(&self.storage, temporary, PREPARED)?;
        Ok(file)
    }
}

impl<S: Storage> Log<S> {
    /// Prepares the next segment in the foreground if it is missing and nobody is at it.
    pub fn prepare(&mut self) -> Result<Space, Error> {
        if let Some(preparation) = self.preparation() {
            let prepared = preparation.run();
            self.adopt(prepared)?;
        }
        Ok(self.space())
    }

    /// The preparation of the next segment, if it is missing and nobody is at it. Its result
    /// must be given to `adopt`.
    pub fn preparation(&mut self) -> Option<Preparation<S>> {
        if self.failed || self.preparing || self.prepared.is_some() {
            return None;
        }
        self.preparing = true;
        let lately = std::mem::take(&mut self.writes);
        Some(Preparation {
            reserve: lately.are_large(),
            ..self.preparation_of(self.options.segment_bytes)
        })
    }

    /// Takes over what a `Preparation` made.
    pub fn adopt(&mut self, result: Result<Option<Prepared<S>>, Error>) -> Result<(), Error> {
        self.preparing = false;
        self.prepared = self.latch(result)?;
        self.disk_full = self.prepared.is_none();
        Ok(())
    }

    /// Takes over what an earlier life prepared, if it is whole and still all zeros.
    pub(crate) fn find_prepared(&mut self) -> Result<(), Error> {
        let found = match self.storage.open(PREPARED) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.and_then(|file| {
                let bytes = file.len()?;
                let mut contents = vec![0; usize::try_from(bytes).unwrap_or(0)];
                file.read_at(0, &mut contents)?;
                let fits = bytes == self.options.segment_bytes && used_end(&contents, 0) == 0;
                Ok(fits.then_some(Prepared { file, bytes }))
            }),
        };
        // What cannot be read is made anew.
        self.prepared = found.unwrap_or_default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_only_reserved_while_appends_are_large() {
        let mut writes = Writes::default();
        assert!(!writes.are_large(), "nothing is known yet");
        writes.note(LARGE_WRITE_BYTES);
        assert!(!writes.are_large());
        writes.note(LARGE_WRITE_BYTES + 1);
        assert!(writes.are_large());
        writes.note(4096);
        assert!(!writes.are_large(), "the mean counts");
    }
}
