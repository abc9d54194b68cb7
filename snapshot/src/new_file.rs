//! Files that have their name only once they are whole and durable: those written here, and those
//! that come in pieces from a peer. On any storage, so that the simulator's disks take them, too.

use crate::Result;
use crate::error::Error;
use crate::read::{Reader, Stored};
use crate::segment::SegmentRef;
use standfast_wal::{ClusterId, Disk, File, Storage, durable};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// A file is pushed to the disk whenever this much of it is new, so that the log's own syncs never
/// wait behind half a gigabyte of it; and what is durable need not stay in memory, so that writing
/// takes no more of it than this much.
const PACE_BYTES: usize = 4 << 20;

/// A file that gets its name only when it is whole and durable. Dropping it removes it.
pub struct NewFile<S: Storage> {
    storage: S,
    /// `None` once published.
    file: Option<S::File>,
    temporary: String,
    name: String,
    /// Where the next bytes go.
    offset: u64,
    /// Written since the last push to the disk.
    fresh_bytes: usize,
}

/// What an unfinished file's name ends in.
pub const TEMPORARY: &str = ".tmp";

/// The directory that a path lies in, as a storage, and the name in it.
pub(crate) fn place_of(path: &Path) -> io::Result<(Disk, String)> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "no file name"))?;
    Ok((Disk::open(dir)?, name.to_string()))
}

impl NewFile<Disk> {
    /// As `create`, for a file of the file system.
    pub fn at(path: &Path) -> io::Result<NewFile<Disk>> {
        let (disk, name) = place_of(path)?;
        NewFile::create(disk, &name)
    }
}

impl<S: Storage> NewFile<S> {
    /// Starts the file; whatever an earlier attempt left under the temporary name goes.
    pub fn create(storage: S, name: &str) -> io::Result<NewFile<S>> {
        let temporary = durable::temporary(name);
        NewFile::create_as(storage, name, temporary)
    }

    /// As `create`, where somebody else may be writing a file of the same name: `writer` tells the
    /// two apart until one of them is published.
    pub fn create_apart(storage: S, name: &str, writer: &str) -> io::Result<NewFile<S>> {
        let temporary = durable::temporary(&format!("{name}.{writer}"));
        NewFile::create_as(storage, name, temporary)
    }

    fn create_as(storage: S, name: &str, temporary: String) -> io::Result<NewFile<S>> {
        remove_if_there(&storage, &temporary)?;
        Ok(NewFile {
            file: Some(storage.create(&temporary)?),
            storage,
            temporary,
            name: name.to_string(),
            offset: 0,
            fresh_bytes: 0,
        })
    }

    fn file(&self) -> &S::File {
        self.file.as_ref().expect("only `publish` takes it")
    }

    /// Makes the file durable under its name, replacing what had the name; gives it, to be read.
    pub fn publish(mut self) -> io::Result<S::File> {
        self.push()?;
        durable::publish(&self.storage, &self.temporary, &self.name)?;
        // Durable here: the whole snapshot, under its name.
        Ok(self.file.take().expect("only `publish` takes it"))
    }

    fn push(&mut self) -> io::Result<()> {
        // Durable here: all that was written so far, though nothing refers to it yet.
        self.file().sync()?;
        let fresh = self.fresh_bytes as u64;
        self.file().release(self.offset - fresh, fresh);
        self.fresh_bytes = 0;
        Ok(())
    }
}

impl<S: Storage> Write for NewFile<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = &bytes[..bytes.len().min(PACE_BYTES - self.fresh_bytes)];
        self.file().write_at(self.offset, some)?;
        self.offset += some.len() as u64;
        self.fresh_bytes += some.len();
        if self.fresh_bytes == PACE_BYTES {
            self.push()?;
        }
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Storage> Drop for NewFile<S> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // A leftover is harmless: the next attempt and `remove_leftovers` clear it.
            let _ = self.storage.remove(&self.temporary);
        }
    }
}

fn remove_if_there<S: Storage>(storage: &S, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what interrupted writers left; says how many files. For the start of a node, before
/// anything writes there.
pub fn remove_leftovers<S: Storage>(storage: &S) -> io::Result<usize> {
    let mut removed = 0;
    for name in storage.list("")? {
        if name.ends_with(TEMPORARY) {
            storage.remove(&name)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A snapshot that comes in pieces from a peer.
pub struct Incoming<S: Storage> {
    file: NewFile<S>,
}

impl<S: Storage> Incoming<S> {
    /// Starts the file that will have this name once `publish` returned.
    pub fn create(storage: S, name: &str) -> Result<Incoming<S>> {
        let file = NewFile::create(storage, name).map_err(|e| Error::io(name, e))?;
        Ok(Incoming { file })
    }

    /// Where the next piece belongs.
    pub fn offset(&self) -> u64 {
        self.file.offset
    }

    /// Adds the next piece.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let result = self.file.write_all(bytes);
        result.map_err(|e| Error::io(&self.file.name, e))
    }

    /// Proves every byte of the file, which has no name yet; says which segments it refers to.
    pub fn prove(&self, cluster: ClusterId) -> Result<Vec<SegmentRef>> {
        let reader = Reader::open_in(&self.file.storage, &self.file.temporary)?;
        reader.check_cluster(cluster)?;
        reader.check_whole()?;
        reader.load(1, |_, _| Ok(()))?;
        reader.segments()
    }

    /// Proves every byte of the file, gives it its name and opens it.
    pub fn publish(self, cluster: ClusterId) -> Result<Reader<Stored<S::File>>> {
        let (storage, name) = (self.file.storage.clone(), self.file.name.clone());
        self.prove(cluster)?;
        self.file.publish().map_err(|e| Error::io(&name, e))?;
        Reader::open_in(&storage, &name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_wal::SimDisk;

    #[test]
    fn two_who_write_a_file_of_one_name_do_not_take_each_others_bytes() {
        let disk = SimDisk::new(1);
        let mut own = NewFile::create(disk.clone(), "segment").expect("create");
        own.write_all(b"whole").expect("write");
        let apart = NewFile::create_apart(disk.clone(), "segment", "incoming");
        let mut apart = apart.expect("create");
        apart.write_all(b"half").expect("write");
        own.publish().expect("publish");
        drop(apart);
        let disk = disk.crash();
        assert_eq!(disk.list("").expect("list"), ["segment"]);
        let file = disk.open("segment").expect("it is durable");
        assert_eq!(&file.map(5).expect("map")[..], b"whole");
    }
}
