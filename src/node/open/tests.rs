//! Opening a directory of which a piece is gone or damaged: the node is the one it was, or another.

use super::*;
use crate::node::directory::sim::SimDir;
use crate::replication::config::{Acks, Config, Member, Protection};
use crate::replication::register::AcceptorState;
use crate::replication::{Fence, Meta};
use standfast_wal::{Epoch, History, Kind, Nonce};
use std::collections::{BTreeMap, BTreeSet};

const CLUSTER: ClusterId = ClusterId(7);
const NODE: NodeId = NodeId(1);
const BORN: Incarnation = Incarnation(11);
const REBORN: u128 = 99;

fn opening() -> Opening {
    Opening {
        node: NODE,
        cluster_name: "books".to_string(),
        role: MemberRole::Data,
        cluster_id: Some(CLUSTER),
        alone: false,
        options: Options {
            segment_bytes: 8 << 10,
            keep_bytes: 0,
            reserve_bytes: 512,
            alone: false,
            cut_damaged_end: false,
        },
        addresses: Addresses::default(),
        site: "main".to_string(),
        priority: 100,
    }
}

fn config(version: u64) -> Config {
    let member = Member {
        incarnation: BORN,
        role: MemberRole::Data,
        site: "main".to_string(),
        priority: 100,
        addresses: Addresses::default(),
    };
    Config {
        history: History {
            generation: 1,
            id: 5,
        },
        ancestors: Vec::new(),
        epoch: Epoch(1),
        version,
        nonce: Nonce(3),
        primary: NodeId(0),
        sync_set: BTreeSet::from([NodeId(0), NODE]),
        acks_needed: 2,
        acks: Acks::All,
        protection: Protection::MaxAvailability,
        members: BTreeMap::from([(NodeId(0), member.clone()), (NODE, member)]),
        voters: BTreeSet::from([NodeId(0), NODE]),
    }
}

/// A node that follows epoch 1 and has `records` of it on disk.
fn a_node(records: u64) -> SimDir {
    let dir = SimDir::new(records);
    let mut core = Meta::first(
        CLUSTER,
        NODE,
        BORN,
        Config {
            epoch: Epoch(0),
            ..config(1)
        },
    );
    let meta = |core: &Meta| MetaFile {
        cluster_name: "books".to_string(),
        quarantined: false,
        core: core.clone(),
    };
    meta::store(&dir.root, &meta(&core)).expect("a sound disk");
    let mut opened = open(&dir, &opening(), &mut || 0).expect("the first start");
    let log = opened.log.as_mut().expect("a data node");
    core.fence = Fence {
        history: core.fence.history,
        epoch: Epoch(1),
    };
    core.config = crate::replication::register::Value::new(config(2));
    meta::store(&dir.root, &meta(&core)).expect("a sound disk");
    let entry = EpochEntry {
        history: core.fence.history,
        epoch: Epoch(1),
        nonce: Nonce(3),
        primary: NodeId(0),
        first_lsn: Lsn(1),
    };
    let start = entry.encode(Epoch(0));
    log.push(Record::build(
        log.written(),
        Kind::EpochStart,
        Epoch(1),
        1,
        1,
        &start,
    ));
    for n in 1..records {
        let payload = vec![n as u8; 600];
        log.push(Record::build(
            log.written(),
            Kind::Commands,
            Epoch(1),
            n + 1,
            1,
            &payload,
        ));
    }
    log.flush().expect("a sound disk");
    log.settle().expect("a sound disk");
    dir
}

