//! Knows clients: their protocol, their sessions, and what they may look at besides data.

pub mod admin;
mod clients;
pub mod command;
mod info;
pub mod listener;
mod operator;
pub mod resp;
pub mod run;
mod sentinel;
mod session;
mod slowlog;

pub use clients::{Client, Clients};

use crate::config::Config;
use crate::limits;
use crate::node::client::{Control, Handle, Op, Request, SessionId};
use crate::node::refusal::Refusal;
use crate::state::Reply;
use slowlog::SlowLog;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The Redis whose behaviour clients may count on; libraries choose features by it.
pub const REDIS_VERSION: &str = "7.2.0";

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub resp: resp::Limits,
    /// Unanswered operations of one session; beyond it its socket is not read.
    pub in_flight_max: usize,
    /// Bytes of unanswered writes of one session; beyond it its socket is not read.
    pub in_flight_bytes_max: usize,
    /// A client that reads nothing of its replies for so long is closed.
    pub write_timeout: Duration,
    pub once_ttl: Duration,
    pub once_max: u64,
    pub http_connections_max: usize,
}

/// What CONFIG SET changes, for this process's life.
#[derive(Debug)]
pub struct Tunable {
    pub max_clients: AtomicU64,
    /// 0: never.
    pub idle_timeout_s: AtomicU64,
    /// Bytes of replies that one session may have under way; beyond it its socket is not read.
    pub output_bytes_max: AtomicU64,
    /// `u64::MAX`: nothing is slow.
    pub slowlog_us: AtomicU64,
    pub slowlog_entries_max: AtomicU64,
    /// 1: only loopback is served, because nobody proves who they are.
    pub protected: AtomicU64,
}

impl Settings {
    pub fn new(config: &Config) -> Settings {
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        let request_bytes_max = bytes(config.max_request).min(limits::REQUEST_BYTES_MAX);
        Settings {
            resp: resp::Limits {
                args_max: limits::ARGUMENTS_MAX,
                bulk_bytes_max: bytes(config.max_bulk).min(limits::BULK_BYTES_MAX),
                inline_bytes_max: limits::INLINE_BYTES_MAX,
                // Framing takes at most as much as the log's encoding of an argument.
                command_bytes_max: request_bytes_max
                    + limits::ARGUMENTS_MAX * limits::ARGUMENT_OVERHEAD_BYTES,
            },
            in_flight_max: limits::SESSION_REQUESTS_MAX,
            in_flight_bytes_max: request_bytes_max,
            write_timeout: Duration::from_secs(60),
            once_ttl: config.once_ttl,
            once_max: config.once_max,
            http_connections_max: 64,
        }
    }
}

impl Tunable {
    fn new(config: &Config) -> Tunable {
        Tunable {
            max_clients: u64::from(config.max_clients).into(),
            idle_timeout_s: config.idle_timeout.as_secs().into(),
            output_bytes_max: config.output_buffer.0.into(),
            slowlog_us: 10_000.into(),
            slowlog_entries_max: (limits::SLOWLOG_ENTRIES_MAX as u64).into(),
            protected: 1.into(),
        }
    }
}

/// Upper ends of the latency buckets in microseconds; the last bucket is everything above.
const BUCKETS_US: [u64; 14] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 5_000_000,
];

/// Counts since the process began, or since CONFIG RESETSTAT.
#[derive(Debug, Default)]
pub struct Counters {
    pub connections: AtomicU64,
    pub connections_refused: AtomicU64,
    pub commands: AtomicU64,
    pub errors: AtomicU64,
    pub protocol_errors: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Commands by the time from being read to being answered by the engine.
    latency: [AtomicU64; BUCKETS_US.len() + 1],
    latency_sum_us: AtomicU64,
}

impl Counters {
    /// `count` commands of one read took `us` until the last of them was answered.
    fn observe(&self, us: u64, count: u64) {
        let bucket = BUCKETS_US.partition_point(|end| *end < us);
        self.latency[bucket].fetch_add(count, Relaxed);
        self.latency_sum_us.fetch_add(us * count, Relaxed);
    }

    fn reset(&self) {
        let counts = [
            &self.connections,
            &self.connections_refused,
            &self.commands,
            &self.errors,
            &self.protocol_errors,
            &self.bytes_in,
            &self.bytes_out,
            &self.latency_sum_us,
        ];
        counts
            .into_iter()
            .chain(&self.latency)
            .for_each(|count| count.store(0, Relaxed));
    }
}

/// What all sessions, listeners and the HTTP side share.
#[derive(Debug)]
pub struct Front {
    pub handle: Handle,
    pub settings: Settings,
    pub tunable: Tunable,
    pub clients: Clients,
    pub counters: Counters,
    slowlog: SlowLog,
    sessions: AtomicU64,
}

impl Front {
    pub fn new(handle: Handle, config: &Config) -> Arc<Front> {
        Arc::new(Front {
            handle,
            settings: Settings::new(config),
            tunable: Tunable::new(config),
            clients: Clients::default(),
            counters: Counters::default(),
            slowlog: SlowLog::default(),
            sessions: AtomicU64::new(0),
        })
    }

    /// A number that no session of this process had.
    pub fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Relaxed) + 1)
    }

    /// Asks one thing of the engine, in a session of its own: for HTTP and for main.
    pub async fn ask(&self, control: Control, timeout: Duration) -> Reply {
        let session = self.next_session();
        let mut answers = self.handle.open_session(session);
        let op = Op::Control(Box::new(control));
        self.handle.submit(session, vec![Request { seq: 0, op }]);
        let answer = tokio::time::timeout(timeout, answers.recv()).await;
        self.handle.close_session(session);
        match answer {
            Ok(Some(answers)) => match answers.into_iter().next() {
                Some(answer) => answer.reply,
                None => Refusal::Busy { what: "the engine" }.into(),
            },
            Ok(None) => Refusal::Stopping.into(),
            Err(_) => Refusal::Busy { what: "the engine" }.into(),
        }
    }
}

/// Wall time since 1970, for people: TIME, CLIENT LIST, SLOWLOG. Nothing is decided by it.
#[expect(
    clippy::disallowed_methods,
    reason = "TIME asks for this node's own clock"
)]
pub fn wall_clock() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// An advertised `host:port` as clients want it: host without brackets, port as a number.
pub fn split_address(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    (host, port.parse().unwrap_or(0))
}

/// Anything printable as a bulk string.
fn text(value: impl ToString) -> Reply {
    Reply::Bulk(value.to_string().into())
}

#[cfg(test)]
mod tests;
