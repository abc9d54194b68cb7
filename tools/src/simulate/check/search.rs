//! I4 without LSNs: is there any order of the operations that explains all replies?
//!
//! The search of Wing and Gong with Lowe's memory of what was tried ("Testing for linearizability",
//! 2017), key by key, for linearizability is local (Herlihy and Wing, 1990). It knows nothing of
//! the log but when an operation whose client got no answer was first seen applied.
//!
//! Limits: only the keys `k*`, which no expiry and no transaction touches; an MSET counts as a
//! write of each of its keys, an MGET as a read of each, a FLUSHALL as a DEL of each, so that their
//! being one step is left to the replay. An operation without an answer that the log does not show
//! is left out: what it had done, a read would show without explanation. Beyond `STEPS_MAX` steps
//! the search of a key is given up, and counted. Runs with more than one history are not searched.

use super::history::{Asks, End, Histories, Operation, is_unique};
use super::log::Logs;
use crate::simulate::clients::searched_keys;
use bytes::Bytes;
use standfast::state::Command;
use standfast::state::Reply;
use standfast::state::command::{SetCondition, SetReply};
use std::collections::{BTreeMap, HashMap, HashSet};

const STEPS_MAX: u64 = 2_000_000;

/// What one operation does to one key.
#[derive(Clone, Debug)]
enum Deed {
    Set(Bytes, SetCondition, SetReply),
    Append(Bytes),
    Add(i64),
    Delete,
    Get,
}

#[derive(Clone, Debug)]
struct Step {
    invoked: u64,
    returned: u64,
    deed: Deed,
    /// `None`: it was not answered, or not about this key alone.
    reply: Option<Reply>,
}

/// How many keys were given up.
pub fn check(logs: &Logs, histories: &Histories) -> Result<u64, String> {
    let mut applied_at: HashMap<Bytes, u64> = HashMap::new();
    for branch in logs.branches() {
        for (place, _, encoded) in branch.commands() {
            applied_at.insert(encoded, branch.applied_at[place]);
        }
    }
    let all_flushes_are_told = flushes(logs) == flushes_told(histories);
    let mut keys: BTreeMap<Bytes, Vec<Step>> = BTreeMap::new();
    let mut doubtful = std::collections::BTreeSet::new();
    for operation in &histories.operations {
        let (returned, reply) = match &operation.end {
            _ if operation.asks == Asks::Stale => continue,
            End::Answered {
                returned, reply, ..
            } => (*returned, Some(reply.clone())),
            End::Refused => continue,
            End::Open | End::Unknown(_) if operation.asks == Asks::Write => {
                // Only what is written once can be found again in the log.
                let is_unique = is_unique(&operation.encoded);
                match applied_at.get(&operation.encoded) {
                    Some(at) if is_unique => (*at, None),
                    None if is_unique => continue,
                    _ if all_flushes_are_told && operation.command == Command::FlushAll => continue,
                    _ => {
                        let deeds = deeds(operation, None);
                        doubtful.extend(deeds.into_iter().map(|(key, ..)| key));
                        continue;
                    }
                }
            }
            End::Open | End::Unknown(_) => continue,
        };
        for (key, deed, reply) in deeds(operation, reply) {
            keys.entry(key).or_default().push(Step {
                invoked: operation.invoked,
                returned,
                deed,
                reply,
            });
        }
    }
    let mut given_up = 0;
    for (key, steps) in keys {
        // Whether an INCR, DEL or FLUSHALL without an answer was done, nothing tells.
        if doubtful.contains(&key) {
            given_up += 1;
            continue;
        }
        match search(&steps) {
            Verdict::Explained => {}
            Verdict::GivenUp => given_up += 1,
            Verdict::Impossible(step) => {
                return Err(format!(
                    "I4: no order explains what was answered of {key:?}; the search ends at {:?}",
                    steps[step]
                ));
            }
        }
    }
    Ok(given_up)
}

fn flushes(logs: &Logs) -> usize {
    let all = logs.branches().iter().flat_map(|branch| branch.commands());
    all.filter(|(.., encoded)| {
        matches!(
            Command::from_encoded(encoded.clone()),
            Ok(Command::FlushAll)
        )
    })
    .count()
}

/// Those that were answered: where these are all that the log has, no other was done.
fn flushes_told(histories: &Histories) -> usize {
    let flushes = histories.operations.iter();
    flushes
        .filter(|one| one.command == Command::FlushAll && matches!(one.end, End::Answered { .. }))
        .count()
}

