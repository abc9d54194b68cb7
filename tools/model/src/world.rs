//! A world as a model: its state, what may happen next, what follows, and what must always hold.

use crate::lab::{Facts, Lab, News, Outcome};
use crate::ledger::{Ledger, Speaker};
use crate::outside::Service;
use crate::site::{Broken, Happening, Mark};
use standfast_wal::NodeId;
use stateright::{Model, Property};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The most nodes with data.
pub const SITES: usize = 3;

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Budget {
    pub crashes: u8,
    /// Attempts at promotion.
    pub stands: u8,
    pub writes: u8,
    pub reads: u8,
    /// Heartbeat intervals that pass, all primaries and candidates together.
    pub ticks: u8,
    pub handovers: u8,
    /// News that a node's port refuses, while it is down.
    pub refusals: u8,
    /// Messages that arrive and stay, to arrive again.
    pub doubles: u8,
}

/// All that there is: numbers of what the lab keeps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub sites: [u32; SITES],
    pub net: Box<[u16]>,
    /// Changes that the register may yet take.
    pub offers: Box<[u16]>,
    pub service: u32,
    pub ledger: u32,
    pub left: Budget,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    At(u8, Happening),
    /// A message arrives, and will arrive again.
    Doubled(u8, u16),
    /// The register takes this change.
    Choose(u16),
}

pub struct World {
    pub name: &'static str,
    /// Nodes with data: 1..=this.
    pub nodes: u8,
    pub lab: Mutex<Lab>,
    pub begin: State,
    pub marks: AtomicU32,
    pub wanted: &'static [Mark],
    pub properties: Vec<Property<World>>,
}

impl World {
    pub fn lab(&self) -> MutexGuard<'_, Lab> {
        self.lab
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn mark(&self, mark: Mark) {
        self.marks.fetch_or(1 << mark as u8, Ordering::Relaxed);
    }

    pub fn has(&self, mark: Mark) -> bool {
        self.marks.load(Ordering::Relaxed) >> mark as u8 & 1 == 1
    }

    fn ids(&self) -> impl Iterator<Item = (usize, u8)> + use<> {
        (0..usize::from(self.nodes)).zip(1..)
    }

    /// What may happen at one node, but for messages.
    fn local(&self, lab: &Lab, state: &State, at: usize, acts: &mut Vec<Act>) {
        let id = u8::try_from(at + 1).expect("small worlds");
        let facts = &lab.facts[state.sites[at] as usize];
        let left = &state.left;
        let mut may = |condition: bool, what: Happening| {
            if condition {
                acts.push(Act::At(id, what));
            }
        };
        if !facts.running {
            return may(true, Happening::Start);
        }
        may(facts.syncs, Happening::Sync);
        may(facts.persists, Happening::Persist);
        if let Some(wanted) = &facts.asking {
            let service = lab.services.get(state.service);
            let chosen = service.has_chosen(wanted);
            let past = service.current != *wanted && service.current.version >= wanted.version;
            may(chosen, Happening::Answered);
            may(past, Happening::Overtaken);
        }
        may(left.crashes > 0, Happening::Crash);
        may(
            left.ticks > 0 && (facts.primary || facts.candidate),
            Happening::Tick,
        );
        may(left.stands > 0 && !facts.primary, Happening::Suspect);
        may(left.writes > 0 && facts.admits, Happening::Write);
        if left.reads > 0 && facts.serving {
            let truth = lab.ledgers.get(state.ledger).truth.len();
            may(
                true,
                Happening::Read(u8::try_from(truth).expect("short logs")),
            );
        }
        if left.refusals > 0 {
            let down = |at: usize| !lab.facts[state.sites[at] as usize].running;
            for (_, peer) in self.ids().filter(|(other, _)| down(*other)) {
                may(true, Happening::Refused(peer));
            }
        }
        if left.handovers > 0 && facts.serving {
            for (_, to) in self.ids().filter(|(other, _)| *other != at) {
                may(true, Happening::HandOver(to));
            }
        }
    }

    fn at(&self, lab: &mut Lab, state: &mut State, id: u8, what: Happening) -> Option<()> {
        let at = usize::from(id - 1);
        spend(&mut state.left, what)?;
        self.happen(lab, state, at, what)?;
        if what == Happening::Start {
            for (other, _) in self.ids().filter(|(other, _)| *other != at) {
                if lab.facts[state.sites[other] as usize].running {
                    self.happen(lab, state, other, Happening::Meets(id))?;
                }
            }
        }
        Some(())
    }

