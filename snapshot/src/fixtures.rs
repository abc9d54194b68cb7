//! What the tests of this crate build their files from.

use crate::archive::Shipper;
use crate::card::Card;
use crate::format::{BlockHead, Header};
use crate::seal::{Identities, Recipient, Recipients};
use crate::segment::{self, SegmentRef};
use crate::store::{Directory, Shared};
use crate::verify::{Contents, Share};
use crate::write::{Block, Options, Writer};
use bytes::Bytes;
use standfast_wal::{Ancestor, ClusterId, Disk, Epoch, History, Kind, Link, Lsn, NodeId, Record};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

pub const CLUSTER: ClusterId = ClusterId(0xabcd);

pub fn history(generation: u64) -> History {
    History {
        generation,
        id: 7000 + u128::from(generation),
    }
}

pub fn card(generation: u64, ancestors: &[(u64, u64)]) -> Card {
    Card {
        cluster: CLUSTER,
        cluster_name: "bank".to_string(),
        history: history(generation),
        ancestors: ancestors
            .iter()
            .map(|(g, lsn)| Ancestor::at(history(*g), Lsn(*lsn)))
            .collect(),
    }
}

pub fn header(link: Link, generation: u64) -> Header {
    Header {
        cluster: CLUSTER,
        cluster_name: "bank".to_string(),
        node: NodeId(2),
        history: history(generation),
        ancestors: vec![(history(0), 1)],
        link,
        digest: 0x1234_5678_9abc_def0_1234,
        counts: [1, 2, 3, 4],
        epoch_table: Bytes::from_static(b"epochs"),
        state_head: Bytes::from_static(b"head of state"),
    }
}

/// The record behind `after` with `count` commands; its commands are 10 ns times its LSN old.
pub fn record(after: Link, count: u32, kind: Kind) -> Record {
    let first = after.position.lsn.next().0;
    let payload = format!("commands from {first} on");
    Record::build(
        after,
        kind,
        Epoch(1),
        time(Lsn(first)),
        count,
        payload.as_bytes(),
    )
}

/// The time of the first command of the fixtures' record that starts at `lsn`.
pub fn time(lsn: Lsn) -> u64 {
    lsn.0 * 10
}

/// Records of `count` commands each behind `after`, up to and including `last`.
pub fn log(after: Link, count: u32, last: u64) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut link = after;
    while link.position.lsn.0 < last {
        let one = record(link, count, Kind::Commands);
        link = one.link();
        records.push(one);
    }
    records
}

/// The link at the end of the record that ends at `lsn`.
pub fn link_at(records: &[Record], lsn: u64) -> Link {
    let one = records.iter().find(|r| r.last_lsn() == Lsn(lsn));
    one.expect("a record ends there").link()
}

pub fn blocks(count: u32, bytes: usize) -> Vec<Block> {
    let block = |i: u32| Block {
        section: i % 3,
        first: i * 10,
        last: i * 10 + 9,
        bytes: (0..bytes).map(|b| (b as u32 / 7 * (i + 1)) as u8).collect(),
    };
    (0..count).map(block).collect()
}

/// A block as it was read back.
pub fn block_of(head: &BlockHead, bytes: &[u8]) -> Block {
    Block {
        section: head.section,
        first: head.first,
        last: head.last,
        bytes: bytes.to_vec(),
    }
}

pub fn write_all(header: &Header, blocks: &[Block], threads: usize) -> Vec<u8> {
    let options = Options {
        threads,
        in_flight_max: 3,
        ..Options::default()
    };
    let mut writer = Writer::new(Vec::new(), "memory", header, options).unwrap();
    for block in blocks {
        writer.push(block.clone()).unwrap();
    }
    let (bytes, summary) = writer.finish().unwrap();
    assert_eq!(summary.file_bytes, bytes.len() as u64);
    bytes
}

pub fn snapshot_file(dir: &Path, link: Link, generation: u64) -> PathBuf {
    let path = dir.join(format!(
        "{}.sfs",
        crate::catalogue::snapshot_name(link.position.lsn)
    ));
    let options = Options::default();
    let mut writer = Writer::create(&path, &header(link, generation), options).unwrap();
    writer.push(blocks(1, 100).remove(0)).unwrap();
    writer.publish().unwrap();
    path
}

/// As `snapshot_file`, with segments of these bytes beside it; numbered in their order.
pub fn snapshot_with(dir: &Path, link: Link, segments: &[&[u8]]) -> PathBuf {
    let path = dir.join(format!(
        "{}.sfs",
        crate::catalogue::snapshot_name(link.position.lsn)
    ));
    let disk = Disk::open(dir).unwrap();
    let mut named = Vec::new();
    for (number, bytes) in (0..).zip(segments) {
        let reference = SegmentRef::of(4, number, bytes);
        segment::write(&disk, &reference, bytes).unwrap();
        named.push(reference);
    }
    let options = Options::default();
    let mut writer = Writer::create(&path, &header(link, 1), options).unwrap();
    for block in blocks(1, 100).into_iter().chain(segment::blocks(&named)) {
        writer.push(block).unwrap();
    }
    writer.publish().unwrap();
    path
}

/// The archive in this directory.
pub fn stored(dir: &Path) -> Shared {
    Arc::new(Directory::new(dir))
}

/// Ships `records` as one piece, whatever the archive has already.
pub fn put_piece(dir: &Path, card: &Card, records: &[Record]) -> PathBuf {
    let (head, bytes) =
        crate::object::encode_log(card.cluster, card.history, records, &Recipients::default());
    Shipper::open(&stored(dir), card, &Recipients::default()).unwrap();
    let home = crate::catalogue::history_dir(card.cluster, card.history);
    let path = dir
        .join(home)
        .join(crate::catalogue::log_name(head.first_lsn, head.last_lsn()));
    std::fs::write(&path, bytes).unwrap();
    path
}

pub fn fine(records: &[Record]) -> impl Iterator<Item = io::Result<Record>> + '_ {
    records.iter().cloned().map(Ok)
}

/// Turns every bit of one byte.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}

/// Some identities, made anew for each run of the tests.
static KEYS: LazyLock<Vec<age::x25519::Identity>> =
    LazyLock::new(|| (0..4).map(|_| age::x25519::Identity::generate()).collect());

/// The n-th identity as its file has it.
pub fn secret(n: usize) -> String {
    use age::secrecy::ExposeSecret;
    KEYS[n].to_string().expose_secret().to_string()
}

/// The n-th recipient, and who opens what is sealed to it.
pub fn key(n: usize) -> (Recipient, Identities) {
    let recipient = KEYS[n].to_public().to_string();
    let identities = Identities::parse(&secret(n)).unwrap();
    (recipient.parse().unwrap(), identities)
}

/// Of blocks that are no state.
pub struct Opaque;

impl Contents for Opaque {
    fn block(&self, _: &[u8]) -> Result<Share, String> {
        Ok(Share::default())
    }

    fn segment(&self, _: &SegmentRef, _: Bytes) -> Result<Share, String> {
        Ok(Share::default())
    }

    fn confirm(&self, _: &Header, _: Share) -> Result<(), String> {
        Ok(())
    }
}
