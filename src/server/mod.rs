//! Knows clients.
pub mod resp;
