//! A store in memory, for tests and the simulator: it can be made to fail.

use super::{Listed, Listing, Store, join};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard};

/// Objects by name. What is put lies there before the call answers.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<String, Object>,
    now_ns: u64,
    is_down: bool,
    loses_answers: bool,
    puts_denied: u32,
    calls_left: Option<u64>,
    /// How often something was put or removed.
    changes: u64,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    modified_ns: u64,
}

impl Inner {
    fn insert(&mut self, name: &str, bytes: Bytes) {
        let modified_ns = self.now_ns;
        let object = Object { bytes, modified_ns };
        self.objects.insert(name.to_string(), object);
        self.changes += 1;
    }

    fn bytes(&self, name: &str) -> Option<&Bytes> {
        self.objects.get(name).map(|one| &one.bytes)
    }
}

impl Memory {
    /// What the store's clock says from now on.
    pub fn set_time(&self, now_ns: u64) {
        self.lock().now_ns = now_ns;
    }

    /// Whether every call fails from now on.
    pub fn set_down(&self, is_down: bool) {
        self.lock().is_down = is_down;
    }

    /// Whether every put from now on is done and then answered with an error.
    pub fn lose_answers(&self, loses_answers: bool) {
        self.lock().loses_answers = loses_answers;
    }

    /// So many puts are told that their name is taken, whoever has it.
    pub fn deny_puts(&self, count: u32) {
        self.lock().puts_denied = count;
    }

    /// Answers so many calls, and then none until `answer_all`.
    pub fn answer(&self, calls: u64) {
        self.lock().calls_left = Some(calls);
    }

    /// Whether a call went unanswered since `answer`.
    pub fn answer_all(&self) -> bool {
        self.lock().calls_left.take() == Some(0)
    }

    /// Whether calls may fail, lose their answers or lie about a name.
    pub fn is_ill(&self) -> bool {
        let inner = self.lock();
        inner.is_down || inner.loses_answers || inner.puts_denied > 0
    }

    pub fn is_down(&self) -> bool {
        self.lock().is_down
    }

    /// Another number whenever something was put or removed.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    pub fn count(&self) -> u64 {
        self.lock().objects.len() as u64
    }

    /// Shows each object, in the order of their names.
    pub fn each(&self, mut show: impl FnMut(&str, &Bytes)) {
        let inner = self.lock();
        for (name, object) in &inner.objects {
            show(name, &object.bytes);
        }
    }

    /// Changes an object behind the store's back.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        let mut bytes = inner.bytes(name).map_or(Vec::new(), |one| one.to_vec());
        change(&mut bytes);
        inner.insert(name, bytes.into());
    }

    /// The names of all objects, in order.
    pub fn names(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// An object's bytes, also while the store is down.
    pub fn contents(&self, name: &str) -> Option<Bytes> {
        self.lock().bytes(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no thread panics while it holds this")
    }

    fn reach(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        let has_left = inner.calls_left != Some(0);
        if inner.is_down || !has_left {
            return Err(io::Error::new(ErrorKind::TimedOut, "the store is down"));
        }
        inner.calls_left = inner.calls_left.map(|left| left - 1);
        Ok(inner)
    }
}

fn lost() -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, "the answer was lost")
}

impl Store for Memory {
    fn place(&self, name: &str) -> String {
        format!("memory:///{name}")
    }

    fn put_if_absent(&self, name: &str, bytes: &Bytes) -> io::Result<bool> {
        let mut inner = self.reach()?;
        if inner.puts_denied > 0 {
            inner.puts_denied -= 1;
            return Ok(false);
        }
        if inner.objects.contains_key(name) {
            return Ok(false);
        }
        inner.insert(name, bytes.clone());
        if inner.loses_answers {
            return Err(lost());
        }
        Ok(true)
    }

    fn replace(&self, name: &str, bytes: &Bytes) -> io::Result<()> {
        let mut inner = self.reach()?;
        inner.insert(name, bytes.clone());
        if inner.loses_answers {
            return Err(lost());
        }
        Ok(())
    }

    fn get(&self, name: &str) -> io::Result<Bytes> {
        let inner = self.reach()?;
        inner.bytes(name).cloned().ok_or_else(not_found)
    }

    fn get_range(&self, name: &str, offset: u64, len: u64) -> io::Result<Bytes> {
        let bytes = self.get(name)?;
        let end = |n: u64| usize::try_from(n).map_or(bytes.len(), |n| n.min(bytes.len()));
        let (from, to) = (end(offset), end(offset.saturating_add(len)));
        Ok(bytes.slice(from..to))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(self.get(name)?.len() as u64)
    }

    fn list(&self, name: &str) -> io::Result<Listing> {
        let inner = self.reach()?;
        let prefix = match name {
            "" => String::new(),
            name => join(name, ""),
        };
        let mut listing = Listing::default();
        for (name, object) in inner.objects.range(prefix.clone()..) {
            let Some(rest) = name.strip_prefix(&prefix) else {
                break;
            };
            match rest.split_once('/') {
                Some((below, _)) if listing.below.last().is_some_and(|last| last == below) => {}
                Some((below, _)) => listing.below.push(below.to_string()),
                None => listing.objects.push(Listed {
                    name: rest.to_string(),
                    bytes: object.bytes.len() as u64,
                    modified_ns: object.modified_ns,
                }),
            }
        }
        Ok(listing)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut inner = self.reach()?;
        inner.changes += 1;
        inner.objects.remove(name).map(drop).ok_or_else(not_found)
    }

    fn readers(&self) -> usize {
        1
    }
}

fn not_found() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "there is no such object")
}
