//! The archiver's thread, and others beside it while a snapshot is put or the archive is proved.
//!
//! Shell only: what is done is `archiver::worker`.

use crate::node::archiver::worker::{Words, Worker};
use crate::node::archiver::{Archiver, Order, Proof, Upload};
use crate::node::directory::DataDir;
use crate::node::engine::Event;
use crate::node::rehearsal::Rehearsal;
use crate::node::run::{now, random};
use standfast_snapshot::Shared;
use standfast_wal::{ClusterId, Disk, History, Reader, durable};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use tokio::sync::mpsc::UnboundedSender;

/// Where an archiver's thread waits for its orders.
#[derive(Clone, Default)]
pub struct Orders(Arc<(Mutex<Words>, Condvar)>);

impl Orders {
    /// `None`: another node archives.
    pub fn give(&self, order: Option<Box<Order>>) {
        self.tell(|words| words.order(order));
    }

    fn tell(&self, what: impl FnOnce(&mut Words)) {
        let (words, wake) = &*self.0;
        what(&mut words.lock().expect(NO_PANIC));
        wake.notify_one();
    }

    fn next(&self) -> Words {
        let (words, wake) = &*self.0;
        let guard = words.lock().expect(NO_PANIC);
        let idle = wake.wait_while(guard, |words| words.are_none());
        let mut words = idle.expect(NO_PANIC);
        std::mem::take(&mut *words)
    }
}

const NO_PANIC: &str = "no thread panics while it holds this";

/// In the data directory: the place in which this node has seen its cluster's archive. A file
/// system that is not mounted looks like an archive that was never begun.
const PLACE_FILE: &str = "archive.place";

/// Whose archive is kept where.
pub struct Home {
    pub cluster: ClusterId,
    pub history: History,
    pub place: String,
}

/// Starts the thread; it ends with the node.
pub fn spawn(
    archiver: Archiver,
    home: Home,
    rehearsal: Option<Rehearsal>,
    data: &Path,
    log: Reader<Disk>,
    events: UnboundedSender<Event>,
) -> Orders {
    let orders = Orders::default();
    let thread = Thread {
        data: DataDir(data.to_path_buf()),
        orders: orders.clone(),
    };
    crate::node::files::spawn("archive", move || {
        let mut noted = Noted::read(&thread.data.0, home.place);
        let archiver = archiver.founded(noted.is_done);
        let mut worker = Worker::new(archiver, rehearsal.is_some());
        // The engine is gone only when the process ends.
        let tell = |standing| drop(events.send(Event::Archived(standing)));
        if let Some(standing) = worker.look_around(home.cluster, home.history) {
            tell(standing);
        }
        loop {
            if worker.archiver().is_founded() {
                noted.write();
            }
            let done = worker.turn(thread.orders.next(), &log, &now);
            if let Some(standing) = done.standing {
                tell(standing);
            }
            done.upload.into_iter().for_each(|it| thread.upload(it));
            done.proof.into_iter().for_each(|it| thread.prove(it));
            if let (Some(rehearsal), Some((store, cluster))) = (&rehearsal, done.drill) {
                thread.drill(rehearsal.clone(), store, cluster);
            }
        }
    });
    orders
}

/// The place in the file of that name.
struct Noted {
    dir: PathBuf,
    place: String,
    is_done: bool,
}

impl Noted {
    fn read(dir: &Path, place: String) -> Noted {
        let there = fs::read(dir.join(PLACE_FILE));
        Noted {
            dir: dir.to_path_buf(),
            is_done: there.is_ok_and(|there| there == place.as_bytes()),
            place,
        }
    }

    fn write(&mut self) {
        if std::mem::replace(&mut self.is_done, true) {
            return;
        }
        // Durable here: after a crash, too, this node knows an archive that is not mounted.
        let written = Disk::open(&self.dir)
            .and_then(|disk| durable::replace(&disk, PLACE_FILE, self.place.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, "{PLACE_FILE} is not written before the next start");
        }
    }
}

struct Thread {
    data: DataDir,
    orders: Orders,
}

impl Thread {
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
            let put = || {
                let mut put = upload.begin(&data)?;
                while !put.step().map_err(|error| error.to_string())? {}
                Ok(put.sent())
            };
            let result = put();
            orders.tell(|words| words.uploaded = Some(result));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::archive::NO_HISTORY;
    use standfast_snapshot::Card;
    use standfast_snapshot::archive::Sent;
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
            unsound: None,
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
        let sent = Sent { whole: 9, put: 7 };
        orders.tell(|words| words.uploaded = Some(Ok(sent)));
        let words = orders.next();
        assert!(words.stand_down && words.proved.is_none());
        assert_eq!(words.order, order(999));
        assert_eq!(words.uploaded, Some(Ok(sent)));
        orders.give(order(1));
        orders.give(None);
        let words = orders.next();
        assert!(words.stand_down && words.order.is_none());
    }
}
