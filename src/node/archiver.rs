//! One node's archiver: round by round it ships what is committed, and reads back what it shipped.
//!
//! A round goes on where the archive ends, whoever has brought it there. It closes a piece of log
//! behind an Attestation, so that what a restore reaches is proved, and is cut at the same places
//! by whoever does it. What it says of the archive it has read from there: that something was put
//! is no proof that it can be restored. No thread and no clock here; its calls of the store block.

mod course;
mod drill;
mod place;
mod proof;
mod standing;
mod upload;
pub mod worker;

use course::Course;
pub use drill::{Drilled, Rehearsed};
use place::check_belongs;
pub use proof::{Expired, Proof, Verified};
pub use standing::{Dated, Standing, follows};
pub use upload::Upload;

use crate::limits;
use crate::node::clock::Now;
use standfast_snapshot::archive::{LOG_CLOSE_BYTES, MANIFEST_PIECES, Put};
use standfast_snapshot::retention::Policy;
use standfast_snapshot::store::Scratch;
use standfast_snapshot::{Card, LogHead, Recipients, Shared, Shipper, store};
use standfast_wal::{History, Kind, Link, Lsn, Mark, ReadError, Reader, Record, Storage};
use std::io;
use std::path::Path;
use std::time::Duration;

/// What the engine wants archived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    pub card: Card,
    /// Committed, durable and applied here.
    pub through: Lsn,
    /// What was acknowledged until then (ns since 1970) is in the log up to `through`; 0: nobody
    /// knows until when.
    pub as_of_ns: u64,
    /// The newest snapshot of this history on this node's disk.
    pub snapshot_lsn: Option<Lsn>,
    /// All of the archive should be read and proved again.
    pub is_verify_due: bool,
    /// When (ns since 1970) the last proof ended, if it found something that a snapshot mends.
    pub unsound: Option<u64>,
    /// A restore of it should be tried again.
    pub is_drill_due: bool,
}

/// The log as an archiver reads it.
pub trait Committed {
    fn first_lsn(&self) -> Lsn;
    /// Records behind `after`, at least one if there is any.
    fn behind(&self, after: Lsn) -> io::Result<Vec<Record>>;
}

impl<S: Storage> Committed for Reader<S> {
    fn first_lsn(&self) -> Lsn {
        Reader::first_lsn(self)
    }

    fn behind(&self, after: Lsn) -> io::Result<Vec<Record>> {
        self.read(after, limits::APPEND_BYTES).map_err(read_error)
    }
}

pub(crate) fn read_error(error: ReadError) -> io::Error {
    io::Error::other(match error {
        ReadError::Gone { first_lsn } => {
            format!("the log begins at {first_lsn} by now: it was trimmed meanwhile; try again")
        }
        ReadError::Damaged(range) => {
            format!(
                "{} offset {} LSN {}: damaged",
                range.file, range.offset, range.first_lsn
            )
        }
        ReadError::Failed(error) => error.to_string(),
    })
}

/// Beside the log, whose room is not touched: below that an archive that lags is let down.
pub(super) fn scratch_in(data: &Path) -> Scratch {
    Scratch {
        dir: data.to_path_buf(),
        free_percent: limits::ARCHIVE_FREE_PERCENT + 5,
    }
}

/// Ships into one archive.
#[derive(Debug)]
pub struct Archiver {
    place: String,
    /// Where long objects that are read back lie meanwhile.
    scratch: Scratch,
    store: Option<Shared>,
    interval: Duration,
    recipients: Recipients,
    keep: Option<Policy>,
    course: Option<Course>,
    /// There is an archive of this cluster: a place without is not the one.
    is_founded: bool,
    standing: Standing,
    /// The snapshot that is being put, and the proof whose findings it mends.
    uploading: Option<(History, Lsn)>,
    mending: Option<u64>,
    /// Of which proof's findings everything was mended that a snapshot of this node's can.
    mended: Option<u64>,
    /// Why the last snapshot was not put, and when (boot clock, ns) the next may be tried.
    upload_error: Option<String>,
    upload_after: u64,
    is_verifying: bool,
    /// Why the last proof broke off, and when (boot clock, ns) the next may be tried.
    verify_error: Option<String>,
    verify_after: u64,
    is_drilling: bool,
    /// When (boot clock, ns) the next drill may be tried.
    drill_after: u64,
}

impl Archiver {
    /// Nothing is asked of the store yet.
    pub fn new(
        place: &str,
        scratch: Scratch,
        interval: Duration,
        recipients: Recipients,
    ) -> Archiver {
        Archiver {
            place: place.to_string(),
            scratch,
            store: None,
            interval,
            recipients,
            keep: None,
            course: None,
            is_founded: false,
            standing: Standing::default(),
            uploading: None,
            mending: None,
            mended: None,
            upload_error: None,
            upload_after: 0,
            is_verifying: false,
            verify_error: None,
            verify_after: 0,
            is_drilling: false,
            drill_after: 0,
        }
    }

