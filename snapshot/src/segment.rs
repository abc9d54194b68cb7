//! Full segments of the state's lists, as files beside the snapshots that refer to them.
//!
//! Such a file is the segment's bytes and nothing else. Its name says which list and number it is
//! of, and the BLAKE3 of its bytes: so it is proved by its name, equal segments of two nodes have
//! equal names, and one that is there is never written again. A snapshot names its segments in
//! blocks of their own ([`SECTION`]); they are durable before the snapshot has its name, and go
//! only when no snapshot names them any more.

use crate::Result;
use crate::error::{Error, Reason};
use crate::frame::{self, unpack};
use crate::layout::{Layout, field, put, u32_at, u64_at};
use crate::new_file::NewFile;
use crate::seal::{Identities, Recipients};
use crate::sealed::{self, Clear, SealedHead};
use crate::store::{self, Store};
use crate::write::Block;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use standfast_wal::record::is_gapless;
use standfast_wal::{Disk, Field, File, Storage};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// The section of the blocks that name segments; the state's own are of others.
pub const SECTION: u32 = u32::MAX;
/// What the names of segments begin with.
const PREFIX: &str = "segment-";
/// The longest segment: what reading one takes memory for where it cannot be mapped.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// References in one block.
const BLOCK_REFERENCES: usize = 4096;
/// zstd level of a sealed segment.
const LEVEL: i32 = 3;
pub(crate) const BLOCK_BYTES_MAX: usize = BLOCK_REFERENCES * REFERENCE_BYTES;

const R_LIST: Field = field(0, 4, "list", "which list of the state; 2^31: a part");
const R_NUMBER: Field = field(
    4,
    4,
    "number",
    "the segment's number in it, from 0; the part's first place",
);
const R_BYTES: Field = field(8, 8, "bytes", "length of the segment");
const R_BLAKE3: Field = field(16, 32, "blake3", "BLAKE3 of its bytes");

/// One reference in a snapshot.
pub const REFERENCE: [Field; 4] = [R_LIST, R_NUMBER, R_BYTES, R_BLAKE3];
pub const REFERENCE_BYTES: usize = 48;
const _: () = assert!(is_gapless(&REFERENCE, REFERENCE_BYTES));

/// The layout of a reference, for the document of formats.
pub(crate) const LAYOUT: Layout = Layout {
    name: "segment reference",
    bytes: REFERENCE_BYTES,
    fields: &REFERENCE,
};

/// Names one segment, and proves it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SegmentRef {
    pub list: u32,
    pub number: u32,
    pub bytes: u64,
    pub blake3: [u8; 32],
}

impl SegmentRef {
    /// The reference to these bytes.
    pub fn of(list: u32, number: u32, bytes: &[u8]) -> SegmentRef {
        SegmentRef {
            list,
            number,
            bytes: bytes.len() as u64,
            blake3: *blake3::hash(bytes).as_bytes(),
        }
    }

    /// The name of its file.
    pub fn name(&self) -> String {
        let hash = blake3::Hash::from_bytes(self.blake3).to_hex();
        format!("{PREFIX}{}-{:08}-{hash}", self.list, self.number)
    }

    pub(crate) fn encode(&self) -> [u8; REFERENCE_BYTES] {
        let mut out = [0; REFERENCE_BYTES];
        put(&mut out, R_LIST, &self.list.to_le_bytes());
        put(&mut out, R_NUMBER, &self.number.to_le_bytes());
        put(&mut out, R_BYTES, &self.bytes.to_le_bytes());
        put(&mut out, R_BLAKE3, &self.blake3);
        out
    }

    fn decode(bytes: &[u8]) -> Option<SegmentRef> {
        let reference = SegmentRef {
            list: u32_at(bytes, R_LIST),
            number: u32_at(bytes, R_NUMBER),
            bytes: u64_at(bytes, R_BYTES),
            blake3: *bytes.get(R_BLAKE3.at..)?.first_chunk()?,
        };
        (reference.bytes <= SEGMENT_BYTES_MAX).then_some(reference)
    }

    /// Whether these are its bytes.
    fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.bytes && *blake3::hash(bytes).as_bytes() == self.blake3
    }
}

/// What a file of this name is, if it is a segment, and the BLAKE3 that it should have.
pub(crate) fn parse(name: &str) -> Option<(u32, u32, [u8; 32])> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (list, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let hash = blake3::Hash::from_hex(parts.next()?).ok()?;
    parts
        .next()
        .is_none()
        .then(|| (list, number, *hash.as_bytes()))
}

