//! What is fetched piece by piece: in memory while it is short, then in a file that has no name, so
//! that neither a long object fills the memory nor a crash leaves anything behind.

use crate::archive::LOG_CLOSE_BYTES;
use bytes::Bytes;
use standfast_wal::Disk;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

/// Longer objects go through a file: snapshots and large segments. A piece of log never does, so
/// that a disk with little room keeps nobody from reading back what was archived.
const MEMORY_BYTES: usize = 16 << 20;
const _: () = assert!(MEMORY_BYTES >= LOG_CLOSE_BYTES * 2);

/// Where such files lie.
#[derive(Clone, Debug)]
pub struct Scratch {
    pub dir: PathBuf,
    /// So much of its disk stays free.
    pub free_percent: u64,
}

impl Scratch {
    /// That of a command: nobody else writes there what must not fail.
    pub fn of_command() -> Scratch {
        Scratch {
            dir: std::env::temp_dir(),
            free_percent: 0,
        }
    }
}

pub(super) struct Spool<'a> {
    scratch: &'a Scratch,
    memory: Vec<u8>,
    file: Option<(File, u64)>,
}

impl Spool<'_> {
    pub(super) fn new(scratch: &Scratch) -> Spool<'_> {
        Spool {
            scratch,
            memory: Vec::new(),
            file: None,
        }
    }

    pub(super) fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.file.is_none() && self.memory.len() + piece.len() <= MEMORY_BYTES {
            self.memory.extend_from_slice(piece);
            return Ok(());
        }
        self.write(piece).map_err(|error| {
            // Of its own kind it could be taken for an answer of the store: that nothing is there.
            let dir = self.scratch.dir.display();
            io::Error::other(format!("no room to fetch it to {dir}: {error}"))
        })
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let Scratch { dir, free_percent } = self.scratch;
        if Disk::free_percent(dir)? < *free_percent {
            return Err(ErrorKind::StorageFull.into());
        }
        if self.file.is_none() {
            let mut file = tempfile::tempfile_in(dir)?;
            file.write_all(&self.memory)?;
            let bytes = std::mem::take(&mut self.memory).len();
            self.file = Some((file, bytes as u64));
        }
        let (file, bytes) = self.file.as_mut().expect("it was made");
        file.write_all(piece)?;
        *bytes += piece.len() as u64;
        Ok(())
    }

    pub(super) fn into_bytes(self) -> io::Result<Bytes> {
        match self.file {
            None => Ok(self.memory.into()),
            Some((file, bytes)) => Disk::map_file(&file, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(dir: &std::path::Path) -> Scratch {
        Scratch {
            dir: dir.to_path_buf(),
            free_percent: 0,
        }
    }

    #[test]
    fn what_goes_in_comes_out_by_way_of_memory_or_of_a_file_without_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = scratch(dir.path());
        let all: Vec<u8> = (0..MEMORY_BYTES + 100_000).map(|n| (n / 7) as u8).collect();
        for length in [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1, all.len()] {
            let mut spool = Spool::new(&scratch);
            for piece in all[..length].chunks(3 << 20) {
                spool.take(piece).unwrap();
            }
            assert_eq!(spool.file.is_some(), length > MEMORY_BYTES, "{length}");
            let bytes = spool.into_bytes().unwrap();
            assert_eq!(bytes, all[..length]);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn where_there_is_no_room_the_directory_is_named_and_the_object_is_not_called_absent() {
        let dir = tempfile::tempdir().unwrap();
        let gone = scratch(&dir.path().join("gone"));
        let full = Scratch {
            free_percent: 101,
            ..scratch(dir.path())
        };
        for scratch in [gone, full] {
            let mut spool = Spool::new(&scratch);
            let error = spool.take(&vec![0; MEMORY_BYTES + 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Other);
            let dir = scratch.dir.display().to_string();
            assert!(error.to_string().contains(&dir), "{error}");
        }
    }
}
