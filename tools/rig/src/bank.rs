//! A bank that many clerks work for at once, through every failure: accounts are keys, and a
//! transfer is one MULTI that takes from one account, gives to another, counts itself and leaves a
//! marker of its own.
//!
//! A transfer is repeated with its ONCE token until its answer is definite. The count in the answer
//! is its place in the one order in which all transfers happened, and the balances in the answer
//! are what that order must give; so the audit replays the whole history and compares every answer,
//! every read and the final state, in linear time (`audit.rs`).

use crate::audit::History;
use crate::client::Client;
use crate::cluster::{PATIENCE, PROMPT};
use crate::poll::{between_attempts, until, until_moment};
use crate::random::Random;
use crate::resp::{Conn, Value};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What each account begins with.
pub const OPENING: i64 = 1_000_000;

/// The key that counts transfers.
pub const COUNT: &str = "bank:count";

/// How the bank is staffed.
#[derive(Clone, Copy, Debug)]
pub struct Staff {
    pub accounts: usize,
    pub clerks: usize,
    /// From the beginning of a clerk's transfer to that of its next, where the cluster keeps up.
    pub pace: Duration,
    pub seed: u64,
}

/// A transfer with a definite answer.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub id: Id,
    pub from: usize,
    pub to: usize,
    pub amount: i64,
    pub invoked: Instant,
    pub acknowledged: Instant,
    pub reply: Reply,
    /// From the receipt, where it came and the transfer ran at its first attempt.
    pub lsn: Option<i64>,
}

/// Clerk and number.
pub type Id = (usize, u64);

/// What a transfer was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    pub from: i64,
    pub to: i64,
    pub count: i64,
}

/// One look at all accounts at once.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub count: i64,
    /// Of the balances, see `print_of`: a long run takes hundreds of thousands of looks.
    pub print: u64,
    /// From a backup, which may be behind.
    pub stale: bool,
}

/// What was seen by one clerk or reader.
#[derive(Default)]
pub struct Notes {
    pub transfers: Vec<Transfer>,
    /// Given up after nothing but definite refusals: they must never have run.
    pub refused: Vec<Id>,
    /// Without a definite answer when the bank closed; 0 unless the cluster stopped serving.
    pub open: Vec<Id>,
    pub looks: Vec<Look>,
    pub refusals: BTreeMap<String, u64>,
    pub reconnects: u64,
    /// Replies that no correct cluster gives.
    pub wrong: Vec<String>,
}

/// What all threads share.
struct Shared {
    nodes: Vec<String>,
    staff: Staff,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// The highest count in any answer so far: no later linearizable read may show less.
    told: Mutex<i64>,
}

impl Shared {
    fn told(&self) -> i64 {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, count: i64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = (*told).max(count);
    }
}

/// A bank that is open.
pub struct Bank {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Notes>>,
}

pub fn account(number: usize) -> String {
    format!("acct:{number}")
}

/// The key that shows that a transfer ran.
pub fn marker(id: Id) -> String {
    format!("did:{}:{}", id.0, id.1)
}

impl Bank {
    /// Fills the accounts and lets the clerks begin, two readers beside them.
    pub fn open(nodes: &[String], data_nodes: &[String], staff: Staff) -> Bank {
        assert!(staff.accounts >= 2, "a transfer needs two accounts");
        fund(nodes, staff.accounts);
        let shared = Arc::new(Shared {
            nodes: nodes.to_vec(),
            staff,
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            told: Mutex::new(0),
        });
        let mut threads = Vec::new();
        for number in 0..staff.clerks {
            let shared = shared.clone();
            threads.push(std::thread::spawn(move || {
                Clerk::new(shared, number).work()
            }));
        }
        let reads = shared.clone();
        threads.push(std::thread::spawn(move || read_primary(&reads)));
        let (reads, data_nodes) = (shared.clone(), data_nodes.to_vec());
        threads.push(std::thread::spawn(move || {
            read_backups(&reads, &data_nodes)
        }));
        Bank { shared, threads }
    }

    /// Acknowledged transfers so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more transfers are acknowledged.
    pub fn wait_more(&self, count: u64) {
        let target = self.acknowledged() + count;
        until(
            &format!("{count} more transfers are acknowledged"),
            PATIENCE,
            || (self.acknowledged() >= target).then_some(()),
        );
    }

    /// Lets every clerk finish its transfer, then gathers what everybody noted.
    pub fn close(self) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        let notes = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("nobody in the bank panics"));
        History::gather(self.shared.staff.accounts, notes)
    }
}

