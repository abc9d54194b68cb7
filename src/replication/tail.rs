//! The last records of the log, in memory: what is sent to peers and applied without a read.
//!
//! Owns no position but its own bounds. Records are shared buffers; nothing is copied.

use standfast_wal::{Link, Lsn, Record};
use std::collections::VecDeque;

/// One record, its last LSN, and the count of all bytes up to and including it: a search looks at
/// what lies here, and into no record.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Kept {
    record: Record,
    last: Lsn,
    end_bytes: u64,
}

/// Consecutive records that end at the log's written end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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
        self.kept.push_back(Kept {
            last: record.last_lsn(),
            record,
            end_bytes,
        });
    }

    /// Drops everything after `lsn`; `None` when that lies before what is kept, and then the tail
    /// is left as it was.
    pub fn cut(&mut self, lsn: Lsn) -> Option<Link> {
        if lsn < self.base.position.lsn {
            return None;
        }
        let keep = self.kept.partition_point(|kept| kept.last <= lsn);
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
    /// are
    /// kept.
    pub fn trim(&mut self, keep_after: Lsn, max_bytes: u64) {
        while self.end_bytes() - self.base_bytes > max_bytes {
            match self.kept.front() {
                Some(first) if first.last <= keep_after => {
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
        let i = self.kept.partition_point(|kept| kept.last < lsn);
        let kept = self.kept.get(i)?;
        (kept.last == lsn).then(|| kept.record.link())
    }

    /// The record that holds `lsn`, when it is kept.
    pub fn record_at(&self, lsn: Lsn) -> Option<&Record> {
        let i = self.kept.partition_point(|kept| kept.last < lsn);
        let record = &self.kept.get(i)?.record;
        (record.first_lsn() <= lsn).then_some(record)
    }

    /// The kept records that end after `after`; `None` when some of those are no longer kept.
    pub fn after(&self, after: Lsn) -> Option<impl Iterator<Item = &Record>> {
        if after < self.base.position.lsn {
            return None;
        }
        let from = self.kept.partition_point(|kept| kept.last <= after);
        Some(self.kept.range(from..).map(|kept| &kept.record))
    }

    /// Bytes of kept records that end after `after` and at or below `through`.
    pub fn bytes_between(&self, after: Lsn, through: Lsn) -> u64 {
        self.bytes_at(through).saturating_sub(self.bytes_at(after))
    }

    fn bytes_at(&self, lsn: Lsn) -> u64 {
        let i = self.kept.partition_point(|kept| kept.last <= lsn);
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

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_wal::{Epoch, Kind};

    /// Three records, 1..2, 3..4 and 5..6, of equal size.
    fn tail() -> (Tail, u64) {
        let mut tail = Tail::new(Link::default());
        for i in 0..3 {
            let record =
                Record::build(tail.tip(), Kind::Commands, Epoch(1), 100 * (i + 1), 2, b"x");
            tail.push(record);
        }
        let size = tail.bytes_between(Lsn(0), Lsn(2));
        (tail, size)
    }

    #[test]
    fn what_is_cut_or_trimmed_is_gone_and_the_rest_is_found() {
        let (mut tail, size) = tail();
        assert_eq!(tail.bytes_between(Lsn(2), Lsn(6)), 2 * size);
        assert_eq!(tail.after(Lsn(2)).map(Iterator::count), Some(2));
        assert_eq!(tail.link_at(Lsn(3)), None, "inside a record");
        assert_eq!(tail.cut(Lsn(4)).map(|link| link.position.lsn), Some(Lsn(4)));
        assert_eq!(tail.tip().position.lsn, Lsn(4));
        tail.trim(Lsn(2), 0);
        assert_eq!(tail.base().position.lsn, Lsn(2), "3..4 may still be needed");
        assert!(tail.after(Lsn(1)).is_none() && tail.after(Lsn(2)).is_some());
        assert_eq!(tail.link_at(Lsn(2)), Some(tail.base()));
        assert_eq!(tail.cut(Lsn(1)), None, "before what is kept");
        assert_eq!(tail.tip().position.lsn, Lsn(4));
        let base = tail.tip();
        tail.reset(base);
        assert_eq!(tail.after(Lsn(4)).map(Iterator::count), Some(0));
    }

    #[test]
    #[should_panic(expected = "I3")]
    fn a_record_that_does_not_follow_is_not_kept() {
        let (mut tail, _) = tail();
        let stranger = Record::build(Link::default(), Kind::Commands, Epoch(1), 900, 1, b"y");
        tail.push(stranger);
    }
}
