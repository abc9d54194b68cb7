//! The layout of a piece of log in the archive: bytes in, types out.
//!
//! A piece of log is `header | one zstd frame`, and the frame holds whole records, the very bytes
//! that lie on the nodes' disks; where the archive is encrypted the frame lies in an age file. What
//! the header says of the records can be planned with before they are unpacked; `decode_log` holds
//! it against them.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::error::{Error, Reason};
use crate::frame::{self, unpack};
use crate::layout::{
    Layout, VERSION, VERSION_AT, check_front, field, put, u32_at, u64_at, u128_at,
};
use crate::manifest::Named;
use crate::seal::{Identities, Recipients, RecipientsId};
use bytes::Bytes;
use standfast_wal::record::is_gapless;
use standfast_wal::{
    Chain, ClusterId, Damage, Epoch, Field, History, Kind, Link, Lsn, Position, Record,
};

/// The records of one piece before compression: what one reader takes memory for.
pub const LOG_RAW_MAX: usize = 64 << 20;
/// zstd level of a piece: it is written once and read in a disaster.
const LEVEL: i32 = 3;

const LOG_MAGIC: &[u8; 8] = b"sflog\r\n\n";
/// How the records are stored.
const ZSTD: u32 = 1;
const SEALED: u32 = 2;

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
const ENCODING: Field = field(
    148,
    4,
    "encoding",
    "1: one zstd frame; 2: that in an age file",
);
const BLAKE3: Field = field(
    152,
    32,
    "blake3",
    "BLAKE3 of the records; 2: of what follows the header",
);
const RECIPIENTS: Field = field(
    184,
    16,
    "recipients",
    "2: the id of whom it is encrypted to",
);

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
    RECIPIENTS,
];
pub const LOG_BYTES: usize = 200;
const _: () = assert!(is_gapless(&LOG, LOG_BYTES));

/// The layout of the header, for the document of formats.
pub(crate) const LAYOUT: Layout = Layout {
    name: "archived log header",
    bytes: LOG_BYTES,
    fields: &LOG,
};

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
    /// BLAKE3 of the records' bytes; of the stored bytes where they are encrypted, for a digest of
    /// the plain ones would prove a guess.
    pub blake3: [u8; 32],
    /// Whom it is encrypted to; `None`: it is not.
    pub recipients: Option<RecipientsId>,
}

impl LogHead {
    pub fn last_lsn(&self) -> Lsn {
        self.end.position.lsn
    }

    /// Bytes of the whole piece.
    pub fn file_bytes(&self) -> u64 {
        self.stored_bytes.saturating_add(LOG_BYTES as u64)
    }

    /// Whether both are of the very same records, however each is stored: one history orders one
    /// record at each LSN, and the chain names it.
    pub fn is_same_log(&self, other: &LogHead) -> bool {
        let facts = |head: &LogHead| {
            let whose = (head.cluster, head.history, head.records, head.raw_bytes);
            let first = (head.first_lsn, head.first_epoch, head.first_timestamp);
            (whose, first, head.before, head.end, head.attested_lsn)
        };
        let both_plain = self.recipients.is_none() && other.recipients.is_none();
        facts(self) == facts(other) && (!both_plain || self.blake3 == other.blake3)
    }

    /// A time (ns since 1970) that the last Attestation is not older than; 0 if there is none.
    /// Times rise with each command, by 1 ns at least.
    pub fn attested_since(&self) -> u64 {
        match self.attested_lsn {
            Lsn::ZERO => 0,
            last if last == self.last_lsn() => self.end.timestamp,
            lsn => {
                let later = self.first_lsn.distance_to(lsn);
                self.first_timestamp.saturating_add(later)
            }
        }
    }

    /// The piece as a manifest names it.
    pub(crate) fn named(&self) -> Named {
        Named {
            first: self.first_lsn,
            last: self.last_lsn(),
            bytes: self.file_bytes(),
            blake3: self.blake3,
        }
    }

    fn encode(&self) -> [u8; LOG_BYTES] {
        let mut out = [0; LOG_BYTES];
        put(&mut out, MAGIC, LOG_MAGIC);
        put(&mut out, VERSION_AT, &VERSION.to_le_bytes());
        put(&mut out, CLUSTER, &self.cluster.0.to_le_bytes());
        put(&mut out, HISTORY, &self.history.id.to_le_bytes());
        put(&mut out, BLAKE3, &self.blake3);
        let recipients = self.recipients.map_or(0, |id| id.0);
        put(&mut out, RECIPIENTS, &recipients.to_le_bytes());
        let encoding = self.recipients.map_or(ZSTD, |_| SEALED);
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
            (ENCODING, encoding),
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
        let recipients = match u32_at(bytes, ENCODING) {
            ZSTD => None,
            SEALED => Some(RecipientsId(u128_at(bytes, RECIPIENTS))),
            _ => {
                let reason = Reason::Field("the encoding");
                return Err(Error::new(file, ENCODING.at as u64, reason));
            }
        };
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
            recipients,
        };
        if head.raw_bytes > LOG_RAW_MAX as u64
            || head.first_lsn == Lsn::ZERO
            || head.first_lsn > head.last_lsn()
            || head.attested_lsn != Lsn::ZERO
                && !(head.first_lsn..=head.last_lsn()).contains(&head.attested_lsn)
        {
            let reason = Reason::Field("a length or an LSN");
            return Err(Error::new(file, FIRST_LSN.at as u64, reason));
        }
        Ok(head)
    }
}

