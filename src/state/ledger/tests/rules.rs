//! Every result code in its precedence, and each rule of what a transfer does.

use super::*;
use AccountStatus as A;
use TransferStatus as T;
use transfer_flags as flag;

/// What an event is refused for, and how to mend that.
type Step<E, S> = (S, fn(&mut E));

/// Mends one thing after another; before each step the event is refused for what is wrong first.
#[track_caller]
fn climb<E: Clone, S: PartialEq + std::fmt::Debug>(
    mut event: E,
    steps: &[Step<E, S>],
    mut refusal: impl FnMut(&E) -> Option<S>,
) -> E {
    for (expected, mend) in steps {
        assert_eq!(refusal(&event).as_ref(), Some(expected));
        mend(&mut event);
    }
    event
}

#[test]
fn an_account_is_refused_for_what_is_wrong_first() {
    let mut books = Books::new();
    books.open(1, 0);
    let wrong = Account {
        id: 0,
        debits_pending: 1,
        debits_posted: 1,
        credits_pending: 1,
        credits_posted: 1,
        reserved: 1,
        flags: 1 << 9
            | account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS
            | account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS,
        timestamp: 7,
        ..Account::default()
    };
    let steps: &[Step<Account, A>] = &[
        (A::TimestampMustBeZero, |event| event.timestamp = 0),
        (A::ReservedField, |event| event.reserved = 0),
        (A::ReservedFlag, |event| event.flags &= account_flags::ALL),
        (A::IdMustNotBeZero, |event| event.id = u128::MAX),
        (A::IdMustNotBeIntMax, |event| event.id = 1),
        (A::ExistsWithDifferentFlags, |event| event.id = 2),
        (A::FlagsAreMutuallyExclusive, |event| event.flags = 0),
        (A::DebitsPendingMustBeZero, |event| event.debits_pending = 0),
        (A::DebitsPostedMustBeZero, |event| event.debits_posted = 0),
        (A::CreditsPendingMustBeZero, |event| {
            event.credits_pending = 0
        }),
        (A::CreditsPostedMustBeZero, |event| event.credits_posted = 0),
        (A::LedgerMustNotBeZero, |event| event.ledger = 1),
        (A::CodeMustNotBeZero, |event| event.code = 1),
    ];
    let mended = climb(wrong, steps, |event| books.accounts(&[*event])[0].refusal());
    assert_eq!(books.accounts(&[mended])[0].outcome, Outcome::Created);
    let other = Account {
        flags: account_flags::HISTORY,
        user_data_128: 1,
        user_data_64: 1,
        user_data_32: 1,
        ledger: 2,
        code: 2,
        ..account(1)
    };
    let steps: &[Step<Account, A>] = &[
        (A::ExistsWithDifferentFlags, |event| event.flags = 0),
        (A::ExistsWithDifferentUserData128, |event| {
            event.user_data_128 = 0
        }),
        (A::ExistsWithDifferentUserData64, |event| {
            event.user_data_64 = 0
        }),
        (A::ExistsWithDifferentUserData32, |event| {
            event.user_data_32 = 0
        }),
        (A::ExistsWithDifferentLedger, |event| event.ledger = 1),
        (A::ExistsWithDifferentCode, |event| event.code = 10),
    ];
    let same = climb(other, steps, |event| books.accounts(&[*event])[0].refusal());
    let again = books.accounts(&[same])[0];
    assert_eq!(again.outcome, Outcome::Refused(A::Exists));
    assert_eq!(again.timestamp, START + 1_000_000, "when it was created");
}

#[test]
fn imported_accounts_keep_their_time_and_come_in_its_order() {
    let mut books = Books::new();
    let imported = |id, timestamp| Account {
        flags: account_flags::IMPORTED,
        timestamp,
        ..account(id)
    };
    let codes =
        |results: Vec<EventResult<A>>| results.iter().map(EventResult::refusal).collect::<Vec<_>>();
    let results = books.accounts(&[
        imported(1, 50),
        account(2),
        imported(3, 0),
        imported(3, 1 << 63),
        imported(3, START + 1_000_000),
        imported(3, 50),
        imported(3, 60),
        imported(1, 70),
    ]);
    assert_eq!(results[6].timestamp, 60);
    assert_eq!(
        codes(results),
        [
            None,
            Some(A::ImportedEventExpected),
            Some(A::ImportedEventTimestampOutOfRange),
            Some(A::ImportedEventTimestampOutOfRange),
            Some(A::ImportedEventTimestampMustNotAdvance),
            Some(A::ImportedEventTimestampMustNotRegress),
            None,
            None,
        ]
    );
    assert_eq!(
        codes(books.accounts(&[account(4), imported(5, 70)])),
        [None, Some(A::ImportedEventNotExpected)]
    );
    books.ledger.check();
}

