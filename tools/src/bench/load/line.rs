//! One connection: what was asked on it and is not answered, in order.

use anyhow::Context;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// Room for what comes in one read; a larger answer makes more.
const INPUT_BYTES: usize = 64 * 1024;

/// Requests that one write gathers.
const GATHERED_MAX: usize = 16;

/// A request under way.
pub struct Request {
    pub bytes: Vec<u8>,
    pub operations: u64,
    /// From when on its latency counts.
    pub began: Instant,
}

pub struct Line {
    stream: TcpStream,
    number: u64,
    pub asked: VecDeque<Request>,
    /// How many of `asked` are sent to the end, and how much of the next one.
    sent: usize,
    sent_bytes: usize,
    input: Vec<u8>,
    filled: usize,
    awaits_room: bool,
}

impl Line {
    pub fn open(address: &str, number: u64, poll: &OwnedFd) -> anyhow::Result<Line> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(number);
        epoll::add(poll, &stream, data, epoll::EventFlags::IN).context("epoll")?;
        Ok(Line {
            stream,
            number,
            asked: VecDeque::new(),
            sent: 0,
            sent_bytes: 0,
            input: vec![0; INPUT_BYTES],
            filled: 0,
            awaits_room: false,
        })
    }

    /// Goes on with another connection: asks again all that has no answer.
    pub fn take_over(&mut self, other: &mut Line) {
        std::mem::swap(&mut self.asked, &mut other.asked);
    }

    /// Sends as much as the socket takes.
    pub fn flush(&mut self, poll: &OwnedFd) -> io::Result<()> {
        while self.sent < self.asked.len() {
            let mut slices = [IoSlice::new(&[]); GATHERED_MAX];
            let mut count = 0;
            let unsent = self.asked.iter().skip(self.sent);
            for (slice, request) in slices.iter_mut().zip(unsent) {
                let from = if count == 0 { self.sent_bytes } else { 0 };
                *slice = IoSlice::new(&request.bytes[from..]);
                count += 1;
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(bytes) => self.count_sent(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.await_room(true, poll);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.await_room(false, poll)
    }

    fn count_sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes;
        while let Some(request) = self.asked.get(self.sent) {
            let length = request.bytes.len();
            if self.sent_bytes < length {
                return;
            }
            self.sent_bytes -= length;
            self.sent += 1;
        }
    }

    fn await_room(&mut self, awaits: bool, poll: &OwnedFd) -> io::Result<()> {
        if self.awaits_room != awaits {
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, awaits);
            let data = epoll::EventData::new_u64(self.number);
            epoll::modify(poll, &self.stream, data, flags)?;
            self.awaits_room = awaits;
        }
        Ok(())
    }

    /// Reads once.
    pub fn receive(&mut self) -> io::Result<()> {
        if self.filled == self.input.len() {
            self.input.resize(2 * self.filled, 0);
        }
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                self.filled += bytes;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What has come and is not consumed, with the request that it answers; `None` while nothing
    /// has.
    pub fn answer(&mut self) -> Option<(&mut Request, &[u8])> {
        if self.filled == 0 {
            return None;
        }
        let request = self.asked.front_mut()?;
        Some((request, &self.input[..self.filled]))
    }

    pub fn has_input(&self) -> bool {
        self.filled > 0
    }

    /// The oldest request has its answer, which was so long.
    pub fn finish(&mut self, bytes: usize) -> Request {
        assert!(
            bytes <= self.filled && self.sent > 0,
            "answered before it was asked"
        );
        self.input.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
        self.sent -= 1;
        self.asked.pop_front().expect("what was sent was asked")
    }
}
