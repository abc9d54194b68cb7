//! I1 and I3: what every log holds, what is truly committed, what was acknowledged.
//!
//! One branch per history: the sequence of records that its nodes have applied. Two logs are equal
//! at a place when history, epoch and LSN are equal there; so what was acknowledged is in a log
//! when the log's table of reigns says so.

use bytes::Bytes;
use standfast::replication::{EpochTable, Fence, Replica};
use standfast_wal::{Epoch, History, Lsn, NodeId, Record};
use std::collections::BTreeMap;

/// One place of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The history of the reign that wrote it.
    pub history: History,
    pub epoch: Epoch,
    pub lsn: Lsn,
    /// The history that the whole log belongs to.
    pub log: History,
}

impl Place {
    pub fn reign(self) -> Fence {
        Fence {
            history: self.history,
            epoch: self.epoch,
        }
    }

    pub fn of(table: &EpochTable, lsn: Lsn) -> Option<Place> {
        let log = table.last()?.history;
        let entry = table.at(lsn)?;
        Some(Place {
            history: entry.history,
            epoch: entry.epoch,
            lsn,
            log,
        })
    }
}

/// What the nodes of one history have applied.
pub struct Branch {
    pub history: History,
    pub records: Vec<Record>,
    /// When each was first seen applied.
    pub applied_at: Vec<u64>,
    through: Lsn,
    /// The highest truly committed LSN.
    commit: Lsn,
    /// The highest of each reign.
    committed: BTreeMap<(History, Epoch), Lsn>,
    /// The highest acknowledged LSN of each reign: everything of that reign below is in the same
    /// logs.
    acknowledged: BTreeMap<(History, Epoch), Lsn>,
    /// Of which generation each epoch was that this history went through.
    pub generations: BTreeMap<Epoch, u64>,
    /// How far acknowledgements had come, by time.
    timeline: Vec<(u64, Lsn)>,
}

#[derive(Default)]
pub struct Logs {
    /// Every record that any primary built.
    built: BTreeMap<(History, Epoch, Lsn), Record>,
    branches: Vec<Branch>,
}

impl Logs {
    /// A node appends this record: its own, or one that it was sent.
    pub fn appended(
        &mut self,
        node: NodeId,
        record: &Record,
        table: &EpochTable,
    ) -> Result<(), String> {
        let first = record.first_lsn();
        let Some(entry) = table
            .at(first)
            .filter(|entry| entry.epoch == record.epoch())
        else {
            return Ok(()); // Cut again within the same turn.
        };
        let key = (entry.history, entry.epoch, first);
        match self.built.get(&key) {
            Some(other) if other == record => Ok(()),
            Some(other) => Err(format!(
                "I3: two records at {key:?}: {other:?} of {}, {record:?} of {}",
                other.timestamp(),
                record.timestamp()
            )),
            None if entry.primary == node => {
                self.built.insert(key, record.clone());
                Ok(())
            }
            None => Err(format!(
                "I3: {record:?} is appended, and n{}, whose reign it is, never built it",
                entry.primary
            )),
        }
    }

    /// What covers this LSN in the log of this table.
    pub fn built_at(&self, table: &EpochTable, lsn: Lsn) -> Option<&Record> {
        let entry = table.at(lsn)?;
        let (history, epoch) = (entry.history, entry.epoch);
        let first = (history, epoch, Lsn::ZERO);
        let (_, record) = self
            .built
            .range(first..=(history, epoch, lsn))
            .next_back()?;
        (record.last_lsn() >= lsn).then_some(record)
    }

    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    pub fn branch(&self, history: History) -> Option<&Branch> {
        self.branches
            .iter()
            .find(|branch| branch.history == history)
    }

    fn branch_mut(&mut self, history: History) -> &mut Branch {
        let known = self
            .branches
            .iter()
            .position(|branch| branch.history == history);
        let place = known.unwrap_or_else(|| {
            self.branches.push(Branch {
                history,
                records: Vec::new(),
                applied_at: Vec::new(),
                through: Lsn::ZERO,
                commit: Lsn::ZERO,
                committed: BTreeMap::new(),
                acknowledged: BTreeMap::new(),
                generations: BTreeMap::new(),
                timeline: Vec::new(),
            });
            self.branches.len() - 1
        });
        &mut self.branches[place]
    }

