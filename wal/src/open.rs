//! Makes a new log, or opens what a stop or a crash left and does what the decision table says.

use crate::cut;
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::kept;
use crate::log::{DamagedRange, End, Identity, Log, Options, Reach, Recovered};
use crate::mark::Mark;
use crate::note::{Note, SUSPECT};
use crate::prepare::Writes;
use crate::prepare::{PREPARED, Preparation};
use crate::record::{History, Link, Lsn};
use crate::recovery::{self, Survey, Verdict};
use crate::segment::{self, HEADER_AREA, Header};
use crate::storage::{File, Storage};
use crate::view::Shared;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

impl<S: Storage> Log<S> {
    /// Makes an empty log whose first record will follow `base`.
    pub fn create(
        storage: S,
        identity: Identity,
        history: History,
        base: Link,
        options: Options,
    ) -> Result<Log<S>, Error> {
        let lock = take_lock(&storage)?;
        let names = storage
            .list("")
            .map_err(Error::io("", "list the log's directory"))?;
        if names
            .iter()
            .any(|name| segment::first_lsn_of(name).is_some())
        {
            return Err(Error::new("", ErrorKind::Exists));
        }
        let header = Header {
            identity,
            history,
            base,
            segment_bytes: options.segment_bytes,
            previous_first_lsn: Lsn::ZERO,
        };
        assert!(
            options.segment_bytes >= segment::bytes_for(0)
                && options.segment_bytes.is_multiple_of(8),
            "segments of {} bytes hold nothing",
            options.segment_bytes
        );
        let name = segment::name(header.first_lsn());
        let file = make_segment(&storage, &header, &options, &name)?;
        let recovered = State {
            headers: VecDeque::from([header]),
            file: Arc::new(file),
            offset: HEADER_AREA,
            tail: base,
            suspect: None,
            damaged: Vec::new(),
        };
        Ok(recovered.into_log(storage, lock, identity, base, options))
    }

    /// Opens what a stop or crash left. `base` is the newest snapshot's position (or zero): the
    /// records above it are verified one by one. A log that does not hold the base's record, or
    /// begin right behind it, is refused with `DoesNotReach`: try an older snapshot. An error
    /// changes nothing but what an announced cut or reset had begun.
    pub fn open(
        storage: S,
        identity: Identity,
        base: Link,
        options: Options,
    ) -> Result<(Log<S>, Recovered), Error> {
        let lock = take_lock(&storage)?;
        // Durable here: names that only memory may hold after the death of a process. An intent
        // that came back after a loss of power would cut what was appended since.
        storage
            .sync_dir("")
            .map_err(Error::io("", "sync the log's directory"))?;
        let finished_interrupted = cut::finish_announced(&storage, identity)?;
        let (state, mut recovered) = recover(&storage, identity, base, &options)?;
        recovered.finished_interrupted = finished_interrupted;
        if finished_interrupted {
            Mark::CutFinished.hit();
        }
        let mut log = state.into_log(storage, lock, identity, base, options);
        log.find_prepared()?;
        if log.damaged.is_empty() {
            log.settled = false;
            log.settle()?;
        }
        Ok((log, recovered))
    }
}

/// What recovery hands to the log.
pub(crate) struct State<S: Storage> {
    pub headers: VecDeque<Header>,
    pub file: Arc<S::File>,
    pub offset: u64,
    pub tail: Link,
    pub suspect: Option<String>,
    pub damaged: Vec<DamagedRange>,
}

impl<S: Storage> State<S> {
    fn into_log(
        self,
        storage: S,
        lock: S::Lock,
        identity: Identity,
        opened_at: Link,
        options: Options,
    ) -> Log<S> {
        let shared = Shared::new(
            storage.clone(),
            self.headers.iter().copied(),
            Arc::clone(&self.file),
            self.tail.position.lsn,
            self.offset,
        );
        Log {
            storage,
            _lock: lock,
            identity,
            options,
            opened_at,
            headers: self.headers,
            file: self.file,
            offset: self.offset,
            queue: VecDeque::new(),
            queued_bytes: 0,
            durable: self.tail,
            stamps: Vec::new(),
            settled: true,
            prepared: None,
            preparing: false,
            writes: Writes::default(),
            disk_full: false,
            failed: false,
            suspect: self.suspect,
            damaged: self.damaged,
            shared,
        }
    }
}

fn take_lock<S: Storage>(storage: &S) -> Result<S::Lock, Error> {
    storage.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::new("", ErrorKind::Locked),
        _ => Error::io("", "lock the directory")(error),
    })
}

/// Makes a segment file that is complete before it gets its name.
fn make_segment<S: Storage>(
    storage: &S,
    header: &Header,
    options: &Options,
    name: &str,
) -> Result<S::File, Error> {
    let preparation =
        Preparation::new(storage.clone(), header.segment_bytes, options.reserve_bytes);
    let Some(prepared) = preparation.run()? else {
        let full = io::ErrorKind::StorageFull.into();
        return Err(Error::io(name, "make a segment")(full));
    };
    let finish = || {
        prepared.file.write_at(0, &header.encode())?;
        prepared.file.sync()?;
        // Durable here: the segment, with its header.
        durable::publish(storage, PREPARED, name)
    };
    finish().map_err(Error::io(name, "make a segment"))?;
    Ok(prepared.file)
}

