//! A disk in memory that forgets, tears and fails as real ones do, all of it decided by one seed.
//!
//! What a crash may do: every sector written since the file's last sync is either old or new, each
//! for itself; directory changes since the last `sync_dir` are undone from the newest backwards,
//! to a random one; a growing file keeps a random length. What was synced stays, unless the test
//! damages it.

mod damage;
mod inode;

use crate::storage::{File, Storage};
use bytes::Bytes;
use inode::Inode;
pub use inode::Random;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated directory. Clones share it; `crash` makes all handles of the life before useless.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
    /// Which process life this handle belongs to.
    life: u64,
}

/// How often operations fail, in parts per million.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    pub read_error_ppm: u32,
    pub write_error_ppm: u32,
    pub sync_error_ppm: u32,
}

#[derive(Clone)]
struct Shared {
    random: Random,
    life: u64,
    locked: bool,
    /// Set by the first failed write or sync, as on the real disk; a crash clears it.
    failed: bool,
    faults: Faults,
    capacity: u64,
    /// Changing operations so far, and after how many the disk stops answering.
    operations: u64,
    halt_after: Option<u64>,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Directory changes that a crash may undo, in order.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

/// One file of a simulated directory.
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    name: String,
}

/// Held until dropped or until the crash.
pub struct SimLock {
    disk: SimDisk,
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Change::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Change::Remove(name) => {
                names.remove(name);
            }
        }
    }

    /// Whether a file has this name because of it.
    fn makes(&self, made: &str) -> bool {
        match self {
            Change::Create(name, _) | Change::Rename(_, name, _) => name == made,
            Change::Remove(_) => false,
        }
    }

    fn touches(&self, directory: &str) -> bool {
        match self {
            Change::Create(name, _) | Change::Remove(name) => directory_of(name) == directory,
            Change::Rename(from, to, _) => {
                directory_of(from) == directory || directory_of(to) == directory
            }
        }
    }
}

fn directory_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Shared {
    /// A changing operation begins.
    fn change(&mut self) -> io::Result<()> {
        if self.halt_after.is_some_and(|halt| self.operations >= halt) {
            return Err(io::Error::other("simulated: the process is dying"));
        }
        if self.failed {
            return Err(io::Error::other("simulated: an earlier write failed"));
        }
        self.operations += 1;
        Ok(())
    }

    fn fail(&mut self) -> io::Error {
        self.failed = true;
        io::Error::other("simulated: input/output error")
    }

    fn free(&self) -> u64 {
        match self.capacity {
            u64::MAX => u64::MAX,
            capacity => capacity.saturating_sub(self.used()),
        }
    }

    fn used(&self) -> u64 {
        let mut inodes: Vec<&u64> = self.names.values().collect();
        inodes.sort();
        inodes.dedup();
        inodes
            .iter()
            .map(|inode| self.inodes[inode].bytes.len() as u64)
            .sum()
    }

    fn record(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes
            .get_mut(&inode)
            .expect("an open file has its inode")
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            shared: Arc::new(Mutex::new(Shared {
                random: Random::new(seed),
                life: 0,
                locked: false,
                failed: false,
                faults: Faults::default(),
                capacity: u64::MAX,
                operations: 0,
                halt_after: None,
                next_inode: 1,
                inodes: BTreeMap::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending: Vec::new(),
            })),
            life: 0,
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if the process that this handle belongs to still lives.
    fn alive(&self) -> io::Result<MutexGuard<'_, Shared>> {
        let shared = self.shared();
        if shared.life != self.life {
            return Err(io::Error::other("simulated: this process has died"));
        }
        Ok(shared)
    }

    /// The machine loses power and comes back: what remains is what the returned handle sees.
    pub fn crash(&self) -> SimDisk {
        let mut guard = self.shared();
        let shared = &mut *guard;
        let survive = shared.random.below(shared.pending.len() as u64 + 1);
        for change in shared
            .pending
            .drain(..)
            .take(usize::try_from(survive).expect("a count"))
        {
            change.apply(&mut shared.durable_names);
        }
        shared.names = shared.durable_names.clone();
        let names = &shared.names;
        shared
            .inodes
            .retain(|inode, _| names.values().any(|named| named == inode));
        for inode in shared.inodes.values_mut() {
            inode.crash(&mut shared.random);
        }
        self.begin_life(guard)
    }

    /// The process dies and is started again; the machine goes on, so nothing is lost.
    pub fn restart(&self) -> SimDisk {
        self.begin_life(self.shared())
    }

    /// A handle of its own for the same process: an error latched by another one is not its own.
    pub fn reopened(&self) -> SimDisk {
        if let Ok(mut shared) = self.alive() {
            shared.failed = false;
        }
        self.clone()
    }

    fn begin_life(&self, mut shared: MutexGuard<'_, Shared>) -> SimDisk {
        shared.life += 1;
        shared.locked = false;
        shared.failed = false;
        shared.halt_after = None;
        shared.operations = 0;
        SimDisk {
            shared: Arc::clone(&self.shared),
            life: shared.life,
        }
    }

    /// An independent copy of the directory as it is now, with a seed of its own.
    pub fn fork(&self, seed: u64) -> SimDisk {
        let mut shared = self.shared().clone();
        shared.random = Random::new(seed);
        SimDisk {
            shared: Arc::new(Mutex::new(shared)),
            life: self.life,
        }
    }

    pub fn set_faults(&self, faults: Faults) {
        self.shared().faults = faults;
    }

    /// The next changing operation fails, and with it all later ones of this life.
    pub fn fail_next(&self) {
        let mut shared = self.shared();
        shared.halt_after = Some(shared.operations);
    }

    /// After this many more changing operations every further one fails.
    pub fn halt_after(&self, operations: u64) {
        let mut shared = self.shared();
        shared.halt_after = Some(shared.operations + operations);
    }

    /// Every further changing operation of this life fails: it was told to stop here.
    pub fn has_stopped(&self) -> bool {
        let shared = self.shared();
        let halt = shared.halt_after;
        halt.is_some_and(|halt| shared.operations >= halt)
    }

    /// Changing operations of this life so far.
    pub fn operations(&self) -> u64 {
        self.shared().operations
    }

    pub fn set_capacity(&self, bytes: u64) {
        self.shared().capacity = bytes;
    }
}

