//! Takes records away: cut and reset.
//!
//! Every removal is announced by a durable note before it begins and is finished from that note
//! after a crash, so a half-made cut is never taken for damage. Nothing is erased before a copy
//! of it is durable.

use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::kept::{DIVERGENT, Kept, keep_aside, keep_bytes_aside, unused_name};
use crate::log::{Cut, Identity, Log, disk_bytes};
use crate::mark::Mark;
use crate::note::{INTENT, Note};
use crate::prepare::PREPARED;
use crate::reader::ReadError;
use crate::record::{Damage, History, Link, Lsn, Record};
use crate::recovery::salvage_segment;
use crate::scan::{Scan, used_end};
use crate::segment::{self, HEADER_AREA, Header};
use crate::storage::{File, Storage, read_all};
use std::sync::Arc;

/// The first segment of a reset log, before the old ones are out of the way.
const FRESH: &str = "fresh";

impl<S: Storage> Log<S> {
    /// Removes every record above `after` (a record's last LSN, or the base), keeping them in
    /// `divergent/`. A crash in the middle is finished at the next open.
    pub fn cut(&mut self, after: Lsn) -> Result<Cut, Error> {
        self.alive()?;
        assert!(
            after.next() >= self.first_lsn() && self.damaged.is_empty(),
            "a cut to {after} needs that position in the log, which begins at {}",
            self.first_lsn()
        );
        let cut = self.cut_records(after);
        self.latch(cut)
    }

    fn cut_records(&mut self, after: Lsn) -> Result<Cut, Error> {
        let durable = self.durable.position.lsn;
        let keep = self
            .queue
            .partition_point(|record| record.last_lsn() <= after);
        let unwritten: Vec<Record> = self.queue.drain(keep..).collect();
        self.queued_bytes -= unwritten.iter().map(disk_bytes).sum::<u64>();
        let place = if after < durable {
            Some(self.find_cut(after)?)
        } else {
            None
        };
        if let Some(first) = unwritten.first() {
            assert!(
                first.first_lsn() > after || after < durable,
                "a cut to {after} falls inside {first:?}"
            );
        }
        let tail = match &place {
            Some(place) => place.after,
            None => self.written(),
        };
        let mut records = Vec::new();
        if place.is_some() {
            records = self.read_or_keep_raw(after)?;
        }
        records.extend(unwritten);
        let file = self.keep_records(tail, durable, &records)?;
        if let Some(place) = place {
            Mark::RecordsCut.hit();
            self.shared.retreat(after);
            self.make_cut(place)?;
        }
        Ok(Cut {
            tail,
            durable: self.durable.position.lsn,
            records,
            file,
        })
    }

    /// The segment and offset where a cut behind a durable record falls.
    fn find_cut(&self, after: Lsn) -> Result<Place, Error> {
        let above = self
            .headers
            .partition_point(|header| header.base.position.lsn <= after);
        let header = self.headers[above - 1];
        let name = segment::name(header.first_lsn());
        let mut bytes = Vec::new();
        crate::recovery::read_segment(&self.storage, &header, &mut bytes)?;
        let mut scan = Scan::new(&bytes, &header);
        while scan.link.position.lsn < after {
            scan.step().map_err(|damage| {
                let error = Error::new(&name, ErrorKind::Damaged(damage)).at(scan.offset as u64);
                error.lsn(scan.link.position.lsn.next())
            })?;
        }
        assert!(
            scan.link.position.lsn == after,
            "a cut to {after} falls inside the record that ends at {}",
            scan.link.position.lsn
        );
        Ok(Place {
            after: scan.link,
            header,
            offset: scan.offset as u64,
        })
    }

    /// The durable records above `after`. Where one is damaged the segments' bytes from there
    /// on are kept as they are: what is cut is damaged then, too, but nothing of it is lost.
    fn read_or_keep_raw(&self, after: Lsn) -> Result<Vec<Record>, Error> {
        let reader = self.reader();
        let mut records = Vec::new();
        let mut at = after;
        while at < self.durable.position.lsn {
            match reader.read(at, usize::MAX) {
                Ok(read) => {
                    at = read
                        .last()
                        .expect("there is more below the durable end")
                        .last_lsn();
                    records.extend(read);
                }
                Err(ReadError::Failed(error)) => return Err(error),
                Err(ReadError::Gone { .. } | ReadError::Damaged(_)) => {
                    let rest = self
                        .headers
                        .partition_point(|header| header.base.position.lsn <= at);
                    for header in self.headers.range(rest - 1..) {
                        let mut bytes = Vec::new();
                        salvage_segment(&self.storage, header, &mut bytes)?;
                        let used = used_end(&bytes, 0);
                        let stem = format!("damaged-{:020}", header.first_lsn().0);
                        keep_bytes_aside(&self.storage, &stem, &bytes[..used])?;
                    }
                    break;
                }
            }
        }
        Ok(records)
    }

