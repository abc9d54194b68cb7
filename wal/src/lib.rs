//! The write-ahead log: what was ordered, in order, provably undamaged.
//!
//! Read in this order: [`record`] (the unit), [`storage`] (what a disk may do to us), `segment`
//! (one file), [`log`] (the set of them), [`recovery`] (what to believe after a crash), [`writer`]
//! (the thread), [`reader`] (everybody else).
//!
//! Promises: what `flush` returned is there after any crash; a record is handed out only after
//! its checksums and its place in the chain were proved; nothing at or below the highest position
//! known durable, and nothing in a sealed segment, is ever cut because it looks damaged.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod cut;
pub mod durable;
pub mod error;
mod ids;
pub mod inspect;
pub mod kept;
pub mod log;
pub mod mark;
mod note;
mod open;
pub mod prepare;
pub mod reader;
pub mod record;
pub mod recovery;
mod repair;
pub mod scan;
pub mod scribe;
pub mod segment;
pub mod storage;
pub mod terms;
mod view;
pub mod writer;

pub use error::{Error, ErrorKind};
pub use inspect::layouts;
pub use log::{Cut, DamagedRange, End, Identity, Log, Options, Reach, Recovered, Space};
pub use mark::Mark;
pub use open::BY_ORDER as CUT_BY_ORDER;
pub use reader::{ReadError, Reader};
pub use record::{
    Ancestor, Chain, ClusterId, Damage, Epoch, Field, Head, History, Incarnation, Kind, Link, Lsn,
    NodeId, Nonce, Position, Record,
};
pub use scribe::{Scribe, WriterEvent};
pub use storage::{File, Storage, disk::Disk, sim::SimDisk};
pub use writer::Writer;

#[cfg(test)]
mod tests;
