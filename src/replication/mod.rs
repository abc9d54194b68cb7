//! Decides; pure: replication, promotion and the register, without clock, socket, file or thread.
//!
//! The data plane is primary-backup log streaming; the control plane is one small register, agreed
//! by a majority of the voters. The data plane never votes, the register never carries data.
//! Sources: PacificA and Kafka's in-sync replicas (the sync set), Viewstamped Replication Revisited
//! (promotion by steps), CASPaxos (the register), Data Guard (protection modes).
//!
//! | file | what it decides |
//! | --- | --- |
//! | `replica`, `dispatch` | dispatch on (role, input) and (role, message) |
//! | `access`, `status` | what the engine asks; what people are shown |
//! | `io` | what goes in and what comes out |
//! | `node`, `durability`, `registry`, `clocks` | what every role shares |
//! | `log` | positions of the own log; append and cut |
//! | `primary`, `answers`, `peer` | sending, counting, what is committed |
//! | `admission` | which writes and reads are let in; when a primary falls silent |
//! | `changes`, `orders` | who is in the sync set; what operators want |
//! | `backup`, `install` | what is taken from a primary, what is cut, what is answered |
//! | `candidate` | the five steps of a promotion |
//! | `force`, `past` | forced promotion: a new history; what it shares with older ones |
//! | `commit` | the acknowledgement rule and the change rule: pure functions |
//! | `fence` | what this node has promised to refuse |
//! | `reads` | which reads may be answered now |
//! | `register` | the register itself |
//! | `epochs`, `tail` | which epoch wrote which LSN; the last records, in memory |
//! | `message`, `meta`, `config`, `settings`, `view` | types |
//!
//! What it does not do: it reads no payload but that of EpochStart, moves no snapshot bytes, knows
//! no client, and never waits.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod access;
mod admission;
mod answers;
mod backup;
mod candidate;
mod changes;
mod clocks;
pub mod commit;
pub mod config;
mod dispatch;
mod durability;
pub mod epochs;
pub mod fence;
mod force;
mod install;
pub mod io;
mod log;
pub mod message;
pub mod meta;
mod node;
mod orders;
mod past;
mod peer;
mod primary;
mod reads;
pub mod register;
mod registry;
pub mod replica;
pub mod settings;
mod status;
pub mod tail;
pub mod time;
pub mod view;

pub use config::Config;
pub use epochs::{EpochEntry, EpochTable};
pub use fence::Fence;
pub use io::{Effect, Input, Introduction, LinkEvent, LogFacts, Order, ReadTicket, StopReason};
pub use message::{Body, Message, SnapshotHead};
pub use meta::Meta;
pub use past::Contained;
pub use replica::Replica;
pub use settings::Settings;
pub use time::Time;
pub use view::{Forecast, Loss, PeerView, Refusal, RoleView, View};

#[cfg(test)]
mod tests;
