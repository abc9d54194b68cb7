//! Makes a snapshot file: blocks come in, threads compress them, one after another goes out.
//!
//! The bytes depend on nothing but the header, the blocks' order and the zstd level: not on the
//! number of threads. Whoever compressed the next block in order also writes it, so no thread only
//! waits. A file is under a temporary name until all of it is durable; what is given up leaves
//! nothing behind.

use crate::error::Error;
use crate::format::{BLOCK_BYTES, BLOCK_RAW_MAX, BlockHead, Entry, Footer, Header};
use crate::new_file::NewFile;
use crate::{Result, format, frame};
use standfast_wal::{Disk, Storage};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// How a snapshot is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that compress. With 0 `push` does it itself: nothing then depends on scheduling.
    pub threads: usize,
    /// zstd level.
    pub level: i32,
    /// Blocks that may be pushed and not yet written before `push` waits.
    pub in_flight_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            threads: 2,
            level: 1,
            in_flight_max: 64,
        }
    }
}

/// One piece of the state. What `section`, `first` and `last` say is the state's own affair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    pub section: u32,
    pub first: u32,
    pub last: u32,
    pub bytes: Vec<u8>,
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    pub blocks: u64,
    /// Before compression.
    pub raw_bytes: u64,
    /// The whole file.
    pub file_bytes: u64,
    /// Of every byte before the footer.
    pub blake3: [u8; 32],
}

/// Writes one snapshot to `W`. Dropping it gives the snapshot up.
pub struct Writer<W: Write + Send + 'static> {
    shared: Arc<Shared<W>>,
    threads: Vec<JoinHandle<()>>,
    options: Options,
    next: u32,
}

struct Shared<W> {
    file: String,
    queue: Mutex<Queue<W>>,
    /// Told when there is a job, or none will come.
    work: Condvar,
    /// Told when a block was written, or nothing will be.
    room: Condvar,
}

struct Queue<W> {
    jobs: VecDeque<(u32, Block)>,
    /// Compressed, waiting for their turn.
    packed: BTreeMap<u32, Packed>,
    /// `None` while a thread writes with it.
    output: Option<Output<W>>,
    /// Blocks written so far: the number of the next one.
    written: u32,
    closed: bool,
    failed: Option<Error>,
}

struct Packed {
    head: BlockHead,
    /// The head, then the frame.
    bytes: Vec<u8>,
}

struct Output<W> {
    out: W,
    offset: u64,
    hasher: blake3::Hasher,
    index: Vec<u8>,
    blocks: u64,
    raw_bytes: u64,
    header_crc: u32,
}

impl<W: Write> Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn write_block(&mut self, packed: &Packed) -> io::Result<()> {
        let entry = Entry {
            offset: self.offset,
            head: packed.head,
        };
        self.index.extend_from_slice(&entry.encode());
        self.blocks += 1;
        self.raw_bytes += u64::from(packed.head.raw_bytes);
        self.write(&packed.bytes)
    }

    fn close(mut self) -> io::Result<(W, Summary)> {
        let index = std::mem::take(&mut self.index);
        let index_at = self.offset;
        self.write(&index)?;
        let footer = Footer {
            index_at,
            blocks: self.blocks,
            raw_bytes: self.raw_bytes,
            index_crc: crc32fast::hash(&index),
            header_crc: self.header_crc,
            blake3: *self.hasher.finalize().as_bytes(),
        };
        self.out.write_all(&footer.encode())?;
        self.out.flush()?;
        let summary = Summary {
            blocks: self.blocks,
            raw_bytes: self.raw_bytes,
            file_bytes: self.offset + format::FOOTER_BYTES as u64,
            blake3: footer.blake3,
        };
        Ok((self.out, summary))
    }
}

fn pack(number: u32, block: &Block, level: i32) -> io::Result<Packed> {
    let raw = u32::try_from(block.bytes.len())
        .ok()
        .filter(|raw| *raw as usize <= BLOCK_RAW_MAX)
        .ok_or_else(|| {
            let text = format!("block {number} has {} bytes", block.bytes.len());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
    let mut bytes = vec![0; BLOCK_BYTES + frame::bound(block.bytes.len())];
    let stored = frame::pack(&block.bytes, &mut bytes[BLOCK_BYTES..], level)?;
    bytes.truncate(BLOCK_BYTES + stored);
    let head = BlockHead {
        number,
        section: block.section,
        first: block.first,
        last: block.last,
        raw_bytes: raw,
        stored_bytes: u32::try_from(stored).expect("a frame is hardly longer than its contents"),
        stored_crc: crc32fast::hash(&bytes[BLOCK_BYTES..]),
    };
    bytes[..BLOCK_BYTES].copy_from_slice(&head.encode());
    Ok(Packed { head, bytes })
}

impl<W: Write> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, Queue<W>> {
        self.queue
            .lock()
            .expect("no thread panics while it holds the queue")
    }

    /// Compresses one block, then writes whatever is next in order, unless another thread is at it.
    fn run(&self, number: u32, block: Block, level: i32) {
        let packed = pack(number, &block, level);
        drop(block);
        let mut queue = self.lock();
        match packed {
            Ok(packed) => {
                queue.packed.insert(number, packed);
            }
            Err(error) => return self.fail(queue, error),
        }
        while queue.output.is_some() {
            let next = queue.written;
            let Some(packed) = queue.packed.remove(&next) else {
                return;
            };
            let mut output = queue.output.take().expect("seen above under this lock");
            drop(queue);
            let result = output.write_block(&packed);
            queue = self.lock();
            queue.output = Some(output);
            if let Err(error) = result {
                return self.fail(queue, error);
            }
            queue.written += 1;
            self.room.notify_all();
        }
    }

    fn fail(&self, mut queue: MutexGuard<'_, Queue<W>>, error: io::Error) {
        queue.failed.get_or_insert(Error::io(&self.file, error));
        queue.closed = true;
        queue.jobs.clear();
        self.work.notify_all();
        self.room.notify_all();
    }

    fn work(&self, level: i32) {
        loop {
            let mut queue = self.lock();
            let (number, block) = loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                queue = self.work.wait(queue).expect("as in lock");
            };
            drop(queue);
            self.run(number, block, level);
        }
    }
}

