//! Snapshots on their way between nodes: offered, taken in piece by piece, installed.

use super::{Backup, CopyOutput, Incoming, Newest};
use crate::node::backup::What;
use crate::node::engine::{Engine, Output};
use crate::node::refusal::Refusal;
use crate::node::statement::{Made, Statement};
use crate::node::wire::{Head, Piece};
use crate::replication::{Input, Loss, SnapshotHead};
use crate::state::State;
use standfast_snapshot::{Header, SegmentRef};
use standfast_wal::scribe::Command;
use standfast_wal::{Lsn, Mark, NodeId, Record};

impl Engine {
    /// Offers a snapshot behind which this node's log goes on; takes one first if need be.
    pub(in crate::node) fn offer_snapshot(&mut self, to: NodeId, at_least: Lsn) {
        let first = self.replica.first_lsn();
        let usable = self.copies.newest.as_ref().filter(|newest| {
            newest.head.link.position.lsn.next() >= first
                && newest.head.link.position.lsn >= at_least
                && newest.head.history == self.replica.history()
        });
        match usable {
            Some(newest) => {
                let (head, total) = (newest.head.clone(), newest.bytes);
                self.copies.offered.insert(to, head.link.position.lsn);
                self.forget_verdict(to);
                self.send(to, Head::Copy(Piece::Offer { head, total }));
            }
            None => {
                self.copies.waiting.insert(to, at_least);
                if self.copies.job.is_none() {
                    self.copies.wanted = true;
                }
            }
        }
    }

    /// The connection to `peer` broke: whatever was being copied either way is void.
    pub(in crate::node) fn lost_link(&mut self, peer: NodeId) {
        self.desk.lost_link(peer, &mut self.pending);
        let was_waiting = self.copies.waiting.remove(&peer).is_some();
        if self.copies.offered.remove(&peer).is_some() || was_waiting {
            self.step(Input::SnapshotFailed { to: peer });
        }
        self.stop_receiving_from(peer);
    }

    fn stop_receiving_from(&mut self, peer: NodeId) {
        if self.is_receiving_from(peer) {
            Mark::SnapshotAborted.hit();
            let why = "the connection broke while it was received".to_string();
            self.copies.verdicts.insert(peer, Piece::Refuse(why));
            self.copies.incoming = None;
            self.emit(Output::Snapshot(CopyOutput::StopReceiving));
            self.step(Input::SnapshotAborted { from: peer });
        }
    }

    pub(in crate::node) fn on_piece(&mut self, from: NodeId, piece: Piece) {
        match piece {
            Piece::Offer { head, total } => self.on_offer(from, head, total),
            Piece::Accept { have } => match self.copies.offered.get(&from).copied() {
                Some(lsn) => {
                    let to = from;
                    self.emit(Output::Snapshot(CopyOutput::Stream { to, lsn, have }));
                }
                // It would wait for it, and take no snapshot of its own meanwhile.
                None => {
                    let why = "it is offered no more".to_string();
                    self.send(from, Head::Copy(Piece::Refuse(why)));
                }
            },
            Piece::Refuse(why) if self.is_receiving_from(from) => {
                // The sender cannot read it after all.
                self.copies.incoming = None;
                self.copies.loaded = None;
                self.emit(Output::Snapshot(CopyOutput::StopReceiving));
                self.note(format!("node {from} sends no snapshot: {why}"));
                self.step(Input::SnapshotAborted { from });
            }
            Piece::Refuse(why) => {
                if self.copies.offered.remove(&from).is_some() {
                    self.note(format!("node {from} did not take the snapshot: {why}"));
                    self.outgrow_ancestors();
                    self.step(Input::SnapshotSent { to: from });
                }
            }
            Piece::Installed => {
                if self.copies.offered.remove(&from).is_some() {
                    self.step(Input::SnapshotSent { to: from });
                }
            }
            Piece::Chunk { offset, bytes } => {
                if self.is_receiving_from(from) {
                    let receiving = CopyOutput::Receiving {
                        from,
                        offset,
                        bytes,
                    };
                    self.emit(Output::Snapshot(receiving));
                }
            }
        }
    }

    /// A snapshot from before this history's own first record does not show that a log of an ended
    /// one, which may end above it, is a dead branch: it is refused, and only a later one helps.
    fn outgrow_ancestors(&mut self) {
        let history = self.replica.history();
        let applied = self.copies.applied.position.lsn;
        let is_of_ancestor = self.copies.newest.as_ref().is_some_and(|newest| {
            let last = newest.head.epochs.last();
            last.is_some_and(|entry| entry.history != history)
                && newest.head.link.position.lsn < applied
        });
        if is_of_ancestor {
            self.copies.want(None);
        }
    }

