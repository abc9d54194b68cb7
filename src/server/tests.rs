//! The front as clients meet it: real sockets, the real state behind a small engine.

mod engine;

use super::{Front, listener};
use crate::config::Config;
use crate::node::client::Handle;
use crate::node::view::View;
pub use engine::{Engine, Knobs, view};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A node's front with an engine behind it, on a free port.
pub struct Server {
    pub address: SocketAddr,
    pub front: Arc<Front>,
    pub knobs: Arc<Knobs>,
    pub shown: Arc<watch::Sender<Arc<View>>>,
}

impl Server {
    pub fn start() -> Server {
        Server::with(&Config::default())
    }

    pub fn with(config: &Config) -> Server {
        let (handle, door) = Handle::new(view(1, 1, 3));
        let front = Front::new(handle, config);
        let listener = listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let knobs = Arc::new(Knobs::default());
        let (shown, views) = watch::channel(door.view.borrow().clone());
        let (shown, to_door) = (Arc::new(shown), door.view.clone());
        let mut views = views;
        tokio::spawn(async move {
            while views.changed().await.is_ok() {
                to_door.send_replace(views.borrow_and_update().clone());
            }
        });
        tokio::spawn(Engine::new(knobs.clone()).run(door));
        tokio::spawn(listener::serve(front.clone(), listener));
        Server {
            address,
            front,
            knobs,
            shown,
        }
    }

    async fn connect(&self) -> Talk {
        let stream = TcpStream::connect(self.address)
            .await
            .expect("the listener accepts");
        Talk(stream)
    }
}

/// One client that says bytes and expects bytes.
struct Talk(TcpStream);

impl Talk {
    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the server reads");
    }

    /// Expects exactly these bytes next; `|` stands for a line end, `¦` for `|`.
    async fn hear(&mut self, expected: &str) {
        let expected = expected.replace('|', "\r\n").replace('¦', "|");
        let mut heard = vec![0; expected.len()];
        let read = tokio::time::timeout(Duration::from_secs(10), self.0.read_exact(&mut heard));
        if let Err(error) = read
            .await
            .unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))
        {
            let heard = String::from_utf8_lossy(&heard);
            panic!("expected {expected:?}, heard {heard:?} and then {error}");
        }
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }

    /// Expects the end of the connection.
    async fn hear_the_end(&mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), self.0.read_to_end(&mut rest));
        let _ = read.await.expect("the server closes");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Says each line alone and expects its reply.
    async fn chat(&mut self, lines: &[(&str, &str)]) {
        for (line, reply) in lines {
            self.say(format!("{line}\r\n").as_bytes()).await;
            self.hear(reply).await;
        }
    }
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order_however_it_is_cut_and_answered() {
    let server = Server::start();
    let stream =
        b"SET k 1\r\nPING\r\nINCR k\r\nGET k\r\nECHO hi\r\nAPPEND k x\r\nGET k\r\nNOPE\r\n\
        *2\r\n$3\r\nDEL\r\n$1\r\nk\r\nEXISTS k\r\nINFO none\r\nGET k\r\n";
    let replies = "+OK|+PONG|:2|$1|2|$2|hi|:2|$2|2x|-ERR unknown command 'NOPE', with args \
                   beginning with: |:1|:0|$0||$-1|";
    for reverses in [false, true] {
        server.knobs.reverses.store(reverses, Relaxed);
        let mut talk = server.connect().await;
        for cut in 0..stream.len() {
            talk.say(&stream[..cut]).await;
            tokio::task::yield_now().await;
            talk.say(&stream[cut..]).await;
            talk.hear(replies).await;
        }
    }
}

