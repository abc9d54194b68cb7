//! The one task behind a client: a connection to the primary, the calls that wait for it and those
//! that are under way, and what becomes of both when the primary is another.
//!
//! Invariants: `sent` holds the calls whose frames are in `output` or on the wire, in that order,
//! and their replies come in that order. A plain call is in `sent` at most once in its life, unless
//! it is certain that it was not done.

use super::call::{Call, Frame, Trouble};
use super::discover::{self, Found, NODES_MAX};
use super::reply::{Malformed, Reply, parse};
use super::verdict::{Outcome, Verdict};
use super::{Error, Position};
use crate::limits;
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Calls under way; a node reads no further while it has so many unanswered.
const SENT_MAX: usize = limits::SESSION_REQUESTS_MAX / 2;
/// Calls taken from the queue that wait for a connection or for room on it.
pub const WAITING_MAX: usize = limits::SESSION_REQUESTS_MAX;
/// Bytes waiting for the socket before no further call is added.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;
const TICK: Duration = Duration::from_millis(20);
/// How long calls are under way without a sign of life before others are asked whether the primary
/// has moved.
const SILENCE: Duration = Duration::from_millis(100);
/// Longer than a node makes a write wait before it says UNKNOWN: the connection is dead.
const STALLED: Duration = Duration::from_secs(10);

type Lookup = JoinHandle<Result<Found, String>>;

struct Conn {
    stream: TcpStream,
    address: String,
    epoch: u64,
    input: BytesMut,
    output: BytesMut,
    sent: VecDeque<Call>,
    /// When something came, or when it began to be waited for.
    heard: Instant,
    /// It is primary no more: nothing is sent, what is under way is still answered.
    is_leaving: bool,
}

pub struct Driver {
    calls: mpsc::Receiver<Call>,
    waiting: VecDeque<Call>,
    /// Sent again at the next tick.
    parked: Vec<Call>,
    /// Refused by a node that is not primary: the oldest of those that wait.
    refused: VecDeque<Call>,
    conn: Option<Conn>,
    lookup: Option<Lookup>,
    nodes: Vec<String>,
    /// The node that was left last because it failed.
    suspect: Option<String>,
    /// Before the next look around.
    pause: Duration,
    trouble: Arc<Trouble>,
}

impl Driver {
    pub fn new(calls: mpsc::Receiver<Call>, found: Found, trouble: Arc<Trouble>) -> Driver {
        let mut driver = Driver {
            calls,
            waiting: VecDeque::new(),
            parked: Vec::new(),
            refused: VecDeque::new(),
            conn: None,
            lookup: None,
            nodes: Vec::new(),
            suspect: None,
            pause: Duration::ZERO,
            trouble,
        };
        driver.install(found);
        driver
    }

