//! Opens a snapshot file: refuses it with the place, or hands its blocks out, several at a time.
//!
//! Nothing is trusted before its checksum: header, footer and index when the file is opened, a
//! block's head and frame when the block is loaded. `check_whole` proves with the footer's BLAKE3
//! that the parts belong together; restore and verify always ask for it.

use crate::Result;
use crate::error::{Error, Reason};
use crate::format::{
    BLOCK_BYTES, BlockHead, Entry, FOOTER_BYTES, Footer, HEADER_BYTES, Header, INDEX_BYTES,
};
use crate::frame::unpack;
use crate::part;
use crate::segment::{self, SegmentRef};
use crate::store::Shared;
use bytes::Bytes;
use standfast_wal::{ClusterId, Storage};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// How much is read at once where the file is read from end to end.
const STRIDE_BYTES: usize = 1 << 20;

/// Where a snapshot's bytes come from: a file, or memory.
pub trait Source: Send + Sync {
    /// How long it is; asked once.
    fn length(&self) -> io::Result<u64>;
    /// Fills `into` from `offset` on, or fails.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, into, offset)
    }
}

impl Source for Bytes {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let part = from.and_then(|from| self.get(from..from.checked_add(into.len())?));
        into.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file of a storage, real or simulated.
pub struct Stored<F>(pub F);

impl<F: standfast_wal::File> Source for Stored<F> {
    fn length(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }
}

/// An object of a store, read in parts unless it is short.
#[derive(Debug)]
pub struct Object {
    store: Shared,
    name: String,
    /// All of a short one.
    whole: OnceLock<Bytes>,
}

/// An object that is no longer is fetched at once: each request costs as much.
const SHORT_BYTES: u64 = 128 << 10;

impl Source for Object {
    fn length(&self) -> io::Result<u64> {
        let length = self.store.length(&self.name)?;
        if length <= SHORT_BYTES {
            let bytes = self.store.get(&self.name)?;
            return Ok(self.whole.get_or_init(|| bytes).len() as u64);
        }
        Ok(length)
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if let Some(whole) = self.whole.get() {
            return whole.read_exact_at(offset, into);
        }
        if into.is_empty() {
            return Ok(());
        }
        let bytes = self
            .store
            .get_range(&self.name, offset, into.len() as u64)?;
        if bytes.len() != into.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into.copy_from_slice(&bytes);
        Ok(())
    }
}

/// A snapshot whose header, footer and index are proved.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    file: String,
    length: u64,
    header: Header,
    footer: Footer,
    index: Vec<Entry>,
}

impl Reader<File> {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Reader<File>> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| Error::io(&name, e))?;
        Reader::new(file, &name)
    }
}

impl Object {
    /// Only what is asked for is fetched.
    pub fn new(store: &Shared, name: &str) -> Object {
        Object {
            store: Arc::clone(store),
            name: name.to_string(),
            whole: OnceLock::new(),
        }
    }
}

impl<F: standfast_wal::File> Reader<Stored<F>> {
    /// Opens the file of this name in a storage.
    pub fn open_in<S: Storage<File = F>>(storage: &S, name: &str) -> Result<Reader<Stored<F>>> {
        let file = storage.open(name).map_err(|e| Error::io(name, e))?;
        Reader::new(Stored(file), name)
    }
}

/// The header, its own checksum and its length.
fn read_header<S: Source>(source: &S, file: &str, length: u64) -> Result<(Header, u32, u64)> {
    let read = |offset, bytes: &mut [u8]| {
        let result = source.read_exact_at(offset, bytes);
        result.map_err(|e| Error::io(file, e))
    };
    let mut fixed = vec![0; usize::try_from(length).map_or(HEADER_BYTES, |l| l.min(HEADER_BYTES))];
    read(0, &mut fixed)?;
    let tail_bytes = Header::measure(file, &fixed)?;
    let end = (HEADER_BYTES + tail_bytes) as u64;
    if end > length {
        return Err(truncated(file, end, length));
    }
    let mut tail = vec![0; tail_bytes];
    read(HEADER_BYTES as u64, &mut tail)?;
    let header = Header::decode(file, &fixed, tail.into())?;
    Ok((header, Header::crc_of(&fixed), end))
}

fn truncated(file: &str, needed: u64, found: u64) -> Error {
    Error::new(file, found, Reason::Truncated { needed, found })
}

impl<S: Source> Reader<S> {
    /// Opens the snapshot in `source`; `file` names it in errors.
    pub fn new(source: S, file: &str) -> Result<Reader<S>> {
        let length = source.length().map_err(|e| Error::io(file, e))?;
        let (header, header_crc, header_end) = read_header(&source, file, length)?;
        let least = header_end + FOOTER_BYTES as u64;
        if length < least {
            return Err(truncated(file, least, length));
        }
        let footer_at = length - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        let read = source.read_exact_at(footer_at, &mut footer);
        read.map_err(|e| Error::io(file, e))?;
        let footer = Footer::decode(&footer).map_err(|r| Error::new(file, footer_at, r))?;
        if footer.header_crc != header_crc {
            let reason = Reason::Checksum("header that the footer closes");
            return Err(Error::new(file, footer_at, reason));
        }
        let mut reader = Reader {
            source,
            file: file.to_string(),
            length,
            header,
            footer,
            index: Vec::new(),
        };
        reader.index = reader.read_index(header_end, footer_at)?;
        Ok(reader)
    }

