//! Reads records up to the durable end while the writer appends; sealed segments through maps.
//!
//! Every record is verified when it is taken, its place in the chain included. What the writer
//! and the readers share is only the list of segments and the durable end.

use crate::error::{Error, ErrorKind};
use crate::log::DamagedRange;
use crate::record::{Damage, HEADER_BYTES, Head, History, Link, Lsn, Record};
use crate::recovery;
use crate::scan::Scan;
use crate::segment::{self, HEADER_AREA, STAMP_BYTES};
use crate::storage::{File, Storage};
use crate::view::{Part, Shared, lock};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;

/// What is read at once from the newest segment.
const WINDOW_BYTES: usize = 256 << 10;

/// Why records cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The log begins above: a snapshot is needed.
    Gone {
        first_lsn: Lsn,
    },
    /// A record that was asked for is damaged on disk: repair it from a peer.
    Damaged(Box<DamagedRange>),
    Failed(Error),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::Gone { first_lsn } => write!(f, "the log begins at LSN {first_lsn}"),
            ReadError::Damaged(range) => write!(
                f,
                "LSNs {}..{} are damaged in {} at offset {}",
                range.first_lsn, range.last_lsn, range.file, range.offset
            ),
            ReadError::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// One segment, as `Reader::segments` lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSummary {
    pub first_lsn: Lsn,
    /// What its first record follows.
    pub base: Link,
    pub history: History,
    pub bytes: u64,
    /// Complete: nothing is appended to it any more.
    pub sealed: bool,
}

/// A handle for reading; clones share the log's list of segments.
pub struct Reader<S: Storage> {
    shared: Arc<Shared<S>>,
}

impl<S: Storage> Clone for Reader<S> {
    fn clone(&self) -> Self {
        Reader::new(Arc::clone(&self.shared))
    }
}

/// Where a read takes its bytes from.
struct Source<S: Storage> {
    part: Arc<Part>,
    /// The newest segment's file and durable end; `None` for a sealed segment.
    open: Option<(Arc<S::File>, u64)>,
    /// The last LSN to be read here.
    last: Lsn,
    /// What the next segment follows, if there is one.
    next: Option<Link>,
    changes: u64,
}

/// Why a read in one segment stopped.
enum Fault {
    Io(io::Error),
    Damage(Damage),
}