#[test]
fn a_transfer_is_refused_for_what_is_wrong_first() {
    let mut books = Books::new();
    books.open(4, 0);
    let limited = |id, flags| Account {
        flags,
        ..account(id)
    };
    books.accounts(&[
        Account {
            ledger: 2,
            ..account(10)
        },
        limited(11, account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS),
        limited(12, account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS),
        limited(13, account_flags::CLOSED),
    ]);
    books.done(transfer(1, 1, 2, 5));
    let wrong = Transfer {
        pending_id: 9,
        timeout: 1,
        flags: 1 << 12 | flag::CLOSING_DEBIT,
        timestamp: 7,
        ..Transfer::default()
    };
    let steps: &[Step<Transfer, T>] = &[
        (T::TimestampMustBeZero, |event| event.timestamp = 0),
        (T::ReservedFlag, |event| event.flags &= flag::ALL),
        (T::IdMustNotBeZero, |event| event.id = u128::MAX),
        (T::IdMustNotBeIntMax, |event| event.id = 1),
        (T::ExistsWithDifferentFlags, |event| event.id = 2),
        (T::DebitAccountIdMustNotBeZero, |event| {
            event.debit_account_id = u128::MAX
        }),
        (T::DebitAccountIdMustNotBeIntMax, |event| {
            event.debit_account_id = 99
        }),
        (T::CreditAccountIdMustNotBeZero, |event| {
            event.credit_account_id = u128::MAX
        }),
        (T::CreditAccountIdMustNotBeIntMax, |event| {
            event.credit_account_id = 99
        }),
        (T::AccountsMustBeDifferent, |event| {
            event.credit_account_id = 10
        }),
        (T::PendingIdMustBeZero, |event| event.pending_id = 0),
        (T::TimeoutReservedForPendingTransfer, |event| {
            event.timeout = 0
        }),
        (T::ClosingTransferMustBePending, |event| event.flags = 0),
        (T::LedgerMustNotBeZero, |event| event.ledger = 3),
        (T::CodeMustNotBeZero, |event| event.code = 7),
        (T::DebitAccountNotFound, |event| {
            (event.id, event.debit_account_id) = (3, 11)
        }),
        (T::AccountsMustHaveTheSameLedger, |event| {
            event.credit_account_id = 98
        }),
        (T::CreditAccountNotFound, |event| {
            (event.id, event.credit_account_id) = (4, 13)
        }),
        (T::TransferMustHaveTheSameLedgerAsAccounts, |event| {
            event.ledger = 1
        }),
        (T::CreditAccountAlreadyClosed, |event| {
            (event.id, event.credit_account_id) = (2, 12);
        }),
        (T::IdAlreadyFailed, |event| {
            (event.id, event.amount) = (5, 1)
        }),
        (T::ExceedsCredits, |event| {
            (event.id, event.debit_account_id) = (6, 1);
        }),
        (T::ExceedsDebits, |event| {
            (event.id, event.debit_account_id, event.credit_account_id) = (7, 13, 2);
        }),
        (T::DebitAccountAlreadyClosed, |event| {
            (event.id, event.debit_account_id) = (8, 1);
        }),
    ];
    let mended = climb(wrong, steps, |event| books.status(*event));
    books.done(mended);
    assert_eq!(
        books.status(Transfer { id: 6, ..mended }),
        Some(T::IdAlreadyFailed)
    );
    books.ledger.check();
}