    pub fn committed_through(&self) -> Vec<(History, Lsn)> {
        let branches = self.branches.iter();
        branches
            .map(|branch| (branch.history, branch.commit))
            .collect()
    }

    // Commit

    pub fn true_commit(&self, history: History) -> Lsn {
        self.branch(history)
            .map_or(Lsn::ZERO, |branch| branch.commit)
    }

    /// The newest history of which so much is committed.
    pub fn newest_that_reached(&self, lsn: Lsn) -> Option<History> {
        let reached = self.branches.iter().filter(|branch| branch.commit >= lsn);
        reached.map(|branch| branch.history).max()
    }

    /// In any history that a log with this table goes through.
    pub fn true_commit_of(&self, table: &EpochTable) -> Lsn {
        let branches = self.branches.iter().filter(|branch| {
            let entries = table.entries().iter().rev();
            entries
                .map(|entry| entry.history)
                .any(|history| history == branch.history)
        });
        branches
            .map(|branch| branch.commit)
            .max()
            .unwrap_or_default()
    }

    pub fn raise_commit(&mut self, history: History, place: Place) {
        let branch = self.branch_mut(history);
        branch.commit = branch.commit.max(place.lsn);
        let highest = branch.committed.entry((place.history, place.epoch));
        let highest = highest.or_default();
        *highest = place.lsn.max(*highest);
    }

