//! The off-site archive of a world: the production archivers of all nodes over one store that is
//! slow, is away now and then, and loses answers.

use super::check::offsite as check;
use super::node::Process;
use super::nodes::Node;
use super::plan::Tuning;
use super::queue::Happening;
use super::random::Random;
use super::world::{MS, World};
use standfast::node::archive::ArchiveSettings;
use standfast::node::archiver::{Archiver, Committed, Order};
use standfast::node::clock::Now;
use standfast::node::engine::Event;
use standfast::replication::Config;
use standfast_snapshot::store::Memory;
use standfast_snapshot::{Recipients, Shared};
use std::sync::Arc;
use std::time::Duration;

/// The store, and how it behaves.
pub struct Offsite {
    pub store: Arc<Memory>,
    /// Nanoseconds that a round takes.
    latency: [u64; 2],
    /// Between one of its troubles and the next.
    trouble: Option<[u64; 2]>,
    random: Random,
}

impl Offsite {
    /// One run in four has one.
    pub fn draw(mut random: Random) -> Option<(Offsite, ArchiveSettings)> {
        if !random.one_in(4) {
            return None;
        }
        let slowest = random.pick(&[5 * MS, 50 * MS, 400 * MS]);
        let settings = ArchiveSettings {
            interval: Duration::from_millis(random.scaled(20, 2000)),
            verify_interval: Duration::ZERO,
            drill_interval: Duration::ZERO,
            required: false,
        };
        let offsite = Offsite {
            store: Arc::default(),
            latency: [slowest / 10, slowest],
            trouble: (!random.one_in(4)).then(|| random.pick(&[[MS, 500 * MS], [MS, 5000 * MS]])),
            random,
        };
        Some((offsite, settings))
    }

    fn is_well(&self) {
        self.store.set_down(false);
        self.store.lose_answers(false);
        self.store.deny_puts(0);
    }
}

/// What `node::ship` is for real: an archiver, and the newest order that it was given.
pub struct Shipping {
    archiver: Archiver,
    order: Option<Box<Order>>,
    is_busy: bool,
}

impl Shipping {
    pub fn new(offsite: &Offsite, settings: &ArchiveSettings) -> Shipping {
        Shipping {
            archiver: Archiver::with_store(
                offsite.store.clone(),
                settings.interval,
                Recipients::default(),
            ),
            order: None,
            is_busy: false,
        }
    }

    /// True when a round begins.
    pub fn tell(&mut self, order: Option<Box<Order>>) -> bool {
        if order.is_none() {
            self.archiver.stand_down();
        }
        self.order = order;
        self.order.is_some() && !std::mem::replace(&mut self.is_busy, true)
    }

    /// The store has had its time.
    pub fn done(&mut self, log: &impl Committed, now: Now) -> Option<Event> {
        self.is_busy = false;
        let order = self.order.take()?;
        self.archiver.round(&order, log, now);
        let standing = self.archiver.standing().clone();
        Some(Event::Archived(Box::new(standing)))
    }
}

impl Process {
    /// This process archives, if the world has an archive and it keeps a log.
    pub fn archives(&mut self, offsite: Option<&Offsite>, tuning: &Tuning) {
        let settings = tuning.engine.archive.as_ref();
        let both = offsite
            .zip(settings)
            .filter(|_| self.log_reader().is_some());
        self.shipping = both.map(|(offsite, settings)| Shipping::new(offsite, settings));
    }

    /// The archive's store has had its time.
    fn shipped(&mut self, now: Now) -> Vec<Event> {
        let log = self.log_reader();
        let shipping = self.shipping.as_mut().zip(log);
        let event = shipping.and_then(|(shipping, log)| shipping.done(&log, now));
        event.into_iter().collect()
    }
}

impl World {
    /// A node's archiver begins with a round.
    pub fn ship(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let offsite = self.offsite.as_mut().expect("it has an archiver");
        let wait = offsite
            .random
            .between(offsite.latency[0], offsite.latency[1]);
        self.after(wait, Happening::Shipped { node, life });
    }

    pub fn shipped(&mut self, node: usize, life: u64) -> Result<(), String> {
        let now = self.clock(node);
        let this: &mut Node = &mut self.nodes[node];
        if this.paused {
            // It goes on when it wakes, and does not know how long it slept.
            self.after(10 * MS, Happening::Shipped { node, life });
            return Ok(());
        }
        let Some(process) = this.process.as_mut().filter(|_| this.life == life) else {
            return Ok(());
        };
        let events = process.shipped(now);
        let offsite = self.offsite.as_mut().expect("it has an archiver");
        self.summary.archive_rounds += 1;
        self.observer.archived(&offsite.store)?;
        if !self.faults.jumps_clocks() {
            for event in &events {
                if let Event::Archived(standing) = event {
                    self.observer.restorable(self.now, now.wall, standing)?;
                }
            }
        }
        self.turn(node, events)
    }

    /// Everything that the cluster has is in the archive; it may take a while, and no more.
    pub fn is_archived(&self, config: &Config) -> bool {
        let Some(offsite) = &self.offsite else {
            return true;
        };
        let store: Shared = offsite.store.clone();
        let told = self
            .observer
            .told_by(config.history, self.quiet.unwrap_or(self.now));
        check::reach(&store, config.history) >= told
    }

    pub fn archive_ends(&mut self) -> Result<(), String> {
        let Some(offsite) = &self.offsite else {
            return Ok(());
        };
        self.summary.archive_objects += offsite.store.names().len() as u64;
        offsite.is_well();
        let store: Shared = offsite.store.clone();
        check::is_sound(&store)
    }

    /// The store gets into trouble, or out of it.
    pub fn store_changes(&mut self) {
        let is_calm = self.calm.is_some();
        let Some(offsite) = &mut self.offsite else {
            return;
        };
        offsite.is_well();
        let Some([low, high]) = offsite.trouble.filter(|_| !is_calm) else {
            return;
        };
        match offsite.random.below(6) {
            0 | 1 => offsite.store.set_down(true),
            2 => offsite.store.lose_answers(true),
            3 => offsite.store.deny_puts(3),
            _ => {}
        }
        let wait = offsite.random.between(low, high);
        self.after(wait, Happening::Store);
    }
}
