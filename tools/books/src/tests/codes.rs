//! Each status of both tables is reached by one row here.

use super::*;
use crate::TransferStatus as T;
use crate::{AccountStatus as A, TIMESTAMP_MAX};
use account_flags as af;
use transfer_flags as tf;

fn with<R: Copy>(record: R, change: impl Fn(&mut R)) -> R {
    let mut changed = record;
    change(&mut changed);
    changed
}

fn imported(id: u128, timestamp: u64) -> Account {
    with(account(id), |a| {
        (a.flags, a.timestamp) = (af::IMPORTED, timestamp)
    })
}

/// What the last event of a batch is told, in a world in which account 1 exists.
fn account_rows() -> Vec<(A, Vec<Account>)> {
    let new = account(20);
    let linked = with(account(21), |a| a.flags = af::LINKED);
    vec![
        (A::Created, vec![new]),
        (
            A::LinkedEventFailed,
            vec![
                linked,
                with(account(22), |a| (a.code, a.flags) = (0, 1)),
                new,
            ],
        ),
        (A::LinkedEventChainOpen, vec![linked]),
        (A::ImportedEventExpected, vec![imported(20, 1), account(21)]),
        (
            A::ImportedEventNotExpected,
            vec![account(21), imported(20, 1)],
        ),
        (A::TimestampMustBeZero, vec![with(new, |a| a.timestamp = 1)]),
        (
            A::ImportedEventTimestampOutOfRange,
            vec![imported(20, TIMESTAMP_MAX + 1)],
        ),
        (
            A::ImportedEventTimestampMustNotAdvance,
            vec![imported(20, TIMESTAMP_MAX)],
        ),
        (
            A::ReservedField,
            vec![with(new, |a| (a.reserved, a.flags) = (1, 64))],
        ),
        (
            A::ReservedFlag,
            vec![with(new, |a| (a.id, a.flags) = (0, 64))],
        ),
        (A::IdMustNotBeZero, vec![with(new, |a| a.id = 0)]),
        (A::IdMustNotBeIntMax, vec![with(new, |a| a.id = u128::MAX)]),
        (
            A::ExistsWithDifferentFlags,
            vec![with(account(1), |a| (a.flags, a.code) = (2, 0))],
        ),
        (
            A::ExistsWithDifferentUserData128,
            vec![with(account(1), |a| a.user_data_128 = 1)],
        ),
        (
            A::ExistsWithDifferentUserData64,
            vec![with(account(1), |a| a.user_data_64 = 1)],
        ),
        (
            A::ExistsWithDifferentUserData32,
            vec![with(account(1), |a| a.user_data_32 = 1)],
        ),
        (
            A::ExistsWithDifferentLedger,
            vec![with(account(1), |a| a.ledger = 2)],
        ),
        (
            A::ExistsWithDifferentCode,
            vec![with(account(1), |a| a.code = 1)],
        ),
        (A::Exists, vec![with(account(1), |a| a.debits_posted = 5)]),
        (
            A::FlagsAreMutuallyExclusive,
            vec![with(new, |a| a.flags = 0b110)],
        ),
        (
            A::DebitsPendingMustBeZero,
            vec![with(new, |a| (a.debits_pending, a.code) = (1, 0))],
        ),
        (
            A::DebitsPostedMustBeZero,
            vec![with(new, |a| a.debits_posted = 1)],
        ),
        (
            A::CreditsPendingMustBeZero,
            vec![with(new, |a| a.credits_pending = 1)],
        ),
        (
            A::CreditsPostedMustBeZero,
            vec![with(new, |a| a.credits_posted = 1)],
        ),
        (
            A::LedgerMustNotBeZero,
            vec![with(new, |a| (a.ledger, a.code) = (0, 0))],
        ),
        (A::CodeMustNotBeZero, vec![with(new, |a| a.code = 0)]),
        (
            A::ImportedEventTimestampMustNotRegress,
            vec![imported(20, 1)],
        ),
    ]
}

#[test]
fn every_status_of_an_account_is_reached() {
    let mut reached: Vec<A> = Vec::new();
    for (status, batch) in account_rows() {
        let outcomes = World::new().accounts(&batch);
        let last = outcomes.last().expect("no empty batch");
        assert_eq!(A::from_number(last.status), Some(status), "{batch:?}");
        reached.push(status);
    }
    assert_eq!(
        reached,
        A::ALL,
        "the rows above stand in the order of the table"
    );
}

