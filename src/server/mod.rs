//! Placeholder room.
pub mod command;
