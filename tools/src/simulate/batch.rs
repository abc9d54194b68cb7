//! Many seeds on all cores: told in the order of the seeds, the lowest that fails first.

use super::faults::{ALL, Kinds};
use super::summary::Summary;
use super::world::{self, Ended, Order};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a seed broke.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub story: String,
}

/// How a batch is run.
#[derive(Clone, Copy)]
pub struct Way {
    pub threads: usize,
    /// Each seed twice, comparing.
    pub twice: bool,
    /// A seed that fails ends nothing, and the total is that of the others.
    pub keep_going: bool,
}

struct Results<'a> {
    way: Way,
    /// Hears of every failure, in the order of the seeds.
    tell: &'a mut (dyn FnMut(&Failure) + Send),
    ended: BTreeMap<u64, Result<Ended, String>>,
    total: Summary,
    /// Seeds below are in the total.
    next: u64,
    failure: Option<Failure>,
}

impl Results<'_> {
    fn add(&mut self, seed: u64, result: Result<Ended, String>) {
        self.ended.insert(seed, result);
        while let Some(result) = self.ended.remove(&self.next) {
            match result {
                Ok(ended) => self.total.add(&ended.summary),
                Err(story) => {
                    let seed = self.next;
                    let failure = Failure { seed, story };
                    (self.tell)(&failure);
                    if !self.way.keep_going {
                        self.failure.get_or_insert(failure);
                    }
                }
            }
            self.next += 1;
        }
    }
}

/// Runs `count` seeds from `order.seed` on.
pub fn run(
    order: Order,
    count: u64,
    way: Way,
    tell: &mut (dyn FnMut(&Failure) + Send),
) -> Result<Summary, Failure> {
    let next = AtomicU64::new(order.seed);
    let stop = AtomicBool::new(false);
    let results = Mutex::new(Results {
        way,
        tell,
        ended: BTreeMap::new(),
        total: Summary::default(),
        next: order.seed,
        failure: None,
    });
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= order.seed + count {
                break;
            }
            let result = run_one(Order { seed, ..order }, way.twice);
            if result.is_err() && !way.keep_going {
                // Lower ones that run already come to their end: one of them may fail, too.
                stop.store(true, Ordering::Relaxed);
            }
            let mut results = results.lock().expect("no thread panics with it");
            results.add(seed, result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..way.threads.max(1) {
            scope.spawn(work);
        }
    });
    let results = results.into_inner().expect("no thread panics with it");
    match results.failure {
        Some(failure) => Err(failure),
        None => Ok(results.total),
    }
}

fn run_one(order: Order, twice: bool) -> Result<Ended, String> {
    let _told = Told::of(order.seed);
    let ended = world::run(order)?;
    if twice {
        let again = world::run(order)?;
        if again != ended {
            return Err(format!(
                "two runs of one seed differ: {:x} {:?}, {:x} {:?}",
                ended.digest, ended.summary, again.digest, again.summary
            ));
        }
    }
    Ok(ended)
}

/// Leaves out one kind of fault after the other as long as the run still fails: what is left is
/// needed.
pub fn shrink(order: Order) -> (Kinds, String) {
    let mut without = order.without;
    let mut story = String::new();
    for place in 0..ALL.len() {
        let tried = Order {
            without: without.with(place),
            ..order
        };
        if let Err(said) = world::run(tried) {
            (without, story) = (tried.without, said);
        }
    }
    (without, story)
}

thread_local! {
    static RUNNING: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// While it lives, a panic on this thread names the seed.
struct Told;

impl Told {
    fn of(seed: u64) -> Told {
        RUNNING.set(Some(seed));
        Told
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        RUNNING.set(None);
    }
}

/// A broken assertion in the code under test ends the process: the seed must be known first.
pub fn name_the_seed_of_a_panic(again: impl Fn(u64) -> String + Send + Sync + 'static) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(seed) = RUNNING.get() {
            println!("seed {seed} FAILED: {info}");
            println!("again: {}", again(seed));
        }
        before(info);
    }));
}
