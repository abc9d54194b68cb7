//! RESP2/RESP3, pure: bytes in, commands out; replies in, bytes out. Limits come before memory.
//!
//! The decoder keeps its place in an unfinished command, so bytes are looked at once however they
//! are cut up, and hands over all complete commands of a read as slices of one frozen buffer. It
//! takes no more memory than what the client really sent, plus 8 bytes per argument.
#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing
)]

mod writer;

pub use writer::{Protocol, write, write_error, write_push};

use crate::state::parse_integer;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::fmt;

/// What one command may be made of.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Arguments, the command's name included.
    pub args_max: usize,
    /// Bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Bytes of one line: an inline command, a length.
    pub inline_bytes_max: usize,
    /// Bytes of one command, framing included.
    pub command_bytes_max: usize,
}

/// What a client sent is not RESP. Its reply is the last thing the connection carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    InlineTooBig,
    UnbalancedQuotes,
    CountTooBig,
    InvalidCount,
    BulkCountTooBig,
    ExpectedBulk(u8),
    InvalidBulkLength,
    /// The two bytes after an argument are not a line end: the length before it was wrong.
    MissingLineEnd,
    CommandTooBig,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Protocol error: ")?;
        match self {
            ProtocolError::InlineTooBig => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::CountTooBig => f.write_str("too big mbulk count string"),
            ProtocolError::InvalidCount => f.write_str("invalid multibulk length"),
            ProtocolError::BulkCountTooBig => f.write_str("too big bulk count string"),
            ProtocolError::ExpectedBulk(byte) => {
                write!(f, "expected '$', got '{}'", byte.escape_ascii())
            }
            ProtocolError::InvalidBulkLength => f.write_str("invalid bulk length"),
            ProtocolError::MissingLineEnd => f.write_str("expected a line end after an argument"),
            ProtocolError::CommandTooBig => f.write_str("too big request"),
        }
    }
}

/// Where an argument lies in its frame. A frame is at most `command_bytes_max` plus one read, so
/// 32 bits do.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: u32,
    len: u32,
}

/// A complete command: this many of the next spans, or a line that is still to be split.
#[derive(Clone, Copy, Debug)]
enum Form {
    Multibulk { args: u32 },
    Inline { line: Span },
}

/// What the scanner expects at `position`.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Command,
    BulkHeader { left: u32 },
    Bulk { left: u32, len: u32 },
}

/// All complete commands of one read.
#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    forms: VecDeque<Form>,
    spans: VecDeque<Span>,
}

/// Cuts a byte stream into commands.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    expect: Expect,
    /// Bytes of the buffer that have been scanned.
    position: usize,
    /// Where the unfinished command began; everything before is complete.
    command_at: usize,
    /// Bytes after `position` in which no line end was found.
    searched: usize,
    forms: VecDeque<Form>,
    /// Of the complete commands in `forms`, then of the unfinished one.
    spans: VecDeque<Span>,
    unfinished_args: u32,
    frame: Frame,
    error: Option<ProtocolError>,
}

/// The scanner cannot go on: more bytes are needed, or they are wrong.
enum Stop {
    Incomplete,
    Wrong(ProtocolError),
}

impl From<ProtocolError> for Stop {
    fn from(error: ProtocolError) -> Stop {
        Stop::Wrong(error)
    }
}

impl Decoder {
    pub fn new(limits: Limits) -> Decoder {
        assert!(
            limits.command_bytes_max < u32::MAX as usize / 2,
            "spans hold 32-bit positions; command_bytes_max is {}",
            limits.command_bytes_max
        );
        Decoder {
            limits,
            expect: Expect::Command,
            position: 0,
            command_at: 0,
            searched: 0,
            forms: VecDeque::new(),
            spans: VecDeque::new(),
            unfinished_args: 0,
            frame: Frame {
                bytes: Bytes::new(),
                forms: VecDeque::new(),
                spans: VecDeque::new(),
            },
            error: None,
        }
    }

    /// True when every command that was fed has been taken, and no error waits.
    pub fn is_drained(&self) -> bool {
        self.frame.forms.is_empty() && self.error.is_none()
    }