impl<W: Write + Send + 'static> Writer<W> {
    /// Starts a snapshot into `out`; `file` names it in errors.
    pub fn new(mut out: W, file: &str, header: &Header, options: Options) -> Result<Writer<W>> {
        let bytes = header.encode();
        out.write_all(&bytes).map_err(|e| Error::io(file, e))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let output = Output {
            out,
            offset: bytes.len() as u64,
            hasher,
            index: Vec::new(),
            blocks: 0,
            raw_bytes: 0,
            header_crc: Header::crc_of(&bytes),
        };
        let shared = Arc::new(Shared {
            file: file.to_string(),
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                packed: BTreeMap::new(),
                output: Some(output),
                written: 0,
                closed: false,
                failed: None,
            }),
            work: Condvar::new(),
            room: Condvar::new(),
        });
        let mut writer = Writer {
            shared,
            threads: Vec::new(),
            options,
            next: 0,
        };
        for _ in 0..options.threads {
            let shared = Arc::clone(&writer.shared);
            let thread = std::thread::Builder::new()
                .name("snapshot".to_string())
                .spawn(move || shared.work(options.level))
                .map_err(|e| Error::io(file, e))?;
            writer.threads.push(thread);
        }
        Ok(writer)
    }

    /// How many blocks `push` would take at once without waiting.
    pub fn room(&self) -> usize {
        let waiting = self.next - self.shared.lock().written;
        self.options.in_flight_max.saturating_sub(waiting as usize)
    }

    /// Adds the next block; waits while too many are on their way.
    pub fn push(&mut self, block: Block) -> Result<()> {
        let limit = self.options.in_flight_max.max(1);
        let mut queue = self.shared.lock();
        while queue.failed.is_none() && (self.next - queue.written) as usize >= limit {
            queue = self.shared.room.wait(queue).expect("as in lock");
        }
        drop(queue);
        self.push_now(block)
    }

    /// Adds the next block and never waits (except to compress it, without threads). For blocks
    /// that copy-on-write forces out: what is on its way is bounded by what the state holds.
    pub fn push_now(&mut self, block: Block) -> Result<()> {
        let number = self.next;
        self.next = number.checked_add(1).expect("fewer than 2^32 blocks");
        if self.threads.is_empty() {
            self.shared.run(number, block, self.options.level);
            return self.take_failure(self.shared.lock());
        }
        let mut queue = self.shared.lock();
        if !queue.closed {
            queue.jobs.push_back((number, block));
            self.shared.work.notify_one();
        }
        self.take_failure(queue)
    }

    fn take_failure(&self, mut queue: MutexGuard<'_, Queue<W>>) -> Result<()> {
        match queue.failed.take() {
            Some(error) => Err(error),
            None if queue.closed => {
                let text = "the snapshot was given up after an earlier error";
                Err(Error::io(&self.shared.file, io::Error::other(text)))
            }
            None => Ok(()),
        }
    }

    /// Writes index and footer behind the last block and hands `out` back. Blocks until done.
    pub fn finish(mut self) -> Result<(W, Summary)> {
        self.join();
        let mut queue = self.shared.lock();
        if let Some(error) = queue.failed.take() {
            return Err(error);
        }
        let complete = queue.written == self.next && queue.packed.is_empty();
        let output = queue.output.take().filter(|_| complete);
        drop(queue);
        let gone = || io::Error::other("the snapshot was given up after an earlier error");
        output
            .ok_or_else(gone)
            .and_then(Output::close)
            .map_err(|e| Error::io(&self.shared.file, e))
    }

    fn join(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            thread
                .join()
                .expect("the threads of a snapshot do not panic");
        }
    }
}

impl<W: Write + Send + 'static> Drop for Writer<W> {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shared.lock().jobs.clear();
            self.join();
        }
    }
}

impl Writer<NewFile<Disk>> {
    /// As `create_in`, for a file of the file system.
    pub fn create(path: &Path, header: &Header, options: Options) -> Result<Self> {
        let name = path.display().to_string();
        let file = NewFile::at(path).map_err(|e| Error::io(&name, e))?;
        Writer::new(file, &name, header, options)
    }
}

impl<S: Storage> Writer<NewFile<S>> {
    /// Starts the snapshot that will have this name once `publish` returned.
    pub fn create_in(storage: S, name: &str, header: &Header, options: Options) -> Result<Self> {
        let file = NewFile::create(storage, name).map_err(|e| Error::io(name, e))?;
        Writer::new(file, name, header, options)
    }

    /// Finishes the file, makes it durable and gives it its name. Blocks until done.
    pub fn publish(self) -> Result<Summary> {
        let name = self.shared.file.clone();
        let (file, summary) = self.finish()?;
        file.publish().map_err(|e| Error::io(&name, e))?;
        Ok(summary)
    }
}
