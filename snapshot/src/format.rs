//! The layout of a snapshot file, field by field; pure: bytes in, types out.
//!
//! `header | name, ancestors, epoch table, state head | (block head | zstd frame)* | index |
//! footer`
//!
//! Everything lies gapless, and every byte is under a checksum of its own part, so that damage is
//! named by its place; the footer's BLAKE3 over all that lies before it is the proof that the parts
//! belong together.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::error::{Error, Reason};
use crate::layout::{
    Layout, VERSION, VERSION_AT, check_front, field, put, u32_at, u64_at, u128_at,
};
use bytes::{BufMut, Bytes};
use standfast_wal::record::is_gapless;
use standfast_wal::{Chain, ClusterId, Epoch, Field, History, Link, Lsn, NodeId, Position};

/// The largest block before compression: what one loader thread takes memory for.
pub const BLOCK_RAW_MAX: usize = 256 << 20;
/// The largest variable part of the header.
pub const TAIL_MAX: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"sfsnap\r\n";
const END_MAGIC: &[u8; 8] = b"sfsnend\n";

const H_MAGIC: Field = field(0, 8, "magic", "`sfsnap\\r\\n`");
const H_CRC: Field = field(12, 4, "header_crc", "CRC-32 of bytes 16..160");
const H_TAIL: Field = field(16, 4, "tail_bytes", "bytes of name, ancestors, table, head");
const H_TAIL_CRC: Field = field(20, 4, "tail_crc", "CRC-32 of those bytes");
const H_CLUSTER: Field = field(24, 16, "cluster", "random id of the cluster");
const H_GENERATION: Field = field(40, 8, "generation", "number of the history");
const H_HISTORY: Field = field(48, 16, "history_id", "random id of the history");
const H_EPOCH: Field = field(64, 8, "epoch", "epoch of the last record contained");
const H_LSN: Field = field(72, 8, "lsn", "the state is that after this LSN");
const H_TIMESTAMP: Field = field(80, 8, "timestamp", "ns since 1970 of that LSN");
const H_CHAIN: Field = field(88, 4, "chain", "chain value of the record that ends there");
const H_NODE: Field = field(92, 4, "node", "number of the node that wrote it");
const H_DIGEST: Field = field(96, 16, "digest", "state digest at that LSN");
const H_COUNTS: Field = field(112, 32, "counts", "four u64 of the state's: what it holds");
const H_NAME: Field = field(144, 4, "name_bytes", "length of the cluster's name");
const H_ANCESTORS: Field = field(148, 4, "ancestors", "number of histories forked from");
const H_TABLE: Field = field(152, 4, "epoch_table_bytes", "length of the table of epochs");
const H_HEAD: Field = field(156, 4, "state_head_bytes", "length of the state's own head");

/// The fixed part of the header; little-endian, like everything here.
pub const HEADER: [Field; 19] = [
    H_MAGIC,
    VERSION_AT,
    H_CRC,
    H_TAIL,
    H_TAIL_CRC,
    H_CLUSTER,
    H_GENERATION,
    H_HISTORY,
    H_EPOCH,
    H_LSN,
    H_TIMESTAMP,
    H_CHAIN,
    H_NODE,
    H_DIGEST,
    H_COUNTS,
    H_NAME,
    H_ANCESTORS,
    H_TABLE,
    H_HEAD,
];
pub const HEADER_BYTES: usize = 160;
const _: () = assert!(is_gapless(&HEADER, HEADER_BYTES));

const A_GENERATION: Field = field(0, 8, "generation", "number of the history forked from");
const A_HISTORY: Field = field(8, 16, "history_id", "its random id");
const A_LSN: Field = field(24, 8, "lsn", "last LSN surely shared with it");

/// One ancestor, oldest first.
pub const ANCESTOR: [Field; 3] = [A_GENERATION, A_HISTORY, A_LSN];
pub const ANCESTOR_BYTES: usize = 32;
const _: () = assert!(is_gapless(&ANCESTOR, ANCESTOR_BYTES));

