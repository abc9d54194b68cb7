//! I4 in linear time: replies carry LSNs, so the log's order is the order; replay it, and compare.
//!
//! Every acknowledged write stands at its LSN with its reply; every read, linearizable or stale,
//! saw exactly the state at its LSN; in real time nothing answered is missed by what was asked
//! later. What was refused stands nowhere; what was written once stands once; a transaction is
//! whole.

use super::history::{Asks, End, Histories, Operation, is_unique};
use super::log::Branch;
use super::told::Told;
use crate::simulate::world::CLUSTER;
use bytes::Bytes;
use standfast::node::open::state_limits;
use standfast::state::{Command, Reply, State};
use standfast_wal::{Epoch, Lsn, Record};
use std::collections::{BTreeMap, BTreeSet};

/// An answered operation of this branch.
struct Answered<'a> {
    operation: &'a Operation,
    returned: u64,
    lsn: Lsn,
    epoch: Epoch,
    reply: &'a Reply,
}

pub fn check(branch: &Branch, histories: &Histories, told: &Told) -> Result<(), String> {
    let answered: Vec<Answered> = histories
        .operations
        .iter()
        .filter_map(|operation| match &operation.end {
            End::Answered {
                returned,
                history,
                lsn,
                epoch,
                reply,
            } if *history == branch.history => Some(Answered {
                operation,
                returned: *returned,
                lsn: *lsn,
                epoch: *epoch,
                reply,
            }),
            _ => None,
        })
        .collect();
    Replay::new(branch, &answered, told)?.run(branch)?;
    real_time(&answered)?;
    written_once(branch, histories)?;
    unknowns_are_named(branch, histories)
}

struct Replay<'a> {
    writes: BTreeMap<Lsn, &'a Answered<'a>>,
    reads: BTreeMap<Lsn, Vec<&'a Answered<'a>>>,
    /// What OUTCOME said was done, with which reply.
    outcomes: BTreeMap<Lsn, Vec<(Epoch, &'a Reply)>>,
    /// Where a token was refused.
    unused: BTreeSet<Lsn>,
    wrong: Option<String>,
}

impl<'a> Replay<'a> {
    fn new(
        branch: &Branch,
        answered: &'a [Answered<'a>],
        told: &'a Told,
    ) -> Result<Replay<'a>, String> {
        let mut replay = Replay {
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            outcomes: told.replies(branch.history),
            unused: BTreeSet::new(),
            wrong: None,
        };
        for one in answered {
            if one.operation.asks != Asks::Write {
                replay.reads.entry(one.lsn).or_default().push(one);
            } else if let Some(other) = replay.writes.insert(one.lsn, one) {
                return Err(format!(
                    "I1: two acknowledged at one LSN: {:?}, {:?}",
                    other.operation, one.operation
                ));
            }
        }
        Ok(replay)
    }

    fn run(mut self, branch: &Branch) -> Result<(), String> {
        let mut state = State::new(state_limits(CLUSTER));
        self.compare_reads(&state, Lsn::ZERO);
        for record in &branch.records {
            state.apply_each(record, record.last_lsn(), |state, lsn, reply| {
                self.compare_write(record, lsn, &reply);
                self.compare_reads(state, lsn);
            });
            self.compare_reads(&state, record.last_lsn());
            if let Some(story) = self.wrong.take() {
                return Err(story);
            }
        }
        if let Some((lsn, lost)) = self.writes.first_key_value() {
            return Err(format!(
                "I1: acknowledged and never committed, LSN {lsn}: {:?}",
                lost.operation
            ));
        }
        if let Some((lsn, reads)) = self.reads.first_key_value() {
            return Err(format!(
                "I6: read at {lsn}, never committed: {:?}",
                reads[0].operation
            ));
        }
        conserved(&state)?;
        state.ledger().audit()?;
        raised_once(branch, &state, &self.unused)
    }

    fn compare_write(&mut self, record: &Record, lsn: Lsn, reply: &Reply) {
        // ONCEFULL and ONCEREUSED; whether it is right to say so the slate knows.
        if matches!(reply, Reply::Error(said) if said.starts_with(b"ONCE")) {
            self.unused.insert(lsn);
        }
        for (epoch, said) in self.outcomes.remove(&lsn).into_iter().flatten() {
            if epoch == record.epoch() && said != reply {
                let story = format!("OUTCOME of {lsn} said {said:?}, it was {reply:?}");
                self.wrong.get_or_insert(story);
            }
        }
        let Some(write) = self.writes.remove(&lsn) else {
            return;
        };
        if write.epoch != record.epoch() {
            let (operation, epoch) = (write.operation, record.epoch());
            let story = format!("I1: {operation:?} was overwritten by epoch {epoch}");
            self.wrong.get_or_insert(story);
        } else if write.reply != reply {
            let operation = write.operation;
            let story = format!("I4: {operation:?} should have answered {reply:?}");
            self.wrong.get_or_insert(story);
        }
    }

    fn compare_reads(&mut self, state: &State, lsn: Lsn) {
        for read in self.reads.remove(&lsn).into_iter().flatten() {
            let expected = state.read(&read.operation.command);
            if expected != *read.reply {
                let operation = read.operation;
                let story = format!("I4: {operation:?} should have answered {expected:?}");
                self.wrong.get_or_insert(story);
            }
        }
    }
}

