//! Where an archive lies: a directory, memory, or an object store by URL; a few calls that block.
//!
//! An object's name is a path below the store's root, `/` between its parts. An object is put whole
//! under a name that nobody has, and never changes; only one that is damaged is replaced.
//! What a caller must not take for an answer is an error: no call gives less than it was asked for.

mod directory;
mod memory;
mod remote;
mod spool;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

pub use directory::Directory;
pub use memory::Memory;
pub use spool::Scratch;

/// A shared store.
pub type Shared = Arc<dyn Store>;

/// What a listing shows of one object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    /// The last part of its name.
    pub name: String,
    pub bytes: u64,
    /// When it was put, by the store's own clock; ns since 1970.
    pub modified_ns: u64,
}

/// What lies directly below one name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Last parts of the names that others lie below, in order.
    pub below: Vec<String>,
    /// By name.
    pub objects: Vec<Listed>,
}

/// Holds objects. Every call blocks until it is true or has failed; any thread may call.
pub trait Store: Send + Sync + fmt::Debug {
    /// What people call the store, or an object of it.
    fn place(&self, name: &str) -> String;

    /// Puts an object, whole and durable, if nobody has its name; false where somebody may have.
    /// That can be an earlier try of the caller's own, or nobody after all: read it back.
    fn put_if_absent(&self, name: &str, bytes: &Bytes) -> io::Result<bool>;

    /// As `put_if_absent`, whoever has the name. Only for an object whose bytes are damaged, or
    /// that lacks what it refers to.
    fn replace(&self, name: &str, bytes: &Bytes) -> io::Result<()>;

    /// The whole object; `NotFound` if there is none.
    fn get(&self, name: &str) -> io::Result<Bytes>;

    /// The whole object, piece by piece and in order; `NotFound` if there is none.
    fn fetch(&self, name: &str, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        take(&self.get(name)?)
    }

    /// `len` bytes from `offset` on; fewer where the object ends before.
    fn get_range(&self, name: &str, offset: u64, len: u64) -> io::Result<Bytes>;

    /// The object's length; `NotFound` if there is none.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// What lies directly below `name` (everything if it is empty); nothing where nothing does.
    fn list(&self, name: &str) -> io::Result<Listing>;

    /// The objects directly below `name`, where no others lie deeper, whose last parts are greater
    /// than `behind`.
    fn list_behind(&self, name: &str, behind: &str) -> io::Result<Vec<Listed>> {
        let mut objects = self.list(name)?.objects;
        objects.retain(|one| one.name.as_str() > behind);
        Ok(objects)
    }

    fn delete(&self, name: &str) -> io::Result<()>;

    /// Removes what puts directly below `name` have left that never came to an end.
    fn sweep(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    /// Reads that are worth doing side by side.
    fn readers(&self) -> usize;

    /// Whether reading an object again takes longer than reading a copy of it.
    fn is_far(&self) -> bool {
        false
    }

    /// What was read of the object turned out to be damaged: whoever keeps a copy should not.
    fn forget(&self, _name: &str) {}
}

/// Opens the store that `place` names: a directory, or `file:///…`, `s3://bucket/prefix`, `gs://…`,
/// `az://…`. Nothing is asked of it yet. Credentials come from the environment. What is fetched and
/// long goes through files without names in `scratch`.
pub fn open(place: &str, scratch: &Scratch) -> io::Result<Shared> {
    let refuse = |why: String| io::Error::new(ErrorKind::InvalidInput, format!("{place}: {why}"));
    match place.split_once("://") {
        None if place.is_empty() => Err(refuse("no place is named".to_string())),
        None => Ok(Arc::new(Directory::new(Path::new(place)))),
        Some(("file", path)) if path.starts_with('/') => {
            Ok(Arc::new(Directory::new(Path::new(path))))
        }
        Some(("file", _)) => Err(refuse("expected file:///DIRECTORY".to_string())),
        Some(("s3" | "gs" | "az", _)) => Ok(Arc::new(remote::Remote::open(place, scratch)?)),
        Some((scheme, _)) => Err(refuse(format!(
            "{scheme}:// is not known: expected a directory, file://, s3://, gs:// or az://"
        ))),
    }
}

/// `dir/name`, and `name` where `dir` is empty.
pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_string()
    } else {
        format!("{dir}/{name}")
    }
}

/// The part of a name before its last `/`.
pub fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The part of a name behind its last `/`.
pub fn last_part(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}
