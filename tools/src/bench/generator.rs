//! A closed-loop load generator: each connection sends one pipeline of SETs, waits for all its
//! replies, and sends the next. One thread for all connections, since the cores it takes are taken
//! from what it measures.
//!
//! Pipelines are built once and only their keys are patched; replies are compared with the bytes
//! they must be, which checks every one and parses none.

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::epoll;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes of a key and of a value: what the figures are promised for.
pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 100;

/// How many connections, and how many SETs each sends at once.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub connections: usize,
    pub depth: usize,
}

/// What is written to.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: String,
    /// End every pipeline with `WAIT 1`, which must answer 1.
    pub wait: bool,
}

/// Which keys are written.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// Drawn from this many, for as long as the time says.
    Among {
        count: u64,
        warm_up: Duration,
        measured: Duration,
    },
    /// Each of `first..end` once.
    Each { first: u64, end: u64 },
}

/// What was measured.
pub struct Run {
    pub sets: u64,
    pub elapsed: Duration,
    /// Of a whole pipeline, from its first byte out to its last reply in; nanoseconds.
    pub latency: Histogram<u64>,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.sets as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds at this quantile.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Runs the loop to its end. Any reply but the expected one is an error.
pub fn run(target: &Target, shape: Shape, keys: Keys) -> anyhow::Result<Run> {
    ensure!(
        shape.connections > 0 && shape.depth > 0,
        "nothing to send: {shape:?}"
    );
    let mut lines = Vec::new();
    for _ in 0..shape.connections {
        lines.push(Line::open(target, shape.depth)?);
    }
    let mut clockwork = Clockwork::new(keys)?;
    if let [line] = lines.as_mut_slice() {
        // With one connection there is nothing to choose among: a blocking read is one system
        // call less on the way.
        while let Some(batch) = clockwork.draw(shape.depth) {
            line.send(&batch, Instant::now())?;
            while !line.receive()? {}
            clockwork.finish(line, batch.len());
        }
    } else {
        drive(&mut lines, &mut clockwork, shape.depth)?;
    }
    clockwork.into_run()
}

/// Waits for readiness of many connections and keeps each busy.
fn drive(lines: &mut [Line], clockwork: &mut Clockwork, depth: usize) -> anyhow::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
    let mut busy = 0;
    for (number, line) in lines.iter_mut().enumerate() {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&poll, &line.stream, data, epoll::EventFlags::IN).context("epoll")?;
        if let Some(batch) = clockwork.draw(depth) {
            line.send(&batch, Instant::now())?;
            busy += 1;
        }
    }
    let mut ready = Vec::with_capacity(lines.len());
    while busy > 0 {
        ready.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut ready), None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("epoll")?,
        };
        for event in &ready {
            let line = &mut lines[event.data.u64() as usize];
            if !line.receive()? {
                continue;
            }
            clockwork.finish(line, line.sent);
            match clockwork.draw(depth) {
                Some(batch) => line.send(&batch, Instant::now())?,
                None => busy -= 1,
            }
        }
    }
    Ok(())
}

/// One connection with its prepared pipeline.
struct Line {
    stream: TcpStream,
    /// `depth` SETs and, where the target wants it, a WAIT.
    request: Vec<u8>,
    wait: &'static [u8],
    /// Bytes of one SET in `request`, and where its key stands in it.
    stride: usize,
    key_at: usize,
    expected: Vec<u8>,
    received: usize,
    /// SETs of the pipeline under way.
    sent: usize,
    started: Instant,
}

const WAIT: &[u8] = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$4\r\n5000\r\n";

impl Line {
    fn open(target: &Target, depth: usize) -> anyhow::Result<Line> {
        let stream = TcpStream::connect(&target.address)
            .with_context(|| format!("connecting to {}", target.address))?;
        stream.set_nodelay(true)?;
        // Longer than any pause that a healthy system under test may make.
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut one = Vec::new();
        let (key, value) = ([b'0'; KEY_BYTES], [b'v'; VALUE_BYTES]);
        let args: [&[u8]; 3] = [b"SET", &key, &value];
        rig::resp::encode(&mut one, args.into_iter());
        let key_at = one.windows(KEY_BYTES).position(|window| window == key);
        Ok(Line {
            stream,
            stride: one.len(),
            key_at: key_at.context("the key stands in the command")?,
            request: one.repeat(depth),
            wait: if target.wait { WAIT } else { b"" },
            expected: Vec::new(),
            received: 0,
            sent: 0,
            started: Instant::now(),
        })
    }

