//! Waiting for a state: asks again until it holds or a deadline passes.
//!
//! The only file of all tests that sleeps (`tidy` checks that), and only between two questions.

use std::time::{Duration, Instant};

/// The wait between two questions of one poll.
const BETWEEN: Duration = Duration::from_millis(5);

/// Asks until `probe` has an answer; panics with `what` when `limit` has passed without one.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    match eventually(limit, &mut probe) {
        Some(answer) => answer,
        None => panic!("waited {limit:?} in vain: {what}"),
    }
}

/// Asks until `probe` has an answer; `None` when `limit` has passed without one.
pub fn eventually<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(BETWEEN);
    }
}

/// Checks all through `span` that something stays true: `check` panics when it does not. For what
/// must *not* happen, which no state can announce.
pub fn holds_for(span: Duration, mut check: impl FnMut()) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        check();
        std::thread::sleep(BETWEEN);
    }
}

/// Waits for a moment: for faults that last and clients that keep to a pace.
pub fn until_moment(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// The pause of a client between two attempts to reach a primary.
pub fn between_attempts() {
    std::thread::sleep(Duration::from_millis(1));
}
