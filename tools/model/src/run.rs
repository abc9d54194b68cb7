//! Explores one world and says what was found.

use crate::site::{Broken, Happening, Mark};
use crate::world::{Act, State, World};
use crate::worlds::Named;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::time::{Duration, Instant};

pub struct Found {
    pub name: &'static str,
    /// Transitions that were followed, and different states that they led to.
    pub steps: usize,
    pub states: usize,
    pub depth: usize,
    pub complete: bool,
    pub took: Duration,
    /// An invariant that was broken, and the way there.
    pub broken: Option<Vec<String>>,
    /// What should have been seen, and was not.
    pub missing: Vec<Mark>,
}

impl Found {
    pub fn is_good(&self) -> bool {
        self.broken.is_none() && self.missing.is_empty()
    }
}

macro_rules! holds {
    ($($kind:ident $name:literal),*) => {
        vec![$(Property::always($name, |world: &World, state: &State| {
            world.broken(state).is_none_or(|(broken, _)| broken != Broken::$kind)
        })),*]
    };
}

fn properties() -> Vec<Property<World>> {
    holds![
        I1 "I1: what is committed is on every fence quorum, and in the log of every later primary",
        I3 "I3: one primary per epoch; epochs of committed records never fall",
        I4 "I4: a read sees what was committed before it came in",
        I5 "I5: no primary from outside the sync set, or undecided",
        I6 "I6: what is not committed is not shown",
        Halted "no node halts",
        Panicked "no assertion of the core fails",
        Script "the beginning is possible"
    ]
}

/// Explores it, to at most so many steps.
pub fn explore(named: &Named, bound: usize) -> Found {
    let mut world = (named.make)(named.name);
    world.wanted = named.wanted;
    world.properties = properties();
    #[expect(
        clippy::disallowed_methods,
        reason = "how long the exploration itself takes"
    )]
    let begun = Instant::now();
    let checker = world
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(bound)
        .spawn_bfs()
        .join();
    let world = checker.model();
    let way = checker.discoveries().into_values().next();
    let broken = way.map(|path| tell(world, &path.into_actions()));
    let missing = world
        .wanted
        .iter()
        .copied()
        .filter(|mark| !world.has(*mark));
    // What breaks ends early.
    let missing = match broken {
        Some(_) => Vec::new(),
        None => missing.collect(),
    };
    Found {
        name: named.name,
        steps: checker.state_count(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        complete: checker.state_count() < bound,
        took: begun.elapsed(),
        broken,
        missing,
    }
}

/// The way to a state, act by act.
pub fn tell(world: &World, acts: &[Act]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut state = world.begin.clone();
    for act in acts {
        lines.push(describe(world, *act));
        match world.after(&state, *act) {
            Some(next) => state = next,
            None => lines.push("(which does nothing)".to_string()),
        }
        lines.push(format!("      {}", picture(world, &state)));
    }
    if let Some((broken, story)) = world.broken(&state) {
        lines.push(format!("{broken:?}: {story}"));
    }
    lines
}

fn describe(world: &World, act: Act) -> String {
    let lab = world.lab();
    match act {
        Act::At(id, Happening::Deliver(letter)) => {
            let letter = lab.letters.get(letter.into());
            format!("n{} -> n{id} {}", letter.from, letter.message)
        }
        Act::Doubled(id, letter) => {
            let letter = lab.letters.get(letter.into());
            format!(
                "n{} -> n{id} {} (and it will come again)",
                letter.from, letter.message
            )
        }
        Act::At(id, what) => format!("n{id} {what:?}"),
        Act::Choose(offer) => {
            let offer = lab.offers.get(offer.into());
            let (config, set) = (&offer.wanted, &offer.wanted.sync_set);
            format!(
                "the register takes v{}: epoch {}, n{} primary, sync set {:?}, {} needed",
                config.version, config.epoch, config.primary, set, config.acks_needed
            )
        }
    }
}

/// All nodes in one line.
fn picture(world: &World, state: &State) -> String {
    let lab = world.lab();
    let mut words = Vec::new();
    for (id, site) in (1..=world.nodes).zip(&state.sites) {
        let site = lab.sites.get(*site);
        let log = site.written();
        let epochs: Vec<String> = log.iter().map(|r| r.epoch().to_string()).collect();
        let disk = site.disk.log.len();
        let role = match &site.process {
            None => "down".to_string(),
            Some(process) => {
                let replica = &process.replica;
                let role = match (replica.is_primary(), replica.attempt().is_some()) {
                    (true, _) => "primary",
                    (_, true) => "candidate",
                    _ => "backup",
                };
                format!(
                    "{role} fence {} commit {}",
                    replica.fence(),
                    replica.commit()
                )
            }
        };
        words.push(format!(
            "n{id} {role} log [{}] {disk} durable",
            epochs.join(" ")
        ));
    }
    words.join(" | ")
}