fn import(id: u128, timestamp: u64) -> Transfer {
    with(transfer(id, 1), |t| {
        (t.flags, t.timestamp) = (tf::IMPORTED, timestamp)
    })
}

/// One batch for each row after some that must succeed; what the last event is told.
type Row = (T, Vec<Vec<Transfer>>);

fn rows_before_the_accounts() -> Vec<Row> {
    let new = transfer(20, 10);
    let known = transfer(10, 10);
    let linked = with(transfer(21, 1), |t| t.flags = tf::LINKED);
    let again = |change: fn(&mut Transfer)| vec![vec![known], vec![with(known, change)]];
    let wrong = |change: fn(&mut Transfer)| vec![vec![with(new, change)]];
    let burned = with(new, |t| t.debit_account_id = 99);
    vec![
        (T::Created, vec![vec![new]]),
        (
            T::LinkedEventFailed,
            vec![vec![
                linked,
                with(linked, |t| (t.id, t.code) = (22, 0)),
                new,
            ]],
        ),
        (T::LinkedEventChainOpen, vec![vec![linked]]),
        (
            T::ImportedEventExpected,
            vec![vec![import(20, 1), transfer(21, 1)]],
        ),
        (
            T::ImportedEventNotExpected,
            vec![vec![transfer(21, 1), import(20, 1)]],
        ),
        (T::TimestampMustBeZero, wrong(|t| t.timestamp = 1)),
        (
            T::ImportedEventTimestampOutOfRange,
            vec![vec![import(20, 0)]],
        ),
        (
            T::ImportedEventTimestampMustNotAdvance,
            vec![vec![import(20, TIMESTAMP_MAX)]],
        ),
        (T::ReservedFlag, wrong(|t| (t.flags, t.id) = (1 << 9, 0))),
        (T::IdMustNotBeZero, wrong(|t| t.id = 0)),
        (T::IdMustNotBeIntMax, wrong(|t| t.id = u128::MAX)),
        (
            T::ExistsWithDifferentFlags,
            again(|t| (t.flags, t.pending_id) = (0b1100, 1)),
        ),
        (
            T::ExistsWithDifferentPendingId,
            again(|t| (t.pending_id, t.timeout) = (1, 1)),
        ),
        (
            T::ExistsWithDifferentTimeout,
            again(|t| (t.timeout, t.debit_account_id) = (1, 3)),
        ),
        (
            T::ExistsWithDifferentDebitAccountId,
            again(|t| t.debit_account_id = 3),
        ),
        (
            T::ExistsWithDifferentCreditAccountId,
            again(|t| t.credit_account_id = 3),
        ),
        (
            T::ExistsWithDifferentAmount,
            again(|t| (t.amount, t.user_data_128) = (9, 1)),
        ),
        (
            T::ExistsWithDifferentUserData128,
            again(|t| t.user_data_128 = 1),
        ),
        (
            T::ExistsWithDifferentUserData64,
            again(|t| t.user_data_64 = 1),
        ),
        (
            T::ExistsWithDifferentUserData32,
            again(|t| t.user_data_32 = 1),
        ),
        (
            T::ExistsWithDifferentLedger,
            again(|t| (t.ledger, t.code) = (2, 9)),
        ),
        (T::ExistsWithDifferentCode, again(|t| t.code = 9)),
        (T::Exists, again(|_| ())),
        (
            T::IdAlreadyFailed,
            vec![vec![burned, with(new, |t| t.flags = 0b1100)]],
        ),
        (
            T::FlagsAreMutuallyExclusive,
            wrong(|t| (t.flags, t.debit_account_id) = (0b1100, 0)),
        ),
        (
            T::DebitAccountIdMustNotBeZero,
            wrong(|t| t.debit_account_id = 0),
        ),
        (
            T::DebitAccountIdMustNotBeIntMax,
            wrong(|t| t.debit_account_id = u128::MAX),
        ),
        (
            T::CreditAccountIdMustNotBeZero,
            wrong(|t| t.credit_account_id = 0),
        ),
        (
            T::CreditAccountIdMustNotBeIntMax,
            wrong(|t| t.credit_account_id = u128::MAX),
        ),
        (
            T::AccountsMustBeDifferent,
            wrong(|t| (t.credit_account_id, t.pending_id) = (1, 1)),
        ),
        (
            T::PendingIdMustBeZero,
            wrong(|t| (t.pending_id, t.timeout) = (1, 1)),
        ),
        (T::PendingIdMustNotBeZero, vec![vec![post(20, 0, 1)]]),
        (T::PendingIdMustNotBeIntMax, vec![vec![void(20, u128::MAX)]]),
        (
            T::PendingIdMustBeDifferent,
            vec![vec![with(void(20, 20), |t| t.timeout = 1)]],
        ),
        (
            T::TimeoutReservedForPendingTransfer,
            wrong(|t| (t.timeout, t.flags) = (1, 1 << 6)),
        ),
        (
            T::ClosingTransferMustBePending,
            wrong(|t| (t.ledger, t.flags) = (0, 1 << 7)),
        ),
        (
            T::LedgerMustNotBeZero,
            wrong(|t| (t.ledger, t.code) = (0, 0)),
        ),
        (
            T::CodeMustNotBeZero,
            wrong(|t| (t.code, t.debit_account_id) = (0, 99)),
        ),
    ]
}

