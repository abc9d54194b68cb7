//! Puts a peer's records into a damaged range, if they fit the chain on both sides.

use crate::cut::replace_segment;
use crate::error::{Error, ErrorKind};
use crate::log::{DamagedRange, End, Log, Reach, Recovered};
use crate::open;
use crate::record::{Damage, Record};
use crate::scan::Scan;
use crate::segment::{self, Header, STAMP_BYTES, Stamp};
use crate::storage::Storage;

impl<S: Storage> Log<S> {
    /// Puts a peer's records into a damaged range. They must fit the chain on both sides,
    /// otherwise nothing is changed. Returns what is known after that: for damage that `open`
    /// found, the log as surveyed anew; for damage found later, the log as it stands.
    pub fn repair(&mut self, range: &DamagedRange, records: &[Record]) -> Result<Recovered, Error> {
        self.alive()?;
        let header = self.header_of(range)?;
        let above = |next: &&Header| next.first_lsn() > header.first_lsn();
        let next = self.headers.iter().find(above).map(|next| next.base);
        let mut bytes = Vec::new();
        crate::recovery::salvage_segment(&self.storage, &header, &mut bytes)?;
        patch(&mut bytes, &header, range, records)?;
        verify(&bytes, &header, range, next)?;
        let replaced = replace_segment(&self.storage, &header, &bytes);
        self.latch(replaced.map_err(Error::io(&range.file, "replace the segment")))?;
        tracing::warn!(
            file = range.file,
            first = range.first_lsn.0,
            last = range.last_lsn.0,
            "damaged records were repaired"
        );
        if self.damaged.is_empty() {
            self.shared.refresh(header.first_lsn());
            return Ok(self.standing());
        }
        let recovered = self.survey_again();
        self.latch(recovered)
    }

    /// The segment that a range lies in. The newest one is repaired only before appending.
    fn header_of(&self, range: &DamagedRange) -> Result<Header, Error> {
        let here = |header: &&Header| segment::name(header.first_lsn()) == range.file;
        let header = self.headers.iter().find(here);
        let sealed = header.filter(|header| {
            !self.damaged.is_empty() || header.first_lsn() != self.newest().first_lsn()
        });
        let missing = || Error::new(&range.file, ErrorKind::DoesNotFit(Damage::Order));
        sealed.copied().ok_or_else(missing)
    }

    fn survey_again(&mut self) -> Result<Recovered, Error> {
        let (state, recovered) =
            open::recover(&self.storage, self.identity, self.opened_at, &self.options)?;
        self.headers = state.headers;
        self.file = state.file;
        self.offset = state.offset;
        self.durable = state.tail;
        self.suspect = state.suspect;
        self.damaged = state.damaged;
        let (file, lsn) = (std::sync::Arc::clone(&self.file), self.durable.position.lsn);
        self.shared.replace(&self.headers, file, lsn, self.offset);
        if self.damaged.is_empty() {
            self.settled = false;
            self.settle()?;
        }
        Ok(recovered)
    }

    fn standing(&self) -> Recovered {
        let suspect = self.suspect.clone();
        Recovered {
            tail: self.durable,
            first_lsn: self.first_lsn(),
            history: self.history(),
            epoch_starts: Vec::new(),
            end: suspect.map_or(End::Clean, |kept| End::Suspect { kept }),
            damaged: Vec::new(),
            unreadable: None,
            finished_interrupted: false,
            reach: Reach::Contains,
        }
    }
}

/// Writes the records, each with its stamp, over the damaged bytes.
fn patch(
    bytes: &mut Vec<u8>,
    header: &Header,
    range: &DamagedRange,
    records: &[Record],
) -> Result<(), Error> {
    let unfit =
        |damage| Error::new(&range.file, ErrorKind::DoesNotFit(damage)).lsn(range.first_lsn);
    // A file that was shortened is filled up with zeros.
    bytes.resize(
        usize::try_from(header.segment_bytes).expect("a segment fits memory"),
        0,
    );
    let mut at = usize::try_from(range.offset).expect("a segment fits memory");
    let mut link = range.after;
    for record in records {
        record.follows(link).map_err(unfit)?;
        // The new file is synced before it gets its name: all before this record is durable.
        let stamp = Stamp {
            durable_through: link.position.lsn,
            sealed: false,
        };
        let end = at + STAMP_BYTES + record.bytes().len();
        let place = bytes.get_mut(at..end).ok_or_else(|| unfit(Damage::Short))?;
        place[..STAMP_BYTES].copy_from_slice(&stamp.encode(header.salt(), at as u64));
        place[STAMP_BYTES..].copy_from_slice(record.bytes());
        (at, link) = (end, record.link());
    }
    let chain_fits = range
        .next_previous_chain
        .is_none_or(|chain| chain == link.chain);
    if link.position.lsn != range.last_lsn || !chain_fits {
        return Err(unfit(Damage::Order));
    }
    Ok(())
}

/// Walks over the patched range and one record further, where there is one.
fn verify(
    bytes: &[u8],
    header: &Header,
    range: &DamagedRange,
    next: Option<crate::record::Link>,
) -> Result<(), Error> {
    let unfit =
        |damage| Error::new(&range.file, ErrorKind::DoesNotFit(damage)).lsn(range.first_lsn);
    let mut scan = Scan::new(bytes, header);
    // Earlier ranges in the same segment may still be damaged.
    while scan.link.position.lsn < range.last_lsn {
        if scan.step().is_err() && scan.resume(&range.file, range.after.position.lsn).is_none() {
            return Err(unfit(Damage::Order));
        }
    }
    if range.next_previous_chain.is_none() || Some(scan.link) == next {
        return Ok(());
    }
    scan.step().map(|_| ()).map_err(unfit)
}
