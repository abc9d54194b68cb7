//! The snapshots of a node: written, received, adopted, loaded, thrown away, scrubbed.
//!
//! What never changes again of a state, its full segments, lies in files of its own beside the
//! snapshots, each written once and named by those that need it (`standfast_snapshot::segment`).
//! A file has its name only when it is whole and durable, a snapshot only after its segments. A
//! received one waits under another name until the log is reset to it; a crash in between is
//! settled by what the log says when the node starts again. No threads here: whoever calls decides
//! which one waits.

mod contents;

pub use contents::Contents;

use crate::node::copies::{Newest, decode_epochs};
use crate::node::directory::Directory;
use crate::node::open::state_limits;
use crate::replication::SnapshotHead;
use crate::state::{self, Block, Segment, State};
use bytes::Bytes;
use standfast_snapshot::read::side_by_side;
use standfast_snapshot::{
    Block as FileBlock, Header, NewFile, Options, Reader, SegmentRef, Source, Stored, Writer,
    new_file, segment,
};
use standfast_wal::{ClusterId, Disk, Lsn, Mark, ReadError, Storage, durable};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The states that were kept because they differ, newest first.
pub fn differing<S: Storage>(storage: &S) -> io::Result<Vec<(Lsn, String)>> {
    named(storage, &["differing-"])
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
            remove_above(storage, lsn);
        } else {
            storage.remove(&name)?;
        }
    }
    // Durable here: the snapshot that the log begins behind has its name.
    storage.sync_dir("")?;
    remove_unnamed(storage);
    Ok(())
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
        section: block.range.section,
        first: block.range.first,
        last: block.range.last,
        bytes: block.bytes,
    }
}

/// A snapshot that is durable under its name.
#[derive(Debug)]
pub struct Written {
    /// Length of its file.
    pub bytes: u64,
}

/// A segment whose bytes a file holds.
#[derive(Debug)]
pub struct Kept {
    pub segment: Segment,
    /// The same bytes, those of the file.
    pub mapped: Bytes,
    pub blake3: [u8; state::BLAKE3_BYTES],
}

/// Writes those of `segments` that no file has, then finishes the snapshot that names them all.
/// Each goes to `kept` as soon as its file is durable, and is not held any longer. Then `claim` is
/// asked, and what it gives is held to the end: without it the snapshot was given up, and neither
/// gets a name nor takes away what no snapshot names, for that may be the next one's. Blocks until
/// everything is durable.
pub fn finish<D: Directory, C>(
    dir: &D,
    mut writer: Writer<NewFile<D::Storage>>,
    (lsn, keep): (Lsn, &[Lsn]),
    segments: Vec<Segment>,
    kept: impl FnMut(Kept),
    claim: impl FnOnce() -> Option<C>,
) -> Result<Written, String> {
    finish_segments(dir, &mut writer, segments, kept)?;
    let Some(_claim) = claim() else {
        return Err("it was given up".to_string());
    };
    let written = publish(writer)?;
    let storage = dir.snapshots().map_err(|error| error.to_string())?;
    remove_older(&storage, lsn, keep);
    Ok(written)
}

/// As `finish`, and every other snapshot stays.
pub fn finish_beside<D: Directory>(
    dir: &D,
    mut writer: Writer<NewFile<D::Storage>>,
    segments: Vec<Segment>,
    kept: impl FnMut(Kept),
) -> Result<Written, String> {
    finish_segments(dir, &mut writer, segments, kept)?;
    publish(writer)
}

fn finish_segments<D: Directory>(
    dir: &D,
    writer: &mut Writer<NewFile<D::Storage>>,
    segments: Vec<Segment>,
    kept: impl FnMut(Kept),
) -> Result<(), String> {
    let storage = dir.snapshots().map_err(|error| error.to_string())?;
    let text = |error: standfast_snapshot::Error| error.to_string();
    let named = write_segments(&storage, segments, kept).map_err(text)?;
    for block in segment::blocks(&named) {
        writer.push(block).map_err(text)?;
    }
    Ok(())
}

