//! Walks over all keys: SCAN, KEYS, RANDOMKEY, in the order of places, which no table layout and
//! no resize can change.
//!
//! SCAN's guarantee (Redis's): a key that is there from the first step to the last is answered at
//! least once. It follows from the order: each step answers everything from its cursor up to where
//! the next cursor begins. That nothing is answered twice is more than Redis promises.

use super::command::Scan;
use super::entry::Entry;
use super::place::Place;
use super::store::is_live;
use super::{Reply, SLOTS, State, glob_matches};
use bytes::Bytes;

impl State {
    pub(super) fn scan(&self, scan: &Scan) -> Reply {
        let mut found = Vec::new();
        let mut seen = 0;
        // A cursor that none of ours can be is at the end, as in Redis.
        let mut next = Place::from_cursor(scan.cursor);
        while let Some(from) = next.filter(|_| seen < scan.count) {
            let mut chunk = self.keys_from(from);
            next = chunk.end;
            chunk.sort();
            let mut last = None;
            for (place, entry) in chunk.entries {
                // Keys of one cursor are answered together: the next step cannot tell them apart.
                if seen >= scan.count && last != Some(place.cursor()) {
                    next = Place::from_cursor(place.cursor());
                    break;
                }
                last = Some(place.cursor());
                seen += 1;
                let matches = scan
                    .pattern
                    .as_ref()
                    .is_none_or(|p| glob_matches(p, entry.key()));
                if matches && !scan.other_type {
                    found.push(key_reply(entry));
                }
            }
        }
        let cursor = next.map_or(0, Place::cursor);
        let cursor = Bytes::copy_from_slice(itoa::Buffer::new().format(cursor).as_bytes());
        Reply::Array(vec![Reply::Bulk(cursor), Reply::Array(found)])
    }

    pub(super) fn matching_keys(&self, pattern: &[u8]) -> Reply {
        let literal = !pattern.iter().any(|byte| b"*?[\\".contains(byte));
        if literal {
            return Reply::Array(self.live(pattern).into_iter().map(key_reply).collect());
        }
        let mut found = Vec::new();
        let mut next = Some(Place::start_of(0));
        while let Some(from) = next {
            let mut chunk = self.keys_from(from);
            next = chunk.end;
            // Sorted last: most often few match.
            chunk
                .entries
                .retain(|(_, entry)| glob_matches(pattern, entry.key()));
            chunk.sort();
            found.extend(chunk.entries.into_iter().map(|(_, entry)| key_reply(entry)));
        }
        Reply::Array(found)
    }

    /// The first key at or behind the place that `seed` names, around the end if need be.
    pub(super) fn random_key(&self, seed: u64) -> Reply {
        let start = Place::from_bits(seed >> 1);
        let mut next = Some(start);
        let mut wrapped = false;
        while let Some(from) = next {
            let chunk = self.keys_from(from);
            let first = chunk
                .entries
                .iter()
                .min_by_key(|(place, entry)| (*place, entry.key()));
            if let Some((_, entry)) = first {
                return key_reply(entry);
            }
            next = chunk.end;
            if next.is_none() && !wrapped {
                wrapped = true;
                next = Some(Place::start_of(0));
            }
        }
        Reply::Nil
    }

    /// The live keys at or above a place up to the end of its chunk; empty chunks are passed over.
    fn keys_from(&self, from: Place) -> Keys<'_> {
        let now_ms = self.now_ms();
        let mut from = from;
        loop {
            let slot = self.keys.slots().next_touched(from.slot());
            if slot == SLOTS {
                let entries = Vec::new();
                return Keys { entries, end: None };
            }
            from = from.max(Place::start_of(slot));
            let table = &self.keys.slots().get(slot).table;
            let (chunk, next) = table.chunk_from(from);
            let end = next.unwrap_or(Place::start_of(slot + 1));
            let end = (end < Place::start_of(SLOTS)).then_some(end);
            let live = chunk.iter().filter(|entry| is_live(entry, now_ms));
            let seed = self.keys.seed;
            let placed = live.map(|entry| (Place::in_slot(slot, entry.key(), seed), entry));
            let entries: Vec<_> = placed.filter(|(place, _)| *place >= from).collect();
            match end {
                Some(end) if entries.is_empty() => from = end,
                _ => return Keys { entries, end },
            }
        }
    }
}

/// Keys of a part of the order of places.
struct Keys<'a> {
    /// In no order until sorted.
    entries: Vec<(Place, &'a Entry)>,
    /// Where the part ends; `None` where all places end.
    end: Option<Place>,
}

impl Keys<'_> {
    /// By place; by key where two share one, so that the order is a function of the keys alone.
    fn sort(&mut self) {
        self.entries
            .sort_unstable_by(|(a, x), (b, y)| (a, x.key()).cmp(&(b, y.key())));
    }
}

fn key_reply(entry: &Entry) -> Reply {
    Reply::Bulk(Bytes::copy_from_slice(entry.key()))
}
