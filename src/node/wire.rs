//! Peer frames, pure: bytes in, frames out, limits before memory.
//!
//! A frame is `HEADER`, then a postcard-encoded [`Head`], then raw records back to back exactly as
//! they lie on the sender's disk. The frame's checksum covers the head; every record carries its
//! own, so no byte of it is summed twice.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::limits;
use crate::node::archive::Note;
use crate::replication::message::{Message, SnapshotHead};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use standfast_snapshot::SegmentRef;
use standfast_wal::{
    ClusterId, Damage, Field, Incarnation, Lsn, NodeId, Record, record::field, record::is_gapless,
};

const HEAD_LEN: Field = field(0, 4, "head_len", "bytes of the head");
const BODY_LEN: Field = field(4, 4, "body_len", "bytes of records behind the head");
const HEAD_CRC: Field = field(8, 4, "head_crc", "CRC-32 of the lengths and the head");

/// What stands before each frame; little-endian.
pub const HEADER: [Field; 3] = [HEAD_LEN, BODY_LEN, HEAD_CRC];
pub const HEADER_BYTES: usize = 12;
const _: () = assert!(is_gapless(&HEADER, HEADER_BYTES));

/// The version of this layout and of the messages in it; peers of another version are refused.
pub const WIRE_VERSION: u32 = 6;

/// Binds a connection to one life of one node. Sent first by the dialler; the accepter answers
/// with its own, after which frames flow from dialler to accepter only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    pub cluster_name: String,
    pub cluster: ClusterId,
    pub from: NodeId,
    pub incarnation: Incarnation,
    /// Drawn at process start: tells a restarted node from a second live copy of its disk.
    pub process: u64,
    pub to: NodeId,
    /// What follows it on this connection is one zstd stream.
    pub is_packed: bool,
}

/// A command that another node's client sent before it got an LSN (switchover forwarding).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forwarded {
    pub ticket: u64,
    /// Ordered in the log there, or a linearizable read.
    pub write: bool,
    #[serde(with = "raw_bytes")]
    pub command: Bytes,
}

/// The first part of every frame.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Head {
    Hello(Hello),
    /// Why the connection is not wanted, in words for a log.
    Refused(String),
    /// A message of the replication core; its records are the frame's body.
    Core {
        message: Message,
    },
    /// Commands that never got an LSN, on their way to the new primary.
    Forward {
        commands: Vec<Forwarded>,
    },
    Replied {
        replies: Vec<ForwardReply>,
    },
    /// A snapshot on its way to a member that lags.
    Copy(Piece),
    /// Who archives, and how far the archive is.
    Archive(Note),
}

/// A snapshot's way from one node to another.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Piece {
    /// A snapshot that could be sent: where it stands, and its own file's bytes.
    Offer {
        head: SnapshotHead,
        total: u64,
    },
    /// Send it, without the segments that are there already.
    Accept {
        have: Vec<SegmentRef>,
    },
    Refuse(String),
    Chunk {
        offset: u64,
        #[serde(with = "raw_bytes")]
        bytes: Bytes,
    },
    /// State and log of the receiver stand at the snapshot's LSN, durably.
    Installed,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForwardReply {
    pub ticket: u64,
    pub lsn: Lsn,
    pub epoch: u64,
    pub generation: u64,
    #[serde(with = "raw_bytes")]
    pub reply: Bytes,
}

/// One frame: the head and the records behind it.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame {
    pub head: Head,
    pub records: Vec<Record>,
}

impl Frame {
    pub fn plain(head: Head) -> Frame {
        Frame {
            head,
            records: Vec::new(),
        }
    }
}

