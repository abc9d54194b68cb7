//! I6: nothing uncommitted is sent to asynchronous backups, or offered as a snapshot.

use super::super::plan::id;
use super::log::Logs;
use super::register::Configs;
use standfast::node::wire::Piece;
use standfast::replication::config::MemberRole;
use standfast::replication::{Body, Message};
use standfast_wal::Record;

pub struct Hidden {
    /// Nodes that a switchover was ordered to: they may have been put into the sync set.
    joined: Vec<bool>,
}

impl Hidden {
    pub fn new(nodes: usize) -> Hidden {
        Hidden {
            joined: vec![false; nodes],
        }
    }

    pub fn may_join(&mut self, node: usize) {
        self.joined[node] = true;
    }

    pub fn records(
        &self,
        logs: &Logs,
        configs: &Configs,
        (_, to): (usize, usize),
        message: &Message,
        records: &[Record],
    ) -> Result<(), String> {
        let (Body::Append { .. }, Some(last)) = (&message.body, records.last()) else {
            return Ok(());
        };
        let Some(config) = configs.newest(message.history) else {
            return Ok(());
        };
        let role = config.members.get(&id(to)).map(|member| member.role);
        let counts = config.sync_set.contains(&id(to)) || self.joined[to];
        if role != Some(MemberRole::Asynchronous) || counts {
            return Ok(());
        }
        let commit = logs.true_commit(message.history);
        if last.last_lsn() > commit {
            return Err(format!(
                "I6: {last:?} is sent to an asynchronous backup, commit {commit}"
            ));
        }
        Ok(())
    }

    pub fn piece(&self, logs: &Logs, _: usize, piece: &Piece) -> Result<(), String> {
        let Piece::Offer { head, .. } = piece else {
            return Ok(());
        };
        let (lsn, commit) = (head.link.position.lsn, logs.true_commit_of(&head.epochs));
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
            _ => Ok(()),
        }
    }
}
