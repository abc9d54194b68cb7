//! The bad day: connections end, nodes are no longer primary, silent, or do not know.

use super::*;
use crate::client::{Error, Position, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

const BRIEF: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_write_whose_reply_is_cut_off_is_done_once() {
    let (a, b, store) = pair().await;
    let (old, new, shared) = (a.clone(), b.clone(), store.clone());
    a.play(move |args| {
        // Done and replicated; the reply is torn, and the other one takes over.
        shared.apply(args);
        Node::promote(&new, &[&old], 2);
        Act::HangUp(":")
    });
    let client = client(&[&a]).await;
    assert_eq!(client.incr("n").await, Ok(1));
    assert_eq!(client.incr("n").await, Ok(2));
    assert_eq!(store.value("n"), 2);
    assert_eq!(
        b.heard()[0],
        a.heard()[0],
        "the same command under the same token"
    );
}

#[tokio::test]
async fn writes_that_a_former_primary_refuses_go_to_the_new_one() {
    let (a, b, store) = pair().await;
    let (old, new, shared) = (a.clone(), b.clone(), store.clone());
    let calls = AtomicUsize::new(0);
    a.play(move |args| {
        if calls.fetch_add(1, Ordering::Relaxed) < 40 {
            return Act::Say(shared.apply(args));
        }
        Node::promote(&new, &[&old], 2);
        Act::Say(format!(
            "-READONLY no; the primary is at {}\r\n",
            new.address
        ))
    });
    let client = client(&[&a]).await;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.incr("n").await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.value("n"), 100);
    assert_eq!(b.heard().len(), 60);
}

#[tokio::test]
async fn a_former_primary_that_names_itself_is_left_for_the_new_one() {
    let (a, b, _) = pair().await;
    a.play(|_| Act::Say("-CLUSTERDOWN this primary does not hear a majority\r\n".to_owned()));
    let client = client(&[&a]).await;
    Node::promote(&b, &[], 2);
    assert_eq!(client.incr("n").await, Ok(1));
    assert_eq!(a.heard().len(), 1);
}

#[tokio::test]
async fn a_silent_primary_is_left_once_another_has_taken_over() {
    let (a, b, store) = pair().await;
    let (old, new) = (a.clone(), b.clone());
    a.play(move |_| {
        old.pause();
        Node::promote(&new, &[], 2);
        Act::FallSilent
    });
    // Long before a connection counts as dead by itself.
    let client = with_timeout(&[&a], Duration::from_secs(5)).await;
    assert_eq!(client.incr("n").await, Ok(1));
    assert_eq!(store.value("n"), 1);
}

#[tokio::test]
async fn a_slow_primary_is_not_left_while_it_is_the_primary() {
    let (a, b, _) = pair().await;
    let told = Arc::new(Notify::new());
    let script = told.clone();
    a.play(move |args| match args.last().map(String::as_str) {
        Some("slow") => Act::SayAfter(script.clone(), ":1\r\n".to_owned()),
        _ => Act::Say("+PONG\r\n".to_owned()),
    });
    let client = client(&[&a, &b]).await;
    let slow = client.with_timeout(PATIENCE);
    let slow = tokio::spawn(async move { slow.incr("slow").await });
    tokio::task::yield_now().await;
    // A call of its own gives up long after others were asked who is primary.
    let quick = client.with_timeout(BRIEF).incr("m").await;
    assert_eq!(quick, Err(Error::Unknown { position: None }));
    told.notify_one();
    assert_eq!(slow.await.unwrap(), Ok(1));
    client.ping().await.unwrap();
    assert_eq!(a.heard().len(), 3, "neither was sent again");
}

