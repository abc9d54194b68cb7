//! What a link to another site does besides: it packs what it sends, and keeps to a rate.
//!
//! Behind the Hello a packed connection is one zstd stream, flushed behind each batch: nothing
//! waits for more to come. Whoever dials says in its Hello whether it packs.

use crate::limits;
use crate::node::wire::{self, Frame, WireError};
use bytes::{Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::Instant;
use zstd::stream::raw::{self, InBuffer, Operation, OutBuffer};

/// What is kept of a stream to find repetitions in, as a power of two: 1 MiB, on both sides.
const WINDOW_LOG: u32 = 20;
/// What one step unpacks into.
const STEP_BYTES: usize = 128 << 10;

/// How a connection is written to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Manner {
    pub is_packed: bool,
    /// Bytes a second, as they leave.
    pub limit: Option<u64>,
}

/// Packs batch by batch.
pub struct Packer(raw::Encoder<'static>);

impl Packer {
    pub fn new() -> io::Result<Packer> {
        let mut encoder = raw::Encoder::new(limits::LINK_COMPRESSION_LEVEL)?;
        encoder.set_parameter(raw::CParameter::WindowLog(WINDOW_LOG))?;
        Ok(Packer(encoder))
    }

    /// Replaces the buffers by what they are packed into, all of it.
    pub fn pack(&mut self, buffers: &mut Vec<Bytes>) -> io::Result<()> {
        let mut packed: Vec<u8> = Vec::new();
        for bytes in buffers.drain(..) {
            let mut from = InBuffer::around(&bytes);
            while from.pos < bytes.len() {
                step(&mut packed, |to| self.0.run(&mut from, to))?;
            }
        }
        while step(&mut packed, |to| self.0.flush(to))? > 0 {}
        buffers.push(packed.into());
        Ok(())
    }
}

/// Has `work` fill room behind `packed`.
fn step(
    packed: &mut Vec<u8>,
    work: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
) -> io::Result<usize> {
    packed.reserve(STEP_BYTES);
    let at = packed.len();
    let mut to = OutBuffer::around_pos(packed, at);
    work(&mut to)
}

/// Unpacks, and cuts frames off.
pub struct Unpacker {
    decoder: raw::Decoder<'static>,
    plain: BytesMut,
    step: Vec<u8>,
}

impl Unpacker {
    pub fn new() -> io::Result<Unpacker> {
        let mut decoder = raw::Decoder::new()?;
        // What a peer announces takes no more memory than ours would.
        decoder.set_parameter(raw::DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Unpacker {
            decoder,
            plain: BytesMut::new(),
            step: Vec::with_capacity(STEP_BYTES),
        })
    }
}

impl tokio_util::codec::Decoder for Unpacker {
    type Item = Frame;
    type Error = WireError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        loop {
            if let Some(frame) = wire::decode(&mut self.plain)? {
                return Ok(Some(frame));
            }
            self.step.clear();
            let mut from = InBuffer::around(bytes);
            let mut to = OutBuffer::around(&mut self.step);
            self.decoder.run(&mut from, &mut to)?;
            let (read, made) = (from.pos, to.pos());
            let _ = bytes.split_to(read);
            self.plain.extend_from_slice(&self.step);
            if read == 0 && made == 0 {
                return Ok(None);
            }
        }
    }
}

/// Keeps a stream of bytes to a rate.
pub struct Pace {
    /// Bytes a second, now.
    limit: watch::Receiver<Option<u64>>,
    /// When all that was let through will have been due.
    due: Instant,
}

impl Pace {
    pub fn new(limit: watch::Receiver<Option<u64>>) -> Pace {
        Pace {
            limit,
            due: Instant::now(),
        }
    }

    pub fn is_limited(&self) -> bool {
        self.limit.borrow().is_some()
    }