const B_CRC: Field = field(0, 4, "head_crc", "CRC-32 of bytes 4..32");
const B_STORED_CRC: Field = field(4, 4, "stored_crc", "CRC-32 of the zstd frame");
const B_NUMBER: Field = field(8, 4, "number", "number of the block, from 0");
const B_SECTION: Field = field(12, 4, "section", "which part of the state; 0: of no range");
const B_FIRST: Field = field(16, 4, "first", "first place of the range that it is of");
const B_LAST: Field = field(20, 4, "last", "last place of that range");
const B_RAW: Field = field(24, 4, "raw_bytes", "length before compression");
const B_STORED: Field = field(
    28,
    4,
    "stored_bytes",
    "length of the zstd frame that follows",
);

/// The head of one block.
pub const BLOCK: [Field; 8] = [
    B_CRC,
    B_STORED_CRC,
    B_NUMBER,
    B_SECTION,
    B_FIRST,
    B_LAST,
    B_RAW,
    B_STORED,
];
pub const BLOCK_BYTES: usize = 32;
const _: () = assert!(is_gapless(&BLOCK, BLOCK_BYTES));

const I_OFFSET: Field = field(0, 8, "offset", "where the block's head starts");
const I_HEAD: Field = field(8, 32, "head", "the block's head again");

/// One entry of the index.
pub const INDEX: [Field; 2] = [I_OFFSET, I_HEAD];
pub const INDEX_BYTES: usize = 40;
const _: () = assert!(is_gapless(&INDEX, INDEX_BYTES));

const F_INDEX: Field = field(0, 8, "index_at", "where the index starts");
const F_BLOCKS: Field = field(8, 8, "blocks", "number of blocks and of index entries");
const F_RAW: Field = field(16, 8, "raw_bytes", "bytes of all blocks before compression");
const F_INDEX_CRC: Field = field(24, 4, "index_crc", "CRC-32 of the index");
const F_HEADER_CRC: Field = field(28, 4, "header_crc", "the header's own checksum again");
const F_BLAKE3: Field = field(32, 32, "blake3", "BLAKE3 of every byte before the footer");
const F_RESERVED: Field = field(64, 4, "reserved", "0");
const F_CRC: Field = field(68, 4, "footer_crc", "CRC-32 of bytes 0..68");
const F_MAGIC: Field = field(72, 8, "magic", "`sfsnend\\n`");

/// The last bytes of the file.
pub const FOOTER: [Field; 9] = [
    F_INDEX,
    F_BLOCKS,
    F_RAW,
    F_INDEX_CRC,
    F_HEADER_CRC,
    F_BLAKE3,
    F_RESERVED,
    F_CRC,
    F_MAGIC,
];
pub const FOOTER_BYTES: usize = 80;
const _: () = assert!(is_gapless(&FOOTER, FOOTER_BYTES));

/// Every layout of a snapshot file, in the order in which the parts lie.
pub fn layouts() -> [Layout; 5] {
    const fn layout(name: &'static str, bytes: usize, fields: &'static [Field]) -> Layout {
        Layout {
            name,
            bytes,
            fields,
        }
    }
    [
        layout("snapshot header", HEADER_BYTES, &HEADER),
        layout("ancestor", ANCESTOR_BYTES, &ANCESTOR),
        layout("block head", BLOCK_BYTES, &BLOCK),
        layout("index entry", INDEX_BYTES, &INDEX),
        layout("snapshot footer", FOOTER_BYTES, &FOOTER),
    ]
}

fn length(bytes: usize, what: &str) -> u32 {
    u32::try_from(bytes).unwrap_or_else(|_| panic!("{what} of {bytes} bytes"))
}

