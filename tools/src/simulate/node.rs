//! One simulated node: the production engine over simulated disks; what `node::run` is for real.

use super::plan::Tuning;
use super::random::Random;
use bytes::Bytes;
use standfast::node::clock::Now;
use standfast::node::copies::{Copies, CopyEvent, CopyOutput, Newest, decode_epochs};
use standfast::node::engine::{Engine, EngineSettings, Event, LogSource, Output};
use standfast::node::meta::MetaFile;
use standfast::node::open::{facts_of, load_from, state_limits};
use standfast::node::wire::{Frame, Head, Piece};
use standfast::replication::Introduction;
use standfast::replication::{LogFacts, Replica, SnapshotHead, Time};
use standfast::state::State;
use standfast_snapshot::{Block as FileBlock, Options as SnapshotOptions, Reader, Writer};
use standfast_wal::{End, Log, Lsn, NodeId, Options, ReadError, Record, SimDisk, Storage, durable};
use std::collections::{BTreeMap, VecDeque};

/// The files of a node that survive a crash once they are synced.
pub struct Disks {
    pub wal: SimDisk,
    pub meta: SimDisk,
    /// Snapshot files; each appears whole or not at all.
    pub snapshots: BTreeMap<Lsn, Bytes>,
    waiting: Option<(Lsn, Bytes)>,
}

impl Disks {
    pub fn new(seed: u64) -> Disks {
        Disks {
            wal: SimDisk::new(seed),
            meta: SimDisk::new(seed ^ 0xabcd),
            snapshots: BTreeMap::new(),
            waiting: None,
        }
    }

    /// The process died: what was not synced may be lost, torn or reordered.
    pub fn crash(&mut self) {
        self.wal = self.wal.crash();
        self.meta = self.meta.crash();
    }
}

struct Files(Option<standfast_wal::Reader<SimDisk>>);

impl LogSource for Files {
    fn read(&self, after: Lsn, max_bytes: usize) -> Result<Option<Vec<Record>>, String> {
        let Some(reader) = &self.0 else {
            return Ok(None);
        };
        match reader.read(after, max_bytes) {
            Ok(records) => Ok(Some(records)),
            Err(ReadError::Gone { .. }) => Ok(None),
            Err(error) => Err(format!("{error:?}")),
        }
    }
}

/// What is queued for the log's writer.
enum LogWork {
    Append(Record),
    Cut(Lsn),
    Reset(standfast_wal::Link, standfast_wal::History, Lsn),
    Roll(standfast_wal::History),
    Trim(Lsn),
}

/// A running process.
pub struct Process {
    pub engine: Engine,
    random: Random,
    log: Option<Log<SimDisk>>,
    work: VecDeque<LogWork>,
    pub log_busy: bool,
    meta: MetaFile,
    stores: VecDeque<(MetaFile, u64)>,
    pub meta_busy: bool,
    piece_bytes: usize,
    writing: Option<(Writer<Vec<u8>>, Lsn)>,
    receiving: Option<(NodeId, Lsn, u64, Vec<u8>)>,
}

/// What a node wants of the world after a turn.
#[derive(Default)]
pub struct Wants {
    pub frames: Vec<(NodeId, Frame)>,
    pub built: Vec<Record>,
    pub answers: Vec<(
        standfast::node::client::SessionId,
        standfast::node::client::Answer,
    )>,
    /// Start the disk: log or meta work is queued.
    pub log_work: bool,
    pub meta_work: bool,
    pub events: Vec<Event>,
    pub promoted: u64,
    pub cuts: u64,
    pub installed: u64,
    pub lines: Vec<String>,
    /// Loss statements, as JSON.
    pub losses: Vec<String>,
}

fn engine_settings(id: NodeId, tuning: &Tuning, introduction: &Introduction) -> EngineSettings {
    EngineSettings {
        pid: id.0,
        introduction: introduction.clone(),
        ..tuning.engine.clone()
    }
}

