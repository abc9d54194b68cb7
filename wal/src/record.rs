//! The record: the one unit that is written, sent, verified and applied.
//!
//! A record is a batch of consecutive commands with one header, encoded once by the primary. The
//! same bytes lie on every disk and cross every wire; nothing in them differs from node to node.

pub use crate::ids::{
    Ancestor, Chain, ClusterId, Epoch, History, Incarnation, Link, Lsn, NodeId, Nonce, Position,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// What a record carries. The number is the byte in the header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A batch of client commands.
    Commands = 1,
    /// A primary's first record.
    EpochStart = 2,
    /// Moves log time on an idle store.
    Tick = 3,
    /// Names an applied LSN and the digest of the state there.
    Attestation = 4,
    /// What an operator did, with who and why.
    Operator = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Commands,
            2 => Kind::EpochStart,
            3 => Kind::Tick,
            4 => Kind::Attestation,
            5 => Kind::Operator,
            _ => return None,
        })
    }
}

/// One field of a binary layout. Encoders and decoders index by it and the documents print it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub at: usize,
    pub len: usize,
    pub name: &'static str,
    pub meaning: &'static str,
}

/// True when the fields lie one after another and fill `size` bytes without gap or overlap.
pub const fn is_gapless(fields: &[Field], size: usize) -> bool {
    let mut end = 0;
    let mut i = 0;
    while i < fields.len() {
        if fields[i].at != end {
            return false;
        }
        end += fields[i].len;
        i += 1;
    }
    end == size
}

/// So that a table of fields reads as one.
pub const fn field(at: usize, len: usize, name: &'static str, meaning: &'static str) -> Field {
    Field {
        at,
        len,
        name,
        meaning,
    }
}

const CHAIN: Field = field(
    0,
    4,
    "chain",
    "CRC-32 of bytes 8.. of the record, seeded with `previous`",
);
const HEADER_CRC: Field = field(
    4,
    4,
    "header_crc",
    "CRC-32 of bytes 8..48: the lengths can be trusted",
);
const FIRST_LSN: Field = field(8, 8, "first_lsn", "LSN of the first command");
const EPOCH: Field = field(16, 8, "epoch", "epoch of the primary that built it");
const TIMESTAMP: Field = field(
    24,
    8,
    "timestamp",
    "ns since 1970 of the first command; command i has this + i",
);
const PAYLOAD_LEN: Field = field(32, 4, "payload_len", "bytes of payload, without padding");
const COUNT: Field = field(36, 4, "count", "number of commands, at least 1");
const PREVIOUS: Field = field(40, 4, "previous", "chain value of the record before");
const KIND: Field = field(
    44,
    1,
    "kind",
    "1 Commands, 2 EpochStart, 3 Tick, 4 Attestation, 5 Operator",
);
const VERSION: Field = field(45, 1, "version", "1");
const RESERVED: Field = field(46, 2, "reserved", "0");

/// The header of a record, as on disk and on the wire; little-endian.
pub const HEADER: [Field; 11] = [
    CHAIN,
    HEADER_CRC,
    FIRST_LSN,
    EPOCH,
    TIMESTAMP,
    PAYLOAD_LEN,
    COUNT,
    PREVIOUS,
    KIND,
    VERSION,
    RESERVED,
];
/// Bytes of a record's header. The payload follows, then zeros up to a multiple of 8.
pub const HEADER_BYTES: usize = 48;
/// The largest payload: what one decoder will take memory for.
pub const PAYLOAD_MAX: usize = 32 << 20;
const RECORD_VERSION: u8 = 1;
const _: () = assert!(is_gapless(&HEADER, HEADER_BYTES));

/// Why bytes are not the record that was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    #[error("fewer bytes than the record needs")]
    Short,
    #[error("the header's checksum does not match")]
    Header,
    #[error("record version {0} is not known to this program")]
    Version(u8),
    #[error("a header field is out of range")]
    Field,
    #[error("the payload's checksum does not match")]
    Payload,
    #[error("the record does not follow the one before it")]
    Order,
}

