//! Who is in the sync set: taking out what is lost, putting back what has caught up.
//!
//! The change rule (commit.rs) decides what may be proposed; here it is decided what is wanted.
//! One change at a time. From the proposal until the register has answered, and from the moment a
//! member is joining, everything must satisfy the old and the new rule (`Primary::rules`).

use crate::replication::commit::{self, Rule};
use crate::replication::config::{Config, MemberRole, Protection};
use crate::replication::message::Body;
use crate::replication::node::Node;
use crate::replication::peer::Progress;
use crate::replication::primary::{Primary, rule_of};
use crate::replication::register::{Outcome, Request, Ticket, Value, Voter, Voters};
use crate::replication::time::Time;
use standfast_wal::{Lsn, Mark, NodeId};
use std::collections::BTreeSet;

/// A change that the register has not answered yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Change {
    pub ticket: Ticket,
    pub rule: Rule,
    next: Value,
    /// Members taken out because writes waited for them in vain.
    lost: BTreeSet<NodeId>,
    /// Those of them that did not only refuse: they are held down.
    timed_out: BTreeSet<NodeId>,
}

impl Change {
    pub fn proposed(&self) -> &Value {
        &self.next
    }
}

/// A member on its way into the sync set: commits need it already.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Joining {
    pub id: NodeId,
    /// The rule that is to be proposed.
    pub rule: Rule,
    since: Time,
}

impl Primary {
    /// Looks at everything that may be changed and begins the first change that is due and may be.
    pub fn plan(&mut self, node: &mut Node) {
        if node.next.is_some() {
            return;
        }
        self.drop_joining_if_hopeless(node);
        self.drop_joining_if_lost_are_back(node);
        if self.change.is_some() || self.is_handing_over() {
            return self.mind_handover(node);
        }
        if self.evict(node) || self.shrink_to_itself(node) {
            return;
        }
        if self.joining.is_none() {
            if self.follow_orders(node) {
                return;
            }
            self.choose_joining(node);
        }
        self.admit_joining(node);
        self.mind_handover(node);
    }

    /// Whether this member of the sync set is gone, as far as the primary can know.
    pub fn is_lost(&self, node: &Node, id: NodeId) -> bool {
        let Some(peer) = self.peers.get(&id) else {
            return true;
        };
        // Shortly after a start a port that refuses may be one that has yet to open.
        let settled = node.now.since(node.started) >= node.settings.failover_timeout;
        let timeout = node.settings.sync_timeout;
        peer.disowned
            || (node.refused(id) && settled)
            || peer.silent(node.now) >= timeout
            || self.is_late(node, id)
    }

    /// Whether writes have waited for it for too long.
    fn is_late(&self, node: &Node, id: NodeId) -> bool {
        let waited = self.peers.get(&id).and_then(|peer| peer.waiting(node.now));
        waited.is_some_and(|waited| waited >= node.settings.sync_timeout)
    }

    /// The members of the sync set that writes wait for in vain.
    fn lost_members(&self, node: &Node) -> BTreeSet<NodeId> {
        let waits = |id: &NodeId| {
            let peer = self.peers.get(id);
            peer.is_none_or(|peer| peer.disowned || peer.waiting(node.now).is_some())
        };
        let set = self.rule.set.iter().copied().filter(|id| *id != node.me);
        set.filter(|id| self.is_lost(node, *id) && waits(id))
            .collect()
    }

    fn rule_for(&self, node: &Node, set: BTreeSet<NodeId>) -> Rule {
        let config = node.config();
        Rule {
            needed: config.acks.needed(config.protection, set.len()),
            set,
        }
    }

