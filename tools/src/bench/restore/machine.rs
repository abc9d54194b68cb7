//! What the machine could do at best: bytes through zstd, and to and from the disk.

use anyhow::Context;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes a second.
pub struct Best {
    compress: f64,
    decompress: f64,
    write: f64,
    read: f64,
}

const SAMPLE: usize = 64 << 20;
const FILE: u64 = 1 << 30;
/// How long zstd is measured, each way.
const LENGTH: Duration = Duration::from_secs(3);

/// `dir` is on the disk to measure.
pub fn measure(dir: &Path) -> anyhow::Result<Best> {
    let sample = sample();
    // As blocks of a snapshot are.
    let block = standfast::limits::SNAPSHOT_BLOCK_BYTES;
    let mut packed = Vec::new();
    let compress = pace(&sample, block, |raw| {
        packed.push(zstd::bulk::compress(raw, 1).expect("it fits in memory"));
    });
    let mut frames = packed.iter().cycle();
    let decompress = pace(&sample, block, |raw| {
        let frame = frames.next().expect("there was one block at least");
        zstd::bulk::decompress(frame, raw.len()).expect("it was compressed here");
    });
    let (write, read) = disk(dir)?;
    Ok(Best {
        compress,
        decompress,
        write,
        read,
    })
}

/// Records such as those of the measurement: a key of 16 digits, a value of 100 bytes.
fn sample() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SAMPLE + 128);
    for number in 0_u64.. {
        if bytes.len() >= SAMPLE {
            break;
        }
        bytes.extend(format!("{number:016}").bytes());
        bytes.extend([b'v'; super::super::work::pipeline::VALUE_BYTES]);
    }
    bytes
}

fn pace(sample: &[u8], block: usize, mut work: impl FnMut(&[u8])) -> f64 {
    let begun = Instant::now();
    let mut bytes = 0;
    for raw in sample.chunks_exact(block).cycle() {
        work(raw);
        bytes += raw.len();
        if begun.elapsed() > LENGTH {
            break;
        }
    }
    bytes as f64 / begun.elapsed().as_secs_f64()
}

/// One file from end to end: written and synced, then read, not from the page cache.
fn disk(dir: &Path) -> anyhow::Result<(f64, f64)> {
    let mut file: File = tempfile::tempfile_in(dir).context("no scratch file")?;
    let mut piece = vec![0x5a; 1 << 20];
    let begun = Instant::now();
    for _ in 0..FILE >> 20 {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let write = FILE as f64 / begun.elapsed().as_secs_f64();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    file.seek(SeekFrom::Start(0))?;
    let begun = Instant::now();
    while file.read(&mut piece)? > 0 {}
    Ok((write, FILE as f64 / begun.elapsed().as_secs_f64()))
}

impl Best {
    pub fn line(&self) -> String {
        let mb = |rate: f64| format!("{:.0} MB/s", rate / 1e6);
        format!(
            "zstd, one thread: compresses {}, decompresses {}; disk, one file: writes {}, reads {}",
            mb(self.compress),
            mb(self.decompress),
            mb(self.write),
            mb(self.read)
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "zstd_compress": self.compress, "zstd_decompress": self.decompress,
            "disk_write": self.write, "disk_read": self.read,
        })
    }
}
