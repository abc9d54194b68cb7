//! One segment file: its header, the stamps between the records, preparation and sealing.
//!
//! A segment is 4 KiB of header, then stamp and record in turn, then one closing stamp, then
//! zeros. The header stands there twice, so that damage to one copy loses nothing. A stamp is this
//! node's own note; the record behind it is the same on every node. Each write of a group ends
//! with a closing stamp, which the first stamp of the next write replaces: where it is missing
//! the write cannot have been finished, and so cannot have been acknowledged.

use crate::error::{Error, ErrorKind};
use crate::log::Identity;
use crate::record::{
    Chain, ClusterId, Epoch, Field, HEADER_BYTES, History, Incarnation, Link, Lsn, NodeId,
    Position, field, is_gapless, u32_at, u64_at,
};
use crate::scan::used_end;
use crate::storage::{File, Storage};

/// Bytes before the first stamp: two copies of the header.
pub const HEADER_AREA: u64 = 4096;
const COPY_BYTES: usize = 2048;
const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"SFWALSEG";

const HEADER_MAGIC: Field = field(0, 8, "magic", "\"SFWALSEG\"");
const HEADER_VERSION: Field = field(8, 4, "version", "1");
const HEADER_CRC: Field = field(
    12,
    4,
    "crc",
    "CRC-32 of the other bytes of this copy, in order",
);
const CLUSTER: Field = field(16, 16, "cluster", "id of the cluster");
const INCARNATION: Field = field(32, 16, "incarnation", "id of the data directory's life");
const GENERATION: Field = field(48, 8, "generation", "number of the history");
const HISTORY: Field = field(56, 16, "history", "id of the history");
const NODE: Field = field(72, 4, "node", "number of the node");
const BASE_CHAIN: Field = field(76, 4, "base_chain", "chain value of the record before");
const BASE_EPOCH: Field = field(80, 8, "base_epoch", "epoch of the record before");
const BASE_LSN: Field = field(
    88,
    8,
    "base_lsn",
    "last LSN before this segment; the file is named by the next",
);
const BASE_TIMESTAMP: Field = field(
    96,
    8,
    "base_timestamp",
    "ns since 1970 of the command before",
);
const SEGMENT_BYTES: Field = field(104, 8, "segment_bytes", "length of the file");
const PREVIOUS_FIRST: Field = field(
    112,
    8,
    "previous_first_lsn",
    "first LSN of the segment before, 0 for none",
);
const HEADER_RESERVED: Field = field(120, 1928, "reserved", "0");

/// One copy of a segment's header; the second follows at 2048. Little-endian.
pub const SEGMENT_HEADER: [Field; 15] = [
    HEADER_MAGIC,
    HEADER_VERSION,
    HEADER_CRC,
    CLUSTER,
    INCARNATION,
    GENERATION,
    HISTORY,
    NODE,
    BASE_CHAIN,
    BASE_EPOCH,
    BASE_LSN,
    BASE_TIMESTAMP,
    SEGMENT_BYTES,
    PREVIOUS_FIRST,
    HEADER_RESERVED,
];
const _: () = assert!(is_gapless(&SEGMENT_HEADER, COPY_BYTES));
const _: () = assert!(2 * COPY_BYTES as u64 == HEADER_AREA);

const DURABLE_THROUGH: Field = field(
    0,
    8,
    "durable_through",
    "last LSN known durable here when this was written",
);
const PLACE: Field = field(
    8,
    4,
    "place",
    "offset of this stamp in the file / 8; highest bit: the segment is sealed here",
);
const STAMP_CRC: Field = field(
    12,
    4,
    "crc",
    "CRC-32 of bytes 0..12, seeded with the CRC-32 of cluster, incarnation, first LSN",
);

/// The stamp before each record and behind the last one of each write. Little-endian.
pub const STAMP: [Field; 3] = [DURABLE_THROUGH, PLACE, STAMP_CRC];
/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 16;
const SEALED_BIT: u32 = 1 << 31;
const _: () = assert!(is_gapless(&STAMP, STAMP_BYTES));
// The place must fit in 31 bits of eight bytes each.
const SEGMENT_BYTES_MAX: u64 = 8 << 31;