fn fund(nodes: &[String], accounts: usize) {
    let keys: Vec<String> = (0..accounts).map(account).collect();
    let opening = OPENING.to_string();
    let mut command = vec!["MSET", COUNT, "0"];
    for key in &keys {
        command.extend([key.as_str(), opening.as_str()]);
    }
    let mut client = Client::new(nodes);
    until("the accounts are opened", PATIENCE, || {
        let replies = client.attempt(&[&command]);
        (replies == [Value::ok()]).then_some(())
    });
}

/// One connection's worth of transfers, one after the other.
struct Clerk {
    shared: Arc<Shared>,
    number: usize,
    client: Client,
    random: Random,
    notes: Notes,
}

/// Refusals that no correct cluster gives to a clerk.
const WRONG: [&str; 4] = ["ERR", "ONCEREUSED", "ONCEFULL", "WRONGTYPE"];

/// How an attempt ended.
enum Ended {
    Done(Reply, Option<i64>),
    /// It was never ordered and never will be.
    Refused,
    Unknown,
    Wrong(String),
}

impl Clerk {
    fn new(shared: Arc<Shared>, number: usize) -> Clerk {
        Clerk {
            number,
            client: Client::new(&shared.nodes),
            random: Random::new(shared.staff.seed.wrapping_add(number as u64)),
            notes: Notes::default(),
            shared,
        }
    }

    fn work(mut self) -> Notes {
        let mut next = 0;
        let mut due = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) && self.transfer(next) {
            next += 1;
            due = Instant::now().max(due + self.shared.staff.pace);
            until_moment(due);
        }
        self.notes.reconnects = self.client.reconnects;
        self.notes
    }

    /// One transfer to its definite answer; `false` when the clerk must stop.
    fn transfer(&mut self, number: u64) -> bool {
        let accounts = self.shared.staff.accounts as u64;
        let from = self.random.below(accounts) as usize;
        let to = (from + 1 + self.random.below(accounts - 1) as usize) % accounts as usize;
        let amount = 1 + self.random.below(100) as i64;
        // Half of them are given up at a refusal, if nothing but refusals came: those must not run.
        let patient = self.random.below(2) == 0;
        let id = (self.number, number);
        let invoked = Instant::now();
        let (mut attempts, mut maybe_ordered) = (0, false);
        let mut given_up = None;
        loop {
            attempts += 1;
            match self.attempt(id, from, to, amount) {
                Ended::Done(reply, lsn) => {
                    self.note(Transfer {
                        id,
                        from,
                        to,
                        amount,
                        invoked,
                        acknowledged: Instant::now(),
                        reply,
                        // The receipt of a repeat is that of the repeat.
                        lsn: lsn.filter(|_| attempts == 1),
                    });
                    return true;
                }
                Ended::Wrong(story) => {
                    eprintln!("{story}");
                    self.notes.wrong.push(story);
                    return false;
                }
                Ended::Refused if !patient && !maybe_ordered => {
                    self.notes.refused.push(id);
                    return true;
                }
                Ended::Refused => {}
                Ended::Unknown => maybe_ordered = true,
            }
            between_attempts();
            if self.shared.stop.load(Ordering::Relaxed) {
                let deadline = given_up.get_or_insert_with(|| Instant::now() + PATIENCE);
                if Instant::now() > *deadline {
                    self.notes.open.push(id);
                    return false;
                }
            }
        }
    }

    fn attempt(&mut self, id: Id, from: usize, to: usize, amount: i64) -> Ended {
        let (from, to, amount) = (account(from), account(to), amount.to_string());
        let (marker, token) = (marker(id), format!("transfer:{}:{}", id.0, id.1));
        let replies = self.client.attempt(&[
            &["MULTI"],
            &["DECRBY", &from, &amount],
            &["INCRBY", &to, &amount],
            &["INCR", COUNT],
            &["SET", &marker, &amount],
            &["ONCE", &token, "EXEC"],
            &["RECEIPT"],
        ]);
        let Some(exec) = replies.get(5) else {
            return Ended::Unknown;
        };
        if let Some(refusal) = exec.refusal() {
            *self.notes.refusals.entry(refusal.to_owned()).or_default() += 1;
            // What made EXEC give up stands before it.
            let cause = replies.iter().find_map(Value::refusal).unwrap_or(refusal);
            self.client.heed(cause);
            return match refusal {
                "UNKNOWN" => Ended::Unknown,
                _ if WRONG.contains(&cause) => {
                    Ended::Wrong(format!("transfer {id:?}: {replies:?}"))
                }
                _ => Ended::Refused,
            };
        }
        match exec {
            Value::Array(parts) => match parts.as_slice() {
                [Value::Int(from), Value::Int(to), Value::Int(count), ok] if *ok == Value::ok() => {
                    let reply = Reply {
                        from: *from,
                        to: *to,
                        count: *count,
                    };
                    Ended::Done(reply, replies.get(6).and_then(lsn_of))
                }
                _ => Ended::Wrong(format!("transfer {id:?}: {exec:?}")),
            },
            _ => Ended::Wrong(format!("transfer {id:?}: {exec:?}")),
        }
    }

    fn note(&mut self, transfer: Transfer) {
        self.shared.tell(transfer.reply.count);
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.notes.transfers.push(transfer);
    }
}