    /// Until every client is gone.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inbox = Vec::new();
        loop {
            self.send();
            self.steer();
            let room = WAITING_MAX.saturating_sub(self.waiting.len());
            tokio::select! {
                count = self.calls.recv_many(&mut inbox, room), if room > 0 => {
                    if count == 0 {
                        return;
                    }
                    self.waiting.extend(inbox.drain(..));
                }
                ready = ready(self.conn.as_ref()), if self.conn.is_some() => self.exchange(ready),
                found = looked(self.lookup.as_mut()), if self.lookup.is_some() => {
                    self.lookup = None;
                    self.arrive(found);
                }
                _ = tick.tick(), if self.is_busy() => self.tick(),
            }
        }
    }

    fn is_busy(&self) -> bool {
        let is_asking = self.conn.as_ref().is_some_and(|conn| !conn.sent.is_empty());
        is_asking || !self.waiting.is_empty() || !self.parked.is_empty()
    }

    /// Puts what waits on the wire: everything that is there, in one write.
    fn send(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        while !conn.is_leaving && conn.sent.len() < SENT_MAX && conn.output.len() < OUTPUT_BYTES_MAX
        {
            let Some(mut call) = self.waiting.pop_front() else {
                break;
            };
            if !call.depart() {
                continue;
            }
            if conn.sent.is_empty() {
                conn.heard = Instant::now();
            }
            conn.output.extend_from_slice(&call.frame);
            conn.sent.push_back(call);
        }
        if conn.write().is_err() {
            self.take_in(true);
            self.part();
        }
    }

    /// Leaves a node that is primary no more, and looks for another where calls wait.
    fn steer(&mut self) {
        let is_left = |conn: &Conn| conn.is_leaving && conn.sent.is_empty();
        if self.conn.as_ref().is_some_and(is_left) {
            self.part();
        }
        if self.conn.is_none() && !self.waiting.is_empty() {
            self.look();
        }
    }

    fn look(&mut self) {
        if self.lookup.is_some() {
            return;
        }
        let (nodes, suspect, pause) = (self.nodes.clone(), self.suspect.clone(), self.pause);
        self.lookup = Some(tokio::spawn(async move {
            sleep(pause).await;
            discover::primary(nodes, suspect).await
        }));
        let longer = (pause * 2).max(limits::DIAL_PAUSE_MIN);
        self.pause = longer.min(limits::DIAL_PAUSE_MAX);
    }

    fn exchange(&mut self, ready: io::Result<Ready>) {
        let is_open = match ready {
            Ok(ready) => self.take_in(ready.is_readable() || ready.is_read_closed()),
            Err(_) => false,
        };
        if !is_open {
            self.part();
        }
    }

    /// Reads, and answers whatever came, also before the end; false at the end.
    fn take_in(&mut self, is_readable: bool) -> bool {
        let is_open = match &mut self.conn {
            Some(conn) if is_readable => conn.read(),
            _ => Ok(true),
        };
        self.answer_all().is_ok() && matches!(is_open, Ok(true))
    }

    fn answer_all(&mut self) -> Result<(), Malformed> {
        while let Some(conn) = &mut self.conn {
            let Some((reply, bytes)) = parse(&conn.input)? else {
                break;
            };
            conn.input.advance(bytes);
            // A node that speaks unasked, as it does before it turns a client away.
            let call = conn.sent.front_mut().ok_or(Malformed)?;
            call.replied += 1;
            if call.replied < call.replies {
                if let Reply::Error(text) = reply {
                    call.refused.get_or_insert(text);
                }
                continue;
            }
            let call = conn.sent.pop_front().ok_or(Malformed)?;
            self.settle(call, reply);
        }
        Ok(())
    }

    fn settle(&mut self, mut call: Call, reply: Reply) {
        let reply = match (reply, call.refused.take()) {
            (Reply::Error(text), Some(first)) if text.starts_with("EXECABORT") => {
                Reply::Error(first)
            }
            (reply, _) => reply,
        };
        match Verdict::of(&reply) {
            Verdict::Elsewhere(hint) => {
                self.learn(hint);
                if let (Some(conn), Reply::Error(text)) = (&mut self.conn, &reply) {
                    conn.is_leaving = true;
                    self.trouble.set(Some(format!("{}: {text}", conn.address)));
                }
                call.take_back();
                self.refused.push_back(call);
            }
            Verdict::Unknown(position) => {
                if !call.is_repeatable() {
                    ask_outcome(&mut call, position);
                }
                call.is_ambiguous = true;
                self.parked.push(call);
            }
            Verdict::Final => {
                self.pause = Duration::ZERO;
                self.trouble.set(None);
                self.conclude(call, reply);
            }
        }
    }

    fn conclude(&mut self, mut call: Call, reply: Reply) {
        let Some((position, frame, replies)) = call.asking.take() else {
            call.finish(Ok(reply));
            return;
        };
        match Outcome::of(reply) {
            Outcome::Done(reply) => call.finish(Ok(reply)),
            Outcome::ReplyGone => call.finish(Err(Error::ReplyGone { position })),
            Outcome::Pending => {
                call.asking = Some((position, frame, replies));
                self.parked.push(call);
            }
            // It never will be done, so it may be sent again.
            Outcome::Never => {
                (call.frame, call.replies, call.is_ambiguous) = (frame, replies, false);
                call.take_back();
                self.waiting.push_front(call);
            }
            Outcome::NotKnown => {
                call.finish(Err(Error::Unknown {
                    position: Some(position),
                }));
            }
        }
    }

    /// The connection ends. What it had not answered goes to the next one, where that is safe.
    fn part(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        self.suspect = Some(conn.address);
        let mut calls = std::mem::take(&mut self.refused);
        for mut call in conn.sent {
            if call.is_repeatable() {
                call.is_ambiguous = true;
                calls.push_back(call);
            } else {
                call.finish(Err(Error::Unknown { position: None }));
            }
        }
        calls.append(&mut self.waiting);
        self.waiting = calls;
    }

    fn arrive(&mut self, found: Result<Found, String>) {
        let found = match found {
            Ok(found) => found,
            // While connected, it only says that nobody else is primary.
            Err(_) if self.conn.is_some() => return,
            Err(trouble) => return self.trouble.set(Some(trouble)),
        };
        if let Some(conn) = &self.conn {
            let is_stalled = !conn.sent.is_empty() && conn.heard.elapsed() > STALLED;
            if found.epoch <= conn.epoch && !is_stalled {
                return;
            }
            self.part();
        }
        self.install(found);
    }

    fn install(&mut self, found: Found) {
        self.learn(found.nodes);
        self.conn = Some(Conn {
            stream: found.stream,
            address: found.address,
            epoch: found.epoch,
            input: BytesMut::new(),
            output: BytesMut::new(),
            sent: VecDeque::new(),
            heard: Instant::now(),
            is_leaving: false,
        });
    }

    fn learn(&mut self, nodes: impl IntoIterator<Item = String>) {
        for node in nodes {
            if !self.nodes.contains(&node) && self.nodes.len() < NODES_MAX {
                self.nodes.push(node);
            }
        }
    }

    fn tick(&mut self) {
        self.waiting.extend(self.parked.drain(..));
        match &self.conn {
            None => self.waiting.retain(|call| !call.is_abandoned()),
            Some(conn) if !conn.sent.is_empty() && conn.heard.elapsed() > SILENCE => {
                self.suspect = Some(conn.address.clone());
                self.look();
            }
            Some(_) => {}
        }
    }
}

