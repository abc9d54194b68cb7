//! Standfast: a primary-backup replicated key-value store for account balances.
pub mod cli;
pub mod config;
pub mod limits;
pub mod node;
pub mod replication;
pub mod server;
pub mod state;
