//! The meta file: who this node is and what it must not forget, in one small file.
//!
//! The file holds the same block twice, so that one damaged sector harms nothing; it is replaced
//! whole, by rename. Where both blocks are unreadable the node has lost its disk (2-replication,
//! "Member"): it never guesses a fence.

use crate::limits;
use crate::replication::config::{Acks, Config, Protection};
use crate::replication::{EpochTable, Fence, Meta};
use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};
use standfast_wal::record::{field, is_gapless};
use standfast_wal::{
    Ancestor, ClusterId, Disk, Epoch, Field, History, Incarnation, Link, NodeId, Nonce, Storage,
    durable,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// The name of the file in a data directory.
pub const FILE: &str = "meta";

const MAGIC: Field = field(0, 8, "magic", "`SFMETA` and two zeros");
const VERSION: Field = field(8, 4, "version", "2");
const LENGTH: Field = field(12, 4, "length", "bytes of the contents behind this head");
const CRC: Field = field(16, 4, "crc", "CRC-32 of version, length and contents");
const RESERVED: Field = field(20, 4, "reserved", "0");

/// The head of each of the two blocks; little-endian. Postcard-encoded contents follow, then zeros
/// up to a multiple of 4096.
pub const HEAD: [Field; 5] = [MAGIC, VERSION, LENGTH, CRC, RESERVED];
pub const HEAD_BYTES: usize = 24;
const _: () = assert!(is_gapless(&HEAD, HEAD_BYTES));
const MAGIC_BYTES: &[u8; 8] = b"SFMETA\0\0";
const FORMAT: u32 = 2;
const BLOCK_ALIGN: usize = 4096;

/// Who a data directory belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// A node that does not exist yet.
pub struct NewNode {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// `None`: it asks the cluster to take it in.
    pub initial: Option<Config>,
}

/// A node made from a backup: alone in a new history.
pub struct RestoredNode {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// The new history; its generation is above every one that was found.
    pub history: History,
    pub ancestors: Vec<Ancestor>,
    /// Where the restored state stands.
    pub link: Link,
    pub epochs: EpochTable,
    pub nonce: Nonce,
    /// Writes are refused until `activate`.
    pub quarantined: bool,
}

/// Everything in the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MetaFile {
    pub cluster_name: String,
    pub quarantined: bool,
    pub core: Meta,
}

/// Why a meta file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error("the meta file is damaged: neither of its two blocks is whole")]
    Damaged,
    #[error("meta file version {0} is not known to this program; use the one that wrote it")]
    Version(u32),
    #[error("cannot read the meta file: {0}")]
    Io(#[from] io::Error),
}

impl MetaFile {
    pub fn identity(&self) -> Identity {
        Identity {
            cluster: self.core.cluster,
            cluster_name: self.cluster_name.clone(),
            node: self.core.node,
            incarnation: self.core.incarnation,
        }
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let contents = postcard::to_stdvec(self).expect("plain data can be encoded");
        let mut block = BytesMut::with_capacity(HEAD_BYTES + contents.len());
        block.put_slice(MAGIC_BYTES);
        block.put_u32_le(FORMAT);
        block.put_u32_le(u32::try_from(contents.len()).expect("a meta file is small"));
        block.put_u32_le(0);
        block.put_u32_le(0);
        block.put_slice(&contents);
        let crc = crc_of(&block);
        block[CRC.at..CRC.at + 4].copy_from_slice(&crc.to_le_bytes());
        block.resize(block.len().next_multiple_of(BLOCK_ALIGN), 0);
        assert!(
            2 * block.len() <= limits::META_BYTES_MAX,
            "meta of {} bytes",
            block.len()
        );
        [&block[..], &block[..]].concat()
    }

    /// Reads a file: from whichever of its blocks is whole.
    pub fn decode(bytes: &[u8]) -> Result<MetaFile, MetaError> {
        let half = bytes.len() / 2;
        let halves = [bytes.get(..half), bytes.get(half..)].into_iter().flatten();
        // A file that lost its end still has its first block at the front.
        let candidates = halves.chain([bytes]);
        let mut newer = None;
        let mut found = None;
        for block in candidates {
            match prove_block(block) {
                Ok(contents) => match found {
                    // Both were written by one replacement: two that differ are not one file.
                    Some(other) if other != contents => return Err(MetaError::Damaged),
                    _ => found = Some(contents),
                },
                Err(MetaError::Version(version)) => newer = Some(version),
                Err(_) => {}
            }
        }
        let contents = found.ok_or(newer.map_or(MetaError::Damaged, MetaError::Version))?;
        postcard::from_bytes(contents).map_err(|_| MetaError::Damaged)
    }
}

fn crc_of(block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..CRC.at]);
    hasher.update(&block[RESERVED.at..]);
    hasher.finalize()
}

/// The contents of a block that is whole.
fn prove_block(block: &[u8]) -> Result<&[u8], MetaError> {
    let head = block.get(..HEAD_BYTES).ok_or(MetaError::Damaged)?;
    let number = |field: Field| {
        u32::from_le_bytes(head[field.at..field.at + 4].try_into().expect("four bytes"))
    };
    let end = HEAD_BYTES
        .checked_add(number(LENGTH) as usize)
        .ok_or(MetaError::Damaged)?;
    let whole = block.get(..end).ok_or(MetaError::Damaged)?;
    if &head[..8] != MAGIC_BYTES || crc_of(whole) != number(CRC) {
        return Err(MetaError::Damaged);
    }
    if number(VERSION) != FORMAT {
        return Err(MetaError::Version(number(VERSION)));
    }
    Ok(&whole[HEAD_BYTES..])
}

