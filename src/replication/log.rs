//! Positions of this node's own log: what is written, durable and committed, and what is cut.
//!
//! Owns the tail, the epoch table and the commit LSN. Keeps I3 (epochs never fall) and the one
//! rule without exception: nothing committed is ever cut within a history.

use crate::replication::epochs::{EpochEntry, EpochTable};
use crate::replication::fence::Fence;
use crate::replication::io::{Effect, LogFacts};
use crate::replication::message::SnapshotHead;
use crate::replication::tail::Tail;
use crate::replication::view::Loss;
use standfast_wal::{Kind, Link, Lsn, Mark, Record};
use std::collections::VecDeque;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Log {
    pub tail: Tail,
    /// Durable here. Never above the written end.
    pub durable: Lsn,
    /// The first LSN that the log on disk still has.
    pub first_lsn: Lsn,
    pub epochs: EpochTable,
    pub commit: Lsn,
    applied: Lsn,
    tail_bytes: u64,
    /// Where the log will end when each pending cut is done, oldest first.
    cuts: VecDeque<Link>,
    installing: bool,
}

impl Log {
    pub fn new(facts: LogFacts, tail_bytes: u64) -> Log {
        let tip = facts.tip.position.lsn;
        assert!(
            facts.committed <= tip,
            "I1: the log ends at {tip}, but {} of it is known committed",
            facts.committed
        );
        Log {
            tail: Tail::new(facts.tip),
            durable: tip,
            first_lsn: facts.first_lsn,
            epochs: facts.epochs,
            commit: facts.committed,
            applied: Lsn::ZERO,
            tail_bytes,
            cuts: VecDeque::new(),
            installing: false,
        }
    }

    pub fn tip(&self) -> Link {
        self.tail.tip()
    }

    pub fn end(&self) -> Lsn {
        self.tail.tip().position.lsn
    }

    pub fn installing(&self) -> bool {
        self.installing
    }

    /// No cut and no install is under way.
    pub fn settled(&self) -> bool {
        self.cuts.is_empty() && !self.installing
    }

    /// Everything accepted so far is durable.
    pub fn is_all_durable(&self) -> bool {
        self.settled() && self.durable == self.end()
    }

    /// Appends a record that follows the end; an error is the story of why it cannot be.
    pub fn append(&mut self, record: Record, out: &mut Vec<Effect>) -> Result<(), String> {
        assert!(!self.installing, "an append while a snapshot is installed");
        if let Err(damage) = record.follows(self.tip()) {
            return Err(format!("{record:?} behind {:?}: {damage}", self.tip()));
        }
        if record.kind() == Kind::EpochStart {
            let Some(entry) = EpochEntry::decode(&record) else {
                return Err(format!("{record:?} has a payload that makes no sense"));
            };
            if let Some(last) = self.epochs.last() {
                if entry.fence() <= last.fence() || entry.epoch <= last.epoch {
                    return Err(format!("I3: reign {entry:?} behind {last:?}"));
                }
                if entry.history != last.history {
                    out.push(Effect::Roll(entry.history));
                }
            }
            self.epochs.push(entry);
        } else if self.epochs.last().map(|entry| entry.epoch) != Some(record.epoch()) {
            return Err(format!("I3: {record:?} in an epoch that never started"));
        }
        self.tail.push(record.clone());
        let forgettable = self.applied.min(self.commit).min(self.durable);
        self.tail.trim(forgettable, self.tail_bytes);
        out.push(Effect::Append(record));
        Ok(())
    }

    /// Cuts everything behind `keep`, in favour of the log of `by`.
    pub fn cut(&mut self, keep: Link, by: Fence, out: &mut Vec<Effect>) {
        let after = keep.position.lsn;
        // I1: within one history nothing committed is ever cut; across histories a snapshot
        // replaces the log instead.
        assert!(
            after >= self.commit && after < self.end(),
            "I1: cut to {after} of {}, commit {}, for {by}",
            self.end(),
            self.commit
        );
        let loss = self.loss(after, by);
        Mark::TailCut.hit();
        match self.tail.cut(after) {
            Some(link) => assert_eq!(link, keep, "one epoch, two chains at {after}"),
            None => self.tail.reset(keep),
        }
        self.epochs.cut(after);
        self.durable = self.durable.min(after);
        self.cuts.push_back(keep);
        out.push(Effect::Cut { after, loss });
    }

    /// What is lost when everything after `after` gives way to the log of `by`.
    pub fn loss(&self, after: Lsn, by: Fence) -> Loss {
        let same = self.epochs.last().map(|entry| entry.history) == Some(by.history);
        Loss {
            by,
            first_lsn: after.next(),
            last_lsn: self.end(),
            committed: self.commit.min(self.end()),
            possibly_acknowledged: !same,
        }
    }