pub(crate) fn u32_at(bytes: &[u8], field: Field) -> u32 {
    u32::from_le_bytes(
        bytes[field.at..field.at + 4]
            .try_into()
            .expect("four bytes"),
    )
}

pub(crate) fn u64_at(bytes: &[u8], field: Field) -> u64 {
    u64::from_le_bytes(
        bytes[field.at..field.at + 8]
            .try_into()
            .expect("eight bytes"),
    )
}

/// What a verified record says about itself, without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Bytes of the whole record, padding included.
    pub size: usize,
    pub kind: Kind,
    pub epoch: Epoch,
    pub first_lsn: Lsn,
    pub count: u32,
    pub timestamp: u64,
    pub chain: Chain,
    pub previous_chain: Chain,
}

impl Head {
    /// The header at the start of `bytes`, proved by its own checksum; the payload and with it
    /// `chain` are not (`Record::check` does that).
    pub fn read(bytes: &[u8]) -> Result<Head, Damage> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Damage::Short)?;
        if crc32fast::hash(&bytes[8..]) != u32_at(bytes, HEADER_CRC) {
            return Err(Damage::Header);
        }
        if bytes[VERSION.at] != RECORD_VERSION {
            return Err(Damage::Version(bytes[VERSION.at]));
        }
        let payload = u32_at(bytes, PAYLOAD_LEN) as usize;
        let kind = Kind::from_byte(bytes[KIND.at]).ok_or(Damage::Field)?;
        let head = Head {
            size: record_bytes(payload.min(PAYLOAD_MAX)),
            kind,
            epoch: Epoch(u64_at(bytes, EPOCH)),
            first_lsn: Lsn(u64_at(bytes, FIRST_LSN)),
            count: u32_at(bytes, COUNT),
            timestamp: u64_at(bytes, TIMESTAMP),
            chain: Chain(u32_at(bytes, CHAIN)),
            previous_chain: Chain(u32_at(bytes, PREVIOUS)),
        };
        let count = u64::from(head.count);
        let in_range = payload <= PAYLOAD_MAX
            && head.count > 0
            && head.first_lsn > Lsn::ZERO
            && head.first_lsn.0.checked_add(count).is_some()
            && head.timestamp.checked_add(count).is_some()
            && bytes[RESERVED.at..RESERVED.at + 2] == [0, 0];
        if in_range {
            Ok(head)
        } else {
            Err(Damage::Field)
        }
    }

    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.count) - 1)
    }

    /// What the next record must follow.
    pub fn link(&self) -> Link {
        Link {
            position: Position {
                epoch: self.epoch,
                lsn: self.last_lsn(),
            },
            chain: self.chain,
            timestamp: self.timestamp + u64::from(self.count) - 1,
        }
    }

    /// Whether this record may stand right behind `link`.
    pub fn follows(&self, link: Link) -> Result<(), Damage> {
        let ok = self.first_lsn == link.position.lsn.next()
            && self.previous_chain == link.chain
            && self.epoch >= link.position.epoch
            && self.timestamp > link.timestamp;
        if ok { Ok(()) } else { Err(Damage::Order) }
    }
}

/// A verified record: header, payload, padding in one shared buffer. Cloning copies no bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Record {
    bytes: Bytes,
}

