//! One client's life: bytes to commands, commands to the engine, answers back in order.
//!
//! What one socket read brings becomes one batch for the engine, and what the engine answers
//! together is written together. Commands that look at the connection itself, or at what it has
//! done so far, are *held* until everything before them is answered; all others only keep their
//! place in the order of replies. Nothing here takes a lock, sends or wakes per command.

mod client;
mod config;
mod local;
mod pubsub;
mod replies;
mod transaction;

use super::command::{self, Context, Id, Parsed};
use super::resp::{Decoder, Protocol};
use super::{Client, Front};
use crate::limits;
use crate::node::client::{Answer, Control, Op, Place, Request};
use crate::node::refusal::Refusal;
use crate::state::{Command, Reply};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use pubsub::Subscription;
use replies::{Purpose, Replies, Settled};
use standfast_wal::Lsn;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, tcp};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use transaction::Transaction;

/// Room made for a read; doubled while reads fill it.
const READ_BYTES_MIN: usize = 16 << 10;
/// An output buffer that has grown beyond this is given back once written.
const OUT_BYTES_KEPT: usize = 64 << 10;
/// Replies are written when so much has come together, even within a batch.
const OUT_BYTES_MAX: usize = 256 << 10;
/// Room made for the encoded writes of a batch; it grows as needed.
const BATCH_BYTES_MIN: usize = 4 << 10;
/// However large replies are, so many operations may be in flight.
const IN_FLIGHT_MIN: usize = 16;
/// Reads in flight, whose replies may be of any size and are not known before they come.
const READS_IN_FLIGHT_MAX: usize = 512;

/// What one read asked of the engine, while it is being collected.
#[derive(Default)]
struct Batch {
    requests: Vec<Request>,
    /// Encoded writes; each request holds its slice.
    encoded: BytesMut,
    bytes: usize,
    /// Name of the last command, for the slow log.
    last_command: &'static str,
}

/// A batch that is not answered in full.
struct Mark {
    last_seq: u64,
    count: usize,
    bytes: usize,
    at: Instant,
    last_command: &'static str,
}

/// How far the connection is on its way to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Not in sight.
    Open,
    /// The client sends no more; what it asked before is still answered, until then.
    Read(Instant),
    /// No command is taken any more; closes once what is ready is written.
    Closing,
}

pub struct Session {
    front: Arc<Front>,
    client: Arc<Client>,
    decoder: Decoder,
    input: BytesMut,
    /// `input` has bytes that the decoder has not seen.
    is_unfed: bool,
    read_bytes: usize,
    /// Words of the command at hand.
    args: Vec<Bytes>,
    /// `args` waits until everything before it is answered.
    is_held: bool,
    replies: Replies,
    batch: Batch,
    marks: VecDeque<Mark>,
    bytes_in_flight: usize,
    reads_in_flight: usize,
    /// The largest reply of late: bounds how many may come at once.
    reply_bytes: usize,
    end: End,
    active: Instant,
    /// READONLY was said: this node may answer reads by itself.
    is_stale_allowed: bool,
    transaction: Option<Transaction>,
    watches: Vec<(Bytes, Lsn)>,
    /// WATCH commands whose answer has not come.
    watches_in_flight: usize,
    /// The last write of this connection that was ordered.
    last_write: Option<Place>,
    subscription: Option<Subscription>,
    context: Context,
}

/// Serves one connection until it ends. Runs as a task of its own.
pub async fn run(front: Arc<Front>, client: Arc<Client>, mut stream: TcpStream) {
    let mut answers = front.handle.open_session(client.id);
    let mut session = Session::new(front.clone(), client.clone());
    let (mut reader, writer) = stream.split();
    if let Err(error) = session.serve(&mut reader, &writer, &mut answers).await {
        tracing::debug!(client = client.id.0, address = %client.address, %error, "connection ended");
    }
    front.handle.close_session(client.id);
    front.clients.remove(client.id);
}

