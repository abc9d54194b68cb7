//! What is lost by force is told: a statement lists what a cut took away, denies nothing that was
//! acknowledged, and once all who held an acknowledged command have given it up, one stands there;
//! a forced promotion claims neither more than is lost nor less than its node had heard of.

use super::history::{End, Histories};
use super::log::Logs;
use super::{Observer, history_of, process_of};
use crate::simulate::nodes::Node;
use standfast::replication::{EpochTable, Fence, Replica};
use standfast_wal::kept::{DIVERGENT, Kept};
use standfast_wal::{Epoch, History, Incarnation, Kind, Lsn, Record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// So many of a node's logs are remembered: a statement comes some turns after its cut.
const LOGS_KEPT: usize = 6;

/// What one node is known to have had and heard.
#[derive(Default)]
pub struct Had {
    /// Its newest tables of reigns, the present one the last.
    tables: VecDeque<EpochTable>,
    /// The highest commit LSN that a primary whom it obeyed told it, and of which history.
    heard: Option<(History, Lsn)>,
    /// A forced promotion was ordered and is not answered yet; what was heard before.
    forcing: Option<Option<(History, Lsn)>>,
    /// Cuts that were ordered and of which no statement has come.
    untold: u64,
}

impl Had {
    pub fn look_at(&mut self, replica: &Replica) {
        let table = replica.epochs();
        if self.tables.back() == Some(table) {
            return;
        }
        self.tables.push_back(table.clone());
        if self.tables.len() > LOGS_KEPT {
            self.tables.pop_front();
        }
    }

    pub fn cuts(&mut self, cuts: u64) {
        self.untold += cuts;
    }

    /// So many tables, the present one first.
    pub fn newest(&self, many: usize) -> impl Iterator<Item = &EpochTable> {
        self.tables.iter().rev().take(many)
    }

    /// These came from primaries; the node obeys whose reign its fence is.
    pub fn heard<'a>(&mut self, replica: &Replica, beats: impl Iterator<Item = &'a (Fence, Lsn)>) {
        let followed = replica.history();
        self.heard = self.heard.filter(|(history, _)| *history == followed);
        // Whoever sounds out the others for a forced promotion hears no primary.
        if self.forcing.is_some() {
            return;
        }
        let fence = replica.fence();
        let obeyed = beats.filter(|(reign, _)| *reign == fence && reign.history == followed);
        if let Some(highest) = obeyed.map(|(_, commit)| *commit).max() {
            let before = self.heard.map_or(Lsn::ZERO, |(_, commit)| commit);
            self.heard = Some((followed, highest.max(before)));
        }
    }
}

/// One statement of a cut.
#[derive(Debug)]
struct Stated {
    first: u64,
    last: u64,
    /// Up to here the records were gone before.
    unlisted: u64,
    listed: BTreeSet<(Epoch, Lsn)>,
}

impl Stated {
    fn tells_of(&self, epoch: Epoch, lsn: Lsn) -> bool {
        let is_gone = (self.first..=self.last.min(self.unlisted)).contains(&lsn.0);
        is_gone || self.listed.contains(&(epoch, lsn))
    }
}

/// A command that a client was told of.
struct Acknowledged {
    reign: Fence,
    lsn: Lsn,
    /// Whose disks held it then.
    holders: Vec<(usize, Incarnation)>,
}

#[derive(Default)]
pub struct Losses {
    /// Places that statements name, and whether they are said never to have been acknowledged.
    named: BTreeMap<(Epoch, Lsn), bool>,
    stated: Vec<Stated>,
    /// Only of runs in which somebody may be forced: else nothing is lost.
    acknowledged: Vec<Acknowledged>,
    /// Nodes whose disk was damaged in this run.
    harmed: BTreeSet<usize>,
    /// Nodes whose process died between a cut and its statement.
    interrupted: BTreeSet<usize>,
}

fn number(facts: &serde_json::Value, name: &str) -> Option<u64> {
    facts[name].as_u64()
}

impl Losses {
    /// What a statement says of each command must be true.
    fn take(&mut self, logs: &Logs, facts: &serde_json::Value) -> Result<(), String> {
        let commands = facts["commands"].as_array().ok_or("lists nothing")?;
        let mut listed = BTreeSet::new();
        for command in commands {
            let number = |name| number(command, name).ok_or("lacks a number");
            let (epoch, lsn) = (Epoch(number("epoch")?), Lsn(number("lsn")?));
            let is_denied = command["acknowledged"] == "no";
            if is_denied && logs.is_acknowledged(epoch, lsn) {
                return Err(format!("denies {lsn} of epoch {epoch}"));
            }
            *self.named.entry((epoch, lsn)).or_insert(true) &= is_denied;
            listed.insert((epoch, lsn));
        }
        if facts["what"] == "cut" {
            let number = |name| number(facts, name).ok_or("lacks a number");
            self.stated.push(Stated {
                first: number("first_lsn")?,
                last: number("last_lsn")?,
                unlisted: number("unlisted_through").unwrap_or(0),
                listed,
            });
        }
        Ok(())
    }