impl<S: Storage> Reader<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>) -> Reader<S> {
        Reader { shared }
    }

    /// The durable records whose last LSN is above `after`, in order: at least one if there is
    /// any, at most what fits `max_bytes` and what lies in one segment. Empty at the durable end.
    pub fn read(&self, after: Lsn, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let mut searched = false;
        loop {
            let Some(source) = self.source(after)? else {
                return Ok(Vec::new());
            };
            let fault = match self.read_from(&source, after, max_bytes) {
                Ok(records) => return Ok(records),
                Err(fault) => fault,
            };
            // The segment was cut, trimmed or repaired meanwhile: look again.
            if self.has_changed(&source) {
                continue;
            }
            if searched {
                let name = segment::name(source.part.header.first_lsn());
                return Err(ReadError::Failed(fault.into_error(&name).lsn(after.next())));
            }
            self.search(&source, after)?;
            searched = true;
        }
    }

    /// The last LSN that may be read.
    pub fn durable(&self) -> Lsn {
        lock(&self.shared.view).durable
    }

    /// The first LSN that the log still holds.
    pub fn first_lsn(&self) -> Lsn {
        lock(&self.shared.view).parts[0].header.first_lsn()
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentSummary> {
        let view = lock(&self.shared.view);
        let newest = view.parts.len() - 1;
        let summary = |(at, part): (usize, &Arc<Part>)| SegmentSummary {
            first_lsn: part.header.first_lsn(),
            base: part.header.base,
            history: part.header.history,
            bytes: part.header.segment_bytes,
            sealed: at < newest,
        };
        view.parts.iter().enumerate().map(summary).collect()
    }

    /// Reads a whole sealed segment from the disk and verifies it; for the scrubber, which calls
    /// this at its own pace. Empty for the newest segment and for one that is gone.
    pub fn scrub(&self, first_lsn: Lsn) -> Result<Vec<DamagedRange>, ReadError> {
        let pair = {
            let view = lock(&self.shared.view);
            let at = view
                .parts
                .iter()
                .position(|part| part.header.first_lsn() == first_lsn);
            at.and_then(|at| {
                Some((
                    Arc::clone(&view.parts[at]),
                    view.parts.get(at + 1)?.header.base,
                ))
            })
        };
        let Some((part, next)) = pair else {
            return Ok(Vec::new());
        };
        let mut bytes = Vec::new();
        recovery::salvage_segment(&self.shared.storage, &part.header, &mut bytes)
            .map_err(ReadError::Failed)?;
        Ok(recovery::scrub(&bytes, &part.header, next))
    }

    /// The segment that holds the record behind `after`; `None` at the durable end.
    fn source(&self, after: Lsn) -> Result<Option<Source<S>>, ReadError> {
        let view = lock(&self.shared.view);
        let first = view.parts[0].header;
        if after < first.base.position.lsn {
            return Err(ReadError::Gone {
                first_lsn: first.first_lsn(),
            });
        }
        if after >= view.durable {
            return Ok(None);
        }
        let above = view
            .parts
            .partition_point(|part| part.header.base.position.lsn <= after);
        let part = Arc::clone(&view.parts[above - 1]);
        let next = view.parts.get(above).map(|next| next.header.base);
        Ok(Some(Source {
            part,
            open: next.is_none().then(|| (Arc::clone(&view.file), view.end)),
            last: next.map_or(view.durable, |next| next.position.lsn.min(view.durable)),
            next,
            changes: view.changes,
        }))
    }

    fn has_changed(&self, source: &Source<S>) -> bool {
        let view = lock(&self.shared.view);
        let there = view
            .parts
            .iter()
            .any(|part| Arc::ptr_eq(part, &source.part));
        view.changes != source.changes || !there
    }

    fn read_from(
        &self,
        source: &Source<S>,
        after: Lsn,
        max_bytes: usize,
    ) -> Result<Vec<Record>, Fault> {
        let (mut lsn, mut offset) = source.part.place(after);
        let mut window = self.window(source)?;
        let mut link = (offset == HEADER_AREA).then_some(source.part.header.base);
        let (mut records, mut taken) = (Vec::new(), 0);
        while lsn < source.last {
            let head = match window.head(offset, lsn) {
                // What was asked for is there; the damage is told to who asks for more.
                Err(_) if !records.is_empty() => break,
                other => other?,
            };
            if !records.is_empty() && taken + head.size > max_bytes {
                break;
            }
            let end = offset + (STAMP_BYTES + head.size) as u64;
            if head.last_lsn() > after {
                let record = match window.record(offset, head.size, link) {
                    Err(_) if !records.is_empty() => break,
                    other => other?,
                };
                link = Some(record.link());
                taken += head.size;
                records.push(record);
            } else {
                link = None; // Skipped by its header only, so its chain value is not proved.
            }
            (lsn, offset) = (head.last_lsn(), end);
        }
        source.part.remember(lsn, offset);
        Ok(records)
    }

    fn window(&self, source: &Source<S>) -> Result<Window<S>, Fault> {
        if let Some((file, end)) = &source.open {
            return Ok(Window {
                bytes: Bytes::new(),
                from: 0,
                file: Some((Arc::clone(file), *end)),
            });
        }
        let part = &source.part;
        let bytes = match part.map.get() {
            Some(bytes) => bytes.clone(),
            None => {
                let name = segment::name(part.header.first_lsn());
                let file = self.shared.storage.open(&name)?;
                // A file that was shortened is read as far as it goes.
                let len = part.header.segment_bytes.min(file.len()?);
                let bytes = file.map(len)?;
                part.map.get_or_init(|| bytes).clone()
            }
        };
        Ok(Window {
            bytes,
            from: 0,
            file: None,
        })
    }

    /// Walks the whole segment after a read ran into damage: the error if the record behind
    /// `after` is what is damaged, else a place is remembered from which it can be read.
    fn search(&self, source: &Source<S>, after: Lsn) -> Result<(), ReadError> {
        let header = &source.part.header;
        let name = segment::name(header.first_lsn());
        let mut bytes = Vec::new();
        recovery::salvage_segment(&self.shared.storage, header, &mut bytes)
            .map_err(ReadError::Failed)?;
        let mut scan = Scan::new(&bytes, header);
        while scan.link.position.lsn < source.last {
            let before = scan.link.position.lsn;
            if let Ok(entry) = scan.step() {
                if entry.head.last_lsn() > after {
                    source.part.insert(before, entry.offset as u64);
                    return Ok(());
                }
                continue;
            }
            let range = match scan.resume(&name, source.last) {
                Some(range) => range,
                None => scan.range(&name, source.last, source.next.map(|next| next.chain)),
            };
            if range.last_lsn > after {
                return Err(ReadError::Damaged(Box::new(range)));
            }
        }
        Ok(())
    }
}

