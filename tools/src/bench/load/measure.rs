//! What one run measured.
//!
//! A closed loop measures from the send to the answer. An open loop measures from the moment at
//! which the request was due, so that what a stall holds up is counted for all that should have
//! started meanwhile (coordinated omission).

use super::usage::Usage;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Longest latency that is told apart.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// How long a slice of a run is.
pub const SLICE: Duration = Duration::from_secs(1);

/// Nanoseconds, to three digits.
pub fn histogram() -> Histogram<u64> {
    let max = LATENCY_MAX.as_nanos() as u64;
    Histogram::new_with_bounds(1, max, 3).expect("the bounds are in order")
}

/// One second of a run.
#[derive(Clone)]
pub struct Slice {
    /// Operations that finished in it.
    pub operations: u64,
    /// Of the requests that began in it.
    pub latency: Histogram<u64>,
}

/// What a run gave.
#[derive(Clone)]
pub struct Run {
    pub operations: u64,
    pub elapsed: Duration,
    /// Of requests, each of which may hold many operations; nanoseconds.
    pub latency: Histogram<u64>,
    pub slices: Vec<Slice>,
    /// What the servers used in the measured time.
    pub servers: Usage,
    /// Processor time of the thread that made the load.
    pub own_cpu: Duration,
    /// Requests that were due and had no answer when the run was given up.
    pub unanswered: u64,
}

impl Run {
    /// With nothing measured besides these latencies.
    pub fn of(operations: u64, elapsed: Duration, latency: Histogram<u64>) -> Run {
        Run {
            operations,
            elapsed,
            latency,
            slices: Vec::new(),
            servers: Usage::default(),
            own_cpu: Duration::ZERO,
            unanswered: 0,
        }
    }

    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds at this quantile.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Microseconds of the servers' processor time for one operation.
    pub fn cpu_us(&self) -> f64 {
        self.servers.cpu.as_secs_f64() * 1e6 / self.operations as f64
    }

    /// Bytes written to the disk for one operation, all copies together.
    pub fn written(&self) -> f64 {
        self.servers.written as f64 / self.operations as f64
    }

    /// How much of one core the load took.
    pub fn own_share(&self) -> f64 {
        self.own_cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// Which requests count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counts {
    /// Those that finish in the measured time. Of the operations of one that straddles an end of
    /// it, the part that its time there is of all its time: so few large requests do not make the
    /// throughput jump by one request more or less.
    Finished,
    /// Those due in the measured time, however late they finish.
    Due,
}

pub struct Recorder {
    from: Instant,
    until: Instant,
    counts: Counts,
    last: Instant,
    operations: f64,
    latency: Histogram<u64>,
    slices: Vec<Slice>,
}

impl Recorder {
    pub fn new(from: Instant, until: Instant, counts: Counts) -> Recorder {
        Recorder {
            from,
            until,
            counts,
            last: from,
            operations: 0.0,
            latency: histogram(),
            slices: Vec::new(),
        }
    }

    /// A request of so many operations that began then has its answer now.
    pub fn finish(&mut self, began: Instant, now: Instant, operations: u64) {
        let measured = self.from..self.until;
        self.last = now;
        if measured.contains(&now) {
            self.slice(now).operations += operations;
        }
        let (part, counted) = match self.counts {
            Counts::Finished => (self.part_within(began, now), now),
            Counts::Due => (f64::from(u8::from(measured.contains(&now))), began),
        };
        self.operations += part * operations as f64;
        if measured.contains(&counted) {
            self.record(began, now);
        }
    }

    fn part_within(&self, began: Instant, now: Instant) -> f64 {
        let within = now
            .min(self.until)
            .saturating_duration_since(began.max(self.from));
        let all = (now - began).as_secs_f64();
        // What took no time at all is within or not.
        if all > 0.0 {
            within.as_secs_f64() / all
        } else {
            f64::from(u8::from((self.from..self.until).contains(&now)))
        }
    }

