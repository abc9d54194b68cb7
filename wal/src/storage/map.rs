//! The only unsafe code: a file that is not written any more as memory.
#![expect(clippy::disallowed_types, reason = "maps a file that disk.rs opened")]

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};
use std::fs::File;
use std::io;

/// The first `len` bytes of `file`. They are read from the disk here, so that a sector that
/// cannot be read is an error now and not a signal later.
pub(super) fn map(file: &File, len: u64) -> io::Result<Bytes> {
    let map = map_checked(file, len)?;
    #[cfg(target_os = "linux")]
    match map.as_ref().map(|map| map.advise(Advice::PopulateRead)) {
        // A kernel before 5.14 does not know the advice; the pages then come in one by one.
        Some(Err(error)) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
        _ => {}
    }
    Ok(map.map_or_else(Bytes::new, Bytes::from_owner))
}

/// The first `len` bytes of `file`, which are read from the disk when they are looked at. One that
/// cannot be read then ends the process, as it does where the system has dropped what `map` read:
/// the next start reads all of it, and names what is damaged.
pub(super) fn map_unread(file: &File, len: u64) -> io::Result<Bytes> {
    let map = map_checked(file, len)?;
    Ok(map.map_or_else(Bytes::new, Bytes::from_owner))
}

/// `None`: nothing can be mapped of no bytes.
fn map_checked(file: &File, len: u64) -> io::Result<Option<Mmap>> {
    if file.metadata()?.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if len == 0 {
        return Ok(None);
    }
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    map_shared(file, len).map(Some)
}

#[expect(
    unsafe_code,
    reason = "a map is sound while nobody changes the mapped bytes or shortens the file. Only \
              sealed segments of the log and full segments of the state are mapped: this program \
              never writes to one again and never truncates any file; repair and cut build a new \
              file and rename it into place, which leaves the mapped one as it is; and the \
              directory's lock keeps other processes of this program out. What was fetched from \
              an archive is mapped, too, from a file that is written no more and that no other \
              process has a name for, or that only restores of one directory know, which lock \
              it. Whoever changes the \
              file by other means can change what is read, but every record is verified by its \
              checksums after it was taken from the map, every segment of the state when it was \
              mapped, or when it is next opened after this program wrote it"
)]
fn map_shared(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: see the reason above.
    unsafe { MmapOptions::new().len(len).map(file) }
}