#[tokio::test]
async fn transactions_queue_run_once_and_refuse_as_redis_does() {
    let server = Server::start();
    let mut talk = server.connect().await;
    talk.chat(&[
        ("EXEC", "-ERR EXEC without MULTI|"),
        ("DISCARD", "-ERR DISCARD without MULTI|"),
        ("MULTI", "+OK|"),
        ("MULTI", "-ERR MULTI calls can not be nested|"),
        ("WATCH k", "-ERR WATCH inside MULTI is not allowed|"),
        ("SET k 5", "+QUEUED|"),
        ("INCR k", "+QUEUED|"),
        ("GET k", "+QUEUED|"),
        ("EXEC", "*3|+OK|:6|$1|6|"),
        ("MULTI", "+OK|"),
        ("EXEC", "*0|"),
        ("MULTI", "+OK|"),
        ("SET k 7", "+QUEUED|"),
        ("DISCARD", "+OK|"),
        ("GET k", "$1|6|"),
        ("MULTI", "+OK|"),
        ("SET k", "-ERR wrong number of arguments for 'set' command|"),
        ("SET k 8", "+QUEUED|"),
        (
            "EXEC",
            "-EXECABORT Transaction discarded because of previous errors.|",
        ),
        ("MULTI", "+OK|"),
        (
            "PING",
            "-ERR 'ping' is not allowed inside MULTI: only commands on data become part of the \
             transaction|",
        ),
        (
            "EXEC",
            "-EXECABORT Transaction discarded because of previous errors.|",
        ),
        ("GET k", "$1|6|"),
        ("MULTI", "+OK|"),
        ("GET k", "+QUEUED|"),
        ("EXEC", "*1|$1|6|"),
        // A transaction that only reads, or does nothing, minds what it watches as well.
        ("WATCH k", "+OK|"),
        ("INCR k", ":7|"),
        ("MULTI", "+OK|"),
        ("GET k", "+QUEUED|"),
        ("EXEC", "*-1|"),
        ("WATCH k", "+OK|"),
        ("INCR k", ":8|"),
        ("MULTI", "+OK|"),
        ("EXEC", "*-1|"),
    ])
    .await;
}

#[tokio::test]
async fn a_watched_key_that_changes_stops_exec() {
    let server = Server::start();
    let mut talk = server.connect().await;
    let mut other = server.connect().await;
    talk.chat(&[("WATCH k l", "+OK|")]).await;
    other.chat(&[("SET l 1", "+OK|")]).await;
    talk.chat(&[
        ("MULTI", "+OK|"),
        ("SET k 2", "+QUEUED|"),
        ("EXEC", "*-1|"),
        ("GET k", "$-1|"),
    ])
    .await;
    // The same after a reset of the watch, and in one pipeline whose EXEC must await WATCH.
    talk.chat(&[("WATCH k", "+OK|")]).await;
    other.chat(&[("SET k 1", "+OK|")]).await;
    talk.chat(&[("UNWATCH", "+OK|")]).await;
    talk.say(
        b"WATCH k\r\nMULTI\r\nINCR k\r\nEXEC\r\nWATCH k\r\nSET k 9\r\nMULTI\r\nINCR k\r\nEXEC\r\n",
    )
    .await;
    talk.hear("+OK|+OK|+QUEUED|*1|:2|+OK|+OK|+OK|+QUEUED|*-1|")
        .await;
}

#[tokio::test]
async fn a_token_runs_a_command_or_a_transaction_once() {
    let server = Server::start();
    let mut talk = server.connect().await;
    talk.chat(&[
        ("ONCE t INCR n", ":1|"),
        ("ONCE t INCR n", ":1|"),
        ("GET n", "$1|1|"),
        ("ONCE u EXEC", "-ERR EXEC without MULTI|"),
    ])
    .await;
    for _ in 0..2 {
        talk.chat(&[
            ("MULTI", "+OK|"),
            ("INCR n", "+QUEUED|"),
            ("ONCE u EXEC", "*1|:2|"),
            ("GET n", "$1|2|"),
        ])
        .await;
    }
}

