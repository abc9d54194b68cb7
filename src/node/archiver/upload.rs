//! A snapshot for the archive: which one, when, and what came of it.

use super::{Archiver, Order};
use crate::limits;
use crate::node::clock::Now;
use crate::node::directory::Directory;
use crate::node::shelf;
use standfast_snapshot::Shipper;
use standfast_snapshot::archive::{Sent, Upload as Uploading};
use standfast_wal::Lsn;

/// A snapshot that is to be put; beside the rounds, for it takes long.
pub struct Upload {
    pub(super) shipper: Shipper,
    pub(super) lsn: Lsn,
    /// The proof whose findings it mends as far as it shares what is damaged.
    pub(super) mends: Option<u64>,
}

impl Upload {
    /// It lies in this directory; step by step it is put.
    pub fn begin<D: Directory>(&self, dir: &D) -> Result<Uploading<D::Storage>, String> {
        let storage = dir.snapshots().map_err(|error| error.to_string())?;
        let begun = self.shipper.upload(storage, &shelf::name_of(self.lsn));
        let begun = begun.map_err(|error| error.to_string())?;
        Ok(begun.wary(self.mends.is_some()))
    }
}

impl Archiver {
    /// The snapshot that should be put now, if there is one; its log is in the archive.
    pub fn upload(&mut self, order: &Order, now: Now) -> Option<Upload> {
        let course = self.course.as_ref()?;
        let lsn = order.snapshot_lsn.filter(|_| self.uploading.is_none())?;
        if Some(lsn) <= course.survey.snapshot_lsn || now.boot < self.upload_after {
            return None;
        }
        // Before its log it would stand behind a hole, of which a proof would tell.
        let end = course.shipper.end();
        if course.survey.is_whole && end.is_none_or(|end| end.position.lsn < lsn) {
            return None;
        }
        let interval = limits::ARCHIVE_SNAPSHOT_INTERVAL.as_nanos();
        self.upload_after = now.boot + u64::try_from(interval).unwrap_or(u64::MAX);
        self.uploading = Some((order.card.history, lsn));
        self.mending = order.unsound.filter(|_| order.unsound != self.mended);
        Some(Upload {
            shipper: course.shipper.clone(),
            lsn,
            mends: self.mending,
        })
    }

    /// The snapshot that was to be put is there, or is not.
    pub fn uploaded(&mut self, result: Result<Sent, String>) {
        let (uploading, mending) = (self.uploading.take(), self.mending.take());
        match result {
            Ok(sent) => {
                self.upload_error = None;
                self.mended = mending.or(self.mended);
                self.standing.stored_bytes += sent.put;
                self.standing.sent = Some(sent);
                // Where it may have closed a hole the archive is looked at again.
                let course = self.course.as_mut();
                if !course.is_some_and(|course| course.has_snapshot(uploading)) {
                    self.course = None;
                }
            }
            Err(error) => {
                self.standing.failures += 1;
                self.upload_error = Some(error);
            }
        }
    }
}
