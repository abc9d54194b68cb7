//! What lies in an archive: names, and the headers behind them.
//!
//! Only headers and indexes are read, so a listing is quick and proves little; `verify` proves the
//! rest. What cannot be read is listed as that, with the reason: it is a hole until somebody looks.

use crate::Result;
use crate::error::Error;
use crate::object::{Card, LOG_BYTES, LogHead};
use crate::read::{Reader, side_by_side};
use crate::segment::{self, SegmentRef};
use crate::store::{self, Listed, Shared, Store, join};
use standfast_wal::{ClusterId, History, Link, Lsn, NodeId};

/// The name of a history's card.
pub const CARD_NAME: &str = "history";
/// The name above a cluster's segments.
const SEGMENTS_NAME: &str = "segments";
const SNAPSHOT_PREFIX: &str = "snapshot-";
const LOG_PREFIX: &str = "log-";

/// A snapshot that could be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotEntry {
    pub path: String,
    /// Where the log goes on behind it.
    pub link: Link,
    pub digest: u128,
    /// Who wrote it.
    pub node: NodeId,
    pub counts: [u64; 4],
    pub file_bytes: u64,
    /// What it needs besides its own file.
    pub segments: Vec<SegmentRef>,
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
    /// Oldest first, each with the last LSN shared with it.
    pub ancestors: Vec<(History, u64)>,
    /// By LSN.
    pub snapshots: Vec<SnapshotEntry>,
    /// By first LSN, the longer one first.
    pub logs: Vec<LogEntry>,
    pub unreadable: Vec<Unreadable>,
}

/// One cluster's part of the archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Catalogue {
    pub cluster: ClusterId,
    /// As the newest history's card says.
    pub cluster_name: String,
    /// By generation, then id.
    pub histories: Vec<HistoryEntry>,
    /// What lies there for snapshots of any history to need, and where.
    pub segments: Vec<SegmentRef>,
    pub segments_dir: String,
}

/// `<cluster>/<generation>-<id>`; the generation is padded, so that names sort as numbers.
pub fn history_dir(cluster: ClusterId, history: History) -> String {
    format!("{cluster}/{:020}-{:032x}", history.generation, history.id)
}

/// Where the segments lie that a history's snapshots, and those of all others of its cluster, need:
/// beside the histories' directories.
pub fn segments_beside(history_dir: &str) -> String {
    join(store::parent(history_dir), SEGMENTS_NAME)
}

/// The archive's name of a snapshot.
pub fn snapshot_name(lsn: Lsn) -> String {
    format!("{SNAPSHOT_PREFIX}{:020}", lsn.0)
}

/// The archive's name of a piece of log.
pub fn log_name(first: Lsn, last: Lsn) -> String {
    format!("{LOG_PREFIX}{:020}-{:020}", first.0, last.0)
}

fn parse_lsn(digits: &str) -> Option<Lsn> {
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(Lsn)).flatten()
}

fn parse_snapshot_name(name: &str) -> Option<Lsn> {
    parse_lsn(name.strip_prefix(SNAPSHOT_PREFIX)?)
}

fn parse_log_name(name: &str) -> Option<(Lsn, Lsn)> {
    let (first, last) = name.strip_prefix(LOG_PREFIX)?.split_once('-')?;
    Some((parse_lsn(first)?, parse_lsn(last)?))
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
    let segments_dir = join(&cluster.to_string(), SEGMENTS_NAME);
    Ok(Catalogue {
        cluster,
        cluster_name,
        histories: entries,
        segments: read_segments(&**store, &segments_dir)?,
        segments_dir,
    })
}

/// The segments in the archive, in order.
pub(crate) fn read_segments(store: &dyn Store, dir: &str) -> Result<Vec<SegmentRef>> {
    let listing = store
        .list(dir)
        .map_err(|e| Error::io(store.place(dir), e))?;
    let segment = |one: &Listed| {
        let (list, number, blake3) = segment::parse(&one.name)?;
        let bytes = one.bytes;
        Some(SegmentRef {
            list,
            number,
            bytes,
            blake3,
        })
    };
    let mut found: Vec<SegmentRef> = listing.objects.iter().filter_map(segment).collect();
    found.sort_unstable();
    Ok(found)
}

