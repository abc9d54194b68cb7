//! Proofs of all of an archive, and what is removed behind them.

use super::*;
use crate::node::archiver::worker::{Words, Worker};
use crate::state::{self, Segment};
use standfast_snapshot::retention::Policy;
use standfast_snapshot::{Header, Options, SegmentRef, Writer, segment};
use standfast_wal::{Disk, NodeId};

/// What the thread does that `ship` starts.
fn prove(archiver: &mut Archiver, order: &Order, now_ns: u64) -> Option<Verified> {
    let proof = archiver.proof(order, at(now_ns))?;
    assert!(
        archiver.proof(order, at(u64::MAX)).is_none(),
        "one is under way"
    );
    archiver.proved(proof.run(&|| at(now_ns), 1));
    archiver.standing().verified.clone()
}

#[test]
fn all_of_the_archive_is_proved_when_that_is_due_and_what_is_wrong_is_told() {
    let memory = Arc::new(Memory::default());
    let mut archiver = archiver(&memory);
    let mut log = Log::new(40);
    let due = |log: &Log| Order {
        is_verify_due: true,
        ..order(log)
    };
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    assert_eq!(
        prove(&mut archiver, &order(&log), log.now()),
        None,
        "not due"
    );
    let first = prove(&mut archiver, &due(&log), log.now()).unwrap();
    assert_eq!((first.findings, first.objects, first.first), (0, 1, None));
    assert!(
        archiver.proof(&due(&log), at(log.now() + SECOND)).is_none(),
        "not again and again"
    );
    log.grow(600);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    let store: Shared = memory.clone();
    let dir = catalogue::read(&store, CLUSTER).unwrap().histories;
    let piece = &dir[0].logs[0].path;
    let mut bytes = store.get(piece).unwrap().to_vec();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    store.replace(piece, &bytes.into()).unwrap();
    let second = prove(&mut archiver, &due(&log), 100 * SECOND).unwrap();
    assert!(second.findings > 0 && second.first.is_some(), "{second:?}");
    // A store that does not answer proves nothing, neither good nor bad.
    memory.set_down(true);
    let third = prove(&mut archiver, &due(&log), 200 * SECOND).unwrap();
    assert_eq!(third.at_ns, 100 * SECOND);
    assert!(!archiver.round(&order(&log), &log, at(200 * SECOND)));
    memory.set_down(false);
    assert!(archiver.round(&order(&log), &log, at(201 * SECOND)));
    let error = archiver.standing().error.clone().unwrap_or_default();
    assert!(error.contains("its proof broke off"), "{error}");
}

/// Puts a snapshot at the log's end, with a segment of its own.
fn snapshot(archiver: &mut Archiver, log: &Log) {
    let own = log.records.last().unwrap().last_lsn();
    let upload = begin_snapshot(archiver, &order(log), log);
    put_snapshot(archiver, upload, log, own.0);
}

fn begin_snapshot(archiver: &mut Archiver, order: &Order, log: &Log) -> Upload {
    let order = Order {
        snapshot_lsn: log.records.last().map(Record::last_lsn),
        ..order.clone()
    };
    archiver.upload(&order, at(log.now())).unwrap()
}

/// Puts a snapshot with a segment that holds an id that was used up.
fn put_snapshot(archiver: &mut Archiver, upload: Upload, log: &Log, id: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let link = log.records.last().unwrap().link();
    let bytes = u128::from(id).to_le_bytes();
    let own = SegmentRef::of(5, 0, &bytes);
    let share = state::load_segment(Segment {
        sort: 5,
        number: 0,
        bytes: bytes.to_vec().into(),
        stored: None,
    });
    let share = share.unwrap().tally();
    let header = Header {
        cluster: CLUSTER,
        cluster_name: "bank".to_string(),
        node: NodeId(1),
        history: history(1),
        ancestors: Vec::new(),
        link,
        digest: share.digest.0,
        counts: [0; 4],
        epoch_table: Default::default(),
        state_head: Default::default(),
    };
    let disk = Disk::open(scratch.path()).unwrap();
    segment::write(&disk, &own, &bytes).unwrap();
    let path = scratch.path().join("snapshot");
    let mut writer = Writer::create(&path, &header, Options::default()).unwrap();
    for block in segment::blocks(&[own]) {
        writer.push(block).unwrap();
    }
    writer.publish().unwrap();
    let begun = upload.shipper.upload(disk, "snapshot").unwrap();
    let mut begun = begun.wary(upload.mends.is_some());
    while !begun.step().unwrap() {}
    archiver.uploaded(Ok(begun.sent()));
}

