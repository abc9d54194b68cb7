//! Brings a world to where its exploration begins: one given course of events, by the same acts.

use crate::lab::Lab;
use crate::ledger::Ledger;
use crate::outside::{OUTSIDE, Service};
use crate::site::{Broken, Happening, Site, incarnation};
use crate::turn::Quiet;
use crate::world::{Act, Budget, SITES, State, World};
use standfast::replication::Meta;
use standfast::replication::config::{Acks, Addresses, Config, Member, MemberRole, Protection};
use standfast::replication::register::Value;
use standfast_wal::{ClusterId, History, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

/// Enough for any script.
const PLENTY: Budget = Budget {
    crashes: 99,
    stands: 99,
    writes: 99,
    reads: 99,
    ticks: 99,
    handovers: 99,
    refusals: 99,
    doubles: 0,
};

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub data: u8,
    pub asynchronous: u8,
    pub acks: Acks,
    pub protection: Protection,
    pub quiet: Quiet,
}

pub struct Script {
    pub world: World,
    pub state: State,
}

fn member(id: u8, role: MemberRole) -> Member {
    Member {
        incarnation: incarnation(id),
        role,
        site: String::new(),
        priority: 0,
        addresses: Addresses::default(),
    }
}

impl Script {
    /// Nobody has started yet; every node holds the first Config.
    pub fn new(name: &'static str, shape: Shape) -> Script {
        let nodes = shape.data + shape.asynchronous;
        let mut members = BTreeMap::new();
        for id in 1..=nodes {
            let role = match id <= shape.data {
                true => MemberRole::Data,
                false => MemberRole::Asynchronous,
            };
            members.insert(NodeId(id.into()), member(id, role));
        }
        let outside = u8::try_from(OUTSIDE.0).expect("small worlds");
        members.insert(OUTSIDE, member(outside, MemberRole::Witness));
        let history = History {
            generation: 1,
            id: 77,
        };
        let voters = BTreeSet::from([OUTSIDE]);
        let (acks, protection) = (shape.acks, shape.protection);
        let first = Config::first(history, Nonce(1), acks, protection, members, voters);
        let mut lab = Lab::new(shape.quiet, (1..=nodes).collect());
        let mut sites = [u32::MAX; SITES];
        for (id, site) in (1..=nodes).zip(&mut sites) {
            let life = incarnation(id);
            let meta = Meta::first(ClusterId(5), NodeId(id.into()), life, first.clone());
            *site = lab.site(Site::new(meta));
        }
        let service = Service {
            current: Value::new(first),
            past: Vec::new(),
        };
        let state = State {
            sites,
            net: Box::default(),
            offers: Box::default(),
            service: lab.services.number(service),
            ledger: lab.ledgers.number(Ledger::default()),
            left: PLENTY,
        };
        let world = World {
            name,
            nodes,
            lab: Mutex::new(lab),
            begin: state.clone(),
            marks: AtomicU32::new(0),
            wanted: &[],
            properties: Vec::new(),
        };
        Script { world, state }
    }

    /// The script cannot go on: the exploration will say so, and end where it begins.
    fn fail(&mut self, story: String) {
        let lab = &mut *self.world.lab();
        let mut ledger = Ledger::clone(lab.ledgers.get(self.state.ledger));
        ledger.fail(Broken::Script, story);
        self.state.ledger = lab.ledgers.number(ledger);
    }

    fn is_broken(&self) -> bool {
        self.world.broken(&self.state).is_some()
    }

    pub fn act(&mut self, act: Act) -> &mut Script {
        if self.is_broken() {
            return self;
        }
        match self.world.after(&self.state, act) {
            Some(next) => self.state = next,
            None => self.fail(format!("{act:?} does nothing")),
        }
        self
    }

    pub fn at(&mut self, id: u8, what: Happening) -> &mut Script {
        self.act(Act::At(id, what))
    }

    /// Everything that is under way among these nodes, and between them and the register, comes to
    /// its end.
    pub fn settle(&mut self, among: &[u8]) -> &mut Script {
        let mut delivered = BTreeSet::new();
        while let Some(next) = self.next_of(among, &mut delivered) {
            self.state = next;
        }
        self
    }

    fn next_of(&self, among: &[u8], delivered: &mut BTreeSet<u16>) -> Option<State> {
        let mut acts = Vec::new();
        self.world.acts(&self.state, &mut acts);
        for act in acts {
            let wanted = match act {
                Act::At(id, what) if among.contains(&id) => match what {
                    Happening::Deliver(letter) => {
                        let from = self.world.lab().letters.get(letter.into()).from;
                        among.contains(&from) && delivered.insert(letter)
                    }
                    Happening::Sync | Happening::Persist | Happening::Answered => true,
                    _ => false,
                },
                Act::At(..) | Act::Doubled(..) => false,
                Act::Choose(_) => true,
            };
            if wanted && let Some(next) = self.world.after(&self.state, act) {
                return Some(next);
            }
        }
        None
    }

    /// One kind of message between two nodes arrives, in the order of its sending.
    pub fn deliver(&mut self, from: u8, to: u8, word: &str) -> &mut Script {
        let letters: Vec<u16> = self.state.net.to_vec();
        let mut done = false;
        for number in letters {
            let letter = self.world.lab().letters.get(number.into()).clone();
            let fits = letter.message.to_string().starts_with(word);
            if (letter.from, letter.to) == (from, to) && fits {
                let act = Act::At(to, Happening::Deliver(number));
                if let Some(next) = self.world.after(&self.state, act) {
                    self.state = next;
                    done = true;
                }
            }
        }
        if !done && !self.is_broken() {
            self.fail(format!("no {word} from n{from} to n{to}"));
        }
        self
    }

    /// The register takes the change that it was asked for.
    pub fn choose(&mut self) -> &mut Script {
        match self.state.offers.first().copied() {
            Some(offer) => self.act(Act::Choose(offer)),
            None if self.is_broken() => self,
            None => {
                self.fail("no change was asked for".to_string());
                self
            }
        }
    }

    /// All that is on its way is lost.
    pub fn lose_mail(&mut self) -> &mut Script {
        self.state.net = Box::default();
        self
    }

    /// All nodes start, and the first is primary of epoch 1, all the others following.
    pub fn boot(&mut self) -> &mut Script {
        let all: Vec<u8> = (1..=self.world.nodes).collect();
        let quiet = self.world.lab().hush(Quiet::NOTHING);
        for id in all.iter().rev() {
            self.at(*id, Happening::Start);
        }
        // Once more: long enough after its start to believe a port that refuses.
        self.at(1, Happening::Suspect);
        self.settle(&all).lose_mail();
        self.world.lab().hush(quiet);
        self
    }

    /// The exploration begins here, with this much to come.
    pub fn begin(mut self, left: Budget) -> World {
        self.state.left = left;
        self.world.begin = self.state;
        self.world.marks = AtomicU32::new(0);
        self.world
    }
}
