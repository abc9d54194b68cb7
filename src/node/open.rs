//! From a data directory to a node that can run: meta, newest good snapshot, log, in that order.
//!
//! What is damaged is never guessed at: the log mends what it can prove, and where a peer holds
//! the data, everything of this disk's life is kept aside and the node joins again as a new
//! incarnation (2-replication, "Member"). Alone, it refuses, naming the file and what to do.

use crate::config::Config;
use crate::node::copies::Newest;
use crate::node::directory::Directory;
use crate::node::engine::{LogFault, LogSource};
use crate::node::evidence;
use crate::node::meta::{self, MetaFile, NewNode};
use crate::node::run::ServeError;
use crate::node::shelf;
use crate::replication::config::{Addresses, MemberRole};
use crate::replication::{EpochEntry, EpochTable, LogFacts, Meta};
use crate::state::{self, State};
use standfast_wal::{
    ClusterId, End, Error, ErrorKind, Incarnation, Link, Log, Lsn, NodeId, Options, Position,
    ReadError, Reader, Record, Storage,
};

/// What of a node's settings its opening depends on.
#[derive(Clone, Debug)]
pub struct Opening {
    pub node: NodeId,
    pub cluster_name: String,
    pub role: MemberRole,
    /// The cluster that a node whose meta file is lost joins again.
    pub cluster_id: Option<ClusterId>,
    /// No peer holds this node's data.
    pub alone: bool,
    pub options: Options,
    pub addresses: Addresses,
    pub site: String,
    pub priority: u32,
}

impl From<&Config> for Opening {
    fn from(config: &Config) -> Opening {
        let alone = config.peers.is_empty();
        Opening {
            node: config.node,
            cluster_name: config.cluster.to_string(),
            role: config.role,
            cluster_id: config.cluster_id,
            alone,
            options: Options {
                segment_bytes: config.wal_segment.0,
                keep_bytes: config.wal_keep.0,
                reserve_bytes: crate::limits::WAL_RESERVE_BYTES as u64,
                alone,
                cut_damaged_end: false,
            },
            addresses: config.addresses(),
            site: config.site.to_string(),
            priority: config.priority,
        }
    }
}

/// The version of a register that nobody has changed yet.
const FIRST_VERSION: u64 = 1;

/// A data directory, opened.
pub struct Opened<D: Directory> {
    /// For the meta file; its lock is held as long as this lives.
    pub disk: D::Storage,
    pub lock: <D::Storage as Storage>::Lock,
    pub meta: MetaFile,
    pub state: State,
    pub facts: LogFacts,
    /// `None` on a witness.
    pub log: Option<Log<D::Storage>>,
    pub newest: Option<Newest>,
    /// Where the loaded state stands.
    pub applied: Link,
    /// Why everything that was here was kept aside and a new life begun.
    pub anew: Option<String>,
}

impl<D: Directory> Opened<D> {
    /// What the core starts with: its memory, and what the log says of itself.
    pub fn core(&self) -> Meta {
        let mut core = self.meta.core.clone();
        core.suspect |= self.facts.suspect;
        core
    }
}

/// The log's files, as the engine reads them.
pub struct LogFiles<S: Storage>(pub Option<Reader<S>>);

impl<S: Storage> LogSource for LogFiles<S> {
    fn read(&self, after: Lsn, max_bytes: usize) -> Result<Option<Vec<Record>>, LogFault> {
        let Some(reader) = &self.0 else {
            return Ok(None);
        };
        match reader.read(after, max_bytes) {
            Ok(records) => Ok(Some(records)),
            Err(ReadError::Gone { .. }) => Ok(None),
            Err(ReadError::Damaged(range)) => Err(LogFault::Damaged {
                story: range.to_string(),
                through: range.last_lsn,
            }),
            Err(ReadError::Failed(error)) => Err(LogFault::Failed(error.to_string())),
        }
    }

    fn first_lsn(&self) -> Option<Lsn> {
        self.0.as_ref().map(Reader::first_lsn)
    }

    fn base_at(&self, lsn: Lsn) -> Option<Link> {
        let segments = self.0.as_ref()?.segments();
        let mut bases = segments.iter().map(|segment| segment.base);
        bases.find(|base| base.position.lsn == lsn)
    }
}

/// What a snapshot's state needs besides its blocks.
pub fn state_limits(cluster: ClusterId) -> state::Limits {
    state::Limits::new((cluster.0 as u64) ^ ((cluster.0 >> 64) as u64))
}

fn damaged(error: impl std::fmt::Display) -> ServeError {
    ServeError::Damaged(error.to_string())
}

/// The disk does not answer, or is full. What cannot be read now is not known to be lost: no copy
/// is given up for it.
fn stopped(error: impl std::fmt::Display) -> ServeError {
    ServeError::Halted(format!(
        "{error}; nothing was changed: start this node again when its disk answers and has room, \
         or give its copy up with `standfast join --afresh`"
    ))
}