/// What a snapshot is of. Everything in it is known when the snapshot begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub cluster: ClusterId,
    /// The name the operator types; for people only.
    pub cluster_name: String,
    /// Who wrote it.
    pub node: NodeId,
    pub history: History,
    /// Histories this one forked from, oldest first, each with the last LSN shared with it.
    pub ancestors: Vec<(History, u64)>,
    /// The last record contained: position, chain value, time. The log goes on behind it.
    pub link: Link,
    /// The digest of the state at that LSN.
    pub digest: u128,
    /// How much the state holds, in the state's own numbering; for people and for sizing.
    pub counts: [u64; 4],
    /// The table of epochs and their first LSNs, opaque here.
    pub epoch_table: Bytes,
    /// What the state needs beside its blocks, opaque here.
    pub state_head: Bytes,
}

impl Header {
    /// The bytes at the start of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut tail = Vec::new();
        tail.put_slice(self.cluster_name.as_bytes());
        put_ancestors(&mut tail, &self.ancestors);
        tail.put_slice(&self.epoch_table);
        tail.put_slice(&self.state_head);
        assert!(tail.len() <= TAIL_MAX, "a header of {} bytes", tail.len());
        let mut out = vec![0; HEADER_BYTES];
        put(&mut out, H_MAGIC, MAGIC);
        put(&mut out, VERSION_AT, &VERSION.to_le_bytes());
        put(
            &mut out,
            H_TAIL,
            &length(tail.len(), "a header").to_le_bytes(),
        );
        put(&mut out, H_TAIL_CRC, &crc32fast::hash(&tail).to_le_bytes());
        put(&mut out, H_CLUSTER, &self.cluster.0.to_le_bytes());
        put(
            &mut out,
            H_GENERATION,
            &self.history.generation.to_le_bytes(),
        );
        put(&mut out, H_HISTORY, &self.history.id.to_le_bytes());
        put(&mut out, H_EPOCH, &self.link.position.epoch.0.to_le_bytes());
        put(&mut out, H_LSN, &self.link.position.lsn.0.to_le_bytes());
        put(&mut out, H_TIMESTAMP, &self.link.timestamp.to_le_bytes());
        put(&mut out, H_CHAIN, &self.link.chain.0.to_le_bytes());
        put(&mut out, H_NODE, &self.node.0.to_le_bytes());
        put(&mut out, H_DIGEST, &self.digest.to_le_bytes());
        for (i, count) in self.counts.iter().enumerate() {
            let at = H_COUNTS.at + 8 * i;
            out[at..at + 8].copy_from_slice(&count.to_le_bytes());
        }
        for (at, bytes) in [
            (H_NAME, self.cluster_name.len()),
            (H_ANCESTORS, self.ancestors.len()),
            (H_TABLE, self.epoch_table.len()),
            (H_HEAD, self.state_head.len()),
        ] {
            put(&mut out, at, &length(bytes, at.name).to_le_bytes());
        }
        let crc = crc32fast::hash(&out[H_CLUSTER.at - 8..]);
        put(&mut out, H_CRC, &crc.to_le_bytes());
        out.extend_from_slice(&tail);
        out
    }

    /// Proves the fixed part, and says how many bytes of tail follow it.
    pub(crate) fn measure(file: &str, fixed: &[u8]) -> Result<usize, Error> {
        check_front(file, fixed, HEADER_BYTES, MAGIC, "snapshot")?;
        if crc32fast::hash(&fixed[H_TAIL.at..HEADER_BYTES]) != u32_at(fixed, H_CRC) {
            return Err(Error::new(file, 0, Reason::Checksum("header")));
        }
        let tail = u32_at(fixed, H_TAIL) as usize;
        let parts = [H_NAME, H_TABLE, H_HEAD].map(|part| u64::from(u32_at(fixed, part)));
        let ancestors = u64::from(u32_at(fixed, H_ANCESTORS)) * ANCESTOR_BYTES as u64;
        if tail > TAIL_MAX || parts.iter().sum::<u64>() + ancestors != tail as u64 {
            let at = H_TAIL.at as u64;
            return Err(Error::new(file, at, Reason::Field("the header's length")));
        }
        Ok(tail)
    }

    /// Reads a header whose fixed part was measured; `tail` is exactly as long as it said.
    pub(crate) fn decode(file: &str, fixed: &[u8], tail: Bytes) -> Result<Header, Error> {
        let at = HEADER_BYTES as u64;
        if crc32fast::hash(&tail) != u32_at(fixed, H_TAIL_CRC) {
            return Err(Error::new(file, at, Reason::Checksum("header's tail")));
        }
        let mut rest = tail;
        let name = rest.split_to(u32_at(fixed, H_NAME) as usize);
        let cluster_name = String::from_utf8(name.to_vec())
            .map_err(|_| Error::new(file, at, Reason::Field("the cluster's name")))?;
        let ancestors = take_ancestors(&mut rest, u32_at(fixed, H_ANCESTORS) as usize);
        let epoch_table = rest.split_to(u32_at(fixed, H_TABLE) as usize);
        let mut counts = [0; 4];
        for (i, count) in counts.iter_mut().enumerate() {
            let part = Field {
                at: H_COUNTS.at + 8 * i,
                ..H_COUNTS
            };
            *count = u64_at(fixed, part);
        }
        Ok(Header {
            cluster: ClusterId(u128_at(fixed, H_CLUSTER)),
            cluster_name,
            node: NodeId(u32_at(fixed, H_NODE)),
            history: History {
                generation: u64_at(fixed, H_GENERATION),
                id: u128_at(fixed, H_HISTORY),
            },
            ancestors,
            link: Link {
                position: Position {
                    epoch: Epoch(u64_at(fixed, H_EPOCH)),
                    lsn: Lsn(u64_at(fixed, H_LSN)),
                },
                chain: Chain(u32_at(fixed, H_CHAIN)),
                timestamp: u64_at(fixed, H_TIMESTAMP),
            },
            digest: u128_at(fixed, H_DIGEST),
            counts,
            epoch_table,
            state_head: rest,
        })
    }

    /// The checksum that the footer repeats.
    pub(crate) fn crc_of(fixed: &[u8]) -> u32 {
        u32_at(fixed, H_CRC)
    }
}

