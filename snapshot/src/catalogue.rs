//! What lies in an archive: names, and the headers behind them.
//!
//! Only headers and indexes are read, so a listing is quick and proves little; `verify` proves the
//! rest. What cannot be read is listed as that, with the reason: it is a hole until somebody looks.

mod names;
mod part;
mod size;

use crate::Result;
use crate::card::Card;
use crate::error::{Error, Reason};
use crate::format::Header;
use crate::manifest::{Manifest, ManifestId, Named};
use crate::object::{LOG_BYTES, LogHead};
use crate::read::{Object, Reader, Source, side_by_side};
use crate::seal::RecipientsId;
use crate::sealed::{Clear, SealedHead};
use crate::segment::{self, SegmentRef};
use crate::store::{self, Listed, Shared, Store, join};
use standfast_wal::{Ancestor, ClusterId, History, Link, Lsn, NodeId};
use std::collections::BTreeSet;
use std::io::ErrorKind;

pub use part::GivenUp;
pub(crate) use part::{Window, pieces_reaching, read_starts, read_window};
pub use size::Size;

pub use names::{
    CARD_NAME, history_dir, is_snapshot, log_name, manifest_name, marks_dir, named_name,
    segments_beside, snapshot_name,
};
use names::{
    LOG_PREFIX, MANIFEST_PREFIX, SEGMENTS_NAME, SNAPSHOT_PREFIX, parse_history, parse_log_name,
    parse_manifest_name, parse_snapshot_name,
};

/// A snapshot that could be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotEntry {
    pub path: String,
    /// Where the log goes on behind it.
    pub link: Link,
    /// Whom it is encrypted to; `None`: it is not.
    pub recipients: Option<RecipientsId>,
    /// Digest and counts of the state; `None` where they are encrypted.
    pub state: Option<(u128, [u64; 4])>,
    /// Who wrote it.
    pub node: NodeId,
    pub file_bytes: u64,
    /// The BLAKE3 that the object itself has of its bytes.
    pub blake3: [u8; 32],
    /// What it needs besides its own file, segments and parts, and where that lies.
    pub segments: Vec<SegmentRef>,
    pub segments_dir: String,
}

/// A piece of log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    pub path: String,
    pub head: LogHead,
}

/// A file that has a place in the archive but cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    pub path: String,
    /// First and last LSN, as its name says; the same for a snapshot. `None` for a card.
    pub lsns: Option<(Lsn, Lsn)>,
    /// Names its place, too.
    pub reason: String,
}

/// One history of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    pub history: History,
    /// Oldest first.
    pub ancestors: Vec<Ancestor>,
    /// By LSN.
    pub snapshots: Vec<SnapshotEntry>,
    /// By first LSN, the longer one first.
    pub logs: Vec<LogEntry>,
    /// What cannot be read, and what a manifest names and is not there.
    pub unreadable: Vec<Unreadable>,
    /// By id.
    pub manifests: Vec<Manifest>,
}

/// One cluster's part of the archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Catalogue {
    pub cluster: ClusterId,
    /// As the newest history's card says.
    pub cluster_name: String,
    /// By generation, then id.
    pub histories: Vec<HistoryEntry>,
    /// The paths of the segments that lie there for snapshots of any history to need.
    pub segments: Vec<String>,
}

/// The clusters that have something in the archive.
pub fn clusters(store: &dyn Store) -> Result<Vec<ClusterId>> {
    let listing = store.list("").map_err(|e| Error::io(store.place(""), e))?;
    let names = listing.below.iter().filter(|name| name.len() == 32);
    let mut found: Vec<ClusterId> = names.filter_map(|name| name.parse().ok()).collect();
    found.sort_unstable();
    Ok(found)
}

