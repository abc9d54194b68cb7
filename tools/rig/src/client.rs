//! A client that follows the primary: it looks for the primary again when its connection ends, and
//! when a reply is slow to come and another node names itself by now.

use crate::ask::ask_discovery;
use crate::resp::{Conn, Value};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// How long it waits in silence before it asks discovery whether the primary has moved.
const SILENCE: Duration = Duration::from_millis(20);

/// How long one question to one node's discovery may take: a paused node must not hold it up.
const LOOKUP: Duration = Duration::from_millis(50);

/// One connection at a time, to whoever is primary.
pub struct Client {
    nodes: Vec<String>,
    conn: Option<Conn>,
    /// Where `conn` leads or last led; the others are asked first.
    primary: String,
    /// Connections for discovery, kept because a lookup should cost one message.
    scouts: BTreeMap<String, Conn>,
    /// Connections that ended or were given up without a reply to what was sent.
    pub reconnects: u64,
}

impl Client {
    /// Finds the primary through these nodes.
    pub fn new(nodes: &[String]) -> Client {
        Client {
            nodes: nodes.to_vec(),
            conn: None,
            primary: String::new(),
            scouts: BTreeMap::new(),
            reconnects: 0,
        }
    }

    /// Sends commands to the primary as one pipeline. Fewer replies than commands: the connection
    /// ended before, or there was none.
    pub fn attempt(&mut self, commands: &[&[&str]]) -> Vec<Value> {
        let mut replies = Vec::new();
        if self.conn.is_none() && self.connect().is_none() {
            return replies;
        }
        let complete = self.exchange(commands, &mut replies);
        if !matches!(complete, Ok(true)) {
            self.conn = None;
            self.reconnects += 1;
        }
        replies
    }

    /// Looks for another primary before the next attempt if this refusal is one of a node that is
    /// none, or is no longer.
    pub fn heed(&mut self, refusal: &str) {
        if ["READONLY", "CLUSTERDOWN", "LOADING", "MASTERDOWN"].contains(&refusal) {
            self.conn = None;
        }
    }

    fn connect(&mut self) -> Option<()> {
        let address = self
            .another_primary()
            .or_else(|| self.names_itself(&self.primary.clone()))?;
        let mut conn = Conn::open(&address, LOOKUP).ok()?;
        conn.set_timeout(SILENCE).ok()?;
        self.primary = address;
        self.conn = Some(conn);
        Some(())
    }

    /// Whether every reply came.
    fn exchange(&mut self, commands: &[&[&str]], replies: &mut Vec<Value>) -> io::Result<bool> {
        let conn = self.conn.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        for command in commands {
            conn.push(command);
        }
        conn.flush()?;
        while replies.len() < commands.len() {
            match self.await_reply()? {
                Some(reply) => replies.push(reply),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Waits for the reply as long as no other node says that it is primary; `None` once one does.
    fn await_reply(&mut self) -> io::Result<Option<Value>> {
        loop {
            let conn = self.conn.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            if let Some(value) = conn.read_within()? {
                return Ok(Some(value));
            }
            if self.another_primary().is_some() {
                return Ok(None);
            }
        }
    }

    /// A node, not the one we last followed, that names itself. What a node says of others is not
    /// asked: one that is cut off does not know that they have moved on.
    fn another_primary(&mut self) -> Option<String> {
        let mut others = self.nodes.clone();
        others.retain(|node| *node != self.primary);
        others.iter().find_map(|node| self.names_itself(node))
    }

    fn names_itself(&mut self, node: &str) -> Option<String> {
        let mut scout = match self.scouts.remove(node) {
            Some(scout) => scout,
            None => Conn::open(node, LOOKUP).ok()?,
        };
        // A scout that failed to answer in time is dropped: its late answer would be taken for the
        // answer to the next question.
        let address = ask_discovery(&mut scout)?;
        self.scouts.insert(node.to_owned(), scout);
        (address == node).then_some(address)
    }
}