#[test]
fn balances_and_timeouts_never_leave_their_range() {
    const MAX: u128 = u128::MAX;
    let mut books = Books::new();
    books.open(6, 0);
    books.done(hold(1, 1, 2, MAX - 10));
    assert_eq!(
        books.status(hold(2, 1, 3, 11)),
        Some(T::OverflowsDebitsPending)
    );
    assert_eq!(
        books.status(hold(2, 3, 2, 11)),
        Some(T::OverflowsCreditsPending)
    );
    assert_eq!(
        books.status(transfer(2, 1, 3, 11)),
        Some(T::OverflowsDebits)
    );
    assert_eq!(
        books.status(transfer(2, 3, 2, 11)),
        Some(T::OverflowsCredits)
    );
    books.done(transfer(3, 4, 5, MAX - 10));
    assert_eq!(
        books.status(hold(4, 4, 6, 11)),
        Some(T::OverflowsDebitsPosted)
    );
    assert_eq!(
        books.status(transfer(4, 6, 5, 11)),
        Some(T::OverflowsCreditsPosted)
    );
    books.now = (1 << 63) - 100_000_000_000;
    let late = Transfer {
        timeout: 101,
        ..hold(4, 6, 3, 1)
    };
    assert_eq!(books.status(late), Some(T::OverflowsTimeout));
    books.done(Transfer {
        timeout: 90,
        ..late
    });
    books.ledger.check();
}

#[test]
fn a_post_or_void_is_refused_for_what_is_wrong_first() {
    let mut books = Books::new();
    books.open(3, 0);
    books.done(transfer(1, 1, 2, 50));
    for id in 10..15 {
        books.done(Transfer {
            timeout: 2,
            ..hold(id, 1, 2, 50)
        });
    }
    books.done(post(20, 11, 50));
    books.done(void(21, 12));
    let wrong = Transfer {
        id: 30,
        debit_account_id: 3,
        credit_account_id: 3,
        amount: 51,
        ledger: 9,
        code: 9,
        timeout: 5,
        flags: flag::POST | flag::VOID | flag::PENDING,
        ..Transfer::default()
    };
    let steps: &[Step<Transfer, T>] = &[
        (T::FlagsAreMutuallyExclusive, |event| {
            event.flags = flag::VOID | flag::PENDING
        }),
        (T::FlagsAreMutuallyExclusive, |event| {
            event.flags = flag::POST | flag::BALANCING_DEBIT
        }),
        (T::FlagsAreMutuallyExclusive, |event| {
            event.flags = flag::POST | flag::CLOSING_CREDIT
        }),
        (T::FlagsAreMutuallyExclusive, |event| {
            event.flags = flag::VOID
        }),
        (T::PendingIdMustNotBeZero, |event| {
            event.pending_id = u128::MAX
        }),
        (T::PendingIdMustNotBeIntMax, |event| event.pending_id = 30),
        (T::PendingIdMustBeDifferent, |event| event.pending_id = 404),
        (T::TimeoutReservedForPendingTransfer, |event| {
            event.timeout = 0
        }),
        (T::PendingTransferNotFound, |event| {
            (event.id, event.pending_id) = (31, 1)
        }),
        (T::PendingTransferNotPending, |event| event.pending_id = 11),
        (T::PendingTransferHasDifferentDebitAccountId, |event| {
            event.debit_account_id = 1
        }),
        (T::PendingTransferHasDifferentCreditAccountId, |event| {
            event.credit_account_id = 0
        }),
        (T::PendingTransferHasDifferentLedger, |event| {
            event.ledger = 1
        }),
        (T::PendingTransferHasDifferentCode, |event| event.code = 0),
        (T::ExceedsPendingTransferAmount, |event| event.amount = 49),
        (T::PendingTransferHasDifferentAmount, |event| {
            event.amount = 50
        }),
        (T::PendingTransferAlreadyPosted, |event| {
            event.pending_id = 12
        }),
        (T::PendingTransferAlreadyVoided, |event| {
            event.pending_id = 13
        }),
    ];
    let mended = climb(wrong, steps, |event| books.status(*event));
    books.now += 2_000_000_000;
    assert_eq!(
        books.status(mended),
        Some(T::PendingTransferExpired),
        "due, not swept"
    );
    assert_eq!(books.ledger.expire_due(books.now, 1), 1);
    assert_eq!(
        books.balances(1),
        [100, 100, 0, 0],
        "two of three are still held"
    );
    assert_eq!(books.ledger.expire_due(books.now, 10), 2);
    assert_eq!(
        books.status(mended),
        Some(T::PendingTransferExpired),
        "swept"
    );
    assert_eq!(books.balances(1), [0, 100, 0, 0]);
    books.ledger.check();
}

