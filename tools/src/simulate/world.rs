//! The world of one run: nodes, pipes, clients, operators, faults, all under one virtual clock.

use super::check::Observer;
use super::check::kept::Kept;
use super::clients::Clients;
use super::faults::{Faults, Kinds};
use super::net::Net;
use super::nodes::Node;
use super::offsite::Offsite;
use super::operators::Operators;
use super::plan::Plan;
use super::queue::{Happening, Queue};
use super::random::Random;
use super::summary::{Digest, Summary};
use standfast::node::client::Control;
use standfast_wal::{ClusterId, Epoch, History};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
pub const CLUSTER: ClusterId = ClusterId(0x5746);
pub const CLUSTER_NAME: &str = "sim";
/// After the faults have ended the cluster must serve and be equal within this.
pub const HEAL: u64 = 150 * SECOND;

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub seed: u64,
    /// Virtual nanoseconds of faults.
    pub faults: u64,
    pub trace: bool,
    /// Kinds of faults that do not strike.
    pub without: Kinds,
}

/// Randomness, in streams of their own: leaving out one kind of fault leaves the rest of a run as
/// like as can be.
pub struct Dice {
    pub net: Random,
    pub disk: Random,
    pub nodes: Random,
    pub faults: Random,
    pub clients: Random,
    /// What clients ask of the ledger, in the runs that have one: the others are as they were.
    pub ledger: Random,
    /// What checks draw, so that a run is the same with them or without.
    pub check: Random,
}

pub struct World {
    pub order: Order,
    pub plan: Plan,
    pub dice: Dice,
    pub now: u64,
    pub queue: Queue,
    pub nodes: Vec<Node>,
    pub net: Net,
    pub clients: Clients,
    pub operators: Operators,
    pub faults: Faults,
    pub offsite: Option<Offsite>,
    pub observer: Observer,
    /// By node.
    pub kept: Vec<Kept>,
    pub summary: Summary,
    /// Since when no fault strikes.
    pub calm: Option<u64>,
    /// Since when nobody asks for anything any more: the last copies become equal.
    pub quiet: Option<u64>,
    /// Who leads in the calm, and since when it was seen to serve.
    pub reign: Option<((History, Epoch), u64)>,
    /// More disks are lost than the promises allow for: the run ends here.
    pub beyond_promises: bool,
    /// The run came to its end: everything was whole and equal.
    pub is_whole: bool,
    /// Over everything that happens and comes out.
    pub digest: Digest,
}

/// What came of a run that broke no promise.
#[derive(Clone, PartialEq, Debug)]
pub struct Ended {
    pub summary: Summary,
    /// Equal for equal seeds, else the simulator is not deterministic.
    pub digest: u64,
}

/// Runs one seed; the story of what must not be, if it was.
pub fn run(order: Order) -> Result<Ended, String> {
    standfast_wal::mark::reset();
    let mut world = World::new(order);
    world.queue.push(order.faults, Happening::Calm);
    world.go()?;
    world.observer.end(&world.nodes, &mut world.summary)?;
    world.archive_ends()?;
    world.summary.marks = standfast_wal::mark::counts().to_vec();
    world.digest.add(world.dice.net.next());
    Ok(Ended {
        digest: world.digest.value(),
        summary: world.summary,
    })
}