fn publish<S: Storage>(writer: Writer<NewFile<S>>) -> Result<Written, String> {
    let summary = writer.publish().map_err(|error| error.to_string())?;
    Ok(Written {
        bytes: summary.file_bytes,
    })
}

/// Gives every segment a file; says how they are named, and which had none.
fn write_segments<S: Storage>(
    storage: &S,
    segments: Vec<Segment>,
    mut kept: impl FnMut(Kept),
) -> standfast_snapshot::Result<Vec<SegmentRef>> {
    let there = segment::list(storage).map_err(of_directory)?;
    let there = BTreeSet::from_iter(there);
    let mut named = Vec::new();
    for segment in segments {
        let reference = reference_of(&segment);
        named.push(reference);
        let is_there = there.contains(&reference);
        if is_there && segment.stored.is_some() {
            continue;
        }
        // An earlier snapshot may have come to nothing when its segments were durable.
        let mapped = match is_there.then(|| segment::open(storage, &reference)) {
            Some(Ok(mapped)) => mapped,
            _ => {
                Mark::SegmentWritten.hit();
                segment::write(storage, &reference, &segment.bytes)?
            }
        };
        kept(Kept {
            segment,
            mapped,
            blake3: reference.blake3,
        });
    }
    Ok(named)
}

fn of_directory(error: io::Error) -> standfast_snapshot::Error {
    standfast_snapshot::Error::from_io("the directory of snapshots", error)
}

fn reference_of(segment: &Segment) -> SegmentRef {
    let (list, number) = (u32::from(segment.sort), segment.number);
    match segment.stored {
        Some(blake3) => SegmentRef {
            list,
            number,
            bytes: segment.bytes.len() as u64,
            blake3,
        },
        None => SegmentRef::of(list, number, &segment.bytes),
    }
}

/// Keeps the newest snapshot and the one before it: the older one is what is left when the newer
/// is found damaged, as long as the log reaches back to it. And those to `keep`. Segments that none
/// of them needs go, too.
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
    remove_unnamed(storage);
}

/// Removes what a history that has ended left: where a snapshot from a peer replaces the log, one
/// that is higher was of another.
fn remove_above<S: Storage>(storage: &S, lsn: Lsn) {
    let found = list(storage).unwrap_or_default();
    for (above, name) in found.into_iter().filter(|(found, _)| *found > lsn) {
        if let Err(error) = storage.remove(&name) {
            tracing::warn!(%above, %error, "a snapshot of an ended history stays");
        }
    }
}

/// Removes the segments that no snapshot names. Where one cannot be read, nothing goes: it may
/// name any of them.
fn remove_unnamed<S: Storage>(storage: &S) {
    let removed = named_segments(storage).and_then(|named| {
        let removed = segment::remove_others(storage, &named);
        removed.map_err(|error| error.to_string())
    });
    if let Err(error) = removed {
        tracing::warn!(error, "segments that no snapshot names may stay");
    }
}

fn named_segments<S: Storage>(storage: &S) -> Result<BTreeSet<SegmentRef>, String> {
    let found = named(storage, &["snapshot-", "waiting-", "differing-"])
        .map_err(|error| error.to_string())?;
    let mut all = BTreeSet::new();
    for (_, name) in found {
        let reader = Reader::open_in(storage, &name).map_err(|error| error.to_string())?;
        all.extend(reader.segments().map_err(|error| error.to_string())?);
    }
    Ok(all)
}

/// The log stands at `lsn`: what was received is this node's newest snapshot. Gives its length.
pub fn adopt<D: Directory>(dir: &D, lsn: Lsn) -> io::Result<u64> {
    let (storage, name) = (dir.snapshots()?, name_of(lsn));
    durable::publish(&storage, &waiting_name_of(lsn), &name)?;
    // Durable here: the snapshot that the reset log begins behind.
    remove_above(&storage, lsn);
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
    let dir = path.parent().unwrap_or(Path::new("."));
    let open = |reference: &SegmentRef| segment::open_at(dir, reference);
    reader.check_cluster(cluster).map_err(|e| e.to_string())?;
    let loaded = load_checked(&reader, open, state_limits(cluster), threads);
    let (header, state, _) = loaded.map_err(|e| e.to_string())?;
    Ok((header, state))
}