#[test]
fn a_repeated_transfer_must_be_the_same() {
    let mut books = Books::new();
    books.open(4, 0);
    let first = Transfer {
        user_data_128: 5,
        timeout: 9,
        ..hold(1, 1, 2, 50)
    };
    books.done(first);
    let other = Transfer {
        id: 1,
        debit_account_id: 3,
        credit_account_id: 4,
        amount: 1,
        pending_id: 7,
        user_data_64: 1,
        user_data_32: 1,
        ledger: 2,
        code: 2,
        flags: 0,
        ..Transfer::default()
    };
    let steps: &[Step<Transfer, T>] = &[
        (T::ExistsWithDifferentFlags, |event| {
            event.flags = flag::PENDING
        }),
        (T::ExistsWithDifferentPendingId, |event| {
            event.pending_id = 0
        }),
        (T::ExistsWithDifferentTimeout, |event| event.timeout = 9),
        (T::ExistsWithDifferentDebitAccountId, |event| {
            event.debit_account_id = 1
        }),
        (T::ExistsWithDifferentCreditAccountId, |event| {
            event.credit_account_id = 2
        }),
        (T::ExistsWithDifferentAmount, |event| event.amount = 50),
        (T::ExistsWithDifferentUserData128, |event| {
            event.user_data_128 = 5
        }),
        (T::ExistsWithDifferentUserData64, |event| {
            event.user_data_64 = 0
        }),
        (T::ExistsWithDifferentUserData32, |event| {
            event.user_data_32 = 0
        }),
        (T::ExistsWithDifferentLedger, |event| event.ledger = 1),
        (T::ExistsWithDifferentCode, |event| event.code = 7),
    ];
    let same = climb(other, steps, |event| books.status(*event));
    assert_eq!(same, first);
    assert_eq!(books.status(same), Some(T::Exists));
}

#[test]
fn a_repeated_post_or_void_may_inherit_again() {
    let mut books = Books::new();
    books.open(2, 0);
    for id in 1..=4 {
        books.done(Transfer {
            user_data_64: 8,
            ..hold(id, 1, 2, 50)
        });
    }
    let whole = post(11, 1, u128::MAX);
    let part = post(12, 2, 20);
    let marked = Transfer {
        user_data_64: 9,
        ..void(13, 3)
    };
    for event in [whole, part, marked] {
        books.done(event);
        assert_eq!(books.status(event), Some(T::Exists));
    }
    let spelt_out = Transfer {
        debit_account_id: 1,
        credit_account_id: 2,
        ledger: 1,
        code: 7,
        user_data_64: 8,
        amount: 50,
        ..whole
    };
    assert_eq!(books.status(spelt_out), Some(T::Exists));
    for (event, expected) in [
        (
            Transfer {
                amount: 49,
                ..whole
            },
            T::ExistsWithDifferentAmount,
        ),
        (
            Transfer {
                amount: u128::MAX,
                ..part
            },
            T::ExistsWithDifferentAmount,
        ),
        (
            Transfer { amount: 50, ..part },
            T::ExistsWithDifferentAmount,
        ),
        (
            Transfer {
                amount: 1,
                ..marked
            },
            T::ExistsWithDifferentAmount,
        ),
        (
            Transfer {
                amount: 50,
                ..marked
            },
            T::Exists,
        ),
        (
            Transfer {
                user_data_64: 0,
                ..marked
            },
            T::ExistsWithDifferentUserData64,
        ),
        (
            Transfer {
                pending_id: 2,
                ..whole
            },
            T::ExistsWithDifferentPendingId,
        ),
        (Transfer { code: 8, ..whole }, T::ExistsWithDifferentCode),
        (
            Transfer { ledger: 8, ..whole },
            T::ExistsWithDifferentLedger,
        ),
        (
            Transfer {
                debit_account_id: 2,
                ..whole
            },
            T::ExistsWithDifferentDebitAccountId,
        ),
        (
            Transfer {
                credit_account_id: 1,
                ..whole
            },
            T::ExistsWithDifferentCreditAccountId,
        ),
    ] {
        assert_eq!(books.status(event), Some(expected), "{event:?}");
    }
    assert_eq!(books.balances(2), [0, 0, 50, 70]);
    books.ledger.check();
}

