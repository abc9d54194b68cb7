//! The state at one LSN while writes go on, and back.
use super::digest::Digest;
use standfast_wal::Lsn;

/// What a snapshot holds, known before its first block is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotHead {
    pub lsn: Lsn,
    /// Log time in ns at `lsn`.
    pub timestamp: u64,
    pub digest: Digest,
    pub keys: u64,
    pub tokens: u64,
}

/// A piece of a snapshot: entries of some slots. Loads in any order, on any thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    pub first_slot: u16,
    pub last_slot: u16,
    pub bytes: Vec<u8>,
}

/// Why a snapshot is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    #[error("state block: {what} at byte {at}")]
    Block { what: &'static str, at: usize },
    #[error("state: {what} is {found}, the snapshot's head says {expected}")]
    Differs {
        what: &'static str,
        found: String,
        expected: String,
    },
}

/// A loaded block, ready to be assembled.
#[derive(Debug)]
pub struct LoadedPart {}

/// Reads one block; called in parallel.
pub fn load_block(_limits: &super::Limits, _block: &[u8]) -> Result<LoadedPart, LoadError> {
    unimplemented!()
}
