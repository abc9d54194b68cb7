//! What a proof finds to be wrong.

use crate::plan::Gap;
use crate::seal::RecipientsId;
use standfast_wal::Lsn;
use std::fmt;

/// What is wrong with an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The object cannot be read, or lies. The reason names its place.
    Damaged {
        path: String,
        reason: String,
        /// It is a snapshot that is there: another one puts again what both refer to.
        is_mended: bool,
    },
    /// Two sound files tell different stories of one LSN. One of them is another history's.
    Disagreement {
        path: String,
        other: String,
        lsn: Lsn,
    },
    /// No log between these two points.
    Hole(Gap),
    /// The object is plain and sound, and other than every manifest that names it says.
    Replaced { path: String },
    /// Identities were given, and open none of these.
    Locked {
        recipients: RecipientsId,
        objects: u64,
    },
    /// There is nothing at all that could be restored.
    Nothing,
}

impl Finding {
    /// Whether another snapshot puts right what is wrong.
    pub fn is_mended(&self) -> bool {
        matches!(self, Finding::Damaged { is_mended, .. } if *is_mended)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Damaged { reason, .. } => write!(f, "damaged: {reason}"),
            Finding::Disagreement { path, other, lsn } => write!(
                f,
                "{} and {} disagree on the record that ends at LSN {lsn}",
                path, other
            ),
            Finding::Hole(gap) => write!(f, "{gap}"),
            Finding::Replaced { path } => write!(
                f,
                "{path} is sound, but not what the manifest that names it says was put"
            ),
            Finding::Locked {
                recipients,
                objects,
            } => write!(
                f,
                "{objects} objects are encrypted to recipients {recipients}, whom none of the \
                 identities given is: they are there, and nothing else is proved of them"
            ),
            Finding::Nothing => write!(f, "no snapshot, and no log from LSN 1: nothing to restore"),
        }
    }
}
