//! Where the pure parts meet the world.
pub mod client;
