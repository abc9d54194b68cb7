//! Decides; pure: replication, promotion and the register, without clock, socket, file or thread.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod config;
pub mod register;
pub mod time;

pub use config::Config;
pub use time::Time;
