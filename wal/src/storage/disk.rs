//! Real files in one directory; after the first failed write or sync nothing is written any more.
#![expect(
    clippy::disallowed_types,
    reason = "the one place that opens the log's files"
)]

use crate::error::is_full;
use crate::storage::{File, SECTOR_BYTES, Storage};
use bytes::Bytes;
use rustix::io::Errno;
use std::fs;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file whose lock says that the directory is taken.
const LOCK_NAME: &str = "LOCK";
/// How much is zeroed between two syncs, so that filling never leaves a long queue of dirty
/// pages in front of the log's own fdatasync.
const ZERO_STEP_BYTES: u64 = 1 << 20;
/// What one pwritev takes at most (IOV_MAX).
const PARTS_MAX: usize = 1024;

static ZEROS: [u8; ZERO_STEP_BYTES as usize] = [0; ZERO_STEP_BYTES as usize];
const _: () = assert!(ZERO_STEP_BYTES.is_multiple_of(SECTOR_BYTES));

/// A directory of the file system.
#[derive(Clone)]
pub struct Disk {
    root: Arc<PathBuf>,
    latch: Arc<Latch>,
}

/// Set by the first write or sync that failed: after it nobody knows what is on disk, so nothing
/// more is written by this process.
#[derive(Default)]
struct Latch {
    failed: AtomicBool,
}

impl Latch {
    fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "an earlier write to this directory failed; nothing more is written to it",
            ));
        }
        Ok(())
    }

    fn guard<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }
}

/// Holds the lock file locked while it lives.
pub struct DiskLock {
    _file: fs::File,
}

/// One file of the directory.
pub struct DiskFile {
    file: fs::File,
    latch: Arc<Latch>,
}

impl Disk {
    /// The directory is made if it is missing, its own entry durably so.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Disk> {
        let root = root.into();
        make_directory(&root)?;
        Ok(Disk {
            root: Arc::new(root),
            latch: Arc::default(),
        })
    }

    /// As [`File::map`], of a file in a directory that nothing is written to.
    pub fn map_at(path: &Path, len: u64) -> io::Result<Bytes> {
        super::map::map(&fs::File::open(path)?, len)
    }

    /// As [`File::map`], of a file that nobody else has.
    pub fn map_file(file: &fs::File, len: u64) -> io::Result<Bytes> {
        super::map::map(file, len)
    }

    /// How much of the disk that holds `dir` is free.
    pub fn free_percent(dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(100) / stat.f_blocks.max(1))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        assert!(
            !name.is_empty() && !name.starts_with('/') && !name.split('/').any(|part| part == ".."),
            "names stay inside the directory: {name:?}"
        );
        self.root.join(name)
    }

    fn wrap(&self, file: fs::File) -> DiskFile {
        DiskFile {
            file,
            latch: Arc::clone(&self.latch),
        }
    }
}

impl Storage for Disk {
    type File = DiskFile;
    type Lock = DiskLock;

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        self.latch.check()?;
        let path = self.path(name);
        if let Some(parent) = path
            .parent()
            .filter(|parent| *parent != self.root.as_path())
        {
            make_directory(parent)?;
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        Ok(self.wrap(file))
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(name))?;
        Ok(self.wrap(file))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(directory)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.latch.check()?;
        let to = self.path(to);
        if let Some(parent) = to.parent().filter(|parent| *parent != self.root.as_path()) {
            make_directory(parent)?;
        }
        fs::rename(self.path(from), to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.latch.check()?;
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self, directory: &str) -> io::Result<()> {
        self.latch.check()?;
        let path = self.root.join(directory);
        self.latch.guard(fs::File::open(path)?.sync_all())
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(self.root.as_path())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self) -> io::Result<DiskLock> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path(LOCK_NAME))?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Takes space that reads as zeros; false if the file system cannot.
fn take_space(file: &std::fs::File, offset: u64, len: u64) -> io::Result<bool> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, len) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_vectored_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.latch.check()?;
        self.latch.guard(write_all_at(&self.file, offset, parts))
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.latch.check()?;
        // Taking the space first makes a full disk known before anything is written; where the
        // file system cannot, the writes below find out instead.
        take_space(&self.file, offset, len)?;
        let mut at = offset;
        while at < offset + len {
            let step = ZERO_STEP_BYTES.min(offset + len - at);
            let zeros = &ZEROS[..usize::try_from(step).expect("at most 1 MiB")];
            match self.file.write_all_at(zeros, at) {
                Err(error) if is_full(&error) => return Err(error),
                other => self.latch.guard(other)?,
            }
            at += step;
            self.latch.guard(self.file.sync_data())?;
        }
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.latch.check()?;
        if take_space(&self.file, 0, len)? {
            return Ok(());
        }
        self.zero(0, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.latch.check()?;
        self.latch.guard(self.file.sync_data())
    }

    fn release(&self, offset: u64, len: u64) {
        let len = std::num::NonZeroU64::new(len);
        // Only advice: what the system makes of it changes no byte.
        let _ = rustix::fs::fadvise(&self.file, offset, len, rustix::fs::Advice::DontNeed);
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        super::map::map(&self.file, len)
    }

    fn map_unread(&self, len: u64) -> io::Result<Bytes> {
        super::map::map_unread(&self.file, len)
    }
}

fn write_all_at(file: &fs::File, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut parts = parts;
    let mut at = offset;
    IoSlice::advance_slices(&mut parts, 0); // drops empty slices in front
    while !parts.is_empty() {
        let batch = &parts[..parts.len().min(PARTS_MAX)];
        let written = match rustix::io::pwritev(file, batch, at) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        at += written as u64;
        IoSlice::advance_slices(&mut parts, written);
    }
    Ok(())
}

/// Makes a directory and its parents, with the syncs that make their entries durable.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other?,
    }
    // Durable here: the directory's own entry.
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