impl World {
    fn new(order: Order) -> World {
        let mut random = Random::new(order.seed);
        let mut plan = Plan::draw(&mut random);
        // Of randomness of its own: the runs without are as they were.
        let offsite = Offsite::draw(
            Random::new(order.seed.rotate_left(16)),
            &mut Random::new(order.seed.rotate_left(48)),
        )
        .map(|(it, settings)| {
            plan.tuning.engine.archive = Some(settings);
            it
        });
        let mut stream = || Random::new(random.next());
        let mut dice = Dice {
            net: stream(),
            disk: stream(),
            nodes: stream(),
            faults: stream(),
            clients: stream(),
            ledger: Random::new(order.seed.rotate_left(32)),
            check: Random::new(!order.seed),
        };
        let mut faults = stream();
        let nodes: Vec<Node> = (0..plan.nodes.len())
            .map(|place| Node::new(&plan, place, &mut random))
            .collect();
        let clients = Clients::new(&plan, &mut dice.ledger);
        let mut world = World {
            order,
            dice,
            now: 0,
            queue: Queue::default(),
            net: Net::new(nodes.len()),
            clients,
            operators: Operators::default(),
            faults: Faults::draw(&mut faults, order.without),
            offsite,
            observer: Observer::new(&plan),
            kept: vec![Kept::default(); nodes.len()],
            summary: Summary::default(),
            calm: None,
            quiet: None,
            reign: None,
            beyond_promises: false,
            is_whole: false,
            digest: Digest::default(),
            nodes,
            plan,
        };
        world.say(|| format!("{:#?}", world.plan));
        for node in 0..world.plan.members {
            world.queue.push(0, Happening::Restart { node });
        }
        for client in 0..world.plan.clients {
            world.queue.push(10 * MS, Happening::Client { client });
        }
        world.queue.push(500 * MS, Happening::Fault);
        world.archive_begins();
        if world.plan.operator_pause.is_some() {
            world.queue.push(SECOND, Happening::Operator);
        }
        world
    }

    pub fn after(&mut self, wait: u64, happening: Happening) {
        self.queue.push(self.now + wait, happening);
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.order.trace {
            println!("{:>12.6} {}", self.now as f64 / 1e9, text());
        }
    }

    fn go(&mut self) -> Result<(), String> {
        while let Some((time, happening)) = self.queue.pop() {
            self.now = time;
            self.summary.events += 1;
            if time > self.order.faults + HEAL {
                if self.hangs_on_lost_voters() {
                    self.summary.beyond_promises += 1;
                    break;
                }
                return Err(self.story_of_no_calm());
            }
            let is_time_to_look = self.calm.is_some() && self.summary.events.is_multiple_of(64);
            self.happen(happening)?;
            if self.beyond_promises {
                self.summary.beyond_promises += 1;
                break;
            }
            if is_time_to_look && self.is_over()? {
                self.is_whole = true;
                break;
            }
        }
        self.summary.virtual_ns = self.now;
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        self.digest.add(self.now);
        match happening {
            Happening::Wake { node } => self.wake(node),
            Happening::Arrive { pipe } => self.arrive(pipe),
            Happening::LogDone { node, life } => self.log_done(node, life),
            Happening::MetaDone { node, life } => self.meta_done(node, life),
            Happening::Shipped { node, life } => self.shipped(node, life),
            Happening::Put { node, life } => self.put_object(node, life),
            Happening::Expire => self.expire(),
            Happening::Restore => self.restore_something(),
            Happening::Copy => self.copy_wakes(),
            Happening::Dial { from, to, ticket } => self.on_dial(from, to, ticket),
            Happening::Greeted {
                from,
                to,
                life,
                to_life,
            } => self.greeted(from, to, life, to_life),
            Happening::Broken { pipe } => self.broken(pipe),
            Happening::Restart { node } => self.restart(node),
            Happening::Resume { node } => self.resume(node),
            Happening::Gathered { node } => self.gathered(node),
            Happening::Again { pipe, event } => self.arrives_again(pipe, *event),
            Happening::Fault => self.fault(),
            Happening::Operator => self.operate(),
            Happening::Between { node } => self.ask_between(node),
            Happening::Save { node } => self.order(node, Control::Snapshot),
            Happening::Founds { node } => self.force(node),
            Happening::Founded { node } => self.ask_for_receipts(node),
            Happening::Gather => self.tell_to_rejoin(),
            Happening::Client { client } => self.client(client),
            other => {
                self.befall(other);
                Ok(())
            }
        }
    }

    /// What breaks no promise by itself.
    fn befall(&mut self, happening: Happening) {
        match happening {
            Happening::Store => self.store_changes(),
            Happening::Crash { node } => self.crash(node),
            Happening::Stop { node } => self.stop_short(node),
            Happening::Relay => self.relay_on(),
            Happening::Heal { partition } => self.heal(partition),
            Happening::Hasten { from, to } => self.net.hasten(from, to),
            Happening::Silence { node, span } => self.silence(node, span),
            Happening::Mend { node } => self.mend(node),
            Happening::GiveUp { client, step } => self.give_up(client, step),
            Happening::Calm => self.begin_calm(),
            other => unreachable!("{other:?} is for `happen`"),
        }
    }
}
