//! Who is primary: every node that is known is asked at once what it is itself. What a node says of
//! others only leads to them, for one that is cut off does not know that they have moved on.

use super::call::Frame;
use super::reply::{Reply, parse};
use crate::limits;
use bytes::BytesMut;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// How long one look around takes at most: a paused node accepts and says nothing.
const LOOK_MAX: Duration = Duration::from_millis(400);

/// Addresses that are remembered, those of former members included.
pub const NODES_MAX: usize = 2 * limits::MEMBERS_MAX;

/// A connection to a node that says it is primary.
#[derive(Debug)]
pub struct Found {
    pub stream: TcpStream,
    /// As it was asked, which may differ from what the node calls itself.
    pub address: String,
    pub epoch: u64,
    /// Every node that was heard of.
    pub nodes: Vec<String>,
}

/// What a node says.
struct Answer {
    stream: TcpStream,
    address: String,
    is_primary: bool,
    epoch: u64,
    /// Nodes that it names.
    named: Vec<String>,
}

/// Looks for the primary. The one of `suspect` is taken only if no other node is.
pub async fn primary(mut nodes: Vec<String>, suspect: Option<String>) -> Result<Found, String> {
    let limit = Instant::now() + LOOK_MAX;
    let mut asking = JoinSet::new();
    for node in &nodes {
        asking.spawn(ask(node.clone()));
    }
    let mut second: Option<Answer> = None;
    let mut troubles: Vec<String> = Vec::new();
    let mut best = None;
    while let Ok(Some(answer)) = timeout_at(limit, asking.join_next()).await {
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(trouble)) => {
                troubles.push(trouble);
                continue;
            }
            Err(_) => continue,
        };
        for node in &answer.named {
            if !nodes.contains(node) && nodes.len() < NODES_MAX {
                nodes.push(node.clone());
                asking.spawn(ask(node.clone()));
            }
        }
        if !answer.is_primary {
            troubles.push(format!("{} is not primary", answer.address));
        } else if suspect.as_ref() == Some(&answer.address) {
            second = Some(answer);
        } else {
            best = Some(answer);
            break;
        }
    }
    let Some(Answer {
        stream,
        address,
        epoch,
        ..
    }) = best.or(second)
    else {
        if troubles.is_empty() {
            troubles.push("no node answers".to_owned());
        }
        return Err(troubles.join("; "));
    };
    Ok(Found {
        stream,
        address,
        epoch,
        nodes,
    })
}

async fn ask(address: String) -> Result<Answer, String> {
    let trouble = |error: io::Error| format!("{address}: {error}");
    let connected = timeout(LOOK_MAX, TcpStream::connect(&address)).await;
    let mut stream = connected
        .map_err(|_| trouble(io::ErrorKind::TimedOut.into()))?
        .map_err(trouble)?;
    stream.set_nodelay(true).map_err(trouble)?;
    let mut question = Frame::new(&["ROLE"]);
    question.push(&[], &["SENTINEL", "MASTERS"]);
    let replies = exchange(&mut stream, question, 2).await.map_err(trouble)?;
    let [role, primaries] = &replies[..] else {
        unreachable!("two replies were waited for");
    };
    let role_words = words(role);
    let is_primary = role_words.first().is_some_and(|word| word == "master");
    let primary = match primaries {
        Reply::Array(instances) => instances.first().map(words).unwrap_or_default(),
        _ => Vec::new(),
    };
    let field = |name: &str| field(&primary, name);
    let mut named = Vec::new();
    if let (Some(host), Some(port)) = (field("ip"), field("port")) {
        named.push(join(host, port));
    }
    if let Some(name) = field("name") {
        let question = Frame::new(&["SENTINEL", "SENTINELS", name]);
        let others = exchange(&mut stream, question, 1).await.map_err(trouble)?;
        named.extend(others.iter().flat_map(addresses));
    }
    if let [kind, host, port, ..] = &role_words[..]
        && kind == "slave"
    {
        named.push(join(host, port));
    }
    // A node that knows no primary names `?`.
    named.retain(|node| !node.starts_with('?'));
    let epoch = field("config-epoch")
        .and_then(|epoch| epoch.parse().ok())
        .unwrap_or(0);
    Ok(Answer {
        stream,
        address,
        is_primary,
        epoch,
        named,
    })
}

/// The addresses of a list of instances.
fn addresses(instances: &Reply) -> Vec<String> {
    let Reply::Array(instances) = instances else {
        return Vec::new();
    };
    let address = |instance: &Reply| {
        let words = words(instance);
        Some(join(field(&words, "ip")?, field(&words, "port")?))
    };
    instances.iter().filter_map(address).collect()
}

/// A value out of names and values in turn.
fn field<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let at = words.iter().step_by(2).position(|word| word == name)?;
    words.get(2 * at + 1).map(String::as_str)
}

fn join(host: &str, port: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The items of an array that are texts or numbers; others count as empty.
fn words(reply: &Reply) -> Vec<String> {
    let Reply::Array(items) = reply else {
        return Vec::new();
    };
    let word = |item: &Reply| match item {
        Reply::Int(number) => number.to_string(),
        other => other.text().unwrap_or_default().to_owned(),
    };
    items.iter().map(word).collect()
}

async fn exchange(stream: &mut TcpStream, question: Frame, count: usize) -> io::Result<Vec<Reply>> {
    stream.write_all(&question.into_bytes()).await?;
    let mut input = BytesMut::new();
    let mut replies = Vec::new();
    while replies.len() < count {
        match parse(&input) {
            Ok(Some((reply, bytes))) => {
                replies.push(reply);
                let _ = input.split_to(bytes);
            }
            Ok(None) if stream.read_buf(&mut input).await? == 0 => {
                // A node that turns a client away says why first.
                return Err(match replies.pop() {
                    Some(Reply::Error(text)) => io::Error::other(text),
                    _ => io::ErrorKind::UnexpectedEof.into(),
                });
            }
            Ok(None) => {}
            Err(_) => return Err(io::Error::other("its answer is no RESP")),
        }
    }
    Ok(replies)
}
