//! Snapshot files: header, blocks, index, footer.
//!
//! Asserted: memory stays within a bound; a header that is let in encodes to the file's own first
//! bytes; what a reader hands out in pieces is the file; blocks that load make, written anew, a
//! file that loads to the same; the table of epochs in it decodes or is refused.

use super::commands;
use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::{Target, repair, samples};
use bytes::Bytes;
use standfast::node::copies::{decode_epochs, encode_epochs};
use standfast_snapshot::format::{
    BLOCK, BLOCK_BYTES, BLOCK_RAW_MAX, FOOTER, FOOTER_BYTES, HEADER, HEADER_BYTES, INDEX,
    INDEX_BYTES,
};
use standfast_snapshot::{Block, BlockHead, Header, Options, Reader, Writer, segment};
use standfast_wal::{Chain, Epoch, Field, Link, Lsn, NodeId, Position};

pub const TARGET: Target = Target {
    name: "snapshot_file",
    decodes: "snapshot/format, snapshot/read (Reader), node/copies (decode_epochs)",
    run,
    marks: &["refused", "opened", "blocks", "written anew"],
    seeds,
};

/// A loader takes what a block says it is before compression, up to its limit; `check_whole`
/// reads a mebibyte at a time; the table of epochs may believe a length up to a mebibyte.
const MEMORY: Bound = Bound {
    per_byte: 16,
    fixed: BLOCK_RAW_MAX + (4 << 20),
};

/// Opening alone takes memory for what is in the file only.
const OPENING: Bound = Bound {
    per_byte: 8,
    fixed: 8 << 10,
};

/// Blocks that are larger before compression are loaded, not written anew.
const REWRITTEN_BYTES_MAX: u64 = 1 << 20;

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let mut file = bytes.to_vec();
    if how.has(How::REPAIRED) {
        make_good(&mut file, how.has(How::ALIGNED));
    }
    let file = Bytes::from(file);
    match OPENING.hold(file.len(), || Reader::new(file.clone(), "input")) {
        Err(error) => {
            hit("refused");
            assert!(!error.to_string().is_empty());
        }
        Ok(reader) => MEMORY.hold(file.len(), || look_at(&reader, &file)),
    }
}

type Loaded = Vec<(BlockHead, Vec<u8>)>;

fn load(reader: &Reader<Bytes>) -> standfast_snapshot::Result<Loaded> {
    reader.load(1, |head, bytes| {
        assert_eq!(bytes.len(), head.raw_bytes as usize);
        Ok((*head, bytes.to_vec()))
    })
}

fn look_at(reader: &Reader<Bytes>, file: &Bytes) {
    hit("opened");
    if reader.blocks().len() > 0 {
        hit("blocks");
    }
    let header = reader.header();
    let encoded = header.encode();
    assert_eq!(Some(&encoded[..]), file.get(..encoded.len()));
    let _ = decode_epochs(&header.epoch_table);
    assert_eq!(reader.file_bytes(), file.len() as u64);
    let mut sent = Vec::new();
    loop {
        let piece = reader
            .chunk(sent.len() as u64, 1000)
            .expect("it is in memory");
        if piece.is_empty() {
            break;
        }
        sent.extend_from_slice(&piece);
    }
    assert!(sent == file[..], "what is sent to a peer is the file");
    let _ = reader.check_whole();
    let raw: u64 = reader.blocks().map(|head| u64::from(head.raw_bytes)).sum();
    assert_eq!(raw, reader.raw_bytes());
    let unpacked = reader.load(1, |head, bytes| Ok((head.number, bytes.len())));
    if unpacked.is_ok() && raw <= REWRITTEN_BYTES_MAX {
        write_anew(reader);
    }
}

