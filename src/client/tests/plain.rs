//! The ordinary day: discovery, pipelining, transactions, what is refused here.

use super::*;
use crate::client::{Error, Reply, SetOptions};
use std::collections::BTreeSet;

#[tokio::test]
async fn any_node_leads_to_the_primary() {
    let (a, b, _) = pair().await;
    let client = client(&[&b]).await;
    client.ping().await.unwrap();
    assert_eq!(client.incr("n").await, Ok(1));
    assert_eq!(a.heard().len(), 2);
    assert_eq!(b.heard().len(), 0);
}

#[tokio::test]
async fn calls_of_many_tasks_leave_in_few_writes_and_each_has_its_own_reply() {
    let (a, _, store) = pair().await;
    let client = client(&[&a]).await;
    let tasks: Vec<_> = (0..1_000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.incr("n").await })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        assert!(
            seen.insert(task.await.unwrap().unwrap()),
            "a reply came twice"
        );
    }
    assert_eq!((store.value("n"), seen.last()), (1_000, Some(&1_000)));
    assert!(a.reads() < 100, "{} reads for 1000 calls", a.reads());
}

#[tokio::test]
async fn writes_carry_tokens_and_reads_do_not() {
    let (a, _, _) = pair().await;
    let client = client(&[&a]).await;
    client.incr("n").await.unwrap();
    client.incr("n").await.unwrap();
    client.once("mine", &["INCR", "n"]).await.unwrap();
    assert_eq!(client.once("mine", &["INCR", "n"]).await, Ok(Reply::Int(3)));
    client.get("n").await.unwrap();
    let heard = a.heard();
    let firsts: Vec<&str> = heard.iter().map(|args| args[0].as_str()).collect();
    assert_eq!(firsts, ["ONCE", "ONCE", "ONCE", "ONCE", "GET"]);
    assert_ne!(heard[0][1], heard[1][1]);
    assert_eq!(heard[2][1], "mine");
}

#[tokio::test]
async fn what_would_touch_the_shared_connection_is_refused_here() {
    let (a, _, _) = pair().await;
    let client = client(&[&a]).await;
    for args in [&["multi"][..], &["SUBSCRIBE", "x"], &["Select", "0"], &[]] {
        let refused = client.command(args).await;
        assert!(
            matches!(refused, Err(Error::Invalid(_))),
            "{args:?}: {refused:?}"
        );
    }
    let huge = vec![0_u8; crate::limits::BULK_BYTES_MAX + 1];
    let refused = client.set("key", huge).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)) && refused.is_not_done());
    assert_eq!(a.heard().len(), 0);
}

#[tokio::test]
async fn a_refusal_is_told_with_its_first_word() {
    let (a, _, _) = pair().await;
    a.play(|_| Act::Say("-WRONGTYPE it is an account\r\n".to_owned()));
    let client = client(&[&a]).await;
    let refused = client.incr("n").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.is_not_done()),
        (Some("WRONGTYPE"), true)
    );
    assert_eq!(refused.to_string(), "WRONGTYPE it is an account");
}

#[tokio::test]
async fn a_transaction_is_one_frame_with_one_answer() {
    let (a, _, _) = pair().await;
    a.play(|args| {
        Act::Say(match args[0].as_str() {
            "MULTI" => "+OK\r\n".to_owned(),
            "ONCE" => "*2\r\n:70\r\n-ERR value is not an integer\r\n".to_owned(),
            _ => "+QUEUED\r\n".to_owned(),
        })
    });
    let client = client(&[&a]).await;
    let transfer = client.multi().incr_by("alice", -30).incr_by("bob", 30);
    let replies = transfer.exec().await.unwrap();
    assert_eq!(replies[0], Reply::Int(70));
    assert_eq!(replies[1].error().unwrap().code(), Some("ERR"));
    let heard = a.heard();
    assert_eq!(heard[1], ["INCRBY", "alice", "-30"]);
    assert_eq!(
        (heard[3][0].as_str(), heard[3][2].as_str()),
        ("ONCE", "EXEC")
    );
}

#[tokio::test]
async fn a_transaction_is_refused_for_the_reason_and_not_for_its_consequence() {
    let (a, _, _) = pair().await;
    a.play(|args| {
        Act::Say(match args[0].as_str() {
            "MULTI" => "+OK\r\n".to_owned(),
            "ONCE" => "-EXECABORT Transaction discarded\r\n".to_owned(),
            _ => "-ERR unknown command\r\n".to_owned(),
        })
    });
    let client = client(&[&a]).await;
    let refused = client.multi().command(&["NOSUCH"]).get("k").exec().await;
    assert_eq!(refused.unwrap_err().to_string(), "ERR unknown command");
}

#[tokio::test]
async fn keys_are_asked_for_as_the_server_wants_it() {
    let (a, _, _) = pair().await;
    a.play(|args| {
        let is_get = args[0] == "MGET";
        Act::Say(
            if is_get {
                "*2\r\n$1\r\na\r\n$-1\r\n"
            } else {
                "$-1\r\n"
            }
            .to_owned(),
        )
    });
    let client = client(&[&a]).await;
    let values = client.mget(&["x", "y"]).await.unwrap();
    assert_eq!((values[0].as_deref(), &values[1]), (Some(&b"a"[..]), &None));
    let lock = SetOptions::new()
        .if_absent()
        .expire_after(Duration::from_secs(3));
    assert_eq!(client.set_with("lock", "me", &lock).await, Ok(false));
    let set = SetOptions::new().if_equal("1").keep_expiry();
    assert_eq!(client.set_with("k", "2", &set).await, Ok(false));
    assert_eq!(client.swap("k", "3").await, Ok(None));
    let heard = a.heard();
    assert_eq!(heard[1][2..], ["SET", "lock", "me", "NX", "PX", "3000"]);
    assert_eq!(heard[2][2..], ["SET", "k", "2", "IFEQ", "1", "KEEPTTL"]);
    assert_eq!(heard[3][2..], ["SET", "k", "3", "GET"]);
    let unexpected = client.incr("k").await.unwrap_err();
    assert!(matches!(unexpected, Error::Unexpected(_)) && !unexpected.is_not_done());
}