/// Surveys the log and acts on the verdict about its end.
pub(crate) fn recover<S: Storage>(
    storage: &S,
    identity: Identity,
    base: Link,
    options: &Options,
) -> Result<(State<S>, Recovered), Error> {
    let survey = recovery::survey(storage, identity, base, options)?;
    let newest = survey.headers[survey.headers.len() - 1];
    let name = segment::name(newest.first_lsn());
    if survey.damaged.is_empty() && survey.reach != Reach::Contains {
        let error = Error::new(&name, ErrorKind::DoesNotReach(survey.reach));
        return Err(error.lsn(base.position.lsn));
    }
    let open = || {
        storage
            .open(&name)
            .map_err(Error::io(&name, "open the segment"))
    };
    let file = open()?;
    // Durable here: what was read. After the death of a process only, the records may have come
    // from memory that never reached the disk.
    file.sync().map_err(Error::io(&name, "sync"))?;
    let mut suspect = suspicion(storage)?;
    let mut end = match &suspect {
        Some(kept) => End::Suspect { kept: kept.clone() },
        None => End::Clean,
    };
    if !survey.damaged.is_empty() {
        end = End::Unjudged;
    } else if matches!(survey.verdict, Verdict::Torn | Verdict::Suspect) {
        let kept = cut_end(storage, &survey, &newest, &file, options.cut_damaged_end)?;
        Mark::TornEnd.hit();
        if survey.verdict == Verdict::Suspect {
            Mark::SuspectLog.hit();
            suspect = Some(kept.clone());
        }
        end = match suspect.is_some() {
            true => End::Suspect { kept },
            false => End::Torn { kept },
        };
    }
    for header in &survey.half_headers {
        heal_header(storage, header)?;
    }
    let file = open()?;
    let recovered = Recovered {
        tail: survey.tail,
        first_lsn: survey.headers[0].first_lsn(),
        history: newest.history,
        epoch_starts: survey.epoch_starts,
        end,
        damaged: survey.damaged.clone(),
        unreadable: survey.unreadable,
        finished_interrupted: false,
        reach: survey.reach,
    };
    let state = State {
        headers: survey.headers.into(),
        file: Arc::new(file),
        offset: survey.offset,
        tail: survey.tail,
        suspect,
        damaged: survey.damaged,
    };
    Ok((state, recovered))
}

/// A mark that cannot be read still marks.
fn suspicion<S: Storage>(storage: &S) -> Result<Option<String>, Error> {
    match Note::read(storage, SUSPECT) {
        Ok(Some(Note::Suspect { kept, .. })) => Ok(Some(kept)),
        Ok(None) => Ok(None),
        Err(error) if matches!(error.kind, ErrorKind::Io(..)) => Err(error),
        Ok(Some(_)) | Err(_) => Ok(Some(String::new())),
    }
}

/// What a damaged end is called that was cut because somebody said so.
pub const BY_ORDER: &str = "cut-by-order";

/// Cuts the newest segment behind its last good record, in an order that survives a crash after
/// every step: 1 the bytes are kept aside; 2 the suspicion is noted; 3 the cut is announced;
/// 4 it is made; 5 the announcement goes. A crash before 3 finds the same end again; a crash
/// after 3 finishes the cut.
fn cut_end<S: Storage>(
    storage: &S,
    survey: &Survey,
    newest: &Header,
    file: &S::File,
    by_order: bool,
) -> Result<String, Error> {
    let name = segment::name(newest.first_lsn());
    let len = file.len().map_err(Error::io(&name, "read the segment"))?;
    let used = survey.used_end.min(len).saturating_sub(survey.offset);
    let mut bytes = vec![0; usize::try_from(used).expect("a segment fits memory")];
    file.read_at(survey.offset, &mut bytes)
        .map_err(Error::io(&name, "read the segment"))?;
    let what = if by_order { BY_ORDER } else { "torn" };
    let stem = format!("{what}-{:020}-{}", newest.first_lsn().0, survey.offset);
    let kept = kept::keep_bytes_aside(storage, &stem, &bytes)?;
    if survey.verdict == Verdict::Suspect {
        let note = Note::Suspect {
            tail: survey.tail,
            kept: kept.clone(),
        };
        note.write(storage, SUSPECT)?;
    }
    let note = Note::Cut {
        after: survey.tail,
        segment: newest.first_lsn(),
        offset: survey.offset,
    };
    cut::announce_and_cut(storage, &note)?;
    tracing::warn!(
        file = name,
        offset = survey.offset,
        after = survey.tail.position.lsn.0,
        bytes = used,
        kept,
        verdict = ?survey.verdict,
        "the unfinished end of the log was cut and kept aside"
    );
    Ok(kept)
}

/// Rewrites a segment of which one copy of the header is damaged. As a new file, because readers
/// may hold maps of the old one.
fn heal_header<S: Storage>(storage: &S, header: &Header) -> Result<(), Error> {
    let name = segment::name(header.first_lsn());
    let mut bytes = Vec::new();
    recovery::read_segment(storage, header, &mut bytes)?;
    let area = header.encode();
    bytes.resize(bytes.len().max(area.len()), 0);
    bytes[..area.len()].copy_from_slice(&area);
    cut::replace_segment(storage, header, &bytes).map_err(Error::io(&name, "heal the header"))?;
    tracing::warn!(
        file = name,
        "one damaged copy of the segment's header was rewritten"
    );
    Ok(())
}