fn differs<D: Directory>(dir: &D, story: &str) -> ServeError {
    ServeError::Differs(format!(
        "{}: {story}. It serves no more. `standfast inspect differing` says what differs; where \
         the other nodes are well, `standfast join --afresh --give-up-copy` keeps this directory \
         beside and takes a new copy",
        dir.name()
    ))
}

fn of_log(error: Error) -> ServeError {
    match error.kind {
        ErrorKind::Io(..) | ErrorKind::Locked | ErrorKind::Failed => stopped(error),
        ErrorKind::DamagedEnd(_) => {
            damaged(format!("{error}, with `standfast serve --cut-damaged-end`"))
        }
        _ => damaged(error),
    }
}

fn of_snapshot(error: standfast_snapshot::Error) -> ServeError {
    match error.reason {
        standfast_snapshot::Reason::Io(_) => stopped(error),
        _ => damaged(error),
    }
}

/// Opens a data directory; with peers, one that is damaged is kept aside and begun anew.
pub fn open<D: Directory>(
    dir: &D,
    opening: &Opening,
    random: &mut dyn FnMut() -> u128,
) -> Result<Opened<D>, ServeError> {
    let disk = dir.root().map_err(|e| ServeError::InUse(e.to_string()))?;
    let lock = disk.lock().map_err(|error| {
        ServeError::InUse(format!(
            "{}: another process uses this data directory ({error}); stop it first",
            dir.name()
        ))
    })?;
    // Durable here: the names of the files that are read. After the death of a process only, they
    // may have come from memory: a rename that its directory's fsync did not follow.
    disk.sync_dir("").map_err(stopped)?;
    if let Some(story) = evidence::story(&disk).map_err(stopped)? {
        return Err(differs(dir, &story));
    }
    let (cluster, why) = match meta::load_from(&disk) {
        Ok(Some(found)) => {
            let cluster = found.core.cluster;
            match open_with(dir, opening, with_own_addresses(opening, found)) {
                Ok(parts) => return Ok(parts.into_opened(disk, lock)),
                Err(ServeError::Damaged(story)) if !opening.alone => (cluster, story),
                Err(error) => return Err(error),
            }
        }
        Ok(None) => match opening.cluster_id {
            // An empty disk, or what a crash inside `begin_anew` left.
            Some(cluster) if !opening.alone => (cluster, "there is no meta file".to_string()),
            _ => {
                let text = format!("{} holds no node", dir.name());
                return Err(ServeError::Identity(text));
            }
        },
        Err(error @ meta::MetaError::Version(_)) => {
            return Err(ServeError::Identity(error.to_string()));
        }
        Err(meta::MetaError::Io(error)) => {
            return Err(stopped(format!("{}: the meta file: {error}", dir.name())));
        }
        Err(error) => {
            let story = format!("{}: {error}", dir.name());
            match opening.cluster_id {
                Some(cluster) if !opening.alone => (cluster, story),
                _ => {
                    return Err(ServeError::Damaged(format!(
                        "{story}; restore this node from a backup, or where other nodes hold the \
                         data, run `standfast join --afresh`"
                    )));
                }
            }
        }
    };
    tracing::error!(%why, "what this node holds is damaged");
    let fresh = begin_anew(dir, &disk, opening, cluster, Incarnation(random()))?;
    let opened = open_with(dir, opening, fresh)?.into_opened(disk, lock);
    Ok(Opened {
        anew: Some(why),
        ..opened
    })
}

/// Keeps everything of the old life aside and starts a new one that asks to be taken in.
fn begin_anew<D: Directory>(
    dir: &D,
    disk: &D::Storage,
    opening: &Opening,
    cluster: ClusterId,
    incarnation: Incarnation,
) -> Result<MetaFile, ServeError> {
    let aside = dir.set_aside();
    let aside = aside.map_err(|error| stopped(format!("{}: {error}", dir.name())))?;
    tracing::warn!(aside, %incarnation, "joining as a new incarnation");
    let new = NewNode {
        cluster,
        cluster_name: opening.cluster_name.clone(),
        node: opening.node,
        incarnation,
        initial: None,
    };
    meta::create_in(disk, new).map_err(stopped)
}

/// What `open_with` found.
struct Parts<D: Directory> {
    meta: MetaFile,
    state: State,
    facts: LogFacts,
    log: Option<Log<D::Storage>>,
    newest: Option<Newest>,
    applied: Link,
}

impl<D: Directory> Parts<D> {
    fn into_opened(self, disk: D::Storage, lock: <D::Storage as Storage>::Lock) -> Opened<D> {
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
            anew: None,
        }
    }
}

