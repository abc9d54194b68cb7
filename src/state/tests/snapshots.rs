//! Snapshots: taken while the log goes on, loaded in any order, refused when damaged.

use super::super::command::*;
use super::super::place::Place;
use super::super::{Range, SnapshotHead};
use super::logs::{build, steps, visible};
use super::*;
use proptest::prelude::*;
use standfast_wal::Position;
use std::collections::BTreeMap;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_snapshot_and_the_rest_of_the_log_are_the_whole_log(
        steps in steps(60),
        begin in any::<proptest::sample::Index>(),
        budget in 1usize..400,
        pauses in proptest::collection::vec(0usize..3, 60),
    ) {
        let records = build(&steps);
        let begin = begin.index(records.len());
        let mut whole = State::new(LIMITS);
        apply_all(&mut whole, &records[..begin]);
        let mut taken = Taken::begin(&mut whole);
        let head = taken.head;
        prop_assert_eq!(head.digest, whole.digest());
        let mut done = false;
        for (record, pause) in records[begin..].iter().zip(pauses.iter().cycle()) {
            whole.apply(record, |_, _| {});
            for _ in 0..*pause {
                done = done || whole.snapshot_step(budget, &mut taken.blocks);
            }
        }
        while !done {
            done = whole.snapshot_step(budget, &mut taken.blocks);
        }
        whole.check();
        taken.blocks.reverse();
        taken.segments.reverse();
        let mut restored = taken.load().expect("an undamaged snapshot");
        restored.check();
        prop_assert_eq!(restored.applied().lsn.0, head.lsn.0);
        prop_assert_eq!(restored.digest(), head.digest);
        let mut again = State::new(LIMITS);
        apply_all(&mut again, &records[..begin]);
        prop_assert_eq!(visible(&restored), visible(&again));
        let replayed = apply_all(&mut restored, &records[begin..]);
        prop_assert_eq!(replayed, apply_all(&mut again, &records[begin..]));
        prop_assert_eq!(restored.digest(), whole.digest());
        prop_assert_eq!(restored.slot_digests(), whole.slot_digests());
        prop_assert_eq!(restored.next_deadline(), whole.next_deadline());
        prop_assert_eq!(visible(&restored), visible(&whole));
        restored.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Snapshot after snapshot of a state that goes on, each loaded from segments of which most are
    /// those of the one before, whose bytes files hold by then.
    #[test]
    fn snapshots_share_their_segments_and_each_is_the_whole_state(
        steps in steps(80),
        stops in proptest::collection::vec(1usize..12, 8),
    ) {
        let records = build(&steps);
        let mut state = State::new(LIMITS);
        let mut left = &records[..];
        let mut shared = 0;
        let mut before: Vec<Segment> = Vec::new();
        for stop in stops {
            let (some, rest) = left.split_at(stop.min(left.len()));
            left = rest;
            apply_all(&mut state, some);
            let taken = Taken::of(&mut state);
            let restored = taken.load().expect("an undamaged snapshot");
            restored.check();
            prop_assert_eq!(restored.digest(), state.digest());
            prop_assert_eq!(visible(&restored), visible(&state));
            // What a snapshot refers to never changes again.
            for (old, new) in before.iter().filter_map(|old| {
                let is_it = |one: &&Segment| (one.sort, one.number) == (old.sort, old.number);
                Some((old, taken.segments.iter().find(is_it)?))
            }) {
                prop_assert_eq!(&old.bytes, &new.bytes);
                prop_assert!(new.stored.is_some());
                shared += 1;
            }
            for segment in taken.segments.iter().filter(|one| one.stored.is_none()) {
                let mapped = Bytes::copy_from_slice(&segment.bytes);
                state.keep_segment(segment, mapped, [segment.sort; 32]);
            }
            before = taken.segments;
            // As after a restart: the state goes on from what was loaded.
            if stop % 3 == 0 {
                let again = Taken::of(&mut state);
                state = again.load().expect("an undamaged snapshot");
            }
        }
        prop_assert!(shared >= before.len() / 2 || before.len() < 4);
        state.check();
    }
}