impl Process {
    /// Starts a process on what the disks hold; in the order of `node::open`.
    pub fn start(
        disks: &mut Disks,
        now: Now,
        random: &mut Random,
        tuning: &Tuning,
        introduction: &Introduction,
    ) -> Result<Process, String> {
        let bytes = durable::read(&disks.meta, "meta").map_err(|e| e.to_string())?;
        let meta = MetaFile::decode(&bytes.ok_or("no meta file")?).map_err(|e| e.to_string())?;
        let limits = state_limits(meta.core.cluster);
        let witness = introduction.role == standfast::replication::config::MemberRole::Witness;
        let (mut newest, mut state) = (None, State::new(limits));
        let mut base = standfast_wal::Link::default();
        if let Some((lsn, file)) = disks.waiting.take() {
            // The log says whether its reset to the waiting snapshot has happened.
            let reader = Reader::new(file.clone(), "waiting").map_err(|e| e.to_string())?;
            let link = reader.header().link;
            if open_log(&disks.wal, &meta, link, tuning)
                .is_ok_and(|(log, _)| log.written().position.lsn >= lsn)
            {
                disks.snapshots.insert(lsn, file);
            }
            disks.wal = disks.wal.restart();
        }
        if let Some((_, file)) = disks.snapshots.last_key_value() {
            let reader = Reader::new(file.clone(), "snapshot").map_err(|e| e.to_string())?;
            let (header, loaded) = load_from(&reader, meta.core.cluster, 1)?;
            base = header.link;
            state = loaded;
            let epochs = decode_epochs(&header.epoch_table).map_err(|e| e.to_string())?;
            let head = SnapshotHead {
                history: header.history,
                link: header.link,
                epochs,
            };
            newest = Some(Newest {
                head,
                bytes: file.len() as u64,
                finished: 0,
            });
        }
        let (log, facts) = if witness {
            let facts = LogFacts {
                tip: base,
                committed: Lsn::ZERO,
                first_lsn: Lsn(1),
                epochs: Default::default(),
                suspect: false,
            };
            (None, facts)
        } else {
            let (log, recovered) = match open_log(&disks.wal, &meta, base, tuning) {
                Ok(opened) => (opened.0, Some(opened.1)),
                Err(error) if matches!(error.kind, standfast_wal::ErrorKind::Missing) => {
                    let history = meta.core.config.history;
                    let log = Log::create(
                        disks.wal.clone(),
                        wal_identity(&meta),
                        history,
                        base,
                        options(tuning),
                    )
                    .map_err(|e| e.to_string())?;
                    (log, None)
                }
                Err(error) => return Err(error.to_string()),
            };
            let (first, starts, suspect, tail) = match recovered {
                Some(recovered) => {
                    if !recovered.damaged.is_empty() {
                        return Err(format!("damage without bit rot: {:?}", recovered.damaged));
                    }
                    let suspect = matches!(recovered.end, End::Suspect { .. });
                    (
                        recovered.first_lsn,
                        recovered.epoch_starts,
                        suspect,
                        recovered.tail,
                    )
                }
                None => (base.position.lsn.next(), Vec::new(), false, base),
            };
            let facts = facts_of(tail, first, newest.as_ref(), starts, suspect)
                .map_err(|e| e.to_string())?;
            (Some(log), facts)
        };
        let mut core = meta.core.clone();
        core.suspect |= facts.suspect;
        let settings = engine_settings(meta.core.node, tuning, introduction);
        let randoms = (0..8).map(|_| random.wide()).collect();
        let replica = Replica::new(
            tuning.core.clone(),
            Time(now.boot),
            core,
            facts,
            introduction.clone(),
            randoms,
        );
        let reader = log.as_ref().map(Log::reader);
        let copies = Copies::new(newest, base);
        let source = Box::new(Files(reader));
        let engine = Engine::new(
            settings,
            meta.identity(),
            replica,
            state,
            source,
            copies,
            witness,
        );
        Ok(Process {
            engine,
            random: Random::new(random.next()),
            log,
            work: VecDeque::new(),
            log_busy: false,
            meta,
            stores: VecDeque::new(),
            meta_busy: false,
            piece_bytes: tuning.piece_bytes,
            writing: None,
            receiving: None,
        })
    }

    /// One turn with these events.
    pub fn turn(
        &mut self,
        disks: &mut Disks,
        now: Now,
        events: Vec<Event>,
    ) -> Result<Wants, String> {
        self.engine.handle(now, Event::Copy(CopyEvent::Room(64)));
        for event in events {
            self.engine.handle(now, event);
        }
        let (outputs, answers) = self.engine.end_turn(now);
        let mut wants = Wants {
            answers,
            ..Wants::default()
        };
        for output in outputs {
            self.carry_out(disks, output, &mut wants)?;
        }
        wants.log_work = !self.work.is_empty() && !self.log_busy;
        wants.meta_work = !self.stores.is_empty() && !self.meta_busy;
        Ok(wants)
    }

