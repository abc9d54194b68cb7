//! The archiver's thread, and others beside it while a snapshot is put or the archive is proved.
//!
//! Shell only: it takes the newest order, waits after a failure, and tells the engine what became
//! of each round.

use crate::limits;
use crate::node::archiver::{Archiver, Order, Proof, Upload, Verified};
use crate::node::engine::Event;
use crate::node::run::now;
use crate::node::shelf;
use standfast_snapshot::Identities;
use standfast_wal::{Disk, Reader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What the thread is told.
pub enum Word {
    Order(Box<Order>),
    StandDown,
    Uploaded(Result<u64, String>),
    Proved(Result<Verified, String>),
}

/// Where an archiver's thread waits for orders.
pub type Orders = Sender<Word>;

/// Starts the thread; it ends with the node.
pub fn spawn(
    archiver: Archiver,
    data: &Path,
    log: Reader<Disk>,
    events: UnboundedSender<Event>,
) -> Orders {
    let (sender, words) = channel();
    let (orders, data) = (sender.clone(), data.to_path_buf());
    crate::node::files::spawn("archive", move || {
        Thread {
            archiver,
            data,
            log,
            events,
            orders,
            failing: None,
        }
        .run(&words);
    });
    sender
}

struct Thread {
    archiver: Archiver,
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
    fn run(mut self, words: &Receiver<Word>) {
        while let Ok(word) = words.recv() {
            let mut order = None;
            // Only the newest order counts.
            let more = std::iter::from_fn(|| words.try_recv().ok());
            for word in std::iter::once(word).chain(more) {
                match word {
                    Word::Order(newer) => order = Some(newer),
                    Word::StandDown => {
                        order = None;
                        self.failing = None;
                        self.archiver.stand_down();
                    }
                    Word::Uploaded(result) => self.archiver.uploaded(result),
                    Word::Proved(result) => self.archiver.proved(result),
                }
            }
            let may_try = |failing: &Failing| failing.retry_at <= now().boot;
            if let Some(order) = order
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
            let report = standfast_snapshot::verify::verify(
                &proof.store,
                proof.cluster,
                1,
                &Identities::default(),
            );
            let result = report.map(|report| Verified::new(&report, now().wall));
            // The thread ends only with the process.
            let _ = orders.send(Word::Proved(result.map_err(|error| error.to_string())));
        });
    }

    fn upload(&self, upload: Upload) {
        let (data, orders) = (self.data.clone(), self.orders.clone());
        crate::node::files::spawn("archive-snapshot", move || {
            let name = shelf::name_of(upload.lsn);
            let path = crate::node::directory::snapshot_dir(&data).join(name);
            let put = upload.shipper.put_snapshot(&path);
            let result = put.map(|(_, bytes)| bytes).map_err(|e| e.to_string());
            // The thread ends only with the process.
            let _ = orders.send(Word::Uploaded(result));
        });
    }
}