/// Makes a piece of log of `records`, which follow one another and are not empty; encrypted to
/// `recipients`, if there are any.
pub fn encode_log(
    cluster: ClusterId,
    history: History,
    records: &[Record],
    recipients: &Recipients,
) -> (LogHead, Vec<u8>) {
    let first = records.first().expect("a piece of log holds a record");
    let raw = joined(records);
    let mut stored = vec![0; frame::bound(raw.len())];
    let length = frame::pack(&raw, &mut stored, LEVEL).expect("zstd takes any bytes into memory");
    stored.truncate(length);
    let mut blake3 = blake3::hash(&raw);
    if recipients.id().is_some() {
        stored = recipients.seal(&stored);
        blake3 = blake3::hash(&stored);
    }
    let head = LogHead {
        cluster,
        history,
        first_lsn: first.first_lsn(),
        first_epoch: first.epoch(),
        first_timestamp: first.timestamp(),
        before: first.previous_chain(),
        end: records.last().expect("there was a first").link(),
        attested_lsn: attested_lsn(records),
        records: records.len() as u64,
        raw_bytes: raw.len() as u64,
        stored_bytes: stored.len() as u64,
        stored_crc: crc32fast::hash(&stored),
        blake3: *blake3.as_bytes(),
        recipients: recipients.id(),
    };
    let mut bytes = head.encode().to_vec();
    bytes.extend_from_slice(&stored);
    (head, bytes)
}

fn joined(records: &[Record]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(records.iter().map(|r| r.bytes().len()).sum());
    for (i, record) in records.iter().enumerate() {
        if let Some(before) = i.checked_sub(1) {
            let end = records[before].link();
            let order = record.follows(end);
            assert!(order.is_ok(), "{record:?} is shipped behind {end:?}");
        }
        raw.extend_from_slice(record.bytes());
    }
    assert!(raw.len() <= LOG_RAW_MAX, "a piece of {} bytes", raw.len());
    raw
}

/// Proves what can be proved of a piece of log without a key: all of a plain one, and of an
/// encrypted one the header and that the bytes behind it are those that were put.
pub fn check_log(file: &str, bytes: &[u8]) -> Result<LogHead, Error> {
    let head = LogHead::decode(file, bytes)?;
    match head.recipients {
        Some(_) => stored(file, &head, bytes).map(|_| head),
        None => decode_log(file, bytes, &Identities::default()).map(|(head, _)| head),
    }
}

/// Reads a piece of log and proves all of it: checksums, each record, their order, and that the
/// header says the truth about them.
pub fn decode_log(
    file: &str,
    bytes: &[u8],
    identities: &Identities,
) -> Result<(LogHead, Vec<Record>), Error> {
    let head = LogHead::decode(file, bytes)?;
    let refuse = |reason| Error::new(file, LOG_BYTES as u64, reason);
    let stored = stored(file, &head, bytes)?;
    let opened;
    let frame = match head.recipients {
        None => stored,
        Some(recipients) => {
            opened = identities.open(recipients, stored).map_err(refuse)?;
            &opened
        }
    };
    let mut raw = Vec::new();
    let raw_bytes = usize::try_from(head.raw_bytes).expect("at most LOG_RAW_MAX");
    unpack(frame, raw_bytes, &mut raw).map_err(refuse)?;
    if head.recipients.is_none() && blake3::hash(&raw).as_bytes() != &head.blake3 {
        return Err(refuse(Reason::Checksum("unpacked records")));
    }
    let records = split(file, &head, raw.into())?;
    Ok((head, records))
}

/// The bytes behind the header, which are those that it speaks of.
fn stored<'a>(file: &str, head: &LogHead, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    let stored = &bytes[LOG_BYTES..];
    let needed = head.stored_bytes.saturating_add(LOG_BYTES as u64);
    let found = bytes.len() as u64;
    if found < needed {
        return Err(Error::new(file, found, Reason::Truncated { needed, found }));
    }
    if found > needed {
        let reason = Reason::Field("the file's length");
        return Err(Error::new(file, needed, reason));
    }
    let is_sealed = head.recipients.is_some();
    if crc32fast::hash(stored) != head.stored_crc
        || is_sealed && blake3::hash(stored).as_bytes() != &head.blake3
    {
        let at = LOG_BYTES as u64;
        return Err(Error::new(file, at, Reason::Checksum("records")));
    }
    Ok(stored)
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

#[cfg(test)]
mod tests;
