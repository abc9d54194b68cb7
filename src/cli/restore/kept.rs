//! What a restore has fetched from far away, kept beside what it makes until that is whole: the
//! same restore, given again, need not fetch it again.
//!
//! A kept object's file holds its bytes and, behind them, their BLAKE3 with its place; its name
//! follows from its place. So one that a crash cut short, that rotted, or that is of another
//! archive is none, and is fetched again. What an object holds is proved by whoever reads it, kept
//! or not; one that fails is not kept, and a restore that fails by one keeps nothing.

use bytes::Bytes;
use standfast_snapshot::store::{Listed, Listing};
use standfast_snapshot::{Shared, Store};
use standfast_wal::Disk;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const DIGEST_BYTES: usize = 32;

/// What need not be fetched again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spared {
    pub objects: u64,
    pub bytes: u64,
}

/// A store for reading that keeps whole objects in a directory.
#[derive(Debug)]
pub struct Kept {
    store: Shared,
    dir: PathBuf,
    /// What was asked for: by then it lies here, and the next time spares nothing.
    asked: Mutex<BTreeSet<String>>,
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Kept {
    /// Keeps below `dir`, which is there.
    pub fn new(store: Shared, dir: PathBuf) -> Arc<Kept> {
        Arc::new(Kept {
            store,
            dir,
            asked: Mutex::default(),
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    pub fn spared(&self) -> Spared {
        Spared {
            objects: self.objects.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        let place = self.store.place(name);
        let hash = blake3::hash(place.as_bytes());
        self.dir.join(hash.to_hex().as_str())
    }

    /// Of bytes that have been hashed, and of their place.
    fn digest(&self, name: &str, mut hasher: blake3::Hasher) -> [u8; DIGEST_BYTES] {
        hasher.update(self.store.place(name).as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// The object as an earlier restore has fetched it, if all of it is there.
    fn recall(&self, name: &str) -> io::Result<Option<Bytes>> {
        let path = self.path(name);
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?.len(),
        };
        if length < DIGEST_BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = Disk::map_at(&path, length)?;
        let digest = bytes.split_off(bytes.len() - DIGEST_BYTES);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let is_whole = digest == self.digest(name, hasher)[..];
        Ok(is_whole.then_some(bytes))
    }

    /// Fetches the object into its file.
    fn keep(&self, name: &str) -> Result<Bytes, Unkept> {
        let path = self.path(name);
        let new = path.with_extension("new");
        let kept = self.keep_as(name, &new).and_then(|length| {
            // Not durable: what a crash takes is fetched again.
            fs::rename(&new, &path)?;
            Ok(Disk::map_at(&path, length)?)
        });
        if kept.is_err() {
            let _ = fs::remove_file(&new);
        }
        kept
    }

    /// Says how long the object is.
    fn keep_as(&self, name: &str, new: &Path) -> Result<u64, Unkept> {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).open(new)?;
        let mut hasher = blake3::Hasher::new();
        let mut written = Ok(());
        let fetched = self.store.fetch(name, &mut |piece| {
            hasher.update(piece);
            written = file.write_all(piece);
            written
                .as_ref()
                .map_err(|error| error.kind().into())
                .copied()
        });
        written?;
        fetched.map_err(Unkept::Store)?;
        let length = hasher.count();
        file.write_all(&self.digest(name, hasher))?;
        Ok(length)
    }
}

/// Why an object was not kept.
enum Unkept {
    /// The store did not give it.
    Store(io::Error),
    /// This disk did not take it.
    Disk(io::Error),
}

impl From<io::Error> for Unkept {
    fn from(error: io::Error) -> Unkept {
        Unkept::Disk(error)
    }
}

fn read_only<T>() -> io::Result<T> {
    let why = "a restore writes nothing into an archive";
    Err(io::Error::new(ErrorKind::Unsupported, why))
}

impl Store for Kept {
    fn place(&self, name: &str) -> String {
        self.store.place(name)
    }

    fn put_if_absent(&self, _: &str, _: &Bytes) -> io::Result<bool> {
        read_only()
    }

    fn replace(&self, _: &str, _: &Bytes) -> io::Result<()> {
        read_only()
    }

    fn delete(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        let mut asked = self.asked.lock().expect("no thread panics with it");
        let is_first = asked.insert(name.to_string());
        drop(asked);
        // A copy that cannot be read is none.
        if let Ok(Some(bytes)) = self.recall(name) {
            if is_first {
                self.objects.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            return Ok(bytes);
        }
        match self.keep(name) {
            Ok(bytes) => Ok(bytes),
            Err(Unkept::Store(error)) => Err(error),
            // Without room for it the restore goes on, and could not be taken up again.
            Err(Unkept::Disk(error)) => {
                tracing::warn!(%error, "an object that was fetched is not kept");
                self.store.get(name)
            }
        }
    }

    fn get_range(&self, name: &str, offset: u64, len: u64) -> io::Result<Bytes> {
        self.store.get_range(name, offset, len)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.store.length(name)
    }

    fn list(&self, name: &str) -> io::Result<Listing> {
        self.store.list(name)
    }

    fn list_behind(&self, name: &str, behind: &str) -> io::Result<Vec<Listed>> {
        self.store.list_behind(name, behind)
    }

    fn readers(&self) -> usize {
        self.store.readers()
    }

    fn is_far(&self) -> bool {
        self.store.is_far()
    }

    fn forget(&self, name: &str) {
        // What stays is proved by whoever reads it the next time.
        let _ = fs::remove_file(self.path(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_snapshot::store::Memory;

    #[test]
    fn what_was_fetched_is_not_fetched_again_unless_it_is_damaged() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let memory = Arc::new(Memory::default());
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        for (name, text) in [("a/one", "1"), ("a/two", "22"), ("a/empty", "")] {
            memory.put_if_absent(name, &bytes(text)).expect("memory");
        }
        let open = || Kept::new(memory.clone(), scratch.path().to_path_buf());
        let first = open();
        for name in ["a/one", "a/two", "a/empty"] {
            first.get(name).expect("it is there");
        }
        assert_eq!(first.spared(), Spared::default());
        assert_eq!(
            first.get("a/no").expect_err("none").kind(),
            ErrorKind::NotFound
        );
        memory.set_down(true);
        let second = open();
        assert_eq!(second.get("a/two").expect("it was kept"), "22");
        assert_eq!(second.get("a/empty").expect("it was kept"), "");
        let spared = second.spared();
        assert_eq!((spared.objects, spared.bytes), (2, 2));
        // Each byte that rots, and each that a crash has cut off.
        let path = second.path("a/two");
        let whole = fs::read(&path).expect("it is there");
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("writable");
            assert!(second.get("a/two").is_err(), "byte {at}");
            fs::write(&path, &whole[..at]).expect("writable");
            assert!(second.get("a/two").is_err(), "cut at {at}");
        }
        // One object's bytes under the name of another.
        fs::copy(second.path("a/one"), &path).expect("writable");
        assert!(second.get("a/two").is_err());
        memory.set_down(false);
        assert_eq!(second.get("a/two").expect("fetched again"), "22");
        memory.set_down(true);
        assert_eq!(second.get("a/two").expect("and kept"), "22");
        second.forget("a/two");
        assert!(second.get("a/two").is_err());
    }
}
