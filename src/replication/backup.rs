//! What a node that is not primary takes, cuts and answers; synchronous, asynchronous, witness.
//!
//! Owns the relation to one primary of one epoch. Keeps: records are compared one by one and the
//! tail is cut only at the first that differs; only what is durable and verified against this very
//! epoch's primary is acknowledged; commit = min(commit received, matched in this epoch).

use crate::replication::config::MemberRole;
use crate::replication::epochs::EpochTable;
use crate::replication::fence::Fence;
use crate::replication::io::Effect;
use crate::replication::message::{Beat, Body};
use crate::replication::node::Node;
use crate::replication::replica::Next;
use crate::replication::time::Time;
use standfast_wal::{Link, Lsn, Mark, NodeId, Record};
use std::time::Duration;

/// Where this node stands to the primary of one epoch. Gone with the process, by design: after a
/// restart or an install nothing counts as matched until the primary has compared again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Following {
    pub primary: NodeId,
    pub reign: Fence,
    /// The primary's reigns, its own the last.
    pub(super) epochs: EpochTable,
    /// Equal to the primary's log up to here, durable or not.
    pub verified: Lsn,
    /// The primary's end when it described its log: what is suspect here is cleared by it.
    target: Lsn,
    /// The round of that description; older ones are late.
    described: u64,
    /// The highest round seen: what an answer confirms.
    round: u64,
    received_commit: Lsn,
    acknowledged: Lsn,
    /// Nothing acknowledged before this moment of the own clock lies above this LSN.
    pub fresh: Option<(Lsn, Time)>,
}

