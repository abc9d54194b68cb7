//! Which snapshots a backup lets replace its log and state.

use crate::replication::backup::Backup;
use crate::replication::io::Effect;
use crate::replication::log::may_install;
use crate::replication::message::SnapshotHead;
use crate::replication::node::Node;
use standfast_wal::{Lsn, Mark, NodeId};

impl Backup {
    /// Why a snapshot must not replace this node's log and state, if it must not.
    fn objection(&self, node: &Node, from: NodeId, head: &SnapshotHead) -> Option<String> {
        let Some(following) = self.following.as_ref().filter(|f| f.primary == from) else {
            return Some(format!("n{from} is not the primary that is followed here"));
        };
        let lsn = head.link.position.lsn;
        let shared = head.epochs.agreed(lsn, &following.epochs, Lsn(u64::MAX));
        if shared != lsn {
            return Some(format!(
                "it is not of the history that {} leads",
                following.reign
            ));
        }
        if !may_install(head, node.end(), &node.log.epochs) {
            return Some(format!("it ends at {lsn}, below this log's {}", node.end()));
        }
        let own = node
            .log
            .epochs
            .at(node.log.commit)
            .map(|entry| entry.history);
        if lsn < node.log.commit && own == Some(following.reign.history) {
            return Some(format!(
                "it ends at {lsn}, below commit {}",
                node.log.commit
            ));
        }
        (!node.log.settled()).then(|| "a cut is under way".to_string())
    }

    pub fn on_snapshot_offered(&mut self, node: &mut Node, from: NodeId, head: &SnapshotHead) {
        match self.objection(node, from, head) {
            Some(why) => {
                Mark::SnapshotRefused.hit();
                node.out.push(Effect::RefuseSnapshot { from, why });
            }
            None => {
                self.receiving = Some(from);
                node.out.push(Effect::AcceptSnapshot { from });
            }
        }
    }

    /// The log may have gone on, or the primary may have changed, since it was offered.
    pub fn on_snapshot_received(&mut self, node: &mut Node, from: NodeId, head: SnapshotHead) {
        self.receiving = None;
        if let Some(why) = self.objection(node, from, &head) {
            return node.out.push(Effect::RefuseSnapshot { from, why });
        }
        let following = self.following.take().expect("the objection looked at it");
        let end = node.end();
        let agreed = node
            .log
            .epochs
            .agreed(end, &following.epochs, Lsn(u64::MAX));
        let loss = (agreed < end).then(|| node.log.loss(agreed, following.reign));
        Mark::SnapshotInstalled.hit();
        if loss.is_some() {
            Mark::SnapshotCutLog.hit();
        }
        node.log.begin_install();
        node.out.push(Effect::InstallSnapshot { head, loss });
    }

    pub fn on_snapshot_aborted(&mut self, from: NodeId) {
        if self.receiving == Some(from) {
            self.receiving = None;
        }
    }
}
