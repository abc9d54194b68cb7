//! READONLY reads: none is older than `max_staleness`, on the clock of the node that answers it.

use super::{Observer, history};
use standfast::replication::Replica;
use standfast_wal::{History, Lsn};

impl Observer {
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