    /// Takes out what is lost. True when that is under way.
    fn evict(&mut self, node: &mut Node) -> bool {
        let lost = self.lost_members(node);
        if lost.is_empty() {
            return false;
        }
        let set: BTreeSet<NodeId> = self.rule.set.difference(&lost).copied().collect();
        // In max-protection a set of one would commit nothing: rather wait for the lost one.
        if node.config().protection == Protection::MaxProtection && set.len() < 2 {
            return false;
        }
        self.joining = None;
        Mark::MemberEvicted.hit();
        let rule = self.rule_for(node, set);
        self.propose_set(node, rule, lost)
    }

    /// In max-performance the set is the primary alone, but while a switchover is prepared.
    fn shrink_to_itself(&mut self, node: &mut Node) -> bool {
        let alone = self.rule.set.len() == 1;
        if node.config().protection != Protection::MaxPerformance
            || alone
            || self.handover.is_some()
        {
            return false;
        }
        let rule = self.rule_for(node, BTreeSet::from([node.me]));
        self.propose_set(node, rule, BTreeSet::new())
    }

    /// Takes one member out by an operator's will, or to give its place to a new incarnation. Where
    /// the rule forbids that for one alone, all go with it whose disks are new: what is left then
    /// holds all there is, and in max-protection may commit nothing until another has joined.
    pub fn evict_by_order(&mut self, node: &mut Node, id: NodeId) -> bool {
        let one = BTreeSet::from([id]);
        let together = &one | &self.replaced(node);
        self.take_out(node, &one) || together.len() > 1 && self.take_out(node, &together)
    }

    fn take_out(&mut self, node: &mut Node, ids: &BTreeSet<NodeId>) -> bool {
        let set = self.rule.set.difference(ids).copied().collect();
        let rule = self.rule_for(node, set);
        self.propose_set(node, rule, BTreeSet::new())
    }

    fn propose_set(&mut self, node: &mut Node, rule: Rule, lost: BTreeSet<NodeId>) -> bool {
        let mut next = Config::clone(node.config());
        next.sync_set = rule.set;
        next.acks_needed = rule.needed;
        self.propose(node, next, lost)
    }

    /// Proposes this Config if the change rule allows it. True when it is under way.
    pub fn propose(&mut self, node: &mut Node, mut next: Config, lost: BTreeSet<NodeId>) -> bool {
        assert!(
            self.change.is_none() && next.epoch == self.reign.epoch && next.primary == node.me,
            "I1: a second change in {}, or one of another epoch: {next:?}",
            self.reign
        );
        let rule = rule_of(&next);
        if !rule.set.contains(&node.me) || !self.may_change(node, &next) {
            Mark::ChangeForbidden.hit();
            return false;
        }
        let Some(nonce) = node.draw() else {
            return false;
        };
        next.version += 1;
        next.nonce = nonce;
        // A joining member is proposed or dropped before anything else is proposed.
        if self
            .joining
            .as_ref()
            .is_some_and(|joining| joining.rule != rule)
        {
            self.joining = None;
        }
        let expected = node.meta.config.clone();
        let next = Value::new(next);
        let request = Request::CompareAndSet {
            expected,
            next: next.clone(),
        };
        let Some(ticket) = node.submit(request) else {
            return false;
        };
        self.joining = None;
        Mark::ChangeProposed.hit();
        let all_lost = lost.iter().copied();
        let timed_out = all_lost.filter(|id| !node.refused(*id)).collect();
        self.change = Some(Change {
            ticket,
            rule,
            next,
            lost,
            timed_out,
        });
        true
    }

    /// Whether the change rule allows this. What a member had acknowledged counts no longer when
    /// its node asks to be taken in with another disk, nor while it is silent: it may have lost
    /// what it had, and one that is to be left out may be the last that holds it.
    fn may_change(&self, node: &Node, next: &Config) -> bool {
        let replaced = self.replaced(node);
        let held = |id| match !replaced.contains(&id) && self.hears(node, id) {
            true => self.matched_of(node, id),
            false => Lsn::ZERO,
        };
        commit::may_change(self.floor(node), held, &rule_of(next)) && self.may_decide(node, next)
    }

