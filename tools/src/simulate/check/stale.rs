//! READONLY reads: none is older than `max_staleness`, on the clock of the node that answers it.

use super::{Observer, history};
use standfast::replication::Replica;
use standfast_wal::{History, Lsn};

impl Observer {
    /// What a node says of the age of its state is said of the history that it follows: of a state
    /// out of another one it says nothing.
    pub(super) fn claims_no_other_past(
        &self,
        replica: &Replica,
        applied: Lsn,
    ) -> Result<(), String> {
        let history = replica.history();
        let is_other = || {
            applied > self.log.true_commit(history)
                || self.log.differs(history, replica.epochs(), applied) == Some(true)
        };
        match replica
            .freshness()
            .filter(|_| applied > Lsn::ZERO && is_other())
        {
            Some((lsn, _)) => Err(format!(
                "I4: its state at {applied} is none of {history} and passes for fresh at {lsn}"
            )),
            None => Ok(()),
        }
    }

    /// This node, in this history, has answered a READONLY read from its state at `lsn`.
    pub(super) fn stale_answered(
        &self,
        now: u64,
        history: History,
        replica: &Replica,
        id: history::Id,
        lsn: Lsn,
    ) -> Result<(), String> {
        let asked = || self.history.get(id);
        if replica.history() != history {
            return Err(format!(
                "I4: a stale read out of {history}, which has ended for who answers it: {:?}",
                asked()
            ));
        }
        let allowed = self.max_staleness + self.max_staleness * self.drift_ppm / 500_000;
        let since = now.saturating_sub(allowed + 1_000_000);
        let least = self.log.acknowledged_by(history, since);
        if lsn < least {
            return Err(format!(
                "I4: a stale read at {lsn} lacks {least}, acknowledged {allowed} ns before: {:?}",
                asked()
            ));
        }
        // Nobody is a backup and serves as primary in one turn. What a primary was elected with
        // may hold what others acknowledged at any time before.
        let epoch = replica.epochs().last().filter(|_| replica.is_serving());
        match epoch.filter(|epoch| lsn < epoch.first_lsn) {
            Some(epoch) => Err(format!(
                "I4: a stale read at {lsn}, of the primary of {epoch:?}, who has not applied what \
                 it was elected with: {:?}",
                asked()
            )),
            None => Ok(()),
        }
    }
}
