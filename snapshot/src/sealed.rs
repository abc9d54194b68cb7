//! The layout of an encrypted snapshot or segment: a head in clear, and an age file.
//!
//! The head says what whoever has no key must know: what it is of, the digest of the stored bytes,
//! and for a snapshot its place in the log and the segments that it needs. Neither the state's
//! digest nor its counts are in it. Whoever opens it holds the head against the contents.

use crate::Result;
use crate::error::{Error, Reason};
use crate::format::{HEADER_BYTES, Header};
use crate::layout::{
    Layout, VERSION, VERSION_AT, check_front, field, put, u32_at, u64_at, u128_at,
};
use crate::read::{Reader, Source};
use crate::seal::{Identities, RecipientsId};
use crate::segment::{SegmentRef, references};
use crate::store::Store;
use bytes::Bytes;
use standfast_wal::Field;
use standfast_wal::record::is_gapless;

const MAGIC: &[u8; 8] = b"sfseal\r\n";
/// What a head takes memory for: a header, and references to 1 TB of segments.
pub const TAIL_MAX: usize = 8 << 20;

const CRC: Field = field(12, 4, "crc", "CRC-32 of byte 16 to the end of the tail");
const KIND: Field = field(16, 4, "kind", "1: a snapshot; 2: a zstd frame of a segment");
const TAIL: Field = field(20, 4, "tail_bytes", "bytes of the tail, which follows");
const RECIPIENTS: Field = field(24, 16, "recipients", "the id of whom it is encrypted to");
const STORED: Field = field(
    40,
    8,
    "stored_bytes",
    "bytes of the age file behind the tail",
);
const BLAKE3: Field = field(48, 32, "blake3", "BLAKE3 of those");

/// The fixed part of the head; little-endian.
pub const SEALED: [Field; 8] = [
    field(0, 8, "magic", "`sfseal\\r\\n`"),
    VERSION_AT,
    CRC,
    KIND,
    TAIL,
    RECIPIENTS,
    STORED,
    BLAKE3,
];
pub const SEALED_BYTES: usize = 80;
const _: () = assert!(is_gapless(&SEALED, SEALED_BYTES));

/// The layout of the head, for the document of formats.
pub(crate) const LAYOUT: Layout = Layout {
    name: "sealed object head",
    bytes: SEALED_BYTES,
    fields: &SEALED,
};

/// What is sealed, as far as it is told in clear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Clear {
    /// The header without what speaks of the state, and what the snapshot refers to.
    Snapshot(Box<Header>, Vec<SegmentRef>),
    Segment(SegmentRef),
}

/// The head of a sealed object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedHead {
    pub clear: Clear,
    pub recipients: RecipientsId,
    pub stored_bytes: u64,
    /// BLAKE3 of the stored bytes.
    pub blake3: [u8; 32],
}

/// A snapshot's header as it is told in clear.
pub fn blank(header: &Header) -> Header {
    Header {
        digest: 0,
        counts: [0; 4],
        epoch_table: Bytes::new(),
        state_head: Bytes::new(),
        ..header.clone()
    }
}

/// Whether these are the first bytes of a sealed object.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

impl SealedHead {
    pub fn encode(&self) -> Vec<u8> {
        let tail = match &self.clear {
            Clear::Snapshot(header, segments) => {
                let segments = segments.iter().flat_map(SegmentRef::encode);
                blank(header).encode().into_iter().chain(segments).collect()
            }
            Clear::Segment(reference) => reference.encode().to_vec(),
        };
        assert!(tail.len() <= TAIL_MAX, "a head of {} bytes", tail.len());
        let kind: u32 = match self.clear {
            Clear::Snapshot(..) => 1,
            Clear::Segment(_) => 2,
        };
        let length = u32::try_from(tail.len()).expect("at most TAIL_MAX");
        let mut out = vec![0; SEALED_BYTES];
        put(&mut out, SEALED[0], MAGIC);
        put(&mut out, VERSION_AT, &VERSION.to_le_bytes());
        put(&mut out, KIND, &kind.to_le_bytes());
        put(&mut out, TAIL, &length.to_le_bytes());
        put(&mut out, RECIPIENTS, &self.recipients.0.to_le_bytes());
        put(&mut out, STORED, &self.stored_bytes.to_le_bytes());
        put(&mut out, BLAKE3, &self.blake3);
        out.extend_from_slice(&tail);
        let crc = crc32fast::hash(&out[KIND.at..]);
        put(&mut out, CRC, &crc.to_le_bytes());
        out
    }

