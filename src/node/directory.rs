//! A node's data directory: where its meta file, its log and its snapshots lie, on real disks or on
//! simulated ones.

pub mod sim;

use standfast_wal::{Disk, Storage};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The three storages of a node. Whoever opens, writes and mends files asks for them here, so that
/// the simulator runs the same code on disks that tear and rot.
pub trait Directory: Clone + Send + 'static {
    type Storage: Storage;

    /// What people call it.
    fn name(&self) -> String;

    /// The meta file; its lock is the directory's.
    fn root(&self) -> io::Result<Self::Storage>;

    /// The log's segments.
    fn wal(&self) -> io::Result<Self::Storage>;

    /// The snapshots. Each call gives a handle of its own: what failed to write one snapshot says
    /// nothing about the next.
    fn snapshots(&self) -> io::Result<Self::Storage>;

    /// Moves everything of this life aside, the meta file first: a crash in between leaves a
    /// directory without a node, never half of one. Says where to.
    fn set_aside(&self) -> io::Result<String>;

    /// Threads that may load a snapshot side by side.
    fn threads(&self) -> usize;

    /// Transfers of a segment, as a power of two: the same in all the directory's life.
    fn segment_shift(&self) -> u32 {
        crate::state::SEGMENT_SHIFT
    }
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct DataDir(pub PathBuf);

pub fn wal_dir(data: &Path) -> PathBuf {
    data.join("wal")
}

pub fn snapshot_dir(data: &Path) -> PathBuf {
    data.join("snapshots")
}

impl Directory for DataDir {
    type Storage = Disk;

    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn root(&self) -> io::Result<Disk> {
        Disk::open(&self.0)
    }

    fn wal(&self) -> io::Result<Disk> {
        Disk::open(wal_dir(&self.0))
    }

    fn snapshots(&self) -> io::Result<Disk> {
        Disk::open(snapshot_dir(&self.0))
    }

    fn set_aside(&self) -> io::Result<String> {
        let names = [crate::node::meta::FILE, "wal", "snapshots"];
        if !names.iter().any(|name| self.0.join(name).exists()) {
            return Ok("nowhere: nothing was there".to_string());
        }
        let divergent = self.0.join(crate::node::statement::DIRECTORY);
        let aside = (1..)
            .map(|n| divergent.join(format!("life-{n}")))
            .find(|path| !path.exists())
            .expect("some number is free");
        fs::create_dir_all(&aside)?;
        for name in names {
            match fs::rename(self.0.join(name), aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Durable here: the old life, under its new names.
        sync_dir(&aside)?;
        sync_dir(&divergent)?;
        sync_dir(&self.0)?;
        Ok(aside.display().to_string())
    }

    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// Makes renames and removals in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let dir = rustix::fs::open(dir, flags, rustix::fs::Mode::empty())?;
    // Durable here: the names in this directory.
    Ok(rustix::fs::fsync(dir)?)
}