impl Fault {
    fn into_error(self, name: &str) -> Error {
        match self {
            Fault::Io(error) => Error::io(name, "read")(error),
            Fault::Damage(damage) => Error::new(name, ErrorKind::Damaged(damage)),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Fault {
        Fault::Damage(damage)
    }
}

/// A stretch of a segment's bytes that moves along.
struct Window<S: Storage> {
    bytes: Bytes,
    /// Where `bytes` begin in the file.
    from: u64,
    /// The newest segment's file and where its durable bytes end; `None` for a whole map.
    file: Option<(Arc<S::File>, u64)>,
}

impl<S: Storage> Window<S> {
    /// The header of the record behind `lsn`, whose stamp stands at `offset`.
    fn head(&mut self, offset: u64, lsn: Lsn) -> Result<Head, Fault> {
        let bytes = self.at(offset, STAMP_BYTES + HEADER_BYTES)?;
        let head = Head::read(&bytes[STAMP_BYTES..])?;
        match head.first_lsn == lsn.next() {
            true => Ok(head),
            false => Err(Fault::Damage(Damage::Order)),
        }
    }

    /// The record of `size` bytes whose stamp stands at `offset`, proved; also that it follows
    /// `link`, where that is known.
    fn record(&mut self, offset: u64, size: usize, link: Option<Link>) -> Result<Record, Fault> {
        let mut bytes = self.at(offset, STAMP_BYTES + size)?;
        let record = Record::split_from(&mut bytes.split_off(STAMP_BYTES))?;
        if let Some(link) = link {
            record.follows(link)?;
        }
        Ok(record)
    }

    /// `len` bytes from `offset` on, shared with the window.
    fn at(&mut self, offset: u64, len: usize) -> Result<Bytes, Fault> {
        let inside = |window: &Window<S>| {
            let at = usize::try_from(offset.checked_sub(window.from)?).ok()?;
            let end = at.checked_add(len)?;
            (end <= window.bytes.len()).then(|| window.bytes.slice(at..end))
        };
        if let Some(bytes) = inside(self) {
            return Ok(bytes);
        }
        let Some((file, end)) = &self.file else {
            return Err(Fault::Damage(Damage::Short));
        };
        let left = usize::try_from(end.saturating_sub(offset)).expect("a segment fits memory");
        if left < len {
            return Err(Fault::Damage(Damage::Short));
        }
        let mut bytes = BytesMut::zeroed(left.min(len.max(WINDOW_BYTES)));
        file.read_at(offset, &mut bytes)?;
        (self.bytes, self.from) = (bytes.freeze(), offset);
        Ok(self.bytes.slice(..len))
    }
}
