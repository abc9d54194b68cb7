//! One call: what is sent, how often it may be sent, and who waits for the reply until when.

use super::{Error, Reply};
use crate::limits;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// What repeating a call may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Changes nothing: sent again whenever its reply got lost.
    Read,
    /// Under a token or with ids, so that it is done once however often it is sent.
    Once,
    /// Might be done twice: never sent again unless it is certain that it was not done.
    Plain,
}

/// Where a call is, as far as its deadline is concerned. Caller and driver change it in one step
/// each, so that what is reported as never sent is never sent.
#[derive(Debug, Default)]
pub struct Fate(AtomicU8);

const WAITING: u8 = 0;
const SENT: u8 = 1;
const ABANDONED: u8 = 2;

impl Fate {
    fn change(&self, from: u8, to: u8) -> bool {
        let order = Ordering::AcqRel;
        self.0
            .compare_exchange(from, to, order, Ordering::Acquire)
            .is_ok()
    }

    /// False when its caller has given up.
    fn send(&self) -> bool {
        self.change(WAITING, SENT) || self.0.load(Ordering::Acquire) == SENT
    }

    /// It was refused before it was ordered, and may wait for another primary.
    fn take_back(&self) {
        self.change(SENT, WAITING);
    }

    /// False when it was sent.
    fn abandon(&self) -> bool {
        self.change(WAITING, ABANDONED)
    }
}

#[derive(Debug)]
pub struct Call {
    /// One command, or several that must not be torn apart.
    pub frame: Bytes,
    /// How many replies it has; the last one is the call's.
    pub replies: usize,
    pub kind: Kind,
    /// Replies that have come over this connection.
    pub replied: usize,
    /// The first refusal among them: what EXECABORT is the consequence of.
    pub refused: Option<String>,
    /// An earlier attempt may have been done.
    pub is_ambiguous: bool,
    /// `OUTCOME` is asked in its place: where it stands, and its own frame and replies.
    pub asking: Option<(super::Position, Bytes, usize)>,
    fate: Arc<Fate>,
    answer: oneshot::Sender<Result<Reply, Error>>,
}

impl Call {
    /// Whether it may go out. From then on its caller does not take it for undone.
    pub fn depart(&mut self) -> bool {
        (self.replied, self.refused) = (0, None);
        !self.answer.is_closed() && self.fate.send()
    }

    /// Nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// This attempt was not done.
    pub fn take_back(&self) {
        if !self.is_ambiguous {
            self.fate.take_back();
        }
    }

    /// Whether it may be sent again without knowing what became of it.
    pub fn is_repeatable(&self) -> bool {
        self.kind != Kind::Plain || self.asking.is_some()
    }

    pub fn finish(self, result: Result<Reply, Error>) {
        let result = match result {
            Ok(Reply::Error(text)) => Err(Error::refused(&text)),
            other => other,
        };
        // A caller that went away needs no answer.
        let _ = self.answer.send(result);
    }
}

/// What the driver tells callers whose time is up.
#[derive(Debug, Default)]
pub struct Trouble(Mutex<Option<String>>);

impl Trouble {
    pub fn set(&self, text: Option<String>) {
        *self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = text;
    }

    fn error(&self) -> Error {
        let trouble = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*trouble {
            Some(trouble) => Error::NoPrimary {
                trouble: trouble.clone(),
            },
            None => Error::Timeout,
        }
    }
}

/// The callers' end of the queue to the driver.
#[derive(Clone, Debug)]
pub struct Caller {
    pub calls: mpsc::Sender<Call>,
    pub trouble: Arc<Trouble>,
    pub timeout: Duration,
}

impl Caller {
    /// Queues a frame and waits for its last reply, until the deadline.
    pub async fn call(&self, frame: Frame, kind: Kind) -> Result<Reply, Error> {
        frame.check()?;
        let deadline = Instant::now() + self.timeout;
        let (answer, mut reply) = oneshot::channel();
        let fate = Arc::new(Fate::default());
        let call = Call {
            frame: frame.bytes.freeze(),
            replies: frame.commands,
            kind,
            replied: 0,
            refused: None,
            is_ambiguous: false,
            asking: None,
            fate: fate.clone(),
            answer,
        };
        match timeout_at(deadline, self.calls.send(call)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => return Err(self.trouble.error()),
        }
        let closed = match timeout_at(deadline, &mut reply).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => true,
            Err(_) => false,
        };
        match fate.abandon() {
            true if closed => Err(Error::Closed),
            true => Err(self.trouble.error()),
            false if kind == Kind::Read => Err(Error::Timeout),
            false => Err(Error::Unknown { position: None }),
        }
    }
}

/// Commands as they are sent.
#[derive(Debug, Default)]
pub struct Frame {
    bytes: BytesMut,
    commands: usize,
    arguments: usize,
    /// The largest argument.
    argument_bytes: usize,
}

impl Frame {
    pub fn new<A: AsRef<[u8]>>(args: &[A]) -> Frame {
        let mut frame = Frame::default();
        frame.push(&[], args);
        frame
    }

    /// Adds a command: some words before its arguments.
    pub fn push<A: AsRef<[u8]>>(&mut self, before: &[&[u8]], args: &[A]) {
        let count = before.len() + args.len();
        self.commands += 1;
        self.arguments += count;
        self.header(b'*', count);
        for word in before {
            self.argument(word);
        }
        for arg in args {
            self.argument(arg.as_ref());
        }
    }

    fn argument(&mut self, arg: &[u8]) {
        self.argument_bytes = self.argument_bytes.max(arg.len());
        self.header(b'$', arg.len());
        self.bytes.put_slice(arg);
        self.bytes.put_slice(b"\r\n");
    }

    fn header(&mut self, kind: u8, number: usize) {
        self.bytes.put_u8(kind);
        self.bytes
            .put_slice(itoa::Buffer::new().format(number).as_bytes());
        self.bytes.put_slice(b"\r\n");
    }

    /// A node closes the connection over what it does not take, and all callers share it.
    fn check(&self) -> Result<(), Error> {
        let too_large = |what: &str, is: usize, max: usize| {
            Err(Error::Invalid(format!("{what}: {is}, a node takes {max}")))
        };
        if self.argument_bytes > limits::BULK_BYTES_MAX {
            return too_large(
                "bytes of an argument",
                self.argument_bytes,
                limits::BULK_BYTES_MAX,
            );
        }
        if self.bytes.len() > limits::REQUEST_BYTES_MAX {
            return too_large(
                "bytes of a call",
                self.bytes.len(),
                limits::REQUEST_BYTES_MAX,
            );
        }
        if self.arguments > limits::ARGUMENTS_MAX {
            return too_large("arguments of a call", self.arguments, limits::ARGUMENTS_MAX);
        }
        Ok(())
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}
