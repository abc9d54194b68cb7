//! Keys and tokens as they have to be after each command of a log: plain maps, from which what has
//! ended is wiped before anything else is looked at.
//!
//! Shares no line with the production state; commands are read, and asked no more than whether they
//! write. Log time is the record's timestamp plus the command's place in it; what ends does so in
//! the first millisecond of log time that is not below its deadline, swept or not.

use super::rare::{Counts, Rare};
use crate::simulate::check::ledger::Expected;
use bytes::Bytes;
use standfast::state::command::{Multi, Once, When};
use standfast::state::{Command, Reply};
use standfast_wal::Lsn;
use std::collections::{BTreeMap, BTreeSet};

/// Tokens that have ended and are still held count for `once_max`, but of these so many go when a
/// new one finds no room.
const ROOM_MADE: u64 = 64;
/// Each command first sweeps so many keys, and as many tokens, of those that have ended.
const SWEPT_BY_A_COMMAND: u64 = 2;

/// One key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    pub value: Bytes,
    /// In ms since 1970; `None`: it stays.
    pub ends: Option<u64>,
    /// LSN of the last change.
    pub revision: Lsn,
}

/// One token that was used.
struct Used {
    /// What it stands for; watched revisions do not count.
    command: Command,
    reply: Expected,
    ends: u64,
}

#[derive(Default)]
pub struct Slate {
    pub lsn: Lsn,
    pub(super) now_ns: u64,
    pub(super) lines: BTreeMap<Bytes, Line>,
    tokens: BTreeMap<Bytes, Used>,
    /// At most so many tokens have ended and are still held: none is left behind a Tick.
    ended_tokens: u64,
    /// Keys that ended by themselves, with their last revision.
    ended: BTreeMap<Bytes, Lsn>,
    /// As many keys at most: only to tell what was seldom.
    unswept: u64,
    /// Where an EXEC did nothing by the books.
    aborted: BTreeSet<Lsn>,
    pub counts: Counts,
}

