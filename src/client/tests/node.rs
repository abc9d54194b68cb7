//! A node that plays a script. Discovery it answers by itself, out of what it was told to be.

use crate::client::reply::{Reply, parse};
use bytes::{Buf, BytesMut};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a node does with a command.
pub enum Act {
    Say(String),
    /// Says it once it is told to.
    SayAfter(Arc<Notify>, String),
    /// Says this much, and hangs up.
    HangUp(&'static str),
    /// Says nothing, now or later, on this connection.
    FallSilent,
}

type Script = Box<dyn FnMut(&[String]) -> Act + Send>;

struct Shown {
    is_primary: bool,
    epoch: u64,
    /// Who it says is primary.
    primary: String,
    members: Vec<String>,
    /// It accepts, and never answers.
    is_paused: bool,
    /// Every connection ends now, and none is taken.
    is_dead: bool,
    /// Every command that was not about discovery.
    heard: Vec<Vec<String>>,
    /// How often something was read that was not about discovery.
    reads: usize,
}

#[derive(Clone)]
pub struct Node {
    pub address: String,
    shown: Arc<Mutex<Shown>>,
    /// Apart, because a script may change what nodes show.
    script: Arc<Mutex<Script>>,
    died: Arc<Notify>,
}

impl Node {
    pub async fn start() -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shown = Arc::new(Mutex::new(Shown {
            is_primary: false,
            epoch: 0,
            primary: address.clone(),
            members: Vec::new(),
            is_paused: false,
            is_dead: false,
            heard: Vec::new(),
            reads: 0,
        }));
        let script: Script = Box::new(|_| Act::Say("-ERR no script\r\n".to_owned()));
        let script = Arc::new(Mutex::new(script));
        let died = Arc::new(Notify::new());
        let node = Node {
            address,
            shown,
            script,
            died,
        };
        let accepting = node.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if !accepting.shown().is_dead {
                    tokio::spawn(accepting.clone().serve(stream));
                }
            }
        });
        node
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap()
    }

    pub fn play(&self, script: impl FnMut(&[String]) -> Act + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Which members it names when it is asked.
    pub fn know(&self, members: &[&Node]) {
        self.shown().members = members.iter().map(|node| node.address.clone()).collect();
    }

    /// Makes one node primary, and lets the others know.
    pub fn promote(node: &Node, others: &[&Node], epoch: u64) {
        for other in others {
            let mut shown = other.shown();
            (shown.is_primary, shown.epoch) = (false, epoch);
            shown.primary = node.address.clone();
        }
        let mut shown = node.shown();
        (shown.is_primary, shown.epoch) = (true, epoch);
        shown.primary = node.address.clone();
    }

    pub fn pause(&self) {
        self.shown().is_paused = true;
    }

    pub fn die(&self) {
        self.shown().is_dead = true;
        self.died.notify_waiters();
    }

    pub fn heard(&self) -> Vec<Vec<String>> {
        self.shown().heard.clone()
    }

    pub fn reads(&self) -> usize {
        self.shown().reads
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut input = BytesMut::new();
        loop {
            let died = self.died.notified();
            input.reserve(64 << 10);
            tokio::select! {
                read = stream.read_buf(&mut input) => if !matches!(read, Ok(1..)) { return },
                () = died => return,
            }
            if self.answer_all(&mut input, &mut stream).await.is_none() {
                return;
            }
        }
    }

    /// `None` is the end of the connection.
    async fn answer_all(&self, input: &mut BytesMut, stream: &mut TcpStream) -> Option<()> {
        let mut is_counted = false;
        while let Some((command, bytes)) = parse(input).expect("the client speaks RESP") {
            input.advance(bytes);
            let Reply::Array(words) = command else {
                panic!("a command is an array: {command:?}");
            };
            let word = |word: Reply| match word {
                Reply::Bulk(bytes) => bytes.iter().map(|byte| char::from(*byte)).collect(),
                other => panic!("an argument is a bulk string: {other:?}"),
            };
            let args: Vec<String> = words.into_iter().map(word).collect();
            if self.shown().is_paused {
                self.died.notified().await;
                return None;
            }
            let act = match self.discovery(&args) {
                Some(text) => Act::Say(text),
                None => {
                    let mut shown = self.shown();
                    shown.reads += usize::from(!std::mem::replace(&mut is_counted, true));
                    shown.heard.push(args.clone());
                    drop(shown);
                    (self.script.lock().unwrap())(&args)
                }
            };
            let text = match act {
                Act::Say(text) => text,
                Act::SayAfter(told, text) => {
                    told.notified().await;
                    text
                }
                Act::HangUp(text) => {
                    let _ = stream.write_all(text.as_bytes()).await;
                    return None;
                }
                Act::FallSilent => {
                    self.died.notified().await;
                    return None;
                }
            };
            stream.write_all(&latin(&text)).await.ok()?;
        }
        Some(())
    }

    fn discovery(&self, args: &[String]) -> Option<String> {
        let shown = self.shown();
        let (host, port) = shown.primary.split_once(':')?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args[..] {
            ["ROLE"] if shown.is_primary => Some(format!("*3\r\n{}:7\r\n*0\r\n", bulk("master"))),
            ["ROLE"] => Some(format!(
                "*5\r\n{}{}:{port}\r\n{}:7\r\n",
                bulk("slave"),
                bulk(host),
                bulk("connected")
            )),
            ["SENTINEL", "MASTERS"] => {
                let epoch = shown.epoch.to_string();
                let fields = [
                    "name",
                    "scripted",
                    "ip",
                    host,
                    "port",
                    port,
                    "config-epoch",
                    &epoch,
                ];
                Some(format!("*1\r\n*8\r\n{}", fields.map(bulk).concat()))
            }
            ["SENTINEL", "SENTINELS", "scripted"] => {
                let others = shown
                    .members
                    .iter()
                    .filter(|member| **member != self.address);
                let others: Vec<String> = others
                    .filter_map(|member| member.split_once(':'))
                    .map(|(host, port)| {
                        format!("*4\r\n{}", ["ip", host, "port", port].map(bulk).concat())
                    })
                    .collect();
                Some(format!("*{}\r\n{}", others.len(), others.concat()))
            }
            _ => None,
        }
    }
}

