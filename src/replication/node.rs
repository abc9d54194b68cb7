//! What every role shares: the durable small state, the links, the clocks, the register's ends.
//!
//! Keeps "nothing is answered on the strength of what is not durable": an answer that rests on an
//! edit of Meta waits here until that edit, persisted whole, is reported durable.

use crate::replication::config::{Config, MemberRole};
use crate::replication::durability::{Edits, Owed};
use crate::replication::fence::{Fence, Standing};
use crate::replication::io::{Effect, Introduction, LinkEvent, LogFacts};
use crate::replication::log::Log;
use crate::replication::message::{Body, Message};
use crate::replication::meta::Meta;
use crate::replication::register::{self, Outcome, Register, Ticket, Value};
use crate::replication::registry::{draw_process, open_register};
use crate::replication::replica::Next;
use crate::replication::settings::Settings;
use crate::replication::time::Time;
use standfast_wal::{Epoch, History, Incarnation, Lsn, Mark, NodeId, Nonce};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What is known of the connection to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct Wire {
    pub up: Option<Incarnation>,
    /// The last attempt was refused: nobody listens there.
    pub refused: bool,
}

/// The last sign that a primary lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Life {
    pub at: Time,
    /// Its port refuses: the process is dead.
    pub refused: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Node {
    pub settings: Settings,
    pub me: NodeId,
    pub introduction: Introduction,
    pub now: Time,
    pub started: Time,
    /// Newest edit; what is durable may be older.
    pub meta: Meta,
    pub durable_fence: Fence,
    pub(super) edits: Edits,
    pub log: Log,
    pub(super) register: Register,
    pub(super) register_effects: Vec<register::Effect>,
    /// Ends of register operations, for the role that asked.
    pub outcomes: VecDeque<(Ticket, Outcome)>,
    pub wires: BTreeMap<NodeId, Wire>,
    pub life: Life,
    pub(super) owed: BTreeMap<NodeId, Owed>,
    /// Wall clock at a moment of the own clock.
    pub(super) wall: Option<(u64, Time)>,
    /// Others' wall clocks less this one.
    pub clocks: BTreeMap<NodeId, i64>,
    pub disk_stalled: bool,
    /// The highest commit LSN that any primary has told of.
    pub heard_commit: Lsn,
    /// Peers that wait for records of this log, by their attempt (step 3 of a promotion).
    pub fetches: BTreeMap<NodeId, Nonce>,
    pub next: Option<Next>,
    /// The last round that this process has sent in its reigns so far.
    pub rounds: u64,
    /// A history above this node's own, seen at a peer: what `rejoin` would follow.
    pub newer: Option<(History, NodeId)>,
    /// The operator has given up this node's history, until the new one has taken it in.
    pub rejoining: bool,
    /// The history whose log this process brought into the one it has been told to follow, until
    /// the two logs are compared. A member that joins anew brings none; and who starts in between
    /// does not know what an earlier process has cut.
    pub left: Option<History>,
    pub(super) random: VecDeque<u128>,
    pub out: Vec<Effect>,
}

impl Node {
    pub fn new(
        settings: Settings,
        now: Time,
        mut meta: Meta,
        facts: LogFacts,
        introduction: Introduction,
        random: Vec<u128>,
    ) -> Node {
        assert!(random.len() >= 8, "the core needs random numbers to start");
        let mut random = VecDeque::from(random);
        let newly_suspect = facts.suspect && !meta.suspect;
        meta.suspect |= facts.suspect;
        let register = open_register(&settings, &meta, draw_process(&mut random));
        let mut node = Node {
            me: meta.node,
            introduction,
            now,
            started: now,
            durable_fence: meta.fence,
            log: Log::new(facts, settings.tail_bytes),
            settings,
            meta,
            edits: Edits::default(),
            register,
            register_effects: Vec::new(),
            outcomes: VecDeque::new(),
            wires: BTreeMap::new(),
            life: Life {
                at: now,
                refused: false,
            },
            owed: BTreeMap::new(),
            wall: None,
            clocks: BTreeMap::new(),
            disk_stalled: false,
            heard_commit: Lsn::ZERO,
            fetches: BTreeMap::new(),
            next: None,
            rounds: 0,
            newer: None,
            rejoining: false,
            left: None,
            random,
            out: Vec::new(),
        };
        if newly_suspect {
            node.edit(|_| ());
            node.event(
                "the log's end was damaged: it counts as absent until it is verified".into(),
            );
        }
        node.adopt_known();
        node
    }

    pub fn config(&self) -> &Config {
        &self.meta.config
    }

    pub fn config_value(&self) -> &Value {
        &self.meta.config
    }

    pub fn history(&self) -> History {
        self.meta.config.history
    }

    /// The registered reign.
    pub fn registered(&self) -> Fence {
        Fence {
            history: self.history(),
            epoch: self.meta.config.epoch,
        }
    }

    /// Whether the Config names this process.
    pub fn is_member(&self) -> bool {
        self.config().names(self.me, self.meta.incarnation)
    }

    pub fn is_voter(&self) -> bool {
        self.is_member() && self.config().voters.contains(&self.me)
    }