impl Following {
    fn matched(&self, node: &Node) -> Lsn {
        self.verified.min(node.log.durable)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Backup {
    pub following: Option<Following>,
    /// It does not stand as candidate before this.
    patience: Time,
    /// When it will stand, once the primary is lost.
    stand_at: Option<Time>,
    /// When a node that lacks something asks for it again.
    call_at: Time,
    /// The peer whose snapshot is on its way.
    pub(super) receiving: Option<NodeId>,
}

/// What is asked for by nodes that are not served yet is asked for this often.
const CALL_INTERVAL: Duration = Duration::from_millis(200);

impl Backup {
    pub fn new(node: &Node, patience: Duration) -> Backup {
        Backup {
            following: None,
            patience: node.now.after(patience),
            stand_at: None,
            call_at: node.now,
            receiving: None,
        }
    }

    // From the primary

    /// Everything a primary of `reign` says comes through here first. The caller has checked that
    /// the reign is not below the fence.
    fn enter(&mut self, node: &mut Node, from: NodeId, reign: Fence) {
        if let Some(following) = self.following.as_ref().filter(|f| f.reign == reign) {
            assert_eq!(following.primary, from, "I3: two primaries in {reign}");
        } else {
            node.raise_fence(reign);
            self.following = None;
        }
        self.stand_at = None;
    }

    pub fn on_follow(
        &mut self,
        node: &mut Node,
        from: NodeId,
        reign: Fence,
        round: u64,
        tip: Lsn,
        epochs: EpochTable,
    ) {
        self.enter(node, from, reign);
        node.sign_of_life();
        // What was said before anything else that was heard describes a log that has grown since.
        let following = self.following.as_ref();
        let late = following.is_some_and(|f| f.described >= round || f.round > round);
        if late || node.log.installing() || !node.role().holds_data() {
            Mark::LateDescription.hit();
            return;
        }
        if epochs.last().map(|entry| entry.fence()) != Some(reign) {
            return node.event(format!(
                "n{from} described {reign} by a table that lacks it"
            ));
        }
        let agreed = node.log.epochs.agreed(node.end(), &epochs, tip);
        let mut rebuild = false;
        if agreed < node.log.commit {
            let at_commit = node.log.epochs.at(node.log.commit);
            rebuild = at_commit.map(|entry| entry.history) != Some(reign.history);
            if !rebuild && agreed == tip {
                return; // A late description: that log is a first part of this one.
            }
            if !rebuild {
                // I1: a primary without what is committed must not exist.
                let commit = node.log.commit;
                return node.halt(format!(
                    "I1: n{from}, primary of {reign}, agrees only up to {agreed}, but {commit} is \
                     committed here; keep both data directories and ask for help"
                ));
            }
        }
        say_if_nothing_is_lost(node, agreed, reign);
        let kept = self.following.take();
        let commit = kept.as_ref().map_or(Lsn::ZERO, |f| f.received_commit);
        let following = Following {
            primary: from,
            reign,
            epochs,
            verified: agreed,
            target: tip,
            described: round,
            round: kept.as_ref().map_or(round, |f| f.round.max(round)),
            received_commit: commit,
            acknowledged: Lsn::ZERO,
            fresh: kept.and_then(|f| f.fresh),
        };
        let matched = following.matched(node);
        self.following = Some(following);
        let suspect = node.meta.suspect;
        let (epoch, agreed) = (reign.epoch, matched);
        let body = Body::Followed {
            epoch,
            round,
            agreed,
            suspect,
            rebuild,
        };
        node.send_when_durable(from, body);
        self.note_matched(node);
    }

    pub fn on_append(
        &mut self,
        node: &mut Node,
        from: NodeId,
        reign: Fence,
        (round, commit): (u64, Lsn),
        previous: Link,
        records: Vec<Record>,
    ) {
        self.enter(node, from, reign);
        node.sign_of_life();
        if node.log.installing() {
            return;
        }
        let Some(following) = &mut self.following else {
            return self.answer_heard(node, from, reign, round);
        };
        following.round = following.round.max(round);
        following.received_commit = following.received_commit.max(commit);
        let before = node.end();
        match Self::take_records(node, following, previous, records) {
            Ok(true) => {}
            // Something before it was lost: the answer says from where to send again.
            Ok(false) => {
                Mark::GapInAppend.hit();
                return self.answer_heard(node, from, reign, round);
            }
            Err(story) => return node.halt(story),
        }
        self.note_matched(node);
        // Nothing new to sync, so no Durable will answer it.
        if node.end() == before && node.log.is_all_durable() {
            self.acknowledge(node);
        }
    }

    /// Takes records that lie right behind what is verified. False when there is a gap before
    /// them, or an earlier cut is still under way.
    fn take_records(
        node: &mut Node,
        following: &mut Following,
        mut previous: Link,
        records: Vec<Record>,
    ) -> Result<bool, String> {
        for record in records {
            let (first, last) = (record.first_lsn(), record.last_lsn());
            if record.follows(previous).is_err() {
                return Err(format!(
                    "{record:?} was sent as if it followed {previous:?}"
                ));
            }
            let link = record.link();
            if last <= following.verified {
                // Older or doubled: cuts nothing, whatever it says.
                previous = link;
                continue;
            }
            if first > following.verified.next() {
                return Ok(false);
            }
            if first <= following.verified {
                return Err(format!(
                    "{record:?} straddles {}, one writer?",
                    following.verified
                ));
            }
            if first <= node.end() {
                let own = node.log.epochs.at(first);
                let theirs = following.epochs.at(first);
                if own.map(|entry| (entry.fence(), entry.nonce))
                    == theirs.map(|entry| (entry.fence(), entry.nonce))
                {
                    Self::check_same(node, &record)?;
                    following.verified = last;
                    previous = link;
                    continue;
                }
                // This is the first record that differs.
                if !node.log.settled() {
                    return Ok(false);
                }
                node.log.cut(previous, following.reign, &mut node.out);
            }
            node.log.append(record, &mut node.out)?;
            following.verified = last;
            previous = link;
        }
        Ok(true)
    }

    /// One writer per epoch: the same (history, epoch, LSN) is the same record, to the last bit.
    fn check_same(node: &Node, record: &Record) -> Result<(), String> {
        let last = record.last_lsn();
        if last > node.end() {
            return Err(format!("{record:?} ends beyond this log of the same epoch"));
        }
        match node.log.tail.link_at(last) {
            Some(own) if own != record.link() => Err(format!(
                "{record:?} has another chain here: {own:?}; the log is damaged"
            )),
            _ => Ok(()),
        }
    }

    pub fn on_heartbeat(&mut self, node: &mut Node, from: NodeId, reign: Fence, beat: Beat) {
        self.enter(node, from, reign);
        if !beat.quiet {
            node.sign_of_life();
        }
        node.on_wall_sample(from, beat.wall);
        node.heard_commit = node.heard_commit.max(beat.commit);
        if let Some(following) = &mut self.following {
            following.round = following.round.max(beat.round);
            following.received_commit = following.received_commit.max(beat.commit);
            let fresh = beat.echo.map(|echo| (beat.commit, Time(echo)));
            // A later echo is never worse; a late message must not take it back.
            if fresh.map(|(_, at)| at) > following.fresh.map(|(_, at)| at) {
                following.fresh = fresh;
            }
        }
        self.note_matched(node);
        if beat.version > node.config().version {
            let version = node.config().version;
            node.send(from, Body::AskConfig { version });
        }
        self.answer_heard(node, from, reign, beat.round);
    }

    fn answer_heard(&self, node: &mut Node, from: NodeId, reign: Fence, round: u64) {
        let (matched, verified) = match &self.following {
            Some(following) => (following.matched(node), Some(following.verified)),
            None => (Lsn::ZERO, None),
        };
        let body = Body::Heard {
            epoch: reign.epoch,
            round,
            matched,
            verified,
            stamp: node.now.0,
            wall: node.wall_now().unwrap_or(0),
        };
        node.send_when_durable(from, body);
    }

    // Durability and acknowledgement

    /// The log's durable end has moved.
    pub fn on_durable(&mut self, node: &mut Node) {
        self.note_matched(node);
        let ready = |f: &Following| f.matched(node) > f.acknowledged;
        if self.following.as_ref().is_some_and(ready) {
            self.acknowledge(node);
        }
    }

    fn acknowledge(&mut self, node: &mut Node) {
        let Some(following) = &mut self.following else {
            return;
        };
        let matched = following.matched(node);
        // I1: only what is durable here and verified in this epoch is ever acknowledged, and only
        // while the fence is still this epoch's.
        assert!(
            matched <= node.log.durable && following.reign == node.meta.fence,
            "I1: {matched} acknowledged to {} with durable {} and fence {}",
            following.reign,
            node.log.durable,
            node.meta.fence
        );
        following.acknowledged = matched;
        let (epoch, round) = (following.reign.epoch, following.round);
        let to = following.primary;
        node.send_when_durable(
            to,
            Body::Acked {
                epoch,
                round,
                matched,
            },
        );
    }

    /// What follows from a higher matched LSN or a higher commit LSN received.
    fn note_matched(&mut self, node: &mut Node) {
        let Some(following) = &self.following else {
            return;
        };
        let matched = following.matched(node);
        if node.meta.suspect && matched >= following.target {
            Mark::SuspicionEnded.hit();
            node.edit(|meta| meta.suspect = false);
            node.event("the log is verified against the primary: it counts again".into());
        }
        let commit = following.received_commit.min(matched);
        node.log.set_commit(commit, &mut node.out);
    }

    // Switchover

    /// The primary has stopped admitting and this log has it all: take over.
    pub fn on_hand_over(&mut self, node: &mut Node, from: NodeId, reign: Fence, tip: Lsn) {
        let ready = self.following.as_ref().is_some_and(|following| {
            following.primary == from && following.reign == reign && following.matched(node) >= tip
        });
        if ready && node.config().sync_set.contains(&node.me) {
            node.next = Some(Next::Candidate { asked: false });
        }
    }

    pub fn on_disown(&mut self, node: &mut Node, from: NodeId, acknowledged: Lsn) {
        let following = self.following.as_ref();
        if following.is_some_and(|f| f.primary == from) && node.log.durable < acknowledged {
            let durable = node.log.durable;
            node.halt(format!(
                "this data directory was rolled back: it acknowledged {acknowledged} in this epoch \
                 and ends at {durable}; move it away and start with an empty one"
            ));
        }
    }

    // Standing as candidate

    /// What time alone brings about.
    pub fn on_tick(&mut self, node: &mut Node) {
        if node.is_outdated() || !node.is_member() {
            return self.call(node);
        }
        // The registered primary that is not acting, after a restart, stands without being asked.
        let registered = node.config().primary == node.me && self.following.is_none();
        if !registered && !node.has_lost_primary() {
            self.stand_at = None;
            return;
        }
        self.call(node);
        if node.role() == MemberRole::Witness || node.log.installing() {
            return;
        }
        let stand_at = *self.stand_at.get_or_insert_with(|| {
            let delay = standing_delay(node, registered);
            node.now.after(delay).max(self.patience)
        });
        if node.now >= stand_at {
            node.next = Some(Next::Candidate { asked: !registered });
        }
    }

    /// Asks again for what this node lacks to be of use: the newest Config, or to be taken in.
    fn call(&mut self, node: &mut Node) {
        if node.now < self.call_at {
            return;
        }
        self.call_at = node.now.after(CALL_INTERVAL);
        let version = node.config().version;
        if node.is_member() && !node.is_outdated() {
            node.rejoining = false;
        }
        let wants_in = node.rejoining || !node.is_member();
        let peers: Vec<NodeId> = node
            .wires
            .iter()
            .filter(|(_, wire)| wire.up.is_some())
            .map(|(id, _)| *id)
            .collect();
        for peer in peers {
            node.send(peer, Body::AskConfig { version });
            if wants_in {
                let own = node.introduction.clone();
                let body = Body::Join {
                    role: own.role,
                    voter: own.voter,
                    site: own.site,
                    priority: own.priority,
                    addresses: own.addresses,
                    asked: own.asked || node.rejoining,
                };
                node.send(peer, body);
            }
        }
    }

    pub fn deadline(&self, node: &Node) -> Option<Time> {
        if node.is_outdated() || !node.is_member() {
            return Some(self.call_at);
        }
        if let Some(stand_at) = self.stand_at {
            return Some(stand_at);
        }
        let registered = node.config().primary == node.me && self.following.is_none();
        if registered || node.has_lost_primary() {
            // A witness only waits, asking now and then.
            return Some(self.call_at);
        }
        Some(node.life.at.after(node.settings.failover_timeout))
    }
}

/// Candidates are staggered by priority: the preferred one goes at once.
fn standing_delay(node: &mut Node, registered: bool) -> Duration {
    let stagger = node.settings.stagger;
    if registered {
        return Duration::ZERO;
    }
    let config = node.config();
    if !config.sync_set.contains(&node.me) {
        // I5: it cannot be promoted; but its Config may be old, and the register knows.
        let most = node.settings.failover_timeout * 4;
        return most + node.draw_wait(most);
    }
    let rank_of = |id: &NodeId| config.members.get(id).map(|member| (member.priority, *id));
    let own = rank_of(&node.me);
    let better = config
        .sync_set
        .iter()
        .filter(|id| **id != config.primary && rank_of(id) < own);
    match u32::try_from(better.count()).unwrap_or(u32::MAX) {
        0 => Duration::ZERO,
        rank => stagger * rank + node.draw_wait(stagger / 2),
    }
}

/// Of a log that was brought from the history before: nothing of it goes.
fn say_if_nothing_is_lost(node: &mut Node, agreed: Lsn, reign: Fence) {
    let own = node.log.epochs.last().map(|last| last.history);
    let has_left = node.left.take().is_some_and(|left| Some(left) == own);
    // A log that lost its end cannot say that it had no more.
    if has_left && agreed == node.end() && !node.meta.suspect {
        let loss = node.log.loss(agreed, reign);
        node.out.push(Effect::NothingLost(loss));
    }
}