impl Record {
    /// Builds the record that follows `after`, with `count` commands in `payload`.
    /// `timestamp` must be above `after.timestamp`.
    pub fn build(
        after: Link,
        kind: Kind,
        epoch: Epoch,
        timestamp: u64,
        count: u32,
        payload: &[u8],
    ) -> Record {
        assert!(count > 0, "a record holds at least one command");
        assert!(
            payload.len() <= PAYLOAD_MAX,
            "payload of {} bytes",
            payload.len()
        );
        assert!(
            timestamp > after.timestamp,
            "log time rises: {timestamp} after {after:?}"
        );
        assert!(
            epoch >= after.position.epoch,
            "I3: epochs never fall: {epoch} after {after:?}"
        );
        let size = record_bytes(payload.len());
        let mut out = BytesMut::with_capacity(size);
        out.put_u64_le(0); // chain and header_crc, filled in below
        out.put_u64_le(after.position.lsn.next().0);
        out.put_u64_le(epoch.0);
        out.put_u64_le(timestamp);
        out.put_u32_le(payload.len() as u32);
        out.put_u32_le(count);
        out.put_u32_le(after.chain.0);
        out.put_u8(kind as u8);
        out.put_u8(RECORD_VERSION);
        out.put_u16_le(0);
        out.put_slice(payload);
        out.put_bytes(0, size - HEADER_BYTES - payload.len());
        let header_crc = crc32fast::hash(&out[8..HEADER_BYTES]);
        out[HEADER_CRC.at..HEADER_CRC.at + 4].copy_from_slice(&header_crc.to_le_bytes());
        let chain = chain_of(after.chain, &out);
        out[CHAIN.at..CHAIN.at + 4].copy_from_slice(&chain.0.to_le_bytes());
        Record {
            bytes: out.freeze(),
        }
    }

    /// How many bytes the record that starts at `bytes` takes, once its header is proved.
    /// `bytes` must hold at least the header.
    pub fn measure(bytes: &[u8]) -> Result<usize, Damage> {
        Ok(Head::read(bytes)?.size)
    }

    /// Verifies the record that starts at `bytes` by its own checksums, whatever came before it,
    /// without taking hold of it.
    pub fn check(bytes: &[u8]) -> Result<Head, Damage> {
        let head = Head::read(bytes)?;
        let record = bytes.get(..head.size).ok_or(Damage::Short)?;
        let padding_from = HEADER_BYTES + u32_at(bytes, PAYLOAD_LEN) as usize;
        if chain_of(head.previous_chain, record) != head.chain
            || record[padding_from..].iter().any(|byte| *byte != 0)
        {
            return Err(Damage::Payload);
        }
        Ok(head)
    }

    /// Verifies the record that starts at `bytes` by its own checksums, whatever came before it,
    /// and cuts it off the front.
    pub fn split_from(bytes: &mut Bytes) -> Result<Record, Damage> {
        let size = Record::check(bytes)?.size;
        Ok(Record {
            bytes: bytes.split_to(size),
        })
    }

    /// What the header says, as `check` gives it.
    pub fn head(&self) -> Head {
        Head {
            size: self.bytes.len(),
            kind: self.kind(),
            epoch: self.epoch(),
            first_lsn: self.first_lsn(),
            count: self.count(),
            timestamp: self.timestamp(),
            chain: self.chain(),
            previous_chain: self.previous_chain(),
        }
    }

    /// Whether this record may stand right behind `link`.
    pub fn follows(&self, link: Link) -> Result<(), Damage> {
        self.head().follows(link)
    }

    pub fn kind(&self) -> Kind {
        Kind::from_byte(self.bytes[KIND.at]).expect("checked when the record was made")
    }

    pub fn epoch(&self) -> Epoch {
        Epoch(u64_at(&self.bytes, EPOCH))
    }