/// The histories of a cluster that have something in the archive, by generation, then id.
pub fn histories(store: &dyn Store, cluster: ClusterId) -> Result<Vec<History>> {
    let home = cluster.to_string();
    let listing = store.list(&home);
    let listing = listing.map_err(|e| Error::io(store.place(&home), e))?;
    let mut found: Vec<History> = listing
        .below
        .iter()
        .filter_map(|name| parse_history(name))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Everything that the archive has of one cluster.
pub fn read(store: &Shared, cluster: ClusterId) -> Result<Catalogue> {
    let mut entries = Vec::new();
    let mut cluster_name = String::new();
    for history in histories(&**store, cluster)? {
        let (entry, name) = read_history(store, cluster, history)?;
        cluster_name = name.unwrap_or(cluster_name);
        entries.push(entry);
    }
    Ok(Catalogue {
        cluster,
        cluster_name,
        histories: entries,
        segments: segments(&**store, cluster)?,
    })
}

/// The paths of all segments of a cluster.
fn segments(store: &dyn Store, cluster: ClusterId) -> Result<Vec<String>> {
    let home = cluster.to_string();
    let listing = store.list(&home);
    let listing = listing.map_err(|e| Error::io(store.place(&home), e))?;
    let mut found = Vec::new();
    for name in listing
        .below
        .iter()
        .filter(|name| name.starts_with(SEGMENTS_NAME))
    {
        let dir = join(&home, name);
        let there = segments_in(store, &dir)?;
        found.extend(there.iter().map(|one| join(&dir, &one.name)));
    }
    Ok(found)
}

/// The segments in one directory of the archive, in order.
pub(crate) fn segments_in(store: &dyn Store, dir: &str) -> Result<Vec<Listed>> {
    let listing = store
        .list(dir)
        .map_err(|e| Error::io(store.place(dir), e))?;
    let mut found = listing.objects;
    found.retain(|one| segment::parse(&one.name).is_some());
    found.sort_unstable();
    Ok(found)
}

/// What an object turned out to be.
enum Read {
    Card(Card),
    Snapshot(SnapshotEntry),
    Log(LogEntry),
    Manifest(Manifest),
    Unreadable(Unreadable),
}

/// One history, and the cluster's name if its card can be read.
fn read_history(
    store: &Shared,
    cluster: ClusterId,
    history: History,
) -> Result<(HistoryEntry, Option<String>)> {
    let dir = history_dir(cluster, history);
    let listing = store.list(&dir);
    let objects = listing
        .map_err(|e| Error::io(store.place(&dir), e))?
        .objects;
    let names = objects.into_iter().map(|one| one.name);
    let names: Vec<String> = names.filter(|name| is_known(name)).collect();
    let (mut entry, cluster_name) = read_objects(store, cluster, history, &names)?;
    let there = names.iter().map(String::as_str).collect();
    let missing = missing(&**store, &dir, &there, &entry.manifests)?;
    entry.unreadable.extend(missing);
    entry.sort();
    Ok((entry, cluster_name))
}

/// The heads of these objects of one history.
fn read_objects(
    store: &Shared,
    cluster: ClusterId,
    history: History,
    names: &[String],
) -> Result<(HistoryEntry, Option<String>)> {
    let mut entry = HistoryEntry::new(history);
    let mut cluster_name = None;
    let dir = history_dir(cluster, history);
    let all = side_by_side(
        store.readers(),
        names,
        || (),
        |(), name| read_one(store, &dir, name, (cluster, history)),
    )?;
    for read in all {
        match read {
            Read::Card(card) => {
                entry.ancestors = card.ancestors;
                cluster_name = Some(card.cluster_name);
            }
            Read::Snapshot(snapshot) => entry.snapshots.push(snapshot),
            Read::Log(log) => entry.logs.push(log),
            Read::Manifest(manifest) => entry.manifests.push(manifest),
            Read::Unreadable(unreadable) => entry.unreadable.push(unreadable),
        }
    }
    entry.sort();
    Ok((entry, cluster_name))
}

impl HistoryEntry {
    /// Of which nothing is known yet.
    pub(crate) fn new(history: History) -> HistoryEntry {
        HistoryEntry {
            history,
            ancestors: Vec::new(),
            snapshots: Vec::new(),
            logs: Vec::new(),
            unreadable: Vec::new(),
            manifests: Vec::new(),
        }
    }

    fn sort(&mut self) {
        self.snapshots.sort_unstable_by_key(|s| s.link.position);
        self.logs
            .sort_unstable_by_key(|l| (l.head.first_lsn, std::cmp::Reverse(l.head.last_lsn())));
        self.unreadable.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.manifests.sort_unstable_by_key(|manifest| manifest.id);
    }
}

fn is_known(name: &str) -> bool {
    name == CARD_NAME
        || parse_snapshot_name(name).is_some()
        || parse_log_name(name).is_some()
        || parse_manifest_name(name).is_some()
}

/// What should be `there` in a history's directory and is not.
fn missing(
    store: &dyn Store,
    dir: &str,
    there: &BTreeSet<&str>,
    manifests: &[Manifest],
) -> Result<Vec<Unreadable>> {
    let card = (CARD_NAME.to_string(), None, None);
    let mut wanted = vec![card];
    for manifest in manifests {
        let by = || Some(manifest_name(manifest.id));
        let named = manifest.named.iter();
        wanted.extend(named.map(|one| {
            let first = if one.first == Lsn::ZERO {
                one.last
            } else {
                one.first
            };
            (named_name(one), Some((first, one.last)), by())
        }));
        // The oldest that are left name one that was removed before them.
        if manifests[0].id < manifest.previous {
            wanted.push((manifest_name(manifest.previous), None, by()));
        }
    }
    wanted.sort_unstable();
    wanted.dedup_by(|a, b| a.0 == b.0);
    let mut missing = Vec::new();
    for (name, lsns, by) in wanted {
        let path = join(dir, &name);
        // It may have been put since the names were listed.
        if there.contains(name.as_str()) || is_there(store, &path)? {
            continue;
        }
        let place = store.place(&path);
        let reason = match by {
            Some(by) => format!("{place}: it is not there, and {by} names it"),
            None => format!("{place}: it is not there"),
        };
        missing.push(Unreadable { path, lsns, reason });
    }
    Ok(missing)
}

/// Whether an object is there.
pub(crate) fn is_there(store: &dyn Store, name: &str) -> Result<bool> {
    match store.length(name) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(store.place(name), error)),
    }
}

