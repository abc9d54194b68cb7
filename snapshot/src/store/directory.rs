//! A store that is a directory of the file system.
//!
//! An object is written whole under a temporary name, fsynced, and then linked to its name if
//! nobody has the name.

use super::{Listed, Listing, Store};
use crate::new_file::TEMPORARY;
use bytes::Bytes;
use standfast_wal::Disk;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer objects are mapped, not read: a restore need not hold them twice.
const MAPPED_FROM: u64 = 1 << 20;

/// A temporary file that nobody has written to for so long was left by a put that died.
const LEFT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A directory; it is made when the first object is put.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(root: &Path) -> Directory {
        Directory(root.to_path_buf())
    }

    fn path(&self, name: &str) -> PathBuf {
        let inside = !name.starts_with('/') && name.split('/').all(|part| part != "..");
        assert!(inside, "names stay inside the directory: {name:?}");
        if name.is_empty() {
            return self.0.clone();
        }
        self.0.join(name)
    }

    /// Writes the object under a temporary name beside its own, durably.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<(Temporary, PathBuf)> {
        let target = self.path(name);
        create_dirs(target.parent().unwrap_or(&self.0))?;
        let (temporary, mut file) = temporary_for(&target)?;
        file.write_all(bytes)?;
        // Durable here: the object's bytes, before it gets its name.
        file.sync_all()?;
        Ok((temporary, target))
    }
}

impl Store for Directory {
    fn place(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn put_if_absent(&self, name: &str, bytes: &Bytes) -> io::Result<bool> {
        if self.path(name).exists() {
            return Ok(false);
        }
        let (temporary, target) = self.write(name, bytes)?;
        match fs::hard_link(&temporary.0, &target) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            linked => linked?,
        }
        // Durable here: the object, whole, under its name.
        sync_parent(&target)?;
        Ok(true)
    }

    fn replace(&self, name: &str, bytes: &Bytes) -> io::Result<()> {
        let (temporary, target) = self.write(name, bytes)?;
        fs::rename(&temporary.0, &target)?;
        // Durable here: the new bytes under the name.
        sync_parent(&target)
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        let path = self.path(name);
        let length = fs::metadata(&path)?.len();
        if length >= MAPPED_FROM {
            return Disk::map_at(&path, length);
        }
        Ok(fs::read(path)?.into())
    }

    fn get_range(&self, name: &str, offset: u64, len: u64) -> io::Result<Bytes> {
        let mut file = File::open(self.path(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.len())
    }

    fn list(&self, name: &str) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let entries = match fs::read_dir(self.path(name)) {
            // As in an object store, nothing is there before the first object.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let found = match entry.metadata() {
                // Removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found?,
            };
            if found.is_dir() {
                listing.below.push(name);
            } else if !name.ends_with(TEMPORARY) {
                let modified = found.modified()?.duration_since(UNIX_EPOCH);
                let nanos = modified.unwrap_or_default().as_nanos();
                listing.objects.push(Listed {
                    name,
                    bytes: found.len(),
                    modified_ns: u64::try_from(nanos).unwrap_or(u64::MAX),
                });
            }
        }
        listing.below.sort_unstable();
        listing.objects.sort_unstable();
        Ok(listing)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        fs::remove_file(&path)?;
        // Durable here: the object is gone, before another one goes that it would need.
        sync_parent(&path)
    }

    fn sweep(&self, name: &str) -> io::Result<()> {
        let entries = match fs::read_dir(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let now = SystemTime::now();
        for entry in entries {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().ends_with(TEMPORARY) {
                continue;
            }
            // Whoever still writes it changes its time; whoever has slept for so long before it
            // linked it fails, and puts it again.
            let modified = entry.metadata().and_then(|found| found.modified());
            let age = modified.map(|at| now.duration_since(at).unwrap_or_default());
            if age.is_ok_and(|age| age > LEFT_AFTER) {
                // Another one may have removed it.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn readers(&self) -> usize {
        1
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    // Durable here: the names in this directory.
    File::open(dir)?.sync_all()
}

/// Creates the directories down to `dir`, durably.
fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() || dir == Path::new("") {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // Durable here: the directory's entry in its parent.
        _ => sync_parent(dir),
    }
}

/// Removes the temporary file when it goes.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Either linked to its name by now, or of no use.
        let _ = fs::remove_file(&self.0);
    }
}

/// A new file beside `target` whose name no other process has taken.
fn temporary_for(target: &Path) -> io::Result<(Temporary, File)> {
    let mut n = 0;
    loop {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".{}-{n}{TEMPORARY}", std::process::id()));
        let path = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((Temporary(path), file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(error),
        }
    }
}
