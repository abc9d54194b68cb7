//! A packed connection from another site: a stream that is unpacked, and the frames in it.
//!
//! Asserted: memory stays near what one frame may take, whatever the stream announces or unpacks
//! to; a stream cut up otherwise gives the same frames, up to where one of the two met an error;
//! what was packed gives the frames that it gives unpacked.

use crate::Target;
use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::pieces;
use crate::targets::peer_frame;
use bytes::{Bytes, BytesMut};
use standfast::limits::FRAME_BYTES_MAX;
use standfast::node::link::{Packer, Unpacker};
use standfast::node::wire::{self, Frame};
use tokio_util::codec::Decoder;

pub const TARGET: Target = Target {
    name: "packed_link",
    decodes: "node/link/far (unpacking), node/wire behind it",
    run,
    marks: &["frame", "error", "incomplete"],
    seeds,
};

/// What one frame may take, twice while it grows; the window of the unpacker is not ours to count.
const MEMORY: Bound = Bound {
    per_byte: 64,
    fixed: FRAME_BYTES_MAX * 2 + (3 << 20),
};

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let seed = u64::from(how.choice());
    let stream = match how.has(How::INSIDE) {
        true => packed(&pieces(bytes, seed)),
        false => bytes.to_vec(),
    };
    let (whole, failed) = MEMORY.hold(stream.len(), || unpack(&[&stream[..]]));
    let (cut, cut_failed) = MEMORY.hold(stream.len(), || unpack(&pieces(&stream, seed)));
    assert_eq!(failed, cut_failed, "the same stream, cut up otherwise");
    let (fewer, more) = match whole.len() < cut.len() {
        true => (&whole, &cut),
        false => (&cut, &whole),
    };
    assert_eq!(fewer[..], more[..fewer.len()]);
    assert!(failed || whole == cut);
    if how.has(How::INSIDE) {
        let plain = plain(bytes);
        assert_eq!(plain.1, failed);
        assert!(plain.0 == *more);
    }
    match (failed, more.is_empty()) {
        (true, _) => hit("error"),
        (false, true) => hit("incomplete"),
        (false, false) => hit("frame"),
    }
}

/// A frame that has been read, in few bytes: a stream may hold many.
type Digest = blake3::Hash;

fn digest(frame: &Frame) -> Digest {
    let mut out = Vec::new();
    wire::encode(frame, &mut out);
    let mut hasher = blake3::Hasher::new();
    out.iter().for_each(|part| {
        hasher.update(part);
    });
    hasher.finalize()
}

/// The frames of a stream that comes in these pieces, and whether it ends with an error.
fn unpack(pieces: &[&[u8]]) -> (Vec<Digest>, bool) {
    let mut unpacker = Unpacker::new().expect("memory for a window");
    let (mut frames, mut buffer) = (Vec::new(), BytesMut::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match unpacker.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(digest(&frame)),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (frames, true);
                }
            }
        }
    }
    (frames, false)
}

fn plain(bytes: &[u8]) -> (Vec<Digest>, bool) {
    let (mut frames, mut buffer) = (Vec::new(), BytesMut::from(bytes));
    loop {
        match wire::decode(&mut buffer) {
            Ok(Some(frame)) => frames.push(digest(&frame)),
            Ok(None) => return (frames, false),
            Err(_) => return (frames, true),
        }
    }
}

/// As a peer packs it, each piece a batch.
fn packed(batches: &[&[u8]]) -> Vec<u8> {
    let mut packer = Packer::new().expect("memory for a window");
    let mut stream = Vec::new();
    for batch in batches {
        let mut buffers = vec![Bytes::copy_from_slice(batch)];
        packer.pack(&mut buffers).expect("memory");
        stream.extend_from_slice(&buffers.concat());
    }
    stream
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for frame in peer_frame::frames() {
        let mut out = Vec::new();
        wire::encode(&frame, &mut out);
        let stream = out.concat();
        seeds.push(join(How::of(How::INSIDE, 1), &stream));
        seeds.push(join(How::of(0, 2), &packed(&[&stream])));
        all.extend_from_slice(&stream);
    }
    seeds.push(join(How::of(How::INSIDE, 3), &all));
    // A little that unpacks to more than may be held, and no frame in it.
    let zeros = vec![0; MEMORY.fixed + (8 << 20)];
    seeds.push(join(How::of(0, 0), &packed(&[&zeros])));
    seeds
}
