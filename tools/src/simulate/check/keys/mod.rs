//! I4 for keys and tokens: the committed log is replayed on the slate, plain maps that share no
//! line with production's state, and each reply, each read and each node's keys at the end is held
//! against it. `replay.rs` does the same through production's own state: it sees what differs from
//! the log, but nothing that every node does wrong alike. That is seen here.
//!
//! Left to the books (`check/ledger`): what the ledger answers, and whether an EXEC over ledger and
//! keys is aborted for a refused event; the slate takes over which were. Left to `replay.rs`: that
//! what was answered is in the log at all.

mod commands;
mod rare;
mod slate;

pub use rare::{Counts, RARE, Rare};

use super::history::{Asks, End, Histories, Operation};
use super::ledger::Expected;
use super::log::Branch;
use super::told::Told;
use super::{history_of, whole};
use crate::simulate::nodes::Node;
use crate::simulate::world::World;
use slate::Slate;
use standfast::state::command::TtlForm;
use standfast::state::{Command, Reply, State};
use standfast_wal::{Epoch, History, Kind, Lsn};
use std::collections::{BTreeMap, BTreeSet};

/// What clients were told in one history.
struct Said<'a> {
    writes: BTreeMap<Lsn, (Epoch, &'a Operation, &'a Reply)>,
    reads: BTreeMap<Lsn, Vec<(&'a Operation, &'a Reply)>>,
    /// What OUTCOME said was done, with which reply.
    outcomes: BTreeMap<Lsn, Vec<(Epoch, &'a Reply)>>,
}

/// The slate at the end of a history.
pub struct Closed(Slate);

/// Replays a history's log on the slate. `aborted` is where the books say that an EXEC did nothing.
pub fn check(
    branch: &Branch,
    histories: &Histories,
    told: &Told,
    aborted: BTreeSet<Lsn>,
    counts: &mut Counts,
) -> Result<Closed, String> {
    let mut said = Said::of(branch, histories, told);
    let mut slate = Slate::new(aborted);
    said.reads_at(&mut slate)?;
    for record in &branch.records {
        let (first, time) = (record.first_lsn(), record.timestamp());
        if record.kind() == Kind::Commands {
            let encoded = standfast::state::command::iter(record.payload()).flatten();
            for (at, encoded) in (0..).zip(encoded) {
                let command = Command::from_encoded(encoded);
                let command = command.map_err(|why| format!("{record:?}: {why}"))?;
                slate.go_on(Lsn(first.0 + at), time + at);
                let expected = slate.execute(&command);
                said.write_at(&slate, record.epoch(), &command, &expected)?;
                said.reads_at(&mut slate)?;
            }
        } else {
            let last = record.last_lsn();
            slate.go_on(last, time + first.distance_to(last));
            if record.kind() == Kind::Tick {
                slate.tick();
            }
            said.reads_at(&mut slate)?;
        }
    }
    counts.add(&slate.counts);
    Ok(Closed(slate))
}

impl<'a> Said<'a> {
    fn of(branch: &Branch, histories: &'a Histories, told: &'a Told) -> Said<'a> {
        let mut said = Said {
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            outcomes: told.replies(branch.history),
        };
        for operation in &histories.operations {
            let End::Answered {
                history,
                lsn,
                epoch,
                reply,
                ..
            } = &operation.end
            else {
                continue;
            };
            if *history != branch.history {
                continue;
            }
            if operation.asks == Asks::Write {
                said.writes.insert(*lsn, (*epoch, operation, reply));
            } else {
                let there = said.reads.entry(*lsn).or_default();
                there.push((operation, reply));
            }
        }
        said
    }

    fn write_at(
        &mut self,
        slate: &Slate,
        epoch: Epoch,
        command: &Command,
        expected: &Expected,
    ) -> Result<(), String> {
        let lsn = slate.lsn;
        for (there, reply) in self.outcomes.remove(&lsn).into_iter().flatten() {
            if there == epoch && !expected.fits(reply) {
                return Err(format!(
                    "I4: OUTCOME of {command:?} at {lsn} said {reply:?}; on the slate {expected:?}"
                ));
            }
        }
        match self.writes.remove(&lsn) {
            Some((there, operation, reply)) if there == epoch && !expected.fits(reply) => {
                Err(wrong(operation, expected))
            }
            _ => Ok(()),
        }
    }

    fn reads_at(&mut self, slate: &mut Slate) -> Result<(), String> {
        for (operation, reply) in self.reads.remove(&slate.lsn).into_iter().flatten() {
            let expected = slate.read(&operation.command);
            let fits = match (&operation.command, reply) {
                // In no order that anybody promises.
                (Command::Keys { .. }, Reply::Array(keys)) => {
                    let mut keys = keys.clone();
                    keys.sort_by_key(|key| format!("{key:?}"));
                    expected.fits(&Reply::Array(keys))
                }
                _ => expected.fits(reply),
            };
            if !fits {
                return Err(wrong(operation, &expected));
            }
            let is_about_an_end = matches!(&operation.command, Command::Ttl { .. });
            if operation.asks == Asks::Stale && is_about_an_end && *reply != Reply::Int(-2) {
                slate.counts.note(Rare::StaleRead);
            }
        }
        Ok(())
    }
}