    pub fn harmed(&mut self, node: usize) {
        self.harmed.insert(node);
    }

    /// Its process dies.
    pub fn dies(&mut self, node: usize, had: &Had) {
        if had.untold > 0 {
            self.interrupted.insert(node);
        }
    }

    pub fn was_harmed(&self, node: usize) -> bool {
        self.harmed.contains(&node)
    }

    fn is_told(&self, epoch: Epoch, lsn: Lsn) -> bool {
        self.stated.iter().any(|stated| stated.tells_of(epoch, lsn))
    }

    /// Whatever was acknowledged in a history that has ended, and is not in the last one, stands in
    /// no statement that denies it.
    pub fn deny_nothing(&self, logs: &Logs, histories: &Histories) -> Result<(), String> {
        let branches = logs.branches().iter();
        let Some(last) = branches.max_by_key(|branch| branch.history.generation) else {
            return Ok(());
        };
        for operation in &histories.operations {
            let End::Answered { lsn, epoch, .. } = operation.end else {
                continue;
            };
            if epoch == Epoch(0) || last.at(lsn).is_some_and(|record| record.epoch() == epoch) {
                continue;
            }
            if self.named.get(&(epoch, lsn)) == Some(&true) {
                return Err(format!(
                    "a loss statement denies what was done: {operation:?}"
                ));
            }
        }
        Ok(())
    }
}

/// What cuts kept aside on this node's disk: of those that a crash interrupted no statement is
/// written here, but on demand it can be made from this.
fn kept_aside(node: &Node) -> Vec<Record> {
    let disk = &node.disks.wal;
    let files = disk.files().into_iter();
    let names = files.filter(|(name, _)| name.starts_with(DIVERGENT));
    let kept = names.filter_map(|(name, _)| Kept::read(disk, &name).ok());
    kept.flat_map(|kept| kept.records).collect()
}

impl Observer {
    /// A client was told that this was done.
    pub(super) fn note_holders(&mut self, nodes: &[Node], reign: Fence, lsn: Lsn) {
        if !self.may_force {
            return;
        }
        let place = super::Place {
            history: reign.history,
            epoch: reign.epoch,
            lsn,
            log: reign.history,
        };
        let holders = (0..nodes.len()).filter(|node| self.holds(nodes, *node, place));
        let holders = holders.map(|node| (node, nodes[node].incarnation));
        let holders = holders.collect();
        self.losses.acknowledged.push(Acknowledged {
            reign,
            lsn,
            holders,
        });
    }

    /// A statement is written at this node.
    pub fn loss_statement(
        &mut self,
        node: usize,
        nodes: &[Node],
        text: &str,
    ) -> Result<(), String> {
        let wrong = |what: String| format!("n{node}: a loss statement {what}: {text}");
        let facts: serde_json::Value =
            serde_json::from_str(text).map_err(|_| wrong("is no JSON".to_string()))?;
        self.losses.take(&self.log, &facts).map_err(wrong)?;
        if facts["what"] == "cut" {
            let untold = &mut self.nodes[node].had.untold;
            *untold = untold.saturating_sub(1);
        }
        match nodes[node].harmed {
            None if facts["what"] == "cut" => self.lists_all(node, &facts).map_err(wrong),
            None => self.had_nothing_more(node, nodes, &facts).map_err(wrong),
            _ => Ok(()),
        }
    }

    /// It makes a loss final: what this disk held of that history goes on in the newer one.
    fn had_nothing_more(
        &self,
        node: usize,
        nodes: &[Node],
        facts: &serde_json::Value,
    ) -> Result<(), String> {
        if facts["what"] != "nothing_more" || self.losses.was_harmed(node) {
            return Ok(());
        }
        let beyond = Lsn(number(facts, "first_lsn").ok_or("lacks a number")?);
        let this = (node, nodes[node].incarnation);
        let more = self.losses.acknowledged.iter().find(|one| {
            one.lsn >= beyond
                && facts["history"] == one.reign.history.to_string()
                && one.holders.contains(&this)
        });
        match more {
            Some(one) => Err(format!("forgets {} of {}", one.lsn, one.reign)),
            None => Ok(()),
        }
    }