    pub fn first_lsn(&self) -> Lsn {
        Lsn(u64_at(&self.bytes, FIRST_LSN))
    }

    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn().0 + u64::from(self.count()) - 1)
    }

    pub fn count(&self) -> u32 {
        u32_at(&self.bytes, COUNT)
    }

    /// Nanoseconds since 1970 of the first command; command i has this + i.
    pub fn timestamp(&self) -> u64 {
        u64_at(&self.bytes, TIMESTAMP)
    }

    pub fn chain(&self) -> Chain {
        Chain(u32_at(&self.bytes, CHAIN))
    }

    pub fn previous_chain(&self) -> Chain {
        Chain(u32_at(&self.bytes, PREVIOUS))
    }

    pub fn payload(&self) -> Bytes {
        let len = u32_at(&self.bytes, PAYLOAD_LEN) as usize;
        self.bytes.slice(HEADER_BYTES..HEADER_BYTES + len)
    }

    /// The whole record as it lies on disk and crosses the wire.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the next record must follow.
    pub fn link(&self) -> Link {
        self.head().link()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} @{} {}..{}",
            self.kind(),
            self.epoch(),
            self.first_lsn(),
            self.last_lsn()
        )
    }
}

/// Bytes that a record with this payload takes, padding included.
pub const fn record_bytes(payload: usize) -> usize {
    HEADER_BYTES + payload.next_multiple_of(8)
}

fn chain_of(previous: Chain, record: &[u8]) -> Chain {
    let mut hasher = crc32fast::Hasher::new_with_initial(previous.0);
    hasher.update(&record[8..]);
    Chain(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Link, Record) {
        let link = Link {
            position: Position {
                epoch: Epoch(2),
                lsn: Lsn(6),
            },
            chain: Chain(77),
            timestamp: 1000,
        };
        (
            link,
            Record::build(link, Kind::Commands, Epoch(3), 2000, 2, b"hello world"),
        )
    }

    #[test]
    fn a_record_reads_back_as_it_was_built() {
        let (link, record) = sample();
        let mut bytes = record.bytes().clone();
        let back = Record::split_from(&mut bytes).expect("intact");
        assert!(bytes.is_empty());
        assert_eq!(back, record);
        assert_eq!(back.follows(link), Ok(()));
        assert_eq!(back.payload(), &b"hello world"[..]);
        assert_eq!(
            (back.first_lsn(), back.last_lsn(), back.kind(), back.epoch()),
            (Lsn(7), Lsn(8), Kind::Commands, Epoch(3))
        );
        assert_eq!(back.link().timestamp, 2001);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let (_, record) = sample();
        for at in 0..record.bytes().len() {
            for bit in 0..8 {
                let mut bytes = record.bytes().to_vec();
                bytes[at] ^= 1 << bit;
                assert!(
                    Record::split_from(&mut bytes.into()).is_err(),
                    "byte {at} bit {bit}"
                );
            }
            assert!(
                Record::split_from(&mut record.bytes().slice(..at)).is_err(),
                "cut at {at}"
            );
        }
    }

    /// Positions come out of notes, stamps, kept files and peers' messages: any number may.
    #[test]
    fn nothing_follows_the_last_number() {
        let (link, record) = sample();
        let end = Position {
            lsn: Lsn(u64::MAX),
            ..link.position
        };
        let last = Link {
            position: end,
            ..link
        };
        assert_eq!(record.follows(last), Err(Damage::Order));
        assert_eq!(end.lsn.next(), end.lsn);
        let mut bytes = record.bytes().to_vec();
        bytes[FIRST_LSN.at..FIRST_LSN.at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let crc = crc32fast::hash(&bytes[8..HEADER_BYTES]);
        bytes[HEADER_CRC.at..HEADER_CRC.at + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Head::read(&bytes), Err(Damage::Field));
    }

    #[test]
    fn a_record_follows_only_its_own_predecessor() {
        let (link, record) = sample();
        for wrong in [
            Link {
                position: Position {
                    lsn: Lsn(5),
                    ..link.position
                },
                ..link
            },
            Link {
                position: Position {
                    epoch: Epoch(4),
                    ..link.position
                },
                ..link
            },
            Link {
                chain: Chain(78),
                ..link
            },
            Link {
                timestamp: 2000,
                ..link
            },
        ] {
            assert_eq!(record.follows(wrong), Err(Damage::Order), "{wrong:?}");
        }
    }
}
