//! What is kept of removed records: files in `divergent/`, written before anything is removed.
//!
//! A cut of sound records is kept as those records behind one header, for the loss statement; an
//! end that cannot be read as records is kept as the bytes it was.

use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::record::{
    Chain, ClusterId, Damage, Epoch, Field, History, Link, Lsn, NodeId, Position, Record, field,
    is_gapless, u32_at, u64_at,
};
use crate::segment::{put, u128_at};
use crate::storage::{File, Storage, read_all};
use bytes::Bytes;
use std::io::IoSlice;

/// Where removed records are kept.
pub const DIVERGENT: &str = "divergent";
/// How many records are written at once to a kept file.
const KEEP_BATCH: usize = 512;

const MAGIC: [u8; 8] = *b"SFWALCUT";
const KEPT_VERSION: u32 = 1;
const KEPT_HEADER_BYTES: usize = 104;

const KEPT_MAGIC: Field = field(0, 8, "magic", "\"SFWALCUT\"");
const VERSION: Field = field(8, 4, "version", "1");
const CRC: Field = field(12, 4, "crc", "CRC-32 of bytes 16..104");
const CLUSTER: Field = field(16, 16, "cluster", "id of the cluster");
const GENERATION: Field = field(32, 8, "generation", "number of the history that was cut");
const HISTORY: Field = field(40, 16, "history", "id of that history");
const NODE: Field = field(56, 4, "node", "number of the node that cut");
const CHAIN: Field = field(60, 4, "chain", "chain value of the record before the first");
const EPOCH: Field = field(64, 8, "epoch", "epoch of the record before the first");
const LSN: Field = field(72, 8, "lsn", "last LSN before the first");
const TIMESTAMP: Field = field(80, 8, "timestamp", "ns since 1970 of the command before");
const RECORDS: Field = field(
    88,
    8,
    "records",
    "number of records, which follow back to back",
);
const DURABLE: Field = field(96, 8, "durable", "last LSN that had been durable here");

/// The header of a file with cut records. Little-endian; the records follow as they were.
pub const KEPT_HEADER: [Field; 13] = [
    KEPT_MAGIC, VERSION, CRC, CLUSTER, GENERATION, HISTORY, NODE, CHAIN, EPOCH, LSN, TIMESTAMP,
    RECORDS, DURABLE,
];
const _: () = assert!(is_gapless(&KEPT_HEADER, KEPT_HEADER_BYTES));

/// The contents of a file with cut records.
#[derive(Debug)]
pub struct Kept {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub history: History,
    /// What the first record followed.
    pub after: Link,
    /// The last LSN of them that had been durable here, and may have been acknowledged.
    pub durable: Lsn,
    pub records: Vec<Record>,
}

impl Kept {
    pub(crate) fn encode_header(&self) -> Vec<u8> {
        let mut out = vec![0; KEPT_HEADER_BYTES];
        put(&mut out, KEPT_MAGIC, &MAGIC);
        put(&mut out, VERSION, &KEPT_VERSION.to_le_bytes());
        put(&mut out, CLUSTER, &self.cluster.0.to_le_bytes());
        put(&mut out, GENERATION, &self.history.generation.to_le_bytes());
        put(&mut out, HISTORY, &self.history.id.to_le_bytes());
        put(&mut out, NODE, &self.node.0.to_le_bytes());
        put(&mut out, CHAIN, &self.after.chain.0.to_le_bytes());
        put(&mut out, EPOCH, &self.after.position.epoch.0.to_le_bytes());
        put(&mut out, LSN, &self.after.position.lsn.0.to_le_bytes());
        put(&mut out, TIMESTAMP, &self.after.timestamp.to_le_bytes());
        put(
            &mut out,
            RECORDS,
            &(self.records.len() as u64).to_le_bytes(),
        );
        put(&mut out, DURABLE, &self.durable.0.to_le_bytes());
        let crc = crc32fast::hash(&out[CLUSTER.at..]);
        put(&mut out, CRC, &crc.to_le_bytes());
        out
    }

    /// Reads a file that a cut kept aside; `name` is as in `Cut::file`.
    pub fn read<S: Storage>(storage: &S, name: &str) -> Result<Kept, Error> {
        let bytes = read_all(storage, name).map_err(Error::io(name, "read the kept records"))?;
        Kept::decode(bytes.into()).map_err(|kind| Error::new(name, kind))
    }