/// Loads and proves an opened snapshot of a directory; the error tells damage from a disk that
/// does not answer.
pub fn load_in<D: Directory>(
    dir: &D,
    reader: &Opened<D>,
    cluster: ClusterId,
) -> standfast_snapshot::Result<(Header, State)> {
    let limits = limits_of(dir, cluster);
    let storage = dir.snapshots().map_err(of_directory)?;
    let open = |reference: &SegmentRef| segment::open(&storage, reference);
    reader.check_cluster(cluster)?;
    let (header, state, _) = load_checked(reader, open, limits, dir.threads())?;
    Ok((header, state))
}

/// What the states of a directory need besides their snapshots.
pub fn limits_of<D: Directory>(dir: &D, cluster: ClusterId) -> state::Limits {
    state::Limits {
        segment_shift: dir.segment_shift(),
        ..state_limits(cluster)
    }
}

/// Loads and proves a snapshot of the cluster, and says how many bytes its blocks are, unpacked;
/// `open` reads and proves what it refers to.
pub fn load_checked<S: Source>(
    reader: &Reader<S>,
    open: impl Fn(&SegmentRef) -> standfast_snapshot::Result<Bytes> + Sync,
    limits: state::Limits,
    threads: usize,
) -> standfast_snapshot::Result<(Header, State, u64)> {
    let raw_bytes = AtomicU64::new(0);
    let mut parts = reader.load_with(threads, &open, |_, block| {
        raw_bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
        state::load_block(&limits, block).map_err(|e| e.to_string())
    })?;
    let refuse = |error: state::LoadError| reader.refuse_contents(error.to_string());
    let named = reader.segments()?;
    parts.append(&mut side_by_side(
        threads,
        &named,
        || (),
        |(), reference| {
            let segment = segment_of(reference, open(reference)?);
            state::load_segment(segment).map_err(refuse)
        },
    )?);
    let header = reader.header().clone();
    let state = State::assemble(limits, &head_of(&header), parts).map_err(refuse)?;
    Ok((header, state, raw_bytes.into_inner()))
}

fn head_of(header: &Header) -> state::SnapshotHead {
    state::SnapshotHead {
        lsn: header.link.position.lsn,
        timestamp: header.link.timestamp,
        digest: state::Digest(header.digest),
        keys: header.counts[0],
        tokens: header.counts[1],
    }
}

/// The bytes were proved against the reference.
fn segment_of(reference: &SegmentRef, bytes: Bytes) -> Segment {
    Segment {
        sort: u8::try_from(reference.list).unwrap_or(u8::MAX),
        number: reference.number,
        bytes,
        stored: Some(reference.blake3),
    }
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

/// Reads every snapshot and every segment that one names again, with a rest behind each; the story
/// of the first one that is damaged.
pub fn scrub<D: Directory>(dir: &D, rest: &mut dyn FnMut()) -> Option<String> {
    let storage = dir.snapshots().ok()?;
    let mut proved = BTreeSet::new();
    for (_, name) in list(&storage).ok()? {
        let is_gone = || storage.open(&name).is_err();
        let checked = Reader::open_in(&storage, &name).and_then(|reader| {
            reader.check_whole()?;
            reader.segments()
        });
        let named = match checked {
            Ok(named) => named,
            // Replaced by a newer one meanwhile.
            Err(_) if is_gone() => continue,
            Err(error) => return Some(error.to_string()),
        };
        rest();
        for reference in named {
            if !proved.insert(reference) {
                continue;
            }
            match segment::open(&storage, &reference) {
                Ok(_) => rest(),
                Err(_) if is_gone() => break,
                Err(error) => return Some(error.to_string()),
            }
        }
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

#[cfg(test)]
mod tests;
