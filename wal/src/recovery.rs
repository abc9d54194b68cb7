//! What to believe after a crash: the decision table, and the read-only walk that asks it.
//!
//! One write is in flight at a time, so a crash can only have spoiled what lies above the highest
//! position that any stamp calls durable, and never a sealed segment. Damage anywhere else is
//! damage to acknowledged records and is never cut.

use crate::error::{Error, ErrorKind};
use crate::log::{DamagedRange, Identity, Options, Reach};
use crate::record::{Damage, Kind, Link, Lsn, Record};
use crate::scan::{Rest, Scan};
use crate::segment::{self, Header};
use crate::storage::{File, Storage};
use bytes::Bytes;

/// What is given up around a sector that cannot be read.
const SALVAGE_BYTES: usize = 4096;

/// How the chain of good records ends in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It reaches the next segment; in the newest one, a seal says that there was a next one.
    Joined,
    Zeros,
    Unfinished,
    Other,
}

/// What is known about the end of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    pub newest: bool,
    pub ending: Ending,
    /// A stamp calls a position above the last good record durable.
    pub acknowledged: bool,
    pub alone: bool,
    /// An operator allowed, for this start, to cut a damaged end although alone.
    pub permitted: bool,
}

/// What to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All of the segment's records are good.
    Sound,
    /// Acknowledged records are damaged: cut nothing, fetch them from a peer.
    Repair,
    /// As `Repair`, but nobody can help: change nothing, say what to do.
    Refuse,
    /// The newest segment ends as a finished write does.
    Clean,
    /// Cut what was certainly never acknowledged, keep it aside.
    Torn,
    /// Cut, keep it aside, and believe the log only once a primary has verified it.
    Suspect,
}

/// One line of the table; `None` and lists of several mean that it does not matter.
struct Row {
    label: &'static str,
    newest: bool,
    endings: &'static [Ending],
    acknowledged: Option<bool>,
    alone: Option<bool>,
    permitted: Option<bool>,
    verdict: Verdict,
}

const NOT_JOINED: &[Ending] = &[Ending::Zeros, Ending::Unfinished, Ending::Other];

const fn row(
    label: &'static str,
    newest: bool,
    endings: &'static [Ending],
    acknowledged: Option<bool>,
    alone: Option<bool>,
    permitted: Option<bool>,
    verdict: Verdict,
) -> Row {
    Row {
        label,
        newest,
        endings,
        acknowledged,
        alone,
        permitted,
        verdict,
    }
}

#[rustfmt::skip]
const TABLE: [Row; 11] = {
    use Ending::{Joined, Other, Unfinished, Zeros};
    use Verdict::{Clean, Refuse, Repair, Sound, Suspect, Torn};
    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);
    [
        //  label            newest  endings               acknowl. alone permitted
        row("sound",         false, &[Joined],             None,    None, None,  Sound),
        row("hole",          false, NOT_JOINED,            None,    NO,   None,  Repair),
        row("hole-alone",    false, NOT_JOINED,            None,    YES,  None,  Refuse),
        row("next-missing",  true,  &[Joined],             None,    None, None,  Refuse),
        row("lost-end",      true,  NOT_JOINED,            YES,     NO,   None,  Repair),
        row("lost-end-alone",true,  NOT_JOINED,            YES,     YES,  None,  Refuse),
        row("clean",         true,  &[Zeros],              NO,      None, None,  Clean),
        row("suspect",       true,  &[Unfinished, Other],  NO,      NO,   None,  Suspect),
        row("torn",          true,  &[Unfinished],         NO,      YES,  None,  Torn),
        row("other-alone",   true,  &[Other],              NO,      YES,  NO,    Refuse),
        row("permitted",     true,  &[Other],              NO,      YES,  YES,   Torn),
    ]
};

impl Row {
    fn matches(&self, facts: &Facts) -> bool {
        let fits = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        self.newest == facts.newest
            && self.endings.contains(&facts.ending)
            && fits(self.acknowledged, facts.acknowledged)
            && fits(self.alone, facts.alone)
            && fits(self.permitted, facts.permitted)
    }
}

