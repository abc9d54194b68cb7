//! Measures a snapshot of balances: `cargo run --release --example throughput -- [MB] [threads]
//! [level] [directory]` writes one, proves it, and loads it again.
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use bytes::Bytes;
use standfast_snapshot::{Block, Header, Options, Reader, Writer};
use standfast_wal::{ClusterId, History, Link, NodeId};
use std::path::PathBuf;
use std::time::Instant;

/// Raw bytes of one block, as the state makes them.
const BLOCK_BYTES: usize = 256 << 10;

fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Entries of a 24-byte header, a 16-byte key and 100 bytes of value, half of them random.
fn block(number: u32) -> Block {
    let mut seed = 0x9e37_79b9_7f4a_7c15 ^ u64::from(number + 1);
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    while bytes.len() + 140 <= BLOCK_BYTES {
        bytes.extend_from_slice(&(next(&mut seed) >> 24).to_le_bytes());
        bytes.extend_from_slice(&0u64.to_le_bytes());
        bytes.extend_from_slice(&[16, 0, 0, 0, 100, 0, 0, 0]);
        bytes.extend_from_slice(format!("account:{:08}", next(&mut seed) % 100_000_000).as_bytes());
        for _ in 0..6 {
            bytes.extend_from_slice(&next(&mut seed).to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 52]);
    }
    Block {
        section: 0,
        first: number,
        last: number,
        bytes,
    }
}

fn report(what: &str, started: Instant, bytes: u64) {
    let seconds = started.elapsed().as_secs_f64();
    let rate = bytes as f64 / 1e6 / seconds;
    println!("{what}: {seconds:.3} s, {rate:.0} MB/s");
}

fn main() -> standfast_snapshot::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, otherwise| {
        arguments
            .get(i)
            .map_or(otherwise, |a| a.parse().expect("a number"))
    };
    let (megabytes, threads, level) = (number(0, 500), number(1, 2), number(2, 1));
    let dir = arguments.get(3).map_or(std::env::temp_dir(), PathBuf::from);
    let path = dir.join("throughput.sfs");
    let header = Header {
        cluster: ClusterId(1),
        cluster_name: String::new(),
        node: NodeId(1),
        history: History::default(),
        ancestors: Vec::new(),
        link: Link::default(),
        digest: 0,
        counts: [0; 4],
        epoch_table: Bytes::new(),
        state_head: Bytes::new(),
    };
    let options = Options {
        threads,
        level: i32::try_from(level).expect("a small number"),
        ..Options::default()
    };
    let count = u32::try_from(megabytes * 1_000_000 / BLOCK_BYTES).expect("fewer than 2^32");
    let blocks: Vec<Block> = (0..count).map(block).collect();
    let started = Instant::now();
    let mut writer = Writer::create(&path, &header, options)?;
    for block in blocks {
        writer.push(block)?;
    }
    let summary = writer.publish()?;
    report("write, fsync included", started, summary.raw_bytes);
    println!(
        "{} raw bytes, {} in the file",
        summary.raw_bytes, summary.file_bytes
    );
    let reader = Reader::open(&path)?;
    let started = Instant::now();
    reader.check_whole()?;
    report("BLAKE3 of the file", started, reader.file_bytes());
    let started = Instant::now();
    reader.load(threads, |_, bytes| Ok(bytes.len()))?;
    report("load", started, reader.raw_bytes());
    let _ = std::fs::remove_file(&path);
    Ok(())
}