/// What ties a stamp to its segment: bytes that were a stamp elsewhere are none here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Salt(u32);

/// A stamp that was verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub durable_through: Lsn,
    /// The segment ends here, and the next one exists.
    pub sealed: bool,
}

impl Stamp {
    pub fn encode(self, salt: Salt, offset: u64) -> [u8; STAMP_BYTES] {
        let place = u32::try_from(offset / 8).expect("offsets are below SEGMENT_BYTES_MAX");
        assert!(
            offset.is_multiple_of(8) && place & SEALED_BIT == 0,
            "a stamp stands at a multiple of 8 below the limit: {offset}"
        );
        let seal = if self.sealed { SEALED_BIT } else { 0 };
        let mut out = [0; STAMP_BYTES];
        put(
            &mut out,
            DURABLE_THROUGH,
            &self.durable_through.0.to_le_bytes(),
        );
        put(&mut out, PLACE, &(place | seal).to_le_bytes());
        let crc = seeded_crc(salt, &out[..STAMP_CRC.at]);
        put(&mut out, STAMP_CRC, &crc.to_le_bytes());
        out
    }

    /// The stamp at the start of `bytes`, which stand at `offset` in the file; `None` if there
    /// is no undamaged one.
    pub fn decode(salt: Salt, offset: u64, bytes: &[u8]) -> Option<Stamp> {
        let bytes = bytes.get(..STAMP_BYTES)?;
        let place = u32_at(bytes, PLACE);
        // Comparing the place first spares most of the checksums when scanning damaged bytes.
        if u64::from(place & !SEALED_BIT) != offset / 8
            || u32_at(bytes, STAMP_CRC) != seeded_crc(salt, &bytes[..STAMP_CRC.at])
        {
            return None;
        }
        Some(Stamp {
            durable_through: Lsn(u64_at(bytes, DURABLE_THROUGH)),
            sealed: place & SEALED_BIT != 0,
        })
    }
}

fn seeded_crc(salt: Salt, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt.0);
    hasher.update(bytes);
    hasher.finalize()
}

pub(crate) fn put(out: &mut [u8], field: Field, value: &[u8]) {
    out[field.at..field.at + field.len].copy_from_slice(value);
}

pub(crate) fn u128_at(bytes: &[u8], field: Field) -> u128 {
    let at = bytes[field.at..field.at + 16]
        .try_into()
        .expect("sixteen bytes");
    u128::from_le_bytes(at)
}

/// What a segment says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub identity: Identity,
    pub history: History,
    /// What the first record follows.
    pub base: Link,
    /// The length of the file.
    pub segment_bytes: u64,
    /// Zero where there was no segment before.
    pub previous_first_lsn: Lsn,
}

impl Header {
    pub fn first_lsn(&self) -> Lsn {
        self.base.position.lsn.next()
    }

