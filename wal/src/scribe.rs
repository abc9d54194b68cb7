//! What the log's owner does with the commands it is given, on whatever thread: everything queued
//! becomes one vectored write and one fdatasync.
//!
//! Owns the log and the commands not yet done. Decides nothing about threads or time: the writer's
//! thread runs it in production, the simulator in virtual time.

use crate::error::{Error, ErrorKind};
use crate::log::{Cut, DamagedRange, Log, Recovered, Space, disk_bytes};
use crate::prepare::{Preparation, Prepared};
use crate::record::{History, Link, Lsn, Record};
use crate::storage::Storage;
use std::collections::VecDeque;

/// What the log's owner reports, in the order in which it happened.
#[derive(Debug)]
pub enum WriterEvent {
    /// Everything up to here survives any crash.
    Durable(Lsn),
    Cut(Cut),
    WasReset(Link),
    Rolled(History),
    /// The first LSN that the log still holds.
    Trimmed(Lsn),
    Trusted,
    /// The answer to `repair`; an error that says `DoesNotFit` changed nothing and is not final.
    Repaired(Result<Recovered, Error>),
    /// Reported when it changes; `Space::Ok` is where it begins.
    Space(Space),
    /// The log is dead; reported once, nothing comes after it. The node halts.
    Failed(Error),
}

/// What the log's owner is asked to do, in order.
#[derive(Debug)]
pub enum Command {
    Append(Record),
    Cut(Lsn),
    Reset {
        base: Link,
        history: History,
        verified: Lsn,
    },
    Roll(History),
    Trim(Lsn),
    Trust,
    Repair(Box<DamagedRange>, Vec<Record>),
}

/// The log and what is to be done with it.
pub struct Scribe<S: Storage> {
    log: Log<S>,
    /// Commands given and not yet done.
    pending: VecDeque<Command>,
    /// The last `Durable`, `Space` reported.
    reported: Lsn,
    space: Space,
    /// A preparation was handed out and has not come back.
    preparing: bool,
}

impl<S: Storage> Scribe<S> {
    pub fn new(log: Log<S>) -> Scribe<S> {
        Scribe {
            reported: log.durable(),
            log,
            pending: VecDeque::new(),
            space: Space::Ok,
            preparing: false,
        }
    }

    pub fn log(&self) -> &Log<S> {
        &self.log
    }

    pub fn give(&mut self, command: Command) {
        self.pending.push_back(command);
    }

    /// Takes all of these, in order.
    pub fn give_all(&mut self, commands: &mut VecDeque<Command>) {
        self.pending.append(commands);
    }

    /// Nothing is to be done, now or after a while.
    pub fn rests(&self) -> bool {
        self.pending.is_empty() && self.log.is_settled() && self.log.space() == Space::Ok
    }

    /// Commands given and not yet done, which wait for space or for a preparation.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Bytes that the records not yet pushed will take.
    pub fn waiting_bytes(&self) -> u64 {
        let bytes = self.pending.iter().map(|command| match command {
            Command::Append(record) => disk_bytes(record),
            _ => 0,
        });
        bytes.sum()
    }

    /// Does what was given, as far as there is space. An error is final.
    pub fn work(&mut self, on_event: &mut impl FnMut(WriterEvent)) -> Result<(), Error> {
        while let Some(command) = self.pending.pop_front() {
            if let Command::Append(record) = command {
                self.log.push(record);
                continue;
            }
            self.flush(on_event)?;
            if let Some(not_yet) = self.act(command, on_event)? {
                self.pending.push_front(not_yet);
                return Ok(());
            }
        }
        self.flush(on_event)
    }

    /// Does a command other than an append; gives it back if it has to wait for space.
    fn act(
        &mut self,
        command: Command,
        on_event: &mut impl FnMut(WriterEvent),
    ) -> Result<Option<Command>, Error> {
        // A segment is being prepared under the names that these would use.
        let waits = matches!(command, Command::Reset { .. } | Command::Roll(_));
        if waits && self.preparing {
            return Ok(Some(command));
        }
        let event = match command {
            Command::Append(_) => unreachable!("appends are pushed in `work`"),
            Command::Cut(after) => WriterEvent::Cut(self.log.cut(after)?),
            Command::Reset {
                base,
                history,
                verified,
            } => match self.log.reset(base, history, verified) {
                Err(error) if error.is_full() => return Ok(Some(command)),
                other => other.map(|()| WriterEvent::WasReset(base))?,
            },
            Command::Roll(history) => match self.log.roll(history) {
                Err(error) if error.is_full() => return Ok(Some(command)),
                other => other.map(|()| WriterEvent::Rolled(history))?,
            },
            Command::Trim(below) => WriterEvent::Trimmed(self.log.trim(below)?),
            Command::Trust => self.log.trust().map(|()| WriterEvent::Trusted)?,
            Command::Repair(range, records) => match self.log.repair(&range, &records) {
                Err(error) if !matches!(error.kind, ErrorKind::DoesNotFit(_)) => return Err(error),
                answer => WriterEvent::Repaired(answer),
            },
        };
        self.reported = self.log.durable();
        on_event(event);
        Ok(None)
    }

    fn flush(&mut self, on_event: &mut impl FnMut(WriterEvent)) -> Result<(), Error> {
        let durable = self.log.flush()?;
        if durable > self.reported {
            self.reported = durable;
            on_event(WriterEvent::Durable(durable));
        }
        Ok(())
    }

    /// For idle moments: `Log::settle`.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.log.settle()
    }

    /// The preparation of the next segment, if it is missing and nobody is at it; its result must
    /// be given to `adopt`.
    pub fn preparation(&mut self) -> Option<Preparation<S>> {
        let preparation = self.log.preparation();
        self.preparing |= preparation.is_some();
        preparation
    }

    /// Takes over what a `Preparation` made.
    pub fn adopt(&mut self, prepared: Result<Option<Prepared<S>>, Error>) -> Result<(), Error> {
        self.preparing = false;
        self.log.adopt(prepared)
    }

    /// Tells the owner when space has changed.
    pub fn report_space(&mut self, on_event: &mut impl FnMut(WriterEvent)) {
        let space = self.log.space();
        if space != self.space {
            self.space = space;
            on_event(WriterEvent::Space(space));
        }
    }
}
