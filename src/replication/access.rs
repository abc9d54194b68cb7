//! What the engine asks the core between steps. Nothing here changes a decision.

use crate::replication::config::Config;
use crate::replication::epochs::EpochTable;
use crate::replication::fence::Fence;
use crate::replication::io::ReadTicket;
use crate::replication::meta::Meta;
use crate::replication::past::{Contained, contained, shared_through};
use crate::replication::replica::{Replica, Role};
use crate::replication::settings::Settings;
use crate::replication::time::Time;
use crate::replication::view::Refusal;
use standfast_wal::{Epoch, History, Incarnation, Link, Lsn, NodeId, Nonce, Record};
use std::collections::BTreeSet;

impl Replica {
    /// May a command be ordered now? O(members). Of commands that got an LSN nothing definite is
    /// ever said by this.
    pub fn admit(&self) -> Result<(), Refusal> {
        match &self.role {
            Role::Primary(primary) => primary.admit(&self.node),
            _ => Err(self.not_primary()),
        }
    }

    /// A linearizable read comes in. Follow up with `Input::TurnEnd` in the same turn.
    pub fn read(&mut self, now: Time) -> Result<ReadTicket, Refusal> {
        self.node.now = self.node.now.max(now);
        match &mut self.role {
            Role::Primary(primary) => primary.read(&self.node),
            _ => Err(self.not_primary()),
        }
    }

    /// Whether what stands at `lsn` in the history and epoch of `seen` is in the history here.
    pub fn contains(&self, seen: Fence, lsn: Lsn) -> Contained {
        contained(self.node.config(), &self.node.log.epochs, seen, lsn)
    }

    fn not_primary(&self) -> Refusal {
        match &self.role {
            Role::Candidate(_) | Role::Forcing(_) => Refusal::Starting,
            _ => Refusal::NotPrimary {
                primary: self.primary().filter(|id| *id != self.node.me),
            },
        }
    }

    /// Rounds up to this are confirmed: read tickets up to it may be answered.
    pub fn confirmed(&self) -> u64 {
        match &self.role {
            Role::Primary(primary) => primary.reads.confirmed,
            _ => 0,
        }
    }

    /// A stale read: everything acknowledged before the returned moment of this node's clock is in
    /// the log up to the returned LSN. `None`: nothing is known. On a primary it is the last moment
    /// until which it was certainly the only one: what it has acknowledged itself it has applied,
    /// and what others had before stands below its EpochStart.
    pub fn freshness(&self) -> Option<(Lsn, Time)> {
        match &self.role {
            // Beyond what both share, an ended history's state is no past of this one.
            Role::Backup(backup) if self.has_own_log() => backup.following.as_ref()?.fresh,
            Role::Primary(primary) if primary.serving => {
                let start = self.node.log.epochs.last()?.first_lsn;
                primary.reads.shown.map(|at| (start, at))
            }
            _ => None,
        }
    }

    /// What the next proposed record must follow.
    pub fn tip(&self) -> Link {
        self.node.log.tip()
    }

    /// The epoch to build records with, on the primary; the fence's elsewhere.
    pub fn epoch(&self) -> Epoch {
        self.node.epoch()
    }

    /// The fence: everything below is refused here.
    pub fn fence(&self) -> Fence {
        self.node.meta.fence
    }

    /// Whether this node's log, and so its state, is of the history that it follows: not yet where
    /// it has been taken into a newer one and has nothing of that.
    pub fn has_own_log(&self) -> bool {
        self.shared_through() == Lsn(u64::MAX)
    }

    /// Up to where it is: what lies above goes.
    pub fn shared_through(&self) -> Lsn {
        shared_through(self.node.config(), &self.node.log.epochs)
    }

    pub fn history(&self) -> History {
        self.node.history()
    }

    pub fn commit(&self) -> Lsn {
        self.node.log.commit
    }

    /// The highest commit LSN of the history that is followed that this node has heard of.
    pub fn known_commit(&self) -> Lsn {
        self.node.known_commit()
    }