fn many_keys(count: usize, tag: &str) -> Vec<Record> {
    let mut link = Link::default();
    let mut records = Vec::new();
    for first in (0..count).step_by(1000) {
        let one = |i: usize| {
            let value = Bytes::from(vec![b'v'; 50 + i % 100]);
            set(text(&format!("{tag}key {i}")), value)
        };
        let last = count.min(first + 1000);
        let commands: Vec<_> = (first..last).map(one).collect();
        let record = commands_record(link, link.timestamp + 1000, &commands);
        link = record.link();
        records.push(record);
    }
    records
}

#[test]
fn no_step_costs_much_more_than_its_budget_even_if_all_keys_share_a_slot() {
    for tag in ["", "{one}"] {
        let mut state = State::new(LIMITS);
        apply_all(&mut state, &many_keys(20_000, tag));
        let mut taken = Taken::begin(&mut state);
        let blocks = &mut taken.blocks;
        let (mut steps, mut emitted) = (0, 0);
        let mut done = false;
        while !done {
            done = state.snapshot_step(100_000, blocks);
            let total: usize = blocks.iter().map(|block| block.bytes.len()).sum();
            // A block that filled up over several steps comes out with the last of them.
            assert!(
                total - emitted < 700_000,
                "{} bytes in one step",
                total - emitted
            );
            emitted = total;
            steps += 1;
        }
        assert!(steps >= 15, "{steps} steps");
        assert!(blocks.iter().all(|block| block.bytes.len() < 400 << 10));
        assert_eq!(taken.load().expect("intact").digest(), state.digest());
    }
}

#[test]
fn large_values_are_copied_piece_by_piece() {
    let mut state = State::new(LIMITS);
    let large = |i: usize| set(text(&format!("{{x}}{i}")), Bytes::from(vec![7; 300 << 10]));
    let record = commands_record(
        Link::default(),
        1000,
        &(0..40).map(large).collect::<Vec<_>>(),
    );
    state.apply(&record, |_, _| {});
    let mut taken = Taken::begin(&mut state);
    let mut steps = 0;
    let mut link = record.link();
    while !state.snapshot_step(1, &mut taken.blocks) {
        // Changes ahead of the walk and behind it.
        let next = commands_record(
            link,
            link.timestamp + 1,
            &[set(text(&format!("{{x}}{steps}")), text("small"))],
        );
        link = next.link();
        state.apply(&next, |_, _| {});
        steps += 1;
    }
    assert!(steps >= 5, "{steps} steps of at most a few MiB");
    let restored = taken.load().expect("intact");
    assert_eq!(restored.digest(), taken.head.digest);
    restored.check();
    state.check();
}

#[test]
fn flushall_in_the_middle_neither_waits_nor_harms_the_snapshot() {
    let mut state = State::new(LIMITS);
    let records = many_keys(5000, "");
    apply_all(&mut state, &records);
    let mut taken = Taken::begin(&mut state);
    assert!(!state.snapshot_step(10_000, &mut taken.blocks));
    let link = records.last().expect("not empty").link();
    let after = [
        Command::FlushAll,
        set(text("key 1"), text("new")),
        Command::FlushAll,
        set(text("x"), text("y")),
    ];
    state.apply(
        &commands_record(link, link.timestamp + 1, &after),
        |_, _| {},
    );
    state.check();
    assert_eq!(state.keys(), 1);
    while !state.snapshot_step(10_000, &mut taken.blocks) {}
    let restored = taken.load().expect("intact");
    assert_eq!(restored.digest(), taken.head.digest);
    let mut rounds = 0;
    while state.reclaim(100) {
        rounds += 1;
    }
    assert!(
        rounds > 10,
        "what FLUSHALL left is freed little by little: {rounds}"
    );
    state.check();
}

