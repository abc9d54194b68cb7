//! Walks the bytes of one segment: the records in order, where they end, what stands behind. Pure.

use crate::log::DamagedRange;
use crate::record::{Chain, Damage, HEADER_BYTES, Head, Link, Lsn, Position, Record};
use crate::segment::{HEADER_AREA, Header, STAMP_BYTES, Salt, Stamp};

/// One record of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where its stamp stands; the record is `STAMP_BYTES` further.
    pub offset: usize,
    /// `None` where the stamp is damaged. That loses nothing but a note: the record behind it
    /// has been proved by its own checksums and its place in the chain.
    pub stamp: Option<Stamp>,
    pub head: Head,
}

impl Entry {
    pub fn record_at(&self) -> usize {
        self.offset + STAMP_BYTES
    }

    pub fn end(&self) -> usize {
        self.record_at() + self.head.size
    }
}

/// What stands where the next record would.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing but a closing stamp, which may be damaged, and zeros.
    Zeros,
    /// A write that breaks off: zeros from somewhere inside one record to the end. A finished
    /// write has its closing stamp behind its last record, and a flipped bit does not zero that.
    Unfinished,
    /// Anything else.
    Other,
}

/// A walk along the chain, from the first record of a segment.
pub struct Scan<'a> {
    bytes: &'a [u8],
    salt: Salt,
    /// The file is shorter than it was made: what is missing is not zeros.
    short: bool,
    /// Where the next stamp stands.
    pub offset: usize,
    /// The last good record.
    pub link: Link,
    /// The highest position that a stamp passed so far calls durable.
    pub durable_through: Lsn,
}

impl<'a> Scan<'a> {
    /// `file` is the whole file.
    pub fn new(file: &'a [u8], header: &Header) -> Scan<'a> {
        let full = usize::try_from(header.segment_bytes).expect("a segment fits memory");
        Scan {
            bytes: &file[..file.len().min(full)],
            salt: header.salt(),
            short: file.len() < full,
            offset: usize::try_from(HEADER_AREA).expect("small"),
            link: header.base,
            durable_through: header.base.position.lsn,
        }
    }

    /// The next record of the chain, or why there is none. After an error the walk stands still.
    pub fn step(&mut self) -> Result<Entry, Damage> {
        let entry = self.entry_at(self.offset)?;
        entry.head.follows(self.link)?;
        self.offset = entry.end();
        self.link = entry.head.link();
        if let Some(stamp) = entry.stamp {
            self.durable_through = self.durable_through.max(stamp.durable_through);
        }
        Ok(entry)
    }

    fn entry_at(&self, offset: usize) -> Result<Entry, Damage> {
        let record = self
            .bytes
            .get(offset + STAMP_BYTES..)
            .ok_or(Damage::Short)?;
        Ok(Entry {
            offset,
            stamp: self.stamp_at(offset),
            head: Record::check(record)?,
        })
    }

    pub fn stamp_at(&self, offset: usize) -> Option<Stamp> {
        Stamp::decode(self.salt, offset as u64, self.bytes.get(offset..)?)
    }

    /// Behind the last byte that is not zero, from where the walk stands.
    pub fn used_end(&self) -> usize {
        used_end(self.bytes, self.offset)
    }

    /// Judges what stands from here to the end of the file.
    pub fn rest(&self) -> Rest {
        let used_end = self.used_end();
        let body = self.offset + STAMP_BYTES;
        if self.short {
            return Rest::Other;
        }
        // A stamp without a record behind it says nothing about records, damaged or not.
        if used_end <= body {
            return Rest::Zeros;
        }
        let record = self.bytes.get(body..).unwrap_or_default();
        let may_end = match (Record::measure(record), Record::check(record)) {
            // A whole record in the wrong place was not torn.
            (_, Ok(_)) => return Rest::Other,
            (Ok(size), Err(_)) => body + size,
            (Err(_), _) => body + HEADER_BYTES,
        };
        if used_end <= may_end {
            Rest::Unfinished
        } else {
            Rest::Other
        }
    }

    /// What the stamps from here on still say: the highest position called durable, and whether
    /// one of them seals the segment.
    pub fn evidence(&self) -> (Lsn, bool) {
        let (mut durable_through, mut sealed) = (self.durable_through, false);
        let end = self.used_end();
        let mut at = self.offset;
        while at < end {
            if let Some(stamp) = self.stamp_at(at) {
                durable_through = durable_through.max(stamp.durable_through);
                sealed |= stamp.sealed;
            }
            at += 8;
        }
        (durable_through, sealed)
    }

    /// Goes on behind damage: before the first sound record, with a sound stamp, that leaves at
    /// least one LSN missing and none above `through`. Returns what lies between.
    pub fn resume(&mut self, file: &str, through: Lsn) -> Option<DamagedRange> {
        let end = self.used_end();
        let mut at = self.offset + 8;
        while at < end {
            if self.stamp_at(at).is_some()
                && let Ok(entry) = self.entry_at(at)
                && entry.head.first_lsn > self.link.position.lsn.next()
                && entry.head.first_lsn <= through.next()
            {
                let before = Lsn(entry.head.first_lsn.0 - 1);
                let range = self.range(file, before, Some(entry.head.previous_chain));
                // As far as the record behind tells what stood before it.
                self.link = Link {
                    position: Position {
                        epoch: entry.head.epoch,
                        lsn: before,
                    },
                    chain: entry.head.previous_chain,
                    timestamp: entry.head.timestamp.saturating_sub(1),
                };
                self.offset = at;
                return Some(range);
            }
            at += 8;
        }
        None
    }

    /// The damage that begins where the walk stands.
    pub fn range(&self, file: &str, last_lsn: Lsn, next: Option<Chain>) -> DamagedRange {
        let first_lsn = self.link.position.lsn.next();
        assert!(
            first_lsn <= last_lsn,
            "a damaged range holds something: {first_lsn}..{last_lsn} in {file}"
        );
        DamagedRange {
            first_lsn,
            last_lsn,
            after: self.link,
            next_previous_chain: next,
            file: file.to_owned(),
            offset: self.offset as u64,
        }
    }
}

/// Behind the last byte that is not zero at or after `from`; `from` if there is none.
pub fn used_end(bytes: &[u8], from: usize) -> usize {
    // Comparing with a block of zeros is a memcmp: as fast as memory, even unoptimized.
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end > from {
        let start = from.max(end.saturating_sub(ZEROS.len()));
        let block = &bytes[start..end];
        if block != &ZEROS[..block.len()] {
            // Halve what holds the last one until it is one byte.
            let (mut low, mut high) = (start, end);
            while high - low > 1 {
                let middle = low.midpoint(high);
                let upper = &bytes[middle..high];
                match upper == &ZEROS[..upper.len()] {
                    true => high = middle,
                    false => low = middle,
                }
            }
            return high;
        }
        end = start;
    }
    from
}
