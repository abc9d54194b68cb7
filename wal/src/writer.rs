//! The writer thread: everything queued becomes one vectored write and one fdatasync.
//!
//! While one write is under way the next batch gathers in the mailbox. Handing a record over
//! wakes the thread at most once, and only if it sleeps; the thread never spins. The next segment
//! is prepared by a short-lived thread of its own, so that filling it delays no write.

use crate::error::{Error, ErrorKind};
use crate::log::{Cut, DamagedRange, Log, Recovered, Space, admits, disk_bytes};
use crate::prepare::Prepared;
use crate::record::{History, Link, Lsn, Record};
use crate::storage::Storage;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How long the log rests before its end is settled, and between two looks at a full disk.
const IDLE: Duration = Duration::from_secs(1);

/// What the writer thread reports, in the order in which it happened.
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

enum Command {
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

/// What the handle, the thread and the preparing thread share.
struct Mailbox {
    state: Mutex<Letters>,
    wake: Condvar,
}

#[derive(Default)]
struct Letters {
    commands: VecDeque<Command>,
    /// Bytes that the records in `commands` will take.
    queued_bytes: u64,
    /// Bytes of records that the thread took and has not yet accounted for in `room`.
    taken_bytes: u64,
    /// The log's room when the thread last looked.
    room: u64,
    /// The thread waits and must be woken.
    asleep: bool,
    /// A prepared segment is ready to be taken over.
    is_prepared: bool,
    closing: bool,
    /// The thread is gone or has failed: nothing is accepted any more.
    dead: bool,
}

impl Mailbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the letters and wakes the thread if it sleeps.
    fn post(&self, change: impl FnOnce(&mut Letters)) {
        let mut letters = self.letters();
        change(&mut letters);
        let wake = std::mem::take(&mut letters.asleep);
        drop(letters);
        if wake {
            self.wake.notify_one();
        }
    }
}

/// The handle of the writer thread. Commands are done in the order in which they were given.
/// Dropping it closes the log, too.
pub struct Writer {
    mailbox: Arc<Mailbox>,
    reserve_bytes: u64,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. `on_event` runs on it and must not block.
    pub fn spawn<S: Storage>(
        mut log: Log<S>,
        on_event: impl FnMut(WriterEvent) + Send + 'static,
    ) -> Writer {
        // A start with little room left must not look like a full disk: what comes next is then
        // prepared before anything is asked. The worker meets the error, if there is one.
        if log.room() < log.options().segment_bytes / 4 {
            let _ = log.prepare();
        }
        let mailbox = Arc::new(Mailbox {
            state: Mutex::new(Letters {
                room: log.room(),
                ..Letters::default()
            }),
            wake: Condvar::new(),
        });
        let reserve_bytes = log.options().reserve_bytes;
        let worker = Worker {
            reported: log.durable(),
            log,
            mailbox: Arc::clone(&mailbox),
            on_event,
            pending: VecDeque::new(),
            space: Space::Ok,
            preparer: None,
        };
        let thread = Builder::new()
            .name("wal-writer".into())
            .spawn(|| worker.run());
        Writer {
            mailbox,
            reserve_bytes,
            thread: Some(thread.expect("a process can start its threads at the beginning")),
        }
    }

    /// Appends a record behind the last one given; answered by a `Durable` at or above it.
    pub fn append(&self, record: Record) {
        self.mailbox.post(|letters| {
            if !letters.dead {
                letters.queued_bytes += disk_bytes(&record);
                letters.commands.push_back(Command::Append(record));
            }
        });
    }

    /// `Log::cut`; answered by `WriterEvent::Cut`.
    pub fn cut(&self, after: Lsn) {
        self.give(Command::Cut(after));
    }

    /// `Log::reset`; answered by `WriterEvent::WasReset`.
    pub fn reset(&self, base: Link, history: History, verified: Lsn) {
        self.give(Command::Reset {
            base,
            history,
            verified,
        });
    }

    /// `Log::roll`; answered by `WriterEvent::Rolled`.
    pub fn roll(&self, history: History) {
        self.give(Command::Roll(history));
    }

    /// `Log::trim`; answered by `WriterEvent::Trimmed`.
    pub fn trim(&self, below: Lsn) {
        self.give(Command::Trim(below));
    }

    /// `Log::trust`; answered by `WriterEvent::Trusted`.
    pub fn trust(&self) {
        self.give(Command::Trust);
    }

    /// `Log::repair`; answered by `WriterEvent::Repaired`.
    pub fn repair(&self, range: DamagedRange, records: Vec<Record>) {
        self.give(Command::Repair(Box::new(range), records));
    }

    fn give(&self, command: Command) {
        self.mailbox.post(|letters| {
            if !letters.dead {
                letters.commands.push_back(command);
            }
        });
    }

    /// Whether a Commands record of this many bytes leaves the reserve alone. Ask before the
    /// commands are ordered; other records may always be appended.
    pub fn admits(&self, record_bytes: usize) -> bool {
        admits(self.room(), self.reserve_bytes, record_bytes)
    }

    /// Prepared bytes that nothing given so far will take.
    pub fn room(&self) -> u64 {
        let letters = self.mailbox.letters();
        letters
            .room
            .saturating_sub(letters.queued_bytes + letters.taken_bytes)
    }