    /// Whoever leads takes in nothing, and needs snapshots of its own for others.
    pub(super) fn stop_receiving_as_primary(&mut self) {
        if let Some(Incoming::Receiving { from, .. }) = self.copies.incoming
            && self.replica.is_primary()
        {
            self.refuse_snapshot(from, "this node is primary now");
        }
    }

    fn is_receiving_from(&self, peer: NodeId) -> bool {
        matches!(&self.copies.incoming, Some(Incoming::Receiving { from, .. }) if *from == peer)
    }

    /// While this node moves to a newer history it has nothing of that to give to who asks.
    pub(super) fn refuse_snapshots(&mut self) {
        let text = "this node moves to a newer history and has none of it yet; ask its primary";
        let asked = std::mem::take(&mut self.copies.asked).into_iter();
        let backups = std::mem::take(&mut self.copies.backups).into_iter();
        for client in asked.chain(backups.map(|backup| backup.client)) {
            Mark::SnapshotNotYet.hit();
            self.pending
                .refuse(client, Refusal::Operator(text.to_string()));
        }
    }

    /// What was asked for with `backup now` waits for a snapshot that begins behind it.
    pub(super) fn ship_backups(&mut self) {
        let newest = self.copies.newest.as_ref();
        let newest = newest.filter(|newest| newest.head.history == self.replica.history());
        let newest = newest.map(|newest| newest.head.link.position.lsn);
        for backup in std::mem::take(&mut self.copies.backups) {
            let Some(newest) = newest else {
                let text = "this node has moved to a newer history meanwhile; ask again";
                let refusal = Refusal::Operator(text.to_string());
                self.pending.refuse(backup.client, refusal);
                continue;
            };
            self.copies.next_ticket += 1;
            let ticket = self.copies.next_ticket;
            self.copies.shipping.insert(ticket, backup.client);
            let what = What {
                card: self.card(),
                snapshot: newest,
                through: self.copies.applied.position.lsn,
            };
            let Backup { to, who, .. } = backup;
            self.emit(Output::Snapshot(CopyOutput::BackUp {
                ticket,
                to,
                what,
                who,
            }));
        }
    }

    /// Its receiver would wait for ever.
    pub(super) fn on_send_failed(&mut self, to: NodeId, lsn: Lsn, why: String) {
        if self.copies.offered.get(&to) != Some(&lsn) {
            return;
        }
        self.copies.offered.remove(&to);
        Mark::SnapshotNotSent.hit();
        self.note(format!(
            "the snapshot at {lsn} cannot be sent to node {to}: {why}"
        ));
        self.send(to, Head::Copy(Piece::Refuse(why)));
        // The same one could be sent no better the next time.
        self.copies.want(None);
        self.step(Input::SnapshotFailed { to });
    }

    fn on_offer(&mut self, from: NodeId, head: SnapshotHead, total: u64) {
        if self.copies.is_installing() || self.is_witness {
            let why = "not now: one is being installed".to_string();
            return self.tell_sender(from, Piece::Refuse(why));
        }
        self.forget_verdict(from);
        self.copies.offer = Some((from, head.clone(), total));
        self.step(Input::SnapshotOffered { from, head });
    }

    pub(in crate::node) fn accept_snapshot(&mut self, from: NodeId) {
        let Some((_, head, total)) = self.copies.offer.take_if(|offer| offer.0 == from) else {
            return;
        };
        if let Some(Incoming::Receiving { from: other, .. }) = self.copies.incoming {
            self.emit(Output::Snapshot(CopyOutput::StopReceiving));
            if other != from {
                let why = format!("the one of node {from} is taken instead");
                self.tell_sender(other, Piece::Refuse(why));
            }
        }
        let lsn = head.link.position.lsn;
        self.copies.incoming = Some(Incoming::Receiving { from, head });
        self.emit(Output::Snapshot(CopyOutput::Receive { from, lsn, total }));
    }

    /// The receiver is ready, and knows what it need not be sent.
    pub(super) fn on_ready(&mut self, from: NodeId, lsn: Lsn, have: Vec<SegmentRef>) {
        if let Some(Incoming::Receiving {
            from: sender, head, ..
        }) = &self.copies.incoming
            && (*sender, head.link.position.lsn) == (from, lsn)
        {
            self.send(from, Head::Copy(Piece::Accept { have }));
        }
    }

    /// What is offered, or was received, is not taken. One that comes from elsewhere meanwhile goes
    /// on: its sender knows of no other.
    pub(in crate::node) fn refuse_snapshot(&mut self, from: NodeId, why: &str) {
        self.copies.offer = None;
        if self.is_receiving_from(from) {
            self.copies.incoming = None;
            self.copies.loaded = None;
            self.emit(Output::Snapshot(CopyOutput::StopReceiving));
        }
        self.tell_sender(from, Piece::Refuse(why.to_string()));
    }

