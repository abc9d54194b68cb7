//! The off-site archive of a world: a store that is slow, is away now and then, loses answers, and
//! stops in the middle of what is asked of it; who puts there, what expires, what is restored.

mod copy;
mod restore;
mod shipping;

use super::queue::Happening;
use super::random::Random;
use super::world::{MS, World};
use standfast::node::archive::ArchiveSettings;
use standfast::replication::Config;
use standfast_snapshot::retention::{Policy, expire};
use standfast_snapshot::store::Memory;
use standfast_snapshot::{Shared, archive, catalogue};
use standfast_wal::Lsn;
use std::sync::Arc;
use std::time::Duration;

use copy::Copy;
pub use shipping::Shipping;

/// What the store's clock says at first; ns since 1970.
const EPOCH: u64 = 1_700_000_000 * 1000 * MS;

const QUICK: [u64; 2] = [MS / 2, 5 * MS];

/// The store, and how it behaves.
pub struct Offsite {
    pub store: Arc<Memory>,
    /// Nanoseconds that a round takes, or one object.
    latency: [u64; 2],
    /// Between one of its troubles and the next.
    trouble: Option<[u64; 2]>,
    /// Between one removal of what need not be kept and the next.
    expiry: Option<[u64; 2]>,
    next_expiry: u64,
    /// Between one restore and the next.
    restores: [u64; 2],
    /// What was restored and is open beside the cluster.
    copy: Option<Copy>,
    random: Random,
}

impl Offsite {
    /// One run in four has one.
    pub fn draw(mut random: Random, of_rules: &mut Random) -> Option<(Offsite, ArchiveSettings)> {
        if !random.one_in(4) {
            return None;
        }
        let slowest = random.pick(&[QUICK[1], 50 * MS, 400 * MS]);
        let settings = ArchiveSettings {
            interval: Duration::from_millis(random.scaled(20, 2000)),
            verify_interval: Duration::ZERO,
            drill_interval: Duration::ZERO,
            required: of_rules.one_in(3),
        };
        let offsite = Offsite {
            store: Arc::default(),
            latency: [slowest / 10, slowest],
            trouble: (!random.one_in(4)).then(|| random.pick(&[[MS, 500 * MS], [MS, 5000 * MS]])),
            expiry: random
                .one_in(2)
                .then(|| random.pick(&[[100 * MS, 2000 * MS], [1000 * MS, 10_000 * MS]])),
            next_expiry: 0,
            restores: [500 * MS, 7000 * MS],
            copy: None,
            random,
        };
        Some((offsite, settings))
    }

    /// As quick as any: a snapshot of very many segments is put within the time that is left.
    pub fn hasten(&mut self) {
        self.latency = QUICK;
    }

    fn is_well(&self) {
        self.store.set_down(false);
        self.store.lose_answers(false);
        self.store.deny_puts(0);
    }

    /// The store has a clock of its own.
    fn at(&mut self, now: u64) -> &mut Offsite {
        self.store.set_time(EPOCH + now);
        self
    }

    fn wait(&mut self) -> u64 {
        self.random.between(self.latency[0], self.latency[1])
    }

    /// Now and then the store answers no more from some call on, in the middle of what is asked.
    fn may_stop(&mut self, is_calm: bool, calls: u64) {
        if !is_calm && self.trouble.is_some() && self.random.one_in(12) {
            self.store.answer(self.random.below(calls));
        }
    }
}

impl World {
    pub fn archive_begins(&mut self) {
        let Some(offsite) = &mut self.offsite else {
            return;
        };
        let first = offsite.random.below(offsite.restores[1]);
        let expires = offsite.expiry.is_some();
        self.after(first, Happening::Restore);
        self.after(1000 * MS, Happening::Store);
        if expires {
            self.after(1000 * MS, Happening::Expire);
        }
    }

