//! Blocks of a snapshot: entries of keys and tokens, items of the ledger, as the state loads them.
//!
//! Asserted: a block loads or is refused with a place inside it; memory stays within a bound; a
//! head that was not made of these blocks is refused.

use super::commands;
use crate::Target;
use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use standfast::state::{Digest, Limits, LoadError, SnapshotHead, State, load_block};
use standfast_wal::Lsn;

pub const TARGET: Target = Target {
    name: "state_block",
    decodes: "state/snapshot (load_block, assemble), state/entry, replies of ONCE tokens, \
              state/ledger/load",
    run,
    marks: &["loaded", "refused", "assembled"],
    seeds,
};

const HEADER: usize = 8;

/// An entry of 16 bytes in a slot of its own is a table, a run, a deadline and a chunk.
const MEMORY: Bound = Bound {
    per_byte: 128,
    fixed: 64 << 10,
};

const LIMITS: Limits = Limits::new(5);

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let mut block = bytes.to_vec();
    if how.has(How::ALIGNED) {
        align(&mut block);
    }
    match MEMORY.hold(block.len(), || load_block(&LIMITS, &block)) {
        Err(LoadError::Block { what, at }) => {
            hit("refused");
            assert!(at <= block.len() && !what.is_empty(), "{what} at {at}");
        }
        Err(other) => panic!("a block alone: {other}"),
        Ok(part) if how.choice() & 1 == 1 => {
            hit("assembled");
            // Its own digest is not known here; that none but it is taken is what matters.
            let head = SnapshotHead {
                lsn: Lsn(1),
                timestamp: 1,
                digest: Digest(u128::MAX),
                keys: 0,
                tokens: 0,
            };
            let assembled = State::assemble(LIMITS, &head, vec![part]);
            let refused = matches!(
                assembled,
                Err(LoadError::Differs { .. } | LoadError::Ledger { .. })
            );
            assert!(refused);
        }
        // Putting a state together takes a hundred times as long as a block.
        Ok(_) => hit("loaded"),
    }
}

/// The count in the header is that of the entries whose lengths fit.
fn align(block: &mut [u8]) {
    let Some((header, mut rest)) = block.split_at_mut_checked(HEADER) else {
        return;
    };
    let mut count = 0u32;
    while let Some((len, after)) = rest.split_first_chunk_mut::<4>() {
        let fits = u32::from_le_bytes(*len).min(u32::try_from(after.len()).unwrap_or(u32::MAX));
        *len = fits.to_le_bytes();
        rest = &mut after[fits as usize..];
        count += 1;
    }
    header[0] = 2;
    header[1] &= 1;
    header[2..4].fill(0);
    header[4..].copy_from_slice(&count.to_le_bytes());
}

fn seeds() -> Vec<Vec<u8>> {
    let (_, blocks) = commands::blocks();
    let mut seeds = Vec::new();
    for block in blocks {
        seeds.push(join(How::of(0, 0), &block));
        seeds.push(join(How::of(How::ALIGNED, 0), &block));
        seeds.push(join(How::of(0, 1), &block));
    }
    seeds.push(join(How::of(0, 0), &[2, 0, 0, 0, 0, 0, 0, 0]));
    seeds
}
