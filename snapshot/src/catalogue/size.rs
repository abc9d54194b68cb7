//! What snapshots take in an archive, and what they share.

use super::{Catalogue, SnapshotEntry};
use std::collections::BTreeSet;

/// How many bytes something is, and how many of them nothing before it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// With all it refers to; of what is encrypted as it was before.
    pub whole: u64,
    pub new: u64,
}

impl Catalogue {
    /// The sizes of the snapshots, in the order of the histories and of their snapshots.
    pub fn snapshot_sizes(&self) -> Vec<Vec<Size>> {
        let mut seen = BTreeSet::new();
        let mut size = |snapshot: &SnapshotEntry| {
            let mut size = Size {
                whole: snapshot.file_bytes,
                new: snapshot.file_bytes,
            };
            for (one, path) in snapshot.segments.iter().zip(snapshot.segment_paths()) {
                size.whole += one.bytes;
                size.new += if seen.insert(path) { one.bytes } else { 0 };
            }
            size
        };
        let histories = self.histories.iter();
        histories
            .map(|entry| entry.snapshots.iter().map(&mut size).collect())
            .collect()
    }
}