/// Reads the head of one object. What it is not is no error; that the store does not answer is.
fn read_one(store: &Shared, dir: &str, name: &str, whose: (ClusterId, History)) -> Result<Read> {
    let path = join(dir, name);
    let snapshot_lsn = parse_snapshot_name(name);
    let read = if name == CARD_NAME {
        let card = read_card(&**store, &path);
        card.map(|card| ((card.cluster, card.history) == whose, Read::Card(card)))
    } else if let Some(lsn) = snapshot_lsn {
        read_snapshot(store, &path).map(|(found, of)| {
            let is_right = found.link.position.lsn == lsn && of == whose;
            (is_right, Read::Snapshot(found))
        })
    } else if let Some(id) = parse_manifest_name(name) {
        read_manifest(&**store, &path).map(|manifest| {
            let is_right = manifest.id == id && (manifest.cluster, manifest.history) == whose;
            (is_right, Read::Manifest(manifest))
        })
    } else {
        read_log_head(&**store, &path).map(|head| {
            let range = (head.first_lsn, head.last_lsn());
            let is_right =
                parse_log_name(name) == Some(range) && (head.cluster, head.history) == whose;
            let path = path.clone();
            (is_right, Read::Log(LogEntry { path, head }))
        })
    };
    if !matches!(read, Ok((true, _))) {
        // Whoever keeps copies should not give this one again.
        store.forget(&path);
    }
    let reason = match read {
        Ok((true, read)) => return Ok(read),
        Ok((false, _)) => {
            let place = store.place(&path);
            format!("{place}: it is not what its name and directory say")
        }
        Err(error) if error.is_unanswered() => return Err(error),
        Err(error) => error.to_string(),
    };
    // The name of a manifest tells how far the archive has come.
    let one = snapshot_lsn.or(parse_manifest_name(name).map(|id| id.lsn));
    let lsns = parse_log_name(name).or(one.map(|lsn| (lsn, lsn)));
    Ok(Read::Unreadable(Unreadable { path, lsns, reason }))
}

pub(crate) fn read_card(store: &dyn Store, path: &str) -> Result<Card> {
    let bytes = store
        .get(path)
        .map_err(|e| Error::io(store.place(path), e))?;
    Card::decode(&store.place(path), &bytes)
}

pub(crate) fn read_manifest(store: &dyn Store, path: &str) -> Result<Manifest> {
    let bytes = store
        .get(path)
        .map_err(|e| Error::io(store.place(path), e))?;
    Manifest::decode(&store.place(path), &bytes)
}

