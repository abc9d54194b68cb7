//! The load: one thread that keeps many connections busy, since the cores it takes are taken from
//! what it measures. What is asked and which answer is right is a [`Work`]'s to say; requests are
//! encoded once and then patched, and nothing is allocated while it runs.

mod line;
pub mod measure;
mod schedule;
pub mod usage;

use anyhow::{Context, bail, ensure};
use line::{Line, Request};
use measure::{Counts, Recorder, Run};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use schedule::Schedule;
use std::time::{Duration, Instant};
use usage::{Servers, Usage, own_cpu};

/// What is asked.
pub trait Work {
    /// A request with all in it that never changes.
    fn blank(&self) -> Vec<u8>;

    /// Makes the next request of this connection of a blank or an earlier one, and says how many
    /// operations it holds; `None` when there is nothing more to ask.
    fn next(&mut self, line: usize, request: &mut Vec<u8>) -> Option<u64>;

    /// What has come in answer to this request, and perhaps to later ones behind it.
    fn answer(&mut self, request: &mut Vec<u8>, input: &[u8]) -> anyhow::Result<Answer>;
}

/// What the bytes that have come say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Incomplete,
    /// So many bytes are the whole answer.
    Done(usize),
    /// So many bytes are the answer to the first step; the request now holds the next.
    Again(usize),
    /// This node serves no more, another one will.
    Elsewhere,
}

/// How many connections, and how many requests each has under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub connections: usize,
    pub window: usize,
}

/// When requests begin.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// Each when another of its connection has its answer.
    Closed,
    /// So many a second, in a steady stream.
    Open(f64),
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub pace: Pace,
    pub warm_up: Duration,
    pub measured: Duration,
}

impl Plan {
    /// As fast as it goes until the work has nothing more to ask.
    pub const TO_THE_END: Plan = Plan {
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(86_400),
    };
}

/// How long answers are waited for after the last request.
const DRAIN: Duration = Duration::from_secs(30);

/// Silence after which another primary is looked for.
const SILENCE: Duration = Duration::from_millis(100);

/// Whom to ask, and whom to measure.
pub struct Target<'a> {
    pub address: String,
    pub servers: Servers,
    /// Who serves now, for loads that go on when that changes: asked when a connection ends, and
    /// after a silence. Without it any trouble ends the run.
    pub follow: Option<&'a dyn Fn() -> Option<String>>,
}

/// Runs the load to its end.
pub fn run(target: &Target, work: &mut dyn Work, shape: Shape, plan: &Plan) -> anyhow::Result<Run> {
    ensure!(
        shape.connections > 0 && shape.window > 0,
        "nothing to send: {shape:?}"
    );
    Driver::start(target, work, shape, plan)?.drive()
}

struct Driver<'a> {
    target: &'a Target<'a>,
    work: &'a mut dyn Work,
    address: String,
    poll: OwnedFd,
    lines: Vec<Line>,
    window: usize,
    /// Requests that are answered, to be patched and asked again.
    spare: Vec<Vec<u8>>,
    schedule: Option<Schedule>,
    recorder: Recorder,
    from: Instant,
    until: Instant,
    /// Requests without an answer.
    under_way: usize,
    is_exhausted: bool,
    /// Which line an open loop asks next.
    turn: usize,
    heard: Instant,
}

