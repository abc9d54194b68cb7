//! Puts snapshots and committed log into an archive directory, where nothing is ever overwritten.
//!
//! `<dir>/<cluster>/<generation>-<history id>/` holds `history` (the card), `snapshot-<lsn>` and
//! `log-<first>-<last>`; `<dir>/<cluster>/segments/` what the snapshots of all histories refer to
//! (`segment.rs`), each segment once. Every object is written whole under a temporary name,
//! fsynced, and then linked to its name if nobody has the name: two nodes that ship the same
//! history cannot spoil each other's work. An object whose bytes were damaged meanwhile is
//! replaced.

use crate::catalogue::{self, CARD_NAME};
use crate::error::{Error, Reason};
use crate::new_file::TEMPORARY;
use crate::object::{Card, LogHead, decode_log, encode_log};
use crate::read::Reader;
use crate::retention::Expiry;
use crate::segment::{self, SegmentRef};
use crate::{Result, object};
use standfast_wal::{Link, Lsn, Record};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A piece of log is closed when the next record would make it longer than this.
pub const LOG_CLOSE_BYTES: usize = 8 << 20;

/// What one call added to the archive.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shipped {
    /// The LSN of the snapshot, if one was given.
    pub snapshot_lsn: Option<Lsn>,
    /// Pieces of log written (or found there, equal).
    pub pieces: u64,
    pub records: u64,
    /// Bytes that were written into the archive.
    pub stored_bytes: u64,
    /// The end of the log in the archive now.
    pub end: Option<Link>,
    /// The last LSN before a hole and the first behind it, where the records did not go on from
    /// what the archive had. A snapshot at or behind the hole makes restores possible again.
    pub gap: Option<(Lsn, Lsn)>,
}

/// What became of an object that was to be put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    New,
    /// The same contents had the name already.
    Present,
    /// Damaged bytes had the name, and were replaced.
    Repaired,
}

/// Ships one history into an archive directory. One per history and process; for a worker thread.
#[derive(Debug)]
pub struct Shipper {
    dir: PathBuf,
    card: Card,
    end: Option<Link>,
}

/// Ships a snapshot (if given) and the records that the archive does not have yet. `head` names the
/// history; the records are committed, of that history, and follow one another.
pub fn ship(
    dir: &Path,
    head: &Card,
    snapshot: Option<&Path>,
    records: impl IntoIterator<Item = io::Result<Record>>,
) -> Result<Shipped> {
    let mut shipper = Shipper::open(dir, head)?;
    let mut shipped = shipper.put_log(records)?;
    if let Some(path) = snapshot {
        let (lsn, bytes) = shipper.put_snapshot(path)?;
        shipped.snapshot_lsn = Some(lsn);
        shipped.stored_bytes += bytes;
    }
    Ok(shipped)
}

impl Shipper {
    /// Makes the history's directory, puts its card there, and finds where its log ends.
    pub fn open(dir: &Path, card: &Card) -> Result<Shipper> {
        let dir = catalogue::history_dir(dir, card.cluster, card.history);
        create_dirs(&dir).map_err(|e| Error::io(dir.display(), e))?;
        let path = dir.join(CARD_NAME);
        put_if_absent(&path, &card.encode(), |bytes| {
            let there = Card::decode(&path.display().to_string(), bytes)?;
            Ok(there == *card)
        })?;
        let end = catalogue::newest_log(&dir)?.map(|head| head.end);
        Ok(Shipper {
            dir,
            card: card.clone(),
            end,
        })
    }

    /// Where the log in the archive ends, as far as this shipper knows. `None`: there is none.
    pub fn end(&self) -> Option<Link> {
        self.end
    }