    /// Writes all of it, piece by piece, no faster than that; the limit may change meanwhile.
    pub async fn write_all(
        &mut self,
        writer: &mut (impl AsyncWriteExt + Unpin),
        mut bytes: &[u8],
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let limit = *self.limit.borrow_and_update();
            let Some(per_second) = limit else {
                return writer.write_all(bytes).await;
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.due) => {}
                Ok(()) = self.limit.changed() => continue,
            }
            // A twentieth of a second's worth: small beside what waits for an answer.
            let piece = usize::try_from(per_second / 20).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at(piece.clamp(1, bytes.len()));
            writer.write_all(piece).await?;
            let cost = Duration::from_secs_f64(piece.len() as f64 / per_second as f64);
            self.due = self.due.max(Instant::now()) + cost;
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::wire::Head;
    use tokio_util::codec::Decoder;

    fn frame(number: usize) -> Frame {
        Frame::plain(Head::Refused(format!(
            "number {number} {}",
            "x".repeat(number % 977)
        )))
    }

    fn packed(packer: &mut Packer, frames: impl Iterator<Item = usize>) -> Bytes {
        let mut buffers = Vec::new();
        for number in frames {
            wire::encode(&frame(number), &mut buffers);
        }
        packer.pack(&mut buffers).unwrap();
        assert_eq!(buffers.len(), 1);
        buffers.remove(0)
    }

    #[test]
    fn what_was_packed_comes_out_wherever_it_is_cut() {
        for cut in [1, 7, 1000, 1 << 20] {
            let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new().unwrap());
            let mut next = 0;
            for batch in [0..1, 1..300, 300..5000] {
                let bytes = packed(&mut packer, batch.clone());
                let mut arrived = BytesMut::new();
                for piece in bytes.chunks(cut) {
                    arrived.extend_from_slice(piece);
                    while let Some(found) = unpacker.decode(&mut arrived).unwrap() {
                        assert_eq!(found, frame(next));
                        next += 1;
                    }
                }
                assert_eq!(next, batch.end, "nothing waits for the next batch");
            }
        }
    }

    #[test]
    fn what_repeats_becomes_small() {
        let mut packer = Packer::new().unwrap();
        let first = packed(&mut packer, 0..1000).len();
        let plain: usize = (0..1000)
            .map(|number| {
                let mut buffers = Vec::new();
                wire::encode(&frame(number), &mut buffers);
                buffers.iter().map(Bytes::len).sum::<usize>()
            })
            .sum();
        assert!(first * 5 < plain, "{first} of {plain} bytes");
    }

    #[test]
    fn bytes_that_are_no_stream_end_the_connection() {
        let mut unpacker = Unpacker::new().unwrap();
        let mut bytes = BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n and more than a header"[..]);
        assert!(unpacker.decode(&mut bytes).is_err());
        let mut packer = Packer::new().unwrap();
        let mut damaged = packed(&mut packer, 0..100).to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        let mut unpacker = Unpacker::new().unwrap();
        let mut bytes = BytesMut::from(&damaged[..]);
        let mut next = 0;
        while let Ok(Some(found)) = unpacker.decode(&mut bytes) {
            assert_eq!(found, frame(next), "a damaged frame is never handed on");
            next += 1;
        }
        assert!(next < 100);
    }

    #[tokio::test]
    async fn a_rate_is_kept_until_it_is_lifted_and_nothing_is_lost() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let sent = bytes.clone();
        let limit = watch::Sender::new(Some(1_000_000));
        let mut pace = Pace::new(limit.subscribe());
        let begun = Instant::now();
        let writing = tokio::spawn(async move {
            pace.write_all(&mut near, &sent).await.unwrap();
            (near, pace)
        });
        let mut found = vec![0; bytes.len()];
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut found)
            .await
            .unwrap();
        assert_eq!(found, bytes);
        // The first piece leaves at once.
        assert!(
            begun.elapsed() >= Duration::from_millis(240),
            "{:?}",
            begun.elapsed()
        );
        let (mut near, mut pace) = writing.await.unwrap();
        limit.send_replace(Some(1));
        let sent = bytes.clone();
        let writing = tokio::spawn(async move { pace.write_all(&mut near, &sent).await });
        let mut first = [0; 1];
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut first)
            .await
            .unwrap();
        limit.send_replace(None);
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut found[1..])
            .await
            .unwrap();
        writing.await.unwrap().unwrap();
        assert_eq!(found, bytes);
    }
}
