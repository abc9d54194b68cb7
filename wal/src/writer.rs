//! The writer thread: what is handed over is done by the scribe, in order.
//!
//! While one write is under way the next batch gathers in the mailbox. Handing a record over
//! wakes the thread at most once, and only if it sleeps; the thread never spins. The next segment
//! is prepared by a short-lived thread of its own, so that filling it delays no write.

use crate::error::Error;
use crate::log::{Log, Space, admits, disk_bytes};
use crate::prepare::Prepared;
use crate::scribe::Scribe;
pub use crate::scribe::{Command, WriterEvent};
use crate::storage::Storage;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How long the log rests before its end is settled, and between two looks at a full disk.
const IDLE: Duration = Duration::from_secs(1);

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
            scribe: Scribe::new(log),
            mailbox: Arc::clone(&mailbox),
            on_event,
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

    /// Does this behind everything given before. Append is answered by a `Durable` at or above the
    /// record; Cut, Reset, Roll, Trim, Trust and Repair each by the event of that name.
    pub fn give(&self, command: Command) {
        self.mailbox.post(|letters| {
            if letters.dead {
                return;
            }
            if let Command::Append(record) = &command {
                letters.queued_bytes += disk_bytes(record);
            }
            letters.commands.push_back(command);
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
    scribe: Scribe<S>,
    mailbox: Arc<Mailbox>,
    on_event: F,
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
                self.scribe.settle()?;
            }
            self.scribe.work(&mut self.on_event)?;
            // After the writes: a new thread takes longer to start than a record to be written.
            if woken == Woken::Idle || self.scribe.log().space() == Space::Ok {
                self.begin_preparation()?;
            }
            self.account();
            if woken == Woken::Closing {
                return self.scribe.settle();
            }
        }
    }

    /// Sleeps until there is something to do, and takes all commands there are.
    fn wait(&mut self) -> Woken {
        let mailbox = Arc::clone(&self.mailbox);
        let mut letters = mailbox.letters();
        let rests = self.scribe.rests();
        let woken = loop {
            if !letters.commands.is_empty() || letters.is_prepared {
                break Woken::Work;
            }
            if letters.closing && self.preparer.is_none() {
                break Woken::Closing;
            }
            letters.asleep = true;
            if rests {
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
        self.scribe.give_all(&mut letters.commands);
        woken
    }

    fn begin_preparation(&mut self) -> Result<(), Error> {
        let Some(preparation) = self.scribe.preparation() else {
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
        self.scribe.adopt(prepared)
    }

    /// Tells the handle how much room there is, and the owner when space changes.
    fn account(&mut self) {
        let (room, waiting) = (self.scribe.log().room(), self.scribe.waiting_bytes());
        let mut letters = self.mailbox.letters();
        (letters.room, letters.taken_bytes) = (room, waiting);
        drop(letters);
        self.scribe.report_space(&mut self.on_event);
    }
}
