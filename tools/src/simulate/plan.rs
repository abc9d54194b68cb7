//! What one run is like: who is there, how they are set, how fast everything is; drawn from the
//! seed before anything happens.

use super::random::Random;
use super::world::MS;
use standfast::node::engine::EngineSettings;
use standfast::replication::config::{Acks, Addresses, Config, Member, MemberRole, Protection};
use standfast::replication::settings::LossBudget;
use standfast::replication::{Introduction, Settings};
use standfast_wal::{History, Incarnation, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a simulated node is started with, besides its disks.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub core: Settings,
    /// `pid` and `introduction` are each node's own: `node` fills them in.
    pub engine: EngineSettings,
    pub segment_bytes: u64,
    pub reserve_bytes: u64,
    /// Bytes of one piece of a snapshot on its way to a peer.
    pub piece_bytes: usize,
    /// Nanoseconds that the writer of a snapshot may take before it takes the first block.
    pub snapshot_stall: u64,
}

/// Everything that is drawn before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How each node introduces itself; by place.
    pub nodes: Vec<Introduction>,
    /// Nodes from this place on are no members at first; operators take them in.
    pub members: usize,
    pub config: Config,
    pub tuning: Tuning,
    /// Nanoseconds.
    pub latency: [u64; 2],
    pub log_sync: [u64; 2],
    pub meta_sync: [u64; 2],
    /// By place: how many times as long its log's disk takes, all through the faults.
    pub paces: Vec<u64>,
    /// A node that is busy gathers what comes, up to so long, and takes it in one turn.
    pub turn_gap: u64,
    pub dial_timeout: u64,
    /// One chunk in so many arrives in two parts.
    pub split_one_in: u64,
    /// One message of the core in so many comes twice.
    pub double_one_in: Option<u64>,
    /// Parts per million that clocks may be off.
    pub drift_ppm: u64,
    pub fault_pause: [u64; 2],
    pub operator_pause: Option<[u64; 2]>,
    /// One node may be told to found a history of its own.
    pub may_force: bool,
    pub clients: usize,
    /// Between an answer and the next question.
    pub think: [u64; 2],
    /// Largest value that a client writes.
    pub value_bytes: u64,
}

