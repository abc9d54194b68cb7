//! What holds after any batches: the books balance, however nasty the events.

use super::SECOND;
use crate::{Account, AccountStatus, Books, Draw, Hold, Outcome, Transfer, TransferStatus};
use crate::{account_flags as af, transfer_flags as tf};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// splitmix64: the tests' own, for the generator takes any source.
fn dice(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |bound| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

struct Run {
    books: Books,
    statuses: BTreeSet<(bool, u32)>,
}

fn run(seed: u64, batches: usize, start: u64, mut each: impl FnMut(&Books)) -> Run {
    let mut random = dice(seed);
    let mut draw = Draw::new();
    let mut run = Run {
        books: Books::new(),
        statuses: BTreeSet::new(),
    };
    let mut now = start;
    for index in 0..batches {
        now += [1_000, SECOND / 3, 2 * SECOND][random(3) as usize];
        let is_accounts = index == 0 || random(6) == 0;
        let outcomes: Vec<Outcome> = if is_accounts {
            let events: Vec<Account> = draw.accounts(&mut random, now);
            run.books.create_accounts(now, &events)
        } else {
            let events: Vec<Transfer> = draw.transfers(&mut random, now);
            run.books.create_transfers(now, &events)
        };
        run.statuses
            .extend(outcomes.iter().map(|outcome| (is_accounts, outcome.status)));
        if random(3) == 0 {
            now += SECOND;
            run.books.pulse(now);
        }
        each(&run.books);
    }
    run
}

/// Balances added up anew from the transfers alone.
fn recount(books: &Books) -> BTreeMap<u128, [u128; 4]> {
    let mut sums: BTreeMap<u128, [u128; 4]> = BTreeMap::new();
    for t in books.transfers() {
        let at = match (t.has(tf::PENDING), t.has(tf::VOID_PENDING_TRANSFER)) {
            (true, _) if books.hold(t.id) == Some(Hold::Pending) => 0,
            (false, false) => 1,
            _ => continue,
        };
        sums.entry(t.debit_account_id).or_default()[at] += t.amount;
        sums.entry(t.credit_account_id).or_default()[at + 2] += t.amount;
    }
    sums
}

fn check(books: &Books) {
    for (ledger, totals) in books.totals() {
        assert_eq!(
            totals.debits_pending, totals.credits_pending,
            "ledger {ledger}"
        );
        assert_eq!(
            totals.debits_posted, totals.credits_posted,
            "ledger {ledger}"
        );
    }
    let sums = recount(books);
    for a in books.accounts() {
        let balances = [
            a.debits_pending,
            a.debits_posted,
            a.credits_pending,
            a.credits_posted,
        ];
        assert_eq!(
            balances,
            sums.get(&a.id).copied().unwrap_or_default(),
            "account {}",
            a.id
        );
        if a.has(af::DEBITS_MUST_NOT_EXCEED_CREDITS) {
            assert!(
                a.debits_pending + a.debits_posted <= a.credits_posted,
                "{a:?}"
            );
        }
        if a.has(af::CREDITS_MUST_NOT_EXCEED_DEBITS) {
            assert!(
                a.credits_pending + a.credits_posted <= a.debits_posted,
                "{a:?}"
            );
        }
    }
    let times = books.accounts().map(|a| a.timestamp);
    let times = times.chain(books.transfers().map(|t| t.timestamp));
    let mut seen = BTreeSet::new();
    for time in times {
        assert!(seen.insert(time), "two objects at {time}");
    }
    assert!(
        books
            .burned()
            .all(|id| books.lookup_transfers(&[id]).is_empty())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_books_balance_after_every_batch(seed: u64, batches in 1_usize..60) {
        run(seed, batches, 1_000 * SECOND, check);
    }

    /// What was created is told `exists` when it is sent again, whatever came between.
    #[test]
    fn a_retry_of_what_is_stored_exists(seed: u64, batches in 1_usize..60) {
        let run = run(seed, batches, 1_000 * SECOND, |_| ());
        let mut books = run.books.clone();
        let is_loose = |t: &&Transfer| !t.has(tf::LINKED | tf::IMPORTED);
        let stored: Vec<Transfer> = books.transfers().filter(is_loose).copied().collect();
        let sent: Vec<Transfer> =
            stored.iter().map(|t| Transfer { timestamp: 0, ..*t }).collect();
        let outcomes = books.create_transfers(5_000 * SECOND, &sent);
        for (t, outcome) in stored.iter().zip(outcomes) {
            prop_assert_eq!(outcome.status, TransferStatus::Exists.number(), "{:?}", t);
            prop_assert_eq!(outcome.timestamp, t.timestamp);
        }
        prop_assert!(books == run.books);
    }
}

/// The generator is worth its name only if every row of both tables is reached by it.
#[test]
fn the_generator_reaches_every_status() {
    let mut statuses = BTreeSet::new();
    for seed in 0..300 {
        // Towards the end of time, where timeouts overflow.
        let start = if seed % 8 == 0 {
            crate::TIMESTAMP_MAX - 500 * SECOND
        } else {
            SECOND
        };
        statuses.extend(run(seed, 100, start, |_| ()).statuses);
    }
    let accounts = AccountStatus::ALL
        .iter()
        .map(|status| (true, status.number()));
    let transfers = TransferStatus::ALL
        .iter()
        .map(|status| (false, status.number()));
    let missing: Vec<(bool, u32)> = accounts
        .chain(transfers)
        .filter(|status| !statuses.contains(status))
        .collect();
    assert_eq!(missing, [], "(of an account, status)");
}

#[test]
fn filters_are_drawn_good_and_bad() {
    let mut random = dice(7);
    let mut draw = Draw::new();
    let mut books = Books::new();
    for now in (1..40_u64).map(|second| second * SECOND) {
        books.create_accounts(now, &draw.accounts(&mut random, now));
        books.create_transfers(now + 500, &draw.transfers(&mut random, now + 500));
    }
    let (mut bad, mut rows) = (0, 0);
    for _ in 0..200 {
        let filter = draw.account_filter(&mut random);
        let found = [
            books.account_transfers(&filter).map(|rows| rows.len()),
            books.account_balances(&filter).map(|rows| rows.len()),
            books
                .query_accounts(&draw.query_filter(&mut random))
                .map(|rows| rows.len()),
            books
                .query_transfers(&draw.query_filter(&mut random))
                .map(|rows| rows.len()),
            Ok(books.lookup_transfers(&draw.ids(&mut random)).len()),
        ];
        bad += found.iter().filter(|found| found.is_err()).count();
        rows += found.into_iter().flatten().sum::<usize>();
    }
    assert!(bad > 50 && rows > 500, "bad {bad}, rows {rows}");
}