/// Writes the snapshot at LSN 1, in the epoch that goes on.
fn take_snapshot(dir: &SimDir) {
    let opened = open(dir, &opening(), &mut || 0).expect("a sound directory");
    let reader = opened.log.as_ref().expect("a data node").reader();
    let start = reader.read(Lsn::ZERO, 1).expect("a sound log").remove(0);
    let mut state = State::new(state_limits(CLUSTER));
    state.apply_each(&start, start.last_lsn(), |_, _, _| {});
    let begun = state.begin_snapshot();
    let header = standfast_snapshot::Header {
        cluster: CLUSTER,
        cluster_name: "books".to_string(),
        node: NODE,
        history: config(2).history,
        ancestors: Vec::new(),
        link: start.link(),
        digest: begun.digest.0,
        counts: [begun.keys, begun.tokens, 0, 0],
        epoch_table: crate::node::copies::encode_epochs(&opened.facts.epochs),
        state_head: bytes::Bytes::new(),
    };
    let options = standfast_snapshot::Options {
        threads: 0,
        ..Default::default()
    };
    let mut writer = shelf::begin(dir, &header, options).expect("a sound disk");
    let mut blocks = Vec::new();
    while !state.snapshot_step(1 << 20, &mut blocks) {}
    for block in blocks {
        writer
            .push_now(shelf::file_block(block))
            .expect("a sound disk");
    }
    shelf::finish(dir, writer, (begun.lsn, &[]), Vec::new(), drop, || Some(()))
        .expect("a sound disk");
}

fn reopen(dir: &mut SimDir) -> (Incarnation, Lsn, bool) {
    dir.restart();
    let opened = open(dir, &opening(), &mut || REBORN).expect("peers are there to help");
    (
        opened.meta.core.incarnation,
        opened.facts.tip.position.lsn,
        opened.facts.suspect,
    )
}

#[test]
fn an_unharmed_node_is_the_one_it_was() {
    let mut dir = a_node(40);
    assert_eq!(reopen(&mut dir), (BORN, Lsn(40), false));
}

/// "A node whose fence, register or meta file is missing or unreadable has lost its disk."
#[test]
fn an_empty_disk_is_a_new_incarnation() {
    let mut dir = a_node(3);
    dir.wipe();
    assert_eq!(reopen(&mut dir), (Incarnation(REBORN), Lsn::ZERO, false));
    // And stays the one it became.
    assert_eq!(reopen(&mut dir), (Incarnation(REBORN), Lsn::ZERO, false));
}

/// A node that had acknowledged through some LSN must never come back under its own name with
/// less, as if it had never had more: a log that is gone must not be taken for one never begun.
#[test]
fn a_node_that_lost_any_file_is_the_one_it_was_or_another() {
    let files = |dir: &SimDir| -> Vec<(usize, String)> {
        let disks = dir.each().into_iter().enumerate();
        disks
            .flat_map(|(i, disk)| disk.files().into_iter().map(move |(name, _)| (i, name)))
            .collect()
    };
    let all = files(&a_node(40));
    assert!(all.len() > 4, "meta and several segments: {all:?}");
    for (disk, name) in all {
        let mut dir = a_node(40);
        dir.each()[disk].lose(&name);
        let found = reopen(&mut dir);
        let is_other = found == (Incarnation(REBORN), Lsn::ZERO, false);
        assert!(
            found == (BORN, Lsn(40), false) || is_other,
            "without {name}: {found:?}"
        );
    }
    // All of the log, beside a snapshot of the same epoch.
    let mut dir = a_node(3);
    take_snapshot(&dir);
    assert_eq!(reopen(&mut dir), (BORN, Lsn(3), false));
    for (name, _) in dir.wal.files() {
        dir.wal.lose(&name);
    }
    assert_eq!(reopen(&mut dir), (Incarnation(REBORN), Lsn::ZERO, false));
}

/// As `a_node_that_lost_any_file`, where bits of a file have flipped: or it says that its end is
/// not to be believed.
#[test]
fn a_node_whose_files_rot_is_the_one_it_was_or_another_or_suspect() {
    let lengths: Vec<(usize, String, u64)> = {
        let dir = a_node(12);
        let of = |i: usize| dir.each()[i].files().into_iter();
        let list = (0..2).flat_map(|i| of(i).map(move |(name, len)| (i, name, len)));
        list.collect()
    };
    for (disk, name, len) in lengths {
        for offset in (0..len).step_by(97) {
            let mut dir = a_node(12);
            dir.each()[disk].flip(&name, offset, 3);
            let found = reopen(&mut dir);
            let same = found.0 == BORN && (found.1 == Lsn(12) || found.2);
            let other = found == (Incarnation(REBORN), Lsn::ZERO, false);
            assert!(same || other, "{name} at {offset}: {found:?}");
        }
    }
}

