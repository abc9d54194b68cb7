//! The layouts of what the archive holds beside snapshots: a piece of log, and a history's card;
//! pure: bytes in, types out.
//!
//! A piece of log is `header | one zstd frame`, and the frame holds whole records, the very bytes
//! that lie on the nodes' disks. What the header says of them can be planned with before they are
//! unpacked; `decode` holds it against them.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::error::{Error, Reason};
use crate::format::{ANCESTOR_BYTES, put_ancestors, take_ancestors};
use crate::frame::{self, unpack};
use crate::layout::{
    Layout, VERSION, VERSION_AT, check_front, field, put, u32_at, u64_at, u128_at,
};
use bytes::Bytes;
use standfast_wal::record::is_gapless;
use standfast_wal::{
    Chain, ClusterId, Damage, Epoch, Field, History, Kind, Link, Lsn, Position, Record,
};

/// The records of one piece before compression: what one reader takes memory for.
pub const LOG_RAW_MAX: usize = 64 << 20;
/// The largest name and list of ancestors of a card.
const CARD_TAIL_MAX: usize = 1 << 20;
/// zstd level of a piece: it is written once and read in a disaster.
const LEVEL: i32 = 3;

const LOG_MAGIC: &[u8; 8] = b"sflog\r\n\n";
const CARD_MAGIC: &[u8; 8] = b"sfcard\r\n";
/// How the frame is made: zstd. Others (encrypted) will have other numbers.
const ZSTD: u32 = 1;

const MAGIC: Field = field(0, 8, "magic", "`sflog\\r\\n\\n`");
const CRC: Field = field(12, 4, "header_crc", "CRC-32 of bytes 16..200");
const CLUSTER: Field = field(16, 16, "cluster", "random id of the cluster");
const GENERATION: Field = field(32, 8, "generation", "number of the history");
const HISTORY: Field = field(40, 16, "history_id", "random id of the history");
const FIRST_LSN: Field = field(56, 8, "first_lsn", "LSN of the first command");
const FIRST_EPOCH: Field = field(64, 8, "first_epoch", "epoch of the first record");
const FIRST_TIME: Field = field(72, 8, "first_timestamp", "ns since 1970 of that command");
const BEFORE_CHAIN: Field = field(80, 4, "before_chain", "chain value before the first record");
const END_CHAIN: Field = field(84, 4, "end_chain", "chain value of the last record");
const LAST_LSN: Field = field(88, 8, "last_lsn", "LSN of the last command");
const LAST_EPOCH: Field = field(96, 8, "last_epoch", "epoch of the last record");
const LAST_TIME: Field = field(
    104,
    8,
    "last_timestamp",
    "ns since 1970 of the last command",
);
const ATTESTED: Field = field(
    112,
    8,
    "attested_lsn",
    "LSN of the last Attestation; 0: none",
);
const RECORDS: Field = field(120, 8, "records", "number of records");
const RAW: Field = field(128, 8, "raw_bytes", "bytes of the records");
const STORED: Field = field(136, 8, "stored_bytes", "bytes that follow the header");
const STORED_CRC: Field = field(144, 4, "stored_crc", "CRC-32 of those");
const ENCODING: Field = field(148, 4, "encoding", "1: one zstd frame");
const BLAKE3: Field = field(152, 32, "blake3", "BLAKE3 of the records");
const RESERVED: Field = field(184, 16, "reserved", "0");

/// The header of a piece of log; little-endian.
pub const LOG: [Field; 22] = [
    MAGIC,
    VERSION_AT,
    CRC,
    CLUSTER,
    GENERATION,
    HISTORY,
    FIRST_LSN,
    FIRST_EPOCH,
    FIRST_TIME,
    BEFORE_CHAIN,
    END_CHAIN,
    LAST_LSN,
    LAST_EPOCH,
    LAST_TIME,
    ATTESTED,
    RECORDS,
    RAW,
    STORED,
    STORED_CRC,
    ENCODING,
    BLAKE3,
    RESERVED,
];
pub const LOG_BYTES: usize = 200;
const _: () = assert!(is_gapless(&LOG, LOG_BYTES));

const C_MAGIC: Field = field(0, 8, "magic", "`sfcard\\r\\n`");
const C_CRC: Field = field(12, 4, "crc", "CRC-32 of byte 16 to the end");
const C_CLUSTER: Field = field(16, 16, "cluster", "random id of the cluster");
const C_GENERATION: Field = field(32, 8, "generation", "number of the history");
const C_HISTORY: Field = field(40, 16, "history_id", "random id of the history");
const C_NAME: Field = field(
    56,
    4,
    "name_bytes",
    "length of the cluster's name, which follows",
);
const C_ANCESTORS: Field = field(60, 4, "ancestors", "number of ancestors, which follow it");

