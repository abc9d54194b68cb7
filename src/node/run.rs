//! The shell around the engine: its thread, its clock, its queues, its disk and its peers.
//!
//! The only place that reads a clock or draws a random number. Everything here carries out what
//! the engine decided, in order per target, and tells it what became of it.

use crate::config::Config;
use crate::limits;
use crate::node::archive::ArchiveSettings;
use crate::node::client::{Answer, Call, Door, Handle, SessionId};
use crate::node::clock::Now;
use crate::node::copies::{Copies, CopyEvent, CopyOutput};
use crate::node::directory::DataDir;
use crate::node::engine::{Engine, EngineSettings, Event, Output};
use crate::node::evidence;
use crate::node::files::{self, Files};
use crate::node::link::{self, Links, Manner};
use crate::node::meta::{Identity, MetaFile};
use crate::node::open::{self, LogFiles, Opened, Opening};
use crate::node::view::View;
use crate::node::wire::{Hello, WIRE_VERSION};
use crate::replication::Introduction;
use crate::replication::config::MemberRole;
use crate::replication::{Replica, Settings, Time};
use standfast_wal::{Disk, Writer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Why a node stopped or did not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process has the data directory.
    #[error("{0}")]
    InUse(String),
    /// An address cannot be listened on.
    #[error("{0}")]
    Address(String),
    /// There is no node in the data directory, or it is another node's or another cluster's.
    #[error("{0}")]
    Identity(String),
    /// Bytes on disk are damaged and no peer can repair them.
    #[error("{0}")]
    Damaged(String),
    /// The state was found to differ from the primary's (I2).
    #[error("{0}")]
    Differs(String),
    /// The node halted: the disk failed or an invariant broke.
    #[error("{0}")]
    Halted(String),
}

/// Reads both clocks.
#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
pub fn now() -> Now {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let wall = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let nanos = |seconds: i64, nanos: i64| {
        u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanos).unwrap_or(0)
    };
    Now {
        boot: nanos(boot.tv_sec, boot.tv_nsec),
        wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
    }
}

/// 128 random bits from the system.
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(got, Ok(bytes.len()), "the system has no random numbers");
    u128::from_le_bytes(bytes)
}

/// The door of a node that has not been opened yet: sessions may come and are told LOADING.
pub fn door(config: &Config) -> (Handle, Door) {
    let started_ms = now().wall / 1_000_000;
    Handle::new(View::starting(
        config.node,
        config.cluster.as_str(),
        started_ms,
    ))
}

/// Opens the data directory and runs the node until it is told to stop. `stop` is the signal of
/// the operating system; the node hands over first.
pub async fn run(
    config: Config,
    opening: Opening,
    door: Door,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let dir = DataDir(config.data_dir.clone());
    let opened = tokio::task::spawn_blocking(move || open::open(&dir, &opening, &mut random))
        .await
        .map_err(|error| ServeError::Halted(error.to_string()))??;
    let peer_listener = listen(&config).await?;
    let (events, from_world) = mpsc::unbounded_channel();
    let shell = Shell::start(&config, opened, door, events, from_world, peer_listener)?;
    shell.turns(stop).await
}

async fn listen(config: &Config) -> Result<TcpListener, ServeError> {
    let address = config.peer_listen.to_string();
    TcpListener::bind(&address).await.map_err(|error| {
        ServeError::Address(format!(
            "cannot listen for peers on {address}: {error}; stop what uses it or change peer_listen"
        ))
    })
}

fn settings_of(config: &Config) -> Settings {
    let defaults = Settings::default();
    let limit = |number: u64| (number > 0).then_some(number);
    Settings {
        heartbeat_interval: config.heartbeat_interval,
        failover_timeout: config.failover_timeout,
        sync_timeout: config.sync_timeout,
        degraded_timeout: config.degraded_timeout,
        join_timeout: config.join_timeout,
        hold_down: config.hold_down,
        hold_down_max: config.hold_down_max,
        max_clock_step: config.max_clock_step,
        tail_bytes: limits::TAIL_BYTES_MAX as u64,
        loss_budget: crate::replication::settings::LossBudget {
            commands: limit(config.max_unreplicated),
            bytes: limit(config.max_unreplicated_bytes.0),
            age: (!config.max_unreplicated_age.is_zero()).then_some(config.max_unreplicated_age),
        },
        ..defaults
    }
}