pub(crate) fn put_ancestors(out: &mut Vec<u8>, ancestors: &[(History, u64)]) {
    for (history, lsn) in ancestors {
        let mut one = [0; ANCESTOR_BYTES];
        put(&mut one, A_GENERATION, &history.generation.to_le_bytes());
        put(&mut one, A_HISTORY, &history.id.to_le_bytes());
        put(&mut one, A_LSN, &lsn.to_le_bytes());
        out.put_slice(&one);
    }
}

/// `count` was held against the length of `rest` before.
pub(crate) fn take_ancestors(rest: &mut Bytes, count: usize) -> Vec<(History, u64)> {
    let bytes = rest.split_to(count * ANCESTOR_BYTES);
    let one = |one: &[u8]| {
        let history = History {
            generation: u64_at(one, A_GENERATION),
            id: u128_at(one, A_HISTORY),
        };
        (history, u64_at(one, A_LSN))
    };
    bytes.chunks_exact(ANCESTOR_BYTES).map(one).collect()
}

/// What a block is of, and how long it is. `section`, `first` and `last` are the state's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockHead {
    /// The block's number in the file, from 0.
    pub number: u32,
    pub section: u32,
    pub first: u32,
    pub last: u32,
    /// Length before compression.
    pub raw_bytes: u32,
    /// Length of the zstd frame.
    pub stored_bytes: u32,
    /// CRC-32 of the zstd frame.
    pub stored_crc: u32,
}