#[test]
fn the_next_snapshot_behind_a_proof_that_found_damage_mends_what_it_shares() {
    let memory = Arc::new(Memory::default());
    let mut archiver = archiver(&memory);
    let mut log = Log::new(40);
    let order_at = |log: &Log, unsound| Order {
        is_verify_due: true,
        unsound,
        ..order(log)
    };
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    let upload = begin_snapshot(&mut archiver, &order(&log), &log);
    put_snapshot(&mut archiver, upload, &log, 7);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    let first = prove(&mut archiver, &order_at(&log, None), log.now()).unwrap();
    assert_eq!(first.findings, 0, "{first:?}");
    let names = memory.names();
    let shared = names
        .iter()
        .find(|name| name.contains("/segment-"))
        .unwrap();
    let mut bytes = memory.get(shared).unwrap().to_vec();
    bytes[0] ^= 1;
    memory.replace(shared, &bytes.into()).unwrap();
    // One that is under way by then mends nothing: it goes by the name.
    log.grow(110);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    let before = begin_snapshot(&mut archiver, &order(&log), &log);
    let second = prove(&mut archiver, &order_at(&log, None), 100 * SECOND).unwrap();
    assert!(second.findings > 0, "{second:?}");
    assert!(second.wants_snapshot, "{second:?}");
    put_snapshot(&mut archiver, before, &log, 7);
    let unsound = Some(second.at_ns);
    let wants = |archiver: &mut Archiver, log: &Log| {
        assert!(archiver.round(&order_at(log, unsound), log, at(log.now())));
        archiver.standing().wants_snapshot
    };
    assert!(!wants(&mut archiver, &log), "the newest is there already");
    log.grow(110);
    assert!(wants(&mut archiver, &log));
    let wary = begin_snapshot(&mut archiver, &order_at(&log, unsound), &log);
    put_snapshot(&mut archiver, wary, &log, 7);
    log.grow(110);
    assert!(!wants(&mut archiver, &log), "no more than once");
    let third = prove(&mut archiver, &order_at(&log, unsound), 1000 * SECOND).unwrap();
    assert_eq!((third.findings, third.first), (0, None));
    let mut names = memory.names().into_iter();
    let piece = names.find(|name| name.contains("/log-")).unwrap();
    memory.delete(&piece).unwrap();
    let fourth = prove(&mut archiver, &order_at(&log, unsound), 1100 * SECOND).unwrap();
    assert!(fourth.findings > 0, "{fourth:?}");
    assert!(!fourth.wants_snapshot, "one stands behind the hole");
}

#[test]
fn what_need_not_be_kept_goes_behind_a_sound_proof_and_an_unsound_archive_loses_nothing_more() {
    let memory = Arc::new(Memory::default());
    let keep = Policy {
        keep_full: 1,
        keep_for_ns: 15 * SECOND,
    };
    let mut archiver = archiver(&memory).keeping(Some(keep));
    let mut log = Log::new(0);
    let due = |log: &Log| Order {
        is_verify_due: true,
        ..order(log)
    };
    let mut ship = |archiver: &mut Archiver| {
        log.grow(110);
        assert!(archiver.round(&due(&log), &log, at(log.now())));
        snapshot(archiver, &log);
        assert!(archiver.round(&due(&log), &log, at(log.now())));
        prove(archiver, &due(&log), log.now() * 100).unwrap()
    };
    let kinds = |memory: &Memory| {
        ["/snapshot-", "/log-", "/segment-", "/removal-"].map(|kind| {
            let names = memory.names();
            names.iter().filter(|name| name.contains(kind)).count()
        })
    };
    // Its own clock is far ahead: ages count from the newest command, and a point of 15 s ago is
    // restored from the snapshot before it.
    let mut removed = 0;
    for number in 1..=4 {
        let gone = ship(&mut archiver).expired.unwrap();
        let expected = u64::from(number == 4);
        let found = (gone.snapshots, gone.segments, &gone.error);
        assert_eq!(found, (expected, expected, &None), "{number}");
        let text = gone.text();
        assert!(text.is_none_or(|text| text.contains("snapshots")));
        removed += gone.snapshots + gone.logs + gone.segments;
    }
    let [snapshots, _, segments, removals] = kinds(&memory);
    assert_eq!([snapshots, segments, removals], [3, 3, 0]);
    assert_eq!(archiver.standing().removed, removed);

    let names = memory.names();
    let segment = names
        .iter()
        .find(|name| name.contains("/segment-"))
        .unwrap();
    memory.tamper(segment, |bytes| bytes[0] ^= 1);
    let before = kinds(&memory);
    let third = ship(&mut archiver);
    assert!(third.findings > 0 && third.expired.is_none(), "{third:?}");
    assert!(
        kinds(&memory)
            .iter()
            .zip(before)
            .all(|(now, before)| *now >= before)
    );
    assert_eq!(archiver.standing().removed, removed);
}

/// Another node archives by the time at which it ends.
#[test]
fn what_was_begun_on_duty_is_told_when_it_ends_off_duty() {
    let memory = Arc::new(Memory::default());
    let log = Log::new(20);
    let mut worker = Worker::new(archiver(&memory), true);
    let now = || at(log.now());
    let mut words = Words::default();
    words.order(Some(Box::new(Order {
        is_drill_due: true,
        ..order(&log)
    })));
    assert!(worker.turn(words, &log, &now).drill.is_some());
    let mut words = Words::default();
    words.order(None);
    assert_eq!(worker.turn(words, &log, &now).standing, None);
    let drilled = Drilled {
        at_ns: log.now(),
        passed: true,
        rto_ms: Some(7),
        rpo_ms: Some(0),
        reason: None,
    };
    let words = Words {
        drilled: Some(Ok((drilled.clone(), None))),
        ..Words::default()
    };
    let standing = worker.turn(words, &log, &now).standing.unwrap();
    assert_eq!(standing.drilled, Some(drilled));
}
