//! I6: nothing uncommitted is sent to whom nothing waits for, or offered as a snapshot.
//!
//! Who may have it follows from Configs: the sync set of the one that the primary knows to be
//! chosen; those of the one that it has proposed and of the one before that, until it knows the
//! outcome; and the one member that it is about to take in, which must be one that may come in.

use super::super::plan::id;
use super::log::Logs;
use super::register::Configs;
use standfast::node::wire::Piece;
use standfast::replication::config::{MemberRole, Protection};
use standfast::replication::{Body, Fence, Message, Replica};
use standfast_wal::{History, NodeId, Record};
use std::collections::BTreeSet;

/// Whom a primary could send what is not committed, at the moments at which it was looked at.
#[derive(Default)]
pub struct Trusted {
    reigns: BTreeSet<Fence>,
    /// By history and version: whose sync sets.
    versions: BTreeSet<(History, u64)>,
    /// In the sync sets that were proposed.
    proposed: BTreeSet<NodeId>,
    joining: BTreeSet<NodeId>,
    /// A change was proposed: within that step another member may have been about to join.
    is_changing: bool,
}

impl Trusted {
    pub fn look_at(&mut self, replica: &Replica) {
        if !replica.is_primary() {
            return;
        }
        let config = replica.config();
        self.reigns.insert(replica.fence());
        self.versions.insert((config.history, config.version));
        if let Some(next) = replica.proposed() {
            // Others may have told it of its own Config: the register's answer is what ends both.
            self.versions.insert((next.history, next.version - 1));
            self.proposed.extend(&next.sync_set);
            self.is_changing = true;
        }
        self.joining.extend(replica.joining());
    }
}

pub struct Hidden {
    /// Nodes that a switchover was ordered to: they may have been put into the sync set.
    joined: Vec<bool>,
    /// A switchover to anybody was ordered.
    is_switched: bool,
}

impl Hidden {
    pub fn new(nodes: usize) -> Hidden {
        Hidden {
            joined: vec![false; nodes],
            is_switched: false,
        }
    }

    pub fn may_join(&mut self, node: Option<usize>) {
        self.is_switched = true;
        if let Some(node) = node {
            self.joined[node] = true;
        }
    }

    pub fn records(
        &self,
        logs: &Logs,
        configs: &Configs,
        trusted: &Trusted,
        to: usize,
        message: &Message,
        records: &[Record],
    ) -> Result<(), String> {
        let (Body::Append { epoch, .. }, Some(last)) = (&message.body, records.last()) else {
            return Ok(());
        };
        let (history, lsn) = (message.history, last.last_lsn());
        // What a founder inherited is committed with the history that it founded.
        let known = trusted.versions.iter().filter(|(of, _)| *of == history);
        let known = known.filter_map(|(of, version)| configs.at(*of, *version));
        let inherited = known.filter_map(|config| config.ancestors.last());
        let inherited = inherited.map(|past| past.shared).max();
        let commit = logs.true_commit(history).max(inherited.unwrap_or_default());
        let applied = logs.branch(history).and_then(|branch| branch.at(lsn));
        let is_other = applied.is_some_and(|applied| applied.epoch() != last.epoch());
        if lsn <= commit && !is_other {
            return Ok(());
        }
        let reign = Fence {
            history,
            epoch: *epoch,
        };
        match trusted.reigns.contains(&reign) && self.may_have(configs, trusted, id(to)) {
            true => Ok(()),
            false => Err(format!(
                "I6: {last:?} of {reign} is sent to one that nothing waits for, commit {commit}"
            )),
        }
    }

    fn may_have(&self, configs: &Configs, trusted: &Trusted, to: NodeId) -> bool {
        let versions = trusted.versions.iter();
        let mut known = versions.filter_map(|(history, version)| configs.at(*history, *version));
        trusted.proposed.contains(&to)
            || known.any(|config| config.sync_set.contains(&to))
            || (trusted.is_changing || trusted.joining.contains(&to))
                && self.may_come_in(configs, trusted, to)
    }

    /// Asynchronous members, and all in max-performance, come in for a switchover only.
    fn may_come_in(&self, configs: &Configs, trusted: &Trusted, to: NodeId) -> bool {
        let versions = trusted.versions.iter();
        let mut known = versions.filter_map(|(history, version)| configs.at(*history, *version));
        known.any(|config| {
            let role = config.members.get(&to).map(|member| member.role);
            let by_itself = config.protection != Protection::MaxPerformance || self.is_switched;
            let is_ordered = self.joined[to.0 as usize];
            is_ordered || by_itself && role == Some(MemberRole::Data)
        })
    }

    pub fn piece(&self, logs: &Logs, piece: &Piece) -> Result<(), String> {
        let Piece::Offer { head, .. } = piece else {
            return Ok(());
        };
        let lsn = head.link.position.lsn;
        // What a founder inherited is committed with the history that it founded, whatever it was
        // in the one before.
        let in_its_past = logs.true_commit_of(&head.epochs);
        let commit = in_its_past.max(logs.true_commit(head.history));
        if lsn > commit {
            return Err(format!(
                "I6: a snapshot at {lsn} is offered, commit {commit}"
            ));
        }
        let branch = logs.branch(head.history);
        let record = branch.and_then(|branch| branch.at(lsn));
        match record {
            Some(record) if record.link() != head.link => Err(format!(
                "I6: a snapshot behind {:?} is offered, committed is {record:?}",
                head.link
            )),
            None if lsn > in_its_past => Err(format!("I6: nobody has built {lsn} of {head:?}")),
            _ => Ok(()),
        }
    }
}
