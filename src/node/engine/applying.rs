//! Committed records into the state, a bounded stretch a turn, and the answers they give.

use super::Engine;
use super::time::Attested;
use crate::limits;
use crate::replication::Input;
use crate::state::State;
use standfast_wal::{Kind, Lsn, Record};

impl Engine {
    fn may_apply(&self) -> Lsn {
        self.replica.commit().min(self.replica.durable())
    }

    pub(super) fn has_more_to_apply(&self) -> bool {
        !self.is_witness
            && !self.copies.is_installing()
            && self.state.applied().lsn < self.may_apply()
    }

    /// Applies committed records that are durable here, in order; a bounded share per turn.
    pub(super) fn apply(&mut self) {
        let mut budget = limits::APPLY_BYTES_PER_TURN;
        let before = self.state.applied().lsn;
        while self.has_more_to_apply() && budget > 0 {
            let applied = self.state.applied().lsn;
            let through = self.may_apply();
            let in_memory = self.replica.records_after(applied).map(|records| {
                let committed = records.take_while(|record| record.last_lsn() <= through);
                committed
                    .take(limits::APPLY_RECORDS_AT_ONCE)
                    .cloned()
                    .collect::<Vec<_>>()
            });
            let records = match in_memory {
                Some(records) => records,
                None => match self.log.read(applied, limits::APPEND_BYTES) {
                    Ok(Some(records)) => records,
                    Ok(None) => {
                        return self.halt(format!(
                            "the log no longer has what follows {applied}, which is applied; \
                             restore this node from a snapshot"
                        ));
                    }
                    Err(fault) => {
                        return self.halt(format!(
                            "{fault}; restart this node so that it mends itself from a peer"
                        ));
                    }
                },
            };
            for record in records
                .iter()
                .take_while(|record| record.last_lsn() <= through)
            {
                budget = budget.saturating_sub(record.bytes().len());
                self.apply_record(record);
            }
            if self.state.applied().lsn == applied {
                break;
            }
        }
        let applied = self.state.applied().lsn;
        if applied > before {
            self.step(Input::Applied(applied));
        }
        let (state, confirmed) = (&self.state, self.confirmed);
        self.pending
            .evaluate(applied, confirmed, |command| state.read(command));
    }

    fn apply_record(&mut self, record: &Record) {
        assert!(
            record.last_lsn() <= self.replica.commit(),
            "I6: {record:?} is applied above commit {}",
            self.replica.commit()
        );
        let mut replies = std::mem::take(&mut self.replies);
        replies.clear();
        let reign = self.replica.epochs().at(record.first_lsn());
        let generation = reign.map_or(0, |reign| reign.history.generation);
        self.pending.set_generation(generation);
        let (pending, confirmed) = (&mut self.pending, self.confirmed);
        self.state
            .apply_each(record, record.last_lsn(), |state, lsn, reply| {
                replies.push(reply);
                // Reads that wait for an LSN inside this record are answered from exactly that
                // state.
                if pending.next_read() == Some(lsn) {
                    pending.evaluate(lsn, confirmed, |command| state.read(command));
                }
            });
        // A record that answers nobody, a Tick that a read has asked for: what follows it must not
        // be seen by a read that was asked before it.
        let last = record.last_lsn();
        if pending.next_read() == Some(last) {
            let state = &self.state;
            pending.evaluate(last, confirmed, |command| state.read(command));
        }
        self.pending.applied(generation, record, &replies);
        self.outcomes.push(record, &mut replies);
        self.replies = replies;
        self.copies.applied = record.link();
        match record.kind() {
            Kind::Commands => self.attested.stale = true,
            Kind::Attestation => {
                self.archive.attested();
                self.check_attestation(record);
            }
            Kind::Operator => self.desk.operator_record(record),
            Kind::EpochStart | Kind::Tick => {}
        }
        let digest = self.state.digest();
        if self.digests.back().is_none_or(|(_, last)| *last != digest) {
            self.attested.changed = record.last_lsn();
        }
        self.digests.push_back((record.last_lsn(), digest));
        if self.digests.len() > limits::DIGESTS_KEPT {
            self.digests.pop_front();
        }
    }

    /// Of what was loaded nothing is known yet but where it stands, in the log that is here by now.
    pub(in crate::node) fn state_begins(&mut self) {
        let applied = self.state.applied().lsn;
        self.attested = Attested::since(applied);
        let reign = self.replica.epochs().at(applied);
        let generation = reign.map_or(0, |reign| reign.history.generation);
        self.pending.set_generation(generation);
    }

    /// What is kept of the old state's past goes with it: the new one's may have had the same LSNs.
    pub(in crate::node) fn replace_state(&mut self, state: State) {
        self.state = state;
        self.digests.clear();
        self.outcomes.clear();
    }
}
