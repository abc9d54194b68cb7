//! Standfast: a primary-backup replicated key-value store.
//!
//! One primary orders every command in a chained log, streams the log to its backups, and one of
//! them takes over when the primary is lost. `ARCHITECTURE.md` has the promises, the walk of one
//! command, the invariants and the decisions; this is the map.
//!
//! # Rooms
//!
//! | room | what it is | pure | may use |
//! | --- | --- | --- | --- |
//! | `standfast_wal` | positions, records, the log on disk | `record` | nothing here |
//! | `standfast_snapshot` | snapshot files, archives, restore plans | formats, plans | `wal::record` |
//! | [`limits`] | every bound, and how they hang together | yes | `wal::record` |
//! | [`replication`] | who is primary, what is committed, who is a member | yes | `limits`, `wal::record` |
//! | [`state`] | keys, values, expiry, tokens, the ledger, digests | yes | `limits`, `wal::record` |
//! | [`config`] | settings: names, kinds, defaults, checks | | `replication`'s types, `limits` |
//! | [`node`] | the engine, and the shell of threads, sockets and files around it | engine, `wire` | the above, `wal`, `snapshot` |
//! | [`server`] | RESP, sessions, discovery, HTTP | parsing, the table | `node` and below |
//! | [`client`] | what a program links to talk to a cluster | replies, verdicts | `limits` |
//! | [`cli`] | one file per operator command | | everything |
//!
//! Pure means: no clock, socket, file, thread or randomness; time and random numbers are inputs,
//! and what is to be done comes out as values. `replication` and `state` do not know each other;
//! they meet in [`node::engine`], which the simulator (`tools`) runs as it is. The compiler's lints
//! and `tools/tests/tidy` hold all of this.
//!
//! # Reading order
//!
//! 1. `wal/src/record.rs`: positions, and the record, which is written, sent and applied as it is.
//! 2. [`node::engine`]: one turn of a node. Everything else is called from here.
//! 3. [`replication`]: `replica` (dispatch), `primary` and `backup` (the ordinary day), `commit`
//!    (two pure rules), `candidate` (the bad day), `register` (who decides).
//! 4. [`state`]: `apply`, then one command of your choice.
//! 5. [`server`]: a session, which turns bytes into requests and answers into bytes.
//! 6. [`client`]: the other end of the wire, in one task.
//! 7. `wal/src/log.rs`, `recovery.rs` and `cut.rs`: what a crash may leave behind.
//! 8. `snapshot/src/plan.rs` and `cli::restore`: back to any point.
//!
//! Layouts, messages and commands have documents that a test holds against the code (`docs/`).
pub mod cli;
pub mod client;
pub mod config;
pub mod limits;
pub mod node;
pub mod replication;
pub mod server;
pub mod state;

#[cfg(test)]
mod docs_test;