    /// The blocks lie one behind another from the header to the index, and the index ends where the
    /// footer starts: no byte of the file is outside a part.
    fn read_index(&self, header_end: u64, footer_at: u64) -> Result<Vec<Entry>> {
        let at = self.footer.index_at;
        let bytes = self.footer.blocks.checked_mul(INDEX_BYTES as u64);
        if bytes.and_then(|bytes| at.checked_add(bytes)) != Some(footer_at) {
            let reason = Reason::Field("the index's place or length");
            return Err(Error::new(&self.file, footer_at, reason));
        }
        let bytes = usize::try_from(footer_at - at).expect("shorter than the file");
        let mut index = vec![0; bytes];
        self.read(at, &mut index)?;
        if crc32fast::hash(&index) != self.footer.index_crc {
            return Err(Error::new(&self.file, at, Reason::Checksum("index")));
        }
        let mut entries = Vec::with_capacity(bytes / INDEX_BYTES);
        let (mut end, mut raw) = (header_end, 0);
        for (i, bytes) in index.chunks_exact(INDEX_BYTES).enumerate() {
            let place = at + (i * INDEX_BYTES) as u64;
            let entry = Entry::decode(bytes).map_err(|r| Error::new(&self.file, place, r))?;
            if entry.offset != end || entry.head.number as usize != i {
                let reason = Reason::Field("a block's place in the index");
                return Err(Error::new(&self.file, place, reason));
            }
            end = entry.end();
            raw += u64::from(entry.head.raw_bytes);
            entries.push(entry);
        }
        if end != at || raw != self.footer.raw_bytes {
            let reason = Reason::Field("the length of all blocks");
            return Err(Error::new(&self.file, at, reason));
        }
        Ok(entries)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let result = self.source.read_exact_at(offset, into);
        result.map_err(|e| Error::new(&self.file, offset, Reason::Io(e)))
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The name used in errors.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The heads of all blocks, in order.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = &BlockHead> {
        self.index.iter().map(|entry| &entry.head)
    }

    /// Bytes of all blocks before compression.
    pub fn raw_bytes(&self) -> u64 {
        self.footer.raw_bytes
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.length
    }

    /// The footer's BLAKE3 of every byte before the footer.
    pub fn blake3(&self) -> [u8; 32] {
        self.footer.blake3
    }

    /// The error of whoever found that the blocks, each good by itself, make no whole.
    pub fn refuse_contents(&self, why: String) -> Error {
        Error::new(&self.file, None, Reason::Contents(why))
    }

    /// Refuses another cluster's snapshot.
    pub fn check_cluster(&self, expected: ClusterId) -> Result<()> {
        let found = self.header.cluster;
        if found == expected {
            return Ok(());
        }
        let (expected, found) = (Box::new(expected), Box::new(found));
        let reason = Reason::Cluster { expected, found };
        Err(Error::new(&self.file, None, reason))
    }

    /// Reads the whole file once and holds it against the footer's BLAKE3.
    pub fn check_whole(&self) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; STRIDE_BYTES];
        let end = self.length - FOOTER_BYTES as u64;
        let mut at = 0;
        while at < end {
            let rest = usize::try_from(end - at).unwrap_or(STRIDE_BYTES);
            let part = &mut buffer[..rest.min(STRIDE_BYTES)];
            self.read(at, part)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        if *hasher.finalize().as_bytes() == self.footer.blake3 {
            Ok(())
        } else {
            Err(Error::new(&self.file, None, Reason::Checksum("whole file")))
        }
    }