impl BlockHead {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut out = [0; BLOCK_BYTES];
        for (at, value) in [
            (B_STORED_CRC, self.stored_crc),
            (B_NUMBER, self.number),
            (B_SECTION, self.section),
            (B_FIRST, self.first),
            (B_LAST, self.last),
            (B_RAW, self.raw_bytes),
            (B_STORED, self.stored_bytes),
        ] {
            put(&mut out, at, &value.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[B_STORED_CRC.at..]);
        put(&mut out, B_CRC, &crc.to_le_bytes());
        out
    }

    /// `bytes` is at least a head long.
    pub(crate) fn decode(bytes: &[u8]) -> Result<BlockHead, Reason> {
        if crc32fast::hash(&bytes[B_STORED_CRC.at..BLOCK_BYTES]) != u32_at(bytes, B_CRC) {
            return Err(Reason::Checksum("block's head"));
        }
        let head = BlockHead {
            number: u32_at(bytes, B_NUMBER),
            section: u32_at(bytes, B_SECTION),
            first: u32_at(bytes, B_FIRST),
            last: u32_at(bytes, B_LAST),
            raw_bytes: u32_at(bytes, B_RAW),
            stored_bytes: u32_at(bytes, B_STORED),
            stored_crc: u32_at(bytes, B_STORED_CRC),
        };
        if head.raw_bytes as usize > BLOCK_RAW_MAX {
            return Err(Reason::Field("a block's length"));
        }
        Ok(head)
    }
}

/// Where a block starts, and its head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub offset: u64,
    pub head: BlockHead,
}

impl Entry {
    pub(crate) fn encode(&self) -> [u8; INDEX_BYTES] {
        let mut out = [0; INDEX_BYTES];
        put(&mut out, I_OFFSET, &self.offset.to_le_bytes());
        put(&mut out, I_HEAD, &self.head.encode());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Entry, Reason> {
        Ok(Entry {
            offset: u64_at(bytes, I_OFFSET),
            head: BlockHead::decode(&bytes[I_HEAD.at..])?,
        })
    }

    /// The first byte behind the block.
    pub(crate) fn end(&self) -> u64 {
        self.offset + BLOCK_BYTES as u64 + u64::from(self.head.stored_bytes)
    }
}

/// What closes the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    pub index_at: u64,
    pub blocks: u64,
    pub raw_bytes: u64,
    pub index_crc: u32,
    pub header_crc: u32,
    pub blake3: [u8; 32],
}

impl Footer {
    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        put(&mut out, F_INDEX, &self.index_at.to_le_bytes());
        put(&mut out, F_BLOCKS, &self.blocks.to_le_bytes());
        put(&mut out, F_RAW, &self.raw_bytes.to_le_bytes());
        put(&mut out, F_INDEX_CRC, &self.index_crc.to_le_bytes());
        put(&mut out, F_HEADER_CRC, &self.header_crc.to_le_bytes());
        put(&mut out, F_BLAKE3, &self.blake3);
        let crc = crc32fast::hash(&out[..F_CRC.at]);
        put(&mut out, F_CRC, &crc.to_le_bytes());
        put(&mut out, F_MAGIC, END_MAGIC);
        out
    }

    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Footer, Reason> {
        if &bytes[F_MAGIC.at..] != END_MAGIC {
            return Err(Reason::Checksum("end mark"));
        }
        if crc32fast::hash(&bytes[..F_CRC.at]) != u32_at(bytes, F_CRC) {
            return Err(Reason::Checksum("footer"));
        }
        let blake3 = &bytes[F_BLAKE3.at..F_BLAKE3.at + F_BLAKE3.len];
        Ok(Footer {
            index_at: u64_at(bytes, F_INDEX),
            blocks: u64_at(bytes, F_BLOCKS),
            raw_bytes: u64_at(bytes, F_RAW),
            index_crc: u32_at(bytes, F_INDEX_CRC),
            header_crc: u32_at(bytes, F_HEADER_CRC),
            blake3: blake3.try_into().expect("thirty-two bytes"),
        })
    }
}
