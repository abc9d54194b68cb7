//! One history that an archiver ships, and what it knows of how far that is.

use crate::node::clock::Now;
use standfast_snapshot::{Shipper, Survey};
use standfast_wal::{History, Lsn, Record};

/// One history that is being archived.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) shipper: Shipper,
    pub(super) survey: Survey,
    /// Boot clock (ns) at the end of the last round.
    pub(super) last_round: u64,
    /// The oldest record that waits for its piece to be closed, and since when (boot clock, ns).
    pub(super) waits: Option<(Lsn, u64)>,
    /// Boot clock (ns) when the last manifest was put, or the course set.
    pub(super) manifest: u64,
    /// Boot clock (ns) when it was last seen that what was shipped is still there.
    pub(super) looked: u64,
}

impl Course {
    /// A snapshot is there now. False where that is not all that has changed: log that was unbroken
    /// from an older one on is so from this one.
    pub(super) fn has_snapshot(&mut self, which: Option<(History, Lsn)>) -> bool {
        let own = self.shipper.card().history;
        let Some((_, lsn)) = which.filter(|(history, _)| *history == own) else {
            return false;
        };
        let is_named = self.survey.is_whole && self.shipper.note_snapshot(lsn).is_ok();
        self.survey.snapshot_lsn = self.survey.snapshot_lsn.max(Some(lsn));
        is_named
    }

    /// The oldest record has waited for an Attestation for two intervals. Not by its timestamp: the
    /// wall clock may be far behind it.
    pub(super) fn is_late(&mut self, oldest: Option<&Record>, interval_ns: u64, now: Now) -> bool {
        let oldest = oldest.map(Record::first_lsn);
        if self.waits.map(|(lsn, _)| lsn) != oldest {
            self.waits = oldest.map(|lsn| (lsn, now.boot));
        }
        let waits = self.waits.map_or(now.boot, |(_, since)| since);
        oldest.is_some() && waits.saturating_add(interval_ns.saturating_mul(2)) <= now.boot
    }
}
