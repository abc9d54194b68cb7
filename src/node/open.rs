//! From a data directory to a node that can run: meta, newest good snapshot, log, in that order.
//!
//! What is damaged is never guessed at: the log mends what it can prove, and where a peer holds
//! the data, everything of this disk's life is kept aside and the node joins again as a new
//! incarnation (2-replication, "Member"). Alone, it refuses, naming the file and what to do.

use crate::config::Config;
use crate::node::copies::{Newest, decode_epochs};
use crate::node::engine::LogSource;
use crate::node::meta::{self, MetaFile, NewNode};
use crate::node::run::ServeError;
use crate::replication::config::MemberRole;
use crate::replication::{EpochEntry, EpochTable, LogFacts, Meta, SnapshotHead};
use crate::state::{self, State};
use standfast_snapshot::{Header, Reader as SnapshotReader, Source};
use standfast_wal::{
    ClusterId, Disk, End, Error, ErrorKind, Incarnation, Link, Log, Lsn, Options, Position,
    ReadError, Reader, Record, Storage,
};
use std::fs;
use std::path::{Path, PathBuf};

/// A data directory, opened.
pub struct Opened {
    /// For the meta file; its lock is held as long as this lives.
    pub disk: Disk,
    pub lock: <Disk as Storage>::Lock,
    pub meta: MetaFile,
    pub state: State,
    pub facts: LogFacts,
    /// `None` on a witness.
    pub log: Option<Log<Disk>>,
    pub newest: Option<Newest>,
    /// Where the loaded state stands.
    pub applied: Link,
}

/// The log's files, as the engine reads them.
pub struct LogFiles(pub Option<Reader<Disk>>);

impl LogSource for LogFiles {
    fn read(&self, after: Lsn, max_bytes: usize) -> Result<Option<Vec<Record>>, String> {
        let Some(reader) = &self.0 else {
            return Ok(None);
        };
        match reader.read(after, max_bytes) {
            Ok(records) => Ok(Some(records)),
            Err(ReadError::Gone { .. }) => Ok(None),
            Err(ReadError::Damaged(range)) => Err(format!(
                "{} offset {} LSN {}: the log is damaged on disk; restart this node so that it \
                 mends itself from a peer",
                range.file, range.offset, range.first_lsn
            )),
            Err(ReadError::Failed(error)) => Err(error.to_string()),
        }
    }
}

pub fn wal_dir(data: &Path) -> PathBuf {
    data.join("wal")
}

pub fn snapshot_dir(data: &Path) -> PathBuf {
    data.join("snapshots")
}

pub fn snapshot_path(data: &Path, lsn: Lsn) -> PathBuf {
    snapshot_dir(data).join(format!("snapshot-{:020}.sfs", lsn.0))
}

/// The name under which a received snapshot waits for the log to be reset to it.
pub fn waiting_path(data: &Path, lsn: Lsn) -> PathBuf {
    snapshot_dir(data).join(format!("waiting-{:020}.sfs", lsn.0))
}

/// What a snapshot's state needs besides its blocks.
pub fn state_limits(cluster: ClusterId) -> state::Limits {
    state::Limits {
        seed: (cluster.0 as u64) ^ ((cluster.0 >> 64) as u64),
    }
}

fn damaged(error: impl std::fmt::Display) -> ServeError {
    ServeError::Damaged(error.to_string())
}