/// A disk that does not answer, or is full, is no lost disk: the node refuses to start, and is the
/// one it was when the disk answers again. Otherwise one bad day would give up every copy.
#[test]
fn no_copy_is_given_up_for_an_error_of_the_disk() {
    let refused = |dir: &SimDir| {
        let error = open(dir, &opening(), &mut || REBORN).err();
        assert!(matches!(error, Some(ServeError::Halted(_))), "{error:?}");
    };
    for disk in 0..3 {
        let mut dir = a_node(12);
        take_snapshot(&dir);
        dir.restart();
        dir.each()[disk].set_faults(standfast_wal::storage::sim::Faults {
            read_error_ppm: 1_000_000,
            ..Default::default()
        });
        refused(&dir);
        dir.each()[disk].set_faults(Default::default());
        assert_eq!(reopen(&mut dir), (BORN, Lsn(12), false));
    }
    // A sector of a sealed segment cannot be read now.
    let mut dir = a_node(30);
    let (sealed, len) = dir.wal.files().remove(0);
    assert!(sealed.ends_with(".wal") && dir.wal.files().len() > 3);
    dir.wal.make_unreadable(&sealed, 5000..6000.min(len));
    dir.restart();
    refused(&dir);
    // An end that has to be cut needs room for what is kept aside.
    let mut dir = a_node(3);
    let (name, _) = dir.wal.files().pop().expect("a segment");
    let bytes = dir.wal.contents(&name).expect("a segment");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("records");
    let mut torn = bytes;
    torn[used + 200] = 1;
    dir.wal.put(&name, torn);
    dir.restart();
    dir.wal.set_capacity(0);
    refused(&dir);
    dir.wal.set_capacity(u64::MAX);
    let found = reopen(&mut dir);
    assert_eq!((found.0, found.1), (BORN, Lsn(3)));
}

/// I3: a vote that was forgotten would let an epoch be led twice.
#[test]
fn a_node_alone_goes_where_its_settings_say_until_it_has_voted() {
    let mut alone = config(1);
    alone.members.remove(&NodeId(0));
    (alone.sync_set, alone.voters) = (BTreeSet::from([NODE]), BTreeSet::from([NODE]));
    (alone.acks_needed, alone.primary) = (1, NODE);
    let mut meta = MetaFile {
        cluster_name: "books".to_string(),
        quarantined: false,
        core: Meta::first(CLUSTER, NODE, BORN, alone.clone()),
    };
    let moved = Opening {
        site: "elsewhere".to_string(),
        ..opening()
    };
    let site_of = |meta: &MetaFile| meta.core.config.members[&NODE].site.clone();
    assert_eq!(
        site_of(&with_own_addresses(&moved, meta.clone())),
        "elsewhere"
    );
    let next = Config {
        version: 2,
        epoch: Epoch(2),
        ..alone
    };
    let next = crate::replication::register::Value::new(next);
    meta.core.acceptor = AcceptorState::genesis(next);
    assert_eq!(with_own_addresses(&moved, meta.clone()), meta);
}

/// A process that dies between a rename and its directory's fsync leaves a file that only memory
/// holds: once a start has read it, it must stay.
#[test]
fn what_a_start_has_read_is_there_after_the_next_loss_of_power() {
    for (operations, records) in (0..8).flat_map(|n| (2..10).map(move |records| (n, records))) {
        let mut dir = a_node(records);
        let bytes = dir.root.contents(meta::FILE).expect("it was stored");
        let mut next = MetaFile::decode(&bytes).expect("whole");
        next.core.fence.epoch = Epoch(9);
        dir.root.halt_after(operations);
        let _ = meta::store(&dir.root, &next);
        dir.restart();
        let start = |dir: &SimDir| {
            let opened = open(dir, &opening(), &mut || REBORN).expect("a sound directory");
            opened.meta.core.fence
        };
        let read = start(&dir);
        dir.crash();
        assert_eq!(
            start(&dir),
            read,
            "stopped after {operations}, {records} records"
        );
    }
}