    fn decode(bytes: Bytes) -> Result<Kept, ErrorKind> {
        let damaged = ErrorKind::Damaged;
        let header = bytes
            .get(..KEPT_HEADER_BYTES)
            .ok_or(damaged(Damage::Short))?;
        if header[..MAGIC.len()] != MAGIC
            || u32_at(header, CRC) != crc32fast::hash(&header[CLUSTER.at..])
        {
            return Err(damaged(Damage::Header));
        }
        if u32_at(header, VERSION) != KEPT_VERSION {
            return Err(ErrorKind::Version(u32_at(header, VERSION)));
        }
        let mut kept = Kept {
            cluster: ClusterId(u128_at(header, CLUSTER)),
            node: NodeId(u32_at(header, NODE)),
            history: History {
                generation: u64_at(header, GENERATION),
                id: u128_at(header, HISTORY),
            },
            after: Link {
                position: Position {
                    epoch: Epoch(u64_at(header, EPOCH)),
                    lsn: Lsn(u64_at(header, LSN)),
                },
                chain: Chain(u32_at(header, CHAIN)),
                timestamp: u64_at(header, TIMESTAMP),
            },
            durable: Lsn(u64_at(header, DURABLE)),
            records: Vec::new(),
        };
        let mut rest = bytes.slice(KEPT_HEADER_BYTES..);
        let mut link = kept.after;
        for _ in 0..u64_at(header, RECORDS) {
            let record = Record::split_from(&mut rest).map_err(damaged)?;
            record.follows(link).map_err(damaged)?;
            link = record.link();
            kept.records.push(record);
        }
        if rest.is_empty() {
            Ok(kept)
        } else {
            Err(damaged(Damage::Order))
        }
    }
}

pub(crate) fn unused_name<S: Storage>(storage: &S, wanted: &str) -> Result<String, Error> {
    let taken = storage
        .list(DIVERGENT)
        .map_err(Error::io(DIVERGENT, "list"))?;
    let is_taken = |name: &String| {
        let plain = name.rsplit('/').next().unwrap_or_default();
        taken.iter().any(|taken| taken == plain)
    };
    let numbered = (2u64..).map(|number| format!("{wanted}-{number}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    Ok(names
        .find(|name| !is_taken(name))
        .expect("numbers do not run out"))
}

/// Keeps raw bytes in `divergent/`; returns the file's name.
pub(crate) fn keep_bytes_aside<S: Storage>(
    storage: &S,
    stem: &str,
    bytes: &[u8],
) -> Result<String, Error> {
    keep_aside(storage, stem, "raw", std::iter::once(bytes))
}

/// Writes a new file in `divergent/`, durable when this returns. The same contents under the
/// same name are not written twice (a crash may have come between this and the cut).
pub(crate) fn keep_aside<'a, S: Storage>(
    storage: &S,
    stem: &str,
    extension: &str,
    parts: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<String, Error> {
    let mut number = 1u64;
    loop {
        let suffix = if number == 1 {
            String::new()
        } else {
            format!("-{number}")
        };
        let name = format!("{DIVERGENT}/{stem}{suffix}.{extension}");
        let there = durable::read(storage, &name).map_err(Error::io(&name, "read"))?;
        match there {
            None => {
                write_parts(storage, &name, parts).map_err(Error::io(&name, "keep aside"))?;
                return Ok(name);
            }
            Some(there) if parts.clone().flatten().eq(there.iter()) => return Ok(name),
            Some(_) => number += 1,
        }
    }
}

fn write_parts<'a, S: Storage>(
    storage: &S,
    name: &str,
    parts: impl Iterator<Item = &'a [u8]>,
) -> std::io::Result<()> {
    let temporary = durable::temporary(name);
    durable::remove(storage, &temporary)?;
    let file = storage.create(&temporary)?;
    let (mut at, mut batch) = (0, Vec::with_capacity(KEEP_BATCH));
    let mut parts = parts.peekable();
    while parts.peek().is_some() {
        batch.extend(parts.by_ref().take(KEEP_BATCH).map(IoSlice::new));
        let len: usize = batch.iter().map(|part| part.len()).sum();
        file.write_vectored_at(at, &mut batch)?;
        at += len as u64;
        batch.clear();
    }
    file.sync()?;
    // Durable here: the copy, before what it copies is touched.
    durable::publish(storage, &temporary, name)
}