fn engine_settings(config: &Config, meta: &MetaFile) -> EngineSettings {
    EngineSettings {
        write_timeout: config.write_timeout,
        max_staleness: config.max_staleness,
        max_clock_step: config.max_clock_step,
        attest_interval: config.attest_interval,
        degraded_timeout: config.degraded_timeout,
        snapshot_interval: (!config.snapshot_interval.is_zero())
            .then_some(config.snapshot_interval),
        snapshot_after: (config.snapshot_after.0 > 0).then_some(config.snapshot_after.0),
        wal_keep: config.wal_keep.0,
        max_memory: config.max_memory_bytes(),
        archive: config.archive.as_ref().map(|_| ArchiveSettings {
            interval: config.archive_interval,
            verify_interval: config.verify_interval,
            drill_interval: config.drill_interval,
            required: config.archive_required,
        }),
        seeds: config
            .peers
            .iter()
            .map(|peer| (peer.id, peer.peer.to_string()))
            .collect(),
        started_ms: now().wall / 1_000_000,
        pid: std::process::id(),
        quarantined: meta.quarantined,
        introduction: introduction(config, meta),
    }
}

/// How links to other sites are written to.
fn far_of(config: &Config) -> Manner {
    Manner {
        is_packed: config.site_compression,
        limit: (config.site_limit.0 > 0).then_some(config.site_limit.0),
    }
}

fn hello_of(identity: &Identity) -> Hello {
    Hello {
        version: WIRE_VERSION,
        cluster_name: identity.cluster_name.clone(),
        cluster: identity.cluster,
        from: identity.node,
        incarnation: identity.incarnation,
        process: random() as u64,
        to: identity.node,
        is_packed: false,
    }
}

fn introduction(config: &Config, meta: &MetaFile) -> Introduction {
    Introduction {
        role: config.role,
        voter: config.role != MemberRole::Asynchronous,
        site: config.site.to_string(),
        priority: config.priority,
        addresses: config.addresses(),
        // `join` makes a directory that knows no Config yet.
        asked: meta.core.config.version == 0,
    }
}

/// Everything that carries out the engine's outputs.
struct Shell {
    engine: Engine,
    door: Door,
    from_world: mpsc::UnboundedReceiver<Event>,
    events: mpsc::UnboundedSender<Event>,
    sessions: BTreeMap<SessionId, mpsc::UnboundedSender<Vec<Answer>>>,
    links: Links,
    writer: Option<Writer>,
    meta: MetaFile,
    meta_writer: std::sync::mpsc::Sender<(MetaFile, u64)>,
    files: Files,
    dir: DataDir,
    _lock: <Disk as standfast_wal::Storage>::Lock,
}

