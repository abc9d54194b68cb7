//! What the tables of statuses do not say: balances, chains, time, idempotency, reading.

use super::*;
use crate::{AccountFilter, BadFilter, Hold, QueryFilter, TransferStatus, filter_flags};
use transfer_flags as tf;

#[test]
fn amounts_move_as_the_rules_say() {
    let mut world = World::new();
    world.told(&[
        transfer(10, 5),
        pending(11, 20),
        pending(12, 30),
        pending(13, 40),
    ]);
    assert_eq!(world.balances(1), [90, 5, 0, 0]);
    assert_eq!(world.balances(2), [0, 0, 90, 5]);
    world.told(&[post(21, 11, u128::MAX), post(22, 12, 1), void(23, 13)]);
    assert_eq!(world.balances(1), [0, 26, 0, 0]);
    assert_eq!(world.balances(2), [0, 0, 0, 26]);
    let stored = world.books.lookup_transfers(&[21, 99, 23]);
    assert_eq!(
        stored.iter().map(|t| t.amount).collect::<Vec<u128>>(),
        [20, 40]
    );
    assert_eq!(
        (stored[0].ledger, stored[0].code, stored[0].debit_account_id),
        (1, 3, 1)
    );
}

#[test]
fn a_chain_is_created_whole_or_not_at_all() {
    let mut world = World::new();
    let linked = |t: Transfer| Transfer {
        flags: t.flags | tf::LINKED,
        ..t
    };
    let broke = Transfer {
        debit_account_id: 99,
        ..transfer(12, 1)
    };
    let told = world.told(&[
        linked(transfer(10, 1)),
        linked(broke),
        transfer(11, 1),
        transfer(13, 1),
    ]);
    let failed = "linked_event_failed";
    assert_eq!(told, [failed, "debit_account_not_found", failed, "created"]);
    assert_eq!(world.balances(1), [0, 1, 0, 0]);
    // The one that failed is burned, although its chain was undone; its mates are not.
    let told = world.told(&[transfer(10, 1), transfer(11, 1), transfer(12, 1)]);
    assert_eq!(told, ["created", "created", "id_already_failed"]);
    // A known event breaks a chain, too, and an open end is told as such in any case.
    let told = world.told(&[
        linked(transfer(14, 1)),
        linked(transfer(10, 2)),
        linked(transfer(15, 1)),
    ]);
    assert_eq!(
        told,
        [
            failed,
            "exists_with_different_flags",
            "linked_event_chain_open"
        ]
    );
    assert!(world.books.lookup_transfers(&[14]).is_empty());
}

