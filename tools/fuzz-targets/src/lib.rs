//! What the fuzzers run: one function per decoder of bytes that come from outside.
//!
//! A target takes any bytes and panics where a promise is broken: a decoder that panics, that
//! takes more memory than its bound, that says one thing of bytes and another of the same bytes
//! cut up, that does not give back what it was given. The same functions are run by libFuzzer
//! (`libfuzzer.rs`), for as long as one likes, and by this crate's own test, from the kept corpus
//! and a few thousand seeded mutations of it.
//!
//! The first byte of an input says how the rest is meant ([`input::How`]): most decoders stand
//! behind a checksum that random changes never match, so one bit has all checksums made good
//! after the mutation, and what is behind them is reached.

// Scratch files of the settings' target are made here.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod input;
pub mod marks;
pub mod memory;
pub mod mutate;
mod repair;
mod samples;
pub mod targets;

use standfast_wal::storage::sim::Random;

/// One decoder and what is asserted of it.
pub struct Target {
    /// Of the corpus directory, and for `FUZZ_TARGET`.
    pub name: &'static str,
    /// The decoders it reaches.
    pub decodes: &'static str,
    /// Panics on a finding.
    pub run: fn(&[u8]),
    /// What its inputs must reach, by mutation too: `marks` of these names.
    pub marks: &'static [&'static str],
    /// Inputs made of real encodings.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target, in the order in which bytes come into a node, and last what a client reads.
pub const TARGETS: [&Target; 12] = [
    &targets::resp::TARGET,
    &targets::commands::TARGET,
    &targets::peer_frame::TARGET,
    &targets::packed_link::TARGET,
    &targets::wal_record::TARGET,
    &targets::wal_recovery::TARGET,
    &targets::state_block::TARGET,
    &targets::snapshot_file::TARGET,
    &targets::archive::TARGET,
    &targets::meta_file::TARGET,
    &targets::config::TARGET,
    &targets::reply::TARGET,
];

/// The target of this name.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("no target is named {name}"))
}

/// Cuts `bytes` into pieces, as reads from a socket would bring them; the seed says where.
pub(crate) fn pieces(bytes: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut random = Random::new(seed);
    let mut left = bytes;
    let mut pieces = Vec::new();
    while !left.is_empty() {
        let longest = [1, 2, 7, 64, 1024][usize::try_from(random.below(5)).unwrap_or(0)];
        let len = 1 + usize::try_from(random.below(longest)).unwrap_or(0);
        let (piece, rest) = left.split_at(len.min(left.len()));
        pieces.push(piece);
        left = rest;
    }
    pieces
}