#[test]
fn imported_transfers_keep_their_time() {
    let mut books = Books::new();
    let imported = |id, timestamp| Account {
        flags: account_flags::IMPORTED,
        timestamp,
        ..account(id)
    };
    books.accounts(&[imported(1, 50), imported(2, 60)]);
    let event = |id, timestamp| Transfer {
        flags: flag::IMPORTED,
        timestamp,
        ..transfer(id, 1, 2, 5)
    };
    let back = Transfer {
        debit_account_id: 2,
        credit_account_id: 1,
        ..event(1, 55)
    };
    let results = books.transfers(&[
        event(1, 0),
        event(1, START * 2),
        transfer(1, 1, 2, 5),
        event(1, 60),
        event(1, 40),
        back,
        event(1, 55),
        Transfer {
            flags: flag::IMPORTED | flag::PENDING,
            timeout: 1,
            ..event(1, 70)
        },
        Transfer {
            flags: flag::IMPORTED | flag::PENDING,
            ..event(1, 70)
        },
        event(2, 70),
        Transfer {
            flags: flag::IMPORTED | flag::POST,
            timestamp: 80,
            ..post(2, 1, 4)
        },
    ]);
    let codes: Vec<_> = results.iter().map(EventResult::refusal).collect();
    assert_eq!(
        codes,
        [
            Some(T::ImportedEventTimestampOutOfRange),
            Some(T::ImportedEventTimestampMustNotAdvance),
            Some(T::ImportedEventExpected),
            Some(T::ImportedEventTimestampMustNotRegress),
            Some(T::ImportedEventTimestampMustPostdateDebitAccount),
            Some(T::ImportedEventTimestampMustPostdateDebitAccount),
            Some(T::ImportedEventTimestampMustPostdateCreditAccount),
            Some(T::ImportedEventTimeoutMustBeZero),
            None,
            Some(T::ImportedEventTimestampMustNotRegress),
            None,
        ]
    );
    let mixed = books.transfers(&[transfer(5, 1, 2, 5), event(6, 90)]);
    assert_eq!(mixed[1].refusal(), Some(T::ImportedEventNotExpected));
    assert_eq!(
        books.ledger.transfer(2).map(|post| post.timestamp),
        Some(80)
    );
    assert_eq!(books.balances(1), [0, 9, 0, 0]);
    books.ledger.check();
}

fn linked(event: Transfer) -> Transfer {
    Transfer {
        flags: event.flags | flag::LINKED,
        ..event
    }
}

#[test]
fn a_chain_happens_or_not_and_only_its_culprit_is_remembered() {
    let mut books = Books::new();
    books.open(2, 0);
    books.accounts(&[Account {
        flags: account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS | account_flags::HISTORY,
        ..account(3)
    }]);
    let before = (books.ledger.transfers(), books.ledger.history.rows().len());
    let results = books.transfers(&[
        transfer(1, 1, 2, 5),
        linked(transfer(2, 1, 3, 5)),
        linked(transfer(3, 3, 2, 5)),
        linked(transfer(4, 3, 2, 1)),
        transfer(5, 1, 2, 5),
        linked(transfer(6, 1, 3, 7)),
        transfer(7, 3, 2, 7),
        linked(transfer(8, 1, 2, 1)),
    ]);
    let codes: Vec<_> = results.iter().map(EventResult::refusal).collect();
    assert_eq!(
        codes,
        [
            None,
            Some(T::LinkedEventFailed),
            Some(T::LinkedEventFailed),
            Some(T::ExceedsCredits),
            Some(T::LinkedEventFailed),
            None,
            None,
            Some(T::LinkedEventChainOpen),
        ]
    );
    assert!(
        results.is_sorted_by_key(|result| result.timestamp),
        "each has its own time"
    );
    assert_eq!(books.ledger.transfers(), before.0 + 3);
    assert_eq!(books.ledger.history.rows().len(), before.1 + 2);
    assert_eq!(books.balances(3), [0, 7, 0, 7]);
    assert_eq!(books.status(transfer(4, 1, 2, 1)), Some(T::IdAlreadyFailed));
    books.done(transfer(2, 1, 3, 5));
    // An open end is told, also where the chain is broken already.
    let results = books.transfers(&[linked(transfer(3, 1, 1, 5)), linked(transfer(9, 1, 2, 1))]);
    assert_eq!(results[0].refusal(), Some(T::AccountsMustBeDifferent));
    assert_eq!(results[1].refusal(), Some(T::LinkedEventChainOpen));
    // What exists breaks a chain, as anything that is not created does.
    let results = books.transfers(&[linked(transfer(20, 1, 2, 1)), transfer(1, 1, 2, 5)]);
    assert_eq!(results[0].refusal(), Some(T::LinkedEventFailed));
    assert_eq!(results[1].outcome, Outcome::Refused(T::Exists));
    books.ledger.check();
}

