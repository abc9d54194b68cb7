//! What nodes said of what became of things is true: OUTCOME, RECEIPT, SEEN, loss statements.

use super::history::{End, Histories};
use super::log::{Logs, Place};
use crate::simulate::clients::Claim;
use standfast::state::Reply;
use standfast_wal::{Epoch, History, Lsn};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Places that loss statements name, and whether they are said never to have been acknowledged.
    lost: BTreeMap<(Epoch, Lsn), bool>,
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

    /// A log was cut: what it says of each command must be true.
    pub fn loss_statement(&mut self, logs: &Logs, text: &str) -> Result<(), String> {
        let wrong = |what: &str| format!("a loss statement {what}: {text}");
        let facts: serde_json::Value =
            serde_json::from_str(text).map_err(|_| wrong("is no JSON"))?;
        let commands = facts["commands"]
            .as_array()
            .ok_or_else(|| wrong("lists nothing"))?;
        for command in commands {
            let number = |name: &str| {
                command[name]
                    .as_u64()
                    .ok_or_else(|| wrong("lacks a number"))
            };
            let (epoch, lsn) = (Epoch(number("epoch")?), Lsn(number("lsn")?));
            let is_denied = command["acknowledged"] == "no";
            if is_denied && logs.is_acknowledged(epoch, lsn) {
                return Err(wrong(&format!("denies {lsn} of epoch {epoch}")));
            }
            *self.lost.entry((epoch, lsn)).or_insert(true) &= is_denied;
        }
        Ok(())
    }

    pub fn end(&self, logs: &Logs, histories: &Histories) -> Result<(), String> {
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
        self.nothing_is_lost_silently(logs, histories)
    }

    /// Whatever was acknowledged in a history that has ended, and is not in the last one, stands in
    /// a loss statement that does not deny it.
    fn nothing_is_lost_silently(&self, logs: &Logs, histories: &Histories) -> Result<(), String> {
        let Some(last) = logs
            .branches()
            .iter()
            .max_by_key(|branch| branch.history.generation)
        else {
            return Ok(());
        };
        let denied: BTreeSet<_> = self.lost.iter().filter(|(_, denied)| **denied).collect();
        for operation in &histories.operations {
            let End::Answered { lsn, epoch, .. } = operation.end else {
                continue;
            };
            if epoch == Epoch(0) || last.at(lsn).is_some_and(|record| record.epoch() == epoch) {
                continue;
            }
            if denied.contains(&(&(epoch, lsn), &true)) {
                return Err(format!(
                    "a loss statement denies what was done: {operation:?}"
                ));
            }
        }
        Ok(())
    }
}

/// A receipt never counts a copy that is not there.
pub fn receipt(place: Place, holders: usize, reply: &Reply) -> Result<(), String> {
    let Reply::Map(pairs) = reply else {
        return Ok(());
    };
    let copies = pairs
        .iter()
        .find(|(name, _)| *name == Reply::Bulk("copies".into()));
    let Some((_, Reply::Int(copies))) = copies else {
        return Err(format!("a receipt without copies: {reply:?}"));
    };
    if usize::try_from(*copies).unwrap_or(usize::MAX) > holders {
        return Err(format!(
            "a receipt for {place:?} says {copies} copies, there are {holders}"
        ));
    }
    Ok(())
}
