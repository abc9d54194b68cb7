//! What nodes said of what became of things is true: OUTCOME, SEEN.

use super::log::Logs;
use super::{Observer, history_of, process_of};
use crate::simulate::clients::{Claim, Written};
use crate::simulate::nodes::Node;
use standfast::state::Reply;
use standfast_wal::{Epoch, History, Lsn};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Fate {
    Never,
    /// Its reply, where that was kept.
    Done(Option<Reply>),
}

#[derive(Default)]
pub struct Told {
    /// The history that the node follows that said it.
    outcomes: Vec<(History, Claim, Fate)>,
    /// SEEN: (history there, point) was contained.
    contained: Vec<(History, History, Lsn)>,
}

impl Told {
    /// True when that settles it.
    pub fn outcome(&mut self, history: History, claim: Claim, reply: &Reply) -> bool {
        let Reply::Array(items) = reply else {
            return false;
        };
        let Some(Reply::Bulk(word)) = items.first() else {
            return false;
        };
        let fate = match &word[..] {
            b"never" => Fate::Never,
            b"done" => Fate::Done(items.get(1).cloned()),
            _ => return false,
        };
        self.outcomes.push((history, claim, fate));
        true
    }

    /// Replies that OUTCOME gave in this history, by LSN.
    pub fn replies(&self, history: History) -> BTreeMap<Lsn, Vec<(Epoch, &Reply)>> {
        let mut replies: BTreeMap<Lsn, Vec<_>> = BTreeMap::new();
        for (there, claim, fate) in &self.outcomes {
            if let (true, Fate::Done(Some(reply))) = (*there == history, fate) {
                replies
                    .entry(claim.lsn)
                    .or_default()
                    .push((claim.epoch, reply));
            }
        }
        replies
    }

    pub fn seen(&mut self, there: History, point: History, lsn: Lsn, reply: &Reply) {
        if *reply == Reply::Ok {
            self.contained.push((there, point, lsn));
        }
    }

    pub fn end(&self, logs: &Logs) -> Result<(), String> {
        for (history, claim, fate) in &self.outcomes {
            if claim.generation > history.generation {
                return Err(format!(
                    "OUTCOME of {claim:?} was {fate:?} where nothing is known of it, in {history}"
                ));
            }
            let branch = logs.branch(*history);
            let record = branch.and_then(|branch| branch.at(claim.lsn));
            let is_there = record.is_some_and(|record| record.epoch() == claim.epoch)
                && branch.is_some_and(|branch| {
                    branch.generations.get(&claim.epoch) == Some(&claim.generation)
                });
            let is_true = match fate {
                Fate::Never => !is_there,
                Fate::Done(_) => is_there,
            };
            if !is_true {
                return Err(format!(
                    "OUTCOME of {claim:?} was {fate:?}, but there is {record:?}"
                ));
            }
        }
        for (there, point, lsn) in &self.contained {
            let at = |history| logs.branch(history).and_then(|branch| branch.at(*lsn));
            let (here, seen) = (at(*there), at(*point));
            if there != point && here != seen {
                return Err(format!(
                    "SEEN {lsn} of {point} was confirmed in {there}: {here:?}, not {seen:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Observer {
    /// OUTCOME was answered; true when that settles it.
    pub fn outcome(&mut self, node: usize, nodes: &[Node], claim: Claim, reply: &Reply) -> bool {
        let Ok(process) = process_of(nodes, node) else {
            return false;
        };
        let history = process.engine.replica().history();
        self.told.outcome(history, claim, reply)
    }

    /// SEEN was answered.
    pub fn seen(
        &mut self,
        node: usize,
        nodes: &[Node],
        seen: &Written,
        reply: &Reply,
    ) -> Result<(), String> {
        let Ok(process) = process_of(nodes, node) else {
            return Ok(());
        };
        let (replica, point) = (process.engine.replica(), seen.history);
        if let Some(history) = history_of(replica) {
            self.told.seen(history, point, seen.lsn, reply);
        }
        self.is_not_contained(replica, (point, seen.reign), seen.lsn, reply)
    }
}
