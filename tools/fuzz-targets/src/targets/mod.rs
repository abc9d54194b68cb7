//! One file per decoder.

pub mod archive;
pub mod commands;
pub mod config;
pub mod meta_file;
pub mod packed_link;
pub mod peer_frame;
pub mod reply;
pub mod resp;
pub mod snapshot_file;
pub mod state_block;
pub mod wal_record;
pub mod wal_recovery;
