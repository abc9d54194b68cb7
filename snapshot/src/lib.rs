//! Snapshot files, the archive, and plans for restoring from them.
//!
//! One snapshot is the whole state at one LSN: `write` makes it, `read` refuses it or loads it,
//! `format` is its layout; what never changes again lies beside it (`segment`) and is referred to.
//! The archive holds snapshots and the committed log between them: `part` is what snapshots share
//! of their blocks, `object` is the layout of one piece of log, `seal` encrypts, `store` is where
//! objects lie (a directory, an object store), `archive` puts them there so that nobody overwrites
//! them, `survey` finds where to go on,
//! `catalogue` says what lies there and `manifest` what must, `plan` (pure) says what a restore to
//! a target reads, `search` finds that plan without reading all, `verify` proves that all can be
//! read, `retention` (pure) says what may go, `drills` keeps the reports of restores that were
//! tried.
//! Nothing here knows what a block of state means.

// Files and threads are this crate's trade; the pure parts forbid them again for themselves.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod archive;
pub mod card;
pub mod catalogue;
pub mod drills;
pub mod format;
pub mod layout;
pub mod manifest;
pub mod new_file;
pub mod object;
pub mod part;
pub mod plan;
pub mod read;
pub mod retention;
pub mod seal;
pub mod sealed;
pub mod search;
pub mod segment;
pub mod store;
pub mod survey;
pub mod verify;
pub mod write;

mod error;
#[cfg(test)]
mod fixtures;
mod frame;

pub use archive::{Shipped, Shipper, ship};
pub use card::Card;
pub use catalogue::Catalogue;
pub use error::{Error, Reason};
pub use format::{BlockHead, Header};
pub use layout::Layout;
pub use new_file::{Incoming, NewFile};
pub use object::LogHead;
pub use plan::{Plan, Target, plan};
pub use read::{Reader, Source, Stored};
pub use seal::{Identities, Recipient, Recipients, RecipientsId};
pub use search::search;
pub use segment::SegmentRef;
pub use store::{Shared, Store};
pub use survey::Survey;
pub use write::{Block, Options, Summary, Writer};

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// Every layout of this crate, for the document of formats.
pub fn layouts() -> Vec<Layout> {
    let mut all = format::layouts().to_vec();
    all.push(segment::LAYOUT);
    all.extend([object::LAYOUT, sealed::LAYOUT]);
    all.extend(card::LAYOUTS);
    all.extend(manifest::LAYOUTS);
    all
}
