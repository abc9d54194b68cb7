//! Deterministic; pure: what is stored and how committed records change it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod command;
pub mod reply;
pub use reply::Reply;
