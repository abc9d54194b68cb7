//! Random events for the ledger: few accounts and ids, so that everything meets everything.

use super::super::command::{Batch, BatchForm};
use super::super::ledger::record::{account_flags, transfer_flags};
use super::super::ledger::{Account, Transfer};
use super::*;
use proptest::prelude::*;

fn batch(events: Vec<[u8; 128]>) -> Batch {
    Batch {
        events: Bytes::from(events.concat()),
        form: BatchForm::Results,
    }
}

fn account() -> impl Strategy<Value = Account> {
    let flags = prop_oneof![
        4 => Just(0),
        2 => Just(account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS),
        1 => Just(account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS),
        3 => Just(account_flags::HISTORY),
        1 => Just(account_flags::LINKED),
        1 => Just(account_flags::CLOSED),
    ];
    (0u128..7, 1u32..3, flags).prop_map(|(id, ledger, flags)| Account {
        id,
        // Most of one ledger, so that they can transact.
        ledger: if id == 6 { ledger } else { 1 },
        code: 1,
        flags,
        ..Account::default()
    })
}

pub(super) fn transfer() -> impl Strategy<Value = Transfer> {
    use transfer_flags as flag;
    let kind = prop_oneof![
        6 => Just(0),
        5 => Just(flag::PENDING),
        3 => Just(flag::POST),
        3 => Just(flag::VOID),
        1 => Just(flag::BALANCING_DEBIT),
        1 => Just(flag::BALANCING_CREDIT | flag::PENDING),
        1 => Just(flag::CLOSING_DEBIT | flag::PENDING),
        1 => Just(flag::CLOSING_CREDIT | flag::PENDING),
        1 => any::<u16>().prop_map(|bits| bits & flag::ALL & !flag::IMPORTED),
    ];
    let amount = prop_oneof![4 => 0u128..20, 1 => Just(u128::MAX), 1 => Just(u128::MAX / 2)];
    let ids = (1u128..60, 1u128..7, 1u128..7, 1u128..60);
    (ids, amount, kind, any::<u8>(), 0u32..3).prop_map(
        |((id, debit, credit, pending_id), amount, kind, linked, timeout)| {
            let resolves = kind & flag::TWO_PHASE_END != 0;
            let is_linked = linked % 5 == 0;
            Transfer {
                id,
                debit_account_id: if resolves { 0 } else { debit },
                credit_account_id: if resolves { 0 } else { credit },
                amount,
                pending_id: if resolves { pending_id } else { 0 },
                timeout: if kind & flag::PENDING != 0 {
                    timeout
                } else {
                    0
                },
                ledger: u32::from(!resolves),
                code: u16::from(!resolves),
                flags: kind | if is_linked { flag::LINKED } else { 0 },
                ..Transfer::default()
            }
        },
    )
}

pub(super) fn ledger_command() -> impl Strategy<Value = Command> {
    let accounts = proptest::collection::vec(account(), 1..5).prop_map(|all| {
        let events = all.iter().map(Account::encode).collect();
        Command::CreateAccounts(batch(events))
    });
    let transfers = proptest::collection::vec(transfer(), 1..9).prop_map(|all| {
        let events = all.iter().map(Transfer::encode).collect();
        Command::CreateTransfers(batch(events))
    });
    prop_oneof![1 => accounts, 3 => transfers]
}