/// Bytes travel through these scripts as the characters of the same number.
pub fn latin(text: &str) -> Vec<u8> {
    text.chars()
        .map(|letter| u8::try_from(u32::from(letter)).expect("a byte"))
        .collect()
}

pub fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.chars().count())
}

/// Counters and tokens, which all nodes of a cluster have in common.
#[derive(Clone, Default)]
pub struct Store(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    counters: BTreeMap<String, i64>,
    replies: BTreeMap<String, String>,
}

impl Store {
    pub fn apply(&self, args: &[String]) -> String {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        self.0.lock().unwrap().apply(&words)
    }

    pub fn value(&self, key: &str) -> i64 {
        let stored = self.0.lock().unwrap();
        stored.counters.get(key).copied().unwrap_or_default()
    }
}

impl Stored {
    fn apply(&mut self, words: &[&str]) -> String {
        match *words {
            ["ONCE", token, ref command @ ..] => {
                if let Some(reply) = self.replies.get(token) {
                    return reply.clone();
                }
                let reply = self.apply(command);
                self.replies.insert(token.to_owned(), reply.clone());
                reply
            }
            ["INCR", key] => {
                let value = self.counters.entry(key.to_owned()).or_default();
                *value += 1;
                format!(":{value}\r\n")
            }
            ["GET", key] => match self.counters.get(key) {
                Some(value) => bulk(&value.to_string()),
                None => "$-1\r\n".to_owned(),
            },
            ["PING"] => "+PONG\r\n".to_owned(),
            _ => format!("-ERR no such command here: {}\r\n", words.join(" ")),
        }
    }
}