/// Looks the facts up; the label names the row in logs and tests.
pub fn decide(facts: &Facts) -> (&'static str, Verdict) {
    let row = TABLE.iter().find(|row| row.matches(facts));
    let row = row.expect("the table covers every combination (tested)");
    (row.label, row.verdict)
}

/// What a read-only walk over the log found.
pub struct Survey {
    /// Headers of all segments, oldest first.
    pub headers: Vec<Header>,
    /// Segments of which one copy of the header is damaged.
    pub half_headers: Vec<Header>,
    /// The last good record: of the log, or before the first damage that hides the end.
    pub tail: Link,
    /// Where the next stamp of the newest segment goes.
    pub offset: u64,
    /// Behind the last byte of the newest segment that is not zero.
    pub used_end: u64,
    pub epoch_starts: Vec<Record>,
    pub damaged: Vec<DamagedRange>,
    /// Some of what counts as damaged could not be read.
    pub unreadable: Option<Error>,
    /// About the newest segment; not to be acted upon while anything is damaged.
    pub verdict: Verdict,
    pub reach: Reach,
}

/// Walks the log from the segment that holds `base` on. Changes nothing.
pub fn survey<S: Storage>(
    storage: &S,
    identity: Identity,
    base: Link,
    options: &Options,
) -> Result<Survey, Error> {
    let (headers, half_headers) = read_headers(storage, identity)?;
    let from = headers
        .iter()
        .rposition(|header| header.base.position.lsn <= base.position.lsn);
    let newest = headers[headers.len() - 1];
    let mut walk = Walk {
        options,
        base,
        survey: Survey {
            half_headers,
            tail: newest.base,
            offset: segment::HEADER_AREA,
            used_end: segment::HEADER_AREA,
            epoch_starts: Vec::new(),
            damaged: Vec::new(),
            unreadable: None,
            verdict: Verdict::Clean,
            reach: if from.is_some() {
                Reach::EndsBelow
            } else {
                Reach::StartsAbove
            },
            headers,
        },
    };
    let mut buffer = Vec::new();
    for at in from.unwrap_or(0)..walk.survey.headers.len() {
        let header = walk.survey.headers[at];
        let next = walk.survey.headers.get(at + 1).map(|next| next.base);
        match next {
            Some(_) => {
                let unreadable = salvage_segment(storage, &header, &mut buffer)?;
                walk.survey.unreadable = walk.survey.unreadable.take().or(unreadable);
            }
            // A disk that cannot read says nothing about what was written: no reason to cut.
            None => read_segment(storage, &header, &mut buffer)?,
        }
        walk.segment(&buffer, &header, next)?;
    }
    Ok(walk.survey)
}

type Headers = (Vec<Header>, Vec<Header>);

fn read_headers<S: Storage>(storage: &S, identity: Identity) -> Result<Headers, Error> {
    let names = storage
        .list("")
        .map_err(Error::io("", "list the log's directory"))?;
    let (mut headers, mut half_headers) = (Vec::<Header>::new(), Vec::new());
    for name in names {
        let Some(first_lsn) = segment::first_lsn_of(&name) else {
            continue;
        };
        let (header, whole) = segment::read_header(storage, &name)?;
        let foreign = |what| Err(Error::new(&name, ErrorKind::Foreign(what)).lsn(first_lsn));
        if header.identity.cluster != identity.cluster {
            return foreign("cluster");
        }
        if header.identity.node != identity.node {
            return foreign("node");
        }
        if header.identity.incarnation != identity.incarnation {
            return foreign("incarnation of this node");
        }
        if header.first_lsn() != first_lsn {
            return foreign("segment: its name and its header differ");
        }
        // The oldest segment may name one that was trimmed; every other must find its own.
        if let Some(before) = headers.last()
            && before.first_lsn() != header.previous_first_lsn
        {
            let missing = segment::name(header.previous_first_lsn);
            let error = Error::new(&missing, ErrorKind::SegmentMissing);
            return Err(error.lsn(header.previous_first_lsn));
        }
        if !whole {
            half_headers.push(header);
        }
        headers.push(header);
    }
    if headers.is_empty() {
        return Err(Error::new("", ErrorKind::Missing));
    }
    Ok((headers, half_headers))
}