#[tokio::test]
async fn a_connection_knows_its_last_write_and_a_key_its_token() {
    let server = Server::start();
    let mut talk = server.connect().await;
    talk.chat(&[
        ("RECEIPT", "-ERR this connection has not written anything|"),
        ("WAIT 1 0", ":0|"),
        ("TOKEN k", "$-1|"),
        ("SET k v", "+OK|"),
        ("SET l v", "+OK|"),
        ("GET k", "$1|v|"),
        ("TOKEN k", "$32|00000000000000070000000000000001|"),
        ("WAIT 1 0", ":2|"),
        ("WAITAOF 1 1 0", "*2|:1|:2|"),
        ("WAITAOF 2 1 0", "-ERR numlocal is 0 or 1|"),
        (
            "RECEIPT",
            "$72|Receipt { write: Place { generation: 7, epoch: Epoch(3), lsn: Lsn(2) } }|",
        ),
        (
            "WAITLSN 2 50",
            "$39|WaitLsn { lsn: Lsn(2), timeout_ms: 50 }|",
        ),
        ("DIGEST", "$23|Digest { slots: false }|"),
        (
            "OUTCOME 2 3 1",
            "$55|Outcome { generation: 2, epoch: Epoch(3), lsn: Lsn(1) }|",
        ),
        (
            "SEEN 2-abc 3 9",
            "$70|Seen { generation: 2, history_id: 2748, epoch: Epoch(3), lsn: Lsn(9) }|",
        ),
    ])
    .await;
    // In a pipeline, too: RECEIPT looks at the write before it.
    talk.say(b"SET k w\r\nRECEIPT\r\nSET k x\r\n").await;
    talk.hear(
        "+OK|$72|Receipt { write: Place { generation: 7, epoch: Epoch(3), lsn: Lsn(3) } }|+OK|",
    )
    .await;
}

#[tokio::test]
async fn hello_changes_the_protocol_from_its_own_reply_on() {
    let server = Server::start();
    let mut talk = server.connect().await;
    let facts = "$6|server|$5|redis|$7|version|$5|7.2.0|$5|proto|:3|$2|id|:1|$4|mode|\
                 $10|standalone|$4|role|$6|master|$7|modules|*0|";
    talk.say(
        b"GET k\r\nHELLO 3 SETNAME me\r\nGET k\r\nCLIENT GETNAME\r\nHELLO 9\r\nRESET\r\nGET k\r\n",
    )
    .await;
    talk.hear(&format!(
        "$-1|%7|{facts}_|$2|me|-NOPROTO unsupported protocol version|+RESET|$-1|"
    ))
    .await;
}

#[tokio::test]
async fn a_subscriber_hears_of_a_new_primary() {
    let server = Server::start();
    let (mut two, mut three) = (server.connect().await, server.connect().await);
    two.chat(
        &[
            (
                "SUBSCRIBE +switch-master x",
                "*3|$9|subscribe|$14|+switch-master|:1|*3|$9|subscribe|$1|x|:2|",
            ),
            ("UNSUBSCRIBE x", "*3|$11|unsubscribe|$1|x|:1|"),
            ("PING", "*2|$4|pong|$0||"),
            (
                "GET k",
                "-ERR Can't execute 'get': only (P¦S)SUBSCRIBE / (P¦S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context|",
            ),
        ]
        .map(|(line, reply)| (line, reply)),
    )
    .await;
    three.say(b"HELLO 3\r\nPSUBSCRIBE *\r\nGET k\r\n").await;
    three.hear("%7|").await;
    let mut rest = vec![0; 1024];
    let mut heard = Vec::new();
    while !heard.ends_with(b">3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n_\r\n") {
        let read = three.0.read(&mut rest).await.expect("open");
        assert!(read > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&rest[..read]);
    }
    // The old primary is lost first; the switch is told once, from the old address to the new.
    let mut lost = view(1, 1, 3);
    lost.primary = None;
    server.shown.send_replace(Arc::new(lost));
    let bulk = |text: &str| format!("${}|{text}|", text.len());
    let old = bulk("master standfast 10.0.0.1 7001");
    three
        .hear(&format!(">4|$8|pmessage|$1|*|$6|+sdown|{old}"))
        .await;
    three
        .hear(&format!(">4|$8|pmessage|$1|*|$6|+odown|{old}"))
        .await;
    server.shown.send_replace(Arc::new(view(1, 2, 4)));
    let switch = bulk("standfast 10.0.0.1 7001 10.0.0.2 7002");
    three
        .hear(&format!(">4|$8|pmessage|$1|*|$14|+switch-master|{switch}"))
        .await;
    two.hear(&format!("*3|$7|message|$14|+switch-master|{switch}"))
        .await;
}

