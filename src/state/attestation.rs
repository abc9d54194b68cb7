//! The payload of an Attestation record: an applied LSN below its own, and the digest there.

use super::Digest;
use standfast_wal::record::is_gapless;
use standfast_wal::{Field, Lsn};

const LSN: Field = Field { at: 0, len: 8, name: "lsn", meaning: "an LSN applied on the primary" };
const DIGEST: Field =
    Field { at: 8, len: 16, name: "digest", meaning: "the digest of the state at that LSN" };

/// The payload; little-endian.
pub const ATTESTATION: [Field; 2] = [LSN, DIGEST];
pub const ATTESTATION_BYTES: usize = 24;
const _: () = assert!(is_gapless(&ATTESTATION, ATTESTATION_BYTES));

/// What a primary says its state is, for every copy to prove itself equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attestation {
    pub lsn: Lsn,
    pub digest: Digest,
}

impl Attestation {
    pub fn encode(&self) -> [u8; ATTESTATION_BYTES] {
        let mut out = [0; ATTESTATION_BYTES];
        out[..DIGEST.at].copy_from_slice(&self.lsn.0.to_le_bytes());
        out[DIGEST.at..].copy_from_slice(&self.digest.0.to_le_bytes());
        out
    }

    /// `None` when the payload is not an attestation's.
    pub fn decode(payload: &[u8]) -> Option<Attestation> {
        let (lsn, digest) = payload.split_first_chunk::<8>()?;
        Some(Attestation {
            lsn: Lsn(u64::from_le_bytes(*lsn)),
            digest: Digest(u128::from_le_bytes(digest.try_into().ok()?)),
        })
    }
}