/// Reads a whole segment into `buffer`, as far as the file goes.
pub fn read_segment<S: Storage>(
    storage: &S,
    header: &Header,
    buffer: &mut Vec<u8>,
) -> Result<(), Error> {
    let name = segment::name(header.first_lsn());
    let mut read = || {
        let file = storage.open(&name)?;
        let len = file.len()?.min(header.segment_bytes);
        let len = usize::try_from(len).expect("a segment fits memory");
        if buffer.len() < len {
            *buffer = vec![0; len]; // fresh pages from the system are zeros already
        }
        buffer.truncate(len);
        file.read_at(0, buffer)
    };
    read().map_err(Error::io(&name, "read the segment"))
}

/// Reads a whole segment like `read_segment`, but takes sectors that the disk cannot read as
/// damaged ones; answers what the disk said of the first. Only for segments from which nothing is
/// cut.
pub fn salvage_segment<S: Storage>(
    storage: &S,
    header: &Header,
    buffer: &mut Vec<u8>,
) -> Result<Option<Error>, Error> {
    let Err(error) = read_segment(storage, header, buffer) else {
        return Ok(None);
    };
    let name = segment::name(header.first_lsn());
    tracing::warn!(file = name, %error, "reading what can be read");
    let file = storage
        .open(&name)
        .map_err(Error::io(&name, "read the segment"))?;
    for (at, block) in (0u64..).zip(buffer.chunks_mut(SALVAGE_BYTES)) {
        if file.read_at(at * SALVAGE_BYTES as u64, block).is_err() {
            block.fill(0);
        }
    }
    Ok(Some(error))
}

struct Walk<'a> {
    options: &'a Options,
    base: Link,
    survey: Survey,
}

impl Walk<'_> {
    /// One segment, the next one beginning behind `next`.
    fn segment(&mut self, bytes: &[u8], header: &Header, next: Option<Link>) -> Result<(), Error> {
        let name = segment::name(header.first_lsn());
        let mut scan = Scan::new(bytes, header);
        self.pass(scan.link);
        loop {
            let damage = loop {
                if Some(scan.link) == next {
                    break Damage::Short; // the segment's end, which is no damage: row "sound"
                }
                match scan.step() {
                    Ok(entry) => self.take(bytes, &entry, scan.link),
                    Err(damage) => break damage,
                }
            };
            if next.is_some_and(|next| scan.link.position.lsn >= next.position.lsn)
                && Some(scan.link) != next
            {
                // Both this segment's records and the next one's header are sound, and they
                // contradict each other: files of two logs in one directory.
                let error = Error::new(&name, ErrorKind::Foreign("log than the next segment"));
                return Err(error.at(scan.offset as u64));
            }
            let ending = ending(&scan, next);
            let through = next.map_or_else(|| scan.evidence().0, |next| next.position.lsn);
            let facts = Facts {
                newest: next.is_none(),
                ending,
                acknowledged: through > scan.link.position.lsn,
                alone: self.options.alone,
                permitted: self.options.cut_damaged_end,
            };
            let (label, verdict) = decide(&facts);
            tracing::debug!(file = name, offset = scan.offset, label, "segment judged");
            match verdict {
                Verdict::Sound => return Ok(()),
                Verdict::Refuse if ending == Ending::Joined => {
                    let error = Error::new(&name, ErrorKind::SegmentMissing);
                    return Err(error.lsn(scan.link.position.lsn.next()));
                }
                Verdict::Refuse => {
                    let kind = match facts.newest && !facts.acknowledged {
                        true => ErrorKind::DamagedEnd(damage),
                        false => ErrorKind::Damaged(damage),
                    };
                    let error = Error::new(&name, kind);
                    let lsn = scan.link.position.lsn.next();
                    return Err(error.at(scan.offset as u64).lsn(lsn));
                }
                Verdict::Repair => {
                    if !self.damage(&mut scan, &name, next, through) {
                        return Ok(());
                    }
                }
                Verdict::Clean | Verdict::Torn | Verdict::Suspect => {
                    self.end(&scan);
                    self.survey.verdict = verdict;
                    return Ok(());
                }
            }
        }
    }

    /// Notes a damaged range; true if the walk goes on behind it in the same segment.
    fn damage(&mut self, scan: &mut Scan, name: &str, next: Option<Link>, through: Lsn) -> bool {
        if let Some(range) = scan.resume(name, through) {
            self.survey.damaged.push(range);
            return true;
        }
        // What a stamp calls durable, but a record behind shows to be before it, is already
        // excluded: the range is never empty, because `through` is above the last good record
        // (newest), or the chain did not join (sealed).
        let last_lsn = through.max(scan.link.position.lsn.next());
        let chain = next.map(|next| next.chain);
        self.survey.damaged.push(scan.range(name, last_lsn, chain));
        self.end(scan);
        self.survey.verdict = Verdict::Repair;
        false
    }

    fn end(&mut self, scan: &Scan) {
        self.survey.tail = scan.link;
        self.survey.offset = scan.offset as u64;
        self.survey.used_end = scan.used_end() as u64;
    }

    fn take(&mut self, bytes: &[u8], entry: &crate::scan::Entry, link: Link) {
        self.pass(link);
        let above_base = link.position.lsn > self.base.position.lsn;
        if entry.head.kind == Kind::EpochStart && above_base {
            let copy = Bytes::copy_from_slice(&bytes[entry.record_at()..entry.end()]);
            let record = Record::split_from(&mut { copy }).expect("just checked");
            self.survey.epoch_starts.push(record);
        }
    }

    /// Compares the log with the snapshot where it passes the snapshot's position.
    fn pass(&mut self, link: Link) {
        if self.survey.reach == Reach::EndsBelow && link.position.lsn >= self.base.position.lsn {
            self.survey.reach = if link == self.base {
                Reach::Contains
            } else {
                Reach::Diverges
            };
        }
    }
}

