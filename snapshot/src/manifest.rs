//! A manifest: what was put into the archive of one history since the manifest before it.
//!
//! The names of the pieces of log alone tell of a piece that is gone only if a later one is there.
//! A manifest is put behind some pieces, and behind each snapshot: whatever it names must be there.
//! It is put if nobody has its name; two nodes that ship at once may name the same objects twice,
//! and both are right. `expire` removes it before what it names.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::error::{Error, Reason};
use crate::layout::{
    Layout, VERSION, VERSION_AT, check_front, field, put, u32_at, u64_at, u128_at,
};
use standfast_wal::record::is_gapless;
use standfast_wal::{ClusterId, Field, History, Lsn};

const MAGIC: &[u8; 8] = b"sfmanif\n";
/// What one manifest names at most.
pub const ENTRIES_MAX: usize = 1 << 16;

const CRC: Field = field(12, 4, "crc", "CRC-32 of byte 16 to the end");
const CLUSTER: Field = field(16, 16, "cluster", "random id of the cluster");
const GENERATION: Field = field(32, 8, "generation", "number of the history");
const HISTORY: Field = field(40, 16, "history_id", "random id of the history");
const LSN: Field = field(56, 8, "lsn", "up to where the archive has the log");
const SNAPSHOT: Field = field(64, 8, "snapshot_lsn", "LSN of the newest snapshot; 0: none");
const PREVIOUS: Field = field(72, 16, "previous", "both of the manifest before; 0: none");
const ENTRIES: Field = field(88, 4, "entries", "number of entries, which follow");
const RESERVED: Field = field(92, 4, "reserved", "0");

/// The fixed part of a manifest; little-endian.
pub const MANIFEST: [Field; 11] = [
    field(0, 8, "magic", "`sfmanif\\n`"),
    VERSION_AT,
    CRC,
    CLUSTER,
    GENERATION,
    HISTORY,
    LSN,
    SNAPSHOT,
    PREVIOUS,
    ENTRIES,
    RESERVED,
];
pub const MANIFEST_BYTES: usize = 96;
const _: () = assert!(is_gapless(&MANIFEST, MANIFEST_BYTES));

const E_FIRST: Field = field(0, 8, "first", "first LSN of a piece of log; 0: a snapshot");
const E_LAST: Field = field(8, 8, "last", "its last LSN; the snapshot's LSN");
const E_BYTES: Field = field(16, 8, "bytes", "length of the object");
const E_BLAKE3: Field = field(
    24,
    32,
    "blake3",
    "the digest that the object's own head has",
);

/// One object that was put.
pub const ENTRY: [Field; 4] = [E_FIRST, E_LAST, E_BYTES, E_BLAKE3];
pub const ENTRY_BYTES: usize = 56;
const _: () = assert!(is_gapless(&ENTRY, ENTRY_BYTES));

/// The layouts of this file, for the document of formats.
pub(crate) const LAYOUTS: [Layout; 2] = [
    Layout {
        name: "manifest",
        bytes: MANIFEST_BYTES,
        fields: &MANIFEST,
    },
    Layout {
        name: "manifest entry",
        bytes: ENTRY_BYTES,
        fields: &ENTRY,
    },
];

/// Which manifest of a history: up to where there was log, and the newest snapshot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ManifestId {
    pub lsn: Lsn,
    pub snapshot_lsn: Lsn,
}

