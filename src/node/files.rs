//! The node's other files: snapshots written, streamed and received, backups, loss statements.
//!
//! Shell only: threads and files, no decisions. Each job tells the engine what became of it.

use crate::config::Config;
use crate::limits;
use crate::node::archiver::{self, Archiver, Order};
use crate::node::backup::{What, back_up};
use crate::node::copies::{CopyEvent, CopyOutput};
use crate::node::directory::{DataDir, sync_dir, wal_dir};
use crate::node::engine::Event;
use crate::node::meta::{self, MetaFile};
use crate::node::parcel::{Arriving, Outgoing};
use crate::node::rehearsal::Rehearsal;
use crate::node::run::now;
use crate::node::shelf;
use crate::node::ship;
use crate::node::statement;
use crate::node::wire::{Frame, Head, Piece};
use crate::state::Segment;
use bytes::Bytes;
use standfast_snapshot::{NewFile, Options, Recipients, SegmentRef, Writer};
use standfast_wal::{ClusterId, Disk, History, Lsn, NodeId, Reader, durable};
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What the receiving thread is told.
enum Receiving {
    Piece { offset: u64, bytes: Bytes },
    Stop,
}

pub struct Files {
    dir: DataDir,
    cluster: ClusterId,
    events: mpsc::UnboundedSender<Event>,
    log: Option<Reader<Disk>>,
    writing: Option<Writing>,
    /// The snapshot whose thread may still name it and clear away behind it: `None` when it was
    /// given up. Whoever gives or takes names here holds this.
    ending: Arc<Mutex<Option<u64>>>,
    receiving: Option<std::sync::mpsc::Sender<Receiving>>,
    /// Takes what is to be dropped and takes long for it.
    free: std::sync::mpsc::Sender<Segment>,
    /// The task that last sent each peer a snapshot.
    sending: BTreeMap<NodeId, AbortHandle>,
    archiver: Option<ship::Orders>,
    recipients: Recipients,
}

/// The snapshot under way.
struct Writing {
    writer: Writer<NewFile<Disk>>,
    lsn: Lsn,
    /// The engine's number for it.
    job: u64,
}

impl Files {
    pub fn new(
        config: &Config,
        (cluster, history): (ClusterId, History),
        recipients: Recipients,
        events: mpsc::UnboundedSender<Event>,
        log: Option<Reader<Disk>>,
    ) -> Files {
        let dir = DataDir(config.data_dir.clone());
        let of = (cluster, history);
        let archiver = start_archiver(config, of, &recipients, log.as_ref(), &events);
        if let Some(log) = log.clone() {
            scrub(dir.clone(), log, events.clone());
        }
        let (free, freed) = std::sync::mpsc::channel();
        spawn_behind("free", move || freed.into_iter().for_each(drop::<Segment>));
        Files {
            dir,
            cluster,
            events,
            log,
            writing: None,
            ending: Arc::default(),
            receiving: None,
            free,
            sending: BTreeMap::new(),
            archiver,
            recipients,
        }
    }

    fn tell(&self, event: CopyEvent) {
        // The engine is gone only when the process ends.
        let _ = self.events.send(Event::Copy(event));
    }

    /// Blocks that the snapshot under way takes without waiting; `None` if none is under way.
    pub fn snapshot_room(&self) -> Option<usize> {
        self.writing.as_ref().map(|writing| writing.writer.room())
    }