fn ending(scan: &Scan, next: Option<Link>) -> Ending {
    let joined = match next {
        Some(next) => scan.link == next,
        None => scan.evidence().1,
    };
    if joined {
        return Ending::Joined;
    }
    match scan.rest() {
        Rest::Zeros => Ending::Zeros,
        Rest::Unfinished => Ending::Unfinished,
        Rest::Other => Ending::Other,
    }
}

/// Everything damaged in one sealed segment, for the scrubber.
pub fn scrub(bytes: &[u8], header: &Header, next: Link) -> Vec<DamagedRange> {
    let name = segment::name(header.first_lsn());
    let last = next.position.lsn;
    let mut scan = Scan::new(bytes, header);
    let mut damaged = Vec::new();
    while scan.link.position.lsn < last {
        if scan.step().is_ok() {
            continue;
        }
        match scan.resume(&name, last) {
            Some(range) => damaged.push(range),
            None => {
                damaged.push(scan.range(&name, last, Some(next.chain)));
                break;
            }
        }
    }
    damaged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_facts_has_exactly_one_row() {
        let mut used = [0; TABLE.len()];
        for ending in [
            Ending::Joined,
            Ending::Zeros,
            Ending::Unfinished,
            Ending::Other,
        ] {
            for bits in 0..16u8 {
                let bit = |at: u8| bits & (1 << at) != 0;
                let facts = Facts {
                    newest: bit(0),
                    ending,
                    acknowledged: bit(1),
                    alone: bit(2),
                    permitted: bit(3),
                };
                let rows: Vec<usize> = (0..TABLE.len())
                    .filter(|row| TABLE[*row].matches(&facts))
                    .collect();
                assert_eq!(rows.len(), 1, "{facts:?} matches {rows:?}");
                used[rows[0]] += 1;
                assert_eq!(decide(&facts).1, TABLE[rows[0]].verdict);
            }
        }
        assert!(
            used.iter().all(|used| *used > 0),
            "a row that nothing reaches: {used:?}"
        );
    }

    /// "A log is truncated only where it provably was never acknowledged."
    #[test]
    fn nothing_acknowledged_and_nothing_sealed_is_ever_cut() {
        for row in &TABLE {
            let cuts = matches!(row.verdict, Verdict::Torn | Verdict::Suspect);
            let safe = row.newest && row.acknowledged == Some(false);
            assert!(!cuts || safe, "row {}", row.label);
        }
        let labels: std::collections::BTreeSet<_> = TABLE.iter().map(|row| row.label).collect();
        assert_eq!(labels.len(), TABLE.len(), "each row has its own label");
    }
}
