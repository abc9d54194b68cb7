//! Any log: applied twice it gives the same; what is kept incrementally equals what is recomputed.

use super::super::command::*;
use super::*;
use proptest::prelude::*;

/// What one record of a random log holds.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Commands(Vec<Command>),
    Tick,
    Other(Kind),
}

fn key() -> impl Strategy<Value = Bytes> {
    let names = [
        "a",
        "b",
        "c",
        "{tag}1",
        "{tag}2",
        "{tag}3",
        "a longer key than the others",
        "",
    ];
    proptest::sample::select(names.to_vec()).prop_map(text)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (-3i64..30).prop_map(|number| text(&number.to_string())),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        (-2i64..40).prop_map(When::In),
        (0i64..300).prop_map(When::At)
    ]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Never),
        Just(Expiry::Keep),
        when().prop_map(Expiry::When)
    ]
}

fn set_command() -> impl Strategy<Value = Command> {
    let condition = prop_oneof![
        3 => Just(SetCondition::Always),
        1 => Just(SetCondition::IfAbsent),
        1 => Just(SetCondition::IfPresent),
        1 => value().prop_map(SetCondition::IfEqual),
    ];
    let reply = prop_oneof![
        Just(SetReply::Ok),
        Just(SetReply::Previous),
        Just(SetReply::Flag)
    ];
    (key(), value(), expiry(), condition, reply).prop_map(
        |(key, value, expiry, condition, reply)| {
            Command::Set(Set {
                key,
                value,
                expiry,
                condition,
                reply,
            })
        },
    )
}

