//! The blocks of an archived snapshot, as objects that snapshots share.
//!
//! A part holds the blocks of one range of the state, or such as are of none, behind a salt. It
//! lies among the segments, named as they are by its place and the BLAKE3 of its bytes: a range
//! that has not changed between two snapshots is the same part of both, and is sent once. The
//! archived snapshot itself is a snapshot file without blocks, which refers to its parts as to its
//! segments.

use crate::Result;
use crate::error::{Error, Reason};
use crate::format::{BLOCK_BYTES, BlockHead, Header};
use crate::frame::unpack;
use crate::read::{Reader, Source};
use crate::seal::Salt;
use crate::segment::{self, SegmentRef};
use crate::write::{Options, Writer};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The list of references to parts; those of the state's own lists are below.
pub const LIST: u32 = 1 << 31;
/// A part is closed when it has so many bytes: with its last block, sealed, it is still short
/// enough to be held in memory (`store/spool.rs`).
const CLOSE_BYTES: u64 = 12 << 20;

const SALT_BYTES: usize = size_of::<Salt>();

/// The places of the blocks in a snapshot file that make one part.
pub(crate) type Blocks = Vec<usize>;

impl SegmentRef {
    /// Whether this names blocks, and no segment of a list of the state.
    pub fn is_part(&self) -> bool {
        self.list == LIST
    }
}

/// The parts that a snapshot file is sent as. Reads all of it.
pub(crate) fn split<S: Source>(
    snapshot: &Reader<S>,
    salt: &Salt,
) -> Result<BTreeMap<SegmentRef, Blocks>> {
    let mut by_range: BTreeMap<(u32, u32, u32), Vec<(u64, Blocks)>> = BTreeMap::new();
    for (at, head) in snapshot.blocks().enumerate() {
        if head.section == segment::SECTION {
            continue;
        }
        let range = match head.section {
            0 => (0, 0, 0),
            section => (section, head.first, head.last),
        };
        let parts = by_range.entry(range);
        let parts = parts.or_default();
        match parts.last_mut() {
            Some((bytes, blocks)) if *bytes < CLOSE_BYTES => {
                *bytes += u64::from(head.stored_bytes);
                blocks.push(at);
            }
            _ => parts.push((u64::from(head.stored_bytes), vec![at])),
        }
    }
    let mut found = BTreeMap::new();
    for ((_, first, _), parts) in by_range {
        for (_, blocks) in parts {
            let bytes = join(snapshot, &blocks, salt)?;
            found.insert(SegmentRef::of(LIST, first, &bytes), blocks);
        }
    }
    Ok(found)
}

/// As `join`, and proved to be what is referred to.
pub(crate) fn made<S: Source>(
    snapshot: &Reader<S>,
    blocks: &Blocks,
    salt: &Salt,
    reference: &SegmentRef,
) -> Result<Bytes> {
    let bytes = join(snapshot, blocks, salt)?;
    match SegmentRef::of(reference.list, reference.number, &bytes) == *reference {
        true => Ok(bytes),
        false => Err(Error::new(snapshot.file(), None, Reason::Checksum("part"))),
    }
}

/// The bytes of the part that these blocks of a snapshot file make: the salt, then one behind
/// another, each as in the file, but numbered from 0.
pub(crate) fn join<S: Source>(snapshot: &Reader<S>, blocks: &Blocks, salt: &Salt) -> Result<Bytes> {
    let mut bytes = salt.to_vec();
    let mut frame = Vec::new();
    for (number, at) in (0..).zip(blocks) {
        let head = snapshot.read_block(*at, &mut frame)?;
        bytes.extend_from_slice(&BlockHead { number, ..head }.encode());
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes.into())
}

/// The archived snapshot: the header of the snapshot file and what it refers to.
pub(crate) fn bare(file: &str, header: &Header, named: &[SegmentRef]) -> Result<Bytes> {
    let options = Options {
        threads: 0,
        ..Options::default()
    };
    let mut writer = Writer::new(Vec::new(), file, header, options)?;
    for block in segment::blocks(named) {
        writer.push(block)?;
    }
    let (bytes, _) = writer.finish()?;
    Ok(bytes.into())
}

/// Gives each block of a part to `decode`, in order. The part's bytes were proved against the
/// reference; `file` names it in errors.
pub(crate) fn load<T>(
    file: &str,
    part: &[u8],
    mut decode: impl FnMut(&BlockHead, &[u8]) -> std::result::Result<T, String>,
) -> Result<Vec<T>> {
    let no_salt = || Error::new(file, 0, Reason::Field("a part that is cut off"));
    let (_, mut rest) = part.split_first_chunk::<SALT_BYTES>().ok_or_else(no_salt)?;
    let (mut raw, mut found) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let at = (part.len() - rest.len()) as u64;
        let refuse = |reason| Error::new(file, at, reason);
        let cut = || refuse(Reason::Field("a block that is cut off"));
        let (front, behind) = rest.split_at_checked(BLOCK_BYTES).ok_or_else(cut)?;
        let head = BlockHead::decode(front).map_err(refuse)?;
        let stored = head.stored_bytes as usize;
        let (frame, behind) = behind.split_at_checked(stored).ok_or_else(cut)?;
        if crc32fast::hash(frame) != head.stored_crc || head.number as usize != found.len() {
            return Err(refuse(Reason::Checksum("block")));
        }
        unpack(frame, head.raw_bytes as usize, &mut raw).map_err(refuse)?;
        let decoded = decode(&head, &raw);
        found.push(decoded.map_err(|text| refuse(Reason::Contents(text)))?);
        rest = behind;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
