//! Makes a data directory out of a rebuilt state: all of it under a temporary name, then renamed.
//!
//! 1. Crash before the rename: the target is untouched, and the next attempt clears what is left
//!    under the temporary name, all but what was fetched (`kept.rs`). 2. Crash after it: the
//!    directory is whole, and its own. Two restores to one target are kept apart by the lock of the
//!    directory that becomes it.

use super::rebuild::Rebuilt;
use crate::cli::exit::{ExitCode, Failure};
use crate::limits;
use crate::node::copies::encode_epochs;
use crate::node::directory::{DataDir, Directory, sync_dir};
use crate::node::meta::{self, RestoredNode};
use crate::node::shelf;
use crate::replication::config::Member;
use standfast_snapshot::{Header, Options, segment};
use standfast_wal::{Disk, Storage};
use std::fs;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Below the temporary name: what was fetched. It is gone before the directory has its own name.
const FETCHED: &str = "fetched";

/// A data directory that is being made.
pub struct Building {
    /// Where it is made.
    path: PathBuf,
    target: PathBuf,
    lock: Option<<Disk as Storage>::Lock>,
    /// What was fetched is left for another attempt.
    keeps: bool,
}

impl Building {
    /// Refuses a target that holds anything, and a restore beside another one. `keeps`: what an
    /// interrupted attempt has fetched is of use.
    pub fn begin(target: &Path, keeps: bool) -> Result<Building, Failure> {
        let fail = |error: io::Error| {
            let text = format!("{}: {error}", target.display());
            Failure::new(ExitCode::Failed, text)
        };
        if !is_empty(target).map_err(fail)? {
            let text = format!("{} holds something already", target.display());
            return Err(Failure::new(ExitCode::Exists, text)
                .hint("a restore never writes into a directory that has data: name another one"));
        }
        let name = target.file_name().ok_or_else(|| {
            let text = format!("{} does not name a directory", target.display());
            Failure::new(ExitCode::Usage, text)
        })?;
        let path = target.with_file_name(format!(".{}.restoring", name.to_string_lossy()));
        let disk = Disk::open(&path).map_err(fail)?;
        // The books in plain, whatever the archive was: nobody else's business.
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(fail)?;
        let lock = disk.lock().map_err(|error| {
            let text = format!("{}: {error}: another restore is making it", path.display());
            Failure::new(ExitCode::InUse, text)
        })?;
        let building = Building {
            path,
            target: target.to_path_buf(),
            lock: Some(lock),
            keeps,
        };
        building.clear().map_err(fail)?;
        if keeps {
            fs::create_dir_all(building.fetched()).map_err(fail)?;
        }
        Ok(building)
    }

    pub fn fetched(&self) -> PathBuf {
        self.path.join(FETCHED)
    }

    /// Says where what was fetched is, if that is of use after this failure.
    pub fn failed(&mut self, failure: Failure) -> Failure {
        // Of damaged bytes another attempt should not have a copy.
        self.keeps &= failure.code == ExitCode::Failed;
        if !self.keeps || is_empty(&self.fetched()).unwrap_or(true) || !failure.hint.is_empty() {
            return failure;
        }
        let fetched = self.fetched();
        failure.hint(format!(
            "the same command goes on with what was fetched; it is in {} until then",
            fetched.display()
        ))
    }

    /// Removes what an interrupted restore left, but not the lock and what is kept.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if self.keeps && entry.file_name() == FETCHED {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() != "LOCK" {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes the state and the identity. The log is made by the node's first start, which knows
    /// the settings of its segments, behind the snapshot's position.
    pub fn fill(
        &self,
        rebuilt: &mut Rebuilt,
        new: RestoredNode,
        member: Member,
        threads: usize,
    ) -> Result<u64, Failure> {
        make(&DataDir(self.path.clone()), rebuilt, new, member, threads).map_err(|error| {
            let text = format!("the restored state was not written: {error}");
            Failure::new(ExitCode::Failed, text)
        })
    }

    /// Gives the directory its name.
    pub fn publish(mut self) -> Result<(), Failure> {
        self.keeps = false;
        match fs::remove_dir_all(self.fetched()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        sync_dir(&self.path)?;
        // An empty directory may have the name; a rename replaces it, and nothing else.
        fs::rename(&self.path, &self.target)?;
        self.lock = None;
        // Durable here: the restored directory, whole, under its name.
        Ok(sync_dir(&parent_of(&self.target))?)
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        // What cannot be removed now is cleared by the next attempt.
        let _ = match self.keeps && !is_empty(&self.fetched()).unwrap_or(true) {
            true => self.clear(),
            false => fs::remove_dir_all(&self.path),
        };
    }
}

/// Whether nothing lies in `dir`; a directory that does not exist is empty.
fn is_empty(dir: &Path) -> std::io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().transpose()?.is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Writes the state and the identity into an empty directory.
pub fn make<D: Directory>(
    dir: &D,
    rebuilt: &mut Rebuilt,
    new: RestoredNode,
    member: Member,
    threads: usize,
) -> Result<u64, String> {
    let file_bytes = write_snapshot(dir, rebuilt, &new, threads)?;
    let text = |error: io::Error| error.to_string();
    let root = dir.root().map_err(text)?;
    meta::create_restored(&root, new, member).map_err(text)?;
    Ok(file_bytes)
}

fn write_snapshot<D: Directory>(
    dir: &D,
    rebuilt: &mut Rebuilt,
    new: &RestoredNode,
    threads: usize,
) -> Result<u64, String> {
    let head = rebuilt.state.begin_snapshot();
    assert_eq!(
        head.lsn, rebuilt.link.position.lsn,
        "I2: the state and the log stand at one LSN"
    );
    let header = Header {
        cluster: new.cluster,
        cluster_name: new.cluster_name.clone(),
        node: new.node,
        history: new.history,
        ancestors: new
            .ancestors
            .iter()
            .map(|past| (past.history, past.shared.0))
            .collect(),
        link: rebuilt.link,
        digest: head.digest.0,
        counts: [head.keys, head.tokens, 0, 0],
        epoch_table: encode_epochs(&rebuilt.epochs),
        state_head: bytes::Bytes::new(),
    };
    let options = Options {
        threads,
        ..Options::default()
    };
    let text = |error: standfast_snapshot::Error| error.to_string();
    let mut writer = shelf::begin(dir, &header, options)?;
    let segments = rebuilt.state.segments();
    let mut blocks = Vec::new();
    loop {
        let done = rebuilt
            .state
            .snapshot_step(limits::SNAPSHOT_BLOCK_BYTES, &mut blocks);
        for block in blocks.drain(..) {
            writer.push(shelf::file_block(block)).map_err(text)?;
        }
        if done {
            break;
        }
    }
    let written = shelf::finish_beside(dir, writer, segments, drop)?;
    // Read back: what the node will start from is what was meant.
    let reader = shelf::open(dir, head.lsn)?;
    reader.check_whole().map_err(text)?;
    let storage = dir.snapshots().map_err(|error| error.to_string())?;
    for reference in reader.segments().map_err(text)? {
        segment::open(&storage, &reference).map_err(text)?;
    }
    Ok(written.bytes)
}