    fn carry_out(
        &mut self,
        disks: &mut Disks,
        output: Output,
        wants: &mut Wants,
    ) -> Result<(), String> {
        match output {
            Output::Append(record) => {
                wants.built.push(record.clone());
                self.work.push_back(LogWork::Append(record));
            }
            Output::Cut { after } => {
                wants.cuts += 1;
                self.work.push_back(LogWork::Cut(after));
            }
            Output::Roll(history) => self.work.push_back(LogWork::Roll(history)),
            Output::ResetLog {
                base,
                history,
                verified,
            } => {
                self.work.push_back(LogWork::Reset(base, history, verified));
            }
            Output::Trim { through } => self.work.push_back(LogWork::Trim(through)),
            Output::TrustLog => {}
            Output::StoreMeta { meta, serial } => {
                self.meta.core = *meta;
                self.stores.push_back((self.meta.clone(), serial));
            }
            Output::Send { to, frame } => wants.frames.push((to, frame)),
            Output::Snapshot(copy) => self.copy(disks, copy, wants),
            Output::Log(line) => {
                wants.promoted += u64::from(line.starts_with("serving as primary"));
                wants.lines.push(line);
            }
            Output::Random => wants.events.push(Event::Random(self.random.wide())),
            Output::Halt(story) => return Err(format!("halted: {story}")),
            Output::LossStatement { text, .. } => wants.losses.push(text),
            Output::Peers(_) | Output::Show(_) | Output::Stop => {}
        }
        Ok(())
    }

    fn copy(&mut self, disks: &mut Disks, copy: CopyOutput, wants: &mut Wants) {
        match copy {
            CopyOutput::Begin(header) => {
                let options = SnapshotOptions {
                    threads: 0,
                    ..Default::default()
                };
                let writer = Writer::new(Vec::new(), "sim", &header, options);
                self.writing = writer.ok().map(|writer| (writer, header.link.position.lsn));
            }
            CopyOutput::Blocks(blocks) => {
                for block in blocks {
                    let block = FileBlock {
                        section: 0,
                        first: u32::from(block.first_slot),
                        last: u32::from(block.last_slot),
                        bytes: block.bytes,
                    };
                    if let Some((writer, _)) = &mut self.writing {
                        writer.push_now(block).expect("memory does not fail");
                    }
                }
            }
            CopyOutput::Finish => {
                let Some((writer, lsn)) = self.writing.take() else {
                    return;
                };
                let (bytes, _) = writer.finish().expect("memory does not fail");
                let length = bytes.len() as u64;
                disks.snapshots.insert(lsn, bytes.into());
                while disks.snapshots.len() > 2 {
                    disks.snapshots.pop_first();
                }
                wants
                    .events
                    .push(Event::Copy(CopyEvent::Written(Ok(length))));
            }
            CopyOutput::Stream { to, lsn } => {
                let Some(file) = disks.snapshots.get(&lsn) else {
                    let why = "it was dropped for a newer one".to_string();
                    let event = Event::Copy(CopyEvent::NotSent { to, why });
                    return wants.events.push(event);
                };
                for (i, chunk) in file.chunks(self.piece_bytes).enumerate() {
                    let bytes = Bytes::copy_from_slice(chunk);
                    let piece = Piece::Chunk {
                        offset: (i * self.piece_bytes) as u64,
                        bytes,
                    };
                    wants.frames.push((to, Frame::plain(Head::Copy(piece))));
                }
            }
            CopyOutput::Receive { from, lsn, total } => {
                self.receiving = Some((from, lsn, total, Vec::new()));
            }
            CopyOutput::Receiving {
                from,
                offset,
                bytes,
            } => {
                self.receive_piece(disks, from, offset, &bytes, wants);
            }
            CopyOutput::StopReceiving => self.receiving = None,
            CopyOutput::Adopt { lsn } => {
                if let Some((waiting, file)) = disks.waiting.take() {
                    assert_eq!(waiting, lsn, "what waits is what is adopted");
                    wants.installed += 1;
                    disks.snapshots.insert(lsn, file);
                }
            }
            CopyOutput::BackUp { .. } => {}
        }
    }

