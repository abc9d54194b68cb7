//! The archiver's thread, and others beside it while a snapshot is put or the archive is proved.
//!
//! Shell only: it takes the newest order, waits after a failure, and tells the engine what became
//! of each round.

use crate::limits;
use crate::node::archiver::{Archiver, Drilled, Order, Proof, Upload, Verified};
use crate::node::engine::Event;
use crate::node::rehearsal::Rehearsal;
use crate::node::run::{now, random};
use crate::node::shelf;
use standfast_snapshot::Shared;
use standfast_wal::{ClusterId, Disk, Reader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What the thread is to take in next. Of orders only the newest counts, and of the jobs beside it
/// one of each kind runs: however long the store does not answer, nothing piles up.
#[derive(Default)]
struct Words {
    /// Another node archives, or did before the order.
    stand_down: bool,
    order: Option<Box<Order>>,
    uploaded: Option<Result<u64, String>>,
    proved: Option<Result<Verified, String>>,
    drilled: Option<Result<Drilled, String>>,
}

/// Where an archiver's thread waits for its orders.
#[derive(Clone, Default)]
pub struct Orders(Arc<(Mutex<Words>, Condvar)>);

impl Orders {
    /// `None`: another node archives.
    pub fn give(&self, order: Option<Box<Order>>) {
        self.tell(|words| {
            words.stand_down |= order.is_none();
            words.order = order;
        });
    }

    fn tell(&self, what: impl FnOnce(&mut Words)) {
        let (words, wake) = &*self.0;
        what(&mut words.lock().expect(NO_PANIC));
        wake.notify_one();
    }

    fn next(&self) -> Words {
        let (words, wake) = &*self.0;
        let is_idle = |words: &mut Words| {
            let has_ended =
                words.uploaded.is_some() || words.proved.is_some() || words.drilled.is_some();
            !words.stand_down && words.order.is_none() && !has_ended
        };
        let guard = words.lock().expect(NO_PANIC);
        let mut words = wake.wait_while(guard, is_idle).expect(NO_PANIC);
        std::mem::take(&mut *words)
    }
}

const NO_PANIC: &str = "no thread panics while it holds this";

/// Starts the thread; it ends with the node.
pub fn spawn(
    archiver: Archiver,
    rehearsal: Option<Rehearsal>,
    data: &Path,
    log: Reader<Disk>,
    events: UnboundedSender<Event>,
) -> Orders {
    let orders = Orders::default();
    let (own, data) = (orders.clone(), data.to_path_buf());
    crate::node::files::spawn("archive", move || {
        Thread {
            archiver,
            rehearsal,
            data,
            log,
            events,
            orders: own,
            failing: None,
        }
        .run();
    });
    orders
}

struct Thread {
    archiver: Archiver,
    rehearsal: Option<Rehearsal>,
    data: PathBuf,
    log: Reader<Disk>,
    events: UnboundedSender<Event>,
    orders: Orders,
    failing: Option<Failing>,
}

/// Since when rounds fail, and when the next is tried; ns of the clock that does not jump.
struct Failing {
    since: u64,
    retry_at: u64,
    wait: Duration,
}

impl Thread {
    fn run(mut self) {
        loop {
            let words = self.orders.next();
            if let Some(result) = words.uploaded {
                self.archiver.uploaded(result);
            }
            if let Some(result) = words.proved {
                self.archiver.proved(result);
            }
            if let Some(result) = words.drilled {
                self.archiver.drilled(result);
            }
            if words.stand_down {
                self.failing = None;
                self.archiver.stand_down();
            }
            let may_try = |failing: &Failing| failing.retry_at <= now().boot;
            if let Some(order) = words.order
                && self.failing.as_ref().is_none_or(may_try)
            {
                self.round(&order);
            }
        }
    }

    fn round(&mut self, order: &Order) {
        let is_done = self.archiver.round(order, &self.log, now());
        let mut standing = self.archiver.standing().clone();
        self.mind(!is_done);
        let failing_for = self
            .failing
            .as_ref()
            .map_or(0, |failing| now().boot.saturating_sub(failing.since));
        standing.is_failing = Duration::from_nanos(failing_for) > limits::ARCHIVE_FAILING_AFTER;
        // The engine is gone only when the process ends.
        let _ = self.events.send(Event::Archived(Box::new(standing)));
        if self.failing.is_none()
            && let Some(upload) = self.archiver.upload(order, now().wall)
        {
            self.upload(upload);
        }
        if self.failing.is_none()
            && let Some(proof) = self.archiver.proof(order, now().wall)
        {
            self.prove(proof);
        }
        if self.failing.is_none()
            && let Some(rehearsal) = &self.rehearsal
            && let Some(store) = self.archiver.drill(order, now().wall)
        {
            self.drill(rehearsal.clone(), store, order.card.cluster);
        }
    }

    /// Waits twice as long after each failure in a row.
    fn mind(&mut self, has_failed: bool) {
        if !has_failed {
            self.failing = None;
            return;
        }
        let boot = now().boot;
        let failing = self.failing.get_or_insert(Failing {
            since: boot,
            retry_at: boot,
            wait: limits::ARCHIVE_RETRY_MIN / 2,
        });
        failing.wait = (failing.wait * 2).min(limits::ARCHIVE_RETRY_MAX);
        failing.retry_at = boot + u64::try_from(failing.wait.as_nanos()).unwrap_or(u64::MAX);
    }

    /// One thread, so that clients hardly notice.
    fn prove(&self, proof: Proof) {
        let orders = self.orders.clone();
        crate::node::files::spawn("archive-verify", move || {
            let result = proof.run(&now, random());
            orders.tell(|words| words.proved = Some(result));
        });
    }

    /// The child dies when this thread does: with the process.
    fn drill(&self, rehearsal: Rehearsal, store: Shared, cluster: ClusterId) {
        let orders = self.orders.clone();
        crate::node::files::spawn("archive-drill", move || {
            let result = rehearsal.run(&store, cluster, now());
            orders.tell(|words| words.drilled = Some(result));
        });
    }

    fn upload(&self, upload: Upload) {
        let (data, orders) = (self.data.clone(), self.orders.clone());
        crate::node::files::spawn("archive-snapshot", move || {
            let name = shelf::name_of(upload.lsn);
            let path = crate::node::directory::snapshot_dir(&data).join(name);
            let put = upload.shipper.put_snapshot(&path);
            let result = put.map(|(_, bytes)| bytes).map_err(|e| e.to_string());
            orders.tell(|words| words.uploaded = Some(result));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::archive::NO_HISTORY;
    use standfast_snapshot::Card;
    use standfast_wal::Lsn;

    fn order(through: u64) -> Option<Box<Order>> {
        Some(Box::new(Order {
            card: Card {
                cluster: ClusterId(1),
                cluster_name: String::new(),
                history: NO_HISTORY,
                ancestors: Vec::new(),
            },
            through: Lsn(through),
            as_of_ns: 0,
            snapshot_lsn: None,
            is_verify_due: false,
            is_drill_due: false,
        }))
    }

    #[test]
    fn what_waits_for_a_thread_that_is_away_is_bounded_and_nothing_is_forgotten() {
        let orders = Orders::default();
        orders.give(None);
        for through in 0..1000 {
            orders.give(order(through));
        }
        orders.tell(|words| words.uploaded = Some(Ok(7)));
        let words = orders.next();
        assert!(words.stand_down && words.proved.is_none());
        assert_eq!(words.order, order(999));
        assert_eq!(words.uploaded, Some(Ok(7)));
        orders.give(order(1));
        orders.give(None);
        let words = orders.next();
        assert!(words.stand_down && words.order.is_none());
    }
}