impl Shell {
    fn start(
        config: &Config,
        opened: Opened<DataDir>,
        door: Door,
        events: mpsc::UnboundedSender<Event>,
        from_world: mpsc::UnboundedReceiver<Event>,
        peer_listener: TcpListener,
    ) -> Result<Shell, ServeError> {
        let core = opened.core();
        let Opened {
            disk,
            lock,
            meta,
            state,
            facts,
            log,
            newest,
            applied,
            anew: _,
        } = opened;
        let randoms = (0..8).map(|_| random()).collect();
        let start = now();
        let replica = Replica::new(
            settings_of(config),
            Time(start.boot),
            core,
            facts,
            introduction(config, &meta),
            randoms,
        );
        let reader = log.as_ref().map(standfast_wal::Log::reader);
        let writer = log.map(|log| spawn_writer(log, events.clone()));
        let identity = meta.identity();
        let history = replica.history();
        let engine = Engine::new(
            engine_settings(config, &meta),
            identity.clone(),
            replica,
            state,
            Box::new(LogFiles(reader.clone())),
            Copies::new(newest, applied),
            config.role == MemberRole::Witness,
        );
        let sink = events.clone();
        let sink: link::Sink = Arc::new(move |event| {
            // The engine is gone only when the process ends.
            let _ = sink.send(Event::Link(event));
        });
        let links = Links::new(hello_of(&identity), far_of(config), sink.clone());
        tokio::spawn(link::accept(peer_listener, links.hello(), sink));
        let meta_writer = files::spawn_meta_writer(disk, events.clone())
            .map_err(|error| ServeError::Halted(error.to_string()))?;
        let recipients = files::archive_recipients(config, random);
        let of = (identity.cluster, history);
        let files = Files::new(config, of, recipients, events.clone(), reader);
        Ok(Shell {
            engine,
            door,
            from_world,
            events,
            sessions: BTreeMap::new(),
            links,
            writer,
            meta,
            meta_writer,
            files,
            dir: DataDir(config.data_dir.clone()),
            _lock: lock,
        })
    }

