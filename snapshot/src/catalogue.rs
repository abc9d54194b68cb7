//! What lies in an archive directory: names, and the headers behind them.
//!
//! Only headers and indexes are read, so a listing is quick and proves little; `verify` proves the
//! rest. What cannot be read is listed as that, with the reason: it is a hole until somebody looks.

use crate::Result;
use crate::error::Error;
use crate::new_file::TEMPORARY;
use crate::object::{Card, LOG_BYTES, LogHead};
use crate::read::{Reader, header_of};
use crate::segment::{self, SegmentRef};
use standfast_wal::{ClusterId, History, Link, Lsn, NodeId};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The name of a history's card.
pub const CARD_NAME: &str = "history";
/// The directory of a cluster's segments.
const SEGMENTS_NAME: &str = "segments";
/// What the names of a node's own snapshots end in.
const LOCAL: &str = ".sfs";

/// A snapshot that could be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotEntry {
    pub path: PathBuf,
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
    pub path: PathBuf,
    pub head: LogHead,
}

/// A file that has a place in the archive but cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    pub path: PathBuf,
    /// First and last LSN, as its name says; the same for a snapshot. `None` for a card.
    pub lsns: Option<(Lsn, Lsn)>,
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
    pub segments_dir: PathBuf,
}

/// `<dir>/<cluster>/<generation>-<id>`; the generation is padded, so that names sort as numbers.
pub fn history_dir(dir: &Path, cluster: ClusterId, history: History) -> PathBuf {
    let name = format!("{:020}-{:032x}", history.generation, history.id);
    dir.join(cluster.to_string()).join(name)
}

/// Where the segments lie that a history's snapshots, and those of all others of its cluster, need:
/// beside the histories' directories.
pub fn segments_beside(history_dir: &Path) -> PathBuf {
    history_dir.with_file_name(SEGMENTS_NAME)
}

/// The archive's name of a snapshot.
pub fn snapshot_name(lsn: Lsn) -> String {
    format!("snapshot-{:020}", lsn.0)
}

/// The archive's name of a piece of log.
pub fn log_name(first: Lsn, last: Lsn) -> String {
    format!("log-{:020}-{:020}", first.0, last.0)
}

/// The name of a node's own snapshot.
pub fn local_name(lsn: Lsn) -> String {
    format!("{}{LOCAL}", snapshot_name(lsn))
}

fn parse_lsn(digits: &str) -> Option<Lsn> {
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(Lsn)).flatten()
}

fn parse_snapshot_name(name: &str) -> Option<Lsn> {
    parse_lsn(name.strip_prefix("snapshot-")?)
}

fn parse_log_name(name: &str) -> Option<(Lsn, Lsn)> {
    let (first, last) = name.strip_prefix("log-")?.split_once('-')?;
    Some((parse_lsn(first)?, parse_lsn(last)?))
}

