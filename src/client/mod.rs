//! The client: one connection to whoever is primary, shared by any number of tasks.
//!
//! ```no_run
//! use standfast::client::{Client, Error};
//!
//! # async fn example() -> Result<(), Error> {
//! // Any node will do: it names the others, and the client follows the primary from then on.
//! let client = Client::connect(["10.0.0.1:7600", "10.0.0.2:7600"]).await?;
//! client.set("greeting", "hello").await?;
//! assert_eq!(client.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
//!
//! // Done once, also where the primary dies between the write and its reply.
//! let visits = client.incr("visits").await?;
//! println!("visit {visits}");
//!
//! // One entry of the log: all of it or nothing.
//! let replies = client.multi().incr_by("alice", -30).incr_by("bob", 30).exec().await?;
//! println!("{replies:?}");
//!
//! // A token that outlives this process: repeat the call, here or elsewhere, with the same effect.
//! client.once("order-17", &["INCRBY", "sold", "3"]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What a [`Client`] does for its callers:
//!
//! - It finds the primary through any node, and again whenever the connection ends, a node says
//!   that it is none, or it falls silent while another has taken over. Calls wait meanwhile.
//! - Writes carry a ONCE token, so that they are sent again after a lost connection and done once.
//!   Ledger records carry their own ids. What has neither is never sent twice (see
//!   [`Client::command`]); where a node has answered UNKNOWN, OUTCOME is asked until it is known.
//! - Every call has a deadline, and an [`Error`] says whether something may have been done.
//! - Calls of many tasks leave in one write as soon as the socket takes it. Nothing waits for
//!   company. Single transfers are gathered into batches while a batch is under way.
//!
//! Dropping the future of a call does not take the call back.
//!
//! Read `call` (what waits), `driver` (the one task), `discover` (who is primary), `verdict` (what
//! a reply means), then the faces: `keys`, `transaction`, [`ledger`], `batches`.

mod batches;
mod call;
mod discover;
mod driver;
mod error;
mod keys;
pub mod ledger;
mod reply;
mod tokens;
mod transaction;
mod verdict;

pub use error::{Error, Position};
pub use keys::SetOptions;
pub use reply::{Malformed, Reply, parse as parse_reply};
pub use transaction::Transaction;

use call::{Caller, Frame, Kind, Trouble};
use driver::Driver;
use std::sync::Arc;
use std::time::Duration;
use tokens::Tokens;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// How a client behaves; [`Options::default`] is what [`Client::connect`] takes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long each call may take, and the first search for the primary.
    pub timeout: Duration,
    /// Whether writes carry ONCE tokens. Each is remembered for `once_ttl`, at most `once_max` of
    /// them: a client that writes more often than that goes without, and is told
    /// [`Error::Unknown`] where a reply got lost.
    pub tokens: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout: Duration::from_secs(10),
            tokens: true,
        }
    }
}

/// A connection to a cluster. Clones are cheap and share it.
#[derive(Clone, Debug)]
pub struct Client {
    caller: Caller,
    tokens: Option<Arc<Tokens>>,
    singles: mpsc::Sender<batches::Single>,
}

/// What would change the connection under other callers, or tells of what is not one's own.
const NOT_SHARED: [&str; 20] = [
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH",
    "UNWATCH",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "READONLY",
    "READWRITE",
    "RESET",
    "QUIT",
    "HELLO",
    "AUTH",
    "SELECT",
    "SEEN",
    "RECEIPT",
    "WAIT",
    "WAITAOF",
];

impl Client {
    /// Finds the primary through any of these nodes. Must be called in a tokio runtime, in which
    /// the client's task then lives.
    pub async fn connect<A: Into<String>>(
        nodes: impl IntoIterator<Item = A>,
    ) -> Result<Client, Error> {
        Client::connect_with(nodes, Options::default()).await
    }

    /// As [`Client::connect`], with other options.
    pub async fn connect_with<A: Into<String>>(
        nodes: impl IntoIterator<Item = A>,
        options: Options,
    ) -> Result<Client, Error> {
        let nodes: Vec<String> = nodes.into_iter().map(Into::into).collect();
        let deadline = Instant::now() + options.timeout;
        let mut pause = crate::limits::DIAL_PAUSE_MIN;
        let found = loop {
            match discover::primary(nodes.clone(), None).await {
                Ok(found) => break found,
                Err(trouble) if Instant::now() + pause >= deadline => {
                    return Err(Error::NoPrimary { trouble });
                }
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(crate::limits::DIAL_PAUSE_MAX);
        };
        let (calls, queue) = mpsc::channel(driver::WAITING_MAX);
        let trouble = Arc::new(Trouble::default());
        tokio::spawn(Driver::new(queue, found, trouble.clone()).run());
        let tokens = options.tokens.then(|| Arc::new(Tokens::new()));
        let caller = Caller {
            calls,
            trouble,
            timeout: options.timeout,
        };
        let singles = batches::start(caller.clone());
        Ok(Client {
            caller,
            tokens,
            singles,
        })
    }

    /// The same client with another deadline for each call.
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        let caller = Caller {
            timeout,
            ..self.caller.clone()
        };
        Client {
            caller,
            ..self.clone()
        }
    }

    /// Any command, as it is. It is sent again only where it is certain that it was not done, so a
    /// lost connection makes [`Error::Unknown`] of it.
    pub async fn command<A: AsRef<[u8]>>(&self, args: &[A]) -> Result<Reply, Error> {
        check(args)?;
        self.caller.call(Frame::new(args), Kind::Plain).await
    }

    /// A command that changes nothing: sent again whenever its reply got lost.
    pub async fn read<A: AsRef<[u8]>>(&self, args: &[A]) -> Result<Reply, Error> {
        check(args)?;
        self.caller.call(Frame::new(args), Kind::Read).await
    }

    /// A command that changes keys, under a token of its own.
    pub async fn write<A: AsRef<[u8]>>(&self, args: &[A]) -> Result<Reply, Error> {
        match &self.tokens {
            Some(tokens) => self.once(tokens.draw(), args).await,
            None => self.command(args).await,
        }
    }

    /// A command that changes keys, under this token: whoever repeats it within `once_ttl` is
    /// answered the same, and it is done once.
    pub async fn once<A: AsRef<[u8]>>(
        &self,
        token: impl AsRef<[u8]>,
        args: &[A],
    ) -> Result<Reply, Error> {
        check(args)?;
        let mut frame = Frame::default();
        frame.push(&[b"ONCE", token.as_ref()], args);
        self.caller.call(frame, Kind::Once).await
    }

    /// Several commands on keys that are done together or not at all.
    pub fn multi(&self) -> Transaction {
        Transaction::new(self.clone())
    }
}

fn check<A: AsRef<[u8]>>(args: &[A]) -> Result<(), Error> {
    let Some(name) = args.first() else {
        return Err(Error::Invalid("a command has a name".to_owned()));
    };
    let name = name.as_ref();
    let mut own = NOT_SHARED.iter();
    if own.any(|word| word.as_bytes().eq_ignore_ascii_case(name)) {
        let name = String::from_utf8_lossy(name);
        let text = format!("{name} is about one connection, which all callers share here");
        return Err(Error::Invalid(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
