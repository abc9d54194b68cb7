//! MULTI and EXEC as one call: its frame is never torn apart by other callers' commands.

use super::call::{Frame, Kind};
use super::{Client, Error, Reply};

/// Commands on keys that are done together: one entry of the log, or none.
#[derive(Debug)]
#[must_use = "nothing is sent before `exec`"]
pub struct Transaction {
    client: Client,
    frame: Frame,
}

impl Transaction {
    pub(super) fn new(client: Client) -> Transaction {
        let frame = Frame::new(&["MULTI"]);
        Transaction { client, frame }
    }

    /// Any command on keys.
    pub fn command<A: AsRef<[u8]>>(mut self, args: &[A]) -> Transaction {
        self.frame.push(&[], args);
        self
    }

    pub fn get(self, key: impl AsRef<[u8]>) -> Transaction {
        self.command(&[b"GET", key.as_ref()])
    }

    pub fn set(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Transaction {
        self.command(&[b"SET", key.as_ref(), value.as_ref()])
    }

    pub fn del(self, key: impl AsRef<[u8]>) -> Transaction {
        self.command(&[b"DEL", key.as_ref()])
    }

    pub fn incr(self, key: impl AsRef<[u8]>) -> Transaction {
        self.command(&[b"INCR", key.as_ref()])
    }

    pub fn incr_by(self, key: impl AsRef<[u8]>, by: i64) -> Transaction {
        self.command(&[b"INCRBY", key.as_ref(), by.to_string().as_bytes()])
    }

    /// Does them; one reply for each. A command that fails as it runs, such as INCR of a text, is a
    /// [`Reply::Error`] in its place and undoes nothing; one that is refused before makes all of
    /// them refused.
    pub async fn exec(self) -> Result<Vec<Reply>, Error> {
        match self.client.tokens.as_ref().map(|tokens| tokens.draw()) {
            Some(token) => self.exec_once(token).await,
            None => self.finish(&["EXEC"], Kind::Plain).await,
        }
    }

    /// As [`Transaction::exec`], under this token: see [`Client::once`].
    pub async fn exec_once(self, token: impl AsRef<[u8]>) -> Result<Vec<Reply>, Error> {
        self.finish(&[b"ONCE", token.as_ref(), b"EXEC"], Kind::Once)
            .await
    }

    async fn finish<A: AsRef<[u8]>>(mut self, exec: &[A], kind: Kind) -> Result<Vec<Reply>, Error> {
        self.frame.push(&[], exec);
        self.client
            .caller
            .call(self.frame, kind)
            .await?
            .into_array()
    }
}
