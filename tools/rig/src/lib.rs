//! Real Standfast processes for tests and measurements: start them, load them, hurt them, and hold
//! what clients were told against what the cluster says afterwards.
//!
//! `cluster` owns the processes and ends every one of them, also when a test panics; `proxy` stands
//! between the nodes and hurts their links. `resp` is a client small enough to see every byte of
//! it, `client` one that follows the primary. `load` writes in a closed loop with ONCE tokens and
//! counts what was lost or doubled; `bank` moves money, and `audit` replays its whole history.
//! `chaos` does faults of every kind, `soak` all of it together. `poll` is the only place in tests
//! that sleeps.
//!
//! The rig knows the binary by its command line and its protocol only; it uses no crate of ours.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the rig lives outside the pure rooms: clocks, threads and files are its work"
)]

mod ask;
pub mod audit;
pub mod bank;
pub mod chaos;
pub mod client;
pub mod cluster;

mod launch;
pub mod load;
pub mod poll;
pub mod ports;
pub mod process;
pub mod proxy;
mod pump;
pub mod random;
pub mod resp;
pub mod s3;
pub mod soak;
pub mod spec;
pub mod trial;

pub use cluster::Cluster;
pub use load::{Load, Report};
pub use poll::{holds_for, until};
pub use proxy::{Mode, Proxy};
pub use random::Random;
pub use resp::{Conn, Value};
pub use s3::S3;
pub use spec::{Node, Spec};