    /// What this node is for.
    pub fn role(&self) -> MemberRole {
        let member = self.config().members.get(&self.me);
        member.map_or(self.introduction.role, |member| member.role)
    }

    /// Whether a forced promotion elsewhere has ended this node's history.
    pub fn is_outdated(&self) -> bool {
        self.meta.fence.history != self.history()
    }

    pub fn up(&self, id: NodeId) -> bool {
        let wire = self.wires.get(&id);
        wire.is_some_and(|wire| wire.up.is_some_and(|life| self.config().names(id, life)))
    }

    pub fn refused(&self, id: NodeId) -> bool {
        self.wires.get(&id).is_some_and(|wire| wire.refused)
    }

    // Sending

    pub fn event(&mut self, text: String) {
        self.out.push(Effect::Event(text));
    }

    pub fn halt(&mut self, story: String) {
        self.out.push(Effect::Halt(story));
    }

    pub fn send(&mut self, to: NodeId, body: Body) {
        debug_assert_ne!(to, self.me, "a message to oneself: {body}");
        let history = self.history();
        self.out.push(Effect::Send(to, Message { history, body }));
    }

    /// Sends once everything edited so far is durable; at once when it is.
    pub fn send_when_durable(&mut self, to: NodeId, body: Body) {
        if self.edits.durable == self.edits.made {
            return self.send(to, body);
        }
        let history = self.history();
        let message = Message { history, body };
        self.edits.waiting.push_back((self.edits.made, to, message));
    }

    /// To every named peer whose link is up.
    pub fn send_to_members(&mut self, body: &Body) {
        let ids: Vec<NodeId> = self.config().members.keys().copied().collect();
        for id in ids {
            if id != self.me && self.up(id) {
                self.send(id, body.clone());
            }
        }
    }

    // Randomness, all of it supplied from outside

    pub fn on_random(&mut self, number: u128) {
        self.random.push_back(number);
    }

    /// A fresh nonce; `None` until the shell has supplied more.
    pub fn draw(&mut self) -> Option<Nonce> {
        // The last one is kept for entering a history, which cannot wait.
        if self.random.len() < 2 {
            return None;
        }
        let number = self.random.pop_front()?;
        self.out.push(Effect::DrawRandom);
        Some(Nonce(number))
    }

    /// A random part of `most`.
    pub fn draw_wait(&mut self, most: Duration) -> Duration {
        let number = self.draw().map_or(0, |nonce| nonce.0);
        let nanos = most.as_nanos().max(1);
        Duration::from_nanos(u64::try_from(number % nanos).unwrap_or(u64::MAX))
    }

    // Signs of life and clocks

    pub fn on_link(&mut self, id: NodeId, event: LinkEvent) {
        let wire = self.wires.entry(id).or_default();
        *wire = match event {
            LinkEvent::Up(incarnation) => Wire {
                up: Some(incarnation),
                refused: false,
            },
            LinkEvent::Down => Wire {
                up: None,
                refused: wire.refused,
            },
            LinkEvent::Refused => Wire {
                up: None,
                refused: true,
            },
        };
        let refused = wire.refused;
        if id == self.config().primary {
            self.life.refused = refused;
        }
    }

    pub fn sign_of_life(&mut self) {
        self.life = Life {
            at: self.now,
            refused: false,
        };
    }

    pub fn has_lost_primary(&self) -> bool {
        self.life.refused || self.now.since(self.life.at) >= self.settings.failover_timeout
    }

    // Gates

    /// Whether a message that speaks for `reign` may be taken; says why not to its sender.
    pub fn obeys(&mut self, from: NodeId, reign: Fence) -> bool {
        if reign.history != self.history() {
            if !self.meet_history(from, reign) {
                self.refuse(from);
            }
            return false;
        }
        match self.meta.fence.weigh(reign) {
            Standing::Below | Standing::Foreign => {
                self.refuse(from);
                false
            }
            Standing::Equal | Standing::Above => true,
        }
    }

    /// A member lives in a newer history than this node: by force this one has ended, here too.
    /// False when it is not newer.
    pub fn meet_history(&mut self, from: NodeId, reign: Fence) -> bool {
        if reign.history.generation <= self.history().generation {
            return false;
        }
        self.newer = Some((reign.history, from));
        if self.meta.fence.weigh(reign) == Standing::Above {
            Mark::HistoryEnded.hit();
            let (old, new) = (self.history(), reign.history);
            self.event(format!(
                "n{from} lives in history {new}: {old} has ended by force; the data is kept, \
                 `rejoin` follows the new one"
            ));
            self.raise_fence(reign);
            let patience = Duration::ZERO;
            self.next = Some(Next::Backup { patience });
        }
        true
    }

    /// A refusal says how high the fence is, so it waits until that is durable.
    pub fn refuse(&mut self, to: NodeId) {
        let body = Body::Refused {
            fence: self.meta.fence,
            version: self.config().version,
        };
        self.send_when_durable(to, body);
    }

    /// The epoch that this node obeys.
    pub fn epoch(&self) -> Epoch {
        self.meta.fence.epoch
    }

    pub fn end(&self) -> Lsn {
        self.log.end()
    }
}
