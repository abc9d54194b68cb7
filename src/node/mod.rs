//! Where the pure parts meet the world.
pub mod client;
pub mod meta;
pub mod refusal;
pub mod run;
pub mod status;
pub mod view;
