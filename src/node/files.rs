//! The node's other files: snapshots written, streamed and received, backups, loss statements.
//!
//! Shell only: threads and files, no decisions. Each job tells the engine what became of it.

use crate::limits;
use crate::node::copies::{CopyEvent, CopyOutput};
use crate::node::engine::Event;
use crate::node::open;
use crate::node::wire::{Frame, Head, Piece};
use bytes::Bytes;
use standfast_snapshot::{
    Block as FileBlock, Incoming, NewFile, Options, Reader as SnapshotReader, Writer,
};
use standfast_wal::{ClusterId, Disk, Lsn, NodeId, Reader};
use std::fs;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// What the receiving thread is told.
enum Receiving {
    Piece { offset: u64, bytes: Bytes },
    Stop,
}

pub struct Files {
    dir: PathBuf,
    cluster: ClusterId,
    events: mpsc::UnboundedSender<Event>,
    log: Option<Reader<Disk>>,
    writing: Option<(Writer<NewFile>, Lsn)>,
    receiving: Option<std::sync::mpsc::Sender<Receiving>>,
}

impl Files {
    pub fn new(
        dir: &Path,
        cluster: ClusterId,
        events: mpsc::UnboundedSender<Event>,
        log: Option<Reader<Disk>>,
    ) -> Files {
        if let Some(log) = log.clone() {
            scrub(dir, log, events.clone());
        }
        let dir = dir.to_path_buf();
        Files {
            dir,
            cluster,
            events,
            log,
            writing: None,
            receiving: None,
        }
    }

    fn tell(&self, event: CopyEvent) {
        // The engine is gone only when the process ends.
        let _ = self.events.send(Event::Copy(event));
    }

    /// Blocks that the snapshot under way takes without waiting; `None` if none is under way.
    pub fn snapshot_room(&self) -> Option<usize> {
        self.writing.as_ref().map(|(writer, _)| writer.room())
    }

    /// How much the log takes and how much is free.
    pub fn look(&self, events: &mut Vec<Event>) {
        let wal = open::wal_dir(&self.dir);
        let log_bytes = fs::read_dir(&wal).map_or(0, |entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.metadata().ok())
                .map(|m| m.len())
                .sum()
        });
        let free_bytes =
            rustix::fs::statvfs(&self.dir).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize);
        events.push(Event::LogSize {
            log_bytes,
            free_bytes,
        });
    }

    /// Carries out one snapshot output; gives the size of a file that was adopted.
    pub fn copy(&mut self, output: CopyOutput) -> Option<u64> {
        match output {
            CopyOutput::Begin(header) => {
                let lsn = header.link.position.lsn;
                let path = open::snapshot_path(&self.dir, lsn);
                match Writer::create(&path, &header, Options::default()) {
                    Ok(writer) => self.writing = Some((writer, lsn)),
                    Err(error) => self.tell(CopyEvent::Written(Err(error.to_string()))),
                }
            }
            CopyOutput::Blocks(blocks) => self.write_blocks(blocks),
            CopyOutput::Finish => self.finish(),
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
                dir,
                through,
                who,
            } => {
                self.back_up(ticket, dir, through, who);
            }
            CopyOutput::Stream { .. } => unreachable!("the shell gives that one its link"),
        }
        None
    }

    fn write_blocks(&mut self, blocks: Vec<crate::state::Block>) {
        let Some((writer, _)) = &mut self.writing else {
            return;
        };
        for block in blocks {
            let block = FileBlock {
                section: 0,
                first: u32::from(block.first_slot),
                last: u32::from(block.last_slot),
                bytes: block.bytes,
            };
            if let Err(error) = writer.push_now(block) {
                self.writing = None;
                return self.tell(CopyEvent::Written(Err(error.to_string())));
            }
        }
    }

    fn finish(&mut self) {
        let Some((writer, lsn)) = self.writing.take() else {
            return;
        };
        let (events, dir) = (self.events.clone(), self.dir.clone());
        spawn("snapshot-end", move || {
            let result = writer.publish().map(|summary| summary.file_bytes);
            if result.is_ok() {
                remove_older(&dir, lsn);
            }
            let event = CopyEvent::Written(result.map_err(|error| error.to_string()));
            let _ = events.send(Event::Copy(event));
        });
    }

    fn receive(&mut self, from: NodeId, lsn: Lsn, total: u64) {
        let (sender, pieces) = std::sync::mpsc::channel();
        self.receiving = Some(sender);
        let (events, cluster) = (self.events.clone(), self.cluster);
        let path = open::waiting_path(&self.dir, lsn);
        spawn("snapshot-in", move || {
            let event = match take_in(&path, cluster, total, &pieces) {
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
        let path = open::snapshot_path(&self.dir, lsn);
        let renamed = fs::rename(open::waiting_path(&self.dir, lsn), &path)
            .and_then(|()| open::sync_dir(&open::snapshot_dir(&self.dir)));
        if let Err(error) = renamed {
            let story = format!(
                "{}: cannot name the received snapshot: {error}",
                path.display()
            );
            let _ = self.events.send(Event::DiskFailed(story));
            return None;
        }
        // Durable here: the snapshot that the reset log begins behind.
        remove_older(&self.dir, lsn);
        fs::metadata(&path).ok().map(|metadata| metadata.len())
    }

    /// Sends a snapshot file piece by piece; the queue's bound is the back-pressure.
    pub fn stream(&self, to: NodeId, lsn: Lsn, bulk: mpsc::Sender<Frame>) {
        let path = open::snapshot_path(&self.dir, lsn);
        let events = self.events.clone();
        let fail = move |error: standfast_snapshot::Error| {
            let why = error.to_string();
            // The engine is gone only when the process ends.
            let _ = events.send(Event::Copy(CopyEvent::NotSent { to, why }));
        };
        tokio::spawn(async move {
            let reader = match SnapshotReader::open(&path) {
                Ok(reader) => reader,
                Err(error) => return fail(error),
            };
            let mut offset = 0;
            loop {
                let bytes = match reader.chunk(offset, limits::SNAPSHOT_PIECE_BYTES) {
                    Ok(bytes) if bytes.is_empty() => return,
                    Ok(bytes) => bytes,
                    Err(error) => return fail(error),
                };
                let length = bytes.len() as u64;
                let frame = Frame::plain(Head::Copy(Piece::Chunk { offset, bytes }));
                if bulk.send(frame).await.is_err() {
                    return;
                }
                offset += length;
            }
        });
    }

    fn back_up(&self, ticket: u64, dir: PathBuf, through: Lsn, who: String) {
        let (events, data, cluster) = (self.events.clone(), self.dir.clone(), self.cluster);
        let Some(log) = self.log.clone() else { return };
        spawn("backup", move || {
            let result = crate::node::backup::back_up(&data, cluster, &log, &dir, through, &who);
            let _ = events.send(Event::Copy(CopyEvent::BackedUp { ticket, result }));
        });
    }

    /// Writes a statement of what was cut, for people; the records themselves lie beside it.
    pub fn loss_statement(&self, name: &str, text: &str) {
        let dir = self.dir.join("divergent");
        let written = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join(name), text));
        match written {
            Ok(()) => tracing::warn!(file = %dir.join(name).display(), "loss statement written"),
            Err(error) => tracing::error!(%error, %text, "no loss statement could be written"),
        }
    }
}