fn rows_of_the_accounts() -> Vec<Row> {
    let new = transfer(20, 10);
    let hold = pending(10, 10);
    let wrong = |change: fn(&mut Transfer)| vec![vec![with(new, change)]];
    let resolve = |t: Transfer| vec![vec![hold], vec![t]];
    let after = |first: Transfer, t: Transfer| vec![vec![hold], vec![first], vec![t]];
    let dues = with(hold, |t| t.timeout = 1);
    vec![
        (
            T::DebitAccountNotFound,
            wrong(|t| (t.debit_account_id, t.credit_account_id) = (98, 99)),
        ),
        (
            T::CreditAccountNotFound,
            wrong(|t| t.credit_account_id = 99),
        ),
        (
            T::AccountsMustHaveTheSameLedger,
            wrong(|t| (t.credit_account_id, t.ledger) = (5, 9)),
        ),
        (
            T::TransferMustHaveTheSameLedgerAsAccounts,
            wrong(|t| t.ledger = 9),
        ),
        (T::PendingTransferNotFound, vec![vec![void(20, 99)]]),
        (
            T::PendingTransferNotPending,
            vec![vec![new], vec![with(void(21, 20), |t| t.code = 99)]],
        ),
        (
            T::PendingTransferHasDifferentDebitAccountId,
            resolve(with(void(20, 10), |t| {
                (t.debit_account_id, t.credit_account_id) = (3, 3)
            })),
        ),
        (
            T::PendingTransferHasDifferentCreditAccountId,
            resolve(with(void(20, 10), |t| {
                (t.credit_account_id, t.ledger) = (3, 2)
            })),
        ),
        (
            T::PendingTransferHasDifferentLedger,
            resolve(with(void(20, 10), |t| t.ledger = 2)),
        ),
        (
            T::PendingTransferHasDifferentCode,
            resolve(with(post(20, 10, 11), |t| t.code = 9)),
        ),
        (T::ExceedsPendingTransferAmount, resolve(post(20, 10, 11))),
        (
            T::PendingTransferHasDifferentAmount,
            resolve(with(void(20, 10), |t| t.amount = 9)),
        ),
        (
            T::PendingTransferAlreadyPosted,
            after(post(20, 10, 10), void(21, 10)),
        ),
        (
            T::PendingTransferAlreadyVoided,
            after(void(20, 10), post(21, 10, 10)),
        ),
        (
            T::PendingTransferExpired,
            vec![vec![dues], vec![void(20, 10)]],
        ),
    ]
}

