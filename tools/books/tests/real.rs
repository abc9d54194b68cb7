//! The ledger that is built to be fast, held against the one that is plainly right: the same nasty
//! batches to both, and every result, account, transfer, hold and answer compared.

use books::{Account, AccountFilter, Books, Draw, Hold, Transfer};
use standfast::state::ledger::{Filter, HoldStatus, Ledger};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;

fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |bound| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// One batch to both; the results must be the same bytes.
fn book(plain: &mut Books, real: &mut Ledger, now: u64, batch: &Batch, story: &str) {
    let (expected, results): (Vec<_>, Vec<_>) = match batch {
        Batch::Accounts(events) => {
            let bytes: Vec<u8> = events.iter().flat_map(Account::to_bytes).collect();
            let results = real.create_accounts(now, &bytes);
            let results = results.iter().map(|result| result.encode()).collect();
            (plain.create_accounts(now, events), results)
        }
        Batch::Transfers(events) => {
            let bytes: Vec<u8> = events.iter().flat_map(Transfer::to_bytes).collect();
            let results = real.create_transfers(now, &bytes);
            let results = results.iter().map(|result| result.encode()).collect();
            (plain.create_transfers(now, events), results)
        }
    };
    assert_eq!(expected.len(), results.len(), "{story}: one result each");
    for (at, (expected, found)) in expected.iter().zip(&results).enumerate() {
        assert_eq!(
            expected.to_bytes(),
            *found,
            "{story}: event {at} is {expected:?} in the plain books; {batch:?}"
        );
    }
}

#[derive(Debug)]
enum Batch {
    Accounts(Vec<Account>),
    Transfers(Vec<Transfer>),
}

fn compare(plain: &Books, real: &Ledger, story: &str) {
    let mut accounts = 0;
    for account in plain.accounts() {
        let found = real.account(account.id).map(|found| found.encode());
        assert_eq!(found, Some(account.to_bytes()), "{story}: {account:?}");
        accounts += 1;
    }
    assert_eq!(real.accounts(), accounts, "{story}: the number of accounts");
    let mut transfers = 0;
    for transfer in plain.transfers() {
        let found = real.transfer(transfer.id).map(|found| found.encode());
        assert_eq!(found, Some(transfer.to_bytes()), "{story}: {transfer:?}");
        let expected = plain.hold(transfer.id).map(|hold| match hold {
            Hold::Pending => HoldStatus::Open,
            Hold::Posted => HoldStatus::Posted,
            Hold::Voided => HoldStatus::Voided,
            Hold::Expired => HoldStatus::Expired,
        });
        let status = real.hold_status(transfer.id);
        assert_eq!(status, expected, "{story}: the hold {transfer:?}");
        transfers += 1;
    }
    assert_eq!(real.transfers(), transfers, "{story}: transfers");
    real.audit()
        .unwrap_or_else(|broken| panic!("{story}: {broken}"));
}

/// A statement of one account: the same transfers, in the same order, over all pages.
fn compare_statement(plain: &Books, real: &Ledger, asked: &AccountFilter, story: &str) {
    let Ok(expected) = plain.account_transfers(asked) else {
        return; // What is refused has names of its own on each side.
    };
    let filter = Filter {
        account_id: asked.account_id,
        user_data_128: asked.user_data_128,
        user_data_64: asked.user_data_64,
        user_data_32: asked.user_data_32,
        code: asked.code,
        timestamp_min: asked.timestamp_min,
        timestamp_max: asked.timestamp_max,
        limit: asked.limit.min(8189),
        flags: u8::try_from(asked.flags & 7).expect("three bits"),
        ..Filter::default()
    };
    let Ok(page) = real.account_transfers(&filter) else {
        assert!(expected.is_empty(), "{story}: {asked:?} is refused");
        return;
    };
    let found: Vec<_> = page.items.iter().map(|found| found.encode()).collect();
    let expected: Vec<_> = expected.iter().map(Transfer::to_bytes).collect();
    assert_eq!(found, expected, "{story}: {asked:?}");
}

fn run(seed: u64, batches: usize) {
    let mut random = dice(seed);
    let mut draw = Draw::new();
    // Segments of 1 to 64 transfers, or one that is never full.
    let shift = [0, 1, 3, 6, 16][usize::try_from(seed % 5).expect("below 5")];
    let (mut plain, mut real) = (Books::new(), Ledger::with_segments(seed, shift));
    let mut now = START;
    for index in 0..batches {
        let story = format!("seed {seed}, batch {index}");
        now += [1_000, SECOND / 3, 2 * SECOND][random(3) as usize];
        let batch = match index == 0 || random(6) == 0 {
            true => Batch::Accounts(draw.accounts(&mut random, now)),
            false => Batch::Transfers(draw.transfers(&mut random, now)),
        };
        book(&mut plain, &mut real, now, &batch, &story);
        if random(3) == 0 {
            now += SECOND;
            let expired = plain.pulse(now);
            assert_eq!(
                real.expire_due(now, usize::MAX),
                expired,
                "{story}: expired"
            );
        }
        let asked = draw.account_filter(&mut random);
        compare_statement(&plain, &real, &asked, &story);
        if index % 8 == 7 {
            compare(&plain, &real, &story);
        }
    }
    compare(&plain, &real, &format!("seed {seed}, the end"));
}

#[test]
fn both_ledgers_say_the_same_of_every_batch() {
    for seed in 0..60 {
        run(seed, 120);
    }
}

/// The long run: `cargo test --release -p books -- --ignored`.
#[test]
#[ignore = "minutes"]
fn both_ledgers_say_the_same_of_very_many_batches() {
    for seed in 1_000..3_000 {
        run(seed, 200);
    }
}