/// Runs a job of its own; without a thread the node cannot go on, and says so by panicking.
fn spawn(name: &str, job: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(job)
        .expect("the system has threads to give");
}

/// Takes pieces until the file is whole, proves and loads it; `None` when it was stopped.
fn take_in(
    path: &Path,
    cluster: ClusterId,
    total: u64,
    pieces: &std::sync::mpsc::Receiver<Receiving>,
) -> Result<Option<(standfast_snapshot::Header, crate::state::State)>, String> {
    let mut incoming = Incoming::create(path).map_err(|e| e.to_string())?;
    while incoming.offset() < total {
        match pieces.recv() {
            Ok(Receiving::Piece { offset, bytes }) if offset == incoming.offset() => {
                incoming.push(&bytes).map_err(|e| e.to_string())?;
            }
            Ok(Receiving::Piece { offset, .. }) => {
                return Err(format!("piece at {offset}, not {}", incoming.offset()));
            }
            Ok(Receiving::Stop) | Err(_) => return Ok(None),
        }
    }
    incoming.publish(cluster).map_err(|e| e.to_string())?;
    // Durable here: the received file under its waiting name.
    open::load_snapshot(path, cluster).map(Some)
}

/// Keeps the newest snapshot and the one before it: the older one is what is left when the newer
/// is found damaged, as long as the log reaches back to it.
fn remove_older(dir: &Path, newest: Lsn) {
    let Ok(found) = open::snapshots(dir) else {
        return;
    };
    for (lsn, path) in found.into_iter().filter(|(lsn, _)| *lsn < newest).skip(1) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%lsn, %error, "an old snapshot stays");
        }
    }
}

/// Reads sealed segments and snapshots again, one file after another, for ever, at a low rate, and
/// tells of what has gone bad while it can still be mended: from memory or from a peer.
fn scrub(data: &Path, log: Reader<Disk>, events: mpsc::UnboundedSender<Event>) {
    let data = data.to_path_buf();
    spawn("scrub", move || {
        while !events.is_closed() {
            let damage = scrub_log(&log).or_else(|| scrub_snapshots(&data));
            if let Some(story) = damage {
                let _ = events.send(Event::Damage(story));
                // Once is enough: the alarm stands until the node was started again.
                return;
            }
            std::thread::park_timeout(limits::SCRUB_PAUSE);
        }
    });
}

fn scrub_log(log: &Reader<Disk>) -> Option<String> {
    for segment in log.segments().iter().filter(|segment| segment.sealed) {
        match log.scrub(segment.first_lsn) {
            Ok(damaged) => {
                if let Some(range) = damaged.first() {
                    return Some(format!(
                        "log file {} offset {}: LSN {} to {} are damaged on disk",
                        range.file, range.offset, range.first_lsn, range.last_lsn
                    ));
                }
            }
            Err(error) => return Some(format!("a log file cannot be read again: {error:?}")),
        }
        std::thread::park_timeout(limits::SCRUB_PAUSE);
    }
    None
}

fn scrub_snapshots(data: &Path) -> Option<String> {
    for (_, path) in open::snapshots(data).ok()? {
        let checked = SnapshotReader::open(&path).and_then(|reader| reader.check_whole());
        match checked {
            Ok(()) => {}
            // Replaced by a newer one meanwhile.
            Err(_) if !path.exists() => {}
            Err(error) => return Some(error.to_string()),
        }
        std::thread::park_timeout(limits::SCRUB_PAUSE);
    }
    None
}
