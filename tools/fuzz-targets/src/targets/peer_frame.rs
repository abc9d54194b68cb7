//! Peer frames: header, head, and the records behind it.
//!
//! Asserted: any cut of a stream gives the same frames and the same end; memory stays near what
//! was sent, whatever a header announces; each frame encodes to one that decodes the same; every
//! record of one proves itself again; the commands, replies and pieces in it decode or are refused.

use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::{Target, pieces, repair, samples};
use bytes::{Bytes, BytesMut};
use standfast::node::archive::Note;
use standfast::node::wire::{
    self, ForwardReply, Forwarded, Frame, HEADER, HEADER_BYTES, Head, Hello, Piece, WIRE_VERSION,
};
use standfast::replication::fence::Fence;
use standfast::replication::message::{Beat, Body, Message, SnapshotHead};
use standfast::replication::register::{self, Ballot, Proposal, Value};
use standfast::state::{Command, Reply};
use standfast_wal::{Epoch, Link, Lsn, NodeId, Nonce, Position, Record};

pub const TARGET: Target = Target {
    name: "peer_frame",
    decodes: "node/wire (decode: Hello, messages, records, forwarded commands, snapshot pieces)",
    run,
    marks: &["frame", "a record", "several records", "refused"],
    seeds,
};

/// A list of which the length is known takes its memory ahead, up to a mebibyte each; the
/// smallest reign of a table is 7 bytes on the wire and 80 in memory, and what grows doubles.
const MEMORY: Bound = Bound {
    per_byte: 64,
    fixed: 3 << 20,
};

/// As `limits::LINK_READ_BYTES` would have it; any will do.
const FIRST_BYTES: usize = 16;

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let mut stream = match how.has(How::INSIDE) {
        true => framed(bytes),
        false => bytes.to_vec(),
    };
    if how.has(How::REPAIRED) {
        make_good(&mut stream, how.has(How::ALIGNED));
    }
    let (frames, end) = MEMORY.hold(stream.len(), || decode(&[&stream]));
    let cut = pieces(&stream, u64::from(how.choice()));
    let (again, end_again) = MEMORY.hold(stream.len(), || decode(&cut));
    assert_eq!(
        (&frames, end),
        (&again, end_again),
        "the same bytes, cut up otherwise"
    );
    frames.iter().for_each(look_at);
}

/// How a stream ended: still open, or refused with this.
type End = Option<String>;

fn decode(pieces: &[&[u8]]) -> (Vec<Frame>, End) {
    let mut buffer = BytesMut::with_capacity(FIRST_BYTES);
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match wire::decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    hit("refused");
                    return (frames, Some(error.to_string()));
                }
            }
        }
    }
    (frames, None)
}

/// Everything that a node may do with a frame before it decides anything by it.
fn look_at(frame: &Frame) {
    hit("frame");
    match frame.records.len() {
        0 => {}
        1 => hit("a record"),
        _ => hit("several records"),
    }
    let mut out = Vec::new();
    wire::encode(frame, &mut out);
    let mut bytes = BytesMut::new();
    out.iter().for_each(|part| bytes.extend_from_slice(part));
    let back = wire::decode(&mut bytes).expect("what was encoded decodes");
    assert_eq!(back.as_ref(), Some(frame));
    assert!(bytes.is_empty());
    for record in &frame.records {
        let proved = Record::check(record.bytes()).expect("a record that was let in");
        assert_eq!(proved, record.head());
    }
    assert!(!format!("{:?}", frame.head).is_empty());
    match &frame.head {
        Head::Core { message } => {
            let mut message = message.clone();
            if message.set_records(frame.records.clone()) {
                assert_eq!(message.records().len(), frame.records.len());
            }
            assert!(!message.to_string().is_empty());
        }
        Head::Forward { commands } => {
            for forwarded in commands {
                let _ = Command::from_encoded(forwarded.command.clone());
            }
        }
        Head::Replied { replies } => {
            for replied in replies {
                let _ = Reply::decode(replied.reply.clone());
            }
        }
        Head::Hello(_) | Head::Refused(_) | Head::Copy(_) | Head::Archive(_) => {}
    }
}

/// `bytes` as length of the head (2), head, records, with a header before.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else {
        return Vec::new();
    };
    let head_len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
    let mut stream = vec![0; HEADER_BYTES];
    stream.extend_from_slice(rest);
    repair::put(&mut stream, &HEADER, "head_len", head_len as u64);
    repair::put(
        &mut stream,
        &HEADER,
        "body_len",
        (rest.len() - head_len) as u64,
    );
    stream
}

/// Makes the checksums of all frames good; `aligned` fits the lengths into what is there.
fn make_good(mut stream: &mut [u8], aligned: bool) {
    while stream.len() >= HEADER_BYTES {
        let rest = (stream.len() - HEADER_BYTES) as u64;
        let mut head_len = repair::number(stream, &HEADER, "head_len");
        let mut body_len = repair::number(stream, &HEADER, "body_len");
        if aligned {
            head_len = head_len.min(rest);
            body_len = body_len.min(rest - head_len);
            repair::put(stream, &HEADER, "head_len", head_len);
            repair::put(stream, &HEADER, "body_len", body_len);
        }
        if head_len + body_len > rest {
            return;
        }
        let whole = |len: u64| usize::try_from(len).expect("it is in memory");
        let (frame, after) = stream.split_at_mut(HEADER_BYTES + whole(head_len + body_len));
        let (head, body) = frame.split_at_mut(HEADER_BYTES + whole(head_len));
        repair::records(body, aligned.then(Link::default));
        let crc = repair::crc_without(head, repair::field(&HEADER, "head_crc"));
        repair::put_u32(head, &HEADER, "head_crc", crc);
        stream = after;
    }
}

