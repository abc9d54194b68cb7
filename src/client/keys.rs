//! Calls on keys: thin, typed faces of [`Client::read`] and [`Client::write`].

use super::{Client, Error};
use bytes::Bytes;
use std::time::Duration;

/// Conditions and expiry of [`Client::set_with`].
#[derive(Clone, Debug, Default)]
pub struct SetOptions(Vec<Vec<u8>>);

impl SetOptions {
    pub fn new() -> SetOptions {
        SetOptions::default()
    }

    /// Only if the key is not there.
    pub fn if_absent(self) -> SetOptions {
        self.with(&["NX"])
    }

    /// Only if the key is there.
    pub fn if_present(self) -> SetOptions {
        self.with(&["XX"])
    }

    /// Only if the key holds exactly this.
    pub fn if_equal(self, expected: impl AsRef<[u8]>) -> SetOptions {
        self.with(&[b"IFEQ", expected.as_ref()])
    }

    /// The key ends after so long, in whole milliseconds.
    pub fn expire_after(self, span: Duration) -> SetOptions {
        self.with(&["PX", &span.as_millis().to_string()])
    }

    /// The key's expiry stays as it is.
    pub fn keep_expiry(self) -> SetOptions {
        self.with(&["KEEPTTL"])
    }

    fn with<A: AsRef<[u8]>>(mut self, words: &[A]) -> SetOptions {
        self.0
            .extend(words.iter().map(|word| word.as_ref().to_vec()));
        self
    }
}

impl Client {
    /// Whether the primary answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.read(&["PING"]).await?.into_unit()
    }

    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        self.read(&[b"GET", key.as_ref()]).await?.into_value()
    }

    /// Several values, all at one point of the log.
    pub async fn mget<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>, Error> {
        let values = self.read(&after("MGET", keys)).await?.into_array()?;
        values.into_iter().map(|value| value.into_value()).collect()
    }

    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write(&[b"SET", key.as_ref(), value.as_ref()])
            .await?
            .into_unit()
    }

    /// Whether it was set: its conditions held.
    pub async fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &SetOptions,
    ) -> Result<bool, Error> {
        let mut args = vec![&b"SET"[..], key.as_ref(), value.as_ref()];
        args.extend(options.0.iter().map(Vec::as_slice));
        match self.write(&args).await? {
            super::Reply::Nil => Ok(false),
            reply => reply.into_unit().map(|()| true),
        }
    }

    /// Sets a value and answers the one before.
    pub async fn swap(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Option<Bytes>, Error> {
        self.write(&[b"SET", key.as_ref(), value.as_ref(), b"GET"])
            .await?
            .into_value()
    }

    /// Sets several values together.
    pub async fn mset<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: &[(K, V)],
    ) -> Result<(), Error> {
        let mut args = vec![&b"MSET"[..]];
        args.extend(
            pairs
                .iter()
                .flat_map(|(key, value)| [key.as_ref(), value.as_ref()]),
        );
        self.write(&args).await?.into_unit()
    }

    /// How many of the keys there were.
    pub async fn del<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<u64, Error> {
        self.write(&after("DEL", keys)).await?.into_count()
    }

    /// Deletes a key if it holds exactly this: releases one's own lock.
    pub async fn del_if_equal(
        &self,
        key: impl AsRef<[u8]>,
        expected: impl AsRef<[u8]>,
    ) -> Result<bool, Error> {
        let reply = self
            .write(&[b"DELIFEQ", key.as_ref(), expected.as_ref()])
            .await?;
        Ok(reply.into_count()? == 1)
    }

    /// How many of the keys there are.
    pub async fn exists<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<u64, Error> {
        self.read(&after("EXISTS", keys)).await?.into_count()
    }

    pub async fn incr(&self, key: impl AsRef<[u8]>) -> Result<i64, Error> {
        self.write(&[b"INCR", key.as_ref()]).await?.into_int()
    }

    pub async fn decr(&self, key: impl AsRef<[u8]>) -> Result<i64, Error> {
        self.write(&[b"DECR", key.as_ref()]).await?.into_int()
    }

    /// Adds a number, which may be negative.
    pub async fn incr_by(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        self.write(&[b"INCRBY", key.as_ref(), by.to_string().as_bytes()])
            .await?
            .into_int()
    }

    /// Whether the key is there, and so ends after so long, in whole milliseconds.
    pub async fn expire(&self, key: impl AsRef<[u8]>, span: Duration) -> Result<bool, Error> {
        let span = span.as_millis().to_string();
        let reply = self
            .write(&[b"PEXPIRE", key.as_ref(), span.as_bytes()])
            .await?;
        Ok(reply.into_count()? == 1)
    }
}

/// A command's name before its keys.
fn after<'a, K: AsRef<[u8]>>(name: &'a str, keys: &'a [K]) -> Vec<&'a [u8]> {
    let mut args = vec![name.as_bytes()];
    args.extend(keys.iter().map(AsRef::as_ref));
    args
}