    /// What was counted as committed in this history: of each reign the highest.
    pub fn committed(&self, history: History) -> impl Iterator<Item = (Fence, Lsn)> + '_ {
        let branch = self.branch(history).into_iter();
        let reigns = branch.flat_map(|branch| &branch.committed);
        reigns.map(|((history, epoch), lsn)| {
            let (history, epoch) = (*history, *epoch);
            (Fence { history, epoch }, *lsn)
        })
    }

    /// I6: nothing is taken for committed that is not.
    pub fn is_committed(
        &self,
        history: History,
        table: &EpochTable,
        lsn: Lsn,
    ) -> Result<(), String> {
        let commit = self.true_commit_of(table).max(self.true_commit(history));
        if lsn > commit {
            return Err(format!("I6: {lsn} is taken for committed, {commit} is"));
        }
        Ok(())
    }

    /// A node of this history has applied through `lsn`.
    pub fn applied(
        &mut self,
        now: u64,
        history: History,
        lsn: Lsn,
        table: &EpochTable,
    ) -> Result<(), String> {
        self.is_committed(history, table, lsn)?;
        let mut through = self.branch_mut(history).through;
        let mut more = Vec::new();
        let mut generations = BTreeMap::new();
        while through < lsn {
            let first = through.next();
            let Some(entry) = table.at(first) else {
                return Err(format!(
                    "{lsn} is applied, and no reign is known at {first}"
                ));
            };
            let Some(record) = self.built.get(&(entry.history, entry.epoch, first)) else {
                return Err(format!(
                    "I3: at {first} a record of {entry:?} is applied that nobody built"
                ));
            };
            through = record.last_lsn();
            generations.insert(entry.epoch, entry.history.generation);
            more.push(record.clone());
        }
        let branch = self.branch_mut(history);
        branch.generations.append(&mut generations);
        branch.through = through;
        branch.applied_at.extend(more.iter().map(|_| now));
        branch.records.extend(more);
        let epoch = table.at(lsn).map(|entry| entry.epoch);
        match branch.at(lsn) {
            Some(record) if Some(record.epoch()) != epoch => Err(format!(
                "I1: at {lsn} {record:?} is committed, and epoch {epoch:?} is applied"
            )),
            _ => Ok(()),
        }
    }

    /// Whether a log of this table holds something else at `lsn` than was applied in `history`;
    /// `None` if nothing was, so far.
    pub fn differs(&self, history: History, table: &EpochTable, lsn: Lsn) -> Option<bool> {
        let applied = self.branch(history)?.at(lsn)?;
        Some(table.at(lsn)?.epoch != applied.epoch())
    }

    // Acknowledgements

    /// In `history` a command is acknowledged that stands at this LSN of this reign.
    pub fn acknowledged(&mut self, now: u64, history: History, reign: (History, Epoch), lsn: Lsn) {
        let branch = self.branch_mut(history);
        let highest = branch.acknowledged.entry(reign).or_default();
        *highest = lsn.max(*highest);
        let last = branch.timeline.last().map_or(Lsn::ZERO, |(_, lsn)| *lsn);
        if lsn > last {
            branch.timeline.push((now, lsn));
        }
    }

    /// Whether a client was told, in any history, that this was done; or one below it in its reign.
    pub fn is_acknowledged(&self, epoch: Epoch, lsn: Lsn) -> bool {
        let all = self.branches.iter().flat_map(|branch| &branch.acknowledged);
        let mut same = all.filter(|((_, reign), _)| *reign == epoch);
        same.any(|(_, highest)| *highest >= lsn)
    }

    /// The highest LSN that was acknowledged in this history by then.
    pub fn acknowledged_by(&self, history: History, time: u64) -> Lsn {
        let Some(branch) = self.branch(history) else {
            return Lsn::ZERO;
        };
        let until = branch.timeline.partition_point(|(at, _)| *at <= time);
        until
            .checked_sub(1)
            .map_or(Lsn::ZERO, |place| branch.timeline[place].1)
    }

    /// A reign begins. The first of a history takes over what its founder's log holds.
    pub fn reigns(&mut self, history: History, replica: &Replica) {
        if self.branch(history).is_some() {
            return;
        }
        let (table, tip) = (replica.epochs(), replica.tip().position.lsn);
        let mut inherited = BTreeMap::new();
        for branch in &self.branches {
            for ((past, epoch), lsn) in &branch.acknowledged {
                let ends = |entry: &standfast::replication::EpochEntry| {
                    let after = table
                        .entries()
                        .iter()
                        .find(|next| next.first_lsn > entry.first_lsn);
                    after.map_or(tip, |next| Lsn(next.first_lsn.0 - 1))
                };
                let entries = table.entries().iter();
                let mut same = entries.filter(|e| e.history == *past && e.epoch == *epoch);
                if let Some(entry) = same.next() {
                    inherited.insert((*past, *epoch), (*lsn).min(ends(entry)));
                }
            }
        }
        self.branch_mut(history).acknowledged = inherited;
    }

    /// I1: a primary that serves has every acknowledged command, at its place.
    pub fn serves(&mut self, history: History, replica: &Replica) -> Result<(), String> {
        let (table, tip) = (replica.epochs(), replica.tip().position.lsn);
        // One that begins late may have a successor, whose acknowledgements it need not have.
        let own = table.last().map(|entry| entry.epoch);
        let acknowledged = &self.branch_mut(history).acknowledged;
        let before = acknowledged
            .iter()
            .filter(|((_, epoch), _)| Some(*epoch) <= own);
        for ((past, epoch), lsn) in before {
            let at = table.at(*lsn);
            let is_same = at.is_some_and(|entry| entry.epoch == *epoch && entry.history == *past);
            if !is_same || tip < *lsn {
                return Err(format!(
                    "I1: {lsn} of epoch {epoch} was acknowledged; the primary that serves now ends \
                     at {tip} and has {at:?} there"
                ));
            }
        }
        Ok(())
    }
}

impl Branch {
    pub fn through(&self) -> Lsn {
        self.through
    }

    /// The record that covers this LSN.
    pub fn at(&self, lsn: Lsn) -> Option<&Record> {
        let place = self
            .records
            .partition_point(|record| record.first_lsn() <= lsn);
        let record = &self.records[place.checked_sub(1)?];
        (record.last_lsn() >= lsn).then_some(record)
    }

    /// Everything that was applied, command by command: place among the records, LSN, bytes.
    pub fn commands(&self) -> impl Iterator<Item = (usize, Lsn, Bytes)> {
        let records = self.records.iter().enumerate();
        let records = records.filter(|(_, record)| record.kind() == standfast_wal::Kind::Commands);
        records.flat_map(|(place, record)| {
            let commands = standfast::state::command::iter(record.payload()).flatten();
            commands
                .enumerate()
                .map(move |(i, command)| (place, Lsn(record.first_lsn().0 + i as u64), command))
        })
    }
}