/// Opens a data directory; with peers, one that is damaged is kept aside and begun anew.
pub fn open(config: &Config, random: &mut dyn FnMut() -> u128) -> Result<Opened, ServeError> {
    let dir = &config.data_dir;
    let disk = Disk::open(dir.clone()).map_err(|e| ServeError::InUse(e.to_string()))?;
    let lock = disk.lock().map_err(|error| {
        ServeError::InUse(format!(
            "{}: another process uses this data directory ({error}); stop it first",
            dir.display()
        ))
    })?;
    let alone = config.peers.is_empty();
    let cluster = match meta::load(dir) {
        Ok(Some(found)) => {
            let cluster = found.core.cluster;
            match open_with(config, &disk, with_own_addresses(config, found)) {
                Ok(parts) => return Ok(parts.into_opened(disk, lock)),
                Err(ServeError::Damaged(story)) if !alone => {
                    tracing::error!(%story, "this node's data is damaged");
                    cluster
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None) => {
            let text = format!("{} holds no node", dir.display());
            return Err(ServeError::Identity(text));
        }
        Err(error @ meta::MetaError::Version(_)) => {
            return Err(ServeError::Identity(error.to_string()));
        }
        Err(error) => {
            let story = format!("{}: {error}", dir.join(meta::FILE).display());
            match config.cluster_id {
                Some(cluster) if !alone => {
                    tracing::error!(%story, "this node's identity is damaged");
                    cluster
                }
                _ => {
                    return Err(ServeError::Damaged(format!(
                        "{story}; restore this node from a backup, or where other nodes hold the \
                         data, run `standfast join --afresh`"
                    )));
                }
            }
        }
    };
    let fresh = begin_anew(config, cluster, Incarnation(random()))?;
    Ok(open_with(config, &disk, fresh)?.into_opened(disk, lock))
}

/// Keeps everything of the old life aside and starts a new one that asks to be taken in.
fn begin_anew(
    config: &Config,
    cluster: ClusterId,
    incarnation: Incarnation,
) -> Result<MetaFile, ServeError> {
    let dir = &config.data_dir;
    let aside = (1..)
        .map(|n| dir.join("divergent").join(format!("life-{n}")))
        .find(|path| !path.exists())
        .expect("some number is free");
    let io = |error: std::io::Error| damaged(format!("{}: {error}", aside.display()));
    fs::create_dir_all(&aside).map_err(io)?;
    // The meta file goes first: a crash in between leaves a directory without a node, which is
    // begun anew again.
    for name in [meta::FILE, "wal", "snapshots"] {
        match fs::rename(dir.join(name), aside.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
    }
    tracing::warn!(aside = %aside.display(), %incarnation, "joining as a new incarnation");
    let new = NewNode {
        cluster,
        cluster_name: config.cluster.to_string(),
        node: config.node,
        incarnation,
        initial: None,
    };
    meta::create(dir, new).map_err(damaged)?;
    meta::load(dir)
        .map_err(damaged)?
        .ok_or_else(|| damaged("the new meta file is gone"))
}

/// What `open_with` found.
struct Parts {
    meta: MetaFile,
    state: State,
    facts: LogFacts,
    log: Option<Log<Disk>>,
    newest: Option<Newest>,
    applied: Link,
}

impl Parts {
    fn into_opened(self, disk: Disk, lock: <Disk as Storage>::Lock) -> Opened {
        let Parts {
            meta,
            state,
            facts,
            log,
            newest,
            applied,
        } = self;
        Opened {
            disk,
            lock,
            meta,
            state,
            facts,
            log,
            newest,
            applied,
        }
    }
}

/// A node that is alone and has never changed its register is where its settings say: a restored
/// or moved directory is found by its clients from the first start on. It is the only voter, so
/// nobody else has seen the value that is replaced.
fn with_own_addresses(config: &Config, mut meta: MetaFile) -> MetaFile {
    let core = &meta.core;
    let mut register = crate::replication::Config::clone(&core.config);
    let alone = register.version == 1 && register.members.len() == 1;
    let Some(member) = register.members.get_mut(&core.node).filter(|_| alone) else {
        return meta;
    };
    member.addresses = config.addresses();
    member.site = config.site.to_string();
    member.priority = config.priority;
    let first = Meta::first(core.cluster, core.node, core.incarnation, register);
    meta.core = Meta {
        fence: core.fence,
        suspect: core.suspect,
        ..first
    };
    meta
}

fn open_with(config: &Config, _disk: &Disk, meta: MetaFile) -> Result<Parts, ServeError> {
    let limits = state_limits(meta.core.cluster);
    if config.role == MemberRole::Witness {
        let facts = LogFacts {
            tip: Link::default(),
            committed: Lsn::ZERO,
            first_lsn: Lsn(1),
            epochs: EpochTable::default(),
            suspect: false,
        };
        let state = State::new(limits);
        let applied = Link::default();
        return Ok(Parts {
            meta,
            state,
            facts,
            log: None,
            newest: None,
            applied,
        });
    }
    let dir = &config.data_dir;
    fs::create_dir_all(snapshot_dir(dir)).map_err(damaged)?;
    fs::create_dir_all(wal_dir(dir)).map_err(damaged)?;
    standfast_snapshot::new_file::remove_leftovers(&snapshot_dir(dir)).map_err(damaged)?;
    let storage = Disk::open(wal_dir(dir)).map_err(damaged)?;
    let mut refused = None;
    for (lsn, path) in candidates(dir).map_err(damaged)? {
        match load_snapshot(&path, meta.core.cluster) {
            Ok((header, state)) => {
                let bytes = fs::metadata(&path).map(|m| m.len()).unwrap_or(0);
                let newest = newest_of(&header, bytes).map_err(damaged)?;
                match open_log(config, &meta, &storage, header.link, Some(&newest)) {
                    Ok((log, facts)) => {
                        settle_waiting(dir, lsn, &path).map_err(damaged)?;
                        let applied = header.link;
                        let (log, newest) = (Some(log), Some(newest));
                        return Ok(Parts {
                            meta,
                            state,
                            facts,
                            log,
                            newest,
                            applied,
                        });
                    }
                    Err(error) => refused = Some(error),
                }
            }
            Err(story) => {
                tracing::error!(%lsn, %story, "a snapshot is not believed");
                refused = Some(damaged(story));
            }
        }
    }
    // Without a usable snapshot the log alone must reach back to the first command.
    let (log, facts) = match open_log(config, &meta, &storage, Link::default(), None) {
        Ok(opened) => opened,
        Err(error) => return Err(refused.unwrap_or(error)),
    };
    let state = State::new(limits);
    let applied = Link::default();
    Ok(Parts {
        meta,
        state,
        facts,
        log: Some(log),
        newest: None,
        applied,
    })
}

fn wal_identity(meta: &MetaFile) -> standfast_wal::log::Identity {
    standfast_wal::log::Identity {
        cluster: meta.core.cluster,
        node: meta.core.node,
        incarnation: meta.core.incarnation,
    }
}

/// The snapshots of a data directory, newest first.
pub fn snapshots(dir: &Path) -> std::io::Result<Vec<(Lsn, PathBuf)>> {
    numbered_files(dir, &["snapshot-"])
}

/// What a node may start from. A crash between the log's reset and a received snapshot's final
/// name leaves it under its waiting name: the log opens behind it only if the reset has happened.
fn candidates(dir: &Path) -> std::io::Result<Vec<(Lsn, PathBuf)>> {
    numbered_files(dir, &["snapshot-", "waiting-"])
}

/// The node starts from `used`: if that is a waiting snapshot it gets its name, others go.
fn settle_waiting(dir: &Path, lsn: Lsn, used: &Path) -> std::io::Result<()> {
    for (_, path) in numbered_files(dir, &["waiting-"])? {
        if path == used {
            fs::rename(&path, snapshot_path(dir, lsn))?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    sync_dir(&snapshot_dir(dir))
}

fn numbered_files(dir: &Path, prefixes: &[&str]) -> std::io::Result<Vec<(Lsn, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(snapshot_dir(dir))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(lsn) = prefixes.iter().find_map(|prefix| numbered(&name, prefix)) {
            found.push((lsn, entry.path()));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

fn numbered(name: &str, prefix: &str) -> Option<Lsn> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(".sfs")?;
    digits.parse().ok().map(Lsn)
}

/// Loads and proves one snapshot, on as many threads as there are processors.
pub fn load_snapshot(path: &Path, cluster: ClusterId) -> Result<(Header, State), String> {
    let reader = SnapshotReader::open(path).map_err(|e| e.to_string())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    load_from(&reader, cluster, threads)
}

/// As [`load_snapshot`], from an opened one.
pub fn load_from<S: Source>(
    reader: &SnapshotReader<S>,
    cluster: ClusterId,
    threads: usize,
) -> Result<(Header, State), String> {
    let limits = state_limits(cluster);
    reader.check_cluster(cluster).map_err(|e| e.to_string())?;
    let parts = reader
        .load(threads, |_, block| {
            state::load_block(&limits, block).map_err(|e| e.to_string())
        })
        .map_err(|e| e.to_string())?;
    let header = reader.header().clone();
    let head = state::SnapshotHead {
        lsn: header.link.position.lsn,
        timestamp: header.link.timestamp,
        digest: state::Digest(header.digest),
        keys: header.counts[0],
        tokens: header.counts[1],
    };
    let state = State::assemble(limits, &head, parts)
        .map_err(|error| format!("{}: {error}", reader.file()))?;
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

fn open_log(
    config: &Config,
    meta: &MetaFile,
    storage: &Disk,
    base: Link,
    newest: Option<&Newest>,
) -> Result<(Log<Disk>, LogFacts), ServeError> {
    let options = Options {
        segment_bytes: config.wal_segment.0,
        keep_bytes: config.wal_keep.0,
        reserve_bytes: crate::limits::WAL_RESERVE_BYTES as u64,
        alone: config.peers.is_empty(),
        cut_damaged_end: false,
    };
    let identity = wal_identity(meta);
    let opened = Log::open(storage.clone(), identity, base, options);
    let (log, recovered) = match opened {
        Ok(opened) => opened,
        Err(error) if is_missing(&error) => {
            // A node that has nothing yet, or one restored to exactly this snapshot. A log that
            // was there once left its trace in the fence: an epoch above the base's.
            let first =
                meta.core.config.epoch == base.position.epoch || meta.core.config.version == 0;
            if !first {
                return Err(damaged(error));
            }
            let history = newest.map_or(meta.core.config.history, |n| n.head.history);
            let log = Log::create(storage.clone(), identity, history, base, options);
            let facts = facts_of(base, base.position.lsn.next(), newest, Vec::new(), false)?;
            return Ok((log.map_err(damaged)?, facts));
        }
        Err(error) => return Err(damaged(error)),
    };
    if let Some(range) = recovered.damaged.first() {
        return Err(damaged(format!(
            "log file {} offset {} LSN {} to {}: acknowledged records are damaged",
            range.file, range.offset, range.first_lsn, range.last_lsn
        )));
    }
    let suspect = matches!(recovered.end, End::Suspect { .. });
    if recovered.end != End::Clean {
        let (end, tail) = (&recovered.end, recovered.tail.position);
        tracing::warn!(?end, %tail, "the log's end was cut");
    }
    let starts = recovered.epoch_starts;
    let facts = facts_of(recovered.tail, recovered.first_lsn, newest, starts, suspect)?;
    Ok((log, facts))
}

fn is_missing(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Missing)
}

/// What the core must know of a log, from its recovery and the snapshot it goes on from.
pub fn facts_of(
    tip: Link,
    first_lsn: Lsn,
    newest: Option<&Newest>,
    epoch_starts: Vec<Record>,
    suspect: bool,
) -> Result<LogFacts, ServeError> {
    let mut epochs = newest
        .map(|newest| newest.head.epochs.clone())
        .unwrap_or_default();
    let committed = newest
        .map_or(Position::ZERO, |newest| newest.head.link.position)
        .lsn;
    for record in epoch_starts {
        let entry = EpochEntry::decode(&record).ok_or_else(|| {
            damaged(format!(
                "the EpochStart at {} is no such",
                record.first_lsn()
            ))
        })?;
        if entry.first_lsn > committed {
            epochs.push(entry);
        }
    }
    Ok(LogFacts {
        tip,
        committed,
        first_lsn,
        epochs,
        suspect,
    })
}

/// Makes renames and removals in a directory durable.
pub fn sync_dir(dir: &Path) -> std::io::Result<()> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let dir = rustix::fs::open(dir, flags, rustix::fs::Mode::empty())?;
    // Durable here: the names in this directory.
    Ok(rustix::fs::fsync(dir)?)
}
