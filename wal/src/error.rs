//! What can go wrong with a log, always with the place and with what to do.

use crate::record::{Damage, Lsn};
use crate::terms::Reach;
use std::fmt;
use std::io;

/// An error of the log. Its text names file, offset and LSN where they are known.
#[derive(Debug)]
pub struct Error {
    /// Relative to the log's directory; empty where no file is concerned.
    pub file: String,
    pub offset: Option<u64>,
    /// The first LSN concerned.
    pub lsn: Option<Lsn>,
    pub kind: ErrorKind,
}

/// The kinds of error that a caller may want to tell apart.
#[derive(Debug)]
pub enum ErrorKind {
    /// The storage refused. Whether it was a write or a sync, it is not tried again.
    Io(&'static str, io::Error),
    /// Another process has the directory.
    Locked,
    /// There is no log here.
    Missing,
    /// There is a log here already.
    Exists,
    /// The files belong to another cluster, node or incarnation, or to another file name.
    Foreign(&'static str),
    /// Written by a program that knows a newer format.
    Version(u32),
    /// Bytes at or below what was acknowledged are not what was written, or cannot be told from
    /// that; nothing was changed.
    Damaged(Damage),
    /// The end, above everything known durable, is damaged by more than a torn write, and there
    /// is no peer to ask; nothing was changed.
    DamagedEnd(Damage),
    /// A whole segment file between or behind others is gone.
    SegmentMissing,
    /// The log and the snapshot that it was opened for do not belong together; nothing was
    /// changed. Never `Reach::Contains`.
    DoesNotReach(Reach),
    /// Records for a repair do not fit the hole they are for.
    DoesNotFit(Damage),
    /// An earlier error ended this log's life; reopen it after the cause is gone.
    Failed,
}

impl Error {
    pub(crate) fn new(file: &str, kind: ErrorKind) -> Error {
        Error {
            file: file.to_owned(),
            offset: None,
            lsn: None,
            kind,
        }
    }

    pub(crate) fn io(file: &str, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let file = file.to_owned();
        move |error| Error::new(&file, ErrorKind::Io(doing, error))
    }

    /// The disk is full: nothing was harmed, and it may be tried again.
    pub fn is_full(&self) -> bool {
        matches!(&self.kind, ErrorKind::Io(_, cause) if is_full(cause))
    }

    pub(crate) fn at(mut self, offset: u64) -> Error {
        self.offset = Some(offset);
        self
    }

    pub(crate) fn lsn(mut self, lsn: Lsn) -> Error {
        self.lsn = Some(lsn);
        self
    }
}

/// A full disk is an event, not a failure: nothing that was durable is touched by it.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log")?;
        if !self.file.is_empty() {
            write!(f, " file {}", self.file)?;
        }
        if let Some(offset) = self.offset {
            write!(f, " offset {offset}")?;
        }
        if let Some(lsn) = self.lsn {
            write!(f, " LSN {lsn}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::Io(doing, error) => write!(
                f,
                "cannot {doing}: {error}; check the disk, then start again"
            ),
            ErrorKind::Locked => f.write_str(
                "another process uses this directory; stop it first (one process per directory)",
            ),
            ErrorKind::Missing => f.write_str(
                "there is no log here; if it was lost, let the node join again with an empty \
                 directory, or restore from the archive",
            ),
            ErrorKind::Exists => {
                f.write_str("there is a log here already; it is never overwritten")
            }
            ErrorKind::Foreign(what) => write!(
                f,
                "the file belongs to another {what}; give this node its own directory back"
            ),
            ErrorKind::Version(found) => write!(
                f,
                "format version {found} is not known to this program; use the one that wrote it"
            ),
            ErrorKind::Damaged(damage) => write!(
                f,
                "damaged ({damage}) where acknowledged commands may stand; nothing was changed. \
                 Start the node with its peers so that it is repaired from one, or restore from \
                 the archive"
            ),
            ErrorKind::DamagedEnd(damage) => write!(
                f,
                "the end of the log is damaged ({damage}) in a way that a torn write is not; \
                 acknowledged commands may have stood there, and nothing was changed. Start the \
                 node with its peers, restore from the archive, or allow for one start that the \
                 end is cut (it is kept aside)"
            ),
            ErrorKind::SegmentMissing => f.write_str(
                "this segment held acknowledged commands and is gone; put the file back, let the \
                 node join again with an empty directory, or restore from the archive",
            ),
            ErrorKind::DoesNotReach(reach) => {
                f.write_str(match reach {
                    Reach::Contains => "the log holds the snapshot's record",
                    Reach::EndsBelow => "the log ends below the snapshot",
                    Reach::StartsAbove => "the log begins above the snapshot",
                    Reach::Diverges => "the log holds another record where the snapshot ends",
                })?;
                f.write_str(
                    "; open it with a snapshot that it belongs to, or let the node join again \
                     with an empty directory",
                )
            }
            ErrorKind::DoesNotFit(damage) => write!(
                f,
                "the records do not fit the damaged range ({damage}); try another peer"
            ),
            ErrorKind::Failed => f.write_str(
                "the log stopped at an earlier error; look for that one, then start again",
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::Io(_, error) => Some(error),
            _ => None,
        }
    }
}