impl Session {
    fn new(front: Arc<Front>, client: Arc<Client>) -> Session {
        let settings = &front.settings;
        Session {
            decoder: Decoder::new(settings.resp),
            input: BytesMut::new(),
            is_unfed: false,
            read_bytes: READ_BYTES_MIN,
            args: Vec::new(),
            is_held: false,
            replies: Replies::default(),
            batch: Batch::default(),
            marks: VecDeque::new(),
            bytes_in_flight: 0,
            reads_in_flight: 0,
            reply_bytes: 0,
            end: End::Open,
            active: Instant::now(),
            is_stale_allowed: false,
            transaction: None,
            watches: Vec::new(),
            watches_in_flight: 0,
            last_write: None,
            subscription: None,
            context: Context {
                once_ttl_ms: u64::try_from(settings.once_ttl.as_millis()).unwrap_or(u64::MAX),
                once_max: settings.once_max,
                seed: client.id.0,
            },
            front,
            client,
        }
    }

    async fn serve(
        &mut self,
        reader: &mut tcp::ReadHalf<'_>,
        writer: &tcp::WriteHalf<'_>,
        answers: &mut UnboundedReceiver<Vec<Answer>>,
    ) -> io::Result<()> {
        let client = self.client.clone();
        loop {
            self.advance();
            self.flush(writer).await?;
            if self.is_over() {
                return Ok(());
            }
            let alarm = self.deadline();
            tokio::select! {
                biased;
                batch = answers.recv() => {
                    let Some(mut batch) = batch else {
                        return Ok(()); // The engine has stopped.
                    };
                    loop {
                        for answer in batch {
                            self.on_answer(answer);
                            if self.replies.out.len() >= OUT_BYTES_MAX {
                                self.flush(writer).await?;
                            }
                        }
                        match answers.try_recv() {
                            Ok(more) => batch = more,
                            Err(_) => break,
                        }
                    }
                    self.on_batches_done();
                }
                ready = reader.readable(), if self.wants_bytes() => {
                    ready?;
                    self.read(reader)?;
                }
                () = pubsub::changed(&mut self.subscription) => self.on_view(),
                () = client.killed() => {
                    self.end = End::Closing;
                }
                () = tokio::time::sleep_until(alarm.unwrap_or(self.active)), if alarm.is_some() => {
                    if self.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// When to close for having been idle, or for being half closed for too long.
    fn deadline(&self) -> Option<Instant> {
        if let End::Read(until) = self.end {
            return Some(until);
        }
        let idle_s = self.front.tunable.idle_timeout_s.load(Relaxed);
        let is_waiting = self.subscription.is_some() || !self.replies.is_quiet();
        (idle_s > 0 && !is_waiting).then(|| self.active + Duration::from_secs(idle_s))
    }

    fn is_over(&self) -> bool {
        match self.end {
            End::Open => false,
            End::Read(_) => self.replies.is_quiet() && !self.is_blocked(),
            End::Closing => true,
        }
    }

    /// More may be read: commands can be taken, or a client's going could be missed.
    fn wants_bytes(&self) -> bool {
        self.end == End::Open
            && (!self.is_blocked() || self.input.len() < limits::SESSION_READ_BYTES)
    }

    /// Commands wait here for answers to earlier ones.
    fn is_blocked(&self) -> bool {
        self.is_held || self.is_unfed || !self.decoder.is_drained()
    }

    fn is_full(&self) -> bool {
        let settings = &self.front.settings;
        // Replies to what is in flight must not outgrow the output buffer: with large replies
        // fewer operations may be under way.
        let output_max = self.front.tunable.output_bytes_max.load(Relaxed);
        let output_max = usize::try_from(output_max).unwrap_or(usize::MAX);
        let by_replies = (output_max / 2 / self.reply_bytes.max(1)).max(IN_FLIGHT_MIN);
        self.reads_in_flight >= READS_IN_FLIGHT_MAX.min(by_replies)
            || self.replies.len() >= settings.in_flight_max.min(by_replies)
            || self.bytes_in_flight + self.batch.bytes >= settings.in_flight_bytes_max
    }

    fn read(&mut self, reader: &mut tcp::ReadHalf<'_>) -> io::Result<()> {
        self.input.reserve(self.read_bytes);
        // Unlike `try_read_buf` this knows that nothing is left when the buffer was not filled, and
        // does not ask once more.
        let read = match reader.read_buf(&mut self.input).now_or_never() {
            None => return Ok(()),
            Some(Ok(0)) => {
                self.end = End::Read(Instant::now() + self.front.settings.write_timeout);
                return Ok(());
            }
            Some(read) => read?,
        };
        if read >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(limits::SESSION_READ_BYTES);
        }
        self.is_unfed = true;
        self.active = Instant::now();
        self.front.counters.bytes_in.fetch_add(read as u64, Relaxed);
        Ok(())
    }

    /// Writes what is ready, waiting for a client that reads slowly, but not forever.
    async fn flush(&mut self, writer: &tcp::WriteHalf<'_>) -> io::Result<()> {
        let out = &mut self.replies.out;
        if out.is_empty() {
            return Ok(());
        }
        let mut written = 0;
        let patience = self.front.settings.write_timeout;
        while written < out.len() {
            match writer.try_write(&out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = writer.writable();
                    tokio::select! {
                        ready = tokio::time::timeout(patience, writable) => {
                            ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                        }
                        () = self.client.killed() => {
                            return Err(io::Error::other("killed while it did not read"));
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.front
            .counters
            .bytes_out
            .fetch_add(written as u64, Relaxed);
        if out.capacity() > OUT_BYTES_KEPT {
            *out = BytesMut::new();
        } else {
            out.clear();
        }
        Ok(())
    }

    /// Takes commands until one must wait or none is left, then hands the batch to the engine.
    fn advance(&mut self) {
        let mut taken = 0;
        while self.end != End::Closing {
            if !self.is_held {
                if self.is_full() {
                    break;
                }
                match self.decoder.next(&mut self.args) {
                    Ok(true) => taken += 1,
                    Ok(false) if self.is_unfed => {
                        self.is_unfed = false;
                        self.decoder.feed(&mut self.input);
                        continue;
                    }
                    Ok(false) => break,
                    Err(error) => {
                        // The reply is the last one, so it waits for those before it.
                        if self.replies.is_quiet() {
                            self.front.counters.protocol_errors.fetch_add(1, Relaxed);
                            self.reply(Reply::error(error.to_string()));
                            self.end = End::Closing;
                        }
                        break;
                    }
                }
            }
            let args = std::mem::take(&mut self.args);
            self.is_held = !self.take(&args);
            self.args = args;
            if self.is_held {
                break;
            }
        }
        if taken > 0 {
            self.front.counters.commands.fetch_add(taken, Relaxed);
            self.tell_facts();
        }
        self.submit();
    }

    /// Takes one command; false if it must wait until everything before it is answered.
    fn take(&mut self, args: &[Bytes]) -> bool {
        let spec = match command::find(args) {
            Ok(spec) => spec,
            Err(refusal) => {
                self.spoil_transaction();
                self.reply(refusal.reply());
                return true;
            }
        };
        self.batch.last_command = spec.name;
        if self.is_listening_only() && !pubsub::is_allowed(spec.id) {
            self.reply(pubsub::refusal(spec.name));
            return true;
        }
        if self.transaction.is_some() && !transaction::is_immediate(spec.id) {
            return self.queue(spec, args);
        }
        if spec.id == Id::RandomKey {
            self.context.seed = self.context.seed.wrapping_mul(0x5851_f42d_4c95_7f2d) + 1;
        }
        match command::parse(spec, args, &self.context) {
            Ok(Parsed::Data(command)) => self.ask(command),
            Ok(Parsed::Session(id)) => return self.local(id, spec, args),
            Ok(Parsed::OnceExec { token }) => return self.exec(Some(token)),
            Err(refusal) => self.reply(refusal.reply()),
        }
        true
    }

    /// Puts a data command into the batch.
    fn ask(&mut self, command: Command) {
        if !command.is_write() {
            let stale = self.is_stale_allowed;
            self.reads_in_flight += 1;
            self.request(Op::Read { command, stale }, Purpose::Read);
            return;
        }
        self.batch
            .encoded
            .reserve(BATCH_BYTES_MIN.min(limits::COMMAND_BYTES_MAX));
        command.encode(&mut self.batch.encoded);
        let encoded = self.batch.encoded.split().freeze();
        if encoded.len() > limits::COMMAND_BYTES_MAX {
            let refusal = Refusal::TooLarge {
                bytes: encoded.len(),
                limit_bytes: limits::COMMAND_BYTES_MAX,
            };
            self.reply(refusal.into());
            return;
        }
        self.batch.bytes += encoded.len();
        self.request(Op::Write(encoded), Purpose::Write);
    }

    /// Puts anything else for the engine into the batch.
    fn control(&mut self, control: Control) {
        self.request(Op::Control(Box::new(control)), Purpose::Control);
    }

    fn request(&mut self, op: Op, purpose: Purpose) {
        let seq = self.replies.expect(purpose);
        self.batch.requests.push(Request { seq, op });
    }

    /// Answers the command at hand, in its place.
    fn reply(&mut self, reply: Reply) {
        if matches!(reply, Reply::Error(_)) {
            self.front.counters.errors.fetch_add(1, Relaxed);
        }
        self.replies.put(reply);
    }

    fn submit(&mut self) {
        let batch = &mut self.batch;
        let Some(last) = batch.requests.last() else {
            return;
        };
        self.marks.push_back(Mark {
            last_seq: last.seq,
            count: batch.requests.len(),
            bytes: batch.bytes,
            at: self.active,
            last_command: batch.last_command,
        });
        self.bytes_in_flight += batch.bytes;
        batch.bytes = 0;
        let requests = std::mem::take(&mut batch.requests);
        self.front.handle.submit(self.client.id, requests);
    }

    fn on_answer(&mut self, answer: Answer) {
        let before = self.replies.out.len();
        if let Some(settled) = self.replies.accept(answer) {
            self.settle(settled);
            self.reply_bytes = self.reply_bytes.max(self.replies.out.len() - before);
            while let Some(settled) = self.replies.next_ready() {
                self.settle(settled);
            }
        }
    }

    /// Accounts for the batches whose last answer has come.
    fn on_batches_done(&mut self) {
        self.reply_bytes -= self.reply_bytes / 16;
        while let Some(mark) = self.marks.front() {
            if mark.last_seq >= self.replies.first_seq() {
                break;
            }
            let us = u64::try_from(mark.at.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.bytes_in_flight -= mark.bytes;
            self.front.counters.observe(us, mark.count as u64);
            if us > self.front.tunable.slowlog_us.load(Relaxed) {
                let entries_max = self.front.tunable.slowlog_entries_max.load(Relaxed);
                self.front.slowlog.record(
                    mark.last_command,
                    us,
                    self.client.address.to_string(),
                    self.client.facts().name.clone(),
                    usize::try_from(entries_max).unwrap_or(usize::MAX),
                );
            }
            self.marks.pop_front();
        }
    }

    /// One answer whose turn has come: what it means for this connection, then its reply.
    fn settle(&mut self, settled: Settled) {
        let Settled { slot, answer } = settled;
        let mut reply = answer.reply;
        if let Reply::Error(_) = reply {
            self.front.counters.errors.fetch_add(1, Relaxed);
        }
        match slot.purpose {
            Purpose::Control => {}
            Purpose::Read => self.reads_in_flight -= 1,
            Purpose::Write => {
                if answer.lsn > Lsn::ZERO {
                    self.last_write = Some(Place {
                        generation: answer.generation,
                        epoch: answer.epoch,
                        lsn: answer.lsn,
                    });
                }
            }
            Purpose::Watch(keys) => reply = self.on_watched(keys, reply),
            Purpose::Token => reply = local::token(reply, answer.generation),
            Purpose::WaitAof => {
                if let Reply::Int(copies) = reply {
                    // What is acknowledged here is durable here.
                    reply = Reply::Array(vec![Reply::Int(1), Reply::Int(copies)]);
                }
            }
        }
        self.replies.write(&reply, slot.is_silent);
    }

    fn protocol(&self) -> Protocol {
        self.replies.protocol
    }
}