/// Every account of ledger 1 that random transfers name, with money to move.
fn opened() -> Vec<Command> {
    let accounts = (1..7).map(|id| {
        let account = Account {
            id,
            ledger: 1,
            code: 1,
            flags: if id < 3 { account_flags::HISTORY } else { 0 },
            ..Account::default()
        };
        account.encode()
    });
    vec![Command::CreateAccounts(batch(accounts.collect()))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn how_loose_events_are_gathered_into_batches_and_records_does_not_show(
        transfers in proptest::collection::vec(transfer(), 1..60),
        cuts in proptest::collection::vec(1usize..9, 1..20),
    ) {
        let loose: Vec<_> = transfers
            .into_iter()
            .map(|event| Transfer { flags: event.flags & !transfer_flags::LINKED, ..event })
            .collect();
        let (mut one, mut two) = (State::new(LIMITS), State::new(LIMITS));
        let first = commands_record(Link::default(), 1_000, &opened());
        one.apply(&first, |_, _| {});
        two.apply(&first, |_, _| {});
        // One record whose commands each hold one event, a nanosecond apart, as in a batch.
        let single = |event: &Transfer| Command::CreateTransfers(batch(vec![event.encode()]));
        let singles: Vec<_> = loose.iter().map(single).collect();
        one.apply(&commands_record(first.link(), 5_000, &singles), |_, _| {});
        // The same in batches of any size; the log's own times fall behind, which must not show.
        let mut left = &loose[..];
        let mut batches = Vec::new();
        for cut in cuts.iter().cycle() {
            let (some, rest) = left.split_at((*cut).min(left.len()));
            if some.is_empty() {
                break;
            }
            let events = some.iter().map(Transfer::encode).collect();
            batches.push(Command::CreateTransfers(batch(events)));
            left = rest;
        }
        two.apply(&commands_record(first.link(), 5_000, &batches), |_, _| {});
        one.check();
        two.check();
        prop_assert_eq!(one.digest(), two.digest());
        prop_assert_eq!(one.ledger().transfers(), two.ledger().transfers());
    }
}

#[test]
fn an_event_is_later_than_every_event_before_it_whatever_the_log_says() {
    let mut state = State::new(LIMITS);
    let transfer = |id| Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    };
    let many = (1..=100).map(|id| transfer(id).encode()).collect();
    let first = commands_record(Link::default(), 1_000, &opened());
    let long = commands_record(
        first.link(),
        2_000,
        &[Command::CreateTransfers(batch(many))],
    );
    let one = Command::CreateTransfers(batch(vec![transfer(101).encode()]));
    let next = commands_record(long.link(), 2_001, &[one]);
    apply_all(&mut state, &[first, long, next]);
    let at = |id| {
        state
            .ledger()
            .transfer(id)
            .expect("it took place")
            .timestamp
    };
    assert_eq!((at(1), at(100), at(101)), (2_000, 2_099, 2_100));
    state.check();
}

/// A state that has something of everything in its ledger, and the link behind its log.
fn varied() -> (State, Link) {
    let mut state = State::new(LIMITS);
    let event = |id, flags, amount| Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount,
        flags,
        timeout: u32::from(flags == transfer_flags::PENDING),
        ledger: 1,
        code: 1,
        ..Transfer::default()
    };
    let events = [
        event(1, 0, 7),
        event(2, transfer_flags::PENDING, 5),
        Transfer {
            debit_account_id: 99,
            ..event(3, 0, 7)
        },
    ];
    let events = events.iter().map(Transfer::encode).collect();
    let first = commands_record(Link::default(), 1_000, &opened());
    let create = Command::CreateTransfers(batch(events));
    let second = commands_record(first.link(), 2_000, &[create]);
    let later = second.timestamp() + 2_000_000_000;
    let tick = Record::build(second.link(), Kind::Tick, Epoch(1), later, 1, b"");
    apply_all(&mut state, &[first, second, tick.clone()]);
    assert_eq!(
        (state.ledger().transfers(), state.ledger().open_holds()),
        (2, 0)
    );
    (state, tick.link())
}