impl Plan {
    pub fn draw(random: &mut Random) -> Plan {
        let (nodes, members) = draw_nodes(random);
        let config = first_config(&nodes[..members], random);
        let mut tuning = draw_tuning(&config, random);
        let far = random.pick(&[MS / 5, MS, 5 * MS, 20 * MS, 60 * MS]);
        let disk = random.pick(&[100_000, 500_000, 3 * MS, 8 * MS]);
        let failover = nanos(tuning.core.failover_timeout);
        // The log may lie on a disk that is slower than the meta file's.
        let log_disk = disk * random.pick(&[1, 1, 1, 6]);
        let turn_gap = random
            .pick(&[0, 0, 0, MS, 5 * MS, 20 * MS])
            .min(failover / 10);
        let paces = draw_paces(nodes.len(), random);
        let operators = random.one_in(2);
        let value_bytes = random.pick(&[10, 10, 200, 3000]);
        // One for every few writes takes long and proves little.
        let snapshot_after = &mut tuning.engine.snapshot_after;
        *snapshot_after = snapshot_after.map(|bytes| bytes.max(value_bytes * 32));
        Plan {
            nodes,
            members,
            config,
            // Round trips and syncs must fit into the timeouts, or nothing ever gets anywhere.
            latency: [far / 10, far.min(failover / 8)],
            log_sync: [(log_disk / 5).min(failover / 8), log_disk.min(failover / 8)],
            meta_sync: [disk / 2, (disk * 3).min(failover / 6)],
            paces,
            turn_gap,
            dial_timeout: random.between(50 * MS, 1000 * MS),
            split_one_in: random.pick(&[4, 30, 300]),
            double_one_in: random.pick(&[None, None, Some(200), Some(20)]),
            drift_ppm: random.pick(&[0, 200, 10_000, 40_000]),
            fault_pause: random.pick(&[
                [5 * MS, 300 * MS],
                [50 * MS, 1500 * MS],
                [200 * MS, 5000 * MS],
                [MS, 8000 * MS],
            ]),
            operator_pause: operators.then(|| {
                let most = random.scaled(300, 8000) * MS;
                [most / 20, most]
            }),
            may_force: random.one_in(4),
            clients: random.index(5) + 1,
            think: random.pick(&[
                [0, 4 * MS],
                [5 * MS, 20 * MS],
                [10 * MS, 60 * MS],
                [20 * MS, 200 * MS],
                [20 * MS, 200 * MS],
            ]),
            value_bytes,
            tuning,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a timeout")
}

/// Voters are 1, 3 or 5: all data nodes and witnesses, but of more than five data nodes only the
/// first five vote.
fn draw_nodes(random: &mut Random) -> (Vec<Introduction>, usize) {
    const LAYOUTS: [(usize, usize); 14] = [
        (1, 0),
        (2, 1),
        (2, 1),
        (2, 1),
        (3, 0),
        (3, 0),
        (3, 0),
        (1, 2),
        (2, 3),
        (3, 2),
        (4, 1),
        (5, 0),
        (6, 0),
        (7, 0),
    ];
    let (data, witnesses) = random.pick(&LAYOUTS);
    let asynchronous = random.pick(&[0, 0, 0, 1, 1, 2, 3]);
    let sites = random.between(1, 3);
    let mut nodes = Vec::new();
    let mut add = |role, voter, random: &mut Random| {
        nodes.push(Introduction {
            role,
            voter,
            site: format!("site-{}", random.below(sites)),
            priority: random.pick(&[100, 100, 50, 10]),
            addresses: Addresses::default(),
            asked: false,
        });
    };
    for i in 0..data {
        add(MemberRole::Data, i < 5, random);
    }
    for _ in 0..asynchronous {
        add(MemberRole::Asynchronous, false, random);
    }
    for _ in 0..witnesses {
        add(MemberRole::Witness, true, random);
    }
    let members = data + asynchronous + witnesses;
    if random.one_in(3) {
        // It comes by itself, told to, or by an operator's hand.
        let role = random.pick(&[MemberRole::Data, MemberRole::Asynchronous]);
        add(role, false, random);
    }
    (nodes, members)
}

/// In some worlds one node lags behind all others, so that majorities go on without it; in some
/// all lag, each by as much as it likes.
fn draw_paces(nodes: usize, random: &mut Random) -> Vec<u64> {
    let mut paces = vec![1; nodes];
    match random.below(6) {
        0 | 1 => paces[random.index(nodes)] = random.scaled(3, 40),
        2 => paces.fill_with(|| random.scaled(1, 20)),
        _ => {}
    }
    paces
}

/// The node at this place.
pub fn id(place: usize) -> NodeId {
    NodeId(u32::try_from(place).expect("few nodes"))
}

/// Of the first life of the disk at this place.
pub fn first_incarnation(place: usize) -> Incarnation {
    Incarnation(place as u128 + 1)
}

pub fn member(introduction: &Introduction, incarnation: Incarnation) -> Member {
    Member {
        incarnation,
        role: introduction.role,
        site: introduction.site.clone(),
        priority: introduction.priority,
        addresses: introduction.addresses.clone(),
    }
}

fn first_config(nodes: &[Introduction], random: &mut Random) -> Config {
    let members: BTreeMap<NodeId, Member> = nodes
        .iter()
        .enumerate()
        .map(|(place, node)| (id(place), member(node, first_incarnation(place))))
        .collect();
    let voting = nodes.iter().enumerate().filter(|(_, node)| node.voter);
    let voters: BTreeSet<NodeId> = voting.map(|(place, _)| id(place)).collect();
    let data = nodes.iter().filter(|node| node.role == MemberRole::Data);
    let protection = match (random.below(6), data.count()) {
        (0, _) => Protection::MaxPerformance,
        (1 | 2, 2..) => Protection::MaxProtection,
        _ => Protection::MaxAvailability,
    };
    let acks = random.pick(&[Acks::All, Acks::Majority]);
    let history = History {
        generation: 1,
        id: 0x1157,
    };
    Config::first(history, Nonce(1), acks, protection, members, voters)
}

fn draw_tuning(config: &Config, random: &mut Random) -> Tuning {
    let ms = Duration::from_millis;
    let beat = random.pick(&[15, 50, 50, 100]);
    let failover = beat * random.between(5, 12);
    let sync = random.between(failover / 2, failover * 4);
    let hold = random.between(100, 1500);
    let kib = |random: &mut Random, low, high| random.scaled(low, high) << 10;
    let message = kib(random, 1, 64);
    let window = message * random.between(2, 16);
    let budget = config.protection == Protection::MaxPerformance && random.one_in(2);
    let core = Settings {
        heartbeat_interval: ms(beat),
        failover_timeout: ms(failover),
        sync_timeout: ms(sync),
        degraded_timeout: ms(random.between(failover, failover * 6)),
        join_timeout: ms(random.between(failover, failover * 6)),
        switchover_timeout: ms(random.between(failover, failover * 6)),
        fence_grace: ms(random.between(10, failover / 3)),
        stagger: ms(random.between(10, failover / 4)),
        attempt_timeout: ms(failover * 2),
        hold_down: ms(hold),
        hold_down_max: ms(hold * random.between(1, 8)),
        hold_down_reset: ms(random.between(5_000, 60_000)),
        max_clock_step: ms(random.between(100, 2000)),
        window_bytes: window,
        message_bytes: message,
        // Often less than a few clients can have waiting at once: then they are told to wait.
        uncommitted_bytes: kib(random, 1, 1024),
        tail_bytes: kib(random, 4, 512),
        join_bytes: kib(random, 1, 64),
        loss_budget: LossBudget {
            commands: budget.then(|| random.between(1, 200)),
            bytes: (budget && random.one_in(2)).then(|| random.between(1_000, 100_000)),
            age: (budget && random.one_in(2)).then(|| ms(random.between(50, 5000))),
        },
    };
    let engine = EngineSettings {
        write_timeout: ms(random.between(failover * 2, 6000)),
        max_staleness: ms(random.between(beat * 2, 6000)),
        max_clock_step: core.max_clock_step,
        attest_interval: ms(random.scaled(20, 2000)),
        degraded_timeout: core.degraded_timeout,
        snapshot_interval: random.one_in(3).then(|| ms(random.scaled(300, 20_000))),
        snapshot_after: random
            .pick(&[None, None, Some(2), Some(4), Some(16), Some(64), Some(256)])
            .map(|n| n << 10),
        wal_keep: random.pick(&[0, 0, 32 << 10, 1 << 20]),
        max_memory: 0,
        archive: None,
        seeds: BTreeMap::new(),
        started_ms: 0,
        pid: 0,
        quarantined: false,
        introduction: Introduction {
            role: MemberRole::Data,
            voter: true,
            site: String::new(),
            priority: 100,
            addresses: Addresses::default(),
            asked: false,
        },
    };
    Tuning {
        core,
        engine,
        segment_bytes: kib(random, 8, 256),
        reserve_bytes: 4 << 10,
        piece_bytes: random.pick(&[200, 1000, 16 << 10]),
        snapshot_stall: random.pick(&[0, 0, 20 * MS, 500 * MS]),
    }
}