fn ask_outcome(call: &mut Call, position: Position) {
    let Position {
        generation,
        epoch,
        lsn,
    } = position;
    let numbers = [generation, epoch, lsn].map(|number| number.to_string());
    let [generation, epoch, lsn] = &numbers;
    let question = Frame::new(&["OUTCOME", generation, epoch, lsn]);
    let frame = std::mem::replace(&mut call.frame, question.into_bytes());
    let replies = std::mem::replace(&mut call.replies, 1);
    call.asking = Some((position, frame, replies));
}

impl Conn {
    fn interest(&self) -> Interest {
        match self.output.is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        }
    }

    /// As much as the socket takes.
    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(bytes) => self.output.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is there; false at the end.
    fn read(&mut self) -> io::Result<bool> {
        self.input.reserve(READ_BYTES);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(bytes) => {
                self.heard = Instant::now();
                Ok(bytes > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }
}

async fn ready(conn: Option<&Conn>) -> io::Result<Ready> {
    match conn {
        Some(conn) => conn.stream.ready(conn.interest()).await,
        None => std::future::pending().await,
    }
}

async fn looked(lookup: Option<&mut Lookup>) -> Result<Found, String> {
    match lookup {
        Some(lookup) => match lookup.await {
            Ok(found) => found,
            Err(error) => Err(error.to_string()),
        },
        None => std::future::pending().await,
    }
}