impl Storage for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut shared = self.alive()?;
        shared.change()?;
        if shared.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = shared.next_inode;
        shared.next_inode += 1;
        shared.inodes.insert(inode, Inode::default());
        shared.record(Change::Create(name.to_owned(), inode));
        Ok(self.file(name, inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let shared = self.alive()?;
        let inode = *shared.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(self.file(name, inode))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let shared = self.alive()?;
        let here = shared
            .names
            .keys()
            .filter(|name| directory_of(name) == directory);
        let strip = |name: &String| name.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(here.map(strip).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut shared = self.alive()?;
        shared.change()?;
        let inode = *shared.names.get(from).ok_or(ErrorKind::NotFound)?;
        shared.record(Change::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut shared = self.alive()?;
        shared.change()?;
        if !shared.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        shared.record(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, directory: &str) -> io::Result<()> {
        let mut guard = self.alive()?;
        let shared = &mut *guard;
        shared.change()?;
        let ppm = shared.faults.sync_error_ppm;
        if shared.random.happens(ppm) {
            return Err(shared.fail());
        }
        // A journal keeps its order: what came before the last change here is durable with it.
        let last = shared
            .pending
            .iter()
            .rposition(|change| change.touches(directory));
        for change in shared.pending.drain(..last.map_or(0, |last| last + 1)) {
            change.apply(&mut shared.durable_names);
        }
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        let shared = self.alive()?;
        Ok(shared.free())
    }

    fn lock(&self) -> io::Result<SimLock> {
        let mut shared = self.alive()?;
        if shared.locked {
            return Err(ErrorKind::WouldBlock.into());
        }
        shared.locked = true;
        Ok(SimLock { disk: self.clone() })
    }
}

impl SimDisk {
    fn file(&self, name: &str, inode: u64) -> SimFile {
        SimFile {
            disk: self.clone(),
            inode,
            name: name.to_owned(),
        }
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut shared) = self.disk.alive() {
            shared.locked = false;
        }
    }
}

fn memory(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated file fits memory")
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.inode(self.inode).bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut shared = self.disk.alive()?;
        let ppm = shared.faults.read_error_ppm;
        if shared.random.happens(ppm) {
            return Err(io::Error::other(format!(
                "simulated: cannot read {}",
                self.name
            )));
        }
        let inode = shared.inode(self.inode);
        let wanted = memory(offset)..memory(offset).saturating_add(buffer.len());
        let touches = |bad: &Range<usize>| bad.start < wanted.end && wanted.start < bad.end;
        if inode.unreadable.as_ref().is_some_and(touches) {
            return Err(io::Error::other(format!(
                "simulated: a bad sector in {}",
                self.name
            )));
        }
        let bytes = &inode.bytes;
        let from = memory(offset).min(bytes.len());
        let there = &bytes[from..];
        if there.len() < buffer.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&there[..buffer.len()]);
        Ok(())
    }

    fn write_vectored_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut shared = self.disk.alive()?;
        shared.change()?;
        let ppm = shared.faults.write_error_ppm;
        let fails = shared.random.happens(ppm);
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let end = offset + len as u64;
        let growth = end.saturating_sub(shared.inode(self.inode).bytes.len() as u64);
        if growth > shared.free() {
            shared.failed = true;
            return Err(ErrorKind::StorageFull.into());
        }
        // A failed write may have written a part.
        let mut left = if fails {
            memory(shared.random.below(len as u64 + 1))
        } else {
            len
        };
        let mut at = memory(offset);
        for part in parts.iter() {
            let now = &part[..part.len().min(left)];
            shared.inode(self.inode).write(at, now);
            at += now.len();
            left -= now.len();
        }
        if fails {
            return Err(shared.fail());
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut shared = self.disk.alive()?;
        shared.change()?;
        let end = offset + len;
        let growth = end.saturating_sub(shared.inode(self.inode).bytes.len() as u64);
        if growth > shared.free() {
            return Err(ErrorKind::StorageFull.into());
        }
        let zeros = vec![0; memory(len)];
        shared.inode(self.inode).write(memory(offset), &zeros);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut shared = self.disk.alive()?;
        shared.change()?;
        let ppm = shared.faults.sync_error_ppm;
        if shared.random.happens(ppm) {
            return Err(shared.fail());
        }
        shared.inode(self.inode).sync();
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        let mut bytes = vec![0; memory(len)];
        self.read_at(0, &mut bytes)?;
        Ok(bytes.into())
    }
}
