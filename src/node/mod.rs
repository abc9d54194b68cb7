//! Where the pure parts meet the world.
pub mod client;
pub mod refusal;
pub mod view;