pub(crate) fn read_snapshot(
    store: &Shared,
    path: &str,
) -> Result<(SnapshotEntry, (ClusterId, History))> {
    let place = store.place(path);
    let sealed = match Reader::new(Object::new(store, path), &place) {
        Ok(reader) => {
            let header = reader.header();
            let stored = (reader.file_bytes(), reader.blake3());
            let entry = SnapshotEntry {
                state: Some((header.digest, header.counts)),
                ..entry(path, header, None, stored, reader.references()?)
            };
            return Ok((entry, whose(header)));
        }
        Err(error) if matches!(error.reason, Reason::Magic(_)) => error,
        Err(error) => return Err(error),
    };
    let object = Object::new(store, path);
    let (head, at) = match SealedHead::read(&place, &object) {
        Err(error) if matches!(error.reason, Reason::Magic(_)) => return Err(sealed),
        read => read?,
    };
    let Clear::Snapshot(header, segments) = head.clear else {
        return Err(sealed);
    };
    let needed = at.saturating_add(head.stored_bytes);
    let found = object.length().map_err(|e| Error::io(&place, e))?;
    if found != needed {
        return Err(Error::new(
            &place,
            found,
            Reason::Truncated { needed, found },
        ));
    }
    let recipients = Some(head.recipients);
    let entry = entry(path, &header, recipients, (needed, head.blake3), segments);
    Ok((entry, whose(&header)))
}

fn whose(header: &Header) -> (ClusterId, History) {
    (header.cluster, header.history)
}

fn entry(
    path: &str,
    header: &Header,
    recipients: Option<RecipientsId>,
    (file_bytes, blake3): (u64, [u8; 32]),
    segments: Vec<SegmentRef>,
) -> SnapshotEntry {
    SnapshotEntry {
        path: path.to_string(),
        link: header.link,
        recipients,
        state: None,
        node: header.node,
        file_bytes,
        blake3,
        segments,
        segments_dir: segments_beside(store::parent(path), recipients),
    }
}

pub(crate) fn read_log_head(store: &dyn Store, path: &str) -> Result<LogHead> {
    let front = store.get_range(path, 0, LOG_BYTES as u64);
    let front = front.map_err(|e| Error::io(store.place(path), e))?;
    LogHead::decode(&store.place(path), &front)
}

/// First and last LSN of each piece of log that begins at `from` or behind it, by name only, in
/// order.
pub(crate) fn pieces_from(store: &dyn Store, dir: &str, from: Lsn) -> Result<Vec<(Lsn, Lsn)>> {
    // Right before every name of a piece that begins there.
    let behind = format!("{LOG_PREFIX}{:020}", from.0);
    let listed = store.list_behind(dir, &behind);
    let listed = listed.map_err(|e| Error::io(store.place(dir), e))?;
    let names = listed.iter();
    Ok(names.filter_map(|one| parse_log_name(&one.name)).collect())
}

/// Whether a history's card is there: the first that is put of it, and the last that goes.
pub fn has_card(store: &dyn Store, cluster: ClusterId, history: History) -> Result<bool> {
    let path = join(&history_dir(cluster, history), CARD_NAME);
    match store.length(&path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(store.place(&path), error)),
    }
}

/// The LSNs of the snapshots in a history's directory, by name only.
pub(crate) fn snapshots_in(store: &dyn Store, dir: &str) -> Result<Vec<Lsn>> {
    let listing = store.list_behind(dir, SNAPSHOT_PREFIX);
    let listing = listing.map_err(|e| Error::io(store.place(dir), e))?;
    let names = listing.iter();
    Ok(names
        .filter_map(|one| parse_snapshot_name(&one.name))
        .collect())
}

/// The newest manifest of a history, by name only.
pub(crate) fn newest_manifest(store: &dyn Store, dir: &str) -> Result<Option<ManifestId>> {
    let listing = store.list_behind(dir, MANIFEST_PREFIX);
    let listing = listing.map_err(|e| Error::io(store.place(dir), e))?;
    let names = listing.iter();
    Ok(names.filter_map(|one| parse_manifest_name(&one.name)).max())
}

impl SnapshotEntry {
    /// Where its segments lie.
    pub(crate) fn segment_paths(&self) -> impl Iterator<Item = String> {
        let all = self.segments.iter();
        all.map(|one| join(&self.segments_dir, &one.name()))
    }

    /// The snapshot as a manifest names it.
    pub(crate) fn named(&self) -> Named {
        Named {
            first: Lsn::ZERO,
            last: self.link.position.lsn,
            bytes: self.file_bytes,
            blake3: self.blake3,
        }
    }
}
