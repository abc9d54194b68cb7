//! The clients of a world: each asks, waits, gives up, tries elsewhere; what they see is checked.

mod answers;
mod books;
mod draw;
mod keys;
mod ledger;

pub use draw::{ACCOUNTS, searched_keys};

use super::check::history::Id;
use super::plan::Plan;
use super::queue::Happening;
use super::random::Random;
use super::world::{MS, SECOND, World};
use bytes::Bytes;
use standfast::node::client::{Control, Op, Place, Request, SessionId};
use standfast::node::engine::Event;
use standfast::replication::Fence;
use standfast::state::Command;
use standfast_wal::{Epoch, History, Lsn};

/// A client gives up on an answer after this.
const TIMEOUT: u64 = 8 * SECOND;
/// Bits of a session's number that count the client's connections.
const CONNECTION_BITS: u32 = 32;

pub struct Clients {
    list: Vec<Client>,
    /// How often each kind of step is drawn.
    mix: draw::Mix,
    ledger: ledger::Workload,
    /// When the write was asked for that was asked for last of those that are acknowledged.
    pub wrote: Option<u64>,
}

struct Client {
    at: usize,
    /// A new one after each disappointment: sessions are never used again.
    connection: u64,
    seq: u64,
    /// Counts submissions.
    step: u64,
    asked: Vec<Asked>,
    /// Makes values unique.
    written: u64,
    script: Script,
    /// Steps without a pause that are left.
    burst: u64,
    /// It has heard of another primary and looks what is there.
    looks: bool,
    /// Of its last write.
    seen: Option<Written>,
    /// The last token that it used for a key.
    token: Option<Bytes>,
}

/// One request without an answer.
struct Asked {
    seq: u64,
    what: What,
}

enum What {
    /// A command on data, in the history under this number.
    Data(Id),
    /// ONCE: the history's number, and which token.
    Once(Id, u64),
    /// What WATCH asks for.
    Watch(Id),
    /// All accounts, read as one.
    Accounts(Id),
    Outcome(Claim),
    Receipt(Written),
    /// How many others hold it.
    Copies(Written),
    Seen(Written),
    WaitLsn(Lsn),
}

/// Where a write stands: in which history it was acknowledged, and the reign that had written it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    pub history: History,
    pub reign: Fence,
    pub lsn: Lsn,
}

impl Written {
    /// As an order names it.
    pub fn place(self) -> Place {
        Place {
            generation: self.reign.history.generation,
            epoch: self.reign.epoch,
            lsn: self.lsn,
        }
    }
}

/// What UNKNOWN names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub generation: u64,
    pub epoch: Epoch,
    pub lsn: Lsn,
}

/// What a client is in the middle of.
enum Script {
    Nothing,
    /// The same command until it is answered: one under a token, or one whose ids make it safe.
    Retry {
        token: Option<u64>,
        command: Command,
        tries: u32,
    },
    /// Money from one account to another: what WATCH and the reads have said so far.
    Transfer {
        accounts: [usize; 2],
        revisions: Option<Vec<Lsn>>,
        balances: Option<Vec<i64>>,
    },
    /// Keys that end at one time, and what WATCH has said of them: EXEC comes around that time.
    Lock {
        keys: Vec<Bytes>,
        revisions: Option<Vec<Lsn>>,
        until: u64,
    },
    /// Tokens end then, and make room.
    Room {
        until: u64,
    },
    Outcome {
        claim: Claim,
        tries: u32,
    },
    /// Of the write that was just acknowledged, on the connection that it went through.
    Receipt(Written),
    Copies(Written),
}

impl Clients {
    pub fn new(plan: &Plan, ledger: &mut Random) -> Clients {
        let client = |at| Client {
            at,
            connection: 0,
            seq: 0,
            step: 0,
            asked: Vec::new(),
            written: 0,
            script: Script::Nothing,
            burst: 0,
            looks: false,
            seen: None,
            token: None,
        };
        Clients {
            list: (0..plan.clients)
                .map(|i| client(i % plan.members))
                .collect(),
            mix: draw::Mix::default(),
            wrote: None,
            ledger: ledger::Workload::draw(ledger),
        }
    }

    /// What the clients wrote last.
    pub fn last_writes(&self) -> Vec<Claim> {
        let seen = self.list.iter().filter_map(|client| client.seen);
        let claim = |seen: Written| Claim {
            generation: seen.reign.history.generation,
            epoch: seen.reign.epoch,
            lsn: seen.lsn,
        };
        seen.map(claim).collect()
    }

    pub fn last_places(&self) -> Vec<Written> {
        self.list.iter().filter_map(|client| client.seen).collect()
    }
}

impl Client {
    /// A new connection, to this node.
    fn turn_to(&mut self, node: usize) {
        self.at = node;
        self.connection += 1;
        self.seq = 0;
        if let Script::Transfer { .. }
        | Script::Lock { .. }
        | Script::Room { .. }
        | Script::Receipt(_)
        | Script::Copies(_) = self.script
        {
            self.script = Script::Nothing;
        }
    }
}