    /// Sends one pipeline. The socket's buffer is empty, since every reply before has come.
    fn send(&mut self, keys: &[u64], now: Instant) -> anyhow::Result<()> {
        for (number, key) in keys.iter().enumerate() {
            let at = number * self.stride + self.key_at;
            write_key(&mut self.request[at..at + KEY_BYTES], *key);
        }
        if keys.len() != self.sent {
            self.expected = b"+OK\r\n".repeat(keys.len());
            if !self.wait.is_empty() {
                self.expected.extend_from_slice(b":1\r\n");
            }
        }
        self.sent = keys.len();
        self.received = 0;
        self.started = now;
        let end = keys.len() * self.stride;
        if self.wait.is_empty() {
            self.stream.write_all(&self.request[..end])?;
        } else {
            // The WAIT follows the last SET, so that both leave in one system call.
            self.request.truncate(end);
            self.request.extend_from_slice(self.wait);
            self.stream.write_all(&self.request)?;
            self.request.truncate(end);
        }
        Ok(())
    }

    /// Reads once; whether the pipeline is answered.
    fn receive(&mut self) -> anyhow::Result<bool> {
        let mut chunk = [0; 4096];
        let count = self
            .stream
            .read(&mut chunk)
            .context("waiting for replies")?;
        ensure!(count > 0, "the server closed the connection");
        let end = self.received + count;
        if self.expected.get(self.received..end) != Some(&chunk[..count]) {
            let text = String::from_utf8_lossy(&chunk[..count]);
            bail!("an unexpected reply: {text:?}");
        }
        self.received = end;
        Ok(end == self.expected.len())
    }
}

/// Decimal digits, padded with zeros; keys are below 10^16.
fn write_key(place: &mut [u8], mut key: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (key % 10) as u8;
        key /= 10;
    }
}

/// Says which keys come next and when it is over, and keeps the measurements.
struct Clockwork {
    keys: Keys,
    random: rig::Random,
    begun: Instant,
    /// Pipelines that start before it only warm up.
    measure_from: Instant,
    measure_until: Option<Instant>,
    last_finish: Instant,
    sets: u64,
    latency: Histogram<u64>,
}

impl Clockwork {
    fn new(keys: Keys) -> anyhow::Result<Clockwork> {
        let now = Instant::now();
        let (measure_from, measure_until) = match keys {
            Keys::Among {
                warm_up, measured, ..
            } => (now + warm_up, Some(now + warm_up + measured)),
            Keys::Each { .. } => (now, None),
        };
        Ok(Clockwork {
            keys,
            random: rig::Random::new(1),
            begun: now,
            measure_from,
            measure_until,
            last_finish: now,
            sets: 0,
            // Up to a minute, to three digits.
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
        })
    }

    /// The keys of the next pipeline; `None` when it is over.
    fn draw(&mut self, depth: usize) -> Option<Vec<u64>> {
        match &mut self.keys {
            Keys::Among { count, .. } => {
                if self
                    .measure_until
                    .is_some_and(|end| self.last_finish >= end)
                {
                    return None;
                }
                Some((0..depth).map(|_| self.random.below(*count)).collect())
            }
            Keys::Each { first, end } => {
                let upto = end.min(&mut (*first + depth as u64)).to_owned();
                let batch: Vec<u64> = (*first..upto).collect();
                *first = upto;
                (!batch.is_empty()).then_some(batch)
            }
        }
    }

    fn finish(&mut self, line: &Line, sets: usize) {
        let now = Instant::now();
        self.last_finish = now;
        // What finishes in the measured time counts: as many pipelines straddle its start as its
        // end.
        if now >= self.measure_from && self.measure_until.is_none_or(|end| now < end) {
            self.sets += sets as u64;
            let nanos = (now - line.started).as_nanos() as u64;
            self.latency.saturating_record(nanos);
        }
    }

    fn into_run(self) -> anyhow::Result<Run> {
        let elapsed = match self.keys {
            Keys::Among { measured, .. } => measured,
            Keys::Each { .. } => self.last_finish - self.begun,
        };
        ensure!(self.sets > 0, "not one reply came in the measured time");
        Ok(Run {
            sets: self.sets,
            elapsed,
            latency: self.latency,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_sixteen_digits() {
        let mut place = [0; KEY_BYTES];
        write_key(&mut place, 1_234_567);
        assert_eq!(&place, b"0000000001234567");
    }

    #[test]
    fn each_key_is_drawn_once_and_the_last_batch_is_short() {
        let mut clockwork = Clockwork::new(Keys::Each { first: 5, end: 10 }).unwrap();
        assert_eq!(clockwork.draw(3), Some(vec![5, 6, 7]));
        assert_eq!(clockwork.draw(3), Some(vec![8, 9]));
        assert_eq!(clockwork.draw(3), None);
    }
}
