//! A snapshot comes back as it was written, from any number of threads, or is refused.

use super::*;
use crate::fixtures::{CLUSTER, block_of, blocks, header, log, write_all};
use crate::new_file::{Incoming, remove_leftovers};
use crate::write::{Block, Options, Writer};
use standfast_wal::{Disk, Link};

fn a_header() -> Header {
    header(log(Link::default(), 2, 20).last().unwrap().link(), 1)
}

fn read(bytes: Vec<u8>) -> Result<Reader<Bytes>> {
    Reader::new(Bytes::from(bytes), "memory")
}

fn load(reader: &Reader<Bytes>, threads: usize) -> Result<Vec<Block>> {
    reader.load(threads, |head, bytes| Ok(block_of(head, bytes)))
}

#[test]
fn a_snapshot_reads_back_as_it_was_written() {
    for threads in [0, 1, 4] {
        for count in [0, 1, 40] {
            let wanted = blocks(count, 5000);
            let reader = read(write_all(&a_header(), &wanted, threads)).unwrap();
            assert_eq!(reader.header(), &a_header());
            assert_eq!(reader.raw_bytes(), u64::from(count) * 5000);
            reader.check_whole().unwrap();
            for readers in [0, 1, 3, 64] {
                assert_eq!(load(&reader, readers).unwrap(), wanted);
            }
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let blocks = blocks(30, 3000);
    let alone = write_all(&a_header(), &blocks, 0);
    assert!(alone == write_all(&a_header(), &blocks, 1));
    assert!(alone == write_all(&a_header(), &blocks, 5));
}

#[test]
fn empty_names_and_tables_are_fine() {
    let bare = Header {
        cluster_name: String::new(),
        ancestors: Vec::new(),
        epoch_table: Bytes::new(),
        state_head: Bytes::new(),
        ..a_header()
    };
    let reader = read(write_all(&bare, &[], 0)).unwrap();
    assert_eq!(reader.header(), &bare);
}

/// Block checksums alone find it: the whole-file digest is not asked.
fn accept(bytes: Vec<u8>) -> Result<()> {
    load(&read(bytes)?, 1).map(|_| ())
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let bytes = write_all(&a_header(), &blocks(3, 60), 0);
    accept(bytes.clone()).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(accept(bad).is_err(), "byte {at} bit {bit}");
        }
        assert!(accept(bytes[..at].to_vec()).is_err(), "cut at {at}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(accept(longer).is_err(), "one byte more");
}

/// Every part is sound by itself and fits the others; only the digest of the whole tells.
#[test]
fn the_digest_of_the_whole_file_stands_above_all_checksums() {
    let mut bytes = write_all(&a_header(), &blocks(2, 60), 0);
    let footer_at = bytes.len() - FOOTER_BYTES;
    let footer = bytes[footer_at..].try_into().unwrap();
    let mut footer = Footer::decode(footer).unwrap();
    footer.blake3[31] ^= 1;
    bytes[footer_at..].copy_from_slice(&footer.encode());
    accept(bytes.clone()).unwrap();
    let error = read(bytes).unwrap().check_whole().unwrap_err();
    assert_eq!(
        error.to_string(),
        "memory: the checksum of the whole file does not match"
    );
}

#[test]
fn refusals_name_what_is_wrong_and_where() {
    let bytes = write_all(&a_header(), &blocks(2, 60), 0);
    let text = |bytes: Vec<u8>| accept(bytes).unwrap_err().to_string();
    let mut version = bytes.clone();
    version[8] = 9;
    assert_eq!(
        text(version),
        "memory at byte 8: its format version 9 is not known to this program: use a newer one"
    );
    let reader = read(bytes.clone()).unwrap();
    let second = reader.index[1].offset;
    let mut block = bytes.clone();
    block[second as usize + BLOCK_BYTES + 4] ^= 1;
    assert_eq!(
        text(block),
        format!("memory at byte {second}: the checksum of the block does not match")
    );
    assert_eq!(
        text(b"#!/bin/sh".to_vec()),
        "memory at byte 0: it is not a snapshot of Standfast"
    );
    assert_eq!(
        text(bytes[..100].to_vec()),
        "memory at byte 100: it ends too early: 160 bytes are needed, 100 are there"
    );
    let error = reader.check_cluster(ClusterId(1)).unwrap_err();
    assert!(error.to_string().contains("belongs to cluster"), "{error}");
    assert!(!error.is_damage());
    reader.check_cluster(CLUSTER).unwrap();
}

#[test]
fn a_decoder_that_refuses_ends_the_load() {
    let reader = read(write_all(&a_header(), &blocks(50, 60), 0)).unwrap();
    for threads in [1, 4] {
        let refuse = |head: &BlockHead, _: &[u8]| match head.number {
            7 => Err("no such slot".to_string()),
            _ => Ok(()),
        };
        let error = reader.load(threads, refuse).unwrap_err();
        assert_eq!(error.offset, Some(reader.index[7].offset));
        assert!(
            error
                .to_string()
                .ends_with("the contents were refused: no such slot")
        );
    }
}

#[test]
fn a_file_has_its_name_only_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot");
    let names = || std::fs::read_dir(dir.path()).unwrap().count();
    let begin = || {
        let mut writer = Writer::create(&path, &a_header(), Options::default()).unwrap();
        writer.push(blocks(1, 100).remove(0)).unwrap();
        writer
    };
    let writer = begin();
    assert!(!path.exists());
    drop(writer);
    assert_eq!(names(), 0, "what is given up leaves nothing");
    begin().publish().unwrap();
    assert_eq!(names(), 1);
    std::fs::write(dir.path().join("x.tmp"), b"half").unwrap();
    assert_eq!(
        remove_leftovers(&Disk::open(dir.path()).unwrap()).unwrap(),
        1
    );
    let reader = Reader::open(&path).unwrap();
    reader.check_whole().unwrap();
    assert_eq!(Reader::open(&path).unwrap().header(), &a_header());
}

#[test]
fn a_snapshot_travels_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let sent = read(write_all(&a_header(), &blocks(9, 4000), 2)).unwrap();
    let receive = |spoil: bool, cluster| {
        let mut incoming = Incoming::create(Disk::open(dir.path()).unwrap(), "taken").unwrap();
        loop {
            let piece = sent.chunk(incoming.offset(), 777).unwrap();
            if piece.is_empty() {
                break incoming.publish(cluster);
            }
            let mut piece = piece.to_vec();
            if spoil && incoming.offset() > 1000 {
                piece[0] ^= 1;
            }
            incoming.push(&piece).unwrap();
        }
    };
    assert!(receive(true, CLUSTER).is_err());
    assert!(receive(false, ClusterId(5)).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let taken = receive(false, CLUSTER).unwrap();
    assert_eq!(taken.header(), sent.header());
    assert_eq!(taken.blake3(), sent.blake3());
}

/// A disk that is full after a few bytes.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_write_error_reaches_the_caller_and_nobody_waits_forever() {
    for threads in [0, 2] {
        let options = Options {
            threads,
            in_flight_max: 2,
            ..Options::default()
        };
        let mut writer = Writer::new(Full(2000), "full", &a_header(), options).unwrap();
        let pushed = (0..100).try_for_each(|_| writer.push(blocks(1, 3000).remove(0)));
        let error = match pushed {
            Err(error) => error,
            Ok(()) => panic!("a hundred blocks fit into 2000 bytes"),
        };
        assert!(error.to_string().starts_with("full: "), "{error}");
        assert!(writer.push_now(blocks(1, 10).remove(0)).is_err());
        assert!(writer.finish().is_err());
    }
}

#[test]
fn a_moderately_big_file_goes_through_a_short_queue() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    let options = Options {
        threads: 3,
        in_flight_max: 4,
        ..Options::default()
    };
    let mut writer = Writer::create(&path, &a_header(), options).unwrap();
    let mut sum = 0u64;
    for i in 0..160u32 {
        let mut bytes = vec![0u8; 256 << 10];
        for (at, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            let value = (at as u64 + u64::from(i)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&(value >> (at % 40)).to_le_bytes());
        }
        sum += bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        assert!(writer.room() <= 4);
        let (section, first, last) = (0, i, i);
        writer
            .push(Block {
                section,
                first,
                last,
                bytes,
            })
            .unwrap();
    }
    let summary = writer.publish().unwrap();
    assert_eq!((summary.blocks, summary.raw_bytes), (160, 40 << 20));
    let reader = Reader::open(&path).unwrap();
    reader.check_whole().unwrap();
    let sums = reader.load(3, |_, bytes| {
        Ok(bytes.iter().map(|b| u64::from(*b)).sum::<u64>())
    });
    assert_eq!(sums.unwrap().iter().sum::<u64>(), sum);
}