    pub fn salt(&self) -> Salt {
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&self.identity.cluster.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.identity.incarnation.0.to_le_bytes());
        bytes[32..].copy_from_slice(&self.first_lsn().0.to_le_bytes());
        Salt(crc32fast::hash(&bytes))
    }

    /// Where records must end: the closing stamp has to fit behind the last one.
    pub fn records_end(&self) -> u64 {
        self.segment_bytes - STAMP_BYTES as u64
    }

    /// Both copies, ready to be written at offset 0.
    pub fn encode(&self) -> Vec<u8> {
        let mut copy = vec![0; COPY_BYTES];
        put(&mut copy, HEADER_MAGIC, &MAGIC);
        put(&mut copy, HEADER_VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut copy, CLUSTER, &self.identity.cluster.0.to_le_bytes());
        put(
            &mut copy,
            INCARNATION,
            &self.identity.incarnation.0.to_le_bytes(),
        );
        put(
            &mut copy,
            GENERATION,
            &self.history.generation.to_le_bytes(),
        );
        put(&mut copy, HISTORY, &self.history.id.to_le_bytes());
        put(&mut copy, NODE, &self.identity.node.0.to_le_bytes());
        put(&mut copy, BASE_CHAIN, &self.base.chain.0.to_le_bytes());
        put(
            &mut copy,
            BASE_EPOCH,
            &self.base.position.epoch.0.to_le_bytes(),
        );
        put(&mut copy, BASE_LSN, &self.base.position.lsn.0.to_le_bytes());
        put(
            &mut copy,
            BASE_TIMESTAMP,
            &self.base.timestamp.to_le_bytes(),
        );
        put(&mut copy, SEGMENT_BYTES, &self.segment_bytes.to_le_bytes());
        put(
            &mut copy,
            PREVIOUS_FIRST,
            &self.previous_first_lsn.0.to_le_bytes(),
        );
        let crc = header_crc(&copy);
        put(&mut copy, HEADER_CRC, &crc.to_le_bytes());
        copy.extend_from_within(..);
        copy
    }

    /// The header from the bytes of the header area, and whether both copies were sound.
    pub fn decode(area: &[u8]) -> Result<(Header, bool), HeaderDamage> {
        let copies = [area.get(..COPY_BYTES), area.get(COPY_BYTES..2 * COPY_BYTES)];
        let [first, second] = copies.map(|copy| copy.map_or(Err(HeaderDamage::Bytes), decode_copy));
        match (first, second) {
            (Ok(first), Ok(second)) if first == second => Ok((first, true)),
            // Two sound copies that differ were never written by this program.
            (Ok(_), Ok(_)) => Err(HeaderDamage::Bytes),
            (Ok(header), Err(_)) | (Err(_), Ok(header)) => Ok((header, false)),
            (Err(HeaderDamage::Version(found)), _) | (_, Err(HeaderDamage::Version(found))) => {
                Err(HeaderDamage::Version(found))
            }
            (Err(damage), Err(_)) => Err(damage),
        }
    }
}

/// Why there is no header to believe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderDamage {
    Bytes,
    Version(u32),
}

fn header_crc(copy: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&copy[..HEADER_CRC.at]);
    hasher.update(&copy[HEADER_CRC.at + HEADER_CRC.len..]);
    hasher.finalize()
}

fn decode_copy(copy: &[u8]) -> Result<Header, HeaderDamage> {
    if copy[..MAGIC.len()] != MAGIC || u32_at(copy, HEADER_CRC) != header_crc(copy) {
        return Err(HeaderDamage::Bytes);
    }
    let version = u32_at(copy, HEADER_VERSION);
    if version != FORMAT_VERSION {
        return Err(HeaderDamage::Version(version));
    }
    let header = Header {
        identity: Identity {
            cluster: ClusterId(u128_at(copy, CLUSTER)),
            node: NodeId(u32_at(copy, NODE)),
            incarnation: Incarnation(u128_at(copy, INCARNATION)),
        },
        history: History {
            generation: u64_at(copy, GENERATION),
            id: u128_at(copy, HISTORY),
        },
        base: Link {
            position: Position {
                epoch: Epoch(u64_at(copy, BASE_EPOCH)),
                lsn: Lsn(u64_at(copy, BASE_LSN)),
            },
            chain: Chain(u32_at(copy, BASE_CHAIN)),
            timestamp: u64_at(copy, BASE_TIMESTAMP),
        },
        segment_bytes: u64_at(copy, SEGMENT_BYTES),
        previous_first_lsn: Lsn(u64_at(copy, PREVIOUS_FIRST)),
    };
    let in_range = (bytes_for(0)..=SEGMENT_BYTES_MAX).contains(&header.segment_bytes)
        && header.segment_bytes.is_multiple_of(8)
        && header.base.position.lsn.0 < u64::MAX
        && used_end(copy, HEADER_RESERVED.at) == HEADER_RESERVED.at;
    if in_range {
        Ok(header)
    } else {
        Err(HeaderDamage::Bytes)
    }
}