/// One object that was put: a piece of log, or a snapshot, whose `first` is LSN 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Named {
    pub first: Lsn,
    pub last: Lsn,
    pub bytes: u64,
    pub blake3: [u8; 32],
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub cluster: ClusterId,
    pub history: History,
    pub id: ManifestId,
    /// All zeros: this is the first.
    pub previous: ManifestId,
    pub named: Vec<Named>,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.named.len() <= ENTRIES_MAX,
            "{} entries",
            self.named.len()
        );
        let count = u32::try_from(self.named.len()).expect("at most ENTRIES_MAX");
        let mut out = vec![0; MANIFEST_BYTES];
        put(&mut out, MANIFEST[0], MAGIC);
        put(&mut out, VERSION_AT, &VERSION.to_le_bytes());
        put(&mut out, CLUSTER, &self.cluster.0.to_le_bytes());
        put(&mut out, GENERATION, &self.history.generation.to_le_bytes());
        put(&mut out, HISTORY, &self.history.id.to_le_bytes());
        put(&mut out, LSN, &self.id.lsn.0.to_le_bytes());
        put(&mut out, SNAPSHOT, &self.id.snapshot_lsn.0.to_le_bytes());
        let previous = [self.previous.lsn, self.previous.snapshot_lsn];
        put(
            &mut out,
            PREVIOUS,
            &previous.map(|lsn| lsn.0.to_le_bytes()).concat(),
        );
        put(&mut out, ENTRIES, &count.to_le_bytes());
        for one in &self.named {
            let mut entry = [0; ENTRY_BYTES];
            put(&mut entry, E_FIRST, &one.first.0.to_le_bytes());
            put(&mut entry, E_LAST, &one.last.0.to_le_bytes());
            put(&mut entry, E_BYTES, &one.bytes.to_le_bytes());
            put(&mut entry, E_BLAKE3, &one.blake3);
            out.extend_from_slice(&entry);
        }
        let crc = crc32fast::hash(&out[CLUSTER.at..]);
        put(&mut out, CRC, &crc.to_le_bytes());
        out
    }

    pub fn decode(file: &str, bytes: &[u8]) -> Result<Manifest, Error> {
        check_front(file, bytes, MANIFEST_BYTES, MAGIC, "manifest")?;
        if crc32fast::hash(&bytes[CLUSTER.at..]) != u32_at(bytes, CRC) {
            return Err(Error::new(file, 0, Reason::Checksum("manifest")));
        }
        let count = u32_at(bytes, ENTRIES) as usize;
        let entries = &bytes[MANIFEST_BYTES..];
        if count > ENTRIES_MAX || entries.len() != count * ENTRY_BYTES {
            let reason = Reason::Field("the manifest's length");
            return Err(Error::new(file, ENTRIES.at as u64, reason));
        }
        let named = entries.chunks_exact(ENTRY_BYTES).map(|one| Named {
            first: Lsn(u64_at(one, E_FIRST)),
            last: Lsn(u64_at(one, E_LAST)),
            bytes: u64_at(one, E_BYTES),
            blake3: *one[E_BLAKE3.at..].first_chunk().expect("ENTRY_BYTES"),
        });
        let second = Field {
            at: PREVIOUS.at + 8,
            ..PREVIOUS
        };
        Ok(Manifest {
            cluster: ClusterId(u128_at(bytes, CLUSTER)),
            history: History {
                generation: u64_at(bytes, GENERATION),
                id: u128_at(bytes, HISTORY),
            },
            id: ManifestId {
                lsn: Lsn(u64_at(bytes, LSN)),
                snapshot_lsn: Lsn(u64_at(bytes, SNAPSHOT)),
            },
            previous: ManifestId {
                lsn: Lsn(u64_at(bytes, PREVIOUS)),
                snapshot_lsn: Lsn(u64_at(bytes, second)),
            },
            named: named.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{CLUSTER, history};

    #[test]
    fn a_manifest_survives_its_bytes_and_nothing_else_is_taken_for_one() {
        let named = |first, last| Named {
            first: Lsn(first),
            last: Lsn(last),
            bytes: 4711,
            blake3: [9; 32],
        };
        let manifest = Manifest {
            cluster: CLUSTER,
            history: history(3),
            id: ManifestId {
                lsn: Lsn(90),
                snapshot_lsn: Lsn(80),
            },
            previous: ManifestId {
                lsn: Lsn(70),
                snapshot_lsn: Lsn(60),
            },
            named: vec![named(71, 90), named(0, 80)],
        };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode("memory", &bytes).unwrap(), manifest);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(Manifest::decode("memory", &bad).is_err(), "byte {at}");
            assert!(
                Manifest::decode("memory", &bytes[..at]).is_err(),
                "cut at {at}"
            );
        }
    }
}