    /// At most `max` bytes of the file itself from `offset` on; empty at the end. This is how a
    /// snapshot is sent to a peer, which takes it with [`crate::Incoming`].
    pub fn chunk(&self, offset: u64, max: usize) -> Result<Bytes> {
        let rest = self.length.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(rest).map_or(max, |rest| rest.min(max))];
        self.read(offset, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Gives every block of the state in this file to `decode`, on `threads` threads (on this one,
    /// in order, if at most 1), and what it made of them back in the order of the blocks. The first
    /// error, of a block or of `decode`, ends it.
    pub fn load<T: Send>(
        &self,
        threads: usize,
        decode: impl Fn(&BlockHead, &[u8]) -> std::result::Result<T, String> + Sync,
    ) -> Result<Vec<T>> {
        let of_state = self.index.iter();
        let of_state: Vec<&Entry> = of_state.filter(|entry| !names_segments(entry)).collect();
        side_by_side(threads, &of_state, Loader::default, |loader, entry| {
            self.load_block(loader, entry, &decode)
        })
    }

    /// As `load`, and behind them the blocks of the parts that an archived snapshot refers to,
    /// which `open` reads and proves.
    pub fn load_with<T: Send>(
        &self,
        threads: usize,
        open: impl Fn(&SegmentRef) -> Result<Bytes> + Sync,
        decode: impl Fn(&BlockHead, &[u8]) -> std::result::Result<T, String> + Sync,
    ) -> Result<Vec<T>> {
        let mut loaded = self.load(threads, &decode)?;
        let parts: Vec<SegmentRef> = self.named(SegmentRef::is_part)?;
        let of_parts = side_by_side(
            threads,
            &parts,
            || (),
            |(), reference| {
                let bytes = open(reference)?;
                part::load(&reference.name(), &bytes, &decode)
            },
        )?;
        loaded.extend(of_parts.into_iter().flatten());
        Ok(loaded)
    }

    /// The head of a block, and its zstd frame into `frame`; `at` counts the blocks.
    pub(crate) fn read_block(&self, at: usize, frame: &mut Vec<u8>) -> Result<BlockHead> {
        let entry = &self.index[at];
        self.read_stored(entry, frame)?;
        frame.drain(..BLOCK_BYTES);
        Ok(entry.head)
    }

    /// The segments that the state has besides its blocks.
    pub fn segments(&self) -> Result<Vec<SegmentRef>> {
        self.named(|reference| !reference.is_part())
    }

    /// Everything that the file refers to: segments, and the parts of an archived snapshot.
    pub fn references(&self) -> Result<Vec<SegmentRef>> {
        self.named(|_| true)
    }

    fn named(&self, is_wanted: impl Fn(&SegmentRef) -> bool) -> Result<Vec<SegmentRef>> {
        let mut loader = Loader::default();
        let mut found = Vec::new();
        for entry in self.index.iter().filter(|entry| names_segments(entry)) {
            // Before memory is taken for it.
            if entry.head.raw_bytes as usize > segment::BLOCK_BYTES_MAX {
                let reason = Reason::Field("the length of a block of references");
                return Err(Error::new(&self.file, entry.offset, reason));
            }
            found.append(&mut self.load_block(&mut loader, entry, &|_, block| {
                segment::references(block).ok_or_else(|| "references that are none".to_string())
            })?);
        }
        found.retain(is_wanted);
        Ok(found)
    }

    fn load_block<T>(
        &self,
        loader: &mut Loader,
        entry: &Entry,
        decode: &(impl Fn(&BlockHead, &[u8]) -> std::result::Result<T, String> + Sync),
    ) -> Result<T> {
        let refuse = |reason| Error::new(&self.file, entry.offset, reason);
        let head = &entry.head;
        self.read_stored(entry, &mut loader.stored)?;
        let frame = &loader.stored[BLOCK_BYTES..];
        unpack(frame, head.raw_bytes as usize, &mut loader.raw).map_err(refuse)?;
        decode(head, &loader.raw).map_err(|text| refuse(Reason::Contents(text)))
    }

    /// A block as it is stored, head and frame, and proved.
    fn read_stored(&self, entry: &Entry, stored: &mut Vec<u8>) -> Result<()> {
        let refuse = |reason| Error::new(&self.file, entry.offset, reason);
        stored.resize(BLOCK_BYTES + entry.head.stored_bytes as usize, 0);
        self.read(entry.offset, stored)?;
        let (found, frame) = stored.split_at(BLOCK_BYTES);
        if BlockHead::decode(found).map_err(refuse)? != entry.head {
            return Err(refuse(Reason::Field("the block that the index names")));
        }
        if crc32fast::hash(frame) != entry.head.stored_crc {
            return Err(refuse(Reason::Checksum("block")));
        }
        Ok(())
    }
}

fn names_segments(entry: &Entry) -> bool {
    entry.head.section == segment::SECTION
}

/// Does `work` for every item, on `threads` threads (on this one, in order, if at most 1), each
/// with something of its own; gives the results in the order of the items, or the first error.
pub fn side_by_side<I: Sync, O, T: Send>(
    threads: usize,
    items: &[I],
    own: impl Fn() -> O + Sync,
    work: impl Fn(&mut O, &I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new((Vec::new(), None));
    let run = || {
        let mut own = own();
        let mut mine = Vec::new();
        let mut failed = None;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            match work(&mut own, item) {
                Ok(done) => mine.push((at, done)),
                Err(error) => {
                    // Nobody starts another one.
                    next.store(items.len(), Ordering::Relaxed);
                    failed = Some(error);
                }
            }
        }
        let mut found = found.lock().expect("no thread panics while it holds this");
        found.0.append(&mut mine);
        if failed.is_some() {
            found.1 = failed;
        }
    };
    if threads <= 1 {
        run();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads.min(items.len()) {
                scope.spawn(run);
            }
        });
    }
    let (mut parts, failed) = found.into_inner().expect("every thread has ended");
    if let Some(error) = failed {
        return Err(error);
    }
    parts.sort_unstable_by_key(|(at, _)| *at);
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

/// One thread's buffers.
#[derive(Default)]
struct Loader {
    stored: Vec<u8>,
    raw: Vec<u8>,
}

#[cfg(test)]
mod tests;
