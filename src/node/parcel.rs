//! A snapshot and its segments between two nodes: packed here, taken in there, piece by piece.
//!
//! The file of the snapshot comes first, then, in the order in which it names them, the segments
//! that the receiver does not have. No piece is of two files. A segment that came whole stays, also
//! where the rest does not come: the next attempt does not send it again.

use crate::limits;
use crate::node::directory::Directory;
use crate::node::shelf::{self, Opened, waiting_name_of};
use crate::state::State;
use bytes::Bytes;
use standfast_snapshot::{Header, Incoming, NewFile, SegmentRef, segment};
use standfast_wal::{ClusterId, Lsn, Mark, Storage};
use std::collections::{BTreeSet, VecDeque};
use std::io::Write;

/// A snapshot that goes out.
pub struct Outgoing<D: Directory> {
    storage: D::Storage,
    snapshot: Opened<D>,
    /// Segments that go after the file being sent.
    left: VecDeque<SegmentRef>,
    /// The segment being sent; `None`: the snapshot's own file is.
    segment: Option<Bytes>,
    /// Of the next piece, in all that is sent.
    offset: u64,
    /// Of the next piece, in its file.
    inside: u64,
}

impl<D: Directory> Outgoing<D> {
    /// Opens the snapshot at `lsn` for a node that has the segments `have`.
    pub fn open(dir: &D, lsn: Lsn, have: &[SegmentRef]) -> Result<Outgoing<D>, String> {
        let snapshot = shelf::open(dir, lsn)?;
        let named = snapshot.segments().map_err(|error| error.to_string())?;
        let have: BTreeSet<&SegmentRef> = have.iter().collect();
        let all = named.len();
        let left: VecDeque<_> = named
            .into_iter()
            .filter(|one| !have.contains(one))
            .collect();
        if left.len() < all {
            Mark::SegmentSpared.hit();
        }
        Ok(Outgoing {
            storage: dir.snapshots().map_err(|error| error.to_string())?,
            snapshot,
            left,
            segment: None,
            offset: 0,
            inside: 0,
        })
    }

    /// The next piece, of at most `max` bytes, and where it belongs; `None`: all was given.
    pub fn next_piece(&mut self, max: usize) -> Result<Option<(u64, Bytes)>, String> {
        loop {
            let bytes = self.read(max)?;
            if !bytes.is_empty() {
                let offset = self.offset;
                self.offset += bytes.len() as u64;
                self.inside += bytes.len() as u64;
                return Ok(Some((offset, bytes)));
            }
            let Some(next) = self.left.pop_front() else {
                return Ok(None);
            };
            self.segment = Some(self.prove(&next)?);
            self.inside = 0;
        }
    }

    /// What is damaged would be refused. It goes: the next snapshot gives the segment a new file.
    fn prove(&self, next: &SegmentRef) -> Result<Bytes, String> {
        segment::open(&self.storage, next).map_err(|error| {
            if error.is_damage() {
                // One that stays is found damaged again.
                let _ = self.storage.remove(&next.name());
            }
            error.to_string()
        })
    }

    fn read(&self, max: usize) -> Result<Bytes, String> {
        let Some(segment) = &self.segment else {
            let chunk = self.snapshot.chunk(self.inside, max);
            return chunk.map_err(|error| error.to_string());
        };
        let from = usize::try_from(self.inside).map_err(|error| error.to_string())?;
        let to = segment.len().min(from.saturating_add(max));
        Ok(segment.slice(from..to))
    }
}

/// A snapshot that comes in.
pub struct Arriving<D: Directory> {
    dir: D,
    storage: D::Storage,
    cluster: ClusterId,
    lsn: Lsn,
    /// Bytes of the snapshot's own file.
    total: u64,
    incoming: Incoming<D::Storage>,
    /// What this node had when it accepted.
    have: BTreeSet<SegmentRef>,
    /// What the snapshot names; known once its own file is whole.
    named: Vec<SegmentRef>,
    /// Segments that come after the one under way.
    left: VecDeque<SegmentRef>,
    segment: Option<Receiving<D::Storage>>,
    /// Of the next piece.
    offset: u64,
}

