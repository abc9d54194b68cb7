//! The meta file: identity, fence, register, in two blocks.
//!
//! Asserted: memory stays within a bound; what decodes encodes to a file that decodes to the same,
//! and that either half alone still gives.

use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::{Target, repair, samples};
use standfast::node::meta::{HEAD, HEAD_BYTES, MetaError, MetaFile};
use standfast::replication::Meta;
use standfast_wal::NodeId;

pub const TARGET: Target = Target {
    name: "meta_file",
    decodes: "node/meta (MetaFile::decode: fence, Config, vote)",
    run,
    marks: &["decoded", "damaged", "version"],
    seeds,
};

/// Three readings of one file, each with lists whose length is believed up to a mebibyte; an
/// ancestor is 3 bytes in the file and 32 in memory, and what grows doubles.
const MEMORY: Bound = Bound {
    per_byte: 192,
    fixed: 7 << 20,
};

const BLOCK_ALIGN: usize = 4096;

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let mut file = match how.has(How::INSIDE) {
        true => [block(bytes), block(bytes)].concat(),
        false => bytes.to_vec(),
    };
    if how.has(How::REPAIRED) {
        let half = file.len() / 2;
        let (first, second) = file.split_at_mut(half);
        make_good(first, how.has(How::ALIGNED));
        make_good(second, how.has(How::ALIGNED));
    }
    let decoded = MEMORY.hold(file.len(), || MetaFile::decode(&file));
    match decoded {
        Ok(meta) => {
            hit("decoded");
            let again = meta.encode();
            let (first, second) = again.split_at(again.len() / 2);
            for part in [&again[..], first, second] {
                assert_eq!(MetaFile::decode(part).expect("what was encoded"), meta);
            }
            assert_eq!(meta.identity().node, meta.core.node);
        }
        Err(error) => {
            hit(match error {
                MetaError::Damaged => "damaged",
                MetaError::Version(_) => "version",
                MetaError::Io(_) => panic!("nothing was read"),
            });
            assert!(!error.to_string().is_empty());
        }
    }
}

/// One block around contents.
fn block(contents: &[u8]) -> Vec<u8> {
    let mut block = vec![0; HEAD_BYTES];
    block[..6].copy_from_slice(b"SFMETA");
    repair::put(&mut block, &HEAD, "version", 1);
    repair::put(&mut block, &HEAD, "length", contents.len() as u64);
    block.extend_from_slice(contents);
    block.resize(block.len().next_multiple_of(BLOCK_ALIGN), 0);
    block
}

fn make_good(block: &mut [u8], aligned: bool) {
    if block.len() < HEAD_BYTES {
        return;
    }
    let rest = (block.len() - HEAD_BYTES) as u64;
    let mut length = repair::number(block, &HEAD, "length");
    if aligned {
        length = length.min(rest);
        repair::put(block, &HEAD, "length", length);
    }
    let end = usize::try_from(length)
        .ok()
        .map(|length| HEAD_BYTES + length);
    if let Some(whole) = end.and_then(|end| block.get_mut(..end)) {
        let crc = repair::crc_without(whole, repair::field(&HEAD, "crc"));
        repair::put_u32(whole, &HEAD, "crc", crc);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let (cluster, incarnation) = (samples::CLUSTER, samples::INCARNATION);
    let mut seeds = Vec::new();
    for (number, quarantined) in [(1, false), (3, true), (9, false)] {
        let core = Meta::first(cluster, NodeId(number), incarnation, samples::cluster());
        let meta = MetaFile {
            cluster_name: "books".to_string(),
            quarantined,
            core,
        };
        let file = meta.encode();
        let length = repair::number(&file, &HEAD, "length");
        let end = HEAD_BYTES + usize::try_from(length).expect("small");
        let bits = How::INSIDE | How::REPAIRED;
        seeds.push(join(How::of(bits, 0), &file[HEAD_BYTES..end]));
        if number == 1 {
            seeds.push(join(How::of(0, 0), &file));
            seeds.push(join(How::of(0, 0), &file[..file.len() - 1]));
            seeds.push(join(How::of(How::REPAIRED | How::ALIGNED, 0), &file[..end]));
        }
    }
    seeds
}