/// How long after the faults have ended clients begin to grow slower.
const EASE: u64 = 10 * SECOND;

impl World {
    fn session(&self, client: usize) -> SessionId {
        SessionId(((client as u64) << CONNECTION_BITS) | self.clients.list[client].connection)
    }

    /// It is this client's turn to ask.
    pub fn client(&mut self, number: usize) -> Result<(), String> {
        if self.quiet.is_some() || !self.clients.list[number].asked.is_empty() {
            return Ok(());
        }
        let at = self.clients.list[number].at;
        if !self.nodes[at].is_up() {
            self.move_on(number);
            self.next_step(number);
            return Ok(());
        }
        let ops = self.draw_step(number);
        let session = self.session(number);
        let client = &mut self.clients.list[number];
        client.step += 1;
        let step = client.step;
        let mut requests = Vec::with_capacity(ops.len());
        for (what, op) in ops {
            let client = &mut self.clients.list[number];
            client.seq += 1;
            let seq = client.seq;
            client.asked.push(Asked { seq, what });
            requests.push(Request { seq, op });
        }
        self.after(
            TIMEOUT,
            Happening::GiveUp {
                client: number,
                step,
            },
        );
        self.turn(at, vec![Event::Submit { session, requests }])
    }

    /// The client's patience or its connection has ended: nothing is known of what it asked.
    pub fn give_up(&mut self, number: usize, step: u64) {
        let client = &mut self.clients.list[number];
        if client.step != step || client.asked.is_empty() {
            return;
        }
        for asked in std::mem::take(&mut client.asked) {
            match asked.what {
                What::Data(id) | What::Once(id, _) | What::Watch(id) | What::Accounts(id) => {
                    self.observer.history.unknown(id, None);
                    self.summary.unknown += 1;
                }
                What::Outcome(_)
                | What::Receipt(_)
                | What::Copies(_)
                | What::Seen(_)
                | What::WaitLsn(_) => {}
            }
        }
        self.move_on(number);
        self.next_step(number);
    }

    /// A node is no more: its clients' connections close.
    pub fn clients_lose(&mut self, node: usize) {
        for number in 0..self.clients.list.len() {
            let client = &self.clients.list[number];
            if client.at == node && !client.asked.is_empty() {
                let step = client.step;
                let wait = self.dice.clients.between(0, 5 * MS);
                self.after(
                    wait,
                    Happening::GiveUp {
                        client: number,
                        step,
                    },
                );
            }
        }
    }

    /// Another connection, mostly to the primary, sometimes to anybody.
    fn move_on(&mut self, number: usize) {
        let anybody = self.dice.clients.index(self.nodes.len());
        let at = match self.primary_place() {
            Some(primary) if !self.dice.clients.one_in(4) => primary,
            _ => anybody,
        };
        self.clients.list[number].turn_to(at);
    }

    /// This node is about to be primary: some of the clients that wait for nothing turn to it.
    pub fn look_for_primary(&mut self, node: usize, random: &mut Random) {
        let clients = self.clients.list.iter_mut();
        let idle = clients.filter(|client| client.asked.is_empty());
        for client in idle.filter(|_| random.one_in(2)) {
            client.turn_to(node);
            client.looks = true;
        }
    }

    /// Some of the clients that wait for nothing look at once at what this node has.
    pub fn look_at(&mut self, node: usize, random: &mut Random) -> Result<(), String> {
        self.look_for_primary(node, random);
        for number in 0..self.clients.list.len() {
            let client = &self.clients.list[number];
            if client.looks && client.at == node {
                self.client(number)?;
            }
        }
        Ok(())
    }

    fn next_step(&mut self, number: usize) {
        let [low, high] = self.plan.think;
        let random = &mut self.dice.clients;
        let client = &mut self.clients.list[number];
        let wait = if let Script::Lock { until, .. } | Script::Room { until } = client.script {
            until.saturating_sub(self.now)
        } else if client.burst > 0 {
            client.burst -= 1;
            random.below(MS)
        } else {
            match random.below(400) {
                0 => random.between(high, high + 4 * SECOND),
                1 | 2 => {
                    client.burst = random.between(5, 60);
                    0
                }
                _ => random.between(low, high),
            }
        };
        // Nothing holds up writes for an asynchronous backup: one with a narrow window and a long
        // way comes near only when less is asked.
        let calm = self.calm.map_or(0, |since| (self.now - since) / EASE);
        // But where all is near, a write is waited for.
        let slower = if self.reign.is_some() {
            calm
        } else {
            calm * calm
        };
        let wait = wait * (1 + slower);
        self.after(wait.max(1), Happening::Client { client: number });
    }
}

fn control(control: Control) -> Op {
    Op::Control(Box::new(control))
}

fn read(command: Command, stale: bool) -> Op {
    Op::Read { command, stale }
}

fn text(words: impl Into<String>) -> Bytes {
    Bytes::from(words.into())
}