#[tokio::test]
async fn a_plain_command_is_never_sent_twice() {
    let (a, b, store) = pair().await;
    let (old, new, shared) = (a.clone(), b.clone(), store.clone());
    a.play(move |args| {
        shared.apply(args);
        Node::promote(&new, &[&old], 2);
        Act::HangUp("")
    });
    let client = client(&[&a]).await;
    let lost = client.command(&["INCR", "n"]).await.unwrap_err();
    assert_eq!(lost, Error::Unknown { position: None });
    assert!(!lost.is_not_done());
    assert_eq!(client.get("n").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(b.heard(), [["GET", "n"]]);
}

/// A node that orders a command, does not know its outcome, and tells it when it is asked.
fn knows_later(node: &Node, outcomes: &'static [&'static str]) {
    let asked = AtomicUsize::new(0);
    node.play(move |args| {
        let count = asked.fetch_add(1, Ordering::Relaxed);
        Act::Say(match args[0].as_str() {
            "OUTCOME" => outcomes[count - 1].to_owned(),
            _ if count == 0 => "-UNKNOWN 1 3 1042 was ordered\r\n".to_owned(),
            _ => ":9\r\n".to_owned(),
        })
    });
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_for_until_it_is_known() {
    let (a, _, _) = pair().await;
    let client = client(&[&a]).await;
    knows_later(
        &a,
        &["*1\r\n$7\r\npending\r\n", "*2\r\n$4\r\ndone\r\n:5\r\n"],
    );
    assert_eq!(client.command(&["INCR", "n"]).await, Ok(Reply::Int(5)));
    assert_eq!(a.heard()[2], ["OUTCOME", "1", "3", "1042"]);

    // It was cut away: it may be sent again, and is.
    knows_later(&a, &["*1\r\n$5\r\nnever\r\n"]);
    assert_eq!(client.command(&["INCR", "n"]).await, Ok(Reply::Int(9)));

    let position = Position {
        generation: 1,
        epoch: 3,
        lsn: 1042,
    };
    knows_later(&a, &["*1\r\n$4\r\ndone\r\n"]);
    let gone = client.command(&["INCR", "n"]).await;
    assert_eq!(gone, Err(Error::ReplyGone { position }));
    knows_later(
        &a,
        &["-ERR that LSN is older than what this node keeps outcomes of\r\n"],
    );
    let unknown = client.command(&["INCR", "n"]).await;
    assert_eq!(
        unknown,
        Err(Error::Unknown {
            position: Some(position)
        })
    );

    // Under a token the command itself is the question.
    knows_later(&a, &[]);
    assert_eq!(client.incr("n").await, Ok(9));
    let heard = a.heard();
    assert_eq!(heard[heard.len() - 1], heard[heard.len() - 2]);
}

#[tokio::test]
async fn a_deadline_tells_what_may_have_been_done() {
    let (a, _, _) = pair().await;
    a.play(|_| Act::FallSilent);
    let client = with_timeout(&[&a], BRIEF).await;
    assert_eq!(client.get("n").await, Err(Error::Timeout));
    assert_eq!(
        client.incr("n").await,
        Err(Error::Unknown { position: None })
    );
}

#[tokio::test]
async fn what_was_never_sent_is_not_sent_after_its_deadline() {
    let (a, b, store) = pair().await;
    let client = with_timeout(&[&a], BRIEF).await;
    client.incr("n").await.unwrap();
    a.die();
    let refused = client.incr("n").await.unwrap_err();
    // The call that met the end of the connection may have been taken; the next one finds nobody.
    assert!(
        matches!(refused, Error::NoPrimary { .. } | Error::Unknown { .. }),
        "{refused:?}"
    );
    let refused = client.incr("n").await.unwrap_err();
    assert!(
        matches!(refused, Error::NoPrimary { .. }) && refused.is_not_done(),
        "{refused:?}"
    );
    Node::promote(&b, &[], 2);
    let now = client.with_timeout(PATIENCE).incr("n").await.unwrap();
    assert_eq!((now, store.value("n")), (2, 2));
}

#[tokio::test]
async fn nobody_is_primary() {
    let (a, b) = (Node::start().await, Node::start().await);
    let options = Options {
        timeout: BRIEF,
        ..Options::default()
    };
    let nodes = [
        a.address.clone(),
        b.address.clone(),
        "127.0.0.1:1".to_owned(),
    ];
    let trouble = Client::connect_with(nodes, options)
        .await
        .unwrap_err()
        .to_string();
    assert!(trouble.contains("127.0.0.1:1: "), "{trouble}");
    assert!(
        trouble.contains(&format!("{} is not primary", a.address)),
        "{trouble}"
    );
}

#[tokio::test]
async fn members_that_were_never_named_by_hand_are_found_when_the_first_one_is_gone() {
    let (a, b, store) = pair().await;
    let client = client(&[&a]).await;
    client.incr("n").await.unwrap();
    Node::promote(&b, &[], 2);
    a.die();
    assert_eq!(client.incr("n").await, Ok(2));
    assert_eq!(store.value("n"), 2);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_replies_of_others_in_order() {
    let (a, _, _) = pair().await;
    let client = client(&[&a]).await;
    for round in 0..20_i64 {
        let left = {
            let client = client.clone();
            tokio::spawn(async move { client.incr("left").await })
        };
        tokio::task::yield_now().await;
        left.abort();
        assert_eq!(client.incr("n").await, Ok(round + 1));
    }
}

/// An attempt that was refused says nothing of the one before it.
#[tokio::test]
async fn a_write_that_may_have_been_done_is_not_told_undone_for_a_later_refusal() {
    let (a, b, store) = pair().await;
    let (old, new, shared) = (a.clone(), b.clone(), store.clone());
    a.play(move |args| {
        shared.apply(args);
        Node::promote(&new, &[&old], 2);
        Act::HangUp("")
    });
    b.play(|_| Act::Say("-CLUSTERDOWN this node is being promoted\r\n".to_owned()));
    let client = with_timeout(&[&a], BRIEF).await;
    let unknown = client.incr("n").await.unwrap_err();
    assert_eq!(unknown, Error::Unknown { position: None });
    // One that was only ever refused is not done.
    let refused = client.incr("n").await.unwrap_err();
    assert!(matches!(&refused, Error::NoPrimary { trouble } if trouble.contains("promoted")));
    assert_eq!(store.value("n"), 1);
}

#[tokio::test]
async fn a_call_whose_future_is_dropped_before_it_was_sent_is_not_sent() {
    let (a, b, store) = pair().await;
    let client = client(&[&a]).await;
    client.ping().await.unwrap();
    a.die();
    let waits = {
        let client = client.clone();
        tokio::spawn(async move { client.incr("left").await })
    };
    // It waits for a primary by then, for the deadline of a later one passes meanwhile.
    client.with_timeout(BRIEF).incr("n").await.unwrap_err();
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    Node::promote(&b, &[], 2);
    client.incr("n").await.unwrap();
    let calls = b.heard();
    assert!(
        calls.iter().all(|args| args.last().unwrap() != "left"),
        "{calls:?}"
    );
    assert_eq!((store.value("left"), store.value("n")), (0, 1));
}

#[tokio::test]
async fn without_tokens_a_lost_write_is_unknown_and_a_transaction_is_sent_again_only_if_it_never_was()
 {
    let (a, _, _) = pair().await;
    let options = Options {
        timeout: PATIENCE,
        tokens: false,
    };
    let client = Client::connect_with([a.address.clone()], options)
        .await
        .unwrap();
    let execs = AtomicUsize::new(0);
    a.play(move |args| {
        Act::Say(match args[0].as_str() {
            "MULTI" => "+OK\r\n".to_owned(),
            "OUTCOME" => "*1\r\n$5\r\nnever\r\n".to_owned(),
            "EXEC" if execs.fetch_add(1, Ordering::Relaxed) == 0 => {
                "-UNKNOWN 1 3 1042 was ordered\r\n".to_owned()
            }
            "EXEC" => "*1\r\n:1\r\n".to_owned(),
            _ => "+QUEUED\r\n".to_owned(),
        })
    });
    assert_eq!(
        client.multi().incr("n").exec().await,
        Ok(vec![Reply::Int(1)])
    );
    let heard = a.heard();
    let words: Vec<&str> = heard.iter().map(|args| args[0].as_str()).collect();
    assert_eq!(
        words,
        ["MULTI", "INCR", "EXEC", "OUTCOME", "MULTI", "INCR", "EXEC"]
    );
    a.play(|_| Act::HangUp(""));
    assert_eq!(
        client.incr("n").await,
        Err(Error::Unknown { position: None })
    );
}

#[tokio::test]
async fn a_node_that_speaks_out_of_turn_or_nonsense_is_left_and_asked_anew() {
    let (a, _, store) = pair().await;
    let calls = AtomicUsize::new(0);
    let shared = store.clone();
    a.play(move |args| {
        let done = shared.apply(args);
        Act::Say(match calls.fetch_add(1, Ordering::Relaxed) {
            0 => "?nonsense\r\n".to_owned(),
            // One reply more than was asked for: whose is the next one?
            1 => format!("{done}:77\r\n"),
            _ => done,
        })
    });
    let client = client(&[&a]).await;
    assert_eq!(client.incr("n").await, Ok(1));
    assert_eq!(client.incr("n").await, Ok(2));
    assert_eq!(client.incr("n").await, Ok(3));
    assert_eq!(store.value("n"), 3);
}

#[tokio::test]
async fn a_node_that_turns_clients_away_is_quoted() {
    let full = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = full.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = full.accept().await {
            let mut asked = [0; 64];
            // Reads first: closing over unread bytes would take the reply back.
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut asked).await;
            let text = b"-ERR max number of clients reached\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, text).await;
        }
    });
    let options = Options {
        timeout: BRIEF,
        ..Options::default()
    };
    let trouble = Client::connect_with([address.clone()], options)
        .await
        .unwrap_err();
    let quoted = format!("{address}: ERR max number of clients reached");
    assert!(trouble.to_string().contains(&quoted), "{trouble}");
}