/// The smallest segment that can hold one record of this size (and its two stamps).
pub fn bytes_for(record_bytes: usize) -> u64 {
    let stamps = 2 * STAMP_BYTES;
    (HEADER_AREA + (stamps + record_bytes.max(HEADER_BYTES)) as u64).next_multiple_of(HEADER_AREA)
}

const SUFFIX: &str = ".wal";

/// The file name of the segment that begins with `first_lsn`; names sort as LSNs do.
pub fn name(first_lsn: Lsn) -> String {
    format!("{:020}{SUFFIX}", first_lsn.0)
}

/// The first LSN in a segment's file name; `None` for other files.
pub fn first_lsn_of(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok().map(Lsn))?
}

/// Reads and judges the header of a segment file.
pub fn read_header<S: Storage>(storage: &S, name: &str) -> Result<(Header, bool), Error> {
    let file = storage
        .open(name)
        .map_err(Error::io(name, "open the segment"))?;
    let len = file.len().map_err(Error::io(name, "read the segment"))?;
    let mut area = vec![0; usize::try_from(HEADER_AREA.min(len)).expect("at most 4096")];
    file.read_at(0, &mut area)
        .map_err(Error::io(name, "read the segment"))?;
    Header::decode(&area).map_err(|damage| {
        let kind = match damage {
            HeaderDamage::Bytes => ErrorKind::Damaged(crate::record::Damage::Header),
            HeaderDamage::Version(found) => ErrorKind::Version(found),
        };
        let error = Error::new(name, kind).at(0);
        match first_lsn_of(name) {
            Some(lsn) => error.lsn(lsn),
            None => error,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            identity: Identity {
                cluster: ClusterId(1 << 100),
                node: NodeId(3),
                incarnation: Incarnation(77),
            },
            history: History {
                generation: 2,
                id: 5 << 80,
            },
            base: Link {
                position: Position {
                    epoch: Epoch(4),
                    lsn: Lsn(999),
                },
                chain: Chain(0xabcd),
                timestamp: 123,
            },
            segment_bytes: 65536,
            previous_first_lsn: Lsn(500),
        }
    }

    #[test]
    fn one_damaged_byte_anywhere_in_the_header_area_loses_nothing() {
        let header = sample();
        let area = header.encode();
        assert_eq!(area.len() as u64, HEADER_AREA);
        assert_eq!(Header::decode(&area), Ok((header, true)));
        for at in 0..area.len() {
            let mut damaged = area.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(Header::decode(&damaged), Ok((header, false)), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let mut area = sample().encode();
        for copy in area.chunks_exact_mut(COPY_BYTES) {
            put(copy, HEADER_VERSION, &9u32.to_le_bytes());
            let crc = header_crc(copy);
            put(copy, HEADER_CRC, &crc.to_le_bytes());
        }
        assert_eq!(Header::decode(&area), Err(HeaderDamage::Version(9)));
    }

    #[test]
    fn a_stamp_is_one_only_in_its_own_place_and_undamaged() {
        let (salt, stamp) = (
            sample().salt(),
            Stamp {
                durable_through: Lsn(41),
                sealed: true,
            },
        );
        let bytes = stamp.encode(salt, 4160);
        assert_eq!(Stamp::decode(salt, 4160, &bytes), Some(stamp));
        assert_eq!(Stamp::decode(salt, 4168, &bytes), None);
        assert_eq!(Stamp::decode(Salt(salt.0 ^ 1), 4160, &bytes), None);
        for bit in 0..STAMP_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::decode(salt, 4160, &damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn names_sort_as_lsns_do() {
        assert!(name(Lsn(9)) < name(Lsn(10)));
        assert_eq!(first_lsn_of(&name(Lsn(u64::MAX))), Some(Lsn(u64::MAX)));
        for other in [
            "prepared",
            "0000000000000000001.wal",
            "+0000000000000000001.wal",
        ] {
            assert_eq!(first_lsn_of(other), None, "{other}");
        }
    }
}
