//! Numbers for everything that recurs: sites, messages, values, records, ledgers; and what a site
//! does with an input, worked out once. So a state is a few numbers, and a transition a look-up.

use crate::ledger::Ledger;
use crate::mail::{Letter, Standing};
use crate::outside::Service;
use crate::site::{Broken, Event, Happening, Mark, Site};
use crate::turn::{Around, Quiet, Turn};
use hashbrown::HashMap;
use standfast::replication::Message;
use standfast::replication::register::Value;
use standfast_wal::Record;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

type Fast = foldhash::fast::FixedState;

/// Equal things have one number.
pub struct Numbers<T> {
    things: Vec<Arc<T>>,
    known: HashMap<Arc<T>, u32, Fast>,
}

impl<T: Eq + Hash> Numbers<T> {
    fn new() -> Numbers<T> {
        Numbers {
            things: Vec::new(),
            known: HashMap::default(),
        }
    }

    pub fn number(&mut self, thing: T) -> u32 {
        if let Some(number) = self.known.get(&thing) {
            return *number;
        }
        let number = u32::try_from(self.things.len()).expect("fewer things");
        let thing = Arc::new(thing);
        self.things.push(thing.clone());
        self.known.insert(thing, number);
        number
    }

    pub fn get(&self, number: u32) -> &Arc<T> {
        &self.things[number as usize]
    }
}

/// A change that the register was asked for: from this value to that.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Offer {
    pub expected: Value,
    pub wanted: Value,
}

/// `Event`, with numbers.
#[derive(Clone, Debug)]
pub enum News {
    Committed(Vec<u16>, bool),
    Reign(u64, Vec<u16>),
    Offered(u32),
    Broken(Broken, String),
    Mark(Mark),
    Stands,
}

/// What becomes of a site by something that happens there.
#[derive(Debug)]
pub struct Outcome {
    pub site: u32,
    pub sent: Vec<u16>,
    pub news: Vec<News>,
}

/// What is asked of a site at every state.
#[derive(Clone, Debug)]
pub struct Facts {
    pub running: bool,
    pub primary: bool,
    pub serving: bool,
    pub admits: bool,
    pub candidate: bool,
    pub syncs: bool,
    pub persists: bool,
    pub asking: Option<Value>,
    pub log: Vec<u16>,
    pub standing: Standing,
    pub lives: u8,
}

pub struct Lab {
    pub sites: Numbers<Site>,
    pub facts: Vec<Arc<Facts>>,
    pub letters: Numbers<Letter>,
    pub services: Numbers<Service>,
    pub offers: Numbers<Offer>,
    pub ledgers: Numbers<Ledger>,
    records: Numbers<Record>,
    outcomes: HashMap<(u32, Happening, u32), Arc<Outcome>, Fast>,
    quiet: Quiet,
    ids: Vec<u8>,
}

impl Lab {
    pub fn new(quiet: Quiet, ids: Vec<u8>) -> Lab {
        Lab {
            sites: Numbers::new(),
            facts: Vec::new(),
            letters: Numbers::new(),
            services: Numbers::new(),
            offers: Numbers::new(),
            ledgers: Numbers::new(),
            records: Numbers::new(),
            outcomes: HashMap::default(),
            quiet,
            ids,
        }
    }

    /// From now on this is left out. Says what was left out before.
    pub fn hush(&mut self, quiet: Quiet) -> Quiet {
        self.outcomes.clear();
        std::mem::replace(&mut self.quiet, quiet)
    }

    pub fn outcome(&mut self, site: u32, what: Happening, service: u32) -> Arc<Outcome> {
        let key = (site, what, service);
        if let Some(outcome) = self.outcomes.get(&key) {
            return outcome.clone();
        }
        let (before, service) = (
            self.sites.get(site).clone(),
            self.services.get(service).clone(),
        );
        let letter = match what {
            Happening::Deliver(letter) => Some(self.letters.get(letter.into()).clone()),
            _ => None,
        };
        let from: Option<(u8, &Message)> = letter.as_ref().map(|l| (l.from, &l.message));
        let own = before.id();
        let peers: Vec<u8> = self.ids.iter().copied().filter(|id| *id != own).collect();
        let around = Around {
            service: &service,
            peers: &peers,
            quiet: self.quiet,
        };
        let turn = catch_unwind(AssertUnwindSafe(|| before.turn(what, from, &around)));
        let turn = turn.unwrap_or_else(|story| Turn {
            site: Site::clone(&before),
            sent: Vec::new(),
            events: vec![Event::Broken(Broken::Panicked, story_of(&*story))],
        });
        let outcome = Arc::new(self.numbered(own, turn));
        self.outcomes.insert(key, outcome.clone());
        outcome
    }

    fn numbered(&mut self, from: u8, turn: Turn) -> Outcome {
        let mut sent: Vec<u16> = Vec::new();
        for (to, message) in turn.sent {
            let letter = self.letters.number(Letter { from, to, message });
            sent.push(u16::try_from(letter).expect("fewer letters"));
        }
        let news = turn.events.into_iter().map(|event| match event {
            Event::Committed(records, primary) => News::Committed(self.numbers(&records), primary),
            Event::Reign(epoch, log) => News::Reign(epoch, self.numbers(&log)),
            Event::Offered(expected, wanted) => {
                News::Offered(self.offers.number(Offer { expected, wanted }))
            }
            Event::Broken(broken, story) => News::Broken(broken, story),
            Event::Mark(mark) => News::Mark(mark),
            Event::Stands => News::Stands,
        });
        let news = news.collect();
        Outcome {
            site: self.site(turn.site),
            sent,
            news,
        }
    }

    pub fn numbers(&mut self, records: &[Record]) -> Vec<u16> {
        let number = |record: &Record| {
            let number = self.records.number(record.clone());
            u16::try_from(number).expect("few records")
        };
        records.iter().map(number).collect()
    }

    pub fn record(&self, number: u16) -> &Record {
        self.records.get(number.into())
    }

    pub fn site(&mut self, site: Site) -> u32 {
        let facts = self.facts_of(&site);
        let number = self.sites.number(site);
        if number as usize == self.facts.len() {
            self.facts.push(Arc::new(facts));
        }
        number
    }

    fn facts_of(&mut self, site: &Site) -> Facts {
        let process = site.process.as_ref();
        let replica = process.map(|process| &process.replica);
        let asking = process.and_then(|process| process.asking.as_ref());
        Facts {
            running: process.is_some(),
            primary: replica.is_some_and(|replica| replica.is_primary()),
            serving: replica.is_some_and(|replica| replica.is_serving()),
            admits: replica.is_some_and(|replica| replica.admit().is_ok()),
            candidate: replica.is_some_and(|replica| replica.attempt().is_some()),
            syncs: process.is_some_and(|process| !process.work.is_empty()),
            persists: process.is_some_and(|process| process.persist.is_some()),
            asking: asking.and_then(|asking| match &asking.body {
                standfast::replication::register::Body::Accept { proposal, .. } => {
                    Some(proposal.value.clone())
                }
                _ => None,
            }),
            log: self.numbers(&site.disk.log),
            standing: Standing {
                reign: replica.filter(|r| r.is_primary()).map(|r| r.epoch().0),
                attempt: replica.and_then(|replica| replica.attempt()),
                durable_fence: site.disk.meta.fence.epoch.0,
            },
            lives: site.lives,
        }
    }
}

fn story_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let word = || panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(word).unwrap_or_default()
}
