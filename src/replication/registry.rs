//! The register at a node: its effects done, its ends told, its value remembered.

use crate::replication::config::Config;
use crate::replication::fence::Fence;
use crate::replication::io::Effect;
use crate::replication::message::Body;
use crate::replication::meta::Meta;
use crate::replication::node::Node;
use crate::replication::register::{
    self, ConfigStore, Register, Request, Ticket, Timing, Value, Voter,
};
use crate::replication::settings::Settings;
use crate::replication::time::Time;
use standfast_wal::Lsn;
use std::collections::VecDeque;

impl Node {
    /// Begins an operation; its end comes through `outcomes`. `None`: not now.
    pub fn submit(&mut self, request: Request) -> Option<Ticket> {
        let result = self
            .register
            .submit(self.now, request, &mut self.register_effects);
        let ticket = match result {
            Ok(ticket) => Some(ticket),
            Err(refusal) => {
                self.event(format!("the register refuses: {refusal}"));
                None
            }
        };
        self.run_register();
        ticket
    }

    /// Forgets an operation. A change may be chosen all the same.
    pub fn cancel(&mut self, ticket: Ticket) {
        let _ = self
            .register
            .cancel(self.now, ticket, &mut self.register_effects);
        self.outcomes.retain(|(other, _)| *other != ticket);
        self.run_register();
    }

    /// Takes back a change that nobody has been asked to vote for. False: it may be chosen.
    pub fn revoke(&mut self, ticket: Ticket) -> bool {
        let revocable = self.is_revocable(ticket);
        if revocable {
            self.cancel(ticket);
        }
        revocable
    }

    /// Nothing of this was offered to any voter.
    pub fn is_revocable(&self, ticket: Ticket) -> bool {
        self.register.is_revocable(ticket)
    }

    pub fn on_register_message(&mut self, from: Voter, message: register::Message) {
        let input = register::Input::Message { from, message };
        self.register
            .step(self.now, input, &mut self.register_effects);
        self.run_register();
    }

    pub fn register_deadline(&self) -> Option<Time> {
        self.register.deadline()
    }

    pub fn register_timeout(&mut self) {
        if self
            .register
            .deadline()
            .is_some_and(|deadline| self.now >= deadline)
        {
            let input = register::Input::Timeout;
            self.register
                .step(self.now, input, &mut self.register_effects);
            self.run_register();
        }
    }

    /// Does what the register wants done, and what follows from that.
    pub(super) fn run_register(&mut self) {
        while !self.register_effects.is_empty() {
            for effect in std::mem::take(&mut self.register_effects) {
                self.on_register_effect(effect);
            }
        }
    }

    fn on_register_effect(&mut self, effect: register::Effect) {
        match effect {
            register::Effect::Send { to, message } => self.send(to, Body::Register(message)),
            register::Effect::Persist { serial, state } => {
                self.edit(|meta| meta.acceptor = state);
                let edit = self.edits.made;
                self.edits.register.push_back((edit, serial));
            }
            register::Effect::Done { ticket, outcome } => {
                self.outcomes.push_back((ticket, outcome));
            }
            register::Effect::Known(value) => self.learn(value),
            register::Effect::Ignored { from, reason } if reason.is_suspicious() => {
                self.event(format!("the register ignored {from:?}: {reason}"));
            }
            register::Effect::Ignored { .. } => {}
        }
    }

    /// A Config known to be chosen, in this node's history.
    pub fn learn(&mut self, value: Value) {
        if value.history != self.history() || value.version <= self.config().version {
            return;
        }
        assert!(
            value.epoch >= self.config().epoch,
            "I3: {:?} was chosen behind {:?}",
            *value,
            self.config()
        );
        self.edit(|meta| meta.config = value.clone());
        self.out.push(Effect::NewConfig);
        let input = register::Input::Learned(value);
        self.register
            .step(self.now, input, &mut self.register_effects);
        self.run_register();
    }

    /// What the acceptor proves chosen may be newer than what Meta remembers.
    pub(super) fn adopt_known(&mut self) {
        if let Some(value) = self.register.known().cloned() {
            self.learn(value);
        }
    }

    /// The highest commit LSN of this node's history that it knows of. Its log may still be that
    /// of an ended one, and says nothing then.
    pub(super) fn known_commit(&self) -> Lsn {
        let history = self.history();
        let last = self.log.epochs.last();
        let own = match last.is_some_and(|entry| entry.history == history) {
            true => self.log.commit,
            false => Lsn::ZERO,
        };
        own.max(self.heard_commit)
    }

    /// Begins a register of another history, whose `config` is known to be chosen. `founder`: its
    /// only voter is this node, which chooses it by decree.
    pub fn enter_history(&mut self, config: Config, founder: bool) {
        let value = Value::new(config);
        let fence = Fence {
            history: value.history,
            epoch: value.epoch,
        };
        let acceptor = if founder {
            register::AcceptorState::genesis(value.clone())
        } else {
            register::AcceptorState::empty(value.history)
        };
        self.edit(|meta| {
            meta.fence = meta.fence.max(fence);
            meta.config = value;
            meta.acceptor = acceptor;
        });
        self.edits.register.clear();
        self.register_effects.clear();
        self.outcomes.clear();
        self.newer = None;
        self.heard_commit = Lsn::ZERO;
        let process = draw_process(&mut self.random);
        self.out.push(Effect::DrawRandom);
        self.register = open_register(&self.settings, &self.meta, process);
        self.out.push(Effect::NewConfig);
    }
}

pub(super) fn open_register(settings: &Settings, meta: &Meta, process: u64) -> Register {
    let me = Voter {
        node: meta.node,
        incarnation: meta.incarnation,
    };
    let timing = Timing {
        resend: settings.heartbeat_interval * 2,
        ..Timing::default()
    };
    // A node that joins has not been told a Config yet: the one it holds names nobody.
    let known = (meta.config.version > 0).then(|| meta.config.clone());
    Register::open(me, process, meta.acceptor.clone(), known, timing)
}

pub(super) fn draw_process(random: &mut VecDeque<u128>) -> u64 {
    let number = random
        .pop_front()
        .expect("one random number is always kept");
    u64::try_from(number & u128::from(u64::MAX)).expect("masked")
}
