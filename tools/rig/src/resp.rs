//! A blocking RESP client of a hundred lines: pipelining and raw replies stay visible, nothing is
//! retried, nothing is hidden.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// One reply as it came. RESP3's maps and pushes are flat arrays here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Value>),
}

impl Value {
    /// A bulk string of this text.
    pub fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    /// `+OK`
    pub fn ok() -> Value {
        Value::Simple("OK".into())
    }

    /// The text of a simple string, bulk string, error or number; empty for the rest.
    pub fn text(&self) -> String {
        match self {
            Value::Simple(text) | Value::Error(text) => text.clone(),
            Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Int(number) => number.to_string(),
            Value::Nil | Value::Array(_) => String::new(),
        }
    }

    /// The first word of an error, such as `READONLY`; `None` for any other reply.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Value::Error(text) => Some(text.split(' ').next().unwrap_or_default()),
            _ => None,
        }
    }

    /// The parts of an array; panics on any other reply.
    pub fn array(self) -> Vec<Value> {
        match self {
            Value::Array(parts) => parts,
            other => panic!("an array was expected, not {other:?}"),
        }
    }

    /// A number, also where it came as a string; panics on any other reply.
    pub fn number(&self) -> i64 {
        match self {
            Value::Int(number) => *number,
            other => other
                .text()
                .parse()
                .unwrap_or_else(|_| panic!("no number: {other:?}")),
        }
    }
}

/// One connection.
pub struct Conn {
    stream: TcpStream,
    address: String,
    input: Vec<u8>,
    /// Where the next reply starts in `input`.
    at: usize,
    output: Vec<u8>,
}

impl Conn {
    /// Connects within `timeout`, which also bounds every later read until `set_timeout`.
    pub fn open(address: &str, timeout: Duration) -> io::Result<Conn> {
        let target: SocketAddr = address
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::other(format!("no such address: {address}")))?;
        let stream = TcpStream::connect_timeout(&target, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Conn {
            stream,
            address: address.into(),
            input: Vec::new(),
            at: 0,
            output: Vec::new(),
        })
    }

    /// Where this connection leads.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long a read may take before it fails with `WouldBlock` or `TimedOut`.
    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    /// Sends one command and waits for its reply.
    pub fn call(&mut self, args: &[&str]) -> io::Result<Value> {
        self.push(args);
        self.flush()?;
        self.read()
    }

    /// Queues one command; `flush` sends what is queued.
    pub fn push(&mut self, args: &[&str]) {
        encode(&mut self.output, args.iter().map(|arg| arg.as_bytes()));
    }

    /// Queues one command of binary arguments.
    pub fn push_bytes(&mut self, args: &[&[u8]]) {
        encode(&mut self.output, args.iter().copied());
    }

    /// Sends everything queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Waits for one reply. A time-out loses nothing: the next read goes on where this one stopped.
    pub fn read(&mut self) -> io::Result<Value> {
        loop {
            if let Some((value, end)) = parse(&self.input, self.at)? {
                self.at = end;
                if self.at == self.input.len() {
                    self.input.clear();
                    self.at = 0;
                }
                return Ok(value);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// As `read`, with `None` where the time-out passed.
    pub fn read_within(&mut self) -> io::Result<Option<Value>> {
        match self.read() {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error only says that nothing came in time.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Appends one command to `output`.
pub fn encode<'a>(output: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    output.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        output.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        output.extend_from_slice(arg);
        output.extend_from_slice(b"\r\n");
    }
}

/// The reply that starts at `at`, and where it ends; `None` while it is incomplete.
pub fn parse(input: &[u8], at: usize) -> io::Result<Option<(Value, usize)>> {
    let Some(line_end) = input[at..].windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let line = &input[at..at + line_end];
    let next = at + line_end + 2;
    let Some((kind, rest)) = line.split_first() else {
        return Err(io::Error::other("an empty line instead of a reply"));
    };
    let text = || String::from_utf8_lossy(rest).into_owned();
    let number = || {
        text()
            .parse::<i64>()
            .map_err(|_| io::Error::other(format!("no number: {:?}", text())))
    };
    let value = match kind {
        b'+' | b',' | b'(' | b'#' => Value::Simple(text()),
        b'-' => Value::Error(text()),
        b':' => Value::Int(number()?),
        b'_' => Value::Nil,
        b'$' | b'=' | b'!' => return parse_bulk(input, next, number()?),
        b'*' | b'~' | b'>' => return parse_parts(input, next, number()?),
        b'%' => return parse_parts(input, next, number()? * 2),
        other => return Err(io::Error::other(format!("no reply starts with {other:#x}"))),
    };
    Ok(Some((value, next)))
}

fn parse_bulk(input: &[u8], at: usize, len: i64) -> io::Result<Option<(Value, usize)>> {
    let Ok(len) = usize::try_from(len) else {
        return Ok(Some((Value::Nil, at)));
    };
    if input.len() < at + len + 2 {
        return Ok(None);
    }
    Ok(Some((
        Value::Bulk(input[at..at + len].to_vec()),
        at + len + 2,
    )))
}

fn parse_parts(input: &[u8], mut at: usize, count: i64) -> io::Result<Option<(Value, usize)>> {
    if count < 0 {
        return Ok(Some((Value::Nil, at)));
    }
    let mut parts = Vec::new();
    for _ in 0..count {
        match parse(input, at)? {
            Some((part, end)) => {
                parts.push(part);
                at = end;
            }
            None => return Ok(None),
        }
    }
    Ok(Some((Value::Array(parts), at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_reply_is_read_and_every_truncation_waits_for_more() {
        let input = b"*6\r\n+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*1\r\n_\r\n";
        let expected = Value::Array(vec![
            Value::ok(),
            Value::Error("ERR no".into()),
            Value::Int(-7),
            Value::Bulk(b"a\r\n".to_vec()),
            Value::Nil,
            Value::Array(vec![Value::Nil]),
        ]);
        // `$3\r\na\r\n\r\n` is the bulk string "a\r\n".
        let whole = parse(input, 0).unwrap();
        assert_eq!(whole, Some((expected, input.len())));
        for end in 0..input.len() {
            assert_eq!(parse(&input[..end], 0).unwrap(), None, "cut at {end}");
        }
    }
}
