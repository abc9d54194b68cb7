//! Replies as they come: RESP2, pure. Bytes in, one value out, limits before memory.
#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing
)]

use super::Error;
use bytes::Bytes;

/// Arrays in arrays; replies of this server have at most three.
const DEPTH_MAX: usize = 8;
/// Bytes of one bulk string: a node sends no larger one.
const BULK_BYTES_MAX: usize = 1 << 30;
const ITEMS_MAX: usize = 1 << 24;
const LINE_BYTES_MAX: usize = 64 << 10;

/// One reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Nil,
    /// A short text such as `OK`.
    Simple(String),
    /// The whole error, its first word included. Only inside an array: alone it is an [`Error`].
    Error(String),
    Int(i64),
    Bulk(Bytes),
    Array(Vec<Reply>),
}

/// What a node sent is not RESP2: the connection is of no more use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

type Parsed<T> = Result<Option<T>, Malformed>;

/// The reply at the beginning of `input` and how many bytes it takes; `None` while incomplete.
pub fn parse(input: &[u8]) -> Parsed<(Reply, usize)> {
    let mut rest = input;
    let reply = take(&mut rest, DEPTH_MAX)?;
    Ok(reply.map(|reply| (reply, input.len() - rest.len())))
}

fn take(rest: &mut &[u8], depth: usize) -> Parsed<Reply> {
    let Some(line) = take_line(rest)? else {
        return Ok(None);
    };
    let (kind, line) = line.split_first().ok_or(Malformed)?;
    let text = || String::from_utf8_lossy(line).into_owned();
    match kind {
        b'+' => Ok(Some(Reply::Simple(text()))),
        b'-' => Ok(Some(Reply::Error(text()))),
        b':' => Ok(Some(Reply::Int(number(line)?))),
        b'$' => match length(line, BULK_BYTES_MAX)? {
            None => Ok(Some(Reply::Nil)),
            Some(length) => take_bulk(rest, length),
        },
        b'*' => match length(line, ITEMS_MAX)? {
            None => Ok(Some(Reply::Nil)),
            Some(count) => take_items(rest, count, depth.checked_sub(1).ok_or(Malformed)?),
        },
        _ => Err(Malformed),
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Parsed<&'a [u8]> {
    let Some(end) = memchr::memchr(b'\n', rest) else {
        return if rest.len() > LINE_BYTES_MAX {
            Err(Malformed)
        } else {
            Ok(None)
        };
    };
    if end > LINE_BYTES_MAX {
        return Err(Malformed);
    }
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).ok_or(Malformed)?;
    Ok(Some(line.strip_suffix(b"\r").ok_or(Malformed)?))
}

fn take_bulk(rest: &mut &[u8], length: usize) -> Parsed<Reply> {
    let (Some(bulk), Some(end)) = (rest.get(..length), rest.get(length..length + 2)) else {
        return Ok(None);
    };
    if end != b"\r\n" {
        return Err(Malformed);
    }
    let reply = Reply::Bulk(Bytes::copy_from_slice(bulk));
    *rest = rest.get(length + 2..).ok_or(Malformed)?;
    Ok(Some(reply))
}

fn take_items(rest: &mut &[u8], count: usize, depth: usize) -> Parsed<Reply> {
    // A count is only a promise: memory is taken for what has come.
    let mut items = Vec::new();
    for _ in 0..count {
        match take(rest, depth)? {
            Some(item) => items.push(item),
            None => return Ok(None),
        }
    }
    Ok(Some(Reply::Array(items)))
}

fn number(line: &[u8]) -> Result<i64, Malformed> {
    let text = std::str::from_utf8(line).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
}

/// `None` is the length -1: null.
fn length(line: &[u8], max: usize) -> Result<Option<usize>, Malformed> {
    match number(line)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= max => Ok(Some(length)),
            _ => Err(Malformed),
        },
    }
}

impl Reply {
    /// A text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Reply::Simple(text) => Some(text),
            Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An error inside an array: one command of a transaction that was refused.
    pub fn error(&self) -> Option<Error> {
        match self {
            Reply::Error(text) => Some(Error::refused(text)),
            _ => None,
        }
    }

    fn unexpected(self) -> Error {
        Error::Unexpected(format!("{self:?}"))
    }

    pub(super) fn into_unit(self) -> Result<(), Error> {
        match self {
            Reply::Simple(_) => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    pub(super) fn into_int(self) -> Result<i64, Error> {
        match self {
            Reply::Int(number) => Ok(number),
            other => Err(other.unexpected()),
        }
    }

    pub(super) fn into_count(self) -> Result<u64, Error> {
        match self {
            Reply::Int(number) if number >= 0 => Ok(number.unsigned_abs()),
            other => Err(other.unexpected()),
        }
    }

    pub(super) fn into_bytes(self) -> Result<Bytes, Error> {
        match self {
            Reply::Bulk(bytes) => Ok(bytes),
            other => Err(other.unexpected()),
        }
    }

    pub(super) fn into_value(self) -> Result<Option<Bytes>, Error> {
        match self {
            Reply::Nil => Ok(None),
            other => other.into_bytes().map(Some),
        }
    }

    pub(super) fn into_array(self) -> Result<Vec<Reply>, Error> {
        match self {
            Reply::Array(items) => Ok(items),
            other => Err(other.unexpected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_and_every_truncation_waits_for_more() {
        let input = b"*7\r\n+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n*1\r\n:1\r\n";
        let expected = Reply::Array(vec![
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Int(-7),
            Reply::Bulk(Bytes::from_static(b"a\r\n")),
            Reply::Nil,
            Reply::Nil,
            Reply::Array(vec![Reply::Int(1)]),
        ]);
        assert_eq!(parse(input), Ok(Some((expected, input.len()))));
        for end in 0..input.len() {
            assert_eq!(
                parse(input.get(..end).expect("within")),
                Ok(None),
                "cut at {end}"
            );
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_before_memory_is_taken() {
        for input in [
            &b"OK\r\n"[..],
            b"+OK\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$1073741825\r\n",
            b"*99999999999\r\n",
            b"$1\r\nab\r\n",
            b"\r\n",
        ] {
            assert_eq!(parse(input), Err(Malformed), "{}", input.escape_ascii());
        }
        assert_eq!(parse(&b"*1\r\n".repeat(20)), Err(Malformed));
        assert_eq!(parse(&vec![b'+'; LINE_BYTES_MAX + 1]), Err(Malformed));
        assert_eq!(parse(b"*16777216\r\n"), Ok(None));
    }
}