    /// Ignored while a cut is pending: it speaks of the log before it.
    pub fn on_durable(&mut self, lsn: Lsn) {
        if self.settled() {
            assert!(
                lsn <= self.end(),
                "durable {lsn} beyond the end {}",
                self.end()
            );
            self.durable = self.durable.max(lsn);
        }
    }

    /// What was cut away for good says nothing of what is before it: that may wait for space still.
    pub fn on_cut_done(&mut self, link: Link, durable: Lsn) -> Result<(), String> {
        let expected = self.cuts.pop_front().ok_or("a cut that nobody asked for")?;
        if (expected.position, expected.chain) != (link.position, link.chain) {
            return Err(format!(
                "cut to {expected:?}, but the log ends with {link:?}"
            ));
        }
        if self.cuts.is_empty() {
            self.durable = durable.min(link.position.lsn);
        }
        Ok(())
    }

    /// Raises the commit LSN; never lowers it.
    pub fn set_commit(&mut self, commit: Lsn, out: &mut Vec<Effect>) {
        if commit > self.commit {
            assert!(
                commit <= self.end(),
                "commit {commit} beyond the end {}",
                self.end()
            );
            self.commit = commit;
            out.push(Effect::Committed(commit));
        }
    }

    pub fn on_applied(&mut self, lsn: Lsn) {
        self.applied = self.applied.max(lsn);
    }

    pub fn begin_install(&mut self) {
        self.installing = true;
    }

    /// The snapshot has replaced the log.
    pub fn on_installed(&mut self, head: SnapshotHead, out: &mut Vec<Effect>) {
        assert!(self.installing, "an install that nobody asked for");
        self.installing = false;
        self.cuts.clear();
        let lsn = head.link.position.lsn;
        self.tail.reset(head.link);
        self.durable = lsn;
        self.first_lsn = lsn.next();
        self.epochs = head.epochs;
        self.commit = lsn;
        self.applied = lsn;
        out.push(Effect::Committed(lsn));
    }
}

/// Whether a snapshot may replace a log that ends at `end`: it reaches that far, or shows, at an
/// LSN that both have, a higher epoch than the log does, so that the log's end is a dead branch.
pub(super) fn may_install(head: &SnapshotHead, end: Lsn, epochs: &EpochTable) -> bool {
    let lsn = head.link.position.lsn;
    if lsn >= end {
        return true;
    }
    // Both tables are steps: if the snapshot's is above anywhere, it is at one of its own steps.
    head.epochs.entries().iter().any(|entry| {
        let own = epochs.at(entry.first_lsn).map(EpochEntry::fence);
        entry.first_lsn <= lsn && own < Some(entry.fence())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_wal::{Epoch, History, NodeId, Nonce, Position};

    fn table(reigns: &[(u64, u64)]) -> EpochTable {
        EpochTable::new(
            reigns
                .iter()
                .map(|(epoch, first)| EpochEntry {
                    history: History {
                        generation: 1,
                        id: 1,
                    },
                    epoch: Epoch(*epoch),
                    nonce: Nonce(u128::from(*epoch)),
                    primary: NodeId(1),
                    first_lsn: Lsn(*first),
                })
                .collect(),
        )
    }

    #[test]
    fn a_snapshot_below_the_own_end_needs_a_higher_epoch_at_a_shared_lsn() {
        let own = table(&[(1, 1), (3, 10)]);
        for (what, reigns, lsn, may) in [
            ("reaches the end", vec![(1, 1), (3, 10)], 20, true),
            (
                "shorter, and only a prefix",
                vec![(1, 1), (3, 10)],
                19,
                false,
            ),
            (
                "shorter, another branch of lower epoch",
                vec![(1, 1), (2, 10)],
                19,
                false,
            ),
            (
                "shorter, a later reign took over",
                vec![(1, 1), (4, 12)],
                19,
                true,
            ),
            (
                "a later reign, but above the snapshot",
                vec![(1, 1), (4, 20)],
                19,
                false,
            ),
            (
                "the own branch was overtaken early",
                vec![(1, 1), (4, 5)],
                6,
                true,
            ),
        ] {
            let head = SnapshotHead {
                history: History {
                    generation: 1,
                    id: 1,
                },
                link: Link {
                    position: Position {
                        epoch: Epoch(3),
                        lsn: Lsn(lsn),
                    },
                    ..Link::default()
                },
                epochs: table(&reigns),
            };
            assert_eq!(may_install(&head, Lsn(20), &own), may, "{what}");
        }
    }
}