fn rows_of_the_balances() -> Vec<Row> {
    let most = u128::MAX;
    let full = [
        with(transfer(10, most), |t| t.credit_account_id = 7),
        with(transfer(11, most), |t| {
            (t.debit_account_id, t.credit_account_id) = (7, 2)
        }),
    ];
    let held = full.map(|t| with(t, |t| t.flags = tf::PENDING));
    let after = |first: Transfer, t: Transfer| vec![vec![first], vec![t]];
    vec![
        (
            T::ImportedEventTimestampMustNotRegress,
            vec![vec![import(20, START + SECOND)]],
        ),
        (
            T::ImportedEventTimestampMustPostdateDebitAccount,
            vec![vec![with(import(20, 1), |t| t.timeout = 0)]],
        ),
        (
            T::ImportedEventTimestampMustPostdateCreditAccount,
            vec![vec![with(import(20, START + 50), |t| {
                (t.debit_account_id, t.credit_account_id) = (8, 1)
            })]],
        ),
        (
            T::ImportedEventTimeoutMustBeZero,
            vec![vec![with(import(20, START + SECOND + 9), |t| {
                (t.timeout, t.credit_account_id, t.flags) = (1, 6, tf::IMPORTED | tf::PENDING);
            })]],
        ),
        (
            T::DebitAccountAlreadyClosed,
            vec![vec![with(transfer(20, most), |t| t.debit_account_id = 6)]],
        ),
        (
            T::CreditAccountAlreadyClosed,
            vec![vec![with(transfer(20, most), |t| t.credit_account_id = 6)]],
        ),
        (T::OverflowsDebitsPending, after(held[0], pending(20, 1))),
        (T::OverflowsCreditsPending, after(held[1], pending(20, 1))),
        (T::OverflowsDebitsPosted, after(full[0], pending(20, 1))),
        (T::OverflowsCreditsPosted, after(full[1], pending(20, 1))),
        (T::OverflowsDebits, after(held[0], transfer(20, 1))),
        (T::OverflowsCredits, after(held[1], transfer(20, 1))),
        (
            T::OverflowsTimeout,
            vec![vec![with(pending(20, 1), |t| t.timeout = u32::MAX)]],
        ),
        (
            T::ExceedsCredits,
            vec![vec![with(transfer(20, 1), |t| {
                (t.debit_account_id, t.credit_account_id) = (3, 4)
            })]],
        ),
        (
            T::ExceedsDebits,
            vec![vec![with(transfer(20, 1), |t| t.credit_account_id = 4)]],
        ),
    ]
}

#[test]
fn every_status_of_a_transfer_is_reached() {
    let rows = [
        rows_before_the_accounts(),
        rows_of_the_accounts(),
        rows_of_the_balances(),
    ];
    let mut reached: Vec<T> = Vec::new();
    for (status, batches) in rows.concat() {
        let mut world = World::new();
        // Account 8 is the oldest, which an import needs.
        let mut books = Books::new();
        books.create_accounts(START, &[imported(8, 40)]);
        let seven: Vec<Account> = (1..=7).map(|id| world.account(id)).collect();
        let seven: Vec<Account> = seven
            .iter()
            .map(|a| with(*a, |a| a.timestamp = 0))
            .collect();
        books.create_accounts(START + SECOND, &seven);
        world.books = books;
        if status == T::OverflowsTimeout {
            world.now = TIMESTAMP_MAX - 2 * SECOND;
        }
        let (last, before) = batches.split_last().expect("no empty row");
        for batch in before {
            assert!(
                world.told(batch).iter().all(|told| *told == "created"),
                "{status:?}"
            );
        }
        let told = world.told(last);
        assert_eq!(told.last(), Some(&status.name()), "{batches:?}");
        reached.push(status);
    }
    assert_eq!(
        reached,
        T::ALL,
        "the rows above stand in the order of the table"
    );
}

#[test]
fn names_and_numbers_have_no_gaps() {
    let mut numbers: Vec<u32> = A::ALL.iter().map(|status| status.number()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=26).chain([u32::MAX]).collect::<Vec<u32>>());
    let mut numbers: Vec<u32> = T::ALL.iter().map(|status| status.number()).collect();
    numbers.sort_unstable();
    // 18 was the refusal of an amount of 0, which is allowed now.
    let all = (1..=68).filter(|number| *number != 18);
    assert_eq!(numbers, all.chain([u32::MAX]).collect::<Vec<u32>>());
    assert_eq!(
        T::ALL.iter().filter(|status| status.is_transient()).count(),
        7
    );
    assert_eq!(
        T::ExistsWithDifferentUserData128.name(),
        "exists_with_different_user_data_128"
    );
}
