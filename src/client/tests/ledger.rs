//! The ledger's calls: records and their bytes, batches, chains.

use super::node::{bulk, latin};
use super::*;
use crate::client::Error;
use crate::client::ledger::{
    Account, BATCH_MAX, CREATED, Outcome, TRANSFER_EXISTS, Transfer, account_flags, random_id,
};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Every record is created at the time of its place in the batch.
fn outcomes(records: &str) -> String {
    let count = records.chars().count() / 128;
    let outcome = |at: usize| {
        let time = char::from(u8::try_from(at % 200).unwrap());
        format!("{time}\0\0\0\0\0\0\0\u{ff}\u{ff}\u{ff}\u{ff}\0\0\0\0")
    };
    bulk(&(0..count).map(outcome).collect::<String>())
}

fn transfer(id: u128) -> Transfer {
    Transfer::new(id, 1, 2, 10).in_ledger(1, 1)
}

#[test]
fn records_lie_in_their_bytes_where_the_data_model_says() {
    let mut bytes = [0; 128];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(at).unwrap();
    }
    let account = Account::from_bytes(&bytes);
    assert_eq!(account.credits_posted.to_le_bytes()[0], 64);
    assert_eq!(
        (
            account.reserved.to_le_bytes()[0],
            account.ledger.to_le_bytes()[0]
        ),
        (108, 112)
    );
    assert_eq!(
        (
            account.flags.to_le_bytes()[0],
            account.timestamp.to_le_bytes()[0]
        ),
        (118, 120)
    );
    assert_eq!(account.to_bytes(), bytes);
    let transfer = Transfer::from_bytes(&bytes);
    assert_eq!(
        (
            transfer.amount.to_le_bytes()[0],
            transfer.pending_id.to_le_bytes()[0]
        ),
        (48, 64)
    );
    assert_eq!(
        (
            transfer.timeout.to_le_bytes()[0],
            transfer.code.to_le_bytes()[0]
        ),
        (108, 116)
    );
    assert_eq!(transfer.to_bytes(), bytes);
}

#[tokio::test]
async fn a_batch_travels_as_one_argument_and_is_answered_in_order() {
    let (a, _, _) = pair().await;
    a.play(|args| Act::Say(outcomes(args.last().unwrap())));
    let client = client(&[&a]).await;
    let accounts = [Account::new(1, 1, 1), Account::new(2, 1, 1)];
    let created = client.create_accounts(&accounts).await.unwrap();
    assert_eq!(
        created[1],
        Outcome {
            timestamp: 1,
            status: CREATED
        }
    );
    let created = client.create_transfers(&[transfer(7)]).await.unwrap();
    assert!(created[0].is_created() && created[0].is_transfer_there());
    assert!(
        Outcome {
            timestamp: 1,
            status: TRANSFER_EXISTS
        }
        .is_transfer_there()
    );
    let heard = a.heard();
    assert_eq!(
        (heard[0][0].as_str(), heard[0].len()),
        ("LEDGER.CREATE_ACCOUNTS", 2)
    );
    assert_eq!(latin(&heard[1][1]), transfer(7).to_bytes());
    let too_many = vec![transfer(1); BATCH_MAX + 1];
    let refused = client.create_transfers(&too_many).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn lookups_answer_the_records_that_are_there() {
    let (a, _, _) = pair().await;
    let text = |bytes: [u8; 128]| bytes.map(char::from).iter().collect::<String>();
    let account = Account::new(5, 1, 1).with_flags(account_flags::HISTORY);
    a.play(move |args| {
        Act::Say(match args[0].as_str() {
            "LEDGER.LOOKUP_ACCOUNTS" => bulk(&text(account.to_bytes())),
            _ => bulk("neither nothing nor a record"),
        })
    });
    let client = client(&[&a]).await;
    assert_eq!(client.lookup_accounts(&[4, 5]).await, Ok(vec![account]));
    assert_eq!(latin(&a.heard()[0][1])[16], 5);
    let unexpected = client.lookup_transfers(&[1]).await;
    assert!(
        matches!(unexpected, Err(Error::Unexpected(_))),
        "{unexpected:?}"
    );
}

#[tokio::test]
async fn a_chain_carries_a_token_and_loose_transfers_none() {
    let (a, _, _) = pair().await;
    a.play(|args| Act::Say(outcomes(args.last().unwrap())));
    let client = client(&[&a]).await;
    client
        .create_transfers(&[transfer(1).linked(), transfer(2)])
        .await
        .unwrap();
    client
        .create_transfers(&[transfer(3), transfer(4).pending(30)])
        .await
        .unwrap();
    let heard = a.heard();
    assert_eq!(
        (heard[0][0].as_str(), heard[0][2].as_str()),
        ("ONCE", "LEDGER.CREATE_TRANSFERS")
    );
    assert_eq!(heard[1][0], "LEDGER.CREATE_TRANSFERS");
}

#[tokio::test]
async fn single_transfers_leave_at_once_and_are_gathered_while_a_batch_is_under_way() {
    let (a, _, _) = pair().await;
    let told = Arc::new(Notify::new());
    let arrived = Arc::new(Notify::new());
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (script, arrival, seen) = (told.clone(), arrived.clone(), sizes.clone());
    a.play(move |args| {
        let mut seen = seen.lock().unwrap();
        seen.push(args[1].chars().count() / 128);
        arrival.notify_one();
        match seen.len() {
            1 => Act::SayAfter(script.clone(), outcomes(&args[1])),
            _ => Act::Say(outcomes(&args[1])),
        }
    });
    let client = client(&[&a]).await;
    let create = |id: u128| {
        let client = client.clone();
        tokio::spawn(async move { client.create_transfer(transfer(id)).await })
    };
    let first = create(1);
    arrived.notified().await;
    let others: Vec<_> = (2..=101).map(create).collect();
    // They run until they wait for their outcomes.
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*sizes.lock().unwrap(), [1]);
    told.notify_one();
    assert_eq!(first.await.unwrap().unwrap().timestamp, 0);
    for (place, other) in others.into_iter().enumerate() {
        let outcome = other.await.unwrap().unwrap();
        assert_eq!(
            outcome.timestamp, place as u64,
            "each has the outcome of its own"
        );
    }
    assert_eq!(*sizes.lock().unwrap(), [1, 100]);
}

#[tokio::test]
async fn single_transfers_survive_a_lost_connection() {
    let (a, b, _) = pair().await;
    let (old, new) = (a.clone(), b.clone());
    a.play(move |_| {
        Node::promote(&new, &[&old], 2);
        Act::HangUp("$16\r\n")
    });
    b.play(|args| Act::Say(outcomes(&args[1])));
    let client = client(&[&a]).await;
    let outcome = client.create_transfer(transfer(random_id())).await.unwrap();
    assert!(outcome.is_created());
    assert_eq!(a.heard(), b.heard());
}

#[tokio::test]
async fn a_full_lookup_comes_in_many_pieces() {
    let (a, _, _) = pair().await;
    let account = |id: usize| Account::new(id as u128, 1, 1);
    a.play(move |args| {
        let count = args[1].chars().count() / 16;
        let records = (1..=count).flat_map(|id| account(id).to_bytes());
        Act::Say(bulk(&records.map(char::from).collect::<String>()))
    });
    let client = client(&[&a]).await;
    let ids: Vec<u128> = (1..=BATCH_MAX as u128).collect();
    let accounts = client.lookup_accounts(&ids).await.unwrap();
    assert_eq!(accounts.len(), BATCH_MAX);
    assert_eq!(accounts.last(), Some(&account(BATCH_MAX)));
}