    /// Once other voters are offered nothing else can be chosen without a majority of them. That
    /// they promised says nothing of their disks since: those who vote already are heard as well.
    fn may_decide(&self, node: &Node, next: &Config) -> bool {
        let (now, then) = (Voters::of(node.config()), Voters::of(next));
        let (Some(now), Some(then)) = (now, then) else {
            return true; // The register refuses it.
        };
        let hears = |voter: Voter| !now.contains(voter) || self.hears(node, voter.node);
        now == then || then.majority(hears)
    }

    /// A proposal may wait long for the voters to be there. It is not made when members that it
    /// counts on, or voters, have fallen silent by then, or have lost their disks; nor when one is
    /// back that it takes out as lost, for that may be the one that holds what others have lost.
    pub fn revoke_if_forbidden(&mut self, node: &mut Node) {
        let is_back = |change: &Change| change.lost.iter().any(|id| !self.is_lost(node, *id));
        let forbidden = |change: &&Change| is_back(change) || !self.may_change(node, &change.next);
        let Some(ticket) = self.change.as_ref().filter(forbidden).map(|c| c.ticket) else {
            return;
        };
        if node.revoke(ticket) {
            Mark::ChangeRevoked.hit();
            self.change = None;
            node.event("a change is not made: what it counted on has changed".into());
            self.advance(node);
        }
    }

    /// Whom the change under way leaves out as lost though it is back, while it could still be
    /// revoked.
    pub fn leaves_out_in_vain(&self, node: &Node) -> Option<NodeId> {
        let change = self.change.as_ref()?;
        let mut lost = change.lost.iter().copied();
        let is_back = lost.find(|id| !self.is_lost(node, *id));
        is_back.filter(|_| node.is_revocable(change.ticket))
    }

    pub fn on_change_ended(&mut self, node: &mut Node, outcome: Outcome) {
        let change = self.change.take().expect("dispatched by its ticket");
        match outcome {
            Outcome::Chosen(value) if value.epoch == self.reign.epoch => {
                node.learn(value.clone());
                self.adopt(node, &value, &change);
            }
            // Nothing was offered to any voter: it is as if it had never been proposed.
            Outcome::Unready(value) if value == *node.config_value() => {
                Mark::ChangeUnready.hit();
                node.event("the voters that a change needs do not answer".into());
                self.on_change_unready(node);
            }
            Outcome::Chosen(value)
            | Outcome::Unready(value)
            | Outcome::Lost(value)
            | Outcome::Overtaken(value)
            | Outcome::Current(value) => {
                // Between promotions only the primary writes: so there was a promotion.
                node.learn(value);
                self.note_successor(node);
            }
        }
    }