    fn happen(&self, lab: &mut Lab, state: &mut State, at: usize, what: Happening) -> Option<()> {
        let outcome = lab.outcome(state.sites[at], what, state.service);
        state.sites[at] = outcome.site;
        if !outcome.sent.is_empty() {
            let mut net = state.net.to_vec();
            net.extend(&outcome.sent);
            net.sort_unstable();
            net.dedup();
            state.net = net.into();
        }
        let stands = outcome
            .news
            .iter()
            .filter(|news| matches!(news, News::Stands))
            .count();
        if what == Happening::Suspect && stands == 0 {
            return None;
        }
        let stands = u8::try_from(stands).expect("few");
        state.left.stands = state.left.stands.checked_sub(stands)?;
        self.take_news(lab, state, at, &outcome);
        Some(())
    }

    fn take_news(&self, lab: &mut Lab, state: &mut State, at: usize, outcome: &Arc<Outcome>) {
        let service = lab.services.get(state.service).clone();
        let mut ledger: Option<Ledger> = None;
        for news in &outcome.news {
            match news {
                News::Mark(mark) => self.mark(*mark),
                News::Offered(offer) => {
                    if lab.offers.get(*offer).expected == service.current {
                        let mut offers = state.offers.to_vec();
                        offers.push(u16::try_from(*offer).expect("few offers"));
                        offers.sort_unstable();
                        offers.dedup();
                        state.offers = offers.into();
                    }
                }
                News::Stands => {}
                _ => {
                    let facts = &lab.facts[outcome.site as usize];
                    let speaker = Speaker {
                        node: u8::try_from(at + 1).expect("small worlds"),
                        life: facts.lives,
                    };
                    let ledger =
                        ledger.get_or_insert_with(|| Ledger::clone(lab.ledgers.get(state.ledger)));
                    let epoch_of = |record| lab.record(record).epoch().0;
                    ledger.note(speaker, news, epoch_of, |epoch| decided(&service, epoch));
                    self.mark_news(lab, news);
                }
            }
        }
        if let Some(ledger) = ledger {
            state.ledger = lab.ledgers.number(ledger);
        }
    }

    fn mark_news(&self, lab: &Lab, news: &News) {
        if let News::Committed(records, _) = news {
            let commands =
                |record: &u16| lab.record(*record).kind() == standfast_wal::Kind::Commands;
            if records.iter().any(commands) {
                self.mark(Mark::WriteCommitted);
            }
            let start = &lab.ledgers.get(self.begin.ledger).truth;
            let epoch = |record: Option<&u16>| record.map(|record| lab.record(*record).epoch());
            if epoch(records.last()) > epoch(start.last()) {
                self.mark(Mark::Failover);
            }
        }
    }

    fn choose(&self, lab: &mut Lab, state: &mut State, offer: u16) {
        let offer = lab.offers.get(offer.into()).clone();
        let service = lab.services.get(state.service).clone();
        let (before, after) = (&service.current, &offer.wanted);
        let mut ledger = Ledger::clone(lab.ledgers.get(state.ledger));
        if after.epoch > before.epoch {
            // I5: only from the sync set, and of this very Config.
            if !before.sync_set.contains(&after.primary) {
                let story = format!("n{} is not in the sync set", after.primary);
                ledger.fail(Broken::I5, story);
            }
        } else if before.primary != after.primary {
            ledger.fail(Broken::I3, "a primary without an epoch".to_string());
        }
        if after.sync_set.len() < before.sync_set.len() {
            self.mark(Mark::SetShrunk);
        } else if after.sync_set.len() > before.sync_set.len() {
            self.mark(Mark::SetGrown);
        }
        let mut past = service.past.clone();
        past.push(before.clone());
        let current = after.clone();
        if state.offers.len() > 1 {
            self.mark(Mark::RaceLost);
        }
        let others = state.offers.iter().copied();
        let live = |offer: &u16| lab.offers.get((*offer).into()).expected == current;
        state.offers = others.filter(live).collect();
        state.service = lab.services.number(Service { current, past });
        state.ledger = lab.ledgers.number(ledger);
    }

