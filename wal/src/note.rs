//! Small durable notes beside the segments: an announced cut or reset, and suspicion.
//!
//! A note is one fixed layout in one file that is replaced as a whole, so it is there or not.

use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::record::{
    Chain, Damage, Epoch, Field, History, Link, Lsn, Position, field, is_gapless, u32_at, u64_at,
};
use crate::segment::{put, u128_at};
use crate::storage::Storage;

/// The file that announces a cut or reset until it is done.
pub const INTENT: &str = "intent";
/// The file that says that the log is not to be believed before a primary verified it.
pub const SUSPECT: &str = "suspect";

const MAGIC: [u8; 8] = *b"SFWALNOT";
const NOTE_VERSION: u32 = 1;
const KEPT_MAX: usize = 96;
const NOTE_BYTES: usize = 200;

const NOTE_MAGIC: Field = field(0, 8, "magic", "\"SFWALNOT\"");
const VERSION: Field = field(8, 4, "version", "1");
const CRC: Field = field(12, 4, "crc", "CRC-32 of bytes 16..200");
const KIND: Field = field(16, 4, "kind", "1 cut, 2 reset, 3 suspect");
const CHAIN: Field = field(20, 4, "chain", "chain value of the last record that stays");
const EPOCH: Field = field(24, 8, "epoch", "epoch of that record");
const LSN: Field = field(32, 8, "lsn", "its last LSN");
const TIMESTAMP: Field = field(40, 8, "timestamp", "ns since 1970 of its last command");
const SEGMENT: Field = field(
    48,
    8,
    "segment",
    "cut: first LSN of the segment that is cut",
);
const OFFSET: Field = field(56, 8, "offset", "cut: where zeros begin in it");
const VERIFIED: Field = field(
    64,
    8,
    "verified",
    "reset: segments up to this LSN are removed, later ones kept aside",
);
const GENERATION: Field = field(72, 8, "generation", "reset: number of the new history");
const HISTORY: Field = field(80, 16, "history", "reset: id of the new history");
const KEPT: Field = field(
    96,
    KEPT_MAX,
    "kept",
    "suspect: name of the file with what was cut, padded with zeros",
);
const RESERVED: Field = field(192, 8, "reserved", "0");

/// A note. Little-endian.
pub const NOTE: [Field; 15] = [
    NOTE_MAGIC, VERSION, CRC, KIND, CHAIN, EPOCH, LSN, TIMESTAMP, SEGMENT, OFFSET, VERIFIED,
    GENERATION, HISTORY, KEPT, RESERVED,
];
const _: () = assert!(is_gapless(&NOTE, NOTE_BYTES));

/// What is announced or remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// Everything above `after` goes: later segments are removed, this one is zeroed from
    /// `offset` on.
    Cut {
        after: Link,
        segment: Lsn,
        offset: u64,
    },
    /// All segments go; a prepared one that begins behind `base` takes their place.
    Reset {
        base: Link,
        history: History,
        verified: Lsn,
    },
    /// The log was cut behind `tail` where acknowledged records may have stood.
    Suspect { tail: Link, kept: String },
}