/// The fixed part of a history's card.
pub const CARD: [Field; 8] = [
    C_MAGIC,
    VERSION_AT,
    C_CRC,
    C_CLUSTER,
    C_GENERATION,
    C_HISTORY,
    C_NAME,
    C_ANCESTORS,
];
pub const CARD_BYTES: usize = 64;
const _: () = assert!(is_gapless(&CARD, CARD_BYTES));

/// The layouts of this file, for the document of formats.
pub(crate) fn layouts() -> [Layout; 2] {
    [
        Layout {
            name: "archived log header",
            bytes: LOG_BYTES,
            fields: &LOG,
        },
        Layout {
            name: "history card",
            bytes: CARD_BYTES,
            fields: &CARD,
        },
    ]
}

/// What the header of a piece of log says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogHead {
    pub cluster: ClusterId,
    pub history: History,
    pub first_lsn: Lsn,
    pub first_epoch: Epoch,
    /// ns since 1970 of the first command.
    pub first_timestamp: u64,
    /// The chain value of the record before the first.
    pub before: Chain,
    /// Where the last record stands.
    pub end: Link,
    /// The LSN of the last Attestation in it; `Lsn::ZERO` if there is none.
    pub attested_lsn: Lsn,
    pub records: u64,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    stored_crc: u32,
    /// BLAKE3 of the records' bytes.
    pub blake3: [u8; 32],
}

impl LogHead {
    pub fn last_lsn(&self) -> Lsn {
        self.end.position.lsn
    }

    /// Bytes of the whole piece.
    pub fn file_bytes(&self) -> u64 {
        self.stored_bytes + LOG_BYTES as u64
    }

