//! Writers in a closed loop that hold the cluster to its promise: every operation carries a ONCE
//! token and is repeated until it has a definite answer, so in the end each ran exactly once.
//!
//! Each lane is one connection in one thread with a counter of its own. Operation n is either the
//! INCR of that counter, whose reply must be the count so far, or a SET of a key of its own. A lost
//! acknowledged write shows as a reply or a final value that is too low, a doubled one as one that
//! is too high.

use crate::client::Client;
use crate::cluster::{PATIENCE, PROMPT};
use crate::poll::{between_attempts, until};
use crate::resp::{Conn, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lanes that run.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    lanes: Vec<JoinHandle<Lane>>,
}

impl Load {
    /// Starts `connections` lanes that find the primary through these nodes. `run` keeps the keys
    /// and tokens of two loads on one cluster apart.
    pub fn start(nodes: &[String], connections: usize, run: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let lanes = (0..connections)
            .map(|number| {
                let mut lane = Lane::new(nodes, format!("{run}:{number}"));
                let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) && lane.operate(&stop) {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    lane
                })
            })
            .collect();
        Load {
            stop,
            acknowledged,
            lanes,
        }
    }

    /// Acknowledged operations so far, of all lanes.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more operations are acknowledged.
    pub fn wait_more(&self, count: u64) {
        let target = self.acknowledged() + count;
        until(
            &format!("{count} more writes are acknowledged"),
            PATIENCE,
            || (self.acknowledged() >= target).then_some(()),
        );
    }

    /// Lets every lane finish its operation, then ends them.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let lanes = self
            .lanes
            .into_iter()
            .map(|lane| lane.join().expect("no lane panics"));
        Report {
            lanes: lanes.collect(),
        }
    }
}

/// One connection's life.
struct Lane {
    name: String,
    client: Client,
    next: u64,
    counted: i64,
    /// Keys of acknowledged SETs, by number.
    facts: Vec<u64>,
    acknowledged: Vec<Instant>,
    refusals: BTreeMap<String, u64>,
    /// Replies that no correct cluster gives.
    wrong: Vec<String>,
    /// The operation without a definite answer when the lane was ended; it may count or not.
    open: Option<u64>,
}

impl Lane {
    fn new(nodes: &[String], name: String) -> Lane {
        Lane {
            name,
            client: Client::new(nodes),
            next: 0,
            counted: 0,
            facts: Vec::new(),
            acknowledged: Vec::new(),
            refusals: BTreeMap::new(),
            wrong: Vec::new(),
            open: None,
        }
    }

    fn counter(&self) -> String {
        format!("count:{}", self.name)
    }

    fn fact(&self, number: u64) -> String {
        format!("fact:{}:{number}", self.name)
    }

    /// Runs one operation to its definite answer. `false` when there was none: the lane was told
    /// to stop and the cluster did not serve for a long time, or an answer was wrong.
    fn operate(&mut self, stop: &AtomicBool) -> bool {
        let number = self.next;
        let is_count = number.is_multiple_of(2);
        let mut given_up = None;
        loop {
            match self.attempt(number, is_count) {
                Some(reply) if reply.refusal().is_none() => {
                    return self.judge(number, is_count, &reply);
                }
                Some(reply) => {
                    let word = reply.refusal().unwrap_or_default().to_owned();
                    self.client.heed(&word);
                    *self.refusals.entry(word).or_default() += 1;
                    between_attempts();
                }
                None => between_attempts(),
            }
            if stop.load(Ordering::Relaxed) {
                let deadline = given_up.get_or_insert_with(|| Instant::now() + PATIENCE);
                if Instant::now() > *deadline {
                    self.open = Some(number);
                    return false;
                }
            }
        }
    }

    /// Sends the operation to the primary; `None` when no reply came on this connection.
    fn attempt(&mut self, number: u64, is_count: bool) -> Option<Value> {
        let token = format!("{}:{number}", self.name);
        let (counter, fact, value) = (self.counter(), self.fact(number), number.to_string());
        let command: &[&str] = if is_count {
            &["ONCE", &token, "INCR", &counter]
        } else {
            &["ONCE", &token, "SET", &fact, &value]
        };
        self.client.attempt(&[command]).pop()
    }

