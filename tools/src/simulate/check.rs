//! The observer: sees every node and every client, and knows what must never be.

use bytes::Bytes;
use standfast::state::{Command, Digest, Limits, Reply, State};
use standfast_wal::{Epoch, Lsn, NodeId, Record};
use std::collections::BTreeMap;

/// What a client asked and was told.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "printed with a failure")]
pub struct Operation {
    pub client: u64,
    pub invoked: u64,
    pub returned: u64,
    pub lsn: Lsn,
    pub epoch: Epoch,
    /// `None` for a write: it stands in the log at `lsn`.
    pub read: Option<Command>,
    pub reply: Reply,
    pub encoded: Bytes,
}

/// Everything ever seen.
#[derive(Default)]
pub struct Observer {
    /// Every record that any primary built, by epoch and first LSN (I3).
    built: BTreeMap<(Epoch, Lsn), (NodeId, Record)>,
    /// The node that appended first in each epoch (I3).
    writers: BTreeMap<Epoch, NodeId>,
    /// Committed records by first LSN; never changed (I1).
    committed: BTreeMap<Lsn, Record>,
    committed_through: Lsn,
    digests: BTreeMap<Lsn, Digest>,
    pub operations: Vec<Operation>,
}

impl Observer {
    /// A primary built this record.
    pub fn built(&mut self, node: NodeId, record: &Record) -> Result<(), String> {
        let writer = *self.writers.entry(record.epoch()).or_insert(node);
        if writer != node {
            return Err(format!(
                "I3: n{node} and n{writer} both append in epoch {}",
                record.epoch()
            ));
        }
        let key = (record.epoch(), record.first_lsn());
        match self.built.insert(key, (node, record.clone())) {
            Some((_, other)) if other != *record => Err(format!(
                "I3: two records at {key:?}: {other:?} and {record:?}"
            )),
            _ => Ok(()),
        }
    }

    /// A node has applied through `lsn`, with this digest; `epoch_at` is its own log's table.
    pub fn applied(
        &mut self,
        node: NodeId,
        lsn: Lsn,
        digest: Digest,
        epoch_at: impl Fn(Lsn) -> Option<Epoch>,
    ) -> Result<(), String> {
        if let Some(known) = self.digests.get(&lsn) {
            if *known != digest {
                return Err(format!(
                    "I2: n{node} at {lsn} has digest {digest}, not {known}"
                ));
            }
        } else {
            self.digests.insert(lsn, digest);
        }
        while self.committed_through < lsn {
            let first = self.committed_through.next();
            let Some(epoch) = epoch_at(first) else {
                return Err(format!(
                    "n{node} applied {lsn} and knows no epoch at {first}"
                ));
            };
            let Some((_, record)) = self.built.get(&(epoch, first)) else {
                return Err(format!(
                    "n{node} applied a record at {first} of {epoch} nobody built"
                ));
            };
            self.committed_through = record.last_lsn();
            self.committed.insert(first, record.clone());
        }
        let held = self.committed.range(..=lsn).next_back();
        if let (Some((first, record)), Some(epoch)) = (held, epoch_at(lsn))
            && record.epoch() != epoch
        {
            return Err(format!(
                "I1: committed at {first} is epoch {}, n{node} applied epoch {epoch}",
                record.epoch()
            ));
        }
        Ok(())
    }

    /// Replays what was committed, and holds every client's history against it: replies equal, and
    /// in real time nothing answered is missed by what was asked later (I1, I4).
    pub fn histories(&self, limits: Limits) -> Result<(), String> {
        let mut operations = self.operations.clone();
        operations.sort_by_key(|operation| (operation.lsn, operation.read.is_some()));
        let mut reads: BTreeMap<Lsn, Vec<&Operation>> = BTreeMap::new();
        let mut writes: BTreeMap<Lsn, &Operation> = BTreeMap::new();
        for operation in &operations {
            if operation.read.is_some() {
                reads.entry(operation.lsn).or_default().push(operation);
            } else if let Some(other) = writes.insert(operation.lsn, operation) {
                return Err(format!(
                    "I1: two acknowledged at one LSN: {other:?}, {operation:?}"
                ));
            }
        }
        let mut state = State::new(limits);
        let mut wrong = None;
        let check_reads = |state: &State, lsn: Lsn, wrong: &mut Option<String>| {
            for read in reads.get(&lsn).into_iter().flatten() {
                let Some(command) = &read.read else { continue };
                let expected = state.read(command);
                if expected != read.reply {
                    *wrong = Some(format!("I4: {read:?} should have answered {expected:?}"));
                }
            }
        };
        for record in self.committed.values() {
            let epoch = record.epoch();
            state.apply_each(record, record.last_lsn(), |state, lsn, reply| {
                if let Some(write) = writes.remove(&lsn) {
                    if write.epoch != epoch {
                        wrong = Some(format!("I1: {write:?} was overwritten by epoch {epoch}"));
                    } else if write.reply != reply {
                        wrong = Some(format!("I4: {write:?} should have answered {reply:?}"));
                    }
                }
                check_reads(state, lsn, &mut wrong);
            });
            check_reads(&state, record.last_lsn(), &mut wrong);
        }
        if let Some((lsn, lost)) = writes.first_key_value() {
            return Err(format!(
                "I1: acknowledged and never committed, LSN {lsn}: {lost:?}"
            ));
        }
        if let Some(story) = wrong {
            return Err(story);
        }
        self.real_time()
    }

    /// What was answered before something was asked lies at or before it in the log's order.
    fn real_time(&self) -> Result<(), String> {
        let mut by_return: Vec<&Operation> = self.operations.iter().collect();
        by_return.sort_by_key(|operation| operation.returned);
        let mut by_invocation: Vec<&Operation> = self.operations.iter().collect();
        by_invocation.sort_by_key(|operation| operation.invoked);
        let mut highest: Option<&Operation> = None;
        let mut done = by_return.into_iter().peekable();
        for asked in by_invocation {
            while let Some(operation) = done.next_if(|done| done.returned < asked.invoked) {
                if highest.is_none_or(|highest| highest.lsn < operation.lsn) {
                    highest = Some(operation);
                }
            }
            let Some(before) = highest else { continue };
            let in_order = match asked.read {
                Some(_) => asked.lsn >= before.lsn,
                None => asked.lsn > before.lsn,
            };
            if !in_order {
                return Err(format!(
                    "I4: {asked:?} was asked after {before:?} was answered"
                ));
            }
        }
        Ok(())
    }

    pub fn committed_through(&self) -> Lsn {
        self.committed_through
    }
}