fn parse_history(name: &str) -> Option<History> {
    let (generation, id) = name.split_once('-')?;
    Some(History {
        generation: parse_lsn(generation)?.0,
        id: u128::from_str_radix(id, 16)
            .ok()
            .filter(|_| id.len() == 32)?,
    })
}

/// What an object turned out to be.
enum Read {
    Card(Card),
    Snapshot(SnapshotEntry),
    Log(LogEntry),
    Unreadable(Unreadable),
}

/// One history, and the cluster's name if its card can be read.
fn read_history(
    store: &Shared,
    cluster: ClusterId,
    history: History,
) -> Result<(HistoryEntry, Option<String>)> {
    let mut entry = HistoryEntry {
        history,
        ancestors: Vec::new(),
        snapshots: Vec::new(),
        logs: Vec::new(),
        unreadable: Vec::new(),
    };
    let mut cluster_name = None;
    let dir = history_dir(cluster, history);
    let listing = store.list(&dir);
    let mut objects = listing
        .map_err(|e| Error::io(store.place(&dir), e))?
        .objects;
    objects.retain(|one| is_known(&one.name));
    let all = side_by_side(
        store.readers(),
        &objects,
        || (),
        |(), one| read_one(store, &dir, &one.name, (cluster, history)),
    )?;
    for read in all {
        match read {
            Read::Card(card) => {
                entry.ancestors = card.ancestors;
                cluster_name = Some(card.cluster_name);
            }
            Read::Snapshot(snapshot) => entry.snapshots.push(snapshot),
            Read::Log(log) => entry.logs.push(log),
            Read::Unreadable(unreadable) => entry.unreadable.push(unreadable),
        }
    }
    if objects.iter().all(|one| one.name != CARD_NAME) {
        let path = join(&dir, CARD_NAME);
        let reason = format!("{}: it is not there", store.place(&path));
        let lsns = None;
        entry.unreadable.push(Unreadable { path, lsns, reason });
    }
    entry.snapshots.sort_unstable_by_key(|s| s.link.position);
    entry
        .logs
        .sort_unstable_by_key(|l| (l.head.first_lsn, std::cmp::Reverse(l.head.last_lsn())));
    entry
        .unreadable
        .sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok((entry, cluster_name))
}

fn is_known(name: &str) -> bool {
    name == CARD_NAME || parse_snapshot_name(name).is_some() || parse_log_name(name).is_some()
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
    } else {
        read_log_head(&**store, &path).map(|head| {
            let range = (head.first_lsn, head.last_lsn());
            let is_right =
                parse_log_name(name) == Some(range) && (head.cluster, head.history) == whose;
            let path = path.clone();
            (is_right, Read::Log(LogEntry { path, head }))
        })
    };
    let reason = match read {
        Ok((true, read)) => return Ok(read),
        Ok((false, _)) => {
            let place = store.place(&path);
            format!("{place}: it is not what its name and directory say")
        }
        Err(error) if error.is_unanswered() => return Err(error),
        Err(error) => error.to_string(),
    };
    let lsns = parse_log_name(name).or(snapshot_lsn.map(|lsn| (lsn, lsn)));
    Ok(Read::Unreadable(Unreadable { path, lsns, reason }))
}

pub(crate) fn read_card(store: &dyn Store, path: &str) -> Result<Card> {
    let bytes = store
        .get(path)
        .map_err(|e| Error::io(store.place(path), e))?;
    Card::decode(&store.place(path), &bytes)
}

pub(crate) fn read_snapshot(
    store: &Shared,
    path: &str,
) -> Result<(SnapshotEntry, (ClusterId, History))> {
    let reader = Reader::open_object(store, path)?;
    let header = reader.header();
    let entry = SnapshotEntry {
        path: path.to_string(),
        link: header.link,
        digest: header.digest,
        node: header.node,
        counts: header.counts,
        file_bytes: reader.file_bytes(),
        segments: reader.segments()?,
    };
    Ok((entry, (header.cluster, header.history)))
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

/// The LSNs of the snapshots in a history's directory, by name only.
pub(crate) fn snapshots_in(store: &dyn Store, dir: &str) -> Result<Vec<Lsn>> {
    let listing = store.list_behind(dir, SNAPSHOT_PREFIX);
    let listing = listing.map_err(|e| Error::io(store.place(dir), e))?;
    let names = listing.iter();
    Ok(names
        .filter_map(|one| parse_snapshot_name(&one.name))
        .collect())
}