    /// Takes all complete commands out of `buffer`. Call it after each read, once drained; what
    /// stays in `buffer` is the unfinished command, which the next read must append to.
    pub fn feed(&mut self, buffer: &mut BytesMut) {
        assert!(
            self.frame.forms.is_empty(),
            "a frame was fed before the commands of the one before were taken"
        );
        if self.error.is_some() {
            buffer.clear();
            return;
        }
        let stop = loop {
            if let Err(stop) = self.scan(buffer) {
                break stop;
            }
        };
        if let Stop::Wrong(error) = stop {
            self.error = Some(error);
        }
        self.seal(buffer);
    }

    /// The next complete command into `args`, the name first; false when there is none.
    pub fn next(&mut self, args: &mut Vec<Bytes>) -> Result<bool, ProtocolError> {
        args.clear();
        let frame = &mut self.frame;
        match frame.forms.pop_front() {
            Some(Form::Multibulk { args: count }) => {
                let spans = frame.spans.drain(..count as usize);
                args.extend(spans.map(|span| slice(&frame.bytes, span)));
            }
            Some(Form::Inline { line }) => {
                if split_inline(&slice(&frame.bytes, line), args).is_err() {
                    frame.forms.clear();
                    self.error = Some(ProtocolError::UnbalancedQuotes);
                    return Err(ProtocolError::UnbalancedQuotes);
                }
            }
            None => {
                return match self.error.clone() {
                    Some(error) => Err(error),
                    None => Ok(false),
                };
            }
        }
        if frame.forms.is_empty() {
            // Lets go of the buffer, so that the next read can use its memory again.
            frame.bytes = Bytes::new();
        }
        Ok(true)
    }

    /// Freezes the complete commands and moves the unfinished one to the buffer's start.
    fn seal(&mut self, buffer: &mut BytesMut) {
        let unfinished = self.unfinished_args as usize;
        let complete_spans = self.spans.len() - unfinished;
        if self.forms.is_empty() {
            if self.command_at > 0 {
                // Empty lines and empty arrays only.
                assert!(complete_spans == 0, "arguments without a command");
                buffer.advance(self.command_at);
            }
        } else {
            self.frame.bytes = buffer.split_to(self.command_at).freeze();
            std::mem::swap(&mut self.frame.forms, &mut self.forms);
            std::mem::swap(&mut self.frame.spans, &mut self.spans);
            self.spans.clear();
            self.spans.extend(self.frame.spans.drain(complete_spans..));
        }
        let moved = self.command_at;
        for span in &mut self.spans {
            span.at -= narrow(moved);
        }
        self.position -= moved;
        self.command_at = 0;
    }

    /// One step: a line or an argument.
    fn scan(&mut self, buffer: &[u8]) -> Result<(), Stop> {
        match self.expect {
            Expect::Command => self.scan_start(buffer),
            Expect::BulkHeader { left } => {
                let first = *buffer.get(self.position).ok_or(Stop::Incomplete)?;
                if first != b'$' {
                    return Err(ProtocolError::ExpectedBulk(first).into());
                }
                let line = self.line(buffer, ProtocolError::BulkCountTooBig)?;
                let len = line
                    .get(1..)
                    .and_then(parse_integer)
                    .and_then(|len| usize::try_from(len).ok())
                    .filter(|len| *len <= self.limits.bulk_bytes_max)
                    .ok_or(ProtocolError::InvalidBulkLength)?;
                if self.position - self.command_at + len > self.limits.command_bytes_max {
                    return Err(ProtocolError::CommandTooBig.into());
                }
                self.expect = Expect::Bulk {
                    left,
                    len: narrow(len),
                };
                Ok(())
            }
            Expect::Bulk { left, len } => {
                let end = self.position + len as usize;
                let line_end = buffer.get(end..end + 2).ok_or(Stop::Incomplete)?;
                if line_end != b"\r\n" {
                    return Err(ProtocolError::MissingLineEnd.into());
                }
                self.spans.push_back(Span {
                    at: narrow(self.position),
                    len,
                });
                self.unfinished_args += 1;
                self.position = end + 2;
                if left > 1 {
                    self.expect = Expect::BulkHeader { left: left - 1 };
                } else {
                    self.complete(Form::Multibulk {
                        args: self.unfinished_args,
                    });
                }
                Ok(())
            }
        }
    }