    /// Writes what is removed to a file of its own; `None` if nothing is.
    fn keep_records(
        &self,
        after: Link,
        durable: Lsn,
        records: &[Record],
    ) -> Result<Option<String>, Error> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(None);
        };
        let stem = format!(
            "cut-{}-{}-{:08x}",
            first.first_lsn(),
            last.last_lsn(),
            last.chain().0
        );
        let kept = Kept {
            cluster: self.identity.cluster,
            node: self.identity.node,
            history: self.history(),
            after,
            durable,
            records: records.to_vec(),
        };
        let header = kept.encode_header();
        let parts = std::iter::once(&header[..]).chain(records.iter().map(|r| &r.bytes()[..]));
        keep_aside(&self.storage, &stem, "cut", parts).map(Some)
    }

    fn make_cut(&mut self, place: Place) -> Result<(), Error> {
        let newest = self.newest().first_lsn() == place.header.first_lsn();
        let note = Note::Cut {
            after: place.after,
            segment: place.header.first_lsn(),
            offset: place.offset,
        };
        if newest {
            announce_and_cut(&self.storage, &note)?;
        } else {
            // Readers may hold maps of this segment: it gets a new file, the old one stays as
            // it is for as long as it is mapped. The announcement finishes either way.
            note.write(&self.storage, INTENT)?;
            copy_prefix(&self.storage, &place.header, place.offset)?;
            apply_cut(&self.storage, place.header.first_lsn(), place.offset)?;
            Note::remove(&self.storage, INTENT)?;
        }
        while self.newest().first_lsn() > place.header.first_lsn() {
            self.headers.pop_back();
        }
        let name = self.newest_name();
        let file = self
            .storage
            .open(&name)
            .map_err(Error::io(&name, "open the segment"))?;
        self.file = Arc::new(file);
        self.offset = place.offset;
        self.durable = place.after;
        let (file, lsn) = (Arc::clone(&self.file), self.durable.position.lsn);
        self.shared.replace(&self.headers, file, lsn, self.offset);
        self.settled = false;
        self.settle()
    }

    /// Empties the log, which then goes on after `base`: the last step of installing a snapshot.
    /// Segments whose records are all at or below `verified` are removed, the others are moved
    /// to `divergent/`. Either all of it has happened after a crash, or nothing. An error that
    /// `is_full` changed nothing.
    pub fn reset(&mut self, base: Link, history: History, verified: Lsn) -> Result<(), Error> {
        self.alive()?;
        assert!(!self.preparing, "reset while a preparation is out");
        let header = Header {
            identity: self.identity,
            history,
            base,
            segment_bytes: self.options.segment_bytes,
            previous_first_lsn: Lsn::ZERO,
        };
        let file = match self.make_fresh(&header) {
            Err(error) if error.is_full() => return Err(error),
            other => self.latch(other)?,
        };
        let reset = self.reset_to(header, file, verified);
        self.latch(reset)
    }

    /// The first segment of the log to be, beside the old ones.
    fn make_fresh(&mut self, header: &Header) -> Result<S::File, Error> {
        self.prepare()?;
        let Some(prepared) = self.prepared.take() else {
            let full = std::io::ErrorKind::StorageFull.into();
            return Err(Error::io(FRESH, "make a segment")(full));
        };
        let begin = || {
            prepared.file.write_at(0, &header.encode())?;
            prepared.file.sync()?;
            durable::publish(&self.storage, PREPARED, FRESH)
        };
        begin().map_err(Error::io(FRESH, "make a segment"))?;
        Ok(prepared.file)
    }

    fn reset_to(&mut self, header: Header, file: S::File, verified: Lsn) -> Result<(), Error> {
        let base = header.base;
        self.queue.clear();
        self.queued_bytes = 0;
        self.shared.retreat(Lsn::ZERO);
        let note = Note::Reset {
            base,
            history: header.history,
            verified,
        };
        note.write(&self.storage, INTENT)?;
        apply_reset(&self.storage, base, verified)?;
        Note::remove(&self.storage, INTENT)?;
        self.headers = [header].into();
        self.file = Arc::new(file);
        self.offset = HEADER_AREA;
        self.durable = base;
        self.settled = true;
        self.damaged.clear();
        let (file, lsn) = (Arc::clone(&self.file), base.position.lsn);
        self.shared.replace(&self.headers, file, lsn, self.offset);
        self.trust()
    }
}

/// Where a cut falls.
struct Place {
    after: Link,
    header: Header,
    offset: u64,
}

/// Announces a cut, makes it, and takes the announcement back.
pub(crate) fn announce_and_cut<S: Storage>(storage: &S, note: &Note) -> Result<(), Error> {
    let Note::Cut {
        segment, offset, ..
    } = *note
    else {
        unreachable!("only cuts are made here: {note:?}");
    };
    // Durable here: the announcement, before the first change.
    note.write(storage, INTENT)?;
    apply_cut(storage, segment, offset)?;
    // Durable here: nothing is left to be finished.
    Note::remove(storage, INTENT)
}

