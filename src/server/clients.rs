//! Who is connected: what CLIENT LIST shows and CLIENT KILL ends.

use crate::node::client::SessionId;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

/// One connection as others see it.
#[derive(Debug)]
pub struct Client {
    pub id: SessionId,
    pub address: SocketAddr,
    pub local: SocketAddr,
    connected: Instant,
    facts: Mutex<Facts>,
    killed: Notify,
}

/// What its session says of itself, once per read.
#[derive(Clone, Debug)]
pub struct Facts {
    pub name: String,
    pub library: String,
    pub library_version: String,
    pub active: Instant,
    pub command: &'static str,
    pub channels: usize,
    pub patterns: usize,
    /// Commands queued since MULTI; `None` outside.
    pub queued: Option<usize>,
    pub resp3: bool,
    pub read_only: bool,
}

impl Client {
    pub fn new(id: SessionId, address: SocketAddr, local: SocketAddr) -> Client {
        let now = Instant::now();
        Client {
            id,
            address,
            local,
            connected: now,
            facts: Mutex::new(Facts {
                name: String::new(),
                library: String::new(),
                library_version: String::new(),
                active: now,
                command: "NULL",
                channels: 0,
                patterns: 0,
                queued: None,
                resp3: false,
                read_only: false,
            }),
            killed: Notify::new(),
        }
    }

    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts
            .lock()
            .expect("nothing panics while it holds a client's facts")
    }

    /// Ends the session at its next reply boundary.
    pub fn kill(&self) {
        self.killed.notify_one();
    }

    /// Returns once the session is to end.
    pub async fn killed(&self) {
        self.killed.notified().await;
    }

    pub fn is_subscribed(&self) -> bool {
        let facts = self.facts();
        facts.channels + facts.patterns > 0
    }

    /// One line of CLIENT LIST.
    pub fn line(&self) -> String {
        let facts = self.facts().clone();
        let mut flags = String::new();
        if facts.channels + facts.patterns > 0 {
            flags.push('P');
        }
        if facts.queued.is_some() {
            flags.push('x');
        }
        if facts.read_only {
            flags.push('r');
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let multi = facts
            .queued
            .map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX));
        let mut line = String::new();
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={flags} db=0 sub={} psub={} \
             ssub=0 multi={multi} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 obl=0 oll=0 omem=0 \
             tot-mem=0 events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id.0,
            self.address,
            self.local,
            facts.name,
            self.connected.elapsed().as_secs(),
            facts.active.elapsed().as_secs(),
            facts.channels,
            facts.patterns,
            facts.command,
            if facts.resp3 { 3 } else { 2 },
            facts.library,
            facts.library_version,
        );
        line
    }
}

/// All connections of this node, by number.
#[derive(Debug, Default)]
pub struct Clients(Mutex<BTreeMap<SessionId, Arc<Client>>>);

impl Clients {
    pub fn add(&self, client: Arc<Client>) {
        self.lock().insert(client.id, client);
    }

    pub fn remove(&self, id: SessionId) {
        self.lock().remove(&id);
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// Ends every session, for a node that stops; replies that are ready are still written.
    pub fn kill_all(&self) {
        self.all().iter().for_each(|client| client.kill());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Client>>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the clients")
    }
}