#[test]
fn damaged_blocks_of_the_ledger_are_refused() {
    let (mut state, _) = varied();
    let taken = Taken::of(&mut state);
    let blocks = &taken.blocks;
    let ranges = blocks
        .iter()
        .filter(|block| block.range.section > 0)
        .count();
    assert_eq!(
        blocks.len() - ranges,
        4,
        "one of each sort but accounts and rows"
    );
    let sorts: Vec<u8> = taken.segments.iter().map(|one| one.sort).collect();
    assert_eq!(sorts, [7, 7], "rows just fill segments");
    let load = |blocks: &[Block]| {
        let blocks = blocks.to_vec();
        Taken {
            blocks,
            ..taken.clone()
        }
        .load()
    };
    let restored = taken.load().expect("an undamaged snapshot");
    restored.check();
    assert_eq!(restored.digest(), state.digest());
    for at in 0..taken.segments.len() {
        let mut missing = taken.clone();
        missing.segments.remove(at);
        assert!(missing.load().is_err(), "segment {at} is missing");
        let mut doubled = taken.clone();
        doubled.segments.push(taken.segments[at].clone());
        assert!(doubled.load().is_err(), "segment {at} comes twice");
        for byte in 0..taken.segments[at].bytes.len() {
            let mut flipped = taken.clone();
            let mut bytes = flipped.segments[at].bytes.to_vec();
            bytes[byte] ^= 1 << (byte * 3 % 8);
            flipped.segments[at].bytes = bytes.into();
            assert!(flipped.load().is_err(), "byte {byte} of segment {at}");
        }
    }
    for at in 0..blocks.len() {
        let mut missing = blocks.clone();
        missing.remove(at);
        assert!(load(&missing).is_err(), "block {at} is missing");
        let mut doubled = blocks.clone();
        doubled.push(blocks[at].clone());
        assert!(load(&doubled).is_err(), "block {at} comes twice");
        for len in 0..blocks[at].bytes.len() {
            let cut = super::super::load_block(&LIMITS, &blocks[at].bytes[..len]);
            assert!(cut.is_err(), "block {at} cut at {len}");
        }
        // Another bit of each byte: to put a state together takes its time.
        for byte in 0..blocks[at].bytes.len() {
            // Where an account's list begins follows from the transfers: no digest counts it.
            let is_link = blocks[at].bytes[1] == 3 && byte >= 16 && (byte - 16) % 148 >= 136;
            if is_link {
                continue;
            }
            let mut flipped = blocks.clone();
            flipped[at].bytes[byte] ^= 1 << (byte * 3 % 8);
            assert!(load(&flipped).is_err(), "byte {byte} of block {at}");
        }
    }
}

#[test]
fn a_snapshot_of_many_accounts_is_of_one_moment_and_takes_small_steps() {
    let mut state = State::new(LIMITS);
    let mut link = Link::default();
    let mut apply = |state: &mut State, command| {
        let record = commands_record(link, link.timestamp + 1_000_000, &[command]);
        link = record.link();
        state.apply(&record, |_, _| {});
    };
    for first in (1u128..8000).step_by(2000) {
        let accounts = (first..first + 2000).map(|id| {
            let flags = if id % 16 == 0 {
                account_flags::HISTORY
            } else {
                0
            };
            Account {
                id,
                ledger: 1,
                code: 1,
                flags,
                ..Account::default()
            }
            .encode()
        });
        apply(
            &mut state,
            Command::CreateAccounts(batch(accounts.collect())),
        );
    }
    let mut random = 1u64;
    let mut transfers = |count: u64| {
        let events = (0..count).map(|_| {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let debit = u128::from(random >> 40) % 8000 + 1;
            let event = Transfer {
                id: u128::from(random),
                debit_account_id: debit,
                credit_account_id: debit % 8000 + 1,
                amount: 3,
                ledger: 1,
                code: 1,
                flags: if random % 64 < 8 {
                    transfer_flags::PENDING
                } else {
                    0
                },
                ..Transfer::default()
            };
            event.encode()
        });
        Command::CreateTransfers(batch(events.collect()))
    };
    apply(&mut state, transfers(8000));
    let (mut taken, mut steps) = (Taken::begin(&mut state), 0);
    while !state.snapshot_step(50_000, &mut taken.blocks) {
        steps += 1;
        apply(&mut state, transfers(100));
    }
    assert!(steps > 20, "{steps} steps");
    let is_small = |block: &Block| block.bytes.len() < 400 << 10;
    assert!(taken.blocks.iter().all(is_small));
    taken.blocks.reverse();
    let restored = taken.load().expect("intact and complete");
    assert_eq!(restored.digest(), taken.head.digest);
    restored.check();
    state.check();
}