    /// Takes dead letters out, and looks at what no single node can see.
    fn settle(&self, lab: &mut Lab, state: &mut State) {
        let facts = |id: u8| &lab.facts[state.sites[usize::from(id - 1)] as usize];
        let live = |number: &u16| {
            let letter = lab.letters.get((*number).into());
            let (from, to) = (facts(letter.from), facts(letter.to));
            !letter.is_dead(&from.standing, &to.standing)
        };
        if !state.net.iter().all(live) {
            state.net = state.net.iter().copied().filter(|n| live(n)).collect();
        }
        // I1: every fence quorum of the newest Config has whatever is committed, on its disk.
        let config = &lab.services.get(state.service).current;
        let truth = &lab.ledgers.get(state.ledger).truth;
        let holds = |id: &&NodeId| {
            let log = &facts(u8::try_from(id.0).expect("small worlds")).log;
            log.len() >= truth.len() && log[..truth.len()] == truth[..]
        };
        let holders = config.sync_set.iter().filter(holds).count();
        let needed = (config.acks_needed as usize).min(config.sync_set.len());
        if holders < needed {
            let story = format!(
                "{holders} of {:?} hold what is committed, {needed} must",
                config.sync_set
            );
            let mut ledger = Ledger::clone(lab.ledgers.get(state.ledger));
            ledger.fail(Broken::I1, story);
            state.ledger = lab.ledgers.number(ledger);
        }
    }

    pub fn after(&self, state: &State, act: Act) -> Option<State> {
        let lab = &mut *self.lab();
        let mut next = state.clone();
        match act {
            Act::At(id, what @ Happening::Deliver(letter)) => {
                next.net = next
                    .net
                    .iter()
                    .copied()
                    .filter(|other| *other != letter)
                    .collect();
                let taken = next.clone();
                self.at(lab, &mut next, id, what)?;
                // Nothing came of it: as if it were still to arrive, which allows for more.
                if next == taken {
                    return None;
                }
            }
            Act::At(id, what) => self.at(lab, &mut next, id, what)?,
            Act::Doubled(id, letter) => {
                self.at(lab, &mut next, id, Happening::Deliver(letter))?;
                if next == *state {
                    return None;
                }
                next.left.doubles -= 1;
            }
            Act::Choose(offer) => self.choose(lab, &mut next, offer),
        }
        self.settle(lab, &mut next);
        (next != *state).then_some(next)
    }

    pub fn acts(&self, state: &State, acts: &mut Vec<Act>) {
        let lab = &*self.lab();
        if lab.ledgers.get(state.ledger).broken.is_some() {
            return;
        }
        for (at, _) in self.ids() {
            self.local(lab, state, at, acts);
        }
        for number in &state.net {
            let to = lab.letters.get((*number).into()).to;
            let facts: &Facts = &lab.facts[state.sites[usize::from(to - 1)] as usize];
            if facts.running {
                acts.push(Act::At(to, Happening::Deliver(*number)));
                if state.left.doubles > 0 {
                    acts.push(Act::Doubled(to, *number));
                }
            }
        }
        acts.extend(state.offers.iter().map(|offer| Act::Choose(*offer)));
    }

    pub fn broken(&self, state: &State) -> Option<(Broken, String)> {
        self.lab().ledgers.get(state.ledger).broken.clone()
    }
}

/// The primary that the register has chosen for an epoch.
fn decided(service: &Service, epoch: u64) -> Option<u8> {
    let mut all = [&service.current].into_iter().chain(&service.past);
    let chosen = all.find(|value| value.epoch.0 == epoch);
    chosen.map(|value| u8::try_from(value.primary.0).expect("small worlds"))
}

fn spend(left: &mut Budget, what: Happening) -> Option<()> {
    let purse = match what {
        Happening::Crash => &mut left.crashes,
        Happening::Write => &mut left.writes,
        Happening::Read(_) => &mut left.reads,
        Happening::Tick => &mut left.ticks,
        Happening::HandOver(_) => &mut left.handovers,
        Happening::Refused(_) => &mut left.refusals,
        _ => return Some(()),
    };
    *purse = purse.checked_sub(1)?;
    Some(())
}

impl Model for World {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin.clone()]
    }

    fn actions(&self, state: &State, acts: &mut Vec<Act>) {
        self.acts(state, acts);
    }

    fn next_state(&self, state: &State, act: Act) -> Option<State> {
        self.after(state, act)
    }

    fn properties(&self) -> Vec<Property<World>> {
        self.properties.clone()
    }
}