fn write_anew(reader: &Reader<Bytes>) {
    hit("written anew");
    let loaded = load(reader).expect("it loaded before");
    let Ok(named) = reader.segments() else {
        return;
    };
    let options = Options {
        threads: 0,
        ..Options::default()
    };
    let mut writer = Writer::new(Vec::new(), "again", reader.header(), options).expect("memory");
    for (head, bytes) in &loaded {
        let block = Block {
            section: head.section,
            first: head.first,
            last: head.last,
            bytes: bytes.clone(),
        };
        writer.push(block).expect("memory takes it");
    }
    for block in segment::blocks(&named) {
        writer.push(block).expect("memory takes it");
    }
    let (file, _) = writer.finish().expect("memory takes it");
    let again = Reader::new(Bytes::from(file), "again").expect("what was written");
    again.check_whole().expect("what was written");
    assert_eq!(again.header(), reader.header());
    assert_eq!(again.segments().expect("what was written"), named);
    let again = load(&again).expect("what was written");
    assert_eq!(again.len(), loaded.len());
    for ((head, bytes), (first_head, first_bytes)) in again.iter().zip(&loaded) {
        assert_eq!(head.section, first_head.section);
        assert_eq!(bytes, first_bytes);
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// All checksums of a file, as far as its parts are where header and footer say. `aligned`: the
/// index is made anew from what lies between header and footer.
fn make_good(file: &mut [u8], aligned: bool) {
    if file.len() < HEADER_BYTES + FOOTER_BYTES {
        return;
    }
    let footer_at = file.len() - FOOTER_BYTES;
    if aligned {
        align(file, footer_at);
    }
    let tail = size(repair::number(file, &HEADER, "tail_bytes"));
    if let Some(tail) = file.get(HEADER_BYTES..HEADER_BYTES.saturating_add(tail)) {
        let crc = crc32fast::hash(tail);
        repair::put_u32(file, &HEADER, "tail_crc", crc);
    }
    let header_crc = crc32fast::hash(&file[16..HEADER_BYTES]);
    repair::put_u32(file, &HEADER, "header_crc", header_crc);
    let index_at = size(repair::number(&file[footer_at..], &FOOTER, "index_at"));
    let mut index_crc = None;
    if index_at <= footer_at {
        let (front, index) = file[..footer_at].split_at_mut(index_at);
        for entry in index.chunks_exact_mut(INDEX_BYTES) {
            one_block(front, entry);
        }
        index_crc = Some(crc32fast::hash(index));
    }
    let blake3 = blake3::hash(&file[..footer_at]);
    let footer = &mut file[footer_at..];
    if let Some(crc) = index_crc {
        repair::put_u32(footer, &FOOTER, "index_crc", crc);
    }
    repair::put_u32(footer, &FOOTER, "header_crc", header_crc);
    let at = repair::field(&FOOTER, "blake3").at;
    footer[at..at + 32].copy_from_slice(blake3.as_bytes());
    let at = repair::field(&FOOTER, "footer_crc").at;
    let crc = crc32fast::hash(&footer[..at]);
    repair::put_u32(footer, &FOOTER, "footer_crc", crc);
    footer[at + 4..].copy_from_slice(b"sfsnend\n");
}

/// One entry of the index, and the block that it names: the same head, and its checksums.
fn one_block(file: &mut [u8], entry: &mut [u8]) {
    let offset = size(repair::number(entry, &INDEX, "offset"));
    let head = &mut entry[repair::field(&INDEX, "head").at..];
    let stored = size(repair::number(head, &BLOCK, "stored_bytes"));
    let from = offset.saturating_add(BLOCK_BYTES);
    if let Some(frame) = file.get(from..from.saturating_add(stored)) {
        repair::put_u32(head, &BLOCK, "stored_crc", crc32fast::hash(frame));
    }
    let crc = crc32fast::hash(&head[4..BLOCK_BYTES]);
    repair::put_u32(head, &BLOCK, "head_crc", crc);
    if let Some(block) = file.get_mut(offset..from) {
        block.copy_from_slice(&head[..BLOCK_BYTES]);
    }
}

/// Lengths and places: the parts of the header fit its tail, the entries of the index lie one
/// behind another, and the footer counts them.
fn align(file: &mut [u8], footer_at: usize) {
    let put = |file: &mut [u8], layout: &[Field], name: &str, value: usize| {
        repair::put(file, layout, name, value as u64);
    };
    let mut left = footer_at - HEADER_BYTES;
    let mut tail = 0;
    for (name, unit) in [
        ("name_bytes", 1),
        ("ancestors", 32),
        ("epoch_table_bytes", 1),
        ("state_head_bytes", 1),
    ] {
        let wanted = size(repair::number(file, &HEADER, name));
        let fits = wanted.min(left / unit);
        put(file, &HEADER, name, fits);
        left -= fits * unit;
        tail += fits * unit;
    }
    put(file, &HEADER, "tail_bytes", tail);
    let blocks = size(repair::number(&file[footer_at..], &FOOTER, "blocks"));
    let blocks = blocks.min(left / (INDEX_BYTES + BLOCK_BYTES));
    let index_at = footer_at - blocks * INDEX_BYTES;
    let (mut at, mut raw) = (HEADER_BYTES + tail, 0);
    for number in 0..blocks {
        let entry = &mut file[index_at + number * INDEX_BYTES..][..INDEX_BYTES];
        put(entry, &INDEX, "offset", at);
        let head = &mut entry[repair::field(&INDEX, "head").at..];
        let later = (blocks - number - 1) * BLOCK_BYTES;
        let room = index_at - at - BLOCK_BYTES - later;
        let stored = size(repair::number(head, &BLOCK, "stored_bytes")).min(room);
        let last = number + 1 == blocks;
        let stored = if last { room } else { stored };
        put(head, &BLOCK, "stored_bytes", stored);
        put(head, &BLOCK, "number", number);
        raw += repair::number(head, &BLOCK, "raw_bytes");
        at += BLOCK_BYTES + stored;
    }
    let footer = &mut file[footer_at..];
    put(footer, &FOOTER, "index_at", index_at);
    put(footer, &FOOTER, "blocks", blocks);
    repair::put(footer, &FOOTER, "raw_bytes", raw);
}

pub fn header() -> Header {
    Header {
        cluster: samples::CLUSTER,
        cluster_name: "books".to_string(),
        node: NodeId(2),
        history: samples::HISTORY,
        ancestors: vec![(standfast_wal::History::default(), 4)],
        link: Link {
            position: Position {
                epoch: Epoch(3),
                lsn: Lsn(40),
            },
            chain: Chain(7),
            timestamp: 1000,
        },
        digest: 9,
        counts: [1, 2, 3, 4],
        epoch_table: encode_epochs(&samples::epochs()),
        state_head: Bytes::from_static(b"head"),
    }
}

/// A snapshot of these blocks.
fn file_of(blocks: Vec<Vec<u8>>) -> Vec<u8> {
    let options = Options {
        threads: 0,
        ..Options::default()
    };
    let mut writer = Writer::new(Vec::new(), "seed", &header(), options).expect("memory");
    for (number, bytes) in (0u32..).zip(blocks) {
        let block = Block {
            section: number % 2,
            first: number,
            last: number + 1,
            bytes,
        };
        writer.push(block).expect("memory takes it");
    }
    writer.finish().expect("memory takes it").0
}

fn seeds() -> Vec<Vec<u8>> {
    let (_, blocks) = commands::blocks();
    let patterns = (1..4u8).map(|step| (0..=255u8).map(|b| b.wrapping_mul(step)).collect());
    let files = [
        file_of(Vec::new()),
        file_of(blocks),
        file_of(patterns.collect()),
        file_of(vec![vec![0; 100_000]]),
    ];
    let mut seeds = Vec::new();
    for file in files {
        seeds.push(join(How::of(0, 0), &file));
        seeds.push(join(How::of(How::REPAIRED, 0), &file));
        seeds.push(join(How::of(How::REPAIRED | How::ALIGNED, 0), &file));
    }
    seeds
}