impl Slate {
    pub fn new(aborted: BTreeSet<Lsn>) -> Slate {
        Slate {
            aborted,
            ..Slate::default()
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }

    /// Log time goes on to this place: whatever is due has ended.
    pub fn go_on(&mut self, lsn: Lsn, now_ns: u64) {
        (self.lsn, self.now_ns) = (lsn, now_ns);
        let now_ms = self.now_ms();
        let gone = |line: &mut Line| line.ends.is_some_and(|ends| ends <= now_ms);
        for (key, line) in self.lines.extract_if(.., |_, line| gone(line)) {
            self.ended.insert(key, line.revision);
            self.unswept += 1;
        }
        let before = self.tokens.len();
        self.tokens.retain(|_, used| used.ends > now_ms);
        self.ended_tokens += (before - self.tokens.len()) as u64;
    }

    /// A Tick sweeps far more than a run lets end at once.
    pub fn tick(&mut self) {
        (self.ended_tokens, self.unswept) = (0, 0);
    }

    /// So many tokens may be held, from and to.
    pub fn held_tokens(&self) -> (u64, u64) {
        let living = self.tokens.len() as u64;
        (living, living + self.ended_tokens)
    }

    pub fn execute(&mut self, command: &Command) -> Expected {
        for left in [&mut self.unswept, &mut self.ended_tokens] {
            *left = left.saturating_sub(SWEPT_BY_A_COMMAND);
        }
        self.change(command)
    }

    fn change(&mut self, command: &Command) -> Expected {
        match command {
            Command::Multi(multi) => self.multi(multi),
            Command::Once(once) => self.once(once),
            Command::CreateAccounts(_) | Command::CreateTransfers(_) => Expected::Anything,
            Command::FlushAll => {
                if !self.lines.is_empty() {
                    self.counts.note(Rare::Flushed);
                }
                self.lines.clear();
                Expected::Reply(Reply::Ok)
            }
            write if write.is_write() => Expected::Reply(self.write(write)),
            read => self.read(read),
        }
    }

    /// What a command that changes nothing answers. The ledger is the books'; which key RANDOMKEY
    /// and SCAN come to first is left to the state's own tests.
    pub fn read(&self, command: &Command) -> Expected {
        match command {
            Command::Multi(multi) if !self.watches_hold(multi) => Expected::Reply(Reply::NilArray),
            Command::Multi(multi) => {
                let replies = multi.commands.iter().map(|command| self.read(command));
                Expected::Array(replies.collect())
            }
            other => self.look(other).map_or(Expected::Anything, Expected::Reply),
        }
    }

    pub(super) fn revision(&self, key: &Bytes) -> Lsn {
        self.lines.get(key).map_or(Lsn::ZERO, |line| line.revision)
    }

    fn watches_hold(&self, multi: &Multi) -> bool {
        let mut watches = multi.watches.iter();
        watches.all(|(key, revision)| self.revision(key) == *revision)
    }

    fn multi(&mut self, multi: &Multi) -> Expected {
        self.note_watches(multi);
        if !self.watches_hold(multi) {
            return Expected::Reply(Reply::NilArray);
        }
        // The books know why, and which words it has.
        if self.aborted.contains(&self.lsn) {
            return Expected::Anything;
        }
        let replies = multi.commands.iter().map(|command| self.change(command));
        Expected::Array(replies.collect())
    }

    fn note_watches(&mut self, multi: &Multi) {
        let mut broken = multi.watches.iter();
        let broken = broken.find(|(key, revision)| self.revision(key) != *revision);
        if let Some((key, revision)) = broken {
            if self.revision(key) == Lsn::ZERO && self.ended.get(key) == Some(revision) {
                self.counts.note(Rare::WatchEnded);
                if self.unswept > 0 {
                    self.counts.note(Rare::WatchEndedUnswept);
                }
            } else {
                self.counts.note(Rare::WatchChanged);
            }
            return;
        }
        let ends = |key| self.lines.get(key).is_some_and(|line| line.ends.is_some());
        if multi.watches.iter().any(|(key, _)| ends(key)) {
            self.counts.note(Rare::WatchHeld);
        }
    }

    fn once(&mut self, once: &Once) -> Expected {
        if let Some(used) = self.tokens.get(once.token()) {
            if used.command != bare(once.command()) {
                self.counts.note(Rare::Reused);
                return Expected::error("ONCEREUSED ");
            }
            self.counts.note(Rare::OnceAgain);
            return used.reply.clone();
        }
        if !self.has_room(once.tokens_max()) {
            self.counts.note(Rare::Full);
            return Expected::error("ONCEFULL ");
        }
        let reply = self.change(once.command());
        let ttl_ms = i64::try_from(once.ttl_ms()).expect("bounded where it is made");
        let used = Used {
            command: bare(once.command()),
            reply: reply.clone(),
            ends: self.deadline(When::In(ttl_ms)),
        };
        self.tokens.insert(once.token().clone(), used);
        reply
    }

    /// Whether one more may be held. What lives counts, and what has ended and is held although
    /// some of it was swept to make room: so many that it matters end in no run.
    fn has_room(&mut self, tokens_max: u64) -> bool {
        let (living, held) = self.held_tokens();
        if living >= tokens_max {
            return false;
        }
        if held >= tokens_max {
            self.ended_tokens = self.ended_tokens.saturating_sub(ROOM_MADE);
            assert!(
                living + self.ended_tokens < tokens_max,
                "sweeping alone decides whether there is room: clients use too many short tokens"
            );
            self.counts.note(Rare::RoomMade);
        }
        true
    }

    /// A point in time in ms. A relative one in the future counts from the end of a millisecond
    /// that has begun: it is never early. Before 1970 is as good as 1970.
    pub(super) fn deadline(&self, when: When) -> u64 {
        let sum = match when {
            When::At(ms) => i128::from(ms),
            When::In(ms) if ms > 0 => i128::from(self.now_ns.div_ceil(1_000_000)) + i128::from(ms),
            When::In(ms) => i128::from(self.now_ms()) + i128::from(ms),
        };
        u64::try_from(sum.max(0)).expect("times are bounded where they are read")
    }
}

/// A command without the revisions that it watches.
fn bare(command: &Command) -> Command {
    match command {
        Command::Multi(multi) => Command::Multi(Multi {
            watches: Vec::new(),
            commands: multi.commands.clone(),
        }),
        other => other.clone(),
    }
}