    /// How much the log takes and how much is free.
    pub fn look(&self, events: &mut Vec<Event>) {
        let wal = wal_dir(&self.dir.0);
        let log_bytes = fs::read_dir(&wal).map_or(0, |entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.metadata().ok())
                .map(|m| m.len())
                .sum()
        });
        let disk = rustix::fs::statvfs(&self.dir.0);
        let (free_bytes, disk_bytes) = disk.map_or((u64::MAX, 0), |disk| {
            (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)
        });
        events.push(Event::LogSize {
            log_bytes,
            free_bytes,
            disk_bytes,
        });
    }

    /// Carries out one snapshot output; gives the size of a file that was adopted.
    pub fn copy(&mut self, output: CopyOutput) -> Option<u64> {
        match output {
            CopyOutput::Begin { job, header } => {
                let lsn = header.link.position.lsn;
                *held(&self.ending) = None;
                match shelf::begin(&self.dir, &header, Options::default()) {
                    Ok(writer) => self.writing = Some(Writing { writer, lsn, job }),
                    Err(why) => self.tell(CopyEvent::Written {
                        job,
                        result: Err(why),
                    }),
                }
            }
            CopyOutput::Blocks(blocks) => self.write_blocks(blocks),
            CopyOutput::Finish { keep, segments } => self.finish(keep, segments),
            // The thread lives as long as this does.
            CopyOutput::Free(segment) => drop(self.free.send(segment)),
            CopyOutput::Receive { from, lsn, total } => self.receive(from, lsn, total),
            CopyOutput::Receiving { offset, bytes, .. } => {
                if let Some(thread) = &self.receiving {
                    let _ = thread.send(Receiving::Piece { offset, bytes });
                }
            }
            CopyOutput::StopReceiving => {
                if let Some(thread) = self.receiving.take() {
                    let _ = thread.send(Receiving::Stop);
                }
            }
            CopyOutput::Adopt { lsn } => return self.adopt(lsn),
            CopyOutput::BackUp {
                ticket,
                to,
                what,
                who,
            } => self.back_up(ticket, to, what, who),
            CopyOutput::Stream { .. } => unreachable!("the shell gives that one its link"),
        }
        None
    }

    fn write_blocks(&mut self, blocks: Vec<crate::state::Block>) {
        let Some(Writing { writer, job, .. }) = &mut self.writing else {
            return;
        };
        for block in blocks {
            if let Err(error) = writer.push_now(shelf::file_block(block)) {
                let (job, result) = (*job, Err(error.to_string()));
                self.writing = None;
                return self.tell(CopyEvent::Written { job, result });
            }
        }
    }

    fn finish(&mut self, keep: Vec<Lsn>, segments: Vec<Segment>) {
        let Some(Writing { writer, lsn, job }) = self.writing.take() else {
            return;
        };
        let (events, dir) = (self.events.clone(), self.dir.clone());
        *held(&self.ending) = Some(job);
        let ending = self.ending.clone();
        spawn_behind("snapshot-end", move || {
            let claim = || Some(held(&ending)).filter(|ending| **ending == Some(job));
            let mut began = now().boot;
            let kept = |kept| {
                let _ = events.send(Event::Copy(CopyEvent::Kept(Box::new(kept))));
                // The disk is the clients' for as long as this took it.
                let took = Duration::from_nanos(now().boot.saturating_sub(began));
                std::thread::park_timeout(took.min(limits::SEGMENT_REST_MAX));
                began = now().boot;
            };
            let result = shelf::finish(&dir, writer, (lsn, &keep), segments, kept, claim);
            let _ = events.send(Event::Copy(CopyEvent::Written { job, result }));
        });
    }

    fn receive(&mut self, from: NodeId, lsn: Lsn, total: u64) {
        let (sender, pieces) = std::sync::mpsc::channel();
        self.receiving = Some(sender);
        let (events, dir, cluster) = (self.events.clone(), self.dir.clone(), self.cluster);
        spawn("snapshot-in", move || {
            let ready = |have| CopyEvent::Ready { from, lsn, have };
            let arriving = Arriving::begin(dir, cluster, lsn, total).map(|(arriving, have)| {
                let _ = events.send(Event::Copy(ready(have)));
                arriving
            });
            let event = match arriving.and_then(|arriving| take_in(arriving, &pieces)) {
                Ok(None) => return,
                Ok(Some((header, state))) => CopyEvent::Loaded {
                    from,
                    header: Box::new(header),
                    state: Box::new(state),
                },
                Err(why) => CopyEvent::ReceiveFailed { from, why },
            };
            let _ = events.send(Event::Copy(event));
        });
    }

    /// The log stands at `lsn`: what was received is this node's newest snapshot.
    fn adopt(&mut self, lsn: Lsn) -> Option<u64> {
        self.receiving = None;
        let mut ending = held(&self.ending);
        *ending = None;
        match shelf::adopt(&self.dir, lsn) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let story = format!("cannot name the received snapshot at {lsn}: {error}");
                let _ = self.events.send(Event::DiskFailed(story));
                None
            }
        }
    }

    /// Sends a snapshot piece by piece; the queue's bound is the back-pressure. What was still
    /// being sent to this peer came to nothing, or no other would be: its pieces must not mix in.
    pub fn stream(
        &mut self,
        to: NodeId,
        lsn: Lsn,
        have: Vec<SegmentRef>,
        bulk: mpsc::Sender<Frame>,
    ) {
        let (dir, events) = (self.dir.clone(), self.events.clone());
        let task = tokio::spawn(async move {
            if let Err(why) = send_pieces(&dir, lsn, &have, &bulk).await {
                tracing::error!(%to, %lsn, why, "cannot send a snapshot");
                let _ = events.send(Event::Copy(CopyEvent::SendFailed { to, lsn, why }));
            }
        });
        if let Some(before) = self.sending.insert(to, task.abort_handle()) {
            before.abort();
        }
    }

    /// Tells the archiver what to archive, or that another node does.
    pub fn archive(&self, order: Option<Box<Order>>) {
        if let Some(orders) = &self.archiver {
            orders.give(order);
        }
    }

    fn back_up(&self, ticket: u64, to: String, what: What, who: String) {
        let (events, data) = (self.events.clone(), self.dir.0.clone());
        let Some(log) = self.log.clone() else { return };
        let recipients = self.recipients.clone();
        spawn("backup", move || {
            let result = back_up(&data, &what, &log, &to, &recipients, &who);
            let _ = events.send(Event::Copy(CopyEvent::BackedUp { ticket, result }));
        });
    }

    /// Writes a statement of what was cut, for people; the records themselves lie beside it.
    pub fn loss_statement(&self, name: &str, text: &str) {
        let dir = self.dir.0.join(statement::DIRECTORY);
        // Durable here: what is lost, before the records are moved aside that say so.
        let written = Disk::open(&dir).and_then(|disk| {
            durable::replace(&disk, name, text.as_bytes())?;
            sync_dir(&self.dir.0)
        });
        match written {
            Ok(()) => tracing::warn!(file = %dir.join(name).display(), "loss statement written"),
            Err(error) => tracing::error!(%error, %text, "no loss statement could be written"),
        }
    }
}

