//! A state out of its snapshot: blocks and segments, read side by side, put together in any order.

use super::super::digest::{Digest, Sort};
use super::super::entry::Entry;
use super::super::ledger::{Ledger, Loading, Segment, Sorts};
use super::super::place::Place;
use super::super::store::Store;
use super::super::table::Table;
use super::super::{Applied, Limits, State, expiry, once};
use super::{HEADER, SnapshotHead, VERSION};

/// Why a snapshot is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    #[error("state block: {what} at byte {at}")]
    Block { what: &'static str, at: usize },
    #[error("state: the ledger has {what}")]
    Ledger { what: &'static str },
    #[error("state: {what} is {found}, the snapshot's head says {expected}")]
    Differs {
        what: &'static str,
        found: String,
        expected: String,
    },
}

impl State {
    /// Puts loaded blocks together, in any order; refuses what the head does not confirm.
    pub fn assemble(
        limits: Limits,
        head: &SnapshotHead,
        parts: Vec<LoadedPart>,
    ) -> Result<State, LoadError> {
        let mut state = State::new(limits);
        state.applied = Applied {
            lsn: head.lsn,
            timestamp: head.timestamp,
        };
        let mut books = Vec::new();
        let (mut keys, mut tokens) = (Vec::new(), Vec::new());
        for part in parts {
            match part.0 {
                Part::Entries(part) if part.sort == Sort::Key => keys.push(part),
                Part::Entries(part) => tokens.push(part),
                Part::Ledger(part) => books.push(part),
            }
        }
        load_parts(&mut state.keys, keys);
        load_parts(&mut state.tokens, tokens);
        state.ledger = Ledger::assemble(limits.seed, limits.segment_shift, books)?;
        head.confirm(&Tally {
            digest: state.digest(),
            keys: state.keys.len(),
            tokens: state.tokens.len(),
        })?;
        Ok(state)
    }
}

impl SnapshotHead {
    /// Whether the shares of all blocks and segments together are what this says.
    pub fn confirm(&self, sum: &Tally) -> Result<(), LoadError> {
        differs("the number of keys", sum.keys, self.keys)?;
        differs("the number of tokens", sum.tokens, self.tokens)?;
        differs("the digest", sum.digest, self.digest)
    }
}

/// What parts of a snapshot count; a snapshot is proved by their sum, without a state made of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    pub digest: Digest,
    pub keys: u64,
    pub tokens: u64,
}

impl LoadedPart {
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        match &self.0 {
            Part::Ledger(part) => tally.digest = part.share(),
            Part::Entries(part) => {
                let entries = part.runs.iter().map(|run| run.table.len() as u64).sum();
                match part.sort {
                    Sort::Key => tally.keys = entries,
                    Sort::Token => tally.tokens = entries,
                }
                part.runs
                    .iter()
                    .for_each(|run| tally.digest.add(run.digest));
            }
        }
        tally
    }
}

fn differs<T: PartialEq + std::fmt::Display>(
    what: &'static str,
    found: T,
    expected: T,
) -> Result<(), LoadError> {
    if found == expected {
        return Ok(());
    }
    Err(LoadError::Differs {
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

fn load_parts(store: &mut Store, parts: Vec<Entries>) {
    let deadlines = parts.iter().map(|part| part.deadlines.len()).sum();
    let mut all_deadlines = Vec::with_capacity(deadlines);
    for mut part in parts {
        all_deadlines.append(&mut part.deadlines);
        for run in part.runs {
            store.load(run.slot, run.table, run.digest, run.entry_bytes);
        }
    }
    store.deadlines = expiry::Deadlines::from_unsorted(all_deadlines);
}

/// A loaded block, ready to be assembled.
#[derive(Debug)]
pub struct LoadedPart(Part);

#[derive(Debug)]
enum Part {
    Entries(Entries),
    Ledger(Loading),
}

/// Entries of a store.
#[derive(Debug)]
struct Entries {
    sort: Sort,
    runs: Vec<Run>,
    /// Of all entries: deadline and place.
    deadlines: Vec<(u64, u64)>,
}

/// Entries of one slot that came one after another.
#[derive(Debug)]
struct Run {
    slot: u16,
    table: Table,
    digest: Digest,
    entry_bytes: u64,
}

/// Reads one block; called on several threads at once. Everything that takes time happens here:
/// `State::assemble` only moves tables.
pub fn load_block(limits: &Limits, block: &[u8]) -> Result<LoadedPart, LoadError> {
    let broken = |what, at| Err(LoadError::Block { what, at });
    let Some((header, mut rest)) = block.split_first_chunk::<HEADER>() else {
        return broken("the end", block.len());
    };
    let [version, sort, 0, 0, count @ ..] = *header else {
        return broken("a reserved field that is not 0", 2);
    };
    if version != VERSION {
        return broken("a version that this program does not know", 0);
    }
    let sort = match sort {
        0 => Sort::Key,
        1 => Sort::Token,
        number => {
            let Some(sort) = Sorts::from_number(number) else {
                return broken("a sort of entry that this program does not know", 1);
            };
            return match Loading::parse(sort, u32::from_le_bytes(count), rest) {
                Some(part) => Ok(LoadedPart(Part::Ledger(part))),
                None => broken("items of the ledger that are cut off or malformed", HEADER),
            };
        }
    };
    let mut part = Entries {
        sort,
        runs: Vec::new(),
        deadlines: Vec::new(),
    };
    let mut run: Vec<(Place, Entry)> = Vec::new();
    for _ in 0..u32::from_le_bytes(count) {
        let at = block.len() - rest.len();
        let Some(entry) = split_entry(&mut rest) else {
            return broken("an entry that is cut off or malformed", at);
        };
        if sort == Sort::Token && once::remembered(&entry).is_none() {
            return broken("a token without a readable reply", at);
        }
        let place = match sort {
            Sort::Key => Place::of_key(entry.key(), limits.seed),
            Sort::Token => Place::of_token(entry.key(), limits.seed),
        };
        if run
            .last()
            .is_some_and(|(last, _)| last.slot() != place.slot())
        {
            part.close_run(std::mem::take(&mut run), limits.seed);
        }
        run.push((place, entry));
    }
    part.close_run(run, limits.seed);
    if rest.is_empty() {
        Ok(LoadedPart(Part::Entries(part)))
    } else {
        broken("bytes left over", block.len() - rest.len())
    }
}

/// Reads one segment that a snapshot refers to; called on several threads at once. Its bytes are
/// those that the snapshot's writer referred to: whoever read them has proved it.
pub fn load_segment(segment: Segment) -> Result<LoadedPart, LoadError> {
    let what = "a segment of items that this program does not know";
    let loaded = Loading::of_segment(segment).ok_or(LoadError::Ledger { what })?;
    Ok(LoadedPart(Part::Ledger(loaded)))
}

fn split_entry(rest: &mut &[u8]) -> Option<Entry> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Entry::from_bytes(bytes)
}

impl Entries {
    fn close_run(&mut self, entries: Vec<(Place, Entry)>, seed: u64) {
        let Some((first, _)) = entries.first() else {
            return;
        };
        let slot = first.slot();
        let mut digest = Digest::default();
        let mut entry_bytes = 0;
        for (place, entry) in &entries {
            digest.add(Digest::of(self.sort, entry));
            entry_bytes += entry.allocated_bytes();
            self.deadlines
                .extend(entry.expiry_ms().map(|ms| (ms, place.bits())));
        }
        let mut table_bytes = 0;
        let table = Table::from_entries(entries, seed, &mut table_bytes);
        self.runs.push(Run {
            slot,
            table,
            digest,
            entry_bytes,
        });
    }
}
