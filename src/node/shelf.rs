//! The snapshots of a node: written, received, adopted, loaded, thrown away, scrubbed.
//!
//! A file has its name only when it is whole and durable. A received one waits under another name
//! until the log is reset to it; a crash in between is settled by what the log says when the node
//! starts again. No threads here: whoever calls decides which one waits.

use crate::node::copies::{Newest, decode_epochs};
use crate::node::directory::Directory;
use crate::node::open::state_limits;
use crate::replication::SnapshotHead;
use crate::state::{self, Block, State};
use bytes::Bytes;
use standfast_snapshot::{
    Block as FileBlock, Header, Incoming, NewFile, Options, Reader, Source, Stored, Writer,
    new_file,
};
use standfast_wal::{ClusterId, Disk, Lsn, ReadError, Storage, durable};
use std::io;
use std::path::Path;

/// An open snapshot file of a directory.
pub type Opened<D> = Reader<Stored<<<D as Directory>::Storage as Storage>::File>>;

pub fn name_of(lsn: Lsn) -> String {
    format!("snapshot-{:020}.sfs", lsn.0)
}

/// The name under which a received snapshot waits for the log to be reset to it.
pub fn waiting_name_of(lsn: Lsn) -> String {
    format!("waiting-{:020}.sfs", lsn.0)
}

fn numbered(name: &str, prefix: &str) -> Option<Lsn> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(".sfs")?;
    digits.parse().ok().map(Lsn)
}

