//! What a node answers, as the client reads it.
//!
//! Asserted: a reply ends where it ends, whatever comes behind it; nothing is said of one that has
//! not come as a whole; memory stays near what was sent.

use crate::Target;
use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use standfast::client::{Malformed, Reply, parse_reply};

pub const TARGET: Target = Target {
    name: "reply",
    decodes: "client/reply",
    run,
    marks: &["reply", "array", "bulk", "malformed", "incomplete"],
    seeds,
};

/// An item takes 3 bytes on the wire at least and 40 here, and what grows is there twice.
const MEMORY: Bound = Bound {
    per_byte: 64,
    fixed: 4 << 10,
};

fn run(input: &[u8]) {
    let Some((_, bytes)) = split(input) else {
        return;
    };
    let (replies, end) = MEMORY.hold(bytes.len(), || read_all(bytes));
    for (reply, one) in &replies {
        hit("reply");
        match reply {
            Reply::Array(_) => hit("array"),
            Reply::Bulk(_) => hit("bulk"),
            _ => {}
        }
        assert_eq!(parse_reply(one), Ok(Some((reply.clone(), one.len()))));
        // A few places of a long one are as good as all.
        let step = one.len() / 16 + 1;
        for len in (0..one.len()).step_by(step) {
            assert_eq!(parse_reply(&one[..len]), Ok(None));
        }
    }
    match end {
        Ok(()) => hit("incomplete"),
        Err(Malformed) => hit("malformed"),
    }
}

type Replies<'a> = Vec<(Reply, &'a [u8])>;

fn read_all(mut rest: &[u8]) -> (Replies<'_>, Result<(), Malformed>) {
    let mut replies = Vec::new();
    loop {
        match parse_reply(rest) {
            Ok(Some((reply, len))) => {
                assert!(len > 0);
                let (one, behind) = rest.split_at(len);
                replies.push((reply, one));
                rest = behind;
            }
            Ok(None) => return (replies, Ok(())),
            Err(malformed) => return (replies, Err(malformed)),
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let streams: [&[u8]; 9] = [
        b"+OK\r\n",
        b"-NOTPRIMARY the primary is elsewhere\r\n",
        b":-42\r\n:9223372036854775807\r\n",
        b"$5\r\nhello\r\n$0\r\n\r\n$-1\r\n",
        b"*3\r\n$1\r\na\r\n:1\r\n*-1\r\n",
        b"*1\r\n*1\r\n*1\r\n*0\r\n",
        b"*16777216\r\n$1\r\na\r\n",
        b"$1073741824\r\nmuch is promised",
        b"*2\r\n-ERR one of them\r\n+QUEUED\r\n$3\r\nend",
    ];
    streams.map(|stream| join(How::of(0, 0), stream)).to_vec()
}