/// A node that is alone and has never changed its register is where its settings say: a restored
/// or moved directory is found by its clients from the first start on. It is the only voter, so
/// nobody else has voted for the value that is replaced; and it has promised and voted for nothing
/// since, which would be forgotten here (I3: an epoch that was led once would be led again).
fn with_own_addresses(opening: &Opening, mut meta: MetaFile) -> MetaFile {
    let core = &meta.core;
    let mut register = crate::replication::Config::clone(&core.config);
    let first_of = |register| Meta::first(core.cluster, core.node, core.incarnation, register);
    let alone = register.version == 1
        && register.members.len() == 1
        && core.acceptor == first_of(register.clone()).acceptor;
    let Some(member) = register.members.get_mut(&core.node).filter(|_| alone) else {
        return meta;
    };
    member.addresses = opening.addresses.clone();
    member.site = opening.site.clone();
    member.priority = opening.priority;
    meta.core = Meta {
        fence: core.fence,
        suspect: core.suspect,
        ..first_of(register)
    };
    meta
}

fn open_with<D: Directory>(
    dir: &D,
    opening: &Opening,
    meta: MetaFile,
) -> Result<Parts<D>, ServeError> {
    let limits = shelf::limits_of(dir, meta.core.cluster);
    if opening.role == MemberRole::Witness {
        return Ok(Parts {
            meta,
            state: State::new(limits),
            facts: no_log(),
            log: None,
            newest: None,
            applied: Link::default(),
        });
    }
    let (snapshots, wal) = (
        dir.snapshots().map_err(stopped)?,
        dir.wal().map_err(stopped)?,
    );
    let mut refused = None;
    for (lsn, name) in shelf::candidates(&snapshots).map_err(stopped)? {
        match load(dir, &snapshots, &name, meta.core.cluster) {
            Ok((newest, state)) => {
                let applied = newest.head.link;
                match open_log(opening, &meta, &wal, applied, Some(&newest)) {
                    Ok((log, facts)) => {
                        shelf::settle_waiting(&snapshots, lsn, &name).map_err(stopped)?;
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
                    Err(error @ ServeError::Halted(_)) => return Err(error),
                    Err(error) => refused = Some(error),
                }
            }
            Err(error @ ServeError::Halted(_)) => return Err(error),
            Err(story) => {
                tracing::error!(%lsn, %story, "a snapshot is not believed");
                refused = Some(story);
            }
        }
    }
    // Without a usable snapshot the log alone must reach back to the first command.
    let (log, facts) = match open_log(opening, &meta, &wal, Link::default(), None) {
        Ok(opened) => opened,
        Err(error @ ServeError::Halted(_)) => return Err(error),
        Err(error) => return Err(refused.unwrap_or(error)),
    };
    Ok(Parts {
        meta,
        state: State::new(limits),
        facts,
        log: Some(log),
        newest: None,
        applied: Link::default(),
    })
}

/// What a witness tells its core of a log.
fn no_log() -> LogFacts {
    LogFacts {
        tip: Link::default(),
        committed: Lsn::ZERO,
        first_lsn: Lsn(1),
        epochs: EpochTable::default(),
        suspect: false,
    }
}

fn load<D: Directory>(
    dir: &D,
    snapshots: &D::Storage,
    name: &str,
    cluster: ClusterId,
) -> Result<(Newest, State), ServeError> {
    let reader = standfast_snapshot::Reader::open_in(snapshots, name).map_err(of_snapshot)?;
    let loaded = shelf::load_in(dir, &reader, cluster);
    let (header, state) = loaded.map_err(of_snapshot)?;
    let newest = shelf::newest_of(&header, reader.file_bytes()).map_err(damaged)?;
    Ok((newest, state))
}

fn wal_identity(meta: &MetaFile) -> standfast_wal::log::Identity {
    standfast_wal::log::Identity {
        cluster: meta.core.cluster,
        node: meta.core.node,
        incarnation: meta.core.incarnation,
    }
}

fn open_log<S: Storage>(
    opening: &Opening,
    meta: &MetaFile,
    storage: &S,
    base: Link,
    newest: Option<&Newest>,
) -> Result<(Log<S>, LogFacts), ServeError> {
    let options = opening.options;
    let identity = wal_identity(meta);
    let opened = Log::open(storage.clone(), identity, base, options);
    let (log, recovered) = match opened {
        Ok(opened) => opened,
        Err(error) if is_missing(&error) => {
            // A node that has nothing yet, or one restored to exactly this snapshot. A log that
            // was there once left its trace: a fence above the base's epoch, which is durable
            // before anything is acknowledged, or a register that has moved on.
            let core = &meta.core;
            let first =
                core.fence.epoch <= base.position.epoch && core.config.version <= FIRST_VERSION;
            if !first {
                return Err(damaged(error));
            }
            let history = newest.map_or(meta.core.config.history, |n| n.head.history);
            let log = Log::create(storage.clone(), identity, history, base, options);
            let facts = facts_of(base, base.position.lsn.next(), newest, Vec::new(), false)?;
            return Ok((log.map_err(of_log)?, facts));
        }
        Err(error) => return Err(of_log(error)),
    };
    if let Some(error) = recovered.unreadable {
        return Err(stopped(error));
    }
    if let Some(range) = recovered.damaged.first() {
        return Err(damaged(range));
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

#[cfg(test)]
mod tests;
