//! Replies into an output buffer.

use crate::state::Reply;
use bytes::{BufMut, BytesMut};

/// What the connection agreed on with HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Appends `reply` as the client reads it.
pub fn write(reply: &Reply, protocol: Protocol, out: &mut BytesMut) {
    match reply {
        Reply::Ok => out.put_slice(b"+OK\r\n"),
        Reply::Int(value) => header(b':', *value, out),
        Reply::Bulk(bytes) => {
            header(b'$', bytes.len(), out);
            out.put_slice(bytes);
            out.put_slice(b"\r\n");
        }
        Reply::Nil | Reply::NilArray if protocol == Protocol::Resp3 => out.put_slice(b"_\r\n"),
        Reply::Nil => out.put_slice(b"$-1\r\n"),
        Reply::NilArray => out.put_slice(b"*-1\r\n"),
        Reply::Simple(text) => {
            out.put_u8(b'+');
            out.put_slice(text.as_bytes());
            out.put_slice(b"\r\n");
        }
        Reply::Array(items) => {
            header(b'*', items.len(), out);
            items.iter().for_each(|item| write(item, protocol, out));
        }
        Reply::Map(pairs) => {
            match protocol {
                Protocol::Resp2 => header(b'*', pairs.len() * 2, out),
                Protocol::Resp3 => header(b'%', pairs.len(), out),
            }
            for (key, value) in pairs {
                write(key, protocol, out);
                write(value, protocol, out);
            }
        }
        Reply::Error(text) => write_error(text, out),
    }
}

/// Appends an error; a line end inside it would be taken for the end of the reply.
pub fn write_error(text: &[u8], out: &mut BytesMut) {
    out.put_u8(b'-');
    match memchr::memchr2(b'\r', b'\n', text) {
        None => out.put_slice(text),
        Some(_) => {
            out.extend(text.iter().map(|byte| {
                if matches!(byte, b'\r' | b'\n') {
                    b' '
                } else {
                    *byte
                }
            }));
        }
    }
    out.put_slice(b"\r\n");
}

/// Appends what was not asked for: a push in RESP3, an array in RESP2.
pub fn write_push(items: &[Reply], protocol: Protocol, out: &mut BytesMut) {
    let kind = match protocol {
        Protocol::Resp2 => b'*',
        Protocol::Resp3 => b'>',
    };
    header(kind, items.len(), out);
    items.iter().for_each(|item| write(item, protocol, out));
}

fn header(kind: u8, value: impl itoa::Integer, out: &mut BytesMut) {
    out.put_u8(kind);
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
    out.put_slice(b"\r\n");
}