    /// As `new`, with a store that is open.
    pub fn with_store(store: Shared, interval: Duration, recipients: Recipients) -> Archiver {
        Archiver {
            store: Some(store),
            ..Archiver::new("", Scratch::of_command(), interval, recipients)
        }
    }

    /// Removes what `keep` does not want kept, behind each proof that finds nothing wrong.
    pub fn keeping(self, keep: Option<Policy>) -> Archiver {
        Archiver { keep, ..self }
    }

    /// This cluster's archive was seen in this place before.
    pub fn founded(self, is_founded: bool) -> Archiver {
        Archiver { is_founded, ..self }
    }

    pub fn is_founded(&self) -> bool {
        self.is_founded
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Another node archives now: what this one knows of the archive's end grows old.
    pub fn stand_down(&mut self) {
        self.course = None;
        self.standing.wants_snapshot = false;
    }

    /// Ships what there is to ship; whether that was possible.
    pub fn round(&mut self, order: &Order, log: &impl Committed, now: Now) -> bool {
        let result = self.try_round(order, log, now);
        let is_done = result.is_ok();
        self.standing.failures += u64::from(!is_done);
        let beside = || {
            self.upload_error
                .clone()
                .or_else(|| self.verify_error.clone())
        };
        self.standing.error = result.err().or_else(beside);
        is_done
    }

    fn try_round(&mut self, order: &Order, log: &impl Committed, now: Now) -> Result<(), String> {
        self.set_course(order, log, now)?;
        let interval_ns = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let course = self.course.as_mut().expect("it was set");
        let mut newest: Option<LogHead> = None;
        loop {
            let start = course.shipper.reached().max(before(log));
            if let Some(end) = reached(course)
                && start > end
            {
                Mark::ArchiveGap.hit();
                course.survey.is_whole = false;
                self.standing.gap = Some((end, start.next()));
            }
            let base = course.shipper.end().filter(|end| end.position.lsn == start);
            let found = gather(log, start, order.through).map_err(|e| e.to_string())?;
            let is_late = course.is_late(found.first(), interval_ns, now);
            let count = close(&found, base, interval_ns, is_late);
            if count == 0 {
                break;
            }
            if let (Some(base), Some(first)) = (base, found.first()) {
                let order = first.follows(base);
                order.map_err(|damage| {
                    format!("the log does not go on from the archive's end {base:?}: {damage}")
                })?;
            }
            let put = course.shipper.put_piece(&found[..count]);
            let (head, put) = put.map_err(|error| error.to_string())?;
            if put != Put::Present {
                self.standing.stored_bytes += head.file_bytes();
            }
            newest = Some(head);
        }
        course.last_round = now.boot;
        let age = now.boot.saturating_sub(course.manifest);
        if course.shipper.is_manifest_due() || age / MANIFEST_PIECES as u64 >= interval_ns {
            course.manifest = now.boot;
            let put = course.shipper.put_manifest();
            put.map_err(|error| error.to_string())?;
        }
        let newest = newest.or(course.survey.newest);
        self.prove(order, log, newest, now)
    }

    /// Reads the newest piece back, and says what follows from it.
    fn prove(
        &mut self,
        order: &Order,
        log: &impl Committed,
        newest: Option<LogHead>,
        now: Now,
    ) -> Result<(), String> {
        self.look(order, now)?;
        let course = self.course.as_mut().expect("it was set");
        course.survey.newest = newest;
        let end = course.shipper.end().map_or(Lsn::ZERO, |e| e.position.lsn);
        self.standing.history = order.card.history;
        self.standing.through = end;
        let helps = order.snapshot_lsn > course.survey.snapshot_lsn;
        // What snapshots share a new one puts again where it is damaged; one of an LSN that is
        // there would change nothing.
        let mends = order.unsound.is_some_and(|at| Some(at) != self.mended)
            && Some(order.through) > course.survey.snapshot_lsn;
        let is_wanted = !course.survey.is_whole || mends;
        self.standing.wants_snapshot = is_wanted && !helps && self.uploading.is_none();
        let Some(head) = newest else { return Ok(()) };
        let there = read_back(course, &head, log)?;
        self.is_founded = true;
        if !course.survey.is_whole {
            return Ok(());
        }
        self.standing.gap = None;
        // While nothing is written nothing is attested, and what is there stays as good as new.
        let as_of_ns = match end >= order.through {
            true => order.as_of_ns.min(now.wall),
            false => 0,
        };
        // Log time may be ahead of this clock: nobody's future can be restored.
        let time = there.attested_since().min(now.wall).max(as_of_ns);
        self.standing.restorable_ns = self.standing.restorable_ns.max(time);
        self.standing.is_lost = false;
        Ok(())
    }

    /// Finds out where to go on: at first, when the history has changed, and after a long sleep,
    /// in which another node may have gone on.
    fn set_course(&mut self, order: &Order, log: &impl Committed, now: Now) -> Result<(), String> {
        let text = |error: standfast_snapshot::Error| error.to_string();
        let store = match &self.store {
            Some(store) => store.clone(),
            None => {
                let store =
                    store::open(&self.place, &self.scratch).map_err(|error| error.to_string())?;
                self.store.insert(store).clone()
            }
        };
        if let Some(course) = &mut self.course
            && *course.shipper.card() == order.card
        {
            let slept = Duration::from_nanos(now.boot.saturating_sub(course.last_round));
            if slept > limits::ARCHIVE_DUTY_FOR
                && let Some(head) = course.shipper.catch_up().map_err(text)?
            {
                course.survey.newest = Some(head);
            }
            return Ok(());
        }
        let (cluster, history) = (order.card.cluster, order.card.history);
        check_belongs(&store, &self.place, cluster, history, self.is_founded)?;
        let (shipper, mut survey) =
            Shipper::open(&store, &order.card, &self.recipients).map_err(text)?;
        // Nothing is there yet, and nothing is missing of what will be.
        survey.is_whole |= shipper.reached().max(before(log)) == Lsn::ZERO;
        if self.standing.history != history {
            self.standing = Standing {
                stored_bytes: self.standing.stored_bytes,
                sent: self.standing.sent,
                failures: self.standing.failures,
                removed: self.standing.removed,
                verified: self.standing.verified.take(),
                drilled: self.standing.drilled.take(),
                drill_error: self.standing.drill_error.take(),
                ..Standing::default()
            };
        }
        self.course = Some(Course {
            shipper,
            survey,
            last_round: now.boot,
            waits: None,
            manifest: now.boot,
            looked: now.boot,
        });
        Ok(())
    }
}

/// Reads a piece back; puts it again where the store has lost or damaged it, and this node's log
/// still holds it.
fn read_back(course: &mut Course, head: &LogHead, log: &impl Committed) -> Result<LogHead, String> {
    let error = match course.shipper.read_back(head) {
        Ok(there) => return Ok(there),
        Err(error) => error,
    };
    let after = Lsn(head.first_lsn.0 - 1);
    if !(error.is_damage() || error.is_absent()) || after < before(log) {
        return Err(error.to_string());
    }
    let found = gather(log, after, head.last_lsn()).map_err(|e| e.to_string())?;
    if found.last().map(Record::link) != Some(head.end) {
        return Err(error.to_string());
    }
    tracing::warn!(%error, "the archive's newest log is put again");
    let put = course.shipper.put_piece(&found);
    put.map_err(|error| error.to_string())?;
    course
        .shipper
        .read_back(head)
        .map_err(|error| error.to_string())
}

/// The last LSN that this node's log does not have any more.
fn before(log: &impl Committed) -> Lsn {
    Lsn(log.first_lsn().0.saturating_sub(1))
}

/// Where what is shipped next should begin, if anything is there; or if nothing was missing of what
/// would be, when this course was set.
fn reached(course: &Course) -> Option<Lsn> {
    let end = course.shipper.end().map(|end| end.position.lsn);
    let beginning = course.survey.is_whole.then_some(Lsn::ZERO);
    end.or(course.survey.snapshot_lsn).or(beginning)
}

/// The records behind `after` up to `through`, as many as one piece could take.
fn gather(log: &impl Committed, mut after: Lsn, through: Lsn) -> io::Result<Vec<Record>> {
    let mut found: Vec<Record> = Vec::new();
    let mut bytes = 0;
    while after < through && bytes < LOG_CLOSE_BYTES {
        let some = log.behind(after)?;
        let committed = some.into_iter().filter(|one| one.last_lsn() <= through);
        let before = found.len();
        for record in committed {
            bytes += record.bytes().len();
            after = record.last_lsn();
            found.push(record);
        }
        if found.len() == before {
            break;
        }
    }
    Ok(found)
}

/// How many of these records, which follow `base`, make the next piece; 0: none yet. It ends with
/// the last Attestation that fits, if that is an interval newer than `base`; where there is none
/// for long, or more than fits, it ends without.
fn close(records: &[Record], base: Option<Link>, interval_ns: u64, is_late: bool) -> usize {
    // Attestations are an interval apart, too: one that comes a little early counts.
    let from = base.map_or(0, |base| base.timestamp) + interval_ns / 10 * 9;
    let mut bytes = 0;
    let mut fits = 0;
    let mut attested = 0;
    for (at, record) in records.iter().enumerate() {
        bytes += record.bytes().len();
        if bytes > LOG_CLOSE_BYTES && at > 0 {
            break;
        }
        fits = at + 1;
        if record.kind() == Kind::Attestation && record.timestamp() >= from {
            attested = fits;
        }
    }
    let is_full = bytes >= LOG_CLOSE_BYTES;
    match attested {
        0 if is_full || is_late => {
            Mark::ArchiveUnattested.hit();
            fits
        }
        attested => attested,
    }
}

#[cfg(test)]
mod tests;
