//! What a command answers, before anybody decides how it looks on the wire.

use bytes::Bytes;

/// The result of one command. Deterministic: part of what ONCE stores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// `+OK`
    Ok,
    /// Null: a missing key, a failed condition, an EXEC whose watched keys changed.
    Nil,
    /// Null where RESP2 has a null array (EXEC).
    NilArray,
    Int(i64),
    /// A simple string other than OK.
    Simple(&'static str),
    Bulk(Bytes),
    Array(Vec<Reply>),
    /// A RESP3 map; a flat array in RESP2. Keys and values in turn.
    Map(Vec<(Reply, Reply)>),
    /// The whole error text with its prefix, without the leading `-`.
    Error(Bytes),
}

impl Reply {
    /// An error; the text begins with its prefix.
    pub fn error(text: impl Into<String>) -> Reply {
        Reply::Error(Bytes::from(text.into()))
    }
}