/// A segment under way. Its bytes are proved when the whole is loaded.
struct Receiving<S: Storage> {
    file: NewFile<S>,
    left: u64,
}

impl<D: Directory> Arriving<D> {
    /// Gets ready for the snapshot at `lsn`, whose own file has `total` bytes; says which segments
    /// need not be sent.
    pub fn begin(
        dir: D,
        cluster: ClusterId,
        lsn: Lsn,
        total: u64,
    ) -> Result<(Arriving<D>, Vec<SegmentRef>), String> {
        let storage = dir.snapshots().map_err(|error| error.to_string())?;
        let incoming = Incoming::create(storage.clone(), &waiting_name_of(lsn));
        let there = segment::list(&storage).map_err(|error| error.to_string())?;
        // One that is damaged or cannot be read is sent like one that is lacking, and replaced.
        let proved = there
            .into_iter()
            .filter(|one| segment::open(&storage, one).is_ok());
        let told: Vec<_> = proved.take(limits::SEGMENTS_NAMED_MAX).collect();
        let arriving = Arriving {
            dir,
            storage,
            cluster,
            lsn,
            total,
            incoming: incoming.map_err(|error| error.to_string())?,
            have: told.iter().copied().collect(),
            named: Vec::new(),
            left: VecDeque::new(),
            segment: None,
            offset: 0,
        };
        Ok((arriving, told))
    }

    /// Adds the next piece; true when everything is there.
    pub fn push(&mut self, offset: u64, bytes: &Bytes) -> Result<bool, String> {
        if offset != self.offset {
            return Err(format!("piece at {offset}, not {}", self.offset));
        }
        self.offset += bytes.len() as u64;
        if self.offset <= self.total {
            self.incoming.push(bytes).map_err(|e| e.to_string())?;
            if self.offset < self.total {
                return Ok(false);
            }
            let named = self.incoming.prove(self.cluster);
            self.named = named.map_err(|error| error.to_string())?;
            let lacking = self.named.iter().filter(|one| !self.have.contains(one));
            self.left = lacking.copied().collect();
            return self.begin_segment();
        }
        let Some(receiving) = &mut self.segment else {
            return Err(format!("more than the {} bytes offered", self.total));
        };
        let left = receiving.left.checked_sub(bytes.len() as u64);
        receiving.left = left.ok_or("a piece that is longer than its segment")?;
        let written = receiving.file.write_all(bytes);
        written.map_err(|error| format!("a segment: {error}"))?;
        if receiving.left > 0 {
            return Ok(false);
        }
        if let Some(done) = self.segment.take() {
            // Durable here: a segment, before the snapshot that names it.
            done.file.publish().map_err(|e| format!("a segment: {e}"))?;
        }
        self.begin_segment()
    }

    fn begin_segment(&mut self) -> Result<bool, String> {
        let Some(next) = self.left.pop_front() else {
            return Ok(true);
        };
        // A snapshot of this node's own may be writing the same segment.
        let file = NewFile::create_apart(self.storage.clone(), &next.name(), "incoming");
        self.segment = Some(Receiving {
            file: file.map_err(|error| format!("{}: {error}", next.name()))?,
            left: next.bytes,
        });
        Ok(false)
    }

    /// Proves everything, lets the snapshot wait under its waiting name, durably, and loads it.
    pub fn finish(self) -> Result<(Header, State), String> {
        let reader = self.incoming.publish(self.cluster);
        let reader = reader.map_err(|error| error.to_string())?;
        // Durable here: the received file under its waiting name.
        let loaded = shelf::load_in(&self.dir, &reader, self.cluster);
        let loaded = loaded.map_err(|error| error.to_string())?;
        if loaded.0.link.position.lsn != self.lsn {
            return Err(format!("a snapshot of another LSN than {}", self.lsn));
        }
        Ok(loaded)
    }
}