    /// Feeds the engine until it stops or halts.
    async fn turns(mut self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        tokio::pin!(stop);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let mut stopped = false;
        let mut size = tokio::time::interval(limits::DISK_LOOK_INTERVAL);
        let (mut calls, mut events) = (Vec::new(), Vec::new());
        loop {
            let wait = self
                .engine
                .deadline()
                .map_or(limits::TURN_INTERVAL_MAX, |at| {
                    at.since(Time(now().boot)).min(limits::TURN_INTERVAL_MAX)
                });
            timer.as_mut().reset(tokio::time::Instant::now() + wait);
            tokio::select! {
                biased;
                _ = self.from_world.recv_many(&mut events, limits::TURN_EVENTS_MAX) => {}
                n = self.door.calls.recv_many(&mut calls, limits::TURN_EVENTS_MAX) => {
                    if n == 0 {
                        return Ok(());
                    }
                }
                () = &mut stop, if !stopped => {
                    stopped = true;
                    events.push(Event::Shutdown { client: None });
                }
                _ = size.tick() => {
                    self.files.look(&mut events);
                    settle_memory();
                }
                () = &mut timer => {}
            }
            // What else has come in meanwhile belongs to the same turn.
            while let Ok(event) = self.from_world.try_recv() {
                events.push(event);
                if events.len() >= limits::TURN_EVENTS_MAX {
                    break;
                }
            }
            while calls.len() < limits::TURN_EVENTS_MAX
                && let Ok(call) = self.door.calls.try_recv()
            {
                calls.push(call);
            }
            match self.turn(&mut events, &mut calls) {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(error) => {
                    self.leave();
                    // Sessions and links run on this thread, too, and are to end now.
                    let keeping = tokio::task::spawn_blocking(move || self.keep_evidence());
                    if let Err(error) = keeping.await {
                        tracing::error!(%error, "the evidence is not whole");
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Serves and hears nobody from here on: sessions end, and nothing gathers in the queues
    /// however long the evidence takes.
    fn leave(&mut self) {
        self.links.set_peers(&BTreeMap::new());
        self.from_world.close();
        self.door.calls.close();
        while self.door.calls.try_recv().is_ok() {}
        self.sessions.clear();
        let stop = |view: &mut Arc<View>| Arc::make_mut(view).serving = false;
        self.door.view.send_modify(stop);
    }

    /// Keeps the state of a node that differs from its primary.
    fn keep_evidence(&mut self) {
        let kept = match self.engine.story_of_difference() {
            Some(story) => evidence::mark(&self.dir, story),
            None => return,
        };
        let kept = kept.and_then(|()| match self.engine.evidence() {
            Some(evidence) => evidence::keep(&self.dir, evidence),
            None => Err("it is gone".to_string()),
        });
        match kept {
            Ok(name) => tracing::error!("the state that differs is kept as snapshots/{name}"),
            Err(error) => tracing::error!(error, "the state that differs cannot be kept"),
        }
    }

    /// One turn; true when the node is to stop.
    fn turn(&mut self, events: &mut Vec<Event>, calls: &mut Vec<Call>) -> Result<bool, ServeError> {
        let start = now();
        if let Some(room) = self.files.snapshot_room() {
            self.engine
                .handle(start, Event::Copy(CopyEvent::Room(room)));
        }
        for event in events.drain(..) {
            self.engine.handle(start, event);
        }
        for call in calls.drain(..) {
            match call {
                Call::Open { session, answers } => {
                    self.sessions.insert(session, answers);
                }
                Call::Submit { session, requests } => {
                    self.engine
                        .handle(start, Event::Submit { session, requests });
                }
                Call::Close { session } => {
                    self.sessions.remove(&session);
                }
            }
        }
        let (outputs, answers) = self.engine.end_turn(now());
        let mut stop = false;
        for output in outputs {
            stop |= self.carry_out(output)?;
        }
        self.answer(answers);
        Ok(stop)
    }

    fn answer(&mut self, answers: Vec<(SessionId, Answer)>) {
        let mut grouped: Vec<(SessionId, Vec<Answer>)> = Vec::new();
        let mut places: BTreeMap<SessionId, usize> = BTreeMap::new();
        for (session, answer) in answers {
            match grouped.last_mut() {
                Some((last, group)) if *last == session => group.push(answer),
                _ => {
                    let place = *places.entry(session).or_insert_with(|| {
                        grouped.push((session, Vec::new()));
                        grouped.len() - 1
                    });
                    grouped[place].1.push(answer);
                }
            }
        }
        for (session, group) in grouped {
            if let Some(sender) = self.sessions.get(&session) {
                // A session that has gone is closed by its own Close.
                let _ = sender.send(group);
            }
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<bool, ServeError> {
        match output {
            Output::ToLog(command) => self.log().give(command),
            Output::StoreMeta { meta, serial } => {
                self.meta.core = *meta;
                // The thread ends only with the process; a failure there has halted the node.
                let _ = self.meta_writer.send((self.meta.clone(), serial));
            }
            Output::Send { to, frame } => self.links.send(to, frame),
            Output::Peers(peers) => self.links.set_peers(&peers),
            Output::Snapshot(CopyOutput::Stream { to, lsn, have }) => {
                if let Some(bulk) = self.links.bulk(to) {
                    self.files.stream(to, lsn, have, bulk);
                }
            }
            Output::Snapshot(copy) => {
                if let Some(bytes) = self.files.copy(copy) {
                    self.engine.set_snapshot_bytes(bytes);
                }
            }
            Output::Archive(order) => self.files.archive(order),
            Output::LossStatement { name, text } => self.files.loss_statement(&name, &text),
            Output::Random => {
                let _ = self.events.send(Event::Random(random()));
            }
            Output::Show(view) => {
                self.door.view.send_replace(Arc::new(*view));
            }
            Output::Log(text) => tracing::info!("{text}"),
            Output::Halt(story) => {
                tracing::error!(%story, "halting");
                return Err(ServeError::Halted(story));
            }
            Output::Stop => {
                if let Some(writer) = self.writer.take() {
                    writer.close();
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn log(&self) -> &Writer {
        self.writer.as_ref().expect("a witness appends nothing")
    }
}

/// The allocator keeps what is freed for a while, and looks at what it has kept only when a large
/// block is freed again. A node at rest frees none, and would keep it forever.
fn settle_memory() {
    let mut block = Vec::<u8>::new();
    // Where there is no room for it, nothing is lost.
    let _ = block.try_reserve_exact(limits::LARGE_BLOCK_BYTES);
    drop(std::hint::black_box(block));
}

fn spawn_writer(log: standfast_wal::Log<Disk>, events: mpsc::UnboundedSender<Event>) -> Writer {
    Writer::spawn(log, move |event| {
        if let Some(event) = Event::of_log(event) {
            // The engine is gone only when the process ends.
            let _ = events.send(event);
        }
    })
}
