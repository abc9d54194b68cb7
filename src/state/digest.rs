//! The incremental digest: a sum over what is stored, so that neither order nor layout matters.
//!
//! Each entry counts with the XXH3-128 of its bytes (`entry.rs`: revision, expiry, key, value);
//! sums wrap. It proves copies equal that were not made to deceive; it is no cryptographic hash.

use super::entry::Entry;
use std::fmt;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// A digest of the whole state or of one slot. Equal states have equal digests on every node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What an entry is: the same bytes as key and as token count differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    Key,
    Token,
}

/// Makes tokens count otherwise than keys.
const TOKEN_SEED: u64 = 1;

impl Digest {
    pub(super) fn of(sort: Sort, entry: &Entry) -> Digest {
        Digest(match sort {
            Sort::Key => xxh3_128(entry.bytes()),
            Sort::Token => xxh3_128_with_seed(entry.bytes(), TOKEN_SEED),
        })
    }

    pub(super) fn add(&mut self, other: Digest) {
        self.0 = self.0.wrapping_add(other.0);
    }

    pub(super) fn subtract(&mut self, other: Digest) {
        self.0 = self.0.wrapping_sub(other.0);
    }
}