    /// The change is known to be chosen: from now on only its rule holds.
    fn adopt(&mut self, node: &mut Node, value: &Value, change: &Change) {
        let before = std::mem::replace(&mut self.rule, change.rule.clone());
        assert_eq!(
            self.rule,
            rule_of(value),
            "I1: another rule was chosen than was proposed"
        );
        for id in &change.timed_out {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.hold_down(node);
            }
        }
        let (end, now) = (node.end(), node.now);
        for id in self.rule.set.difference(&before.set) {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.restart_waiting(end, now);
            }
        }
        if self.rule != before {
            let set: Vec<String> = self.rule.set.iter().map(|id| format!("n{id}")).collect();
            let needed = self.rule.needed;
            node.event(format!(
                "sync set is {{{}}}, {needed} needed",
                set.join(",")
            ));
        }
        self.meet_members(node);
        node.send_to_members(&Body::Configured {
            config: value.clone(),
        });
        self.advance(node);
        self.plan(node);
    }

    // Joining

    /// A member that could come in: it holds data, is there, and has nearly all of the log.
    fn may_join(&self, node: &Node, id: NodeId) -> bool {
        let Some(peer) = self.peers.get(&id) else {
            return false;
        };
        let lag = node.log.tail.bytes_between(peer.matched, node.log.commit);
        let near = peer.matched >= node.log.tail.base().position.lsn || lag == 0;
        node.up(id)
            && !peer.disowned
            && !self.rule.set.contains(&id)
            && matches!(peer.progress, Progress::Stream { .. })
            && peer.silent(node.now) < node.settings.failover_timeout
            && (peer.matched >= node.log.commit || (near && lag <= node.settings.join_bytes))
    }

    fn choose_joining(&mut self, node: &mut Node) {
        let protection = node.config().protection;
        // A takeover is not held up for the sake of another copy, unless nothing goes without it.
        if !self.serving && protection != Protection::MaxProtection {
            return;
        }
        let wanted = self.handover_candidate();
        let by_itself = protection != Protection::MaxPerformance;
        let may = |id: &NodeId| {
            let peer = &self.peers[id];
            let itself = by_itself
                && peer.role == MemberRole::Data
                && !peer.is_held_down(node.now)
                && !self.is_leaving(*id);
            self.may_join(node, *id) && (wanted == Some(*id) || itself)
        };
        let preference = |id: &NodeId| {
            let member = node.config().members.get(id);
            (
                wanted != Some(*id),
                member.map(|member| member.priority),
                *id,
            )
        };
        let Some(id) = self
            .peers
            .keys()
            .copied()
            .filter(may)
            .min_by_key(preference)
        else {
            return;
        };
        // What is lost and cannot be taken out alone (max-protection) goes in the same change.
        let lost = self.lost_members(node);
        let mut set: BTreeSet<NodeId> = self.rule.set.difference(&lost).copied().collect();
        set.insert(id);
        let rule = self.rule_for(node, set);
        self.joining = Some(Joining {
            id,
            rule,
            since: node.now,
        });
        let (end, now) = (node.end(), node.now);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.restart_waiting(end, now);
        }
        self.pump(node, id);
    }

    /// It holds up commits, so its time is bounded; and one that is gone holds them up for nothing.
    fn drop_joining_if_hopeless(&mut self, node: &mut Node) {
        let Some(joining) = &self.joining else { return };
        let id = joining.id;
        let late = node.now.since(joining.since) >= node.settings.join_timeout;
        if late || !node.up(id) || self.is_lost(node, id) {
            Mark::JoiningDropped.hit();
            self.joining = None;
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.hold_down(node);
            }
            node.event(format!(
                "n{id} did not catch up in time to join the sync set"
            ));
            self.advance(node);
        }
    }

    /// Whoever goes in the same change goes because it is lost; one that is back stays.
    fn drop_joining_if_lost_are_back(&mut self, node: &mut Node) {
        let Some(joining) = &self.joining else { return };
        let mut going = self.rule.set.difference(&joining.rule.set);
        if going.any(|id| !self.is_lost(node, *id)) {
            self.joining = None;
            self.advance(node);
        }
    }

    fn admit_joining(&mut self, node: &mut Node) {
        let Some(joining) = &self.joining else { return };
        let (id, rule) = (joining.id, joining.rule.clone());
        if self.matched_of(node, id) >= self.floor(node) {
            Mark::JoiningAdmitted.hit();
            let lost = self.rule.set.difference(&rule.set).copied().collect();
            self.propose_set(node, rule, lost);
        }
    }

    /// This member has come forward: a plan that waits for it may go on.
    pub fn note_caught_up(&mut self, node: &mut Node, id: NodeId) {
        let joins = self
            .joining
            .as_ref()
            .is_some_and(|joining| joining.id == id);
        // Before the epoch is committed every member counts for the floor.
        let starting = !self.serving && self.matched_of(node, id) > Lsn::ZERO;
        let wanted = self.handover_candidate() == Some(id);
        if joins || starting || wanted {
            self.plan(node);
        }
    }
}
