//! What the primary lets in: writes, reads; and when it must fall silent itself.

use crate::replication::commit::Rule;
use crate::replication::config::{MemberRole, Protection};
use crate::replication::io::ReadTicket;
use crate::replication::node::Node;
use crate::replication::orders::HandOver;
use crate::replication::peer::Peer;
use crate::replication::primary::Primary;
use crate::replication::register::Request;
use crate::replication::view::Refusal;
use standfast_wal::{Lsn, Mark, NodeId};

impl Primary {
    // Reads

    pub fn read(&mut self, node: &Node) -> Result<ReadTicket, Refusal> {
        if !self.serving {
            return Err(Refusal::Starting);
        }
        let after = node.log.commit;
        // Alone in every rule: its own durable fence is all the confirmation there can be.
        let alone = |rule: &Rule| rule.needed == 1 && rule.set.len() == 1;
        let round = if self.rules().all(alone) {
            self.reads.confirmed
        } else {
            self.reads.take(node.now)
        };
        Ok(ReadTicket { after, round })
    }

    /// Sends a round for the reads that no append of this turn has served.
    pub fn flush_reads(&mut self, node: &mut Node) {
        if self.reads.needs_round() {
            self.beat(node);
            self.advance(node);
        }
    }

    pub fn maybe_ask_voters(&mut self, node: &mut Node) {
        if !self
            .reads
            .is_overdue(node.now, node.settings.heartbeat_interval)
        {
            return;
        }
        // What is confirmed is every read up to here; later ones take a later round.
        let round = self.reads.next_round();
        if let Some(ticket) = node.submit(Request::Read) {
            self.reads.register = Some((ticket, round));
        }
    }

    // Falling silent

    /// The primary does not hear a majority of the voters, or its disk has stalled: it accepts no
    /// writes and must not keep its successors quiet.
    pub fn is_quiet(&self, node: &Node) -> bool {
        self.deaf || self.is_stalled(node)
    }

    pub fn is_stalled(&self, node: &Node) -> bool {
        let waited = |since| node.now.since(since) >= node.settings.degraded_timeout;
        node.disk_stalled || self.mark.is_some_and(|(_, since)| waited(since))
    }

    /// This member has answered lately.
    pub fn hears(&self, node: &Node, id: NodeId) -> bool {
        let timeout = node.settings.failover_timeout;
        let heard = |peer: &Peer| peer.silent(node.now) < timeout;
        id == node.me || self.peers.get(&id).is_some_and(heard)
    }

    pub fn listen(&mut self, node: &mut Node) {
        let deaf = !node.config().majority(|id| self.hears(node, id));
        if deaf != self.deaf {
            self.deaf = deaf;
            Mark::DeafPrimary.hit();
            node.event(match deaf {
                true => "no majority of the voters is heard: writes are refused".into(),
                false => "a majority of the voters is heard again".into(),
            });
        }
    }

    // Admission

    pub fn admit(&self, node: &Node) -> Result<(), Refusal> {
        if !self.serving {
            return Err(Refusal::Starting);
        }
        if let Some(to) = self.handover.as_ref().and_then(HandOver::draining) {
            return Err(Refusal::HandingOver { to });
        }
        if self.deaf {
            return Err(Refusal::Deaf);
        }
        if self.is_stalled(node) {
            Mark::DiskStalled.hit();
            return Err(Refusal::Stalled);
        }
        let config = node.config();
        if config.protection == Protection::MaxProtection && self.lacks_backups(node) {
            Mark::TooFewCopies.hit();
            return Err(Refusal::NoReplicas);
        }
        if self.is_over_budget(node) {
            Mark::LossBudgetUsed.hit();
            return Err(Refusal::LossBudget);
        }
        let waiting = node.log.tail.bytes_between(node.log.commit, node.end());
        if waiting > node.settings.uncommitted_bytes {
            Mark::Busy.hit();
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    fn lacks_backups(&self, node: &Node) -> bool {
        let there = |id: &&NodeId| **id == node.me || !self.is_lost(node, **id);
        self.rule.set.iter().filter(there).count() < self.rule.needed as usize
    }

    fn is_over_budget(&self, node: &Node) -> bool {
        if node.config().protection != Protection::MaxPerformance {
            return false;
        }
        let budget = &node.settings.loss_budget;
        let peers = || self.peers.values().filter(|peer| peer.role.holds_data());
        let Some(best) = peers().map(|peer| peer.matched).max() else {
            return false;
        };
        let end = node.end();
        let age = peers()
            .map(|peer| peer.waiting(node.now).unwrap_or_default())
            .min();
        budget
            .commands
            .is_some_and(|most| best.distance_to(end) > most)
            || budget
                .bytes
                .is_some_and(|most| node.log.tail.bytes_between(best, end) > most)
            || budget
                .age
                .is_some_and(|most| age.is_some_and(|age| age > most))
    }

    /// Through here every data member holds the log durably.
    pub fn held_by_all(&self, node: &Node) -> Lsn {
        let data = self
            .peers
            .values()
            .filter(|peer| peer.role != MemberRole::Witness);
        data.map(|peer| peer.matched)
            .chain([node.log.durable])
            .min()
            .unwrap_or_default()
    }

    /// How many data nodes hold this LSN durably.
    pub fn copies(&self, node: &Node, lsn: Lsn) -> u32 {
        let own = u32::from(node.log.durable >= lsn);
        let has = |peer: &&Peer| peer.role != MemberRole::Witness && peer.matched >= lsn;
        let others = self.peers.values().filter(has).count();
        own + u32::try_from(others).expect("members are few")
    }
}