    /// Until it is told, the sender takes the snapshot to be under way and sends nothing else.
    pub(super) fn tell_sender(&mut self, from: NodeId, verdict: Piece) {
        self.copies.verdicts.insert(from, verdict.clone());
        self.send(from, Head::Copy(verdict));
    }

    fn forget_verdict(&mut self, peer: NodeId) {
        self.copies.verdicts.remove(&peer);
    }

    /// There is a new way to `peer`: on the one before the verdict may have been lost. And an offer
    /// that came while there was none is answered, as far as this node knows, but was not.
    pub(in crate::node) fn found_link(&mut self, peer: NodeId) {
        self.stop_receiving_from(peer);
        if let Some(verdict) = self.copies.verdicts.get(&peer) {
            let verdict = verdict.clone();
            self.send(peer, Head::Copy(verdict));
        }
    }

    pub(super) fn on_loaded(&mut self, from: NodeId, header: &Header, state: Box<State>) {
        let Some(Incoming::Receiving {
            from: sender, head, ..
        }) = &self.copies.incoming
        else {
            return;
        };
        if *sender != from || header.link != head.link || header.history != head.history {
            return self.refuse_snapshot(from, "the file is not the one that was offered");
        }
        let head = head.clone();
        self.copies.loaded = Some((from, state));
        self.step(Input::SnapshotReceived { from, head });
    }

    pub(in crate::node) fn install_snapshot(&mut self, head: &SnapshotHead, loss: Option<Loss>) {
        let Some((from, state)) = self.copies.loaded.take() else {
            return self.halt("a snapshot is to be installed that is not loaded".to_string());
        };
        if self.copies.job.take().is_some() {
            self.state.abort_snapshot();
        }
        let mut verified = self.replica.commit();
        let lost = loss.map(|loss| {
            // What differs goes into divergent/ whole; the statement says which part.
            verified = verified.min(Lsn(loss.first_lsn.0 - 1));
            let (wall, node) = (self.now.wall, self.identity.node);
            let mut statement = Statement::of_cut(wall, node, verified, loss);
            statement.end_was_damaged = self.replica.meta().suspect;
            let removed = self.records_from(loss.first_lsn);
            statement.list(&removed);
            self.state_loss(&statement);
            Box::new((statement, removed))
        });
        self.copies.incoming = Some(Incoming::Installing {
            from,
            head: head.clone(),
            state,
            lost,
        });
        // Of the history that wrote what it stands at: log of that may follow, from before the
        // fork at which the newer one that the snapshot was offered in begins.
        let reign = head.epochs.at(head.link.position.lsn);
        self.give_log(Command::Reset {
            base: head.link,
            history: reign.map_or(head.history, |reign| reign.history),
            verified,
        });
    }

    /// The state that is about to be replaced goes through what was cut: what that made of the
    /// books, and what was refused, only this state can tell.
    fn tell_what_is_lost(&mut self, mut statement: Statement, removed: &[Record]) {
        for record in removed {
            if record.first_lsn() == self.state.applied().lsn.next() {
                self.state.apply(record, |_, _| ());
            }
        }
        if self.state.applied().lsn.0 >= statement.last_lsn {
            statement.made = Some(Made::find(self.state.ledger(), &statement.commands));
            // The same statement, with this in it.
            self.emit(Output::LossStatement {
                name: statement.file_name(),
                text: statement.to_json(),
            });
        }
    }

    fn state_loss(&mut self, statement: &Statement) {
        let mut written = Vec::new();
        self.desk.state_loss(statement, &mut written);
        written.into_iter().for_each(|output| self.emit(output));
    }

    pub(in crate::node) fn on_log_reset(&mut self) {
        let Some(Incoming::Installing {
            from,
            head,
            state,
            lost,
        }) = self.copies.incoming.take()
        else {
            return self.halt("the log was reset without a snapshot to install".to_string());
        };
        if let Some(lost) = lost {
            let (statement, removed) = *lost;
            self.tell_what_is_lost(statement, &removed);
        }
        let lsn = head.link.position.lsn;
        self.replace_state(*state);
        self.copies.applied = head.link;
        self.copies.newest = Some(Newest {
            head: head.clone(),
            bytes: 0,
            finished: self.now.wall / 1_000_000_000,
        });
        self.pending.skipped(lsn);
        self.emit(Output::Snapshot(CopyOutput::Adopt { lsn }));
        self.note(format!("snapshot at {lsn} from node {from} installed"));
        self.tell_sender(from, Piece::Installed);
        self.step(Input::SnapshotInstalled(head));
        self.state_begins();
    }
}
