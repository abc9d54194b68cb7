//! The incremental digest: a sum over what is stored, so that order does not matter.
use std::fmt;

/// A digest of the whole state or of one slot. Equal states have equal digests on every node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