/// Reads the meta file of a data directory; `None` if there is none.
pub fn load(dir: &Path) -> Result<Option<MetaFile>, MetaError> {
    match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => MetaFile::decode(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As `load`, from the directory's storage.
pub fn load_from<S: Storage>(disk: &S) -> Result<Option<MetaFile>, MetaError> {
    let bytes = durable::read(disk, FILE)?;
    bytes.map(|bytes| MetaFile::decode(&bytes)).transpose()
}

/// Replaces the meta file of a data directory, durably.
pub fn store<S: Storage>(disk: &S, meta: &MetaFile) -> io::Result<()> {
    // Durable here: the fence, the votes and the Config that answers may now be given on.
    durable::replace(disk, FILE, &meta.encode())
}

/// Who the directory belongs to; `None` if there is no meta file.
pub fn identity(dir: &Path) -> io::Result<Option<Identity>> {
    match load(dir) {
        Ok(meta) => Ok(meta.map(|meta| meta.identity())),
        Err(MetaError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {error}", dir.join(FILE).display()),
        )),
    }
}

/// Makes a data directory that holds an identity and nothing else; refuses one that has a node.
pub fn create(dir: &Path, new: NewNode) -> io::Result<()> {
    create_with(dir, &first(new))
}

/// As `create`, in a storage that holds no node.
pub fn create_in<S: Storage>(disk: &S, new: NewNode) -> io::Result<MetaFile> {
    let meta = first(new);
    store(disk, &meta)?;
    Ok(meta)
}

fn first(new: NewNode) -> MetaFile {
    let config = new.initial.unwrap_or_else(unknown_config);
    MetaFile {
        cluster_name: new.cluster_name,
        quarantined: false,
        core: Meta::first(new.cluster, new.node, new.incarnation, config),
    }
}

fn create_with(dir: &Path, meta: &MetaFile) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if dir.join(FILE).exists() {
        let text = format!(
            "{} holds a node already; it is never overwritten",
            dir.display()
        );
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    store(&Disk::open(dir)?, meta)
}

/// What a node that knows nothing of its cluster's register holds: names nobody, older than any.
pub fn unknown_config() -> Config {
    Config {
        history: History::default(),
        ancestors: Vec::new(),
        epoch: Epoch(0),
        version: 0,
        nonce: Nonce(0),
        primary: NodeId(0),
        sync_set: BTreeSet::new(),
        acks_needed: 1,
        acks: Acks::All,
        protection: Protection::MaxAvailability,
        members: BTreeMap::new(),
        voters: BTreeSet::new(),
    }
}

/// Makes the meta file of a restored node, in a storage that holds no node: alone in a new history,
/// at the next epoch.
pub fn create_restored<S: Storage>(
    storage: &S,
    new: RestoredNode,
    member: crate::replication::config::Member,
) -> io::Result<()> {
    let epoch = new
        .epochs
        .last()
        .map_or(new.link.position.epoch, |entry| entry.epoch);
    let config = Config {
        history: new.history,
        ancestors: new.ancestors,
        epoch,
        version: 1,
        nonce: new.nonce,
        primary: new.node,
        sync_set: BTreeSet::from([new.node]),
        acks_needed: 1,
        acks: Acks::All,
        protection: Protection::MaxAvailability,
        members: BTreeMap::from([(new.node, member)]),
        voters: BTreeSet::from([new.node]),
    };
    let mut core = Meta::first(new.cluster, new.node, new.incarnation, config);
    core.fence = Fence {
        history: new.history,
        epoch,
    };
    let meta = MetaFile {
        cluster_name: new.cluster_name,
        quarantined: new.quarantined,
        core,
    };
    store(storage, &meta)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> MetaFile {
        let config = Config {
            version: 7,
            ..unknown_config()
        };
        let core = Meta::first(ClusterId(1), NodeId(2), Incarnation(3), config);
        MetaFile {
            cluster_name: "books".to_string(),
            quarantined: false,
            core,
        }
    }

    #[test]
    fn every_flipped_byte_is_harmless_or_refused_and_never_another_meta() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(
                MetaFile::decode(&damaged).expect("the other block"),
                sample(),
                "{at}"
            );
        }
    }

    #[test]
    fn every_truncation_is_harmless_or_refused() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            if let Ok(meta) = MetaFile::decode(&bytes[..len]) {
                assert_eq!(meta, sample(), "cut to {len}");
            }
        }
        assert!(MetaFile::decode(&bytes[..HEAD_BYTES]).is_err());
    }

    #[test]
    fn a_file_with_both_blocks_damaged_is_refused() {
        let mut bytes = sample().encode();
        let half = bytes.len() / 2;
        bytes[HEAD_BYTES + 1] ^= 1;
        bytes[half + HEAD_BYTES + 1] ^= 1;
        assert!(matches!(MetaFile::decode(&bytes), Err(MetaError::Damaged)));
    }

    #[test]
    fn a_directory_that_holds_a_node_is_not_made_again() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let new = || NewNode {
            cluster: ClusterId(1),
            cluster_name: "books".to_string(),
            node: NodeId(2),
            incarnation: Incarnation(3),
            initial: None,
        };
        create(dir.path(), new()).expect("the first");
        let again = create(dir.path(), new()).expect_err("the second");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let found = identity(dir.path()).expect("readable").expect("there");
        assert_eq!((found.node, found.incarnation), (NodeId(2), Incarnation(3)));
    }
}