/// What the names of an encrypted archive's parts are made with; nothing shows it.
const SECRET_FILE: &str = "archive.secret";

/// Whom the archive is encrypted to, with this node's secret: `draw` makes a new one.
pub fn archive_recipients(config: &Config, draw: impl Fn() -> u128) -> Recipients {
    let all = &config.archive_recipients;
    if all.is_empty() {
        return Recipients::default();
    }
    let there = std::fs::read(config.data_dir.join(SECRET_FILE));
    if let Ok(Ok(secret)) = there.map(<[u8; 16]>::try_from) {
        return Recipients::new(all, u128::from_le_bytes(secret));
    }
    let secret = draw();
    // Durable here: parts that have not changed are known again after a crash, too. Without it they
    // are only sent once more.
    let written = Disk::open(&config.data_dir)
        .and_then(|disk| durable::replace(&disk, SECRET_FILE, &secret.to_le_bytes()));
    if let Err(error) = written {
        tracing::warn!(%error, "{SECRET_FILE} is not written before the next start");
    }
    Recipients::new(all, secret)
}

/// A node that holds no log has nothing to archive.
fn start_archiver(
    config: &Config,
    (cluster, history): (ClusterId, History),
    recipients: &Recipients,
    log: Option<&Reader<Disk>>,
    events: &mpsc::UnboundedSender<Event>,
) -> Option<ship::Orders> {
    let place = config.archive.as_ref()?;
    let log = log?.clone();
    let data = &config.data_dir;
    let archiver = Archiver::new(
        place.as_str(),
        archiver::scratch_in(data),
        config.archive_interval,
        recipients.clone(),
    )
    .keeping(config.archive_policy());
    let rehearsal = Rehearsal::new(config);
    let home = ship::Home {
        cluster,
        history,
        place: place.as_str().to_string(),
    };
    let orders = ship::spawn(archiver, home, rehearsal, data, log, events.clone());
    Some(orders)
}

/// Runs a job of its own; without a thread the node cannot go on, and says so by panicking.
pub(in crate::node) fn spawn(name: &str, job: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(job)
        .expect("the system has threads to give");
}