    fn receive_piece(
        &mut self,
        disks: &mut Disks,
        sender: NodeId,
        offset: u64,
        bytes: &Bytes,
        wants: &mut Wants,
    ) {
        let Some((from, lsn, total, file)) = &mut self.receiving else {
            return;
        };
        if *from != sender || offset != file.len() as u64 {
            return;
        }
        file.extend_from_slice(bytes);
        if file.len() as u64 != *total {
            return;
        }
        let (from, lsn) = (*from, *lsn);
        let file: Bytes = std::mem::take(file).into();
        self.receiving = None;
        disks.waiting = Some((lsn, file.clone()));
        let reader = Reader::new(file, "received").expect("sent whole");
        let event = match load_from(&reader, self.meta.core.cluster, 1) {
            Ok((header, state)) => CopyEvent::Loaded {
                from,
                header: Box::new(header),
                state: Box::new(state),
            },
            Err(why) => CopyEvent::ReceiveFailed { from, why },
        };
        wants.events.push(Event::Copy(event));
    }

    /// The log's disk has had its time: what is queued is done, up to the first cut or reset.
    pub fn log_done(&mut self) -> Result<Vec<Event>, String> {
        self.log_busy = false;
        let mut events = Vec::new();
        let Some(log) = &mut self.log else {
            return Ok(events);
        };
        let text = |error: standfast_wal::Error| error.to_string();
        let mut appended = false;
        while let Some(work) = self.work.pop_front() {
            match work {
                LogWork::Append(record) => {
                    log.push(record);
                    appended = true;
                }
                other if appended => {
                    self.work.push_front(other);
                    break;
                }
                LogWork::Cut(after) => {
                    let cut = log.cut(after).map_err(text)?;
                    events.push(Event::Cut {
                        end: cut.tail,
                        removed: cut.records,
                    });
                    break;
                }
                LogWork::Reset(base, history, verified) => {
                    log.reset(base, history, verified).map_err(text)?;
                    events.push(Event::LogReset);
                    break;
                }
                LogWork::Roll(history) => log.roll(history).map_err(text)?,
                LogWork::Trim(through) => {
                    let first_lsn = log.trim(through).map_err(text)?;
                    events.push(Event::Trimmed { first_lsn });
                }
            }
        }
        if appended {
            events.push(Event::Durable(log.flush().map_err(text)?));
        }
        events.push(Event::LogSize {
            log_bytes: log.bytes(),
            free_bytes: u64::MAX,
        });
        Ok(events)
    }

    /// The meta file's disk has had its time.
    pub fn meta_done(&mut self, disks: &Disks) -> Result<Vec<Event>, String> {
        self.meta_busy = false;
        let Some((meta, serial)) = self.stores.pop_back() else {
            return Ok(Vec::new());
        };
        self.stores.clear();
        durable::replace(&disks.meta, "meta", &meta.encode()).map_err(|e| e.to_string())?;
        Ok(vec![Event::MetaStored(serial)])
    }
}

fn wal_identity(meta: &MetaFile) -> standfast_wal::log::Identity {
    standfast_wal::log::Identity {
        cluster: meta.core.cluster,
        node: meta.core.node,
        incarnation: meta.core.incarnation,
    }
}

fn options(tuning: &Tuning) -> Options {
    Options {
        segment_bytes: tuning.segment_bytes,
        keep_bytes: 0,
        reserve_bytes: tuning.reserve_bytes,
        ..Options::default()
    }
}

fn open_log(
    disk: &SimDisk,
    meta: &MetaFile,
    base: standfast_wal::Link,
    tuning: &Tuning,
) -> Result<(Log<SimDisk>, standfast_wal::Recovered), standfast_wal::Error> {
    Log::open(disk.clone(), wal_identity(meta), base, options(tuning))
}

/// Puts a node's first meta file on its disk.
pub fn format(disks: &Disks, meta: &MetaFile) {
    durable::replace(&disks.meta, "meta", &meta.encode()).expect("a new disk takes it");
    disks.meta.sync_dir("").expect("a new disk takes it");
}