    /// Everything that the cluster has can be restored; it may take a while, and no more.
    pub fn is_archived(&mut self, config: &Config) -> Result<bool, String> {
        let Some(offsite) = &self.offsite else {
            return Ok(true);
        };
        self.observer.archived(&offsite.store)?;
        let time = self.quiet.unwrap_or(self.now);
        let told = self.observer.told_by(config.history, time);
        // Whoever died while he removed something keeps what he had marked from being put.
        let is_held = self.observer.removal_is_under_way();
        // What it was founded on is put there, too, whether or not anything came of it.
        let founded = config.ancestors.last().map_or(Lsn::ZERO, |past| past.end);
        let wanted = told.max(founded);
        Ok(is_held || self.observer.restorable_through(config.history) >= wanted)
    }

    pub fn archive_ends(&mut self) -> Result<(), String> {
        let Some(offsite) = &self.offsite else {
            return Ok(());
        };
        offsite.is_well();
        let store = offsite.store.clone();
        self.summary.archive_objects += store.count();
        self.observer.archived(&store)?;
        let time = self.quiet.unwrap_or(self.now);
        self.observer
            .archive_is_sound(&store, self.is_whole, time)?;
        self.restore_last()
    }

    /// A node is about to drop log up to here.
    pub fn trims(&mut self, node: usize, through: Option<Lsn>) -> Result<(), String> {
        let Some(through) = through else {
            return Ok(());
        };
        let settings = self.plan.tuning.engine.archive.as_ref();
        let Some(offsite) = self
            .offsite
            .as_ref()
            .filter(|_| settings.is_some_and(|a| a.required))
        else {
            return Ok(());
        };
        self.observer.archived(&offsite.store)?;
        self.observer.may_trim(node, &self.nodes, through)
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

    /// A snapshot is being put, and what it needs is not needed yet; or it is there, and whoever
    /// archives may not know.
    fn expire_meanwhile(&mut self, is_under_way: bool) {
        let offsite = self.offsite.as_mut().expect("something is put there");
        let one_in = if is_under_way { 16 } else { 2 };
        if self.calm.is_none() && offsite.expiry.is_some() && offsite.random.one_in(one_in) {
            self.queue.push(self.now, Happening::Expire);
        }
    }

    /// An operator removes what need not be kept, and may be interrupted anywhere.
    pub fn expire(&mut self) -> Result<(), String> {
        let now = self.clock(0).wall;
        let Some(offsite) = &mut self.offsite else {
            return Ok(());
        };
        let Some([low, high]) = offsite.expiry.filter(|_| self.calm.is_none()) else {
            return Ok(());
        };
        // Those that come beside a snapshot set off none of their own.
        if self.now >= offsite.next_expiry {
            offsite.next_expiry = self.now + offsite.random.between(low, high);
            self.queue.push(offsite.next_expiry, Happening::Expire);
        }
        let policy = Policy {
            keep_full: offsite.random.index(3),
            keep_for_ns: offsite.random.pick(&[0, 0, 1000 * MS, 10_000 * MS]),
        };
        let is_ill = offsite.store.is_ill();
        if offsite.random.one_in(2) {
            offsite.store.answer(offsite.random.below(60));
        }
        let nonce = offsite.random.wide();
        let store: Shared = offsite.at(self.now).store.clone();
        let removed = catalogue::read(&store, super::world::CLUSTER).and_then(|listed| {
            let expiry = expire(&listed, policy, listed.now_by(now));
            let gone = archive::remove(&store, &listed, &expiry, nonce, &|| true)?;
            Ok(gone.all().count())
        });
        let was_stopped = offsite.store.answer_all();
        let store = offsite.store.clone();
        match removed {
            Ok(count) => self.summary.archive_expired += count as u64,
            Err(_) if was_stopped || is_ill => {}
            Err(error) => return Err(format!("what may go from the archive did not: {error}")),
        }
        self.say(|| format!("an operator expires {policy:?}, stopped: {was_stopped}"));
        self.observer.expired(&store)
    }
}