    /// A request that has no answer took at least until now.
    pub fn give_up(&mut self, began: Instant, now: Instant) {
        if (self.from..self.until).contains(&began) {
            self.record(began, now);
        }
    }

    fn record(&mut self, began: Instant, now: Instant) {
        let nanos = (now - began).as_nanos() as u64;
        self.latency.saturating_record(nanos);
        self.slice(began.max(self.from))
            .latency
            .saturating_record(nanos);
    }

    fn slice(&mut self, at: Instant) -> &mut Slice {
        let number = (at - self.from).as_nanos() / SLICE.as_nanos();
        let number = number as usize;
        while self.slices.len() <= number {
            self.slices.push(Slice {
                operations: 0,
                latency: histogram(),
            });
        }
        &mut self.slices[number]
    }

    /// `None` when nothing finished in the measured time. A run that ended by itself took until
    /// its last answer.
    pub fn into_run(self, ended_early: bool) -> Option<Run> {
        let end = if ended_early { self.last } else { self.until };
        let operations = self.operations.round() as u64;
        (operations > 0).then(|| Run {
            slices: self.slices,
            ..Run::of(operations, end - self.from, self.latency)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(counts: Counts) -> (Recorder, impl Fn(u64) -> Instant) {
        let begin = Instant::now();
        let at = move |ms| begin + Duration::from_millis(ms);
        (Recorder::new(at(1000), at(4000), counts), at)
    }

    #[test]
    fn a_closed_loop_counts_what_is_done_in_the_measured_time() {
        let (mut recorder, at) = recorder(Counts::Finished);
        recorder.finish(at(0), at(900), 100);
        recorder.finish(at(900), at(1100), 100);
        recorder.finish(at(3900), at(4300), 100);
        recorder.finish(at(4000), at(4300), 100);
        let run = recorder.into_run(false).unwrap();
        // A half of the second and a quarter of the third.
        assert_eq!((run.operations, run.latency.len()), (75, 1));
        assert_eq!(run.elapsed, Duration::from_secs(3));
        assert!((run.latency_us(0.5) / 200_000.0 - 1.0).abs() < 0.001);
    }

    #[test]
    fn an_open_loop_counts_the_wait_of_what_a_stall_held_up() {
        let (mut recorder, at) = recorder(Counts::Due);
        // One request each 100 ms; nothing is answered from 2000 to 4500.
        for due in (0..4000).step_by(100) {
            let answered = if due < 2000 { due + 1 } else { 4500 };
            recorder.finish(at(due), at(answered), 1);
        }
        let run = recorder.into_run(false).unwrap();
        // Those due in the measured time are 30, of which 20 waited for the end of the stall.
        assert_eq!((run.operations, run.latency.len()), (10, 30));
        assert!(run.latency_us(0.3) < 2000.0);
        assert!((run.latency_us(0.5) / 1_000_000.0 - 1.0).abs() < 0.01);
        assert!((run.latency_us(1.0) / 2_500_000.0 - 1.0).abs() < 0.001);
        let finished: Vec<u64> = run.slices.iter().map(|slice| slice.operations).collect();
        assert_eq!(finished, [10, 0, 0]);
        assert!(run.slices[1].latency.max() > 2_400_000_000);
    }

    #[test]
    fn what_was_never_answered_counts_as_long_as_it_was_waited_for() {
        let (mut recorder, at) = recorder(Counts::Due);
        recorder.finish(at(1500), at(1501), 1);
        recorder.give_up(at(2000), at(9000));
        recorder.give_up(at(5000), at(9000));
        let run = recorder.into_run(false).unwrap();
        assert_eq!(run.latency.len(), 2);
        assert!(run.latency_us(1.0) > 6_900_000.0);
    }

    #[test]
    fn nothing_finished_is_no_run() {
        let (recorder, _) = recorder(Counts::Finished);
        assert!(recorder.into_run(false).is_none());
    }
}