/// As `spawn`, for what can wait: where the processors are short it takes what others leave.
fn spawn_behind(name: &str, job: impl FnOnce() + Send + 'static) {
    spawn(name, || {
        // Of this thread alone; without it the job is done as well.
        let _ = rustix::process::setpriority_process(None, limits::BEHIND_NICE);
        job();
    });
}

/// Nobody panics while holding it.
fn held(ending: &Mutex<Option<u64>>) -> MutexGuard<'_, Option<u64>> {
    ending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error is one of reading; a connection that is gone tells the engine by itself.
async fn send_pieces(
    dir: &DataDir,
    lsn: Lsn,
    have: &[SegmentRef],
    bulk: &mpsc::Sender<Frame>,
) -> Result<(), String> {
    let mut outgoing = Outgoing::open(dir, lsn, have)?;
    while let Some((offset, bytes)) = outgoing.next_piece(limits::SNAPSHOT_PIECE_BYTES)? {
        let frame = Frame::plain(Head::Copy(Piece::Chunk { offset, bytes }));
        if bulk.send(frame).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes the pieces of one snapshot; `None` when it was given up.
fn take_in(
    mut arriving: Arriving<DataDir>,
    pieces: &std::sync::mpsc::Receiver<Receiving>,
) -> Result<Option<(standfast_snapshot::Header, crate::state::State)>, String> {
    loop {
        match pieces.recv() {
            Ok(Receiving::Piece { offset, bytes }) => {
                if arriving.push(offset, &bytes)? {
                    return arriving.finish().map(Some);
                }
            }
            Ok(Receiving::Stop) | Err(_) => return Ok(None),
        }
    }
}

/// Reads sealed segments and snapshots again, one file after another, for ever, at a low rate, and
/// tells of what has gone bad while it can still be mended: from memory or from a peer.
fn scrub(dir: DataDir, log: Reader<Disk>, events: mpsc::UnboundedSender<Event>) {
    spawn_behind("scrub", move || {
        let mut rest = || std::thread::park_timeout(limits::SCRUB_PAUSE);
        while !events.is_closed() {
            let of_log = shelf::scrub_log(&log, &mut rest);
            let of_files = || shelf::scrub(&dir, &mut rest).map(|story| (story, None));
            if let Some((story, through)) = of_log.or_else(of_files) {
                let _ = events.send(Event::Damage { story, through });
                // Once is enough: the alarm stands until the node was started again.
                return;
            }
            rest();
        }
    });
}

/// Replaces the meta file off the engine's thread: a stalled disk must not stop its turns.
pub fn spawn_meta_writer(
    disk: Disk,
    events: mpsc::UnboundedSender<Event>,
) -> std::io::Result<std::sync::mpsc::Sender<(MetaFile, u64)>> {
    let (sender, receiver) = std::sync::mpsc::channel::<(MetaFile, u64)>();
    std::thread::Builder::new()
        .name("meta".to_string())
        .spawn(move || {
            while let Ok(mut newest) = receiver.recv() {
                // A newer one makes those before it durable too.
                while let Ok(newer) = receiver.try_recv() {
                    newest = newer;
                }
                let (meta, serial) = newest;
                let event = match meta::store(&disk, &meta) {
                    Ok(()) => Event::MetaStored(serial),
                    Err(error) => {
                        Event::DiskFailed(format!("cannot replace the meta file: {error}"))
                    }
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        })?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_secret_is_drawn_once_and_only_where_something_is_encrypted() {
        let scratch = tempfile::tempdir().expect("a scratch directory can be made");
        let mut config = Config {
            data_dir: scratch.path().to_path_buf(),
            ..Config::default()
        };
        let never = || unreachable!("nothing is encrypted");
        assert_eq!(archive_recipients(&config, never).id(), None);
        let key = age::x25519::Identity::generate().to_public().to_string();
        config.archive_recipients = vec![key.parse().expect("a recipient")];
        let first = archive_recipients(&config, || 7);
        assert!(first.id().is_some());
        archive_recipients(&config, || unreachable!("it was drawn"));
        let kept = std::fs::read(scratch.path().join(SECRET_FILE));
        assert_eq!(kept.expect("it was written"), 7u128.to_le_bytes());
    }
}