#[test]
fn tokens_survive_a_snapshot() {
    let mut state = State::new(LIMITS);
    let once = |by| {
        let command = Command::IncrBy { key: text("n"), by };
        Command::Once(Once::new(text("token"), 1000, 10, command))
    };
    let record = commands_record(Link::default(), 1_000_000, &[once(5)]);
    state.apply(&record, |_, _| {});
    let taken = Taken::of(&mut state);
    assert_eq!((taken.head.keys, taken.head.tokens), (1, 1));
    let mut restored = taken.load().expect("intact");
    let again = commands_record(record.link(), 2_000_000, &[once(5), once(6)]);
    let replies = apply_all(&mut restored, &[again]);
    assert_eq!(replies[0].1, Reply::Int(5));
    assert!(matches!(&replies[1].1, Reply::Error(text) if text.starts_with(b"ONCEREUSED ")));
    assert_eq!(
        restored.read(&Command::Get { key: text("n") }),
        Reply::Bulk(text("5"))
    );
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut state = State::new(LIMITS);
    let once = Command::Once(Once::new(text("t"), 1000, 10, set(text("k"), text("v"))));
    let expiring = Command::Expire {
        key: text("k"),
        when: When::At(100),
        condition: ExpireCondition::default(),
    };
    let commands = [set(text("key"), text("value")), once, expiring];
    state.apply(
        &commands_record(Link::default(), 1000, &commands),
        |_, _| {},
    );
    let taken = Taken::of(&mut state);
    let blocks = &taken.blocks;
    assert_eq!(
        blocks.len(),
        3,
        "two of keys, in two ranges, and one of tokens"
    );
    assert!(taken.load().is_ok());
    for (at, block) in blocks.iter().enumerate() {
        let mut missing = taken.clone();
        missing.blocks.remove(at);
        assert!(missing.load().is_err(), "block {at} is missing");
        let mut doubled = taken.clone();
        doubled.blocks.push(block.clone());
        assert!(doubled.load().is_err(), "block {at} comes twice");
        for len in 0..block.bytes.len() {
            assert!(
                load_block(&LIMITS, &block.bytes[..len]).is_err(),
                "cut at {len}"
            );
        }
        for bit in 0..block.bytes.len() * 8 {
            let mut flipped = taken.clone();
            flipped.blocks[at].bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(flipped.load().is_err(), "bit {bit} of block {at}");
        }
    }
    let mut wrong = taken.clone();
    wrong.head = SnapshotHead {
        keys: taken.head.keys + 1,
        ..taken.head
    };
    let told = wrong.load().expect_err("a wrong count").to_string();
    assert_eq!(
        told,
        "state: the number of keys is 2, the snapshot's head says 3"
    );
}

#[test]
fn an_aborted_snapshot_leaves_nothing_behind() {
    let mut state = State::new(LIMITS);
    let records = many_keys(1000, "");
    apply_all(&mut state, &records);
    state.begin_snapshot();
    state.snapshot_step(1000, &mut Vec::new());
    state.abort_snapshot();
    assert!(!state.is_in_snapshot());
    let restored = Taken::of(&mut state).load().expect("intact");
    assert_eq!(restored.digest(), state.digest());
}

/// The blocks of a snapshot by their ranges.
fn by_range(state: &mut State) -> BTreeMap<Range, Vec<Vec<u8>>> {
    let mut found: BTreeMap<Range, Vec<Vec<u8>>> = BTreeMap::new();
    for block in Taken::of(state).blocks {
        found.entry(block.range).or_default().push(block.bytes);
    }
    found
}

#[test]
fn a_range_that_has_not_changed_is_the_same_blocks_in_the_next_snapshot() {
    let mut state = State::new(LIMITS);
    apply_all(&mut state, &many_keys(3_000, ""));
    let before = by_range(&mut state);
    assert!(before.len() > 300, "{} ranges", before.len());
    assert_eq!(by_range(&mut state), before);
    let after = Link {
        position: Position {
            epoch: Epoch(1),
            lsn: state.applied().lsn,
        },
        timestamp: state.applied().timestamp,
        ..Link::default()
    };
    let key = text("one more");
    state.apply(
        &commands_record(
            after,
            after.timestamp + 1,
            &[set(key.clone(), text("value"))],
        ),
        |_, _| (),
    );
    let slot = u32::from(Place::of_key(&key, LIMITS.seed).slot());
    let now = by_range(&mut state);
    let differing = now
        .iter()
        .filter(|(range, blocks)| before.get(range) != Some(blocks));
    let differing: Vec<&Range> = differing.map(|(range, _)| range).collect();
    let [range] = differing[..] else {
        panic!("one key was written: {differing:?}")
    };
    assert!(
        range.first <= slot && slot <= range.last && range.section == 1,
        "{range:?} {slot}"
    );
}