    pub fn durable(&self) -> Lsn {
        self.node.log.durable
    }

    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Primary, and its EpochStart is committed.
    pub fn is_serving(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.serving)
    }

    /// The attempt at promotion that is under way here.
    pub fn attempt(&self) -> Option<Nonce> {
        match &self.role {
            Role::Candidate(candidate) => Some(candidate.attempt),
            _ => None,
        }
    }

    /// On the primary: whose acknowledgements commits wait for now.
    pub fn awaited(&self) -> BTreeSet<NodeId> {
        let primary = match &self.role {
            Role::Primary(primary) => Some(primary),
            _ => None,
        };
        let rules = primary.into_iter().flat_map(|primary| primary.rules());
        rules.flat_map(|rule| &rule.set).copied().collect()
    }

    /// On the primary: the Config that it has proposed, until it knows what became of that.
    pub fn proposed(&self) -> Option<&Config> {
        match &self.role {
            Role::Primary(primary) => primary.change.as_ref().map(|change| &**change.proposed()),
            _ => None,
        }
    }

    /// On the primary: whom it is about to leave out of the sync set as lost though it is back.
    pub fn leaves_out_in_vain(&self) -> Option<NodeId> {
        match &self.role {
            Role::Primary(primary) => primary.leaves_out_in_vain(&self.node),
            _ => None,
        }
    }

    /// On the primary: who is to come into the sync set next.
    pub fn joining(&self) -> Option<NodeId> {
        match &self.role {
            Role::Primary(primary) => primary.joining.as_ref().map(|joining| joining.id),
            _ => None,
        }
    }

    /// A change of the Config is under way, or a member is joining.
    pub fn is_changing(&self) -> bool {
        matches!(&self.role, Role::Primary(primary)
            if primary.change.is_some() || primary.joining.is_some())
    }

    /// On the primary: who gets nothing before what was to be read from the log is there.
    pub fn reads_for(&self) -> impl Iterator<Item = NodeId> + '_ {
        let primary = match &self.role {
            Role::Primary(primary) => Some(primary),
            _ => None,
        };
        let peers = primary.into_iter().flat_map(|primary| &primary.peers);
        peers
            .filter(|(_, peer)| peer.is_read_for())
            .map(|(id, _)| *id)
    }

    /// The Config does not name this process: it counts for nothing.
    pub fn is_stranger(&self) -> bool {
        !self.node.is_member()
    }

    /// The newest Config known to be chosen.
    pub fn config(&self) -> &Config {
        self.node.config()
    }

    /// Newest edit of the durable state; what is on disk may be older.
    pub fn meta(&self) -> &Meta {
        &self.node.meta
    }

    pub fn epochs(&self) -> &EpochTable {
        &self.node.log.epochs
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.node.settings
    }

    /// Who is primary, as far as this node knows; itself only while it acts as one.
    pub fn primary(&self) -> Option<NodeId> {
        let node = &self.node;
        match &self.role {
            Role::Primary(_) => Some(node.me),
            Role::Backup(backup) => match &backup.following {
                Some(following) if !node.has_lost_primary() => Some(following.primary),
                None if !node.has_lost_primary() => {
                    Some(node.config().primary).filter(|id| *id != node.me)
                }
                _ => None,
            },
            Role::Candidate(_) | Role::Forcing(_) => None,
        }
    }

    /// The records that end after `after`, from memory; `None`: read them from the log.
    pub fn records_after(&self, after: Lsn) -> Option<impl Iterator<Item = &Record>> {
        self.node.log.tail.after(after)
    }

    /// The first LSN that this node's log still has.
    pub fn first_lsn(&self) -> Lsn {
        self.node.log.first_lsn
    }

    /// Through here every data member holds the log durably, as far as the primary knows; `None`
    /// on any other node, which does not know.
    pub fn held_by_all(&self) -> Option<Lsn> {
        match &self.role {
            Role::Primary(primary) => Some(primary.held_by_all(&self.node)),
            _ => None,
        }
    }

    /// On the primary: how far it counts each peer's disk in this epoch.
    pub fn positions(&self) -> impl Iterator<Item = (NodeId, Incarnation, Lsn)> + '_ {
        let primary = match &self.role {
            Role::Primary(primary) => Some(primary),
            _ => None,
        };
        let peers = primary.into_iter().flat_map(|primary| &primary.peers);
        peers.map(|(id, peer)| (*id, peer.incarnation, peer.matched))
    }

    /// How many data nodes hold `lsn` durably, as far as the primary knows, itself included.
    pub fn copies(&self, lsn: Lsn) -> u32 {
        match &self.role {
            Role::Primary(primary) => primary.copies(&self.node, lsn),
            _ => u32::from(self.node.log.durable >= lsn),
        }
    }

    /// The median of the wall clocks of this node and its peers; `None` before `WallClock`.
    pub fn clock_median(&self) -> Option<u64> {
        self.node.clock_median()
    }
}
