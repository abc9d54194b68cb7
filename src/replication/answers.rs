//! What peers answer the primary: how far they are, what they have lost, whom else they obey.
//!
//! The caller has checked that an answer is of this very reign and from a named incarnation.

use crate::replication::fence::{Fence, Standing};
use crate::replication::message::Body;
use crate::replication::node::Node;
use crate::replication::peer::{Peer, Progress};
use crate::replication::primary::Primary;
use crate::replication::replica::Next;
use standfast_wal::{Lsn, NodeId};

impl Primary {
    /// The peer behind an answer in this epoch.
    fn peer(&mut self, node: &Node, id: NodeId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(&id)?;
        peer.heard_at = node.now;
        Some(peer)
    }

    pub fn on_acked(&mut self, node: &mut Node, from: NodeId, round: u64, matched: Lsn) {
        let end = node.end();
        if round > self.reads.round || matched > end {
            return node.event(format!("n{from} acknowledged {matched}, beyond {end}"));
        }
        let Some(peer) = self.peer(node, from) else {
            return;
        };
        peer.confirmed = peer.confirmed.max(round);
        peer.note_matched(matched, end, node.now);
        self.advance(node);
        self.pump(node, from);
        self.note_caught_up(node, from);
        self.flush_reads(node);
    }

    pub fn on_heard(&mut self, node: &mut Node, from: NodeId, said: &Body) {
        let Body::Heard {
            round,
            matched,
            verified,
            stamp,
            wall,
            ..
        } = said
        else {
            unreachable!("dispatched by its kind");
        };
        node.on_wall_sample(from, *wall);
        let (end, sent_round) = (node.end(), self.reads.round);
        if *round > sent_round || *matched > end {
            return node.event(format!("n{from} heard {matched}, beyond {end}"));
        }
        let Some(peer) = self.peer(node, from) else {
            return;
        };
        peer.confirmed = peer.confirmed.max(*round);
        peer.note_matched(*matched, end, node.now);
        peer.note_stamp(*stamp, sent_round);
        if peer.notice_loss(*round, *verified) {
            self.probe(node, from);
        }
        self.advance(node);
        self.pump(node, from);
        self.note_caught_up(node, from);
        self.flush_reads(node);
    }

    pub fn on_followed(&mut self, node: &mut Node, from: NodeId, said: &Body) {
        let Body::Followed {
            round,
            agreed,
            suspect,
            rebuild,
            epoch,
        } = *said
        else {
            unreachable!("dispatched by its kind");
        };
        let end = node.end();
        let Some(peer) = self.peer(node, from) else {
            return;
        };
        let Progress::Probe {
            round: first,
            matched,
        } = peer.progress
        else {
            return;
        };
        if round < first || agreed > end {
            return;
        }
        // Compared with what it had acknowledged before it was asked: an acknowledgement may have
        // overtaken this answer.
        if agreed < matched && !suspect {
            // It acknowledged what it no longer has: a disk that was rolled back is a lost one.
            peer.disowned = true;
            peer.progress = Progress::Idle;
            node.event(format!(
                "n{from} acknowledged {matched}, but ends at {agreed}"
            ));
            let (acknowledged, found) = (matched, agreed);
            return node.send(
                from,
                Body::Disown {
                    epoch,
                    acknowledged,
                    found,
                },
            );
        }
        if agreed < matched {
            // It says so itself: it is no candidate and not counted until it is verified.
            peer.matched = agreed;
        }
        peer.note_matched(agreed, end, node.now);
        peer.start_stream(node, from, agreed, rebuild);
        self.advance(node);
        self.pump(node, from);
        self.note_caught_up(node, from);
    }

    /// Another fence stands above this epoch somewhere.
    pub fn on_refused(&mut self, node: &mut Node, from: NodeId, fence: Fence) {
        match self.reign.weigh(fence) {
            Standing::Below | Standing::Equal => {}
            Standing::Above if fence.history == self.reign.history => {
                node.event(format!(
                    "n{from} obeys {fence}: epoch {} is over",
                    self.reign.epoch
                ));
                let patience = node.draw_wait(node.settings.stagger);
                node.next = Some(Next::Backup { patience });
            }
            Standing::Above | Standing::Foreign => {
                let history = fence.history;
                if node.newer != Some((history, from)) {
                    node.newer = Some((history, from));
                    node.event(format!("n{from} lives in another history, {history}"));
                }
            }
        }
    }
}