    /// What was cut is listed, command by command. Log is dropped early only where a snapshot
    /// covers it, of what was committed; a sound disk has all the rest.
    fn lists_all(&self, node: usize, facts: &serde_json::Value) -> Result<(), String> {
        let number = |name| number(facts, name).unwrap_or(0);
        let (first, last) = (number("first_lsn"), number("last_lsn"));
        let (gone, committed) = (number("unlisted_through"), number("acknowledged_through"));
        if gone > committed {
            return Err(format!(
                "says that what was cut was gone before up to {gone}, and {committed} is committed"
            ));
        }
        let stated = self.losses.stated.last().ok_or("is lost itself")?;
        // What came in the place of the cut may have come in the same turn.
        let is_before = |table: &&EpochTable| {
            let mut reigns = table.entries().iter();
            reigns.all(|reign| facts["replaced_by"] != reign.fence().to_string())
        };
        let tables = self.nodes[node].had.tables.iter();
        let tables: Vec<&EpochTable> = tables.filter(is_before).collect();
        for lsn in (first.max(gone + 1)..=last).map(Lsn) {
            if stated.listed.iter().any(|(_, listed)| *listed == lsn) {
                continue;
            }
            let is_command = |table: &&EpochTable| {
                let record = self.log.built_at(table, lsn);
                record.is_some_and(|record| record.kind() == Kind::Commands)
            };
            if !tables.is_empty() && tables.iter().all(is_command) {
                return Err(format!("does not list the command at {lsn}"));
            }
        }
        Ok(())
    }

    /// Everybody who lives is in the newest history, and nothing is under way any more: what
    /// somebody held then, and nobody holds now, stands in a statement.
    pub(super) fn nothing_is_lost_silently(&self, nodes: &[Node]) -> Result<(), String> {
        let branches = self.log.branches().iter();
        let Some(last) = branches.max_by_key(|branch| branch.history.generation) else {
            return Ok(());
        };
        let had = self.nodes.iter().map(|node| &node.had);
        let mut all = had.zip(nodes).enumerate();
        if let Some((node, _)) = all.find(|(_, (had, node))| node.is_up() && had.untold > 0) {
            return Err(format!("n{node} has cut its log and states no loss"));
        }
        let mut aside: BTreeMap<usize, Vec<Record>> = BTreeMap::new();
        for one in &self.losses.acknowledged {
            let (epoch, lsn) = (one.reign.epoch, one.lsn);
            let generation = last.generations.get(&epoch);
            let is_there = last.at(lsn).is_some_and(|record| record.epoch() == epoch)
                && generation == Some(&one.reign.history.generation);
            if is_there || self.losses.is_told(epoch, lsn) {
                continue;
            }
            let gave_up = one.holders.iter().filter(|(node, incarnation)| {
                let replica = process_of(nodes, *node).map(|process| process.engine.replica());
                let history = replica.ok().and_then(history_of);
                nodes[*node].incarnation == *incarnation
                    && history == Some(last.history)
                    && !self.losses.was_harmed(*node)
            });
            for (node, _) in gave_up {
                let kept = aside
                    .entry(*node)
                    .or_insert_with(|| kept_aside(&nodes[*node]));
                let is_it = |record: &Record| {
                    record.epoch() == epoch
                        && (record.first_lsn()..=record.last_lsn()).contains(&lsn)
                };
                let is_interrupted = self.losses.interrupted.contains(node);
                if !(is_interrupted && kept.iter().any(is_it)) {
                    return Err(format!(
                        "{lsn} of {} was acknowledged, is not in {}, and n{node}, who held it, \
                         states no loss",
                        one.reign, last.history
                    ));
                }
            }
        }
        Ok(())
    }

    // Forced promotion

    /// This node has heard of commits that it does not hold.
    pub fn lags(&self, node: usize, nodes: &[Node]) -> bool {
        let heard = self.nodes[node].had.heard;
        let Some((heard, process)) = heard.zip(nodes[node].process.as_ref()) else {
            return false;
        };
        let replica = process.engine.replica();
        let has_log = process.log_reader().is_some() && replica.has_own_log();
        has_log && heard.1 > replica.tip().position.lsn
    }

    /// A forced promotion was ordered here: a new history may begin.
    pub fn forced(&mut self, node: usize) {
        self.register.forced(node);
        let had = &mut self.nodes[node].had;
        had.forcing = Some(had.heard);
    }

    /// The order was answered, well or not.
    pub fn force_ended(&mut self, node: usize) {
        self.nodes[node].had.forcing = None;
    }

    /// A forced promotion said that at least so many acknowledged commands are not here.
    pub fn force_said(&self, node: usize, nodes: &[Node], least: u64) -> Result<(), String> {
        let replica = process_of(nodes, node)?.engine.replica();
        let Some(past) = replica.config().ancestors.last() else {
            return Ok(());
        };
        let (past, fork) = (past.history, past.end.0);
        let lost = self.log.true_commit(past).0.saturating_sub(fork);
        if least > lost {
            return Err(format!(
                "a forced promotion says that {least} commands at least are lost; {lost} are"
            ));
        }
        let heard = self.nodes[node].had.forcing.flatten();
        let heard = heard.filter(|(history, _)| *history == past);
        let known = heard.map_or(0, |(_, commit)| commit.0.saturating_sub(fork));
        if least < known {
            return Err(format!(
                "n{node}: a forced promotion says that {least} commands at least are lost; it had \
                 heard of {heard:?} and keeps {fork}"
            ));
        }
        Ok(())
    }
}