/// What an operation does, key by key.
fn deeds(operation: &Operation, reply: Option<Reply>) -> Vec<(Bytes, Deed, Option<Reply>)> {
    let is_ours = |key: &Bytes| key.starts_with(b"k");
    let parts = |reply: Option<Reply>| match reply {
        Some(Reply::Array(items)) => items,
        _ => Vec::new(),
    };
    let deeds: Vec<(Bytes, Deed, Option<Reply>)> = match &operation.command {
        Command::Set(set) => {
            let deed = Deed::Set(set.value.clone(), set.condition.clone(), set.reply);
            vec![(set.key.clone(), deed, reply)]
        }
        Command::Append { key, value } => vec![(key.clone(), Deed::Append(value.clone()), reply)],
        Command::IncrBy { key, by } => vec![(key.clone(), Deed::Add(*by), reply)],
        Command::Del { keys } if keys.len() == 1 => vec![(keys[0].clone(), Deed::Delete, reply)],
        Command::MSet { pairs, .. } => {
            let set = |value: &Bytes| Deed::Set(value.clone(), SetCondition::Always, SetReply::Ok);
            pairs
                .iter()
                .map(|(key, value)| (key.clone(), set(value), None))
                .collect()
        }
        Command::FlushAll => {
            let keys = searched_keys();
            keys.map(|key| (key, Deed::Delete, None)).collect()
        }
        Command::Get { key } => vec![(key.clone(), Deed::Get, reply)],
        Command::MGet { keys } => {
            let each = keys.iter().zip(parts(reply));
            each.map(|(key, reply)| (key.clone(), Deed::Get, Some(reply)))
                .collect()
        }
        _ => Vec::new(),
    };
    deeds.into_iter().filter(|(key, ..)| is_ours(key)).collect()
}

/// The value after a deed, and the reply that it must have had.
fn apply(value: &Option<Bytes>, deed: &Deed) -> (Option<Bytes>, Reply) {
    let bulk = |value: &Option<Bytes>| value.clone().map_or(Reply::Nil, Reply::Bulk);
    match deed {
        Deed::Get => (value.clone(), bulk(value)),
        Deed::Delete => (None, Reply::Int(i64::from(value.is_some()))),
        Deed::Append(more) => {
            let mut whole = value.clone().unwrap_or_default().to_vec();
            whole.extend_from_slice(more);
            let length = i64::try_from(whole.len()).expect("short values");
            (Some(whole.into()), Reply::Int(length))
        }
        Deed::Add(by) => {
            let text = value.clone().unwrap_or_else(|| Bytes::from_static(b"0"));
            let number = std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.parse::<i64>().ok());
            let sum = number.unwrap_or(0) + by;
            (Some(sum.to_string().into()), Reply::Int(sum))
        }
        Deed::Set(new, condition, form) => {
            let holds = match condition {
                SetCondition::Always => true,
                SetCondition::IfAbsent => value.is_none(),
                SetCondition::IfPresent => value.is_some(),
                SetCondition::IfEqual(expected) => value.as_ref() == Some(expected),
            };
            let reply = match (form, holds) {
                (SetReply::Previous, _) => bulk(value),
                (SetReply::Flag, _) => Reply::Int(i64::from(holds)),
                (SetReply::Ok, true) => Reply::Ok,
                (SetReply::Ok, false) => Reply::Nil,
            };
            (
                if holds {
                    Some(new.clone())
                } else {
                    value.clone()
                },
                reply,
            )
        }
    }
}

enum Verdict {
    Explained,
    GivenUp,
    /// The operation that could not be placed when the search ran out of choices.
    Impossible(usize),
}

/// Calls and returns in time's order, as a doubly linked list: what is placed is taken out.
struct Events {
    /// (operation, is it the return)
    list: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where the call and the return of each operation stand.
    places: Vec<[usize; 2]>,
}

