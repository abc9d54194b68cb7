//! Decides; pure: replication, promotion and the register, without clock, socket, file or thread.
//!
//! The data plane is primary-backup log streaming; the control plane is one small register, agreed
//! by a majority of the voters. The data plane never votes, the register never carries data.
//! Sources: PacificA and Kafka's in-sync replicas (the sync set), Viewstamped Replication Revisited
//! (promotion by steps), CASPaxos (the register), Data Guard (protection modes).
//!
//! | file | what it decides |
//! | --- | --- |
//! | `replica` | dispatch on (role, input); what the engine calls |
//! | `io` | what goes in and what comes out |
//! | `node` | what every role shares: durable state, links, the register's ends |
//! | `log` | positions of the own log; append and cut |
//! | `primary`, `peer`, `changes`, `orders` | streaming, acknowledging, who is in the sync set |
//! | `backup` | what is taken from a primary, what is cut, what is answered |
//! | `candidate` | the five steps of a promotion |
//! | `force` | forced promotion: a new history |
//! | `commit` | the acknowledgement rule and the change rule: pure functions |
//! | `fence` | what this node has promised to refuse |
//! | `reads` | which reads may be answered now |
//! | `status` | what people are shown |
//! | `register` | the register itself |
//! | `epochs`, `tail` | which epoch wrote which LSN; the last records, in memory |
//! | `message`, `meta`, `config`, `settings`, `view` | types |
//!
//! What it does not do: it reads no payload but that of EpochStart, moves no snapshot bytes, knows
//! no client, and never waits.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod backup;
mod candidate;
mod changes;
pub mod commit;
pub mod config;
pub mod epochs;
pub mod fence;
mod force;
pub mod io;
mod log;
pub mod message;
pub mod meta;
mod node;
mod orders;
mod peer;
mod primary;
mod reads;
pub mod register;
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
pub use replica::Replica;
pub use settings::Settings;
pub use time::Time;
pub use view::{Forecast, Loss, PeerView, Refusal, RoleView, View};

#[cfg(test)]
mod tests;