impl<'a> Driver<'a> {
    fn start(
        target: &'a Target,
        work: &'a mut dyn Work,
        shape: Shape,
        plan: &Plan,
    ) -> anyhow::Result<Driver<'a>> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        let open = |number| Line::open(&target.address, number, &poll);
        let lines: Vec<Line> = (0..shape.connections as u64)
            .map(open)
            .collect::<Result<_, _>>()?;
        let spare = (0..shape.connections * shape.window).map(|_| work.blank());
        let spare = spare.collect();
        let now = Instant::now();
        let (from, until) = (now + plan.warm_up, now + plan.warm_up + plan.measured);
        let (counts, schedule) = match plan.pace {
            Pace::Closed => (Counts::Finished, None),
            Pace::Open(rate) => (Counts::Due, Some(Schedule::new(now, rate))),
        };
        Ok(Driver {
            target,
            work,
            address: target.address.clone(),
            poll,
            lines,
            window: shape.window,
            spare,
            schedule,
            recorder: Recorder::new(from, until, counts),
            from,
            until,
            under_way: 0,
            is_exhausted: false,
            turn: 0,
            heard: now,
        })
    }

    fn drive(mut self) -> anyhow::Result<Run> {
        if self.schedule.is_none() {
            for number in 0..self.lines.len() {
                self.fill(number, Instant::now())?;
            }
        }
        let (mut before, mut after) = (None, None);
        let mut ready = Vec::with_capacity(self.lines.len());
        loop {
            let now = Instant::now();
            if before.is_none() && now >= self.from {
                before = Some(self.usage());
            }
            if after.is_none() && now >= self.until {
                after = Some(self.usage());
            }
            self.ask_due(now)?;
            let is_over = self.is_exhausted || now >= self.until;
            if is_over && self.under_way == 0 || now >= self.until + DRAIN {
                break;
            }
            self.wait(now, &mut ready)?;
            for event in &ready {
                self.attend(event.data.u64() as usize, event.flags)?;
            }
            if self.target.follow.is_some() && self.heard.elapsed() > SILENCE {
                self.heed_silence()?;
            }
        }
        let used =
            |end: (Usage, Duration), begin: (Usage, Duration)| (end.0 - begin.0, end.1 - begin.1);
        let begin = before.context("the load ended while it warmed up")?;
        let end = after.unwrap_or_else(|| self.usage());
        let unanswered = self.give_up();
        let run = self.recorder.into_run(self.is_exhausted);
        let run = run.context("not one answer came in the measured time")?;
        let (servers, own_cpu) = used(end, begin);
        Ok(Run {
            servers,
            own_cpu,
            unanswered,
            ..run
        })
    }

    fn usage(&self) -> (Usage, Duration) {
        (self.target.servers.usage(), own_cpu())
    }

    fn give_up(&mut self) -> u64 {
        let now = Instant::now();
        for line in &self.lines {
            for request in &line.asked {
                self.recorder.give_up(request.began, now);
            }
        }
        let mut count = self.under_way as u64;
        if let Some(schedule) = &mut self.schedule
            && !self.is_exhausted
        {
            while schedule.due() < self.until {
                let due = schedule.take(now).expect("the end has passed");
                self.recorder.give_up(due, now);
                count += 1;
            }
        }
        count
    }

    /// Keeps a closed loop's connection full.
    fn fill(&mut self, number: usize, now: Instant) -> anyhow::Result<()> {
        let mut is_more = false;
        while self.lines[number].asked.len() < self.window && now < self.until {
            if !self.ask(number, now) {
                break;
            }
            is_more = true;
        }
        if is_more { self.flush(number) } else { Ok(()) }
    }

    /// Asks what an open loop should have asked by now, as far as connections have room.
    fn ask_due(&mut self, now: Instant) -> anyhow::Result<()> {
        while !self.is_exhausted {
            let count = self.lines.len();
            let Some(free) = (0..count)
                .map(|step| (self.turn + step) % count)
                .find(|number| self.lines[*number].asked.len() < self.window)
            else {
                break;
            };
            let Some(schedule) = &mut self.schedule else {
                break;
            };
            if schedule.due() >= self.until {
                break;
            }
            let Some(due) = schedule.take(now) else { break };
            self.turn = free + 1;
            if self.ask(free, due) {
                self.flush(free)?;
            }
        }
        Ok(())
    }

    /// Puts one request on a connection; false when there is none.
    fn ask(&mut self, number: usize, began: Instant) -> bool {
        let Some(mut bytes) = self.spare.pop() else {
            return false;
        };
        let Some(operations) = self.work.next(number, &mut bytes) else {
            self.is_exhausted = true;
            self.spare.push(bytes);
            return false;
        };
        self.lines[number].asked.push_back(Request {
            bytes,
            operations,
            began,
        });
        self.under_way += 1;
        true
    }

    fn flush(&mut self, number: usize) -> anyhow::Result<()> {
        match self.lines[number].flush(&self.poll) {
            Ok(()) => Ok(()),
            Err(error) => self.lose(error.into()),
        }
    }

    /// Waits for sockets, until the next request is due or something else is to be done.
    fn wait(&mut self, now: Instant, ready: &mut Vec<epoll::Event>) -> anyhow::Result<()> {
        let mut alarm = now + SILENCE;
        for edge in [self.from, self.until] {
            if edge > now {
                alarm = alarm.min(edge);
            }
        }
        if let Some(schedule) = &self.schedule
            && self.under_way < self.lines.len() * self.window
        {
            alarm = alarm.min(schedule.due());
        }
        let left = alarm.saturating_duration_since(now);
        let left = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        ready.clear();
        match epoll::wait(
            &self.poll,
            rustix::buffer::spare_capacity(ready),
            Some(&left),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("epoll"),
        }
    }

    fn attend(&mut self, number: usize, flags: epoll::EventFlags) -> anyhow::Result<()> {
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush(number)?;
        }
        if !flags.intersects(!epoll::EventFlags::OUT) {
            return Ok(());
        }
        if let Err(error) = self.lines[number].receive() {
            return self.lose(error.into());
        }
        let now = Instant::now();
        self.heard = now;
        while let Some((request, input)) = self.lines[number].answer() {
            match self.work.answer(&mut request.bytes, input)? {
                Answer::Incomplete => break,
                Answer::Done(bytes) => {
                    let request = self.lines[number].finish(bytes);
                    self.under_way -= 1;
                    self.recorder.finish(request.began, now, request.operations);
                    self.spare.push(request.bytes);
                }
                Answer::Again(bytes) => {
                    let request = self.lines[number].finish(bytes);
                    self.lines[number].asked.push_back(request);
                    self.flush(number)?;
                }
                Answer::Elsewhere => return self.lose(anyhow::anyhow!("it serves no more")),
            }
        }
        let line = &self.lines[number];
        ensure!(
            !line.asked.is_empty() || !line.has_input(),
            "an answer that nobody asked for"
        );
        if self.schedule.is_none() {
            self.fill(number, now)?;
        }
        Ok(())
    }

    /// A connection is of no more use: all go to whoever serves now.
    fn lose(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        let Some(follow) = self.target.follow else {
            return Err(error);
        };
        let deadline = Instant::now() + DRAIN;
        loop {
            if let Some(address) = follow()
                && self.move_to(&address).is_ok()
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("nobody serves for {DRAIN:?}: {error:#}");
            }
            rig::poll::between_attempts();
        }
    }

    /// A node that is cut off or paused ends no connection.
    fn heed_silence(&mut self) -> anyhow::Result<()> {
        self.heard = Instant::now();
        if self.under_way == 0 {
            return Ok(());
        }
        match self.target.follow.and_then(|follow| follow()) {
            Some(address) if address != self.address => {
                // The next trouble on the way there is found as this one was.
                let _ = self.move_to(&address);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn move_to(&mut self, address: &str) -> anyhow::Result<()> {
        let open = |number| Line::open(address, number, &self.poll);
        let fresh = (0..self.lines.len() as u64).map(open);
        let mut fresh: Vec<Line> = fresh.collect::<Result<_, _>>()?;
        for (line, old) in fresh.iter_mut().zip(&mut self.lines) {
            line.take_over(old);
        }
        self.lines = fresh;
        self.address = address.to_owned();
        self.heard = Instant::now();
        for line in &mut self.lines {
            line.flush(&self.poll)?;
        }
        Ok(())
    }
}