/// A node's own snapshots, the newest first; the files are not opened.
pub fn list_local(dir: &Path) -> io::Result<Vec<(Lsn, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let lsn = name
            .and_then(|name| name.strip_suffix(LOCAL))
            .and_then(parse_snapshot_name);
        found.extend(lsn.map(|lsn| (lsn, path)));
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The clusters that have something in the archive.
pub fn clusters(dir: &Path) -> Result<Vec<ClusterId>> {
    let mut found = Vec::new();
    for name in names(dir)? {
        if name.len() == 32 {
            found.extend(name.parse::<ClusterId>().ok());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Names in `dir`, without what is still being written.
fn names(dir: &Path) -> Result<Vec<String>> {
    let fail = |e| Error::io(dir.display(), e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if let Some(name) = name.to_str()
            && !name.ends_with(TEMPORARY)
        {
            found.push(name.to_string());
        }
    }
    Ok(found)
}

/// Everything that the archive has of one cluster.
pub fn read(dir: &Path, cluster: ClusterId) -> Result<Catalogue> {
    let home = dir.join(cluster.to_string());
    let mut histories = Vec::new();
    let mut cluster_name = (0, String::new());
    for name in names(&home)? {
        let Some(history) = parse_history(&name) else {
            continue;
        };
        let (entry, name) = read_history(&home.join(name), cluster, history)?;
        if let Some(name) = name
            && history.generation >= cluster_name.0
        {
            cluster_name = (history.generation, name);
        }
        histories.push(entry);
    }
    histories.sort_unstable_by_key(|entry| entry.history);
    let segments_dir = home.join(SEGMENTS_NAME);
    Ok(Catalogue {
        cluster,
        cluster_name: cluster_name.1,
        histories,
        segments: read_segments(&segments_dir)?,
        segments_dir,
    })
}

fn read_segments(dir: &Path) -> Result<Vec<SegmentRef>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for name in names(dir)? {
        let path = dir.join(&name);
        let length = || fs::metadata(&path).map_err(|e| Error::io(path.display(), e));
        if let Some((list, number, blake3)) = segment::parse(&name) {
            let bytes = length()?.len();
            found.push(SegmentRef {
                list,
                number,
                bytes,
                blake3,
            });
        }
    }
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

/// One history, and the cluster's name if its card can be read.
fn read_history(
    dir: &Path,
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
    for name in names(dir)? {
        let path = dir.join(&name);
        let read = if name == CARD_NAME {
            read_card(&path).map(|card| {
                let mine = card.cluster == cluster && card.history == history;
                entry.ancestors = card.ancestors;
                cluster_name = Some(card.cluster_name);
                mine
            })
        } else if let Some(lsn) = parse_snapshot_name(&name) {
            read_snapshot(&path).map(|(found, whose)| {
                let mine = found.link.position.lsn == lsn && whose == (cluster, history);
                entry.snapshots.push(found);
                mine
            })
        } else if let Some(range) = parse_log_name(&name) {
            read_log_head(&path).map(|head| {
                let path = path.clone();
                entry.logs.push(LogEntry { path, head });
                (head.first_lsn, head.last_lsn()) == range
                    && (head.cluster, head.history) == (cluster, history)
            })
        } else {
            continue;
        };
        let reason = match read {
            Ok(true) => continue,
            Ok(false) => "it is not what its name and directory say".to_string(),
            Err(error) => error.to_string(),
        };
        entry.snapshots.retain(|s| s.path != path);
        entry.logs.retain(|l| l.path != path);
        let lsns = parse_log_name(&name).or(parse_snapshot_name(&name).map(|lsn| (lsn, lsn)));
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

fn read_card(path: &Path) -> Result<Card> {
    let bytes = fs::read(path).map_err(|e| Error::io(path.display(), e))?;
    Card::decode(&path.display().to_string(), &bytes)
}

fn read_snapshot(path: &Path) -> Result<(SnapshotEntry, (ClusterId, History))> {
    let header = header_of(path)?;
    let size = fs::metadata(path).map_err(|e| Error::io(path.display(), e))?;
    let entry = SnapshotEntry {
        path: path.to_path_buf(),
        link: header.link,
        digest: header.digest,
        node: header.node,
        counts: header.counts,
        file_bytes: size.len(),
        segments: Reader::open(path)?.segments()?,
    };
    Ok((entry, (header.cluster, header.history)))
}

fn read_log_head(path: &Path) -> Result<LogHead> {
    let fail = |e| Error::io(path.display(), e);
    let file = File::open(path).map_err(fail)?;
    let mut bytes = Vec::with_capacity(LOG_BYTES);
    let mut front = file.take(LOG_BYTES as u64);
    front.read_to_end(&mut bytes).map_err(fail)?;
    LogHead::decode(&path.display().to_string(), &bytes)
}

/// The head of the piece of log that reaches furthest, by name; pieces that cannot be read are
/// passed over.
pub(crate) fn newest_log(dir: &Path) -> Result<Option<LogHead>> {
    let mut ranges: Vec<(Lsn, Lsn)> = names(dir)?
        .iter()
        .filter_map(|name| parse_log_name(name))
        .map(|(first, last)| (last, first))
        .collect();
    ranges.sort_unstable();
    for (last, first) in ranges.into_iter().rev() {
        if let Ok(head) = read_log_head(&dir.join(log_name(first, last))) {
            return Ok(Some(head));
        }
    }
    Ok(None)
}
