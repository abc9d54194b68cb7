//! Steady load with keys of its own, and what each client was told, held against what is there.
//!
//! Each client writes in turn to a counter, whose every reply must be the next number, and to a new
//! key that must not have been there. All writes carry ONCE tokens (see `crate::client`), so that a
//! write that is done twice or not at all after its acknowledgement is one the cluster is to blame
//! for. The keys end by themselves after a while: also those of a drill that was killed.

use crate::client::{Client, Error, Options, SetOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// When keys end that nobody has removed.
const KEYS_LIVE: Duration = Duration::from_secs(3600);
/// How long one call may wait for a primary: longer than any outage worth measuring.
const CALL: Duration = Duration::from_secs(120);
/// Keys in one MGET or DEL.
const BATCH: usize = 500;

/// What to write.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Any node's address.
    pub nodes: Vec<String>,
    /// What the names of all keys begin with.
    pub prefix: String,
    pub clients: u32,
    /// Between two writes of one client.
    pub every: Duration,
}

#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

/// Clients at work, in a thread of their own.
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Vec<Told>, String>>,
}

/// What one client was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    counter: String,
    /// Between these the counter must be.
    least: i64,
    most: i64,
    /// Keys whose write was acknowledged.
    written: Vec<String>,
    /// Keys of which that is not known.
    unsure: Vec<String>,
    acknowledged: Vec<Instant>,
    pub lost: u64,
    pub doubled: u64,
    pub errors: BTreeMap<String, u64>,
}

impl Load {
    pub fn start(plan: Plan) -> Load {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(write_all(plan, own))
        });
        Load { shared, thread }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn stop(self) -> Result<Vec<Told>, String> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| "the load panicked".to_owned())?
    }
}

async fn connect(nodes: &[String]) -> Result<Client, String> {
    let options = Options {
        timeout: CALL,
        ..Options::default()
    };
    let client = Client::connect_with(nodes.iter().cloned(), options).await;
    client.map_err(|error| error.to_string())
}