#[test]
fn outcomes_tell_the_objects_time_or_the_events() {
    let mut world = World::new();
    let first = world.transfers(&[
        transfer(10, 1),
        Transfer {
            code: 0,
            ..transfer(11, 1)
        },
        transfer(12, 1),
    ]);
    let times: Vec<u64> = first.iter().map(|outcome| outcome.timestamp).collect();
    assert_eq!(times, [world.now, world.now + 1, world.now + 2]);
    let again = world.transfers(&[transfer(12, 1)]);
    assert_eq!(
        (again[0].timestamp, again[0].status),
        (times[2], TransferStatus::Exists.number())
    );
    let bytes = again[0].to_bytes();
    assert_eq!(bytes[..8], times[2].to_le_bytes());
    assert_eq!(bytes[8..], [46, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_closed_account_is_still_the_account_that_was_created() {
    let mut world = World::new();
    let closing = Transfer {
        flags: tf::PENDING | tf::CLOSING_DEBIT,
        ..transfer(10, 0)
    };
    world.told(&[closing]);
    assert!(world.account(1).has(account_flags::CLOSED));
    let closed = Account {
        flags: account_flags::CLOSED,
        ..account(1)
    };
    let outcomes = world.accounts(&[account(1), closed, account(6)]);
    let statuses: Vec<u32> = outcomes.iter().map(|outcome| outcome.status).collect();
    assert_eq!(statuses, [21, 15, 15]);
    // A post is refused as every transfer is; the void reopens.
    let told = world.told(&[
        post(11, 10, 0),
        transfer(12, 1),
        void(13, 10),
        transfer(14, 1),
    ]);
    let refused = "debit_account_already_closed";
    assert_eq!(told, [refused, refused, "created", "created"]);
}

#[test]
fn a_due_hold_is_expired_before_it_is_swept_and_holds_its_amount_until_then() {
    let mut world = World::new();
    let outcome = world.transfers(&[Transfer {
        timeout: 1,
        ..pending(10, 5)
    }])[0];
    let due = outcome.timestamp + SECOND;
    assert_eq!(world.books.pulse(due - 1), 0);
    assert_eq!(world.told(&[void(11, 10)]), ["pending_transfer_expired"]);
    assert_eq!(
        (world.balances(1), world.books.hold(10)),
        ([5, 0, 0, 0], Some(Hold::Pending))
    );
    assert_eq!(world.books.pulse(due), 1);
    assert_eq!(
        (world.balances(1), world.books.hold(10)),
        ([0; 4], Some(Hold::Expired))
    );
    assert_eq!(world.told(&[void(11, 10)]), ["pending_transfer_expired"]);
}

#[test]
fn a_sweep_begins_with_the_earliest_due() {
    let mut world = World::new();
    let hold = |id: u128, timeout: u32| Transfer {
        timeout,
        ..pending(id, 1)
    };
    world.told(&[hold(10, 3), hold(11, 1), hold(12, 2), hold(13, 1)]);
    assert_eq!(world.books.pulse_up_to(world.now + 9 * SECOND, 3), 3);
    let left = [10, 11, 12, 13].map(|id| world.books.hold(id) == Some(Hold::Pending));
    assert_eq!(left, [true, false, false, false]);
}

#[test]
fn balancing_transfers_take_what_is_there() {
    let mut world = World::new();
    let back = |id: u128, amount: u128| Transfer {
        debit_account_id: 2,
        credit_account_id: 1,
        ..transfer(id, amount)
    };
    let most = |id: u128, flags: u16| Transfer {
        flags,
        ..back(id, u128::MAX)
    };
    world.told(&[transfer(10, 50)]);
    world.told(&[Transfer {
        flags: tf::PENDING,
        ..back(11, 8)
    }]);
    world.told(&[
        most(12, tf::BALANCING_DEBIT | tf::BALANCING_CREDIT),
        most(13, tf::BALANCING_DEBIT),
    ]);
    let stored = world.books.lookup_transfers(&[12, 13]);
    assert_eq!((stored[0].amount, stored[1].amount), (42, 0));
    // A retry may ask for more than was there, not for less than was moved.
    let again = |amount: u128| Transfer {
        amount,
        ..most(12, tf::BALANCING_DEBIT | tf::BALANCING_CREDIT)
    };
    let told = world.told(&[again(42), again(43), again(41)]);
    assert_eq!(told, ["exists", "exists", "exists_with_different_amount"]);
}

#[test]
fn a_retried_resolution_may_say_less_than_the_stored_one() {
    let mut world = World::new();
    world.told(&[
        Transfer {
            user_data_64: 9,
            ..pending(10, 5)
        },
        pending(11, 5),
        pending(12, 5),
    ]);
    world.told(&[post(20, 10, u128::MAX), post(21, 11, 4), void(22, 12)]);
    let told = world.told(&[
        post(20, 10, 5),
        post(20, 10, u128::MAX),
        Transfer {
            user_data_64: 9,
            debit_account_id: 1,
            code: 3,
            ..post(20, 10, 5)
        },
        Transfer {
            user_data_64: 8,
            ..post(20, 10, 5)
        },
        post(21, 11, u128::MAX),
        post(21, 11, 4),
        Transfer {
            amount: 5,
            ..void(22, 12)
        },
        Transfer {
            amount: u128::MAX,
            ..void(22, 12)
        },
    ]);
    let (same, amount) = ("exists", "exists_with_different_amount");
    let data = "exists_with_different_user_data_64";
    assert_eq!(told, [same, same, same, data, amount, same, same, amount]);
}

#[test]
fn a_refused_retry_succeeds_only_where_the_reason_could_not_pass() {
    let mut world = World::new();
    let limited = Transfer {
        debit_account_id: 3,
        ..transfer(10, 1)
    };
    let funded = Transfer {
        credit_account_id: 3,
        ..transfer(11, 100)
    };
    assert_eq!(
        world.told(&[limited, funded]),
        ["exceeds_credits", "created"]
    );
    assert_eq!(world.told(&[limited]), ["id_already_failed"]);
    let wrong = Transfer {
        ledger: 9,
        ..transfer(12, 1)
    };
    let told = world.told(&[wrong, transfer(12, 1)]);
    assert_eq!(
        told,
        ["transfer_must_have_the_same_ledger_as_accounts", "created"]
    );
}

#[test]
fn imports_stand_between_what_is_there_and_now() {
    let mut world = World::new();
    let import = |id: u128, timestamp: u64| Transfer {
        timestamp,
        flags: tf::IMPORTED,
        ..transfer(id, 1)
    };
    let begin = world.now + 100;
    let outcomes = world.transfers(&[import(10, begin), import(11, begin), import(12, begin + 1)]);
    let told: Vec<(u32, u64)> = outcomes.iter().map(|o| (o.status, o.timestamp)).collect();
    assert_eq!(
        told,
        [
            (u32::MAX, begin),
            (60, world.now + 1),
            (u32::MAX, begin + 1)
        ]
    );
}

#[test]
fn statements_are_filtered_ordered_and_cut() {
    let mut world = World::new();
    let to_seven = |id: u128, code: u16| Transfer {
        credit_account_id: 7,
        code,
        ..transfer(id, id)
    };
    world.told(&[to_seven(10, 1), to_seven(11, 2), transfer(12, 1)]);
    world.told(&[Transfer {
        debit_account_id: 7,
        credit_account_id: 2,
        ..transfer(13, 1)
    }]);
    let (debits, credits) = (filter_flags::DEBITS, filter_flags::CREDITS);
    let of = |flags: u32| AccountFilter {
        account_id: 7,
        limit: 10,
        flags,
        ..AccountFilter::default()
    };
    let ids = |filter: AccountFilter| -> Vec<u128> {
        let rows = world
            .books
            .account_transfers(&filter)
            .expect("a good filter");
        rows.iter().map(|t| t.id).collect()
    };
    assert_eq!(ids(of(debits | credits)), [10, 11, 13]);
    assert_eq!(ids(of(credits | filter_flags::REVERSED)), [11, 10]);
    assert_eq!(
        ids(AccountFilter {
            code: 2,
            ..of(credits)
        }),
        [11]
    );
    assert_eq!(
        ids(AccountFilter {
            limit: 2,
            ..of(debits | credits)
        }),
        [10, 11]
    );
    assert_eq!(
        ids(AccountFilter {
            timestamp_min: world.now,
            ..of(debits | credits)
        }),
        [13]
    );
    let rows = world
        .books
        .account_balances(&of(debits | credits))
        .expect("a good filter");
    let rows: Vec<(u128, u128)> = rows
        .iter()
        .map(|b| (b.debits_posted, b.credits_posted))
        .collect();
    assert_eq!(rows, [(0, 10), (0, 21), (1, 21)]);
    let without = AccountFilter {
        account_id: 1,
        ..of(debits)
    };
    assert_eq!(world.books.account_balances(&without), Ok(Vec::new()));
    assert_eq!(world.books.account_transfers(&of(0)), Err(BadFilter));

    let query = QueryFilter {
        limit: 9,
        ledger: 2,
        ..QueryFilter::default()
    };
    let found = world.books.query_accounts(&query).expect("a good filter");
    assert_eq!(found.iter().map(|a| a.id).collect::<Vec<u128>>(), [5]);
    let query = QueryFilter {
        limit: 9,
        code: 2,
        ..QueryFilter::default()
    };
    let found = world.books.query_transfers(&query).expect("a good filter");
    assert_eq!(found.iter().map(|t| t.id).collect::<Vec<u128>>(), [11]);
    let bad = QueryFilter {
        timestamp_min: 2,
        timestamp_max: 1,
        ..query
    };
    assert_eq!(world.books.query_transfers(&bad), Err(BadFilter));
}

#[test]
fn records_lie_in_their_bytes_where_the_model_says() {
    let mut bytes = [0_u8; 128];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = at as u8;
    }
    let account = Account::from_bytes(&bytes);
    assert_eq!(account.reserved, u32::from_le_bytes([108, 109, 110, 111]));
    assert_eq!(account.flags, u16::from_le_bytes([118, 119]));
    assert_eq!(account.to_bytes(), bytes);
    let transfer = Transfer::from_bytes(&bytes);
    assert_eq!(transfer.pending_id.to_le_bytes()[0], 64);
    assert_eq!(transfer.timeout.to_le_bytes()[0], 108);
    assert_eq!(transfer.timestamp.to_le_bytes()[0], 120);
    assert_eq!(transfer.to_bytes(), bytes);
    assert_eq!(AccountFilter::from_bytes(&bytes).to_bytes(), bytes);
}