impl Note {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; NOTE_BYTES];
        put(&mut out, NOTE_MAGIC, &MAGIC);
        put(&mut out, VERSION, &NOTE_VERSION.to_le_bytes());
        let (kind, link) = match self {
            Note::Cut { after, .. } => (1u32, after),
            Note::Reset { base, .. } => (2, base),
            Note::Suspect { tail, .. } => (3, tail),
        };
        put(&mut out, KIND, &kind.to_le_bytes());
        put(&mut out, CHAIN, &link.chain.0.to_le_bytes());
        put(&mut out, EPOCH, &link.position.epoch.0.to_le_bytes());
        put(&mut out, LSN, &link.position.lsn.0.to_le_bytes());
        put(&mut out, TIMESTAMP, &link.timestamp.to_le_bytes());
        match self {
            Note::Cut {
                segment, offset, ..
            } => {
                put(&mut out, SEGMENT, &segment.0.to_le_bytes());
                put(&mut out, OFFSET, &offset.to_le_bytes());
            }
            Note::Reset {
                history, verified, ..
            } => {
                put(&mut out, VERIFIED, &verified.0.to_le_bytes());
                put(&mut out, GENERATION, &history.generation.to_le_bytes());
                put(&mut out, HISTORY, &history.id.to_le_bytes());
            }
            Note::Suspect { kept, .. } => {
                let len = kept.len();
                assert!(len <= KEPT_MAX, "names of kept files are short: {kept}");
                out[KEPT.at..KEPT.at + len].copy_from_slice(kept.as_bytes());
            }
        }
        let crc = crc32fast::hash(&out[KIND.at..]);
        put(&mut out, CRC, &crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Note, ErrorKind> {
        let damaged = || ErrorKind::Damaged(Damage::Field);
        if bytes.len() != NOTE_BYTES
            || bytes[..MAGIC.len()] != MAGIC
            || u32_at(bytes, CRC) != crc32fast::hash(&bytes[KIND.at..])
        {
            return Err(damaged());
        }
        if u32_at(bytes, VERSION) != NOTE_VERSION {
            return Err(ErrorKind::Version(u32_at(bytes, VERSION)));
        }
        let link = Link {
            position: Position {
                epoch: Epoch(u64_at(bytes, EPOCH)),
                lsn: Lsn(u64_at(bytes, LSN)),
            },
            chain: Chain(u32_at(bytes, CHAIN)),
            timestamp: u64_at(bytes, TIMESTAMP),
        };
        Ok(match u32_at(bytes, KIND) {
            1 => Note::Cut {
                after: link,
                segment: Lsn(u64_at(bytes, SEGMENT)),
                offset: u64_at(bytes, OFFSET),
            },
            2 => Note::Reset {
                base: link,
                history: History {
                    generation: u64_at(bytes, GENERATION),
                    id: u128_at(bytes, HISTORY),
                },
                verified: Lsn(u64_at(bytes, VERIFIED)),
            },
            3 => {
                let kept = &bytes[KEPT.at..KEPT.at + KEPT_MAX];
                let kept = kept.split(|byte| *byte == 0).next().unwrap_or_default();
                Note::Suspect {
                    tail: link,
                    kept: String::from_utf8(kept.to_vec()).map_err(|_| damaged())?,
                }
            }
            _ => return Err(damaged()),
        })
    }

    /// Makes the note durable.
    pub fn write<S: Storage>(&self, storage: &S, name: &str) -> Result<(), Error> {
        durable::replace(storage, name, &self.encode()).map_err(Error::io(name, "write the note"))
    }

    /// The note, if there is one. A damaged note is an error: it said something that must not be
    /// forgotten.
    pub fn read<S: Storage>(storage: &S, name: &str) -> Result<Option<Note>, Error> {
        let bytes = durable::read(storage, name).map_err(Error::io(name, "read the note"))?;
        let note = bytes.map(|bytes| Note::decode(&bytes)).transpose();
        note.map_err(|kind| Error::new(name, kind))
    }

    /// Forgets the note durably.
    pub fn remove<S: Storage>(storage: &S, name: &str) -> Result<(), Error> {
        durable::remove(storage, name).map_err(Error::io(name, "remove the note"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_back_and_every_flipped_bit_is_refused() {
        let link = Link {
            position: Position {
                epoch: Epoch(3),
                lsn: Lsn(70),
            },
            chain: Chain(9),
            timestamp: 11,
        };
        let notes = [
            Note::Cut {
                after: link,
                segment: Lsn(5),
                offset: 4096,
            },
            Note::Reset {
                base: link,
                history: History {
                    generation: 2,
                    id: 1 << 99,
                },
                verified: Lsn(60),
            },
            Note::Suspect {
                tail: link,
                kept: "divergent/torn".into(),
            },
        ];
        for note in notes {
            let bytes = note.encode();
            assert_eq!(Note::decode(&bytes).expect("intact"), note);
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Note::decode(&damaged).is_err(), "bit {bit} of {note:?}");
            }
            assert!(Note::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
