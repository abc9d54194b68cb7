//! All file access of the log: a small trait, the real disk and a simulated one.
//!
//! Names are relative to one directory that the storage owns, with at most one `/` in them
//! (`divergent/…`). Nothing is durable until `File::sync` (contents, length) or
//! `Storage::sync_dir` (names) returned; a storage that failed a write or a sync stays failed.

pub mod disk;
mod map;
pub mod sim;

#[cfg(test)]
mod conformance;

use bytes::Bytes;
use std::io::{self, IoSlice};

/// The smallest unit that a disk writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// A directory of files. Clones are handles to the same directory.
pub trait Storage: Clone + Send + Sync + 'static {
    type File: File;
    /// Held while the directory is owned; dropping it (or dying) gives the directory up.
    type Lock: Send + Sync + 'static;

    /// Makes an empty file, and the directory before the `/` if there is one.
    /// `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// The names of the files directly in `directory` (`""`: the storage's own), without the
    /// directory, sorted. A directory that does not exist is empty.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what was there, in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; `NotFound` if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals in `directory` durable.
    fn sync_dir(&self, directory: &str) -> io::Result<()>;

    /// Bytes that can still be taken.
    fn free_space(&self) -> io::Result<u64>;

    /// Takes the directory for this process alone; `WouldBlock` if another has it.
    fn lock(&self) -> io::Result<Self::Lock>;
}

/// An open file. Reads and writes name their place, so that readers need no lock.
#[expect(
    clippy::len_without_is_empty,
    reason = "a file's length is asked of the system"
)]
pub trait File: Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`; `UnexpectedEof` where the file ends before that.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all parts one behind the other from `offset` on, growing the file if need be.
    /// The slices are used up.
    fn write_vectored_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Writes zeros over `len` bytes from `offset`, growing the file and taking the space for
    /// good. `StorageFull` harms nothing and may be tried again.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Grows an empty file to `len` bytes that read as zeros and takes the space for good, without
    /// writing the zeros where the storage can do without. `StorageFull` as for `zero`.
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.zero(0, len)
    }

    /// Makes everything written to this file durable. An error is final: what was not durable
    /// may be lost even if a later call succeeds, so there is none.
    fn sync(&self) -> io::Result<()>;

    /// These bytes are durable and will not be read soon: the system need not keep them in memory.
    fn release(&self, _offset: u64, _len: u64) {}

    /// The first `len` bytes of a file that nobody will change again, without copying them
    /// where the storage can.
    fn map(&self, len: u64) -> io::Result<Bytes>;

    /// As `map`, of what this program has just written and made durable: the disk is asked for it
    /// when it is looked at.
    fn map_unread(&self, len: u64) -> io::Result<Bytes> {
        self.map(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_vectored_at(offset, &mut [IoSlice::new(bytes)])
    }
}

/// The whole of a file.
pub(crate) fn read_all<S: Storage>(storage: &S, name: &str) -> io::Result<Vec<u8>> {
    let file = storage.open(name)?;
    let len = usize::try_from(file.len()?).expect("a file fits the address space");
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}
