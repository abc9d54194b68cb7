//! Stopping, showing and answering: what the engine tells of itself, and its refusals.

use super::{Engine, Output};
use crate::limits;
use crate::node::link::Peering;
use crate::node::pending::Client;
use crate::node::refusal::Refusal;
use crate::replication::config::MemberRole;
use crate::replication::{Input, Order, Time};
use crate::state::Reply;
use standfast_wal::{Lsn, NodeId};
use std::collections::BTreeMap;

impl Engine {
    pub(super) fn on_shutdown(&mut self, client: Option<Client>) {
        if let Some(client) = client {
            self.pending.answer(client, Lsn::ZERO, Reply::Ok);
        }
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(self.time().after(limits::SHUTDOWN_FOR));
        if self.replica.is_primary() {
            let ticket = self.desk.silent_ticket();
            self.step(Input::Operator {
                ticket,
                order: Order::Switchover { to: None },
            });
        }
    }

    /// A stopping primary goes on until its successor has taken over, or nobody can.
    pub(super) fn stop_turn(&mut self) {
        let Some(until) = self.stopping else { return };
        let handed_over = !self.replica.is_primary() && !self.pending.has_ordered();
        if handed_over || self.desk.silent_order_failed() || until <= self.time() {
            self.out.push(Output::Stop);
            self.stopping = Some(Time(u64::MAX));
        }
    }

    /// Nothing that is served was read from there: the state is in memory. A new snapshot makes
    /// the damaged part unneeded here, and of the log it is dropped then; until the next start
    /// says so, an alarm stands.
    pub(super) fn on_damage(&mut self, story: String, through: Option<Lsn>) {
        let known = through.is_some_and(|through| through <= self.damaged_through);
        if known
            || self
                .damage
                .as_ref()
                .is_some_and(|said| said.starts_with(&story))
        {
            return;
        }
        let text = format!(
            "{story}; a new snapshot is being taken. Restart this node: it proves its files, and \
             mends itself from a peer where it must"
        );
        self.note(text.clone());
        self.damage = Some(text);
        self.damaged_through = self.damaged_through.max(through.unwrap_or(Lsn::ZERO));
        self.copies.want(None);
    }

    pub(super) fn show(&mut self) {
        let due = self
            .shown
            .is_none_or(|at| at.after(limits::VIEW_INTERVAL) <= self.time());
        if !due && !self.show_now {
            return;
        }
        self.show_now = false;
        self.shown = Some(self.time());
        match self.replica.is_primary() {
            true => self
                .reached
                .note(self.replica.tip().position.lsn, self.time()),
            false => self.reached.clear(),
        }
        let view = self.view();
        self.out.push(Output::Show(Box::new(view)));
        self.tell_peers();
    }

    /// Tells the shell whom to be connected with, where that has changed.
    pub(super) fn tell_peers(&mut self) {
        let wanted = self.peers_wanted();
        if self.peers_told.as_ref() != Some(&wanted) {
            self.out.push(Output::Peers(wanted.clone()));
            self.peers_told = Some(wanted);
        }
    }

    fn peers_wanted(&self) -> BTreeMap<NodeId, Peering> {
        if self.settings.quarantined {
            return BTreeMap::new();
        }
        let seeds = self.settings.seeds.iter();
        let mut peers: BTreeMap<NodeId, Peering> = seeds
            .map(|(id, address)| (*id, Peering::near(address)))
            .collect();
        let own = &self.settings.introduction.site;
        let config = self.replica.config();
        let joining = self.replica.peers(self.time()).into_iter();
        let joining: Vec<NodeId> = joining
            .filter(|one| one.joining)
            .map(|one| one.id)
            .collect();
        let is_waited_for =
            |id| config.primary == id || config.sync_set.contains(&id) || joining.contains(&id);
        for (id, member) in &config.members {
            let address = &member.addresses.peer;
            if !address.is_empty() {
                let is_named = !own.is_empty() && !member.site.is_empty();
                let peering = Peering {
                    address: address.clone(),
                    is_far: is_named && member.site != *own,
                    is_spare: member.role == MemberRole::Asynchronous && !is_waited_for(*id),
                };
                peers.insert(*id, peering);
            }
        }
        peers.remove(&self.identity.node);
        peers
    }

    pub(in crate::node) fn address_of(&self, id: NodeId) -> Option<String> {
        Some(
            self.replica
                .config()
                .members
                .get(&id)?
                .addresses
                .client
                .clone(),
        )
    }

    pub(in crate::node) fn primary_address(&self) -> Option<String> {
        self.replica.primary().and_then(|id| self.address_of(id))
    }

    pub(in crate::node) fn not_primary(&self) -> Refusal {
        Refusal::ReadOnly {
            primary: self.primary_address(),
        }
    }

    /// The core's refusal in the words of clients.
    pub(in crate::node) fn refusal(&self, refusal: crate::replication::Refusal) -> Refusal {
        use crate::replication::Refusal as Core;
        match refusal {
            Core::NotPrimary { .. } if self.is_witness => Refusal::Witness {
                primary: self.primary_address(),
            },
            Core::NotPrimary { primary: Some(id) } => Refusal::ReadOnly {
                primary: self.address_of(id),
            },
            Core::NotPrimary { primary: None } => Refusal::NoPrimary,
            Core::Starting => Refusal::Promoting,
            Core::NoReplicas => {
                let config = self.replica.config();
                Refusal::TooFewCopies {
                    needed: config.acks_needed.max(2),
                    present: self.present(),
                }
            }
            Core::Deaf => Refusal::Isolated,
            Core::Stalled => Refusal::DiskStalled,
            Core::HandingOver { to } => Refusal::HandingOver {
                to: self.address_of(to),
            },
            Core::LossBudget => Refusal::LossBudget,
            Core::Busy => Refusal::Busy { what: "ordering" },
            Core::Invalid(text) => Refusal::Operator(text),
        }
    }

    /// Members of the sync set that this node reaches, itself included.
    fn present(&self) -> u32 {
        let set = &self.replica.config().sync_set;
        let peers = self.replica.peers(self.time());
        let others = peers
            .iter()
            .filter(|peer| peer.connected && set.contains(&peer.id))
            .count();
        u32::try_from(others).unwrap_or(u32::MAX) + 1
    }
}