    fn encode(&self) -> [u8; LOG_BYTES] {
        let mut out = [0; LOG_BYTES];
        put(&mut out, MAGIC, LOG_MAGIC);
        put(&mut out, VERSION_AT, &VERSION.to_le_bytes());
        put(&mut out, CLUSTER, &self.cluster.0.to_le_bytes());
        put(&mut out, HISTORY, &self.history.id.to_le_bytes());
        put(&mut out, BLAKE3, &self.blake3);
        for (at, value) in [
            (GENERATION, self.history.generation),
            (FIRST_LSN, self.first_lsn.0),
            (FIRST_EPOCH, self.first_epoch.0),
            (FIRST_TIME, self.first_timestamp),
            (LAST_LSN, self.end.position.lsn.0),
            (LAST_EPOCH, self.end.position.epoch.0),
            (LAST_TIME, self.end.timestamp),
            (ATTESTED, self.attested_lsn.0),
            (RECORDS, self.records),
            (RAW, self.raw_bytes),
            (STORED, self.stored_bytes),
        ] {
            put(&mut out, at, &value.to_le_bytes());
        }
        for (at, value) in [
            (BEFORE_CHAIN, self.before.0),
            (END_CHAIN, self.end.chain.0),
            (STORED_CRC, self.stored_crc),
            (ENCODING, ZSTD),
        ] {
            put(&mut out, at, &value.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[CLUSTER.at..]);
        put(&mut out, CRC, &crc.to_le_bytes());
        out
    }

    /// Reads the header at the start of `bytes`; nothing behind it is looked at.
    pub fn decode(file: &str, bytes: &[u8]) -> Result<LogHead, Error> {
        check_front(file, bytes, LOG_BYTES, LOG_MAGIC, "piece of log")?;
        if crc32fast::hash(&bytes[CLUSTER.at..LOG_BYTES]) != u32_at(bytes, CRC) {
            return Err(Error::new(file, 0, Reason::Checksum("header")));
        }
        let head = LogHead {
            cluster: ClusterId(u128_at(bytes, CLUSTER)),
            history: History {
                generation: u64_at(bytes, GENERATION),
                id: u128_at(bytes, HISTORY),
            },
            first_lsn: Lsn(u64_at(bytes, FIRST_LSN)),
            first_epoch: Epoch(u64_at(bytes, FIRST_EPOCH)),
            first_timestamp: u64_at(bytes, FIRST_TIME),
            before: Chain(u32_at(bytes, BEFORE_CHAIN)),
            end: Link {
                position: Position {
                    epoch: Epoch(u64_at(bytes, LAST_EPOCH)),
                    lsn: Lsn(u64_at(bytes, LAST_LSN)),
                },
                chain: Chain(u32_at(bytes, END_CHAIN)),
                timestamp: u64_at(bytes, LAST_TIME),
            },
            attested_lsn: Lsn(u64_at(bytes, ATTESTED)),
            records: u64_at(bytes, RECORDS),
            raw_bytes: u64_at(bytes, RAW),
            stored_bytes: u64_at(bytes, STORED),
            stored_crc: u32_at(bytes, STORED_CRC),
            blake3: bytes[BLAKE3.at..BLAKE3.at + BLAKE3.len]
                .try_into()
                .expect("thirty-two bytes"),
        };
        if u32_at(bytes, ENCODING) != ZSTD {
            let reason = Reason::Field("the encoding");
            return Err(Error::new(file, ENCODING.at as u64, reason));
        }
        if head.raw_bytes > LOG_RAW_MAX as u64
            || head.first_lsn == Lsn::ZERO
            || head.first_lsn > head.last_lsn()
        {
            let reason = Reason::Field("a length or an LSN");
            return Err(Error::new(file, FIRST_LSN.at as u64, reason));
        }
        Ok(head)
    }
}

/// Makes a piece of log of `records`, which follow one another and are not empty.
pub fn encode_log(cluster: ClusterId, history: History, records: &[Record]) -> (LogHead, Vec<u8>) {
    let first = records.first().expect("a piece of log holds a record");
    let mut raw = Vec::with_capacity(records.iter().map(|r| r.bytes().len()).sum());
    let mut attested_lsn = Lsn::ZERO;
    let mut end: Option<Link> = None;
    for record in records {
        if let Some(end) = end {
            let order = record.follows(end);
            assert!(order.is_ok(), "{record:?} is shipped behind {end:?}");
        }
        if record.kind() == Kind::Attestation {
            attested_lsn = record.last_lsn();
        }
        raw.extend_from_slice(record.bytes());
        end = Some(record.link());
    }
    assert!(raw.len() <= LOG_RAW_MAX, "a piece of {} bytes", raw.len());
    let mut frame = vec![0; frame::bound(raw.len())];
    let stored = frame::pack(&raw, &mut frame, LEVEL).expect("zstd takes any bytes into memory");
    frame.truncate(stored);
    let head = LogHead {
        cluster,
        history,
        first_lsn: first.first_lsn(),
        first_epoch: first.epoch(),
        first_timestamp: first.timestamp(),
        before: first.previous_chain(),
        end: end.expect("there was a first"),
        attested_lsn,
        records: records.len() as u64,
        raw_bytes: raw.len() as u64,
        stored_bytes: frame.len() as u64,
        stored_crc: crc32fast::hash(&frame),
        blake3: *blake3::hash(&raw).as_bytes(),
    };
    let mut bytes = head.encode().to_vec();
    bytes.extend_from_slice(&frame);
    (head, bytes)
}

/// Reads a piece of log and proves all of it: checksums, each record, their order, and that the
/// header says the truth about them.
pub fn decode_log(file: &str, bytes: &[u8]) -> Result<(LogHead, Vec<Record>), Error> {
    let head = LogHead::decode(file, bytes)?;
    let frame = &bytes[LOG_BYTES..];
    let needed = head.stored_bytes.saturating_add(LOG_BYTES as u64);
    let found = bytes.len() as u64;
    if found < needed {
        return Err(Error::new(file, found, Reason::Truncated { needed, found }));
    }
    let at = LOG_BYTES as u64;
    if found > needed {
        let reason = Reason::Field("the file's length");
        return Err(Error::new(file, needed, reason));
    }
    if crc32fast::hash(frame) != head.stored_crc {
        return Err(Error::new(file, at, Reason::Checksum("records")));
    }
    let mut raw = Vec::new();
    let raw_bytes = usize::try_from(head.raw_bytes).expect("at most LOG_RAW_MAX");
    unpack(frame, raw_bytes, &mut raw).map_err(|r| Error::new(file, at, r))?;
    if blake3::hash(&raw).as_bytes() != &head.blake3 {
        let reason = Reason::Checksum("unpacked records");
        return Err(Error::new(file, at, reason));
    }
    let records = split(file, &head, raw.into())?;
    Ok((head, records))
}

fn split(file: &str, head: &LogHead, mut raw: Bytes) -> Result<Vec<Record>, Error> {
    let mut records: Vec<Record> = Vec::new();
    let mut expected = head.first_lsn;
    while !raw.is_empty() {
        let refuse = |damage| {
            let lsn = expected;
            Error::new(file, None, Reason::Record { lsn, damage })
        };
        let record = Record::split_from(&mut raw).map_err(refuse)?;
        match records.last() {
            Some(last) => record.follows(last.link()).map_err(refuse)?,
            None if record.first_lsn() != head.first_lsn
                || record.previous_chain() != head.before
                || record.epoch() != head.first_epoch
                || record.timestamp() != head.first_timestamp =>
            {
                return Err(refuse(Damage::Order));
            }
            None => {}
        }
        expected = record.last_lsn().next();
        records.push(record);
    }
    let honest = records.last().map(Record::link) == Some(head.end)
        && records.len() as u64 == head.records
        && head.attested_lsn == attested_lsn(&records);
    if honest {
        Ok(records)
    } else {
        let reason = Reason::Field("what the header says of the records");
        Err(Error::new(file, 0, reason))
    }
}

fn attested_lsn(records: &[Record]) -> Lsn {
    let mut attestations = records.iter().filter(|r| r.kind() == Kind::Attestation);
    attestations.next_back().map_or(Lsn::ZERO, Record::last_lsn)
}

/// Where a log stands that ends inside `record`, at `lsn`: what a restore to that LSN makes the
/// base of its own log. It is a function of the record and the LSN, so that a later restore through
/// the fork finds the same chain.
pub fn link_inside(record: &Record, lsn: Lsn) -> Link {
    let (first, last) = (record.first_lsn(), record.last_lsn());
    assert!(first <= lsn && lsn <= last, "{lsn} is not in {record:?}");
    if lsn == last {
        return record.link();
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(record.chain().0);
    hasher.update(&lsn.0.to_le_bytes());
    Link {
        position: Position {
            epoch: record.epoch(),
            lsn,
        },
        chain: Chain(hasher.finalize()),
        timestamp: record.timestamp() + (lsn.0 - first.0),
    }
}

/// What the archive knows of one history: whose it is, and what it forked from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub history: History,
    /// Oldest first, each with the last LSN shared with it.
    pub ancestors: Vec<(History, u64)>,
}

impl Card {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; CARD_BYTES];
        put(&mut out, C_MAGIC, CARD_MAGIC);
        put(&mut out, VERSION_AT, &VERSION.to_le_bytes());
        put(&mut out, C_CLUSTER, &self.cluster.0.to_le_bytes());
        put(
            &mut out,
            C_GENERATION,
            &self.history.generation.to_le_bytes(),
        );
        put(&mut out, C_HISTORY, &self.history.id.to_le_bytes());
        for (at, len) in [
            (C_NAME, self.cluster_name.len()),
            (C_ANCESTORS, self.ancestors.len()),
        ] {
            let len = u32::try_from(len).expect("held against CARD_TAIL_MAX below");
            put(&mut out, at, &len.to_le_bytes());
        }
        out.extend_from_slice(self.cluster_name.as_bytes());
        put_ancestors(&mut out, &self.ancestors);
        let tail = out.len() - CARD_BYTES;
        assert!(tail <= CARD_TAIL_MAX, "a card with {tail} bytes of names");
        let crc = crc32fast::hash(&out[C_CLUSTER.at..]);
        put(&mut out, C_CRC, &crc.to_le_bytes());
        out
    }

    pub fn decode(file: &str, bytes: &[u8]) -> Result<Card, Error> {
        check_front(file, bytes, CARD_BYTES, CARD_MAGIC, "history card")?;
        if crc32fast::hash(&bytes[C_CLUSTER.at..]) != u32_at(bytes, C_CRC) {
            return Err(Error::new(file, 0, Reason::Checksum("card")));
        }
        let name = u32_at(bytes, C_NAME) as usize;
        let ancestors = u32_at(bytes, C_ANCESTORS) as usize;
        let tail = bytes.len() - CARD_BYTES;
        let bad = |what| Error::new(file, C_NAME.at as u64, Reason::Field(what));
        if tail > CARD_TAIL_MAX || name.checked_add(ancestors * ANCESTOR_BYTES) != Some(tail) {
            return Err(bad("the card's length"));
        }
        let mut rest = Bytes::copy_from_slice(&bytes[CARD_BYTES..]);
        let name = String::from_utf8(rest.split_to(name).to_vec());
        Ok(Card {
            cluster: ClusterId(u128_at(bytes, C_CLUSTER)),
            cluster_name: name.map_err(|_| bad("the cluster's name"))?,
            history: History {
                generation: u64_at(bytes, C_GENERATION),
                id: u128_at(bytes, C_HISTORY),
            },
            ancestors: take_ancestors(&mut rest, ancestors),
        })
    }
}

#[cfg(test)]
mod tests;
