//! Why a file was refused, and where in it.

use crate::seal::RecipientsId;
use standfast_wal::{ClusterId, Damage, History, Lsn};
use std::fmt;
use std::io;

/// What went wrong with which file.
#[derive(Debug)]
pub struct Error {
    /// The file as the caller named it.
    pub file: String,
    /// The byte where the damage starts, where one byte can be named.
    pub offset: Option<u64>,
    pub reason: Reason,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a {0} of Standfast")]
    Magic(&'static str),
    #[error("its format version {0} is not known to this program: use a newer one")]
    Version(u32),
    #[error("it ends too early: {needed} bytes are needed, {found} are there")]
    Truncated { needed: u64, found: u64 },
    #[error("the checksum of the {0} does not match")]
    Checksum(&'static str),
    #[error("{0} is out of range")]
    Field(&'static str),
    #[error("it belongs to cluster {found}, not to {expected}")]
    Cluster {
        expected: Box<ClusterId>,
        found: Box<ClusterId>,
    },
    #[error("it belongs to history {found}, not to {expected}")]
    History {
        expected: Box<History>,
        found: Box<History>,
    },
    #[error("the record at LSN {lsn}: {damage}")]
    Record { lsn: Lsn, damage: Damage },
    #[error("the compressed bytes cannot be unpacked: {0}")]
    Unpack(String),
    #[error("the contents were refused: {0}")]
    Contents(String),
    #[error("it is encrypted (to recipients {0}) and no identity was given: nothing opens it")]
    Sealed(RecipientsId),
    #[error("it is encrypted (to recipients {0}) and none of the identities given opens it")]
    Key(RecipientsId),
    #[error("it is not there, and a snapshot needs it")]
    NoSegment,
    #[error("another file has this name and holds something else")]
    Taken,
    #[error("an expiry is removing it, and a snapshot that is being put needs it: try again")]
    Going,
    #[error("the expiry took too long and ended before it: expire again")]
    Late,
}

impl Error {
    pub(crate) fn new(file: &str, offset: impl Into<Option<u64>>, reason: Reason) -> Error {
        Error {
            file: file.to_string(),
            offset: offset.into(),
            reason,
        }
    }

    /// An error of the disk, of a caller that reads what lies beside this crate's files.
    pub fn from_io(file: impl fmt::Display, error: io::Error) -> Error {
        Error::io(file, error)
    }

    /// The error of whoever has no key and needs one.
    pub fn sealed(file: &str, recipients: RecipientsId) -> Error {
        Error::new(file, None, Reason::Sealed(recipients))
    }

    pub(crate) fn io(file: impl fmt::Display, error: io::Error) -> Error {
        Error {
            file: file.to_string(),
            offset: None,
            reason: Reason::Io(error),
        }
    }

    /// True where nothing was learnt of the bytes: whoever holds them did not answer.
    pub fn is_unanswered(&self) -> bool {
        match &self.reason {
            Reason::Io(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        }
    }

    /// True where the object is not there, or ends too early: nothing sound has its name.
    pub fn is_absent(&self) -> bool {
        matches!(&self.reason, Reason::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// True where the bytes are at fault, not the disk or the caller: another copy may be good.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self.reason,
            Reason::Io(_)
                | Reason::Version(_)
                | Reason::Cluster { .. }
                | Reason::History { .. }
                | Reason::Sealed(_)
                | Reason::Key(_)
                | Reason::Taken
                | Reason::Going
                | Reason::Late
        )
    }

    /// Whom the bytes are encrypted to, where they are those that were put and a key is missing.
    pub fn locked_to(&self) -> Option<RecipientsId> {
        match self.reason {
            Reason::Sealed(id) | Reason::Key(id) => Some(id),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} at byte {offset}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Io(error) => Some(error),
            _ => None,
        }
    }
}
