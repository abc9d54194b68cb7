//! What is in a snapshot, for whoever proves it without making a state of it.

use super::{head_of, segment_of, state_limits};
use crate::state::{self, Digest, Limits, LoadedPart, Tally};
use bytes::Bytes;
use standfast_snapshot::verify::{self, Share};
use standfast_snapshot::{Header, SegmentRef};
use standfast_wal::ClusterId;

/// Sums up the states in a cluster's snapshots.
pub struct Contents {
    limits: Limits,
}

impl Contents {
    pub fn of(cluster: ClusterId) -> Contents {
        Contents {
            limits: state_limits(cluster),
        }
    }
}

fn share(part: LoadedPart) -> Share {
    let Tally {
        digest,
        keys,
        tokens,
    } = part.tally();
    Share {
        digest: digest.0,
        counts: [keys, tokens],
    }
}

impl verify::Contents for Contents {
    fn block(&self, block: &[u8]) -> Result<Share, String> {
        let part = state::load_block(&self.limits, block);
        part.map(share).map_err(|error| error.to_string())
    }

    fn segment(&self, reference: &SegmentRef, bytes: Bytes) -> Result<Share, String> {
        let part = state::load_segment(segment_of(reference, bytes));
        part.map(share).map_err(|error| error.to_string())
    }

    fn confirm(&self, header: &Header, sum: Share) -> Result<(), String> {
        let Share {
            digest,
            counts: [keys, tokens],
        } = sum;
        let sum = Tally {
            digest: Digest(digest),
            keys,
            tokens,
        };
        let confirmed = head_of(header).confirm(&sum);
        confirmed.map_err(|error| error.to_string())
    }
}