/// Why a connection's bytes are refused; the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("a frame announces {0} bytes, more than the limit")]
    TooLong(usize),
    #[error("a frame's checksum does not match")]
    Checksum,
    #[error("a frame's head does not decode: {0}")]
    Head(#[from] postcard::Error),
    #[error("a record in a frame is damaged: {0}")]
    Record(Damage),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl WireError {
    /// The port refuses: no process listens there.
    pub fn is_refusal(&self) -> bool {
        let refused = std::io::ErrorKind::ConnectionRefused;
        matches!(self, WireError::Io(error) if error.kind() == refused)
    }
}

/// Appends the frame's buffers to `out`: one with header and head, then the records' own bytes.
pub fn encode(frame: &Frame, out: &mut Vec<Bytes>) {
    let mut head = BytesMut::with_capacity(256);
    head.put_bytes(0, HEADER_BYTES);
    let head = postcard::to_extend(&frame.head, Growing(head)).expect("every head can be encoded");
    let mut head = head.0;
    let body: usize = frame
        .records
        .iter()
        .map(|record| record.bytes().len())
        .sum();
    let head_len = head.len() - HEADER_BYTES;
    assert!(
        head_len <= limits::FRAME_HEAD_BYTES_MAX && body <= limits::FRAME_BYTES_MAX,
        "frame bounds"
    );
    head[HEAD_LEN.at..HEAD_LEN.at + 4].copy_from_slice(&(head_len as u32).to_le_bytes());
    head[BODY_LEN.at..BODY_LEN.at + 4].copy_from_slice(&(body as u32).to_le_bytes());
    let crc = head_crc(&head);
    head[HEAD_CRC.at..HEAD_CRC.at + 4].copy_from_slice(&crc.to_le_bytes());
    out.push(head.freeze());
    out.extend(frame.records.iter().map(|record| record.bytes().clone()));
}

/// Cuts one frame off the front of `bytes`; `None` when it is not all there yet.
pub fn decode(bytes: &mut BytesMut) -> Result<Option<Frame>, WireError> {
    if bytes.len() < HEADER_BYTES {
        return Ok(None);
    }
    let head_len = length_at(bytes, HEAD_LEN);
    let body_len = length_at(bytes, BODY_LEN);
    if head_len > limits::FRAME_HEAD_BYTES_MAX || body_len > limits::FRAME_BYTES_MAX {
        return Err(WireError::TooLong(head_len.max(body_len)));
    }
    let total = HEADER_BYTES + head_len + body_len;
    if bytes.len() < total {
        // No more than came already: what a header announces takes no memory until it is sent.
        let ahead = bytes.len().max(limits::LINK_READ_BYTES);
        bytes.reserve((total - bytes.len()).min(ahead));
        return Ok(None);
    }
    let mut frame = bytes.split_to(total).freeze();
    let expected = u32::from_le_bytes(frame[HEAD_CRC.at..HEADER_BYTES].try_into().expect("4"));
    if head_crc(&frame[..HEADER_BYTES + head_len]) != expected {
        return Err(WireError::Checksum);
    }
    let mut body = frame.split_off(HEADER_BYTES + head_len);
    let head = postcard::from_bytes(&frame[HEADER_BYTES..])?;
    let mut records = Vec::new();
    while !body.is_empty() {
        records.push(Record::split_from(&mut body).map_err(WireError::Record)?);
    }
    Ok(Some(Frame { head, records }))
}

fn length_at(bytes: &[u8], field: Field) -> usize {
    u32::from_le_bytes(
        bytes[field.at..field.at + 4]
            .try_into()
            .expect("four bytes"),
    ) as usize
}

fn head_crc(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..HEAD_CRC.at]);
    hasher.update(&frame[HEADER_BYTES..]);
    hasher.finalize()
}

/// Lets postcard write straight into the frame's buffer.
struct Growing(BytesMut);

impl Extend<u8> for Growing {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

/// The tokio-util face of [`decode`].
#[derive(Debug, Default)]
pub struct Decoder;

impl tokio_util::codec::Decoder for Decoder {
    type Item = Frame;
    type Error = WireError;
    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        decode(bytes)
    }
}

mod raw_bytes {
    use bytes::Bytes;
    use serde::{Deserializer, Serializer, de::Visitor};

    pub fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    struct Copied;
    impl Visitor<'_> for Copied {
        type Value = Bytes;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        from.deserialize_bytes(Copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzzer: twelve bytes from anybody who could connect took 40 MiB.
    #[test]
    fn an_announced_length_takes_no_memory_before_its_bytes_came() {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(16);
        bytes.put_u32_le(limits::FRAME_BYTES_MAX as u32);
        bytes.put_u32_le(0);
        assert!(matches!(decode(&mut bytes), Ok(None)));
        assert!(
            bytes.capacity() <= 2 * limits::LINK_READ_BYTES,
            "{}",
            bytes.capacity()
        );
        bytes.put_bytes(0, MIB);
        assert!(matches!(decode(&mut bytes), Ok(None)));
        assert!(bytes.capacity() <= 4 * MIB, "{}", bytes.capacity());
    }

    const MIB: usize = 1 << 20;
}