fn simple() -> impl Strategy<Value = Command> {
    let conditions =
        any::<[bool; 4]>().prop_map(|[if_none, if_some, if_later, if_earlier]| ExpireCondition {
            if_none,
            if_some,
            if_later,
            if_earlier,
        });
    prop_oneof![
        6 => set_command(),
        2 => (proptest::collection::vec((key(), value()), 0..4), any::<bool>())
            .prop_map(|(pairs, if_none_exists)| Command::MSet { pairs, if_none_exists }),
        1 => (key(), value()).prop_map(|(key, value)| Command::Append { key, value }),
        1 => (key(), 0u64..30, value())
            .prop_map(|(key, offset, value)| Command::SetRange { key, offset, value }),
        2 => (key(), -5i64..5).prop_map(|(key, by)| Command::IncrBy { key, by }),
        1 => key().prop_map(|key| Command::GetDel { key }),
        1 => (key(), expiry()).prop_map(|(key, expiry)| Command::GetEx { key, expiry }),
        2 => proptest::collection::vec(key(), 0..4).prop_map(|keys| Command::Del { keys }),
        1 => (key(), value()).prop_map(|(key, value)| Command::DelIfEq { key, value }),
        3 => (key(), when(), conditions)
            .prop_map(|(key, when, condition)| Command::Expire { key, when, condition }),
        1 => key().prop_map(|key| Command::Persist { key }),
        2 => (key(), key(), any::<bool>()).prop_map(|(source, target, if_absent)| {
            Command::Rename { source, target, if_absent }
        }),
        2 => (key(), key(), any::<bool>()).prop_map(|(source, target, replace)| {
            Command::Copy { source, target, replace }
        }),
        1 => Just(Command::FlushAll),
        1 => any::<u64>().prop_map(|seed| Command::RandomKey { seed }),
        1 => Just(Command::Keys { pattern: text("*") }),
        1 => (any::<u64>(), 1u64..5).prop_map(|(cursor, count)| {
            let cursor = cursor >> 12;
            Command::Scan(Scan { cursor, pattern: None, count, other_type: false })
        }),
        1 => Just(Command::DbSize),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let multi = || {
        let watches = proptest::collection::vec((key(), (0u64..8).prop_map(Lsn)), 0..2);
        let commands = prop_oneof![3 => simple(), 2 => super::books::ledger_command()];
        (watches, proptest::collection::vec(commands, 0..4))
            .prop_map(|(watches, commands)| Command::Multi(Multi { watches, commands }))
    };
    let inner = prop_oneof![simple(), multi()];
    let once = ("[a-f]", 0u64..50, 0u64..5, inner).prop_map(|(token, ttl_ms, max, command)| {
        Command::Once(Once::new(Bytes::from(token), ttl_ms, max, command))
    });
    prop_oneof![6 => simple(), 4 => super::books::ledger_command(), 2 => multi(), 2 => once]
}

/// Records' contents, and by how many nanoseconds log time moves before each.
pub(super) fn steps(len: usize) -> impl Strategy<Value = Vec<(Step, u64)>> {
    let step = prop_oneof![
        8 => proptest::collection::vec(command(), 1..5).prop_map(Step::Commands),
        1 => Just(Step::Tick),
        1 => proptest::sample::select(vec![Kind::EpochStart, Kind::Attestation, Kind::Operator])
            .prop_map(Step::Other),
    ];
    // Holds last seconds.
    let later_ns = prop_oneof![9 => 1u64..20_000_000, 1 => 1_000_000_000u64..3_000_000_000];
    proptest::collection::vec((step, later_ns), 1..len)
}

pub(super) fn build(steps: &[(Step, u64)]) -> Vec<Record> {
    let mut link = Link::default();
    let mut records = Vec::new();
    for (step, later_ns) in steps {
        let timestamp = link.timestamp + later_ns;
        let empty = |kind| Record::build(link, kind, Epoch(1), timestamp, 1, b"");
        let record = match step {
            Step::Commands(commands) => commands_record(link, timestamp, commands),
            Step::Tick => empty(Kind::Tick),
            Step::Other(kind) => empty(*kind),
        };
        link = record.link();
        records.push(record);
    }
    records
}

/// All that a client can see, in order.
pub(super) fn visible(state: &State) -> Vec<(Reply, Reply, Reply)> {
    let Reply::Array(keys) = state.read(&Command::Keys { pattern: text("*") }) else {
        panic!("KEYS answers a list");
    };
    let ask = |key: &Reply| {
        let Reply::Bulk(key) = key else {
            panic!("keys are strings")
        };
        let form = TtlForm {
            in_ms: true,
            absolute: true,
        };
        let expiry = state.read(&Command::Ttl {
            key: key.clone(),
            form,
        });
        (
            Reply::Bulk(key.clone()),
            state.read(&Command::Get { key: key.clone() }),
            expiry,
        )
    };
    keys.iter().map(ask).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn the_same_log_gives_the_same_state_and_all_that_is_incremental_is_exact(steps in steps(40)) {
        let records = build(&steps);
        let (mut one, mut two) = (State::new(LIMITS), State::new(LIMITS));
        for (at, record) in records.iter().enumerate() {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            one.apply(record, |lsn, reply| first.push((lsn, reply)));
            if at % 8 == 7 || at + 1 == records.len() {
                one.check();
            }
            two.apply(record, |lsn, reply| second.push((lsn, reply)));
            prop_assert_eq!(first, second);
            prop_assert_eq!(one.digest(), two.digest());
        }
        prop_assert_eq!(one.slot_digests(), two.slot_digests());
        prop_assert_eq!(visible(&one), visible(&two));
        let sum = one.slot_digests().iter().fold(0u128, |sum, slot| sum.wrapping_add(slot.0));
        prop_assert_eq!(one.digest().0, sum.wrapping_add(one.ledger().digest().0));
        prop_assert_eq!(one.applied().lsn, records.last().expect("not empty").last_lsn());
    }

    #[test]
    fn a_prefix_of_a_record_is_what_its_commands_alone_would_give(
        steps in steps(8),
        last in proptest::collection::vec(command(), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut steps = steps;
        steps.push((Step::Commands(last.clone()), 5));
        let records = build(&steps);
        let (whole, before) = records.split_last().expect("not empty");
        let through = Lsn(whole.first_lsn().0 + cut.index(last.len()) as u64);
        let kept = usize::try_from(through.0 - whole.first_lsn().0).expect("small") + 1;
        let shorter = commands_record(
            before.last().map_or(Link::default(), Record::link),
            whole.timestamp(),
            &last[..kept],
        );
        let (mut one, mut two) = (State::new(LIMITS), State::new(LIMITS));
        apply_all(&mut one, before);
        apply_all(&mut two, before);
        let mut replies = 0;
        one.apply_prefix(whole, through, |_, _| replies += 1);
        two.apply(&shorter, |_, _| {});
        prop_assert_eq!(replies, kept);
        prop_assert_eq!(one.applied(), two.applied());
        prop_assert_eq!(one.digest(), two.digest());
        one.check();
    }

    #[test]
    fn what_is_in_force_of_a_deadline_does_not_depend_on_sweeping(steps in steps(30)) {
        // The second state sees a Tick before each record: more is swept, nothing else changes.
        // LSNs differ, so nothing that shows them takes part; nor do holds, whose money is free
        // once they are swept.
        let (mut plain, mut with_ticks) = (Vec::new(), Vec::new());
        for (step, later_ns) in steps {
            let step = match step {
                Step::Commands(all) => {
                    let shows_lsns = |command: &Command| {
                        matches!(command, Command::Once(_) | Command::Multi(_))
                            || command.is_ledger_write()
                    };
                    let kept = all.into_iter().filter(|command| !shows_lsns(command));
                    Step::Commands(kept.chain([Command::DbSize]).collect())
                }
                other => other,
            };
            with_ticks.push((Step::Tick, 500));
            with_ticks.push((step.clone(), later_ns));
            plain.push((step, later_ns + 500));
        }
        let (mut one, mut two) = (State::new(LIMITS), State::new(LIMITS));
        let first = apply_all(&mut one, &build(&plain));
        let second = apply_all(&mut two, &build(&with_ticks));
        let replies = |all: Vec<(Lsn, Reply)>| all.into_iter().map(|(_, r)| r).collect::<Vec<_>>();
        prop_assert_eq!(replies(first), replies(second));
        prop_assert_eq!(visible(&one), visible(&two));
    }
}

#[test]
fn replies_carry_the_lsns_of_their_commands() {
    let commands = [
        set(text("a"), text("1")),
        Command::IncrBy {
            key: text("a"),
            by: 1,
        },
    ];
    let start = Record::build(
        Link::default(),
        Kind::EpochStart,
        Epoch(1),
        10,
        1,
        b"opaque",
    );
    let record = commands_record(start.link(), 1000, &commands);
    let mut state = State::new(LIMITS);
    let replies = apply_all(&mut state, &[start, record]);
    assert_eq!(replies, [(Lsn(2), Reply::Ok), (Lsn(3), Reply::Int(2))]);
    assert_eq!(state.revision(b"a"), Lsn(3));
    assert_eq!(
        (state.applied().lsn, state.applied().timestamp),
        (Lsn(3), 1001)
    );
}

#[test]
#[should_panic(expected = "records are applied in order")]
fn a_record_out_of_order_halts() {
    let record = commands_record(Link::default(), 10, &[Command::FlushAll]);
    let mut state = State::new(LIMITS);
    state.apply(&record, |_, _| {});
    state.apply(&record, |_, _| {});
}

#[test]
fn a_tick_sweeps_a_bounded_number_and_says_when_the_next_is_due() {
    let expiry = Expiry::When(When::At(50));
    let key = |i: usize| text(&format!("key {i}"));
    let mut commands: Vec<_> = (0..5000)
        .map(|i| {
            Command::Set(Set {
                key: key(i),
                value: text("v"),
                expiry,
                condition: SetCondition::Always,
                reply: SetReply::Ok,
            })
        })
        .collect();
    commands.push(Command::Expire {
        key: key(0),
        when: When::At(70),
        condition: ExpireCondition::default(),
    });
    let mut state = State::new(LIMITS);
    let mut record = commands_record(Link::default(), 1_000_000, &commands);
    state.apply(&record, |_, _| {});
    assert_eq!(state.next_deadline(), Some(50_000_000));
    assert_eq!(state.next_expiry(), Some(50_000_000));
    let mut held = Vec::new();
    for tick in 0..4 {
        record = Record::build(
            record.link(),
            Kind::Tick,
            Epoch(1),
            50_000_000 + tick,
            1,
            b"",
        );
        state.apply(&record, |_, _| {});
        assert_eq!(state.live_keys(), 1, "gone for clients at once");
        assert_eq!(state.next_expiry(), Some(70_000_000));
        held.push(state.keys());
    }
    assert_eq!(held, [5000 - 2048, 5000 - 2 * 2048, 1, 1]);
    assert_eq!(state.next_deadline(), Some(70_000_000));
    state.check();
}

#[test]
fn a_scan_misses_no_key_that_is_there_throughout_while_tables_grow_and_shrink() {
    let mut state = State::new(LIMITS);
    let mut link = Link::default();
    let mut apply = |state: &mut State, commands: Vec<Command>| {
        for some in commands.chunks(5000) {
            let record = commands_record(link, link.timestamp + 1, some);
            link = record.link();
            state.apply(&record, |_, _| {});
        }
    };
    // All in one slot, so that its chunks split and merge under the walk.
    let stays = |i: usize| text(&format!("{{x}}stays {i}"));
    let comes = |i: usize| text(&format!("{{x}}comes {i}"));
    apply(
        &mut state,
        (0..2000).map(|i| set(stays(i), text("v"))).collect(),
    );
    let mut seen = std::collections::BTreeSet::new();
    let (mut cursor, mut steps) = (0, 0);
    loop {
        let scan = Scan {
            cursor,
            pattern: Some(text("*stays*")),
            count: 100,
            other_type: false,
        };
        let Reply::Array(mut answer) = state.read(&Command::Scan(scan)) else {
            panic!("SCAN answers a list");
        };
        let (Some(Reply::Array(keys)), Some(Reply::Bulk(next))) = (answer.pop(), answer.pop())
        else {
            panic!("SCAN answers a cursor and keys");
        };
        for key in keys {
            let Reply::Bulk(key) = key else {
                panic!("keys are strings")
            };
            assert!(
                seen.insert(key),
                "answered twice: more than is promised, but kept"
            );
        }
        cursor = String::from_utf8_lossy(&next).parse().expect("a number");
        assert!(cursor < 1 << 53);
        if cursor == 0 {
            break;
        }
        steps += 1;
        match steps % 4 {
            1 => apply(
                &mut state,
                (0..6000).map(|i| set(comes(i), text("v"))).collect(),
            ),
            3 => apply(
                &mut state,
                vec![Command::Del {
                    keys: (0..6000).map(comes).collect(),
                }],
            ),
            _ => {}
        }
    }
    assert_eq!(seen, (0..2000).map(stays).collect());
    assert!(steps > 20, "{steps} steps");
    state.check();
}
