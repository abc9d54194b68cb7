//! What an Attestation record says: the digest of the state at an LSN applied before it.

use super::digest::Digest;
use standfast_wal::record::is_gapless;
use standfast_wal::{Field, Lsn};

const LSN: Field = Field {
    at: 0,
    len: 8,
    name: "lsn",
    meaning: "the last LSN applied when it was ordered; below the record's own",
};
const DIGEST: Field = Field {
    at: 8,
    len: 16,
    name: "digest",
    meaning: "digest of the state right after that LSN",
};

/// The payload of an Attestation record; little-endian.
pub const ATTESTATION: [Field; 2] = [LSN, DIGEST];
/// Bytes of an Attestation's payload.
pub const ATTESTATION_BYTES: usize = 24;
const _: () = assert!(is_gapless(&ATTESTATION, ATTESTATION_BYTES));

/// The digest of the state right after an LSN, for every copy to be held against (I2).
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

    /// `None` if the payload is not exactly one attestation.
    pub fn decode(payload: &[u8]) -> Option<Attestation> {
        let payload: &[u8; ATTESTATION_BYTES] = payload.try_into().ok()?;
        let (lsn, digest) = payload.split_at(DIGEST.at);
        Some(Attestation {
            lsn: Lsn(u64::from_le_bytes(lsn.try_into().ok()?)),
            digest: Digest(u128::from_le_bytes(digest.try_into().ok()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attestation_reads_back_and_other_lengths_are_refused() {
        let attestation = Attestation {
            lsn: Lsn(0x0102_0304_0506_0708),
            digest: Digest(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20),
        };
        let bytes = attestation.encode();
        assert_eq!((bytes[0], bytes[8]), (0x08, 0x20), "little-endian");
        assert_eq!(Attestation::decode(&bytes), Some(attestation));
        assert_eq!(Attestation::decode(&bytes[..23]), None);
        assert_eq!(Attestation::decode(&[&bytes[..], &[0]].concat()), None);
    }
}