fn hello() -> Head {
    Head::Hello(Hello {
        version: WIRE_VERSION,
        cluster_name: "books".to_string(),
        cluster: samples::CLUSTER,
        from: NodeId(1),
        incarnation: samples::INCARNATION,
        process: 5,
        to: NodeId(2),
        is_packed: true,
    })
}

fn snapshot_head() -> SnapshotHead {
    SnapshotHead {
        history: samples::HISTORY,
        link: Link::default(),
        epochs: samples::epochs(),
    }
}

fn bodies() -> Vec<Body> {
    let (epoch, round, lsn, attempt) = (Epoch(3), 7, Lsn(40), Nonce(6));
    let fence = Fence {
        history: samples::HISTORY,
        epoch,
    };
    let value = || Value::new(samples::cluster());
    let register = |body| {
        Body::Register(register::Message {
            history: samples::HISTORY,
            body,
        })
    };
    vec![
        Body::Follow {
            epoch,
            round,
            tip: lsn,
            epochs: samples::epochs(),
        },
        Body::Append {
            epoch,
            round,
            commit: lsn,
            previous: Link::default(),
            records: Vec::new(),
        },
        Body::Heartbeat(Beat {
            epoch,
            round,
            commit: lsn,
            version: 2,
            quiet: false,
            echo: Some(4),
            wall: 1 << 60,
        }),
        Body::Fenced {
            fence,
            attempt,
            last: Position { epoch, lsn },
            commit: lsn,
            suspect: true,
            wall: 1,
            epochs: samples::epochs(),
        },
        Body::Fetched {
            attempt,
            previous: Link::default(),
            records: Vec::new(),
        },
        Body::Configured { config: value() },
        Body::Join {
            role: standfast::replication::config::MemberRole::Data,
            voter: true,
            site: "main".to_string(),
            priority: 1,
            addresses: samples::addresses(),
            asked: false,
        },
        register(register::Body::Prepare {
            ballot: Ballot::GENESIS,
            known: 1,
        }),
        register(register::Body::Accept {
            ballot: Ballot::GENESIS,
            proposal: Proposal {
                value: value(),
                parent: Some(value()),
            },
        }),
    ]
}

pub(super) fn frames() -> Vec<Frame> {
    let core = |body| {
        let history = samples::HISTORY;
        let message = Message { history, body };
        Frame {
            records: match &message.body {
                Body::Append { .. } | Body::Fetched { .. } => samples::records(),
                _ => Vec::new(),
            },
            head: Head::Core { message },
        }
    };
    let mut frames: Vec<Frame> = bodies().into_iter().map(core).collect();
    let command = samples::payload(&samples::composed()[..1]).slice(4..);
    let mut reply = Vec::new();
    Reply::Array(vec![Reply::Ok, Reply::Bulk(Bytes::from_static(b"x"))]).encode(&mut reply);
    let plain = [
        hello(),
        Head::Refused("another cluster".to_string()),
        Head::Forward {
            commands: vec![Forwarded {
                ticket: 1,
                write: true,
                command,
            }],
        },
        Head::Replied {
            replies: vec![ForwardReply {
                ticket: 1,
                lsn: Lsn(3),
                epoch: 2,
                generation: 3,
                reply: reply.into(),
            }],
        },
        Head::Copy(Piece::Offer {
            head: snapshot_head(),
            total: 1 << 30,
        }),
        Head::Copy(Piece::Chunk {
            offset: 9,
            bytes: Bytes::from_static(b"a piece"),
        }),
        Head::Copy(Piece::Installed),
        Head::Archive(Note::Duty {
            archiver: NodeId(2),
            standing: Box::default(),
        }),
    ];
    frames.extend(plain.map(Frame::plain));
    frames
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for frame in frames() {
        let mut out = Vec::new();
        wire::encode(&frame, &mut out);
        let stream = out.concat();
        let head_len = repair::number(&stream, &HEADER, "head_len");
        let inside = [&head_len.to_le_bytes()[..2], &stream[HEADER_BYTES..]].concat();
        let bits = How::REPAIRED | How::ALIGNED | How::INSIDE;
        seeds.push(join(How::of(bits, 3), &inside));
        seeds.push(join(How::of(How::REPAIRED, 1), &stream));
        all.extend_from_slice(&stream);
    }
    seeds.push(join(How::of(0, 2), &all));
    // A header that announces the most that there may be, and nothing behind it.
    let mut large = vec![0; HEADER_BYTES];
    let most = standfast::limits::FRAME_BYTES_MAX as u64;
    repair::put(&mut large, &HEADER, "body_len", most);
    seeds.push(join(How::of(0, 0), &large));
    seeds
}