/// Finishes what a crash interrupted and clears leftovers away; true if there was something.
pub(crate) fn finish_announced<S: Storage>(storage: &S, identity: Identity) -> Result<bool, Error> {
    let note = Note::read(storage, INTENT)?;
    match &note {
        Some(Note::Cut {
            segment, offset, ..
        }) => apply_cut(storage, *segment, *offset)?,
        Some(Note::Reset { base, verified, .. }) => apply_reset(storage, *base, *verified)?,
        Some(Note::Suspect { .. }) => {
            return Err(Error::new(INTENT, ErrorKind::Damaged(Damage::Field)));
        }
        None => {}
    }
    if note.is_some() {
        Note::remove(storage, INTENT)?;
        tracing::warn!(?note, node = %identity.node, "finished what a crash had interrupted");
    }
    let names = storage
        .list("")
        .map_err(Error::io("", "list the log's directory"))?;
    for name in names
        .iter()
        .filter(|name| name.ends_with(".tmp") || *name == FRESH)
    {
        durable::remove(storage, name).map_err(Error::io(name, "remove a leftover"))?;
    }
    Ok(note.is_some())
}

/// Removes the segments behind the one that is cut and zeroes that one from `offset` on. May be
/// done any number of times.
fn apply_cut<S: Storage>(storage: &S, first_lsn: Lsn, offset: u64) -> Result<(), Error> {
    let mut names = segment_names(storage)?;
    // Newest first: a crash in between leaves no hole.
    while let Some(name) = names.pop() {
        if segment::first_lsn_of(&name) <= Some(first_lsn) {
            break;
        }
        durable::remove(storage, &name).map_err(Error::io(&name, "remove a cut segment"))?;
    }
    let name = segment::name(first_lsn);
    let zero = || {
        let bytes = read_all(storage, &name)?;
        let file = storage.open(&name)?;
        let (header, from) = (Header::decode(&bytes), usize::try_from(offset).unwrap_or(0));
        let used = used_end(&bytes, from.min(bytes.len()));
        if used > from {
            file.zero(offset, (used - from) as u64)?;
        }
        // A file that was shortened gets its length back.
        let full = header.map_or(0, |(header, _)| header.segment_bytes);
        let len = (bytes.len() as u64).max(offset);
        if full > len {
            file.zero(len, full - len)?;
        }
        // Durable here: the zeros, before anything is appended over them.
        file.sync()
    };
    zero().map_err(Error::io(&name, "zero what was cut"))
}

/// Moves or removes all segments and gives the fresh one its name. May be done any number of
/// times: while `FRESH` exists, every segment is an old one; once it does not, none is.
fn apply_reset<S: Storage>(storage: &S, base: Link, verified: Lsn) -> Result<(), Error> {
    if !storage
        .list("")
        .map_err(Error::io("", "list"))?
        .iter()
        .any(|name| name == FRESH)
    {
        return Ok(());
    }
    let names = segment_names(storage)?;
    for (at, name) in names.iter().enumerate() {
        let next = names
            .get(at + 1)
            .and_then(|next| segment::first_lsn_of(next));
        // All of it is at or below `verified` if the next segment begins right behind.
        let removed = if next.is_some_and(|next| next <= verified.next()) {
            storage.remove(name)
        } else {
            let stem = format!("{DIVERGENT}/reset-{}-{name}", base.position.lsn);
            let to = unused_name(storage, &stem)?;
            storage.rename(name, &to)
        };
        removed.map_err(Error::io(name, "move the segment aside"))?;
    }
    let name = segment::name(base.position.lsn.next());
    let finish = || {
        storage.sync_dir(DIVERGENT)?;
        // Durable here: the old segments are out of the way, before the fresh one has its name.
        storage.sync_dir("")?;
        // Durable here: the log begins behind the snapshot.
        durable::publish(storage, FRESH, &name)
    };
    finish().map_err(Error::io(&name, "begin the log anew"))
}

fn segment_names<S: Storage>(storage: &S) -> Result<Vec<String>, Error> {
    let mut names = storage
        .list("")
        .map_err(Error::io("", "list the log's directory"))?;
    names.retain(|name| segment::first_lsn_of(name).is_some());
    Ok(names)
}

/// Gives a sealed segment a new file that ends at `offset` and is zeros behind it.
fn copy_prefix<S: Storage>(storage: &S, header: &Header, offset: u64) -> Result<(), Error> {
    let name = segment::name(header.first_lsn());
    let copy = || {
        let mut prefix = read_all(storage, &name)?;
        prefix.truncate(usize::try_from(offset).expect("a segment fits memory"));
        replace_segment(storage, header, &prefix)
    };
    copy().map_err(Error::io(&name, "copy the segment"))
}

/// Replaces a segment's file by one with these bytes and zeros behind them.
pub(crate) fn replace_segment<S: Storage>(
    storage: &S,
    header: &Header,
    bytes: &[u8],
) -> std::io::Result<()> {
    let name = segment::name(header.first_lsn());
    let temporary = durable::temporary(&name);
    durable::remove(storage, &temporary)?;
    let file = storage.create(&temporary)?;
    file.zero(0, header.segment_bytes)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    // Durable here: the new file, whole, in place of the old one.
    durable::publish(storage, &temporary, &name)
}
