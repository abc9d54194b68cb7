//! Deterministic; pure: what is stored and how committed records change it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod codec;
pub mod command;
mod digest;
mod glob;
mod integer;
pub mod reply;
mod snapshot;

pub use codec::{Malformed, iter, push};
pub use command::Command;
pub use digest::Digest;
pub use glob::glob_matches;
pub use integer::parse_integer;
pub use reply::Reply;
pub use snapshot::{Block, LoadError, LoadedPart, SnapshotHead, load_block};

use standfast_wal::{Lsn, Record};

/// Number of hash slots, as in Redis Cluster.
pub const SLOTS: u16 = 16384;

/// What every node of a cluster must agree on besides the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Seeds the key hash, which orders SCAN: the same on every node of a cluster (so that a
    /// cursor survives a failover), not known to clients. Take it from the cluster's random id.
    pub seed: u64,
}

/// Where the state stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Applied {
    pub lsn: Lsn,
    /// Log time: nanoseconds since 1970 of the last applied command.
    pub timestamp: u64,
}

/// Everything that is stored.
#[derive(Debug)]
pub struct State {
    applied: Applied,
}

impl State {
    /// An empty state before the first record.
    pub fn new(_limits: Limits) -> State {
        unimplemented!()
    }

    /// Applies a committed record of any kind; `on_reply` gets each command's LSN and reply.
    pub fn apply(&mut self, record: &Record, on_reply: impl FnMut(Lsn, Reply)) {
        self.apply_prefix(record, record.last_lsn(), on_reply);
    }

    /// Applies a record's commands up to and including `through`: the last step of a restore.
    pub fn apply_prefix(
        &mut self,
        _record: &Record,
        _through: Lsn,
        _on_reply: impl FnMut(Lsn, Reply),
    ) {
        unimplemented!()
    }

    /// Answers a command that is not a write, at the log time of the last applied command.
    pub fn read(&self, _command: &Command) -> Reply {
        unimplemented!()
    }

    /// LSN of the key's last change; 0 if there is no such key.
    pub fn revision(&self, _key: &[u8]) -> Lsn {
        unimplemented!()
    }

    /// Earliest deadline in ns of anything not yet swept: a Tick is due once the clock passes it.
    pub fn next_deadline(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Earliest deadline in ns above log time: once the clock passes it, a read needs a Tick first.
    pub fn next_expiry(&self) -> Option<u64> {
        unimplemented!()
    }

    pub fn applied(&self) -> Applied {
        self.applied
    }

    pub fn digest(&self) -> Digest {
        unimplemented!()
    }

    /// One digest per slot, in order.
    pub fn slot_digests(&self) -> Vec<Digest> {
        unimplemented!()
    }

    /// Estimate of the heap bytes held, by the allocator's size classes.
    pub fn used_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Number of keys held, including expired ones that are not yet swept.
    pub fn keys(&self) -> u64 {
        unimplemented!()
    }

    /// Number of ONCE tokens held.
    pub fn tokens(&self) -> u64 {
        unimplemented!()
    }

    /// Starts a snapshot of the state as it is now.
    pub fn begin_snapshot(&mut self) -> SnapshotHead {
        unimplemented!()
    }

    /// Copies about `budget_bytes` more; true once all is emitted.
    pub fn snapshot_step(&mut self, _budget_bytes: usize, _emit: &mut Vec<Block>) -> bool {
        unimplemented!()
    }

    pub fn abort_snapshot(&mut self) {
        unimplemented!()
    }

    /// Puts loaded blocks together; refuses what the head does not confirm.
    pub fn assemble(
        _limits: Limits,
        _head: &SnapshotHead,
        _parts: Vec<LoadedPart>,
    ) -> Result<State, LoadError> {
        unimplemented!()
    }

    /// Frees memory that FLUSHALL left, about `entries_max` entries; true while there is more.
    pub fn reclaim(&mut self, _entries_max: usize) -> bool {
        unimplemented!()
    }
}