#[test]
fn a_chain_of_accounts_happens_or_not() {
    let mut books = Books::new();
    let linked = |id| Account {
        flags: account_flags::LINKED | account_flags::HISTORY,
        ..account(id)
    };
    let digest = books.ledger.digest;
    let results = books.accounts(&[
        linked(1),
        linked(2),
        Account {
            code: 0,
            ..account(3)
        },
        linked(4),
    ]);
    let codes: Vec<_> = results.iter().map(EventResult::refusal).collect();
    assert_eq!(
        codes,
        [
            Some(A::LinkedEventFailed),
            Some(A::LinkedEventFailed),
            Some(A::CodeMustNotBeZero),
            Some(A::LinkedEventChainOpen),
        ]
    );
    assert_eq!((books.ledger.accounts(), books.ledger.digest), (0, digest));
    let results = books.accounts(&[linked(1), account(2)]);
    assert!(
        results
            .iter()
            .all(|result| result.outcome == Outcome::Created)
    );
    books.ledger.check();
}

#[test]
fn limits_count_what_is_held_out_but_not_what_is_held_in() {
    let mut books = Books::new();
    books.open(1, 0);
    let flags = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS;
    books.accounts(&[Account {
        flags,
        ..account(2)
    }]);
    let flags = account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS;
    books.accounts(&[Account {
        flags,
        ..account(3)
    }]);
    books.done(transfer(1, 1, 2, 100));
    books.done(hold(2, 1, 2, 50));
    books.done(hold(3, 2, 1, 60));
    assert_eq!(books.status(transfer(4, 2, 1, 41)), Some(T::ExceedsCredits));
    books.done(transfer(5, 2, 1, 40));
    // Not tested again on post: the hold has reserved it.
    books.done(post(6, 3, u128::MAX));
    assert_eq!(books.balances(2), [0, 100, 50, 100]);
    books.done(transfer(7, 3, 1, 10));
    assert_eq!(books.status(transfer(8, 1, 3, 11)), Some(T::ExceedsDebits));
    // Both sides balanced: the smaller counts.
    books.accounts(&[account(4)]);
    books.done(transfer(10, 4, 1, 100));
    books.done(Transfer {
        flags: flag::BALANCING_DEBIT | flag::BALANCING_CREDIT,
        ..transfer(9, 1, 3, u128::MAX)
    });
    assert_eq!(books.ledger.transfer(9).map(|it| it.amount), Some(10));
    books.ledger.check();
}

#[test]
fn holds_expire_by_time_then_age_and_never_early() {
    let mut books = Books::new();
    books.open(2, account_flags::HISTORY);
    for (id, timeout) in [(1, 3), (2, 2), (3, 2), (4, 0)] {
        books.done(Transfer {
            timeout,
            ..hold(id, 1, 2, 1 << id)
        });
    }
    let due = books.ledger.next_deadline().expect("three have a timeout");
    let second = books.ledger.transfer(2).expect("there").timestamp;
    assert_eq!(due, second + 2_000_000_000);
    assert_eq!(books.ledger.expire_due(due - 1, 10), 0);
    assert_eq!(books.ledger.expire_due(due, 10), 1);
    assert_eq!(books.balances(1), [26, 0, 0, 0]);
    assert_eq!(books.ledger.next_expiry(due), Some(due + 1_000_000));
    assert_eq!(books.ledger.expire_due(due + 10_000_000_000, 1), 1);
    assert_eq!(
        books.balances(1),
        [18, 0, 0, 0],
        "the older of those that are due"
    );
    assert_eq!(books.ledger.expire_due(due + 10_000_000_000, 5), 1);
    assert_eq!(books.ledger.next_deadline(), None);
    assert_eq!(books.ledger.open_holds_of(2).len(), 1);
    let rows = books.ledger.history.rows();
    let each = || (0..rows.len()).map(|at| rows.at(at));
    assert!(each().is_sorted_by_key(|row| row.happened));
    assert_eq!(each().filter(|row| row.kind == RowKind::Expiry).count(), 6);
    books.ledger.check();
}