    /// Puts the records behind the archive's end, in pieces; skips what it has.
    pub fn put_log(
        &mut self,
        records: impl IntoIterator<Item = io::Result<Record>>,
    ) -> Result<Shipped> {
        let mut shipped = Shipped::default();
        let mut piece: Vec<Record> = Vec::new();
        let mut piece_bytes = 0;
        for record in records {
            let record = record.map_err(|e| Error::io("the log to be shipped", e))?;
            let last = piece.last().map(Record::link).or(self.end);
            match last {
                Some(last) if record.last_lsn() <= last.position.lsn => continue,
                Some(last) if record.first_lsn() > last.position.lsn.next() => {
                    self.put_piece(&mut piece, &mut shipped)?;
                    piece_bytes = 0;
                    shipped.gap = Some((last.position.lsn, record.first_lsn()));
                }
                Some(last) => self.check_follows(&record, last)?,
                None => {}
            }
            if piece_bytes + record.bytes().len() > LOG_CLOSE_BYTES {
                self.put_piece(&mut piece, &mut shipped)?;
                piece_bytes = 0;
            }
            piece_bytes += record.bytes().len();
            piece.push(record);
        }
        self.put_piece(&mut piece, &mut shipped)?;
        shipped.end = self.end;
        Ok(shipped)
    }

    fn check_follows(&self, record: &Record, last: Link) -> Result<()> {
        record.follows(last).map_err(|damage| {
            let lsn = record.first_lsn();
            let file = format!("{} (the log it is to hold)", self.dir.display());
            Error::new(&file, None, Reason::Record { lsn, damage })
        })
    }

    fn put_piece(&mut self, piece: &mut Vec<Record>, shipped: &mut Shipped) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        let (head, bytes) = encode_log(self.card.cluster, self.card.history, piece);
        let name = catalogue::log_name(head.first_lsn, head.last_lsn());
        let path = self.dir.join(name);
        let put = put_if_absent(&path, &bytes, |bytes| {
            let (there, _) = decode_log(&path.display().to_string(), bytes)?;
            Ok(is_same_log(&there, &head))
        })?;
        shipped.pieces += 1;
        shipped.records += head.records;
        if put != Put::Present {
            shipped.stored_bytes += bytes.len() as u64;
        }
        self.end = Some(head.end);
        piece.clear();
        Ok(())
    }

    /// Copies the snapshot file at `path`, having proved it, and those of its segments beside it
    /// that are not there yet. Answers its LSN and the bytes written.
    pub fn put_snapshot(&self, path: &Path) -> Result<(Lsn, u64)> {
        let reader = Reader::open(path)?;
        reader.check_cluster(self.card.cluster)?;
        let header = reader.header();
        let lsn = header.link.position.lsn;
        if header.history != self.card.history {
            let expected = Box::new(self.card.history);
            let found = Box::new(header.history);
            let reason = Reason::History { expected, found };
            return Err(Error::new(reader.file(), None, reason));
        }
        let named = reader.segments()?;
        let beside = path.parent().unwrap_or(Path::new("."));
        let mut written = self.put_segments(&named, beside)?;
        let target = self.dir.join(catalogue::snapshot_name(lsn));
        let name = target.display().to_string();
        let (temporary, mut file) = temporary_for(&target).map_err(|e| Error::io(&name, e))?;
        let copied = copy_and_prove(&reader, &mut file, &temporary.0);
        copied?;
        let is_same =
            || {
                let there = Reader::open(&target)?;
                there.check_whole()?;
                let (a, b) = (there.header(), header);
                Ok((a.cluster, a.history, a.link, a.digest)
                    == (b.cluster, b.history, b.link, b.digest))
            };
        let put = claim(&temporary.0, &target, is_same)?;
        if put != Put::Present {
            written += reader.file_bytes();
        }
        // Until the snapshot had its name, whoever expired backups did not see what needs them.
        written += self.put_segments(&named, beside)?;
        Ok((lsn, written))
    }

    /// Copies the segments in `from` that the archive lacks. What has the name and the length of
    /// one is taken for it: `verify` reads it.
    fn put_segments(&self, named: &[SegmentRef], from: &Path) -> Result<u64> {
        let dir = catalogue::segments_beside(&self.dir);
        let mut written = 0;
        for reference in named {
            let target = dir.join(reference.name());
            if fs::metadata(&target).is_ok_and(|there| there.len() == reference.bytes) {
                continue;
            }
            create_dirs(&dir).map_err(|e| Error::io(dir.display(), e))?;
            let bytes = segment::open_at(from, reference)?;
            let is_same =
                |there: &[u8]| match SegmentRef::of(reference.list, reference.number, there) {
                    same if same == *reference => Ok(true),
                    _ => Err(Error::new(
                        &name_of(&target),
                        None,
                        Reason::Checksum("segment"),
                    )),
                };
            put_if_absent(&target, &bytes, is_same)?;
            written += reference.bytes;
        }
        Ok(written)
    }
}