#[tokio::test]
async fn a_connection_ends_as_it_should() {
    let server = Server::start();
    // QUIT answers, after everything before it; what follows is not run.
    let mut talk = server.connect().await;
    talk.say(b"SET k 1\r\nQUIT\r\nSET k 2\r\n").await;
    talk.hear("+OK|+OK|").await;
    talk.hear_the_end().await;
    // A protocol error is the last reply.
    let mut talk = server.connect().await;
    talk.say(b"GET k\r\n*1\r\n:1\r\nGET k\r\n").await;
    talk.hear("$1|1|-ERR Protocol error: expected '$', got ':'|")
        .await;
    talk.hear_the_end().await;
    // A client that only stops sending still gets its answers.
    let mut talk = server.connect().await;
    talk.say(b"INCR k\r\nWAIT 0 0\r\nGET k\r\n").await;
    talk.0.shutdown().await.expect("open");
    talk.hear(":2|:2|$1|2|").await;
    talk.hear_the_end().await;
    // CLIENT KILL.
    let mut talk = server.connect().await;
    let mut victim = server.connect().await;
    victim.chat(&[("CLIENT ID", ":5|")]).await;
    talk.chat(&[("CLIENT KILL ID 5", ":1|")]).await;
    victim.hear_the_end().await;
}

#[tokio::test]
async fn at_the_limit_a_new_client_is_told_so() {
    let server = Server::start();
    let mut first = server.connect().await;
    first
        .chat(&[("CONFIG SET maxclients 1 timeout 0", "+OK|")])
        .await;
    first
        .chat(&[("CONFIG GET maxcl*", "*2|$10|maxclients|$1|1|")])
        .await;
    let mut second = server.connect().await;
    second.hear("-ERR max number of clients reached|").await;
    second.hear_the_end().await;
    assert_eq!(server.front.counters.connections_refused.load(Relaxed), 1);
    drop(first);
    while !server.front.clients.is_empty() {
        tokio::task::yield_now().await;
    }
    server.connect().await.chat(&[("PING", "+PONG|")]).await;
}