/// The blocks that name these segments.
pub fn blocks(references: &[SegmentRef]) -> impl Iterator<Item = Block> {
    references.chunks(BLOCK_REFERENCES).map(|some| Block {
        section: SECTION,
        first: 0,
        last: 0,
        bytes: some.iter().flat_map(SegmentRef::encode).collect(),
    })
}

/// The references of one block; `None` if it does not hold whole ones.
pub(crate) fn references(block: &[u8]) -> Option<Vec<SegmentRef>> {
    let whole = block.chunks_exact(REFERENCE_BYTES);
    let is_whole = whole.remainder().is_empty();
    whole
        .map(SegmentRef::decode)
        .collect::<Option<_>>()
        .filter(|_| is_whole)
}

/// The segments that lie in a storage, by list and number. Only names and lengths are looked at.
pub fn list<S: Storage>(storage: &S) -> io::Result<Vec<SegmentRef>> {
    let mut found = Vec::new();
    for name in storage.list("")? {
        if let Some((list, number, blake3)) = parse(&name) {
            let bytes = match storage.open(&name) {
                // Removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened?.len()?,
            };
            found.push(SegmentRef {
                list,
                number,
                bytes,
                blake3,
            });
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Writes a segment's file, which has its name when it is durable; gives the same bytes as `open`
/// does, without reading them again: that would cost as much as the writing. What the disk holds is
/// proved by whoever opens the file next: the scrubber, a start, a peer or the archive.
pub fn write<S: Storage>(storage: &S, reference: &SegmentRef, bytes: &[u8]) -> Result<Bytes> {
    let name = reference.name();
    let written = NewFile::create(storage.clone(), &name).and_then(|mut file| {
        file.write_all(bytes)?;
        // Durable here: the segment, before any snapshot that names it.
        file.publish()?.map_unread(reference.bytes)
    });
    written.map_err(|error| Error::io(name, error))
}

/// The bytes of a segment, mapped where the storage can, and proved.
pub fn open<S: Storage>(storage: &S, reference: &SegmentRef) -> Result<Bytes> {
    let name = reference.name();
    let mapped = storage.open(&name).and_then(|file| {
        let is_long_enough = file.len()? >= reference.bytes;
        is_long_enough
            .then(|| file.map(reference.bytes))
            .transpose()
    });
    prove(&name, reference, mapped)
}

/// As `open`, for a directory that may be read only.
pub fn open_at(dir: &Path, reference: &SegmentRef) -> Result<Bytes> {
    let path = dir.join(reference.name());
    let mapped = Disk::map_at(&path, reference.bytes);
    prove(&path.display().to_string(), reference, mapped.map(Some))
}

/// As `open`, of an object in a store: the segment, below `dir`, opened if it is sealed.
pub fn fetch(
    store: &dyn Store,
    dir: &str,
    reference: &SegmentRef,
    identities: &Identities,
) -> Result<Bytes> {
    let name = store::join(dir, &reference.name());
    let place = store.place(&name);
    let bytes = match get_sealed(store, &name, reference)? {
        Got::Plain(bytes) => return Ok(bytes),
        Got::Sealed(head, stored) => {
            let opened = identities.open(head.recipients, &stored);
            let frame = opened.map_err(|reason| Error::new(&place, None, reason))?;
            let mut bytes = Vec::new();
            let length = usize::try_from(reference.bytes).expect("at most SEGMENT_BYTES_MAX");
            unpack(&frame, length, &mut bytes).map_err(|r| Error::new(&place, None, r))?;
            Bytes::from(bytes)
        }
    };
    prove(&place, reference, Ok(Some(bytes)))
}

/// Proves what can be proved of a segment in a store without a key: all of a plain one.
pub fn check(store: &dyn Store, dir: &str, reference: &SegmentRef) -> Result<()> {
    let name = store::join(dir, &reference.name());
    get_sealed(store, &name, reference).map(|_| ())
}

enum Got {
    Plain(Bytes),
    Sealed(SealedHead, Bytes),
}

/// A segment begins with what clients chose: only one that is none by its name can be sealed.
fn get_sealed(store: &dyn Store, name: &str, reference: &SegmentRef) -> Result<Got> {
    let place = store.place(name);
    match store.get(name) {
        Ok(bytes) if !reference.is_of(&bytes) && sealed::is_sealed(&bytes) => {
            let (head, stored) = sealed::check(&place, &bytes)?;
            if head.clear != Clear::Segment(*reference) {
                return Err(Error::new(&place, None, Reason::Checksum("segment")));
            }
            Ok(Got::Sealed(head, stored))
        }
        got => prove(&place, reference, got.map(Some)).map(Got::Plain),
    }
}

/// Makes the sealed object of a segment.
pub(crate) fn seal(reference: &SegmentRef, bytes: &[u8], recipients: &Recipients) -> Bytes {
    let mut frame = vec![0; frame::bound(bytes.len())];
    let length = frame::pack(bytes, &mut frame, LEVEL).expect("zstd takes any bytes into memory");
    let stored = recipients.seal(&frame[..length]);
    let head = SealedHead {
        clear: Clear::Segment(*reference),
        recipients: recipients.id().expect("somebody is to read it"),
        stored_bytes: stored.len() as u64,
        blake3: *blake3::hash(&stored).as_bytes(),
    };
    [head.encode(), stored].concat().into()
}

fn prove(name: &str, reference: &SegmentRef, mapped: io::Result<Option<Bytes>>) -> Result<Bytes> {
    match mapped {
        Ok(Some(bytes)) if reference.is_of(&bytes) => Ok(bytes),
        Ok(_) => Err(Error::new(name, None, Reason::Checksum("segment"))),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Err(Error::new(name, None, Reason::NoSegment)),
            ErrorKind::UnexpectedEof => Err(Error::new(name, None, Reason::Checksum("segment"))),
            _ => Err(Error::io(name, error)),
        },
    }
}

/// Removes the segments that are not in `named`; says how many.
pub fn remove_others<S: Storage>(storage: &S, named: &BTreeSet<SegmentRef>) -> io::Result<usize> {
    let all = list(storage)?;
    let others = all.iter().filter(|one| !named.contains(one));
    let mut removed = 0;
    for other in others {
        storage.remove(&other.name())?;
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_wal::SimDisk;

    #[test]
    fn a_name_says_what_it_is_of_and_no_other_name_is_taken_for_one() {
        let reference = SegmentRef::of(4, 17, b"entries");
        let name = reference.name();
        assert_eq!(parse(&name), Some((4, 17, reference.blake3)));
        for other in [
            "segment-",
            "segment-4-17",
            "snapshot-00000000000000000001.sfs",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(parse(&format!("{name}.tmp")), None);
        assert_eq!(parse(&format!("{name}-1")), None);
    }

    #[test]
    fn references_survive_their_blocks() {
        let many = (0..10_000).map(|n| SegmentRef::of(4, n, &n.to_le_bytes()));
        let many: Vec<_> = many.collect();
        let blocks: Vec<Block> = blocks(&many).collect();
        assert_eq!(blocks.len(), 3);
        let back: Option<Vec<_>> = blocks
            .iter()
            .map(|block| references(&block.bytes))
            .collect();
        assert_eq!(back.expect("whole").concat(), many);
        assert_eq!(references(&[0; 47]), None);
    }

    #[test]
    fn a_segment_is_its_bytes_or_refused() {
        let disk = SimDisk::new(1);
        let bytes = b"sixteen bytes of".repeat(100);
        let reference = SegmentRef::of(5, 0, &bytes);
        let refused = |what: &str| {
            let error = open(&disk, &reference).expect_err(what);
            assert!(error.is_damage(), "{what}: {error}");
        };
        refused("it is not there");
        write(&disk, &reference, &bytes).expect("a sound disk");
        assert_eq!(open(&disk, &reference).expect("a sound disk"), bytes);
        assert_eq!(list(&disk).expect("a sound disk"), [reference]);
        disk.flip(&reference.name(), 77, 3);
        refused("a bit has flipped");
        disk.put(&reference.name(), bytes[1..].to_vec());
        refused("it is shorter");
        write(&disk, &reference, &bytes).expect("a sound disk");
        assert_eq!(open(&disk, &reference).expect("it was replaced"), bytes);
        let named = BTreeSet::from([reference]);
        assert_eq!(remove_others(&disk, &named).expect("a sound disk"), 0);
        assert_eq!(
            remove_others(&disk, &BTreeSet::new()).expect("a sound disk"),
            1
        );
    }
}
