//! I1: what a node takes for committed has its copies, or was committed by somebody else.

use super::Observer;
use super::history_of;
use super::log::Place;
use super::promotion::has_gone_on;
use crate::simulate::nodes::Node;
use standfast::replication::{Config, Replica};
use standfast_wal::{Lsn, NodeId};
use std::collections::BTreeSet;

impl Observer {
    /// The commit LSN has moved: on the primary it is counted again, elsewhere it was told.
    pub(super) fn watch_commit(
        &mut self,
        node: usize,
        nodes: &[Node],
        replica: &Replica,
    ) -> Result<(), String> {
        let commit = replica.commit();
        if commit == self.nodes[node].commit || commit == Lsn::ZERO {
            return Ok(());
        }
        self.nodes[node].commit = commit;
        let (Some(history), Some(place)) =
            (history_of(replica), Place::of(replica.epochs(), commit))
        else {
            return Ok(());
        };
        // A turn may count acknowledgements and then hear of a newer epoch: what it counted before
        // is judged by the Config that it reigned by, or by the last one of that reign, which it
        // may have adopted in between.
        let own = match replica.is_primary() {
            true => Some(replica.config()),
            false => self.nodes[node].reigned_by.as_ref(),
        };
        let own = own.filter(|own| {
            own.epoch == place.epoch && own.history == place.history && commit > self.known(history)
        });
        let Some(own) = own else {
            let history = self.history_at(replica, commit).unwrap_or(history);
            return self.log.is_committed(history, replica.epochs(), commit);
        };
        let last = self.register.newest_of(own.history, own.epoch);
        let last = last.filter(|_| !replica.is_primary());
        let missing = self.missing_copies(nodes, own, place);
        let missing = missing
            .filter(|_| last.is_none_or(|last| self.missing_copies(nodes, last, place).is_some()));
        if let Some((set, copies, needed)) = missing {
            return Err(format!(
                "I1: {commit} is committed with {copies} of {needed} copies in {set:?}"
            ));
        }
        self.log.raise_commit(history, place);
        // A late commit of a reign that has a successor: that one has it, too.
        let newest = self.register.newest(history);
        match newest.filter(|newest| newest.epoch > place.epoch) {
            Some(newest) => self.is_kept(nodes, newest, place.reign(), commit),
            None => Ok(()),
        }
    }

    /// The rule that a commit by this Config would break: the set, the copies there are and the
    /// copies that it needs.
    fn missing_copies(
        &self,
        nodes: &[Node],
        own: &Config,
        place: Place,
    ) -> Option<(BTreeSet<NodeId>, usize, usize)> {
        let rules = self.register.rules(own).into_iter();
        let mut counted = rules.map(|(set, needed)| {
            let holds = |id: &&NodeId| {
                let node = id.0 as usize;
                has_gone_on(&nodes[node], own.history) || self.holds(nodes, node, place)
            };
            let copies = set.iter().filter(holds).count();
            (set, copies, needed)
        });
        counted.find(|(_, copies, needed)| copies < needed)
    }
}