    /// Reads the head at the start of `source`, and says how long it is; nothing behind it is
    /// looked at.
    pub fn read(file: &str, source: &impl Source) -> Result<(SealedHead, u64)> {
        let length = source.length().map_err(|e| Error::io(file, e))?;
        let read = |offset, len: usize| {
            let rest = usize::try_from(length.saturating_sub(offset)).unwrap_or(len);
            let mut bytes = vec![0; len.min(rest)];
            let result = source.read_exact_at(offset, &mut bytes);
            result.map(|()| bytes).map_err(|e| Error::io(file, e))
        };
        let mut bytes = read(0, SEALED_BYTES)?;
        check_front(file, &bytes, SEALED_BYTES, MAGIC, "sealed object")?;
        let refuse = |what| Error::new(file, KIND.at as u64, Reason::Field(what));
        let tail = u32_at(&bytes, TAIL) as usize;
        if tail > TAIL_MAX {
            return Err(refuse("the head's length"));
        }
        bytes.extend_from_slice(&read(SEALED_BYTES as u64, tail)?);
        let needed = (SEALED_BYTES + tail) as u64;
        if (bytes.len() as u64) < needed {
            let found = length;
            return Err(Error::new(file, found, Reason::Truncated { needed, found }));
        }
        if crc32fast::hash(&bytes[KIND.at..]) != u32_at(&bytes, CRC) {
            return Err(Error::new(file, 0, Reason::Checksum("head")));
        }
        let bytes = Bytes::from(bytes);
        let tail = bytes.slice(SEALED_BYTES..);
        let clear = match u32_at(&bytes, KIND) {
            1 => snapshot(file, tail)?,
            2 => match references(&tail).as_deref() {
                Some([one]) => Clear::Segment(*one),
                _ => return Err(refuse("the reference")),
            },
            _ => return Err(refuse("the kind")),
        };
        let head = SealedHead {
            clear,
            recipients: RecipientsId(u128_at(&bytes, RECIPIENTS)),
            stored_bytes: u64_at(&bytes, STORED),
            blake3: *bytes[BLAKE3.at..].first_chunk().expect("SEALED_BYTES"),
        };
        Ok((head, needed))
    }
}

fn snapshot(file: &str, tail: Bytes) -> Result<Clear> {
    let measured = Header::measure(file, &tail)?;
    let refuse = || Error::new(file, SEALED_BYTES as u64, Reason::Field("the head's tail"));
    let end = HEADER_BYTES + measured;
    if end > tail.len() {
        return Err(refuse());
    }
    let header = Header::decode(file, &tail, tail.slice(HEADER_BYTES..end))?;
    let segments = references(&tail[end..]).ok_or_else(refuse)?;
    if blank(&header) != header {
        return Err(refuse());
    }
    Ok(Clear::Snapshot(Box::new(header), segments))
}

/// Proves what can be proved of a sealed object without a key: its head, and that the bytes behind
/// it are those that were put. Answers those, too.
pub fn check(file: &str, bytes: &Bytes) -> Result<(SealedHead, Bytes)> {
    let (head, at) = SealedHead::read(file, bytes)?;
    let stored = bytes.slice(usize::try_from(at).expect("it lies in memory")..);
    let (needed, found) = (head.stored_bytes, stored.len() as u64);
    if needed != found {
        let reason = Reason::Truncated {
            needed: at.saturating_add(needed),
            found: at + found,
        };
        return Err(Error::new(file, at, reason));
    }
    if *blake3::hash(&stored).as_bytes() != head.blake3 {
        return Err(Error::new(file, at, Reason::Checksum("stored bytes")));
    }
    Ok((head, stored))
}

/// Proves what can be proved of a snapshot in a store without a key: every byte of a plain one.
/// Answers its header, as far as that is in clear.
pub fn check_snapshot(store: &dyn Store, name: &str) -> Result<(Header, Option<RecipientsId>)> {
    let place = store.place(name);
    let bytes = store.get(name).map_err(|e| Error::io(&place, e))?;
    if !is_sealed(&bytes) {
        let reader = Reader::new(bytes, &place)?;
        reader.check_whole()?;
        return Ok((reader.header().clone(), None));
    }
    let (head, _) = check(&place, &bytes)?;
    match head.clear {
        Clear::Snapshot(header, _) => Ok((*header, Some(head.recipients))),
        Clear::Segment(_) => Err(Error::new(&place, None, Reason::Magic("snapshot"))),
    }
}

/// Fetches a snapshot whole, and opens it if it is sealed.
pub fn fetch_snapshot(
    store: &dyn Store,
    name: &str,
    identities: &Identities,
) -> Result<Reader<Bytes>> {
    let place = store.place(name);
    let bytes = store.get(name).map_err(|e| Error::io(&place, e))?;
    if !is_sealed(&bytes) {
        return Reader::new(bytes, &place);
    }
    let (head, stored) = check(&place, &bytes)?;
    let opened = identities.open(head.recipients, &stored);
    let opened = opened.map_err(|reason| Error::new(&place, None, reason))?;
    let reader = Reader::new(Bytes::from(opened), &place)?;
    let clear = Clear::Snapshot(Box::new(blank(reader.header())), reader.references()?);
    if clear != head.clear {
        let reason = Reason::Field("what the head says in clear");
        return Err(Error::new(&place, 0, reason));
    }
    Ok(reader)
}

#[cfg(test)]
mod tests;
