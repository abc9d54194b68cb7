//! The write-ahead log: what was ordered, in order, provably undamaged.
pub mod record;
pub use record::{
    Chain, ClusterId, Damage, Epoch, Field, History, Incarnation, Kind, Link, Lsn, NodeId, Nonce,
    Position, Record,
};