fn wrong(operation: &Operation, expected: &Expected) -> String {
    format!("I4: on the slate {expected:?}: {operation:?}")
}

impl World {
    /// A node has had a turn; before, it took a snapshot and its state stood at `from`.
    pub fn note_flush(&mut self, node: usize, from: Option<Lsn>) {
        let process = self.nodes[node].process.as_ref();
        let engine = process.map(|process| &process.engine);
        let engine = engine.filter(|engine| engine.is_taking_snapshot());
        let (Some(engine), Some(from)) = (engine, from) else {
            return;
        };
        let history = history_of(engine.replica());
        let branch = history.and_then(|history| self.observer.log.branch(history));
        let through = engine.state().applied().lsn;
        let mut lsn = from.next();
        while let Some(record) = branch.filter(|_| lsn <= through).and_then(|it| it.at(lsn)) {
            let mut encoded = standfast::state::command::iter(record.payload()).flatten();
            let is_flush = |one| Command::from_encoded(one) == Ok(Command::FlushAll);
            if record.kind() == Kind::Commands && encoded.any(is_flush) {
                self.summary.keys.note(Rare::FlushedInSnapshot);
            }
            lsn = record.last_lsn().next();
        }
    }
}

impl Closed {
    /// Every node of this history that has applied all of it.
    pub fn compare_nodes(
        &self,
        history: History,
        nodes: &[Node],
        counts: &mut Counts,
    ) -> Result<(), String> {
        for (node, engine) in whole(history, self.0.lsn, nodes) {
            self.compare(engine.state())
                .map_err(|story| format!("n{}: {story}", node.id))?;
            counts.note(Rare::NodeCompared);
        }
        Ok(())
    }

    /// A node's keys are those on the slate, each with its value, its end and its revision; of the
    /// tokens only the number can be seen, and they are held until they are swept.
    fn compare(&self, state: &State) -> Result<(), String> {
        let form = TtlForm {
            in_ms: true,
            absolute: true,
        };
        for (key, line) in &self.0.lines {
            let ends = line.ends.map_or(-1, |ends| ends as i64);
            let expected = (
                Reply::Bulk(line.value.clone()),
                Reply::Int(ends),
                line.revision,
            );
            let key = key.clone();
            let found = (
                state.read(&Command::Get { key: key.clone() }),
                state.read(&Command::Ttl {
                    key: key.clone(),
                    form,
                }),
                state.revision(&key),
            );
            if expected != found {
                return Err(format!(
                    "I4: {key:?} is {expected:?} on the slate, here {found:?}"
                ));
            }
        }
        let (keys, found) = (self.0.lines.len() as u64, state.live_keys());
        if keys != found {
            return Err(format!("I4: {keys} keys are on the slate, here {found}"));
        }
        let ((from, to), held) = (self.0.held_tokens(), state.tokens());
        if !(from..=to).contains(&held) {
            return Err(format!(
                "ONCE: {from} to {to} tokens are on the slate, here {held}"
            ));
        }
        Ok(())
    }
}