    fn judge(&mut self, number: u64, is_count: bool, reply: &Value) -> bool {
        let expected = if is_count {
            Value::Int(self.counted + 1)
        } else {
            Value::ok()
        };
        if *reply != expected {
            let story = format!(
                "{}: operation {number}: {reply:?}, not {expected:?}",
                self.name
            );
            eprintln!("{story}");
            self.wrong.push(story);
            return false;
        }
        if is_count {
            self.counted += 1;
        } else {
            self.facts.push(number);
        }
        self.acknowledged.push(Instant::now());
        self.next += 1;
        true
    }
}

/// What the lanes saw.
pub struct Report {
    lanes: Vec<Lane>,
}

/// What a check of the final state against the acknowledgements found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub acknowledged: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Operations that never had a definite answer; 0 unless the cluster stopped serving.
    pub open: u64,
    /// Replies that no correct cluster gives.
    pub wrong: Vec<String>,
}

impl Audit {
    /// Panics unless every operation ran exactly once.
    pub fn assert_exactly_once(&self) {
        assert!(
            self.lost == 0 && self.doubled == 0 && self.open == 0 && self.wrong.is_empty(),
            "every acknowledged write exactly once: {self:?}"
        );
    }
}

impl Report {
    /// The longest time without an acknowledgement on any connection that ends after `fault`:
    /// from the last acknowledgement before the silence to the first after it.
    pub fn longest_gap_after(&self, fault: Instant) -> Duration {
        let mut times: Vec<Instant> = self
            .lanes
            .iter()
            .flat_map(|lane| &lane.acknowledged)
            .copied()
            .collect();
        times.sort_unstable();
        let gaps = times
            .windows(2)
            .filter(|pair| pair[1] > fault)
            .map(|pair| pair[1] - pair[0]);
        gaps.max()
            .expect("acknowledgements before and after the fault")
    }

    /// Error replies by their first word, over all lanes.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for (word, count) in self.lanes.iter().flat_map(|lane| &lane.refusals) {
            *sum.entry(word.clone()).or_default() += count;
        }
        sum
    }

    /// Connections that ended or were given up without a reply to what was sent.
    pub fn reconnects(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.client.reconnects).sum()
    }

    /// Holds what was acknowledged against what this node says now.
    pub fn audit(&self, conn: &mut Conn) -> Audit {
        let mut audit = Audit::default();
        conn.set_timeout(PROMPT).expect("a time-out can be set");
        for lane in &self.lanes {
            audit.acknowledged += lane.acknowledged.len() as u64;
            audit.open += u64::from(lane.open.is_some());
            audit.wrong.extend(lane.wrong.iter().cloned());
            let value = conn
                .call(&["GET", &lane.counter()])
                .expect("GET is answered");
            let stored = if value == Value::Nil {
                0
            } else {
                value.number()
            };
            // An open operation may have been counted or not: neither is a fault.
            let may = i64::from(lane.open.is_some_and(|number| number.is_multiple_of(2)));
            audit.lost += (lane.counted - stored).max(0).unsigned_abs();
            audit.doubled += (stored - lane.counted - may).max(0).unsigned_abs();
            audit.lost += lane.missing_facts(conn);
        }
        audit
    }
}

impl Lane {
    fn missing_facts(&self, conn: &mut Conn) -> u64 {
        let mut missing = 0;
        for numbers in self.facts.chunks(500) {
            let keys: Vec<String> = numbers.iter().map(|&number| self.fact(number)).collect();
            let mut args = vec!["MGET"];
            args.extend(keys.iter().map(String::as_str));
            let values = conn.call(&args).expect("MGET is answered").array();
            assert_eq!(values.len(), numbers.len(), "MGET answers every key");
            let present = numbers.iter().zip(&values);
            missing += present
                .filter(|(number, value)| value.text() != number.to_string())
                .count() as u64;
        }
        missing
    }
}
