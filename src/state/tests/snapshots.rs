//! Snapshots: taken while the log goes on, loaded in any order, refused when damaged.

use super::super::command::*;
use super::super::{Block, LoadError, SnapshotHead, load_block};
use super::logs::{build, steps, visible};
use super::*;
use proptest::prelude::*;

fn load(head: &SnapshotHead, blocks: &[Block]) -> Result<State, LoadError> {
    let parts: Result<Vec<_>, _> = blocks
        .iter()
        .map(|block| load_block(&LIMITS, &block.bytes))
        .collect();
    State::assemble(LIMITS, head, parts?)
}

fn take(state: &mut State) -> (SnapshotHead, Vec<Block>) {
    let head = state.begin_snapshot();
    let mut blocks = Vec::new();
    while !state.snapshot_step(1 << 20, &mut blocks) {}
    (head, blocks)
}

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
        let head = whole.begin_snapshot();
        prop_assert_eq!(head.digest, whole.digest());
        let mut blocks = Vec::new();
        let mut done = false;
        for (record, pause) in records[begin..].iter().zip(pauses.iter().cycle()) {
            whole.apply(record, |_, _| {});
            for _ in 0..*pause {
                done = done || whole.snapshot_step(budget, &mut blocks);
            }
        }
        while !done {
            done = whole.snapshot_step(budget, &mut blocks);
        }
        whole.check();
        blocks.reverse();
        let mut restored = load(&head, &blocks).expect("an undamaged snapshot");
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
        let head = state.begin_snapshot();
        let mut blocks = Vec::new();
        let (mut steps, mut emitted) = (0, 0);
        let mut done = false;
        while !done {
            done = state.snapshot_step(100_000, &mut blocks);
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
        assert!(
            blocks
                .iter()
                .all(|block| block.first_slot <= block.last_slot)
        );
        assert_eq!(
            load(&head, &blocks).expect("intact").digest(),
            state.digest()
        );
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
    let head = state.begin_snapshot();
    let mut blocks = Vec::new();
    let mut steps = 0;
    let mut link = record.link();
    while !state.snapshot_step(1, &mut blocks) {
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
    let restored = load(&head, &blocks).expect("intact");
    assert_eq!(restored.digest(), head.digest);
    restored.check();
    state.check();
}

#[test]
fn flushall_in_the_middle_neither_waits_nor_harms_the_snapshot() {
    let mut state = State::new(LIMITS);
    let records = many_keys(5000, "");
    apply_all(&mut state, &records);
    let head = state.begin_snapshot();
    let mut blocks = Vec::new();
    assert!(!state.snapshot_step(10_000, &mut blocks));
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
    while !state.snapshot_step(10_000, &mut blocks) {}
    assert_eq!(load(&head, &blocks).expect("intact").digest(), head.digest);
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
    let (head, blocks) = take(&mut state);
    assert_eq!((head.keys, head.tokens), (1, 1));
    let mut restored = load(&head, &blocks).expect("intact");
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
    let (head, blocks) = take(&mut state);
    assert_eq!(blocks.len(), 2, "one of keys, one of tokens");
    assert!(load(&head, &blocks).is_ok());
    for at in 0..blocks.len() {
        let mut missing = blocks.clone();
        missing.remove(at);
        assert!(load(&head, &missing).is_err(), "block {at} is missing");
        let mut doubled = blocks.clone();
        doubled.push(blocks[at].clone());
        assert!(load(&head, &doubled).is_err(), "block {at} comes twice");
        for len in 0..blocks[at].bytes.len() {
            assert!(
                load_block(&LIMITS, &blocks[at].bytes[..len]).is_err(),
                "cut at {len}"
            );
        }
        for bit in 0..blocks[at].bytes.len() * 8 {
            let mut flipped = blocks.clone();
            flipped[at].bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(load(&head, &flipped).is_err(), "bit {bit} of block {at}");
        }
    }
    let wrong = SnapshotHead {
        keys: head.keys + 1,
        ..head
    };
    let told = load(&wrong, &blocks)
        .expect_err("a wrong count")
        .to_string();
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
    let (head, blocks) = take(&mut state);
    assert_eq!(
        load(&head, &blocks).expect("intact").digest(),
        state.digest()
    );
}
