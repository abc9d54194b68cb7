//! What `node::ship` is for real: a worker, what it was told, and the snapshot that is being put.

use super::Offsite;
use crate::simulate::node::Process;
use crate::simulate::plan::Tuning;
use crate::simulate::queue::Happening;
use crate::simulate::world::{MS, World};
use standfast::node::archive::ArchiveSettings;
use standfast::node::archiver::worker::{Words, Worker};
use standfast::node::archiver::{Archiver, Order};
use standfast::node::clock::Now;
use standfast::node::engine::Event;
use standfast_snapshot::Recipients;
use standfast_snapshot::archive::Upload;
use standfast_wal::SimDisk;

pub struct Shipping {
    worker: Worker,
    words: Words,
    is_busy: bool,
    upload: Option<Upload<SimDisk>>,
}

impl Shipping {
    fn new(offsite: &Offsite, settings: &ArchiveSettings) -> Shipping {
        let store = offsite.store.clone();
        let archiver = Archiver::with_store(store, settings.interval, Recipients::default());
        Shipping {
            worker: Worker::new(archiver, false),
            words: Words::default(),
            is_busy: false,
            upload: None,
        }
    }

    /// True when a round begins.
    pub fn tell(&mut self, order: Option<Box<Order>>) -> bool {
        self.words.order(order);
        self.wakes()
    }

    fn wakes(&mut self) -> bool {
        !self.words.are_none() && !std::mem::replace(&mut self.is_busy, true)
    }

    /// Puts the next object of a snapshot; true while there is more to do.
    fn put(&mut self) -> bool {
        let Some(upload) = &mut self.upload else {
            return false;
        };
        let ended = match upload.step() {
            Ok(false) => return true,
            Ok(true) => Ok(upload.sent()),
            Err(error) => Err(error.to_string()),
        };
        self.words.uploaded = Some(ended);
        self.upload = None;
        false
    }
}

/// What comes of a round.
#[derive(Default)]
struct Round {
    event: Option<Event>,
    begins_upload: bool,
    wakes: bool,
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

    fn archive_round(&mut self, now: Now) -> Round {
        let log = self.log_reader();
        let Some((shipping, log)) = self.shipping.as_mut().zip(log) else {
            return Round::default();
        };
        shipping.is_busy = false;
        let words = std::mem::take(&mut shipping.words);
        let done = shipping.worker.turn(words, &log, &|| now);
        match done.upload.map(|upload| upload.begin(&self.dir)) {
            Some(Ok(upload)) => shipping.upload = Some(upload),
            Some(Err(why)) => shipping.words.uploaded = Some(Err(why)),
            None => {}
        }
        Round {
            event: done.standing.map(Event::Archived),
            begins_upload: shipping.upload.is_some(),
            wakes: shipping.wakes(),
        }
    }
}

impl World {
    /// A node's archiver begins with a round.
    pub fn ship(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let wait = self.offsite.as_mut().expect("it has an archiver").wait();
        self.after(wait, Happening::Shipped { node, life });
    }

    pub fn shipped(&mut self, node: usize, life: u64) -> Result<(), String> {
        let now = self.clock(node);
        let this = &mut self.nodes[node];
        if this.paused {
            // It goes on when it wakes, and does not know how long it slept.
            self.after(10 * MS, Happening::Shipped { node, life });
            return Ok(());
        }
        let Some(process) = this.process.as_mut().filter(|_| this.life == life) else {
            return Ok(());
        };
        let had_upload = process
            .shipping
            .as_ref()
            .is_some_and(|s| s.upload.is_some());
        let offsite = self.offsite.as_mut().expect("it has an archiver");
        offsite.at(self.now).may_stop(self.calm.is_some(), 20);
        let round = process.archive_round(now);
        self.summary.archive_rounds += 1;
        if self.dies_with_the_store(node)? {
            return Ok(());
        }
        if round.begins_upload && !had_upload {
            self.put_later(node, life);
        }
        if round.wakes {
            self.ship(node);
        }
        if let Some(Event::Archived(standing)) = &round.event
            && !self.faults.jumps_clocks()
        {
            self.observer.restorable(self.now, now.wall, standing)?;
        }
        self.turn(node, round.event.into_iter().collect())
    }

    fn put_later(&mut self, node: usize, life: u64) {
        let wait = self.offsite.as_mut().expect("it has an archiver").wait();
        self.after(wait, Happening::Put { node, life });
    }

    /// One object of a snapshot has had its time.
    pub fn put_object(&mut self, node: usize, life: u64) -> Result<(), String> {
        let this = &mut self.nodes[node];
        if this.paused {
            self.after(10 * MS, Happening::Put { node, life });
            return Ok(());
        }
        let process = this.process.as_mut().filter(|_| this.life == life);
        let Some(shipping) = process.and_then(|process| process.shipping.as_mut()) else {
            return Ok(());
        };
        let offsite = self.offsite.as_mut().expect("it has an archiver");
        offsite.at(self.now).may_stop(self.calm.is_some(), 4);
        let has_more = shipping.put();
        let wakes = shipping.wakes();
        if self.dies_with_the_store(node)? {
            return Ok(());
        }
        if has_more {
            self.put_later(node, life);
        }
        self.expire_meanwhile(has_more);
        if wakes {
            self.ship(node);
        }
        Ok(())
    }

    /// Looks at what was put. Where the store stopped in the middle of it, its process may be dead.
    fn dies_with_the_store(&mut self, node: usize) -> Result<bool, String> {
        let offsite = self.offsite.as_mut().expect("it has an archiver");
        let was_stopped = offsite.store.answer_all();
        let dies = was_stopped && self.calm.is_none() && offsite.random.one_in(2);
        let wait = offsite.random.scaled(MS, 2000 * MS);
        self.observer.archived(&offsite.store)?;
        if dies {
            self.say(|| format!("n{node} dies while it puts something into the archive"));
            self.crash(node);
            self.after(wait, Happening::Restart { node });
        }
        Ok(dies)
    }
}
