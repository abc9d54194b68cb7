//! Zstd frames. Each thread keeps its contexts: to make one costs more than to pack a small block.

use crate::error::Reason;
use std::cell::RefCell;
use std::io;
use zstd::bulk::{Compressor, Decompressor};

thread_local! {
    static PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// What a frame of `raw_bytes` takes at most.
pub(crate) fn bound(raw_bytes: usize) -> usize {
    zstd::zstd_safe::compress_bound(raw_bytes)
}

/// Packs `raw` into one frame at the start of `frame`; gives the frame's length.
pub(crate) fn pack(raw: &[u8], frame: &mut [u8], level: i32) -> io::Result<usize> {
    PACKER.with_borrow_mut(|packer| {
        let packer = match packer {
            Some(packer) => packer,
            None => packer.insert(Compressor::new(level)?),
        };
        packer.set_compression_level(level)?;
        packer.compress_to_buffer(raw, frame)
    })
}

/// Unpacks a frame of exactly `raw_bytes` into `raw`. The frame's checksum was proved.
pub(crate) fn unpack(frame: &[u8], raw_bytes: usize, raw: &mut Vec<u8>) -> Result<(), Reason> {
    raw.resize(raw_bytes, 0);
    let unpacked = UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            None => unpacker.insert(Decompressor::new()?),
        };
        unpacker.decompress_to_buffer(frame, raw.as_mut_slice())
    });
    match unpacked {
        Ok(bytes) if bytes == raw_bytes => Ok(()),
        Ok(bytes) => Err(Reason::Unpack(format!("{bytes} bytes, not {raw_bytes}"))),
        Err(error) => Err(Reason::Unpack(error.to_string())),
    }
}
