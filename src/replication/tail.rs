//! The last records of the log, in memory: what is sent to peers and applied without a read.
//!
//! Owns no position but its own bounds. Records are shared buffers; nothing is copied.

use standfast_wal::{Link, Lsn, Record};
use std::collections::VecDeque;

/// One record and the count of all bytes up to and including it.
#[derive(Debug)]
struct Kept {
    record: Record,
    end_bytes: u64,
}

/// Consecutive records that end at the log's written end.
#[derive(Debug)]
pub struct Tail {
    /// Where the first kept record stands.
    base: Link,
    base_bytes: u64,
    kept: VecDeque<Kept>,
}

impl Tail {
    /// An empty tail behind `base`.
    pub fn new(base: Link) -> Tail {
        Tail {
            base,
            base_bytes: 0,
            kept: VecDeque::new(),
        }
    }

    /// What the first kept record follows.
    pub fn base(&self) -> Link {
        self.base
    }

    /// What the next record must follow.
    pub fn tip(&self) -> Link {
        self.kept
            .back()
            .map_or(self.base, |kept| kept.record.link())
    }

    pub fn push(&mut self, record: Record) {
        assert_eq!(
            record.follows(self.tip()),
            Ok(()),
            "I3: {record:?} does not follow {:?}",
            self.tip()
        );
        let end_bytes = self.end_bytes() + record.bytes().len() as u64;
        self.kept.push_back(Kept { record, end_bytes });
    }

    /// Drops everything after `lsn`; `None` when that lies before what is kept, and then the tail
    /// is left as it was.
    pub fn cut(&mut self, lsn: Lsn) -> Option<Link> {
        if lsn < self.base.position.lsn {
            return None;
        }
        let keep = self
            .kept
            .partition_point(|kept| kept.record.last_lsn() <= lsn);
        self.kept.truncate(keep);
        Some(self.tip())
    }

    /// Starts again, empty, behind `base`.
    pub fn reset(&mut self, base: Link) {
        *self = Tail {
            base,
            base_bytes: self.end_bytes(),
            kept: VecDeque::new(),
        };
    }

    /// Drops records from the front that end at or below `keep_after`, while more than `max_bytes`
    /// are kept.
    pub fn trim(&mut self, keep_after: Lsn, max_bytes: u64) {
        while self.end_bytes() - self.base_bytes > max_bytes {
            match self.kept.front() {
                Some(first) if first.record.last_lsn() <= keep_after => {
                    self.base = first.record.link();
                    self.base_bytes = first.end_bytes;
                    self.kept.pop_front();
                }
                _ => return,
            }
        }
    }

    /// The link of the record that ends at `lsn`, when it is known here.
    pub fn link_at(&self, lsn: Lsn) -> Option<Link> {
        if lsn == self.base.position.lsn {
            return Some(self.base);
        }
        let i = self
            .kept
            .partition_point(|kept| kept.record.last_lsn() < lsn);
        let record = &self.kept.get(i)?.record;
        (record.last_lsn() == lsn).then(|| record.link())
    }

    /// The record that holds `lsn`, when it is kept.
    pub fn record_at(&self, lsn: Lsn) -> Option<&Record> {
        let i = self
            .kept
            .partition_point(|kept| kept.record.last_lsn() < lsn);
        let record = &self.kept.get(i)?.record;
        (record.first_lsn() <= lsn).then_some(record)
    }

    /// The kept records that end after `after`; `None` when some of those are no longer kept.
    pub fn after(&self, after: Lsn) -> Option<impl Iterator<Item = &Record>> {
        if after < self.base.position.lsn {
            return None;
        }
        let from = self
            .kept
            .partition_point(|kept| kept.record.last_lsn() <= after);
        Some(self.kept.range(from..).map(|kept| &kept.record))
    }

    /// Bytes of kept records that end after `after` and at or below `through`.
    pub fn bytes_between(&self, after: Lsn, through: Lsn) -> u64 {
        self.bytes_at(through).saturating_sub(self.bytes_at(after))
    }

    fn bytes_at(&self, lsn: Lsn) -> u64 {
        let i = self
            .kept
            .partition_point(|kept| kept.record.last_lsn() <= lsn);
        match i.checked_sub(1) {
            Some(last) => self.kept[last].end_bytes,
            None => self.base_bytes,
        }
    }

    fn end_bytes(&self) -> u64 {
        self.kept
            .back()
            .map_or(self.base_bytes, |kept| kept.end_bytes)
    }
}