async fn write_all(plan: Plan, shared: Arc<Shared>) -> Result<Vec<Told>, String> {
    let mut tasks = Vec::new();
    for number in 0..plan.clients {
        // A connection for each: one that is lost with the primary must not be all there is.
        let client = connect(&plan.nodes).await?;
        let (prefix, every, shared) = (plan.prefix.clone(), plan.every, shared.clone());
        tasks.push(tokio::spawn(async move {
            write(&client, &format!("{prefix}{number}"), every, &shared).await
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.map_err(|error| error.to_string())??);
    }
    Ok(all)
}

/// One client until the load is over.
async fn write(
    client: &Client,
    own: &str,
    every: Duration,
    shared: &Shared,
) -> Result<Told, String> {
    let mut told = Told {
        counter: format!("{own}:count"),
        ..Told::default()
    };
    let once = SetOptions::new().if_absent().expire_after(KEYS_LIVE);
    let begun = client.set_with(&told.counter, "0", &once).await;
    if !begun.map_err(|error| error.to_string())? {
        return Err(format!("{} is there already", told.counter));
    }
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0_u64;
    while !shared.is_over.load(Ordering::Relaxed) {
        tick.tick().await;
        turn += 1;
        let is_told = if turn.is_multiple_of(2) {
            let counted = client.incr(&told.counter).await;
            told.count(counted)
        } else {
            let key = format!("{own}:{turn}");
            let was_set = client.set_with(&key, turn.to_string(), &once).await;
            told.set(key, was_set)
        };
        if is_told {
            told.acknowledged.push(Instant::now());
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(told)
}

impl Told {
    /// What INCR answered; whether it was acknowledged.
    fn count(&mut self, answer: Result<i64, Error>) -> bool {
        match answer {
            Ok(value) => {
                self.doubled += value.saturating_sub(self.most + 1).max(0).unsigned_abs();
                self.lost += (self.least + 1).saturating_sub(value).max(0).unsigned_abs();
                (self.least, self.most) = (value, value);
                true
            }
            Err(error) => {
                let is_done = matches!(error, Error::ReplyGone { .. });
                self.most += i64::from(!error.is_not_done());
                self.least += i64::from(is_done);
                self.note(&error);
                is_done
            }
        }
    }

    /// What SET NX of a new key answered; whether it was acknowledged.
    fn set(&mut self, key: String, answer: Result<bool, Error>) -> bool {
        match answer {
            Ok(was_set) => {
                // Nobody else writes it, and a repeat is answered as the first time.
                self.doubled += u64::from(!was_set);
                self.written.push(key);
                true
            }
            Err(error) => {
                let is_done = matches!(error, Error::ReplyGone { .. });
                if is_done {
                    self.written.push(key);
                } else if !error.is_not_done() {
                    self.unsure.push(key);
                }
                self.note(&error);
                is_done
            }
        }
    }

    fn note(&mut self, error: &Error) {
        let name = match error {
            Error::Refused { code, .. } => code.clone(),
            Error::Unknown { .. } => "UNKNOWN".to_owned(),
            other => other.to_string(),
        };
        *self.errors.entry(name).or_default() += 1;
    }

    /// Holds the counter's last value against what was told.
    fn hold(&mut self, value: i64) {
        self.lost += self.least.saturating_sub(value).max(0).unsigned_abs();
        self.doubled += value.saturating_sub(self.most).max(0).unsigned_abs();
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        let counter = std::iter::once(&self.counter);
        self.written.iter().chain(&self.unsure).chain(counter)
    }
}

/// Reads everything back, and adds to each client's `lost` and `doubled`.
pub async fn check(nodes: &[String], all: &mut [Told]) -> Result<(), String> {
    let client = connect(nodes).await?;
    for told in all {
        for keys in told.written.chunks(BATCH) {
            let values = client.mget(keys).await.map_err(|error| error.to_string())?;
            let lost = keys.iter().zip(values).filter(|(key, value)| {
                let number = key.rsplit(':').next().unwrap_or_default();
                value.as_deref() != Some(number.as_bytes())
            });
            told.lost += lost.count() as u64;
        }
        let value = client.get(&told.counter).await;
        let value = value.map_err(|error| error.to_string())?;
        let number = value
            .as_deref()
            .and_then(|text| std::str::from_utf8(text).ok());
        // A counter that is gone has lost all of it.
        told.hold(number.and_then(|text| text.parse().ok()).unwrap_or(0));
    }
    Ok(())
}

/// Removes every key of the load; answers how many there were.
pub async fn remove(nodes: &[String], all: &[Told]) -> Result<u64, String> {
    let client = connect(nodes).await?;
    let keys: Vec<&String> = all.iter().flat_map(Told::keys).collect();
    let mut removed = 0;
    for keys in keys.chunks(BATCH) {
        removed += client.del(keys).await.map_err(|error| error.to_string())?;
    }
    Ok(removed)
}

/// The longest time without an acknowledgement to any client, of the gaps that end after `fault`.
pub fn longest_gap(all: &[Told], fault: Instant) -> Option<Duration> {
    let mut moments: Vec<Instant> = all
        .iter()
        .flat_map(|told| &told.acknowledged)
        .copied()
        .collect();
    moments.sort();
    let gaps = moments.windows(2).filter(|pair| pair[1] > fault);
    gaps.map(|pair| pair[1] - pair[0]).max()
}

/// How long the client that waited longest had no acknowledgement, as above.
pub fn longest_wait(all: &[Told], fault: Instant) -> Option<Duration> {
    let each = all.iter().map(std::slice::from_ref);
    each.filter_map(|one| longest_gap(one, fault)).max()
}

/// Errors that clients were told, by name.
pub fn errors(all: &[Told]) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (name, count) in all.iter().flat_map(|told| &told.errors) {
        *sum.entry(name.clone()).or_default() += count;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Error = Error::Unknown { position: None };

    #[test]
    fn a_counter_that_falls_back_is_lost_and_one_that_runs_ahead_is_doubled() {
        let mut told = Told::default();
        assert!(told.count(Ok(1)) && told.count(Ok(2)));
        assert!(!told.count(Err(UNKNOWN)));
        assert_eq!((told.least, told.most), (2, 3));
        assert!(told.count(Ok(4)), "the unknown one was done");
        assert!(!told.count(Err(Error::Timeout)), "certainly not done");
        assert!(told.count(Ok(5)));
        assert_eq!((told.lost, told.doubled), (0, 0));
        told.count(Ok(7));
        assert_eq!((told.lost, told.doubled), (0, 1));
        told.count(Ok(7));
        assert_eq!((told.lost, told.doubled), (1, 1));
        told.hold(5);
        assert_eq!((told.lost, told.doubled), (3, 1));
        told.hold(9);
        assert_eq!((told.lost, told.doubled), (3, 3));
        assert_eq!(told.errors.get("UNKNOWN"), Some(&1));
    }

    #[test]
    fn a_new_key_that_was_there_was_written_twice() {
        let mut told = Told::default();
        assert!(told.set("a:1".to_owned(), Ok(true)));
        assert!(told.set("a:3".to_owned(), Ok(false)));
        assert!(!told.set("a:5".to_owned(), Err(UNKNOWN)));
        assert_eq!(told.doubled, 1);
        assert_eq!((told.written.len(), told.unsure.len()), (2, 1));
        assert_eq!(told.keys().count(), 4);
    }

    #[test]
    fn the_gap_is_over_all_clients_and_the_wait_of_one() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let client = |moments: &[u64]| Told {
            acknowledged: moments.iter().map(|ms| at(*ms)).collect(),
            ..Told::default()
        };
        let all = [client(&[0, 600, 610, 900]), client(&[5, 620, 700])];
        assert_eq!(longest_gap(&all, at(50)), Some(Duration::from_millis(595)));
        assert_eq!(longest_wait(&all, at(50)), Some(Duration::from_millis(615)));
        assert_eq!(longest_gap(&all, at(615)), Some(Duration::from_millis(200)));
        assert_eq!(longest_gap(&all, at(900)), None);
    }
}