fn is_same_log(a: &LogHead, b: &LogHead) -> bool {
    (a.cluster, a.history, a.blake3) == (b.cluster, b.history, b.blake3)
}

/// Copies the snapshot and proves the copy, not the original.
fn copy_and_prove(reader: &Reader<File>, file: &mut File, temporary: &Path) -> Result<()> {
    const STRIDE: usize = 1 << 20;
    let fail = |e| Error::io(temporary.display(), e);
    let mut at = 0;
    while at < reader.file_bytes() {
        let bytes = reader.chunk(at, STRIDE)?;
        file.write_all(&bytes).map_err(fail)?;
        at += bytes.len() as u64;
    }
    file.sync_all().map_err(fail)?;
    Reader::open(temporary)?.check_whole()
}

/// Makes the directory entry of `path` durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    // Durable here: the names in this directory.
    File::open(dir)?.sync_all()
}

/// Creates the directories down to `dir`, durably.
fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // Durable here: the directory's entry in its parent.
        _ => sync_dir(dir),
    }
}

/// Removes the temporary file when it goes.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Either linked to its name by now, or of no use.
        let _ = fs::remove_file(&self.0);
    }
}

/// A new file beside `target` whose name no other process has taken.
fn temporary_for(target: &Path) -> io::Result<(Temporary, File)> {
    let mut n = 0;
    loop {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".{}-{n}{TEMPORARY}", std::process::id()));
        let path = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((Temporary(path), file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(error),
        }
    }
}

fn put_if_absent(
    target: &Path,
    bytes: &[u8],
    is_same: impl Fn(&[u8]) -> Result<bool>,
) -> Result<Put> {
    let fail = |e| Error::io(target.display(), e);
    let is_there = || is_same(&fs::read(target).map_err(fail)?);
    if target.exists() && matches!(is_there(), Ok(true)) {
        return Ok(Put::Present);
    }
    let (temporary, mut file) = temporary_for(target).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    claim(&temporary.0, target, is_there)
}

/// Gives the durable file `temporary` the name `target`, unless something sound has it.
fn claim(temporary: &Path, target: &Path, is_same: impl Fn() -> Result<bool>) -> Result<Put> {
    let fail = |e| Error::io(target.display(), e);
    let put = match fs::hard_link(temporary, target) {
        Ok(()) => Put::New,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match is_same() {
            Ok(true) => Put::Present,
            Ok(false) => return Err(Error::new(&name_of(target), None, Reason::Taken)),
            Err(error) if error.is_damage() => {
                // Whoever damaged it, its records are ours: same history, same LSNs.
                fs::rename(temporary, target).map_err(fail)?;
                Put::Repaired
            }
            Err(error) => return Err(error),
        },
        Err(error) => return Err(fail(error)),
    };
    // Durable here: the object, whole, under its name.
    sync_dir(target).map_err(fail)?;
    Ok(put)
}

fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// Removes what `retention` said may go; snapshots first, so that none is ever without its log or
/// its segments.
pub fn remove(expiry: &Expiry) -> Result<()> {
    for path in expiry.all() {
        fs::remove_file(path).map_err(|e| Error::io(path.display(), e))?;
        // Durable here: the object is gone, before another one goes that it would need.
        sync_dir(path).map_err(|e| Error::io(path.display(), e))?;
    }
    Ok(())
}

/// Reads a piece of log from the archive and proves all of it.
pub fn read_log(path: &Path) -> Result<(LogHead, Vec<Record>)> {
    let bytes = fs::read(path).map_err(|e| Error::io(path.display(), e))?;
    object::decode_log(&name_of(path), &bytes)
}

#[cfg(test)]
mod tests;