/// The LSN in a RECEIPT.
fn lsn_of(receipt: &Value) -> Option<i64> {
    let Value::Array(parts) = receipt else {
        return None;
    };
    let at = parts.iter().position(|part| part.text() == "lsn")?;
    Some(parts.get(at + 1)?.number())
}

/// Looks at all accounts through the primary, again and again.
fn read_primary(shared: &Shared) -> Notes {
    let mut notes = Notes::default();
    let mut client = Client::new(&shared.nodes);
    let command = look_command(shared.staff.accounts);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    while !shared.stop.load(Ordering::Relaxed) {
        let due = Instant::now() + shared.staff.pace;
        let floor = shared.told();
        if let Some(reply) = client.attempt(&[&command]).pop() {
            if let Some(refusal) = reply.refusal() {
                client.heed(refusal);
            }
            if let Some(look) = take_look(reply, floor, false, &mut notes) {
                shared.tell(look.count);
                notes.looks.push(look);
            }
        }
        until_moment(due);
    }
    notes.reconnects = client.reconnects;
    notes
}

/// Looks at all accounts through one data node after the other, at what it has.
fn read_backups(shared: &Shared, data_nodes: &[String]) -> Notes {
    let mut notes = Notes::default();
    let command = look_command(shared.staff.accounts);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut conns: BTreeMap<&String, (Conn, i64)> = BTreeMap::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let due = Instant::now() + shared.staff.pace;
        for node in data_nodes {
            let opened = conns.remove(node).or_else(|| {
                let mut conn = Conn::open(node, Duration::from_millis(50)).ok()?;
                (conn.call(&["READONLY"]).ok()? == Value::ok()).then_some((conn, 0))
            });
            let Some((mut conn, mut seen)) = opened else {
                continue;
            };
            // An answer that is late would be taken for the next one's: such a connection goes.
            let Ok(reply) = conn.call(&command) else {
                continue;
            };
            if let Some(look) = take_look(reply, seen, true, &mut notes) {
                seen = look.count;
                notes.looks.push(look);
            }
            conns.insert(node, (conn, seen));
        }
        until_moment(due);
    }
    notes
}

fn look_command(accounts: usize) -> Vec<String> {
    let mut command = vec!["MGET".to_owned(), COUNT.to_owned()];
    command.extend((0..accounts).map(account));
    command
}

/// Reads a look; what is wrong in itself is noted at once, the rest when the history is replayed.
fn take_look(reply: Value, floor: i64, stale: bool, notes: &mut Notes) -> Option<Look> {
    // A backup that has not yet heard of the bank's opening has nothing to show.
    let before = matches!(&reply, Value::Array(parts)
        if stale && floor == 0 && parts.iter().all(|part| *part == Value::Nil));
    if reply.refusal().is_some() || before {
        return None;
    }
    let numbers: Option<Vec<i64>> = match &reply {
        Value::Array(parts) => parts.iter().map(|part| part.text().parse().ok()).collect(),
        _ => None,
    };
    let sound = numbers.as_ref().and_then(|numbers| {
        let (count, balances) = numbers.split_first()?;
        let whole = OPENING * balances.len() as i64;
        (balances.iter().sum::<i64>() == whole && *count >= floor).then_some((*count, balances))
    });
    let Some((count, balances)) = sound else {
        let whose = if stale { "a backup's" } else { "the primary's" };
        let story = format!("{whose} look, not to be below {floor}: {numbers:?}");
        eprintln!("{story}");
        notes.wrong.push(story);
        return None;
    };
    Some(Look {
        count,
        print: print_of(balances),
        stale,
    })
}

/// A fingerprint of all balances.
pub fn print_of(balances: &[i64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    balances.hash(&mut hasher);
    hasher.finish()
}

/// The final state as the primary has it: count and balances.
pub fn final_look(conn: &mut Conn, accounts: usize) -> (i64, Vec<i64>) {
    conn.set_timeout(PROMPT).expect("a time-out can be set");
    let command = look_command(accounts);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let reply = conn.call(&command).expect("MGET is answered").array();
    let numbers: Vec<i64> = reply.iter().map(Value::number).collect();
    (numbers[0], numbers[1..].to_vec())
}