/// Files with one of these prefixes, newest first.
fn named<S: Storage>(storage: &S, prefixes: &[&str]) -> io::Result<Vec<(Lsn, String)>> {
    let mut found: Vec<(Lsn, String)> = storage
        .list("")?
        .into_iter()
        .filter_map(|name| {
            let lsn = prefixes.iter().find_map(|prefix| numbered(&name, prefix))?;
            Some((lsn, name))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The snapshots that a node has, newest first.
pub fn list<S: Storage>(storage: &S) -> io::Result<Vec<(Lsn, String)>> {
    named(storage, &["snapshot-"])
}

/// What a node may start from, newest first: what interrupted writers left is gone. A crash between
/// the log's reset and a received snapshot's final name leaves it under its waiting name: the log
/// opens behind it only if the reset has happened.
pub fn candidates<S: Storage>(storage: &S) -> io::Result<Vec<(Lsn, String)>> {
    new_file::remove_leftovers(storage)?;
    // Durable here: the names of the snapshots that a start may go on from.
    storage.sync_dir("")?;
    named(storage, &["snapshot-", "waiting-"])
}

/// The node starts from `used`: if that is a waiting snapshot it gets its name, others go.
pub fn settle_waiting<S: Storage>(storage: &S, lsn: Lsn, used: &str) -> io::Result<()> {
    for (_, name) in named(storage, &["waiting-"])? {
        if name == used {
            storage.rename(&name, &name_of(lsn))?;
        } else {
            storage.remove(&name)?;
        }
    }
    // Durable here: the snapshot that the log begins behind has its name.
    storage.sync_dir("")
}

/// Begins the file of a snapshot that is being taken.
pub fn begin<D: Directory>(
    dir: &D,
    header: &Header,
    options: Options,
) -> Result<Writer<NewFile<D::Storage>>, String> {
    let name = name_of(header.link.position.lsn);
    let storage = dir.snapshots().map_err(|error| error.to_string())?;
    Writer::create_in(storage, &name, header, options).map_err(|error| error.to_string())
}

/// A block of the state as the file holds it.
pub fn file_block(block: Block) -> FileBlock {
    FileBlock {
        section: 0,
        first: u32::from(block.first_slot),
        last: u32::from(block.last_slot),
        bytes: block.bytes,
    }
}

/// Finishes a snapshot's file; gives its length. Blocks until it is durable.
pub fn finish<D: Directory>(
    dir: &D,
    writer: Writer<NewFile<D::Storage>>,
    lsn: Lsn,
    keep: &[Lsn],
) -> Result<u64, String> {
    let summary = writer.publish().map_err(|error| error.to_string())?;
    if let Ok(storage) = dir.snapshots() {
        remove_older(&storage, lsn, keep);
    }
    Ok(summary.file_bytes)
}

/// Keeps the newest snapshot and the one before it: the older one is what is left when the newer
/// is found damaged, as long as the log reaches back to it. And those to `keep`.
fn remove_older<S: Storage>(storage: &S, newest: Lsn, keep: &[Lsn]) {
    let Ok(found) = list(storage) else {
        return;
    };
    let older = found.into_iter().filter(|(lsn, _)| *lsn < newest).skip(1);
    for (lsn, name) in older.filter(|(lsn, _)| !keep.contains(lsn)) {
        if let Err(error) = storage.remove(&name) {
            tracing::warn!(%lsn, %error, "an old snapshot stays");
        }
    }
}

/// A snapshot that comes in from a peer.
pub struct Arriving<D: Directory> {
    dir: D,
    cluster: ClusterId,
    lsn: Lsn,
    total: u64,
    incoming: Incoming<D::Storage>,
}

impl<D: Directory> Arriving<D> {
    pub fn begin(dir: D, cluster: ClusterId, lsn: Lsn, total: u64) -> Result<Arriving<D>, String> {
        let storage = dir.snapshots().map_err(|error| error.to_string())?;
        let incoming = Incoming::create(storage, &waiting_name_of(lsn));
        Ok(Arriving {
            dir,
            cluster,
            lsn,
            total,
            incoming: incoming.map_err(|error| error.to_string())?,
        })
    }

    /// Adds the next piece; true when the file is whole.
    pub fn push(&mut self, offset: u64, bytes: &Bytes) -> Result<bool, String> {
        let expected = self.incoming.offset();
        if offset != expected {
            return Err(format!("piece at {offset}, not {expected}"));
        }
        if offset + bytes.len() as u64 > self.total {
            return Err(format!("more than the {} bytes offered", self.total));
        }
        self.incoming.push(bytes).map_err(|e| e.to_string())?;
        Ok(self.incoming.offset() == self.total)
    }

    /// Proves the file, lets it wait under its waiting name, durably, and loads it.
    pub fn finish(self) -> Result<(Header, State), String> {
        let reader = self.incoming.publish(self.cluster);
        let reader = reader.map_err(|error| error.to_string())?;
        // Durable here: the received file under its waiting name.
        let loaded = load_from(&reader, self.cluster, self.dir.threads())?;
        if loaded.0.link.position.lsn != self.lsn {
            return Err(format!("a snapshot of another LSN than {}", self.lsn));
        }
        Ok(loaded)
    }
}

/// The log stands at `lsn`: what was received is this node's newest snapshot. Gives its length.
pub fn adopt<D: Directory>(dir: &D, lsn: Lsn) -> io::Result<u64> {
    let (storage, name) = (dir.snapshots()?, name_of(lsn));
    durable::publish(&storage, &waiting_name_of(lsn), &name)?;
    // Durable here: the snapshot that the reset log begins behind.
    remove_older(&storage, lsn, &[]);
    standfast_wal::File::len(&storage.open(&name)?)
}

/// Opens the snapshot at `lsn` to send it.
pub fn open<D: Directory>(dir: &D, lsn: Lsn) -> Result<Opened<D>, String> {
    let storage = dir.snapshots().map_err(|error| error.to_string())?;
    Reader::open_in(&storage, &name_of(lsn)).map_err(|error| error.to_string())
}

/// Loads and proves a snapshot file of the file system, on as many threads as there are processors.
pub fn load_snapshot(path: &Path, cluster: ClusterId) -> Result<(Header, State), String> {
    let reader = Reader::open(path).map_err(|e| e.to_string())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    load_from(&reader, cluster, threads)
}

/// Loads and proves an opened snapshot.
pub fn load_from<S: Source>(
    reader: &Reader<S>,
    cluster: ClusterId,
    threads: usize,
) -> Result<(Header, State), String> {
    load_checked(reader, cluster, threads).map_err(|error| error.to_string())
}

/// As `load_from`; the error tells damage from a disk that does not answer.
pub fn load_checked<S: Source>(
    reader: &Reader<S>,
    cluster: ClusterId,
    threads: usize,
) -> standfast_snapshot::Result<(Header, State)> {
    let limits = state_limits(cluster);
    reader.check_cluster(cluster)?;
    let parts = reader.load(threads, |_, block| {
        state::load_block(&limits, block).map_err(|e| e.to_string())
    })?;
    let header = reader.header().clone();
    let head = state::SnapshotHead {
        lsn: header.link.position.lsn,
        timestamp: header.link.timestamp,
        digest: state::Digest(header.digest),
        keys: header.counts[0],
        tokens: header.counts[1],
    };
    let state = State::assemble(limits, &head, parts)
        .map_err(|error| reader.refuse_contents(error.to_string()))?;
    Ok((header, state))
}

/// A snapshot's place in the history, from its header.
pub fn newest_of(header: &Header, bytes: u64) -> Result<Newest, String> {
    let epochs = decode_epochs(&header.epoch_table).map_err(|e| e.to_string())?;
    let head = SnapshotHead {
        history: header.history,
        link: header.link,
        epochs,
    };
    Ok(Newest {
        head,
        bytes,
        finished: header.link.timestamp / 1_000_000_000,
    })
}

/// Reads every snapshot again, with a rest behind each; the story of the first one that is damaged.
pub fn scrub<D: Directory>(dir: &D, rest: &mut dyn FnMut()) -> Option<String> {
    let storage = dir.snapshots().ok()?;
    for (_, name) in list(&storage).ok()? {
        let checked = Reader::open_in(&storage, &name).and_then(|reader| reader.check_whole());
        match checked {
            Ok(()) => {}
            // Replaced by a newer one meanwhile.
            Err(_) if storage.open(&name).is_err() => {}
            Err(error) => return Some(error.to_string()),
        }
        rest();
    }
    None
}

/// Reads every sealed segment again, with a rest behind each; the first damage, and up to which
/// LSN it goes.
pub fn scrub_log<S: Storage>(
    log: &standfast_wal::Reader<S>,
    rest: &mut dyn FnMut(),
) -> Option<(String, Option<Lsn>)> {
    for segment in log.segments().iter().filter(|segment| segment.sealed) {
        match log.scrub(segment.first_lsn) {
            Ok(damaged) => {
                if let Some(range) = damaged.first() {
                    return Some((range.to_string(), Some(range.last_lsn)));
                }
            }
            // Trimmed meanwhile.
            Err(ReadError::Gone { .. }) => {}
            Err(error) => {
                let story = format!("a log file cannot be read again: {error:?}");
                return Some((story, None));
            }
        }
        rest();
    }
    None
}

/// The snapshots of a data directory, newest first.
pub fn snapshots(data: &Path) -> io::Result<Vec<(Lsn, std::path::PathBuf)>> {
    let dir = crate::node::directory::snapshot_dir(data);
    let found = list(&Disk::open(&dir)?)?;
    Ok(found
        .into_iter()
        .map(|(lsn, name)| (lsn, dir.join(name)))
        .collect())
}