#[tokio::test]
async fn what_is_in_flight_is_bounded_and_no_reply_is_lost() {
    let server = Server::start();
    server.knobs.holds.store(true, Relaxed);
    let mut talk = server.connect().await;
    let in_flight_max = server.front.settings.in_flight_max;
    let count = 3 * in_flight_max;
    let (mut reader, mut writer) = talk.0.split();
    let send = async {
        for _ in 0..count {
            writer.write_all(b"INCR n\r\n").await.expect("open");
        }
    };
    let receive = async {
        let most = &server.knobs.in_flight_most;
        while most.load(Relaxed) < in_flight_max {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        server.knobs.holds.store(false, Relaxed);
        // Anything wakes the engine.
        server
            .front
            .handle
            .close_session(crate::node::client::SessionId(u64::MAX));
        let expected: String = (1..=count).map(|n| format!(":{n}\r\n")).collect();
        let mut heard = vec![0; expected.len()];
        reader.read_exact(&mut heard).await.expect("open");
        assert!(heard == expected.as_bytes(), "replies in order, none lost");
        most.load(Relaxed)
    };
    let both = async { tokio::join!(send, receive) };
    let done = tokio::time::timeout(Duration::from_secs(60), both).await;
    let ((), most) = done.expect("the bound is reached, and everything is answered");
    assert_eq!(most, in_flight_max);
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte_of_large_replies() {
    let server = Server::start();
    let mut talk = server.connect().await;
    let value = vec![b'v'; 1 << 20];
    talk.say(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n")
        .await;
    talk.say(&value).await;
    talk.say(b"\r\n").await;
    talk.hear("+OK|").await;
    const COUNT: usize = 100;
    talk.say(&b"GET k\r\n".repeat(COUNT)).await;
    talk.say(b"PING\r\n").await;
    let mut expected = b"$1048576\r\n".to_vec();
    expected.extend_from_slice(&value);
    expected.extend_from_slice(b"\r\n");
    for _ in 0..COUNT {
        let mut heard = vec![0; expected.len()];
        talk.0.read_exact(&mut heard).await.expect("open");
        assert!(heard == expected);
    }
    talk.hear("+PONG|").await;
}

#[tokio::test]
async fn an_idle_client_is_closed_and_a_waiting_one_is_not() {
    let server = Server::start();
    let (mut idle, mut waiting) = (server.connect().await, server.connect().await);
    waiting.say(b"SUBSCRIBE x\r\n").await;
    waiting.hear("*3|$9|subscribe|$1|x|:1|").await;
    server.front.tunable.idle_timeout_s.store(1, Relaxed);
    idle.chat(&[("PING", "+PONG|")]).await;
    idle.hear_the_end().await;
    waiting.chat(&[("PING", "*2|$4|pong|$0||")]).await;
}

#[tokio::test]
async fn silenced_commands_run_and_say_nothing() {
    let server = Server::start();
    let mut talk = server.connect().await;
    talk.say(
        b"CLIENT REPLY SKIP\r\nINCR n\r\nINCR n\r\nCLIENT REPLY OFF\r\nINCR n\r\nPING\r\n\
        CLIENT REPLY ON\r\nGET n\r\n",
    )
    .await;
    talk.hear(":2|+OK|$1|3|").await;
}

#[tokio::test]
async fn refusals_of_the_engine_reach_the_client_and_watch_nothing() {
    let server = Server::start();
    server.knobs.refuses.store(true, Relaxed);
    let mut talk = server.connect().await;
    let refusal = "-READONLY You can't write against a backup, nor read from it without READONLY; \
                   the primary is at 10.0.0.2:7002|";
    talk.chat(&[
        ("SET k v", refusal),
        ("WATCH k", refusal),
        ("RECEIPT", "-ERR this connection has not written anything|"),
    ])
    .await;
}

#[tokio::test]
async fn info_and_role_speak_the_words_of_redis() {
    let server = Server::start();
    let mut talk = server.connect().await;
    talk.chat(&[("ROLE", "*3|$6|master|:0|*1|*3|$8|10.0.0.2|$4|7002|$1|0|")])
        .await;
    server.shown.send_replace(Arc::new(view(2, 1, 3)));
    while server.front.handle.view().is_primary() {
        tokio::task::yield_now().await;
    }
    talk.chat(&[("ROLE", "*5|$5|slave|$8|10.0.0.1|:7001|$9|connected|:0|")])
        .await;
    talk.say(b"INFO replication\r\n").await;
    talk.hear("$").await;
    let mut text = vec![0; 1024];
    let read = talk.0.read(&mut text).await.expect("open");
    let text = String::from_utf8_lossy(&text[..read]).to_string();
    for line in [
        "# Replication\r\n",
        "role:slave\r\n",
        "master_link_status:up\r\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
}

/// Not a test of behaviour: serves until it is stopped, to point clients and benchmarks at.
/// With `STANDFAST_SKIP=1` nothing is stored, so that the front is measured alone.
/// `STANDFAST_PORT=7000 cargo test --release --lib serves_for_others -- --ignored --nocapture`
#[test]
#[ignore = "runs until it is stopped"]
fn serves_for_others() {
    let port = std::env::var("STANDFAST_PORT")
        .ok()
        .and_then(|port| port.parse().ok());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = Server::start();
        server
            .knobs
            .skips
            .store(std::env::var_os("STANDFAST_SKIP").is_some(), Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], port.unwrap_or(7000)));
        let listener = listener::bind(address).expect("the port is free");
        println!("serving at {address}");
        listener::serve(server.front.clone(), listener).await;
    });
}