    /// Writes what is queued, settles the log and ends the thread.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.mailbox.post(|letters| letters.closing = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's writer thread panicked");
        }
    }
}

type Preparing<S> = JoinHandle<Result<Option<Prepared<S>>, Error>>;

/// What runs on the thread.
struct Worker<S: Storage, F> {
    log: Log<S>,
    mailbox: Arc<Mailbox>,
    on_event: F,
    /// Commands taken from the mailbox and not yet done.
    pending: VecDeque<Command>,
    /// The last `Durable`, `Space` reported.
    reported: Lsn,
    space: Space,
    preparer: Option<Preparing<S>>,
}

/// Why a wait ended.
#[derive(PartialEq, Eq)]
enum Woken {
    Work,
    Idle,
    Closing,
}

impl<S: Storage, F: FnMut(WriterEvent)> Worker<S, F> {
    fn run(mut self) {
        let result = self.work();
        if let Some(preparer) = self.preparer.take() {
            // It uses the directory, whose lock goes with the log.
            let _ = preparer.join();
        }
        let mut letters = self.mailbox.letters();
        letters.dead = true;
        letters.commands.clear();
        drop(letters);
        if let Err(error) = result {
            (self.on_event)(WriterEvent::Failed(error));
        }
    }

    fn work(&mut self) -> Result<(), Error> {
        self.begin_preparation()?;
        loop {
            let woken = self.wait();
            self.take_prepared()?;
            if woken == Woken::Idle {
                self.log.settle()?;
            }
            self.do_pending()?;
            // After the writes: a new thread takes longer to start than a record to be written.
            if woken == Woken::Idle || self.log.space() == Space::Ok {
                self.begin_preparation()?;
            }
            self.account();
            if woken == Woken::Closing {
                return self.log.settle();
            }
        }
    }

    /// Sleeps until there is something to do, and takes all commands there are.
    fn wait(&mut self) -> Woken {
        let mailbox = Arc::clone(&self.mailbox);
        let mut letters = mailbox.letters();
        let rests = self.log.is_settled() && self.log.space() == Space::Ok;
        let woken = loop {
            if !letters.commands.is_empty() || letters.is_prepared {
                break Woken::Work;
            }
            if letters.closing && self.preparer.is_none() {
                break Woken::Closing;
            }
            letters.asleep = true;
            if rests && self.pending.is_empty() {
                letters = mailbox
                    .wake
                    .wait(letters)
                    .unwrap_or_else(PoisonError::into_inner);
            } else {
                let waited = mailbox.wake.wait_timeout(letters, IDLE);
                let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                letters = back;
                if timeout.timed_out() {
                    break Woken::Idle;
                }
            }
        };
        letters.asleep = false;
        letters.taken_bytes += std::mem::take(&mut letters.queued_bytes);
        self.pending.append(&mut letters.commands);
        woken
    }

    fn do_pending(&mut self) -> Result<(), Error> {
        while let Some(command) = self.pending.pop_front() {
            if let Command::Append(record) = command {
                self.log.push(record);
                continue;
            }
            self.flush()?;
            if let Some(not_yet) = self.act(command)? {
                self.pending.push_front(not_yet);
                return Ok(());
            }
        }
        self.flush()
    }

    /// Does a command other than an append; gives it back if it has to wait for space.
    fn act(&mut self, command: Command) -> Result<Option<Command>, Error> {
        // A segment is being prepared under the names that these would use.
        let waits = matches!(command, Command::Reset { .. } | Command::Roll(_));
        if waits && self.preparer.is_some() {
            return Ok(Some(command));
        }
        let event = match command {
            Command::Append(_) => unreachable!("appends are pushed in do_pending"),
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
        (self.on_event)(event);
        Ok(None)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let durable = self.log.flush()?;
        if durable > self.reported {
            self.reported = durable;
            (self.on_event)(WriterEvent::Durable(durable));
        }
        Ok(())
    }

    fn begin_preparation(&mut self) -> Result<(), Error> {
        let Some(preparation) = self.log.preparation() else {
            return Ok(());
        };
        let mailbox = Arc::clone(&self.mailbox);
        let prepare = move || {
            let prepared = preparation.run();
            mailbox.post(|letters| letters.is_prepared = true);
            prepared
        };
        let thread = Builder::new().name("wal-prepare".into()).spawn(prepare);
        self.preparer = Some(thread.map_err(Error::io("", "start a thread"))?);
        Ok(())
    }

    fn take_prepared(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.mailbox.letters().is_prepared) {
            return Ok(());
        }
        let preparer = self.preparer.take().expect("only a preparer says so");
        let prepared = preparer.join().expect("preparing does not panic");
        self.log.adopt(prepared)
    }

    /// Tells the handle how much room there is, and the owner when space changes.
    fn account(&mut self) {
        let (room, space) = (self.log.room(), self.log.space());
        let waiting = self.pending.iter().map(|command| match command {
            Command::Append(record) => disk_bytes(record),
            _ => 0,
        });
        let waiting = waiting.sum();
        let mut letters = self.mailbox.letters();
        (letters.room, letters.taken_bytes) = (room, waiting);
        drop(letters);
        if space != self.space {
            self.space = space;
            (self.on_event)(WriterEvent::Space(space));
        }
    }
}
