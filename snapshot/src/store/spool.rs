//! What is fetched piece by piece: in memory while it is short, then in a file that has no name, so
//! that neither a long object fills the memory nor a crash leaves anything behind.

use bytes::Bytes;
use standfast_wal::Disk;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Longer objects go through a file.
const MEMORY_BYTES: usize = 16 << 20;

pub(super) struct Spool<'a> {
    dir: &'a Path,
    memory: Vec<u8>,
    file: Option<(File, u64)>,
}

impl Spool<'_> {
    /// Its file, if there will be one, lies in `dir`.
    pub(super) fn new(dir: &Path) -> Spool<'_> {
        Spool {
            dir,
            memory: Vec::new(),
            file: None,
        }
    }

    pub(super) fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.file.is_none() && self.memory.len() + piece.len() <= MEMORY_BYTES {
            self.memory.extend_from_slice(piece);
            return Ok(());
        }
        let in_dir = |error: io::Error| {
            let dir = self.dir.display();
            io::Error::new(
                error.kind(),
                format!("no room to fetch it to {dir}: {error}"),
            )
        };
        if self.file.is_none() {
            let mut file = tempfile::tempfile_in(self.dir).map_err(in_dir)?;
            file.write_all(&self.memory).map_err(in_dir)?;
            let bytes = std::mem::take(&mut self.memory).len();
            self.file = Some((file, bytes as u64));
        }
        let (file, bytes) = self.file.as_mut().expect("it was made");
        file.write_all(piece).map_err(in_dir)?;
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

    #[test]
    fn what_goes_in_comes_out_by_way_of_memory_or_of_a_file_without_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<u8> = (0..MEMORY_BYTES + 100_000).map(|n| (n / 7) as u8).collect();
        for length in [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1, all.len()] {
            let mut spool = Spool::new(dir.path());
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
    fn where_no_file_can_be_made_the_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let mut spool = Spool::new(&gone);
        let error = spool.take(&vec![0; MEMORY_BYTES + 1]).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