/// What was answered before something was asked lies at or before it in the log's order.
fn real_time(answered: &[Answered]) -> Result<(), String> {
    let linear = || {
        answered
            .iter()
            .filter(|one| one.operation.asks != Asks::Stale)
    };
    let mut by_return: Vec<&Answered> = linear().collect();
    by_return.sort_by_key(|one| one.returned);
    let mut by_invocation: Vec<&Answered> = linear().collect();
    by_invocation.sort_by_key(|one| one.operation.invoked);
    let mut highest: Option<&Answered> = None;
    let mut done = by_return.into_iter().peekable();
    for asked in by_invocation {
        while let Some(one) = done.next_if(|done| done.returned < asked.operation.invoked) {
            if highest.is_none_or(|highest| highest.lsn < one.lsn) {
                highest = Some(one);
            }
        }
        let Some(before) = highest else { continue };
        let in_order = match asked.operation.asks {
            Asks::Write => asked.lsn > before.lsn,
            _ => asked.lsn >= before.lsn,
        };
        if !in_order {
            return Err(format!(
                "I4: {:?} was asked after {:?} was answered",
                asked.operation, before.operation
            ));
        }
    }
    Ok(())
}

/// What was refused is nowhere; what was written once is there once, whatever became of its answer.
fn written_once(branch: &Branch, histories: &Histories) -> Result<(), String> {
    let mut found: BTreeSet<Bytes> = BTreeSet::new();
    for (_, lsn, encoded) in branch.commands() {
        if is_unique(&encoded) && !found.insert(encoded.clone()) {
            let command = Command::from_encoded(encoded);
            return Err(format!(
                "I4: {command:?} was asked once and is done again at {lsn}"
            ));
        }
    }
    for operation in &histories.operations {
        let refused = matches!(operation.end, End::Refused) && is_unique(&operation.encoded);
        if refused && found.contains(&operation.encoded) {
            return Err(format!(
                "I4: it was refused for good and done: {operation:?}"
            ));
        }
    }
    Ok(())
}

/// What UNKNOWN names is the command that it was said of, where that stands in the log.
fn unknowns_are_named(branch: &Branch, histories: &Histories) -> Result<(), String> {
    let mut claims: BTreeMap<(u64, Epoch, Lsn), &Operation> = BTreeMap::new();
    for operation in &histories.operations {
        if let End::Unknown(Some(claim)) = operation.end {
            claims.insert((claim.generation, claim.epoch, claim.lsn), operation);
        }
    }
    for (place, lsn, encoded) in branch.commands() {
        let epoch = branch.records[place].epoch();
        let generation = branch.generations.get(&epoch);
        let claim = generation.and_then(|generation| claims.get(&(*generation, epoch, lsn)));
        if let Some(operation) = claim.filter(|operation| operation.encoded != encoded) {
            let command = Command::from_encoded(encoded);
            return Err(format!(
                "UNKNOWN named {lsn} of {epoch}, {command:?}, for {operation:?}"
            ));
        }
    }
    Ok(())
}

/// Transfers neither make nor lose money.
fn conserved(state: &State) -> Result<(), String> {
    let balance = |place: usize| {
        let key = Bytes::from(format!("a{place}"));
        match state.read(&Command::Get { key }) {
            Reply::Bulk(bytes) => std::str::from_utf8(&bytes)
                .unwrap_or("")
                .parse()
                .unwrap_or(0),
            _ => 0,
        }
    };
    let sum: i64 = (0..crate::simulate::clients::ACCOUNTS).map(balance).sum();
    if sum != 0 {
        return Err(format!("I4: the accounts sum up to {sum} at the end"));
    }
    Ok(())
}

/// The number that only tokens raise is as high as there are tokens in the log that found room,
/// from the last FLUSHALL on, which takes the number and leaves the tokens.
fn raised_once(branch: &Branch, state: &State, unused: &BTreeSet<Lsn>) -> Result<(), String> {
    let mut used: BTreeSet<Bytes> = BTreeSet::new();
    let mut expected = 0;
    for (_, lsn, encoded) in branch.commands() {
        match Command::from_encoded(encoded.clone()) {
            Ok(Command::FlushAll) => expected = 0,
            Ok(Command::Once(once))
                if matches!(once.command(), Command::IncrBy { .. }) && !unused.contains(&lsn) =>
            {
                expected += usize::from(used.insert(encoded));
            }
            _ => {}
        }
    }
    let key = Bytes::from_static(b"once");
    let raised = match state.read(&Command::Get { key }) {
        Reply::Bulk(bytes) => String::from_utf8_lossy(&bytes)
            .parse()
            .unwrap_or(usize::MAX),
        _ => 0,
    };
    if raised != expected {
        return Err(format!(
            "ONCE: {expected} tokens were used and raised {raised}"
        ));
    }
    Ok(())
}