impl Events {
    fn new(steps: &[Step]) -> Events {
        let mut list: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * steps.len());
        for (i, step) in steps.iter().enumerate() {
            list.push((step.invoked, false, i));
            list.push((step.returned, true, i));
        }
        // At one moment calls come first: what ends as another begins may be beside it.
        list.sort_unstable();
        let mut places = vec![[0; 2]; steps.len()];
        for (place, (_, is_return, i)) in list.iter().enumerate() {
            places[*i][usize::from(*is_return)] = place + 1;
        }
        let count = list.len();
        let events = list.into_iter().map(|(_, is_return, i)| (i, is_return));
        // Place 0 stands before the first, place count + 1 behind the last.
        Events {
            list: std::iter::once((0, false)).chain(events).collect(),
            next: (1..=count + 2).collect(),
            previous: (0..count + 2)
                .map(|place| place.saturating_sub(1))
                .collect(),
            places,
        }
    }

    fn end(&self) -> usize {
        self.list.len()
    }

    fn take_out(&mut self, operation: usize) {
        for place in self.places[operation] {
            let (before, after) = (self.previous[place], self.next[place]);
            self.next[before] = after;
            self.previous[after] = before;
        }
    }

    fn put_back(&mut self, operation: usize) {
        for place in self.places[operation].into_iter().rev() {
            let (before, after) = (self.previous[place], self.next[place]);
            self.next[before] = place;
            self.previous[after] = place;
        }
    }
}

fn search(steps: &[Step]) -> Verdict {
    let mut events = Events::new(steps);
    let mut value: Option<Bytes> = None;
    let mut placed = vec![0u64; steps.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, Option<Bytes>)> = HashSet::new();
    let mut stack: Vec<(usize, Option<Bytes>)> = Vec::new();
    let (mut at, mut taken) = (events.next[0], 0);
    while events.next[0] != events.end() {
        taken += 1;
        if taken > STEPS_MAX {
            return Verdict::GivenUp;
        }
        let (operation, is_return) = events.list[at];
        if is_return {
            // Whatever was placed last must be placed otherwise.
            let Some((last, before)) = stack.pop() else {
                return Verdict::Impossible(operation);
            };
            value = before;
            placed[last / 64] &= !(1 << (last % 64));
            events.put_back(last);
            at = events.next[events.places[last][0]];
            continue;
        }
        let step = &steps[operation];
        let (after, reply) = apply(&value, &step.deed);
        let fits = step.reply.as_ref().is_none_or(|said| *said == reply);
        placed[operation / 64] |= 1 << (operation % 64);
        if fits && tried.insert((placed.clone(), after.clone())) {
            stack.push((operation, std::mem::replace(&mut value, after)));
            events.take_out(operation);
            at = events.next[0];
        } else {
            placed[operation / 64] &= !(1 << (operation % 64));
            at = events.next[at];
        }
    }
    Verdict::Explained
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(invoked: u64, returned: u64, deed: Deed, reply: Reply) -> Step {
        Step {
            invoked,
            returned,
            deed,
            reply: Some(reply),
        }
    }

    fn set(value: &'static str) -> Deed {
        Deed::Set(
            Bytes::from_static(value.as_bytes()),
            SetCondition::Always,
            SetReply::Ok,
        )
    }

    fn bulk(value: &'static str) -> Reply {
        Reply::Bulk(Bytes::from_static(value.as_bytes()))
    }

    #[test]
    fn only_what_some_order_explains_is_let_through() {
        for (what, steps, explained) in [
            (
                "a read beside a write may see either",
                vec![
                    step(0, 10, set("a"), Reply::Ok),
                    step(5, 30, set("b"), Reply::Ok),
                    step(12, 14, Deed::Get, bulk("a")),
                    step(15, 16, Deed::Get, bulk("b")),
                ],
                true,
            ),
            (
                "a read goes back in time",
                vec![
                    step(0, 10, set("a"), Reply::Ok),
                    step(5, 30, set("b"), Reply::Ok),
                    step(12, 14, Deed::Get, bulk("b")),
                    step(15, 16, Deed::Get, bulk("a")),
                ],
                false,
            ),
            (
                "an answered write is missed",
                vec![
                    step(0, 1, set("a"), Reply::Ok),
                    step(2, 3, Deed::Get, Reply::Nil),
                ],
                false,
            ),
            (
                "two that both found nothing there",
                vec![
                    step(0, 5, Deed::Add(1), Reply::Int(1)),
                    step(1, 4, Deed::Add(1), Reply::Int(1)),
                ],
                false,
            ),
            (
                "three at once, in the one order that fits",
                vec![
                    step(0, 9, Deed::Append(Bytes::from_static(b"x")), Reply::Int(3)),
                    step(0, 9, Deed::Append(Bytes::from_static(b"yy")), Reply::Int(2)),
                    step(0, 9, Deed::Get, bulk("yy")),
                    step(10, 11, Deed::Get, bulk("yyx")),
                ],
                true,
            ),
        ] {
            let found = matches!(search(&steps), Verdict::Explained);
            assert_eq!(found, explained, "{what}");
        }
    }
}