    fn scan_start(&mut self, buffer: &[u8]) -> Result<(), Stop> {
        let first = *buffer.get(self.position).ok_or(Stop::Incomplete)?;
        if first != b'*' {
            let at = self.position;
            let line = self.line(buffer, ProtocolError::InlineTooBig)?;
            if line.iter().all(u8::is_ascii_whitespace) {
                self.command_at = self.position;
                return Ok(());
            }
            let line = Span {
                at: narrow(at),
                len: narrow(line.len()),
            };
            self.complete(Form::Inline { line });
            return Ok(());
        }
        let line = self.line(buffer, ProtocolError::CountTooBig)?;
        let count = line
            .get(1..)
            .and_then(parse_integer)
            .ok_or(ProtocolError::InvalidCount)?;
        match usize::try_from(count) {
            Ok(count) if count > self.limits.args_max => Err(ProtocolError::InvalidCount.into()),
            Ok(count) if count > 0 => {
                self.expect = Expect::BulkHeader {
                    left: narrow(count),
                };
                Ok(())
            }
            // Nothing was asked, nothing is answered.
            _ => {
                self.command_at = self.position;
                Ok(())
            }
        }
    }

    fn complete(&mut self, form: Form) {
        self.forms.push_back(form);
        self.unfinished_args = 0;
        self.command_at = self.position;
        self.expect = Expect::Command;
    }

    /// The line at `position`, without its end, and steps over it.
    fn line<'a>(&mut self, buffer: &'a [u8], too_big: ProtocolError) -> Result<&'a [u8], Stop> {
        let rest = buffer.get(self.position..).unwrap_or_default();
        let unseen = rest.get(self.searched..).unwrap_or_default();
        let Some(found) = memchr::memchr(b'\n', unseen) else {
            self.searched = rest.len();
            return Err(if rest.len() > self.limits.inline_bytes_max {
                Stop::Wrong(too_big)
            } else {
                Stop::Incomplete
            });
        };
        let end = self.searched + found;
        if end > self.limits.inline_bytes_max {
            return Err(Stop::Wrong(too_big));
        }
        self.searched = 0;
        self.position += end + 1;
        let line = rest.get(..end).unwrap_or_default();
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// Of a position or length that a limit has bounded already.
fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("frames are bounded by command_bytes_max plus one read")
}

fn slice(bytes: &Bytes, span: Span) -> Bytes {
    let at = span.at as usize;
    bytes.slice(at..at + span.len as usize)
}

struct Unbalanced;

/// Splits a line into arguments as Redis does: blanks separate, "double" quotes with escapes,
/// 'single' quotes with \' only; after a closing quote a blank or the end must follow.
fn split_inline(line: &[u8], args: &mut Vec<Bytes>) -> Result<(), Unbalanced> {
    let mut rest = line.iter().copied().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        if rest.peek().is_none() {
            return Ok(());
        }
        let mut arg = Vec::new();
        while let Some(byte) = rest.next_if(|byte| !byte.is_ascii_whitespace()) {
            if byte != b'"' && byte != b'\'' {
                arg.push(byte);
                continue;
            }
            loop {
                match rest.next().ok_or(Unbalanced)? {
                    end if end == byte => break,
                    b'\\' if byte == b'"' => arg.push(unescape(&mut rest)?),
                    b'\\' if rest.next_if_eq(&b'\'').is_some() => arg.push(b'\''),
                    other => arg.push(other),
                }
            }
            if rest.peek().is_some_and(|next| !next.is_ascii_whitespace()) {
                return Err(Unbalanced);
            }
        }
        args.push(arg.into());
    }
}

/// What stands behind a backslash in double quotes.
fn unescape(
    rest: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>,
) -> Result<u8, Unbalanced> {
    let byte = rest.next().ok_or(Unbalanced)?;
    if byte == b'x' {
        let mut ahead = rest.clone();
        let digits = ahead.next().zip(ahead.next());
        let hex = digits.and_then(|(high, low)| {
            let value = char::from(high).to_digit(16)? * 16 + char::from(low).to_digit(16)?;
            u8::try_from(value).ok()
        });
        if let Some(value) = hex {
            *rest = ahead;
            return Ok(value);
        }
    }
    Ok(match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    })
}

#[cfg(test)]
mod tests;
