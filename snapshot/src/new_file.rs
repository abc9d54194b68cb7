//! Files that have their name only once they are whole and durable: those written here, and those
//! that come in pieces from a peer.

use crate::Result;
use crate::error::Error;
use crate::read::Reader;
use standfast_wal::ClusterId;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file is pushed to the disk whenever this much of it is new, so that the log's own syncs never
/// wait behind half a gigabyte of it.
const PACE_BYTES: u64 = 16 << 20;

/// A file that gets its name only when it is whole and durable. Dropping it removes it.
#[derive(Debug)]
pub struct NewFile {
    /// `None` once published.
    file: Option<File>,
    temporary: PathBuf,
    path: PathBuf,
    /// Written since the last push to the disk.
    fresh_bytes: u64,
}

/// What an unfinished file's name ends in.
pub const TEMPORARY: &str = ".tmp";

impl NewFile {
    /// Starts the file; whatever an earlier attempt left under the temporary name goes.
    pub fn create(path: &Path) -> io::Result<NewFile> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(TEMPORARY);
        let temporary = PathBuf::from(temporary);
        Ok(NewFile {
            file: Some(File::create(&temporary)?),
            temporary,
            path: path.to_path_buf(),
            fresh_bytes: 0,
        })
    }

    /// Where the bytes are until then.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("only `publish` takes it")
    }

    /// Makes the file durable under its name, replacing what had the name.
    pub fn publish(mut self) -> io::Result<()> {
        self.file().sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.file = None;
        // Durable here: the whole snapshot, under its name.
        sync_dir(&self.path)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file().write(bytes)?;
        self.fresh_bytes += written as u64;
        if self.fresh_bytes >= PACE_BYTES {
            self.fresh_bytes = 0;
            self.file().sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // A leftover is harmless: the next attempt and `remove_leftovers` clear it.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes the directory entry of `path` durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    File::open(dir)?.sync_all()
}

/// Removes what interrupted writers left in `dir`; says how many files. For the start of a node,
/// before anything writes there.
pub fn remove_leftovers(dir: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A snapshot that comes in pieces from a peer.
pub struct Incoming {
    file: NewFile,
    offset: u64,
}

impl Incoming {
    /// Starts the file that will be at `path` once `publish` returned.
    pub fn create(path: &Path) -> Result<Incoming> {
        let file = NewFile::create(path).map_err(|e| Error::io(path.display(), e))?;
        Ok(Incoming { file, offset: 0 })
    }

    /// Where the next piece belongs.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Adds the next piece.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let result = self.file.write_all(bytes);
        result.map_err(|e| Error::io(self.file.path.display(), e))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Proves every byte of the file, gives it its name and opens it.
    pub fn publish(self, cluster: ClusterId) -> Result<Reader<File>> {
        let path = self.file.path.clone();
        let reader = Reader::open(self.file.temporary())?;
        reader.check_cluster(cluster)?;
        reader.check_whole()?;
        reader.load(1, |_, _| Ok(()))?;
        self.file
            .publish()
            .map_err(|e| Error::io(path.display(), e))?;
        Reader::open(&path)
    }
}
