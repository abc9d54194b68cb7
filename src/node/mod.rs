//! Where the pure parts meet the world.
//!
//! | file | what it does |
//! | --- | --- |
//! | `engine` | one node's turn: events in, order, step the core, apply, answer |
//! | `pending`, `desk`, `outcomes` | what clients and operators wait for, and are told |
//! | `copies` | snapshots: taken, sent, received, installed |
//! | `archive`, `archiver` | the continuous archive: who ships, what, and what that proves |
//! | `show`, `view`, `status` | what the node shows of itself |
//! | `statement` | what a cut or a forced promotion loses |
//! | `clock` | log time |
//! | `wire` | peer frames, pure |
//! | `run` | the shell: thread, clock, queues |
//! | `link` | connections to peers |
//! | `directory`, `open`, `meta`, `shelf`, `parcel` | what lies in the data directory, on disks real or simulated |
//! | `files`, `backup`, `ship` | threads that write, read and archive it |
//! | `rehearsal` | restore drills that the node does by itself, as a child process |
//! | `client`, `refusal` | the door between sessions and the engine |
pub mod archive;
pub mod archiver;
pub mod backup;
pub mod client;
pub mod clock;
pub mod copies;
pub mod desk;
pub mod directory;
pub mod engine;
pub mod evidence;
pub mod files;
pub mod lag;
pub mod link;
pub mod meta;
pub mod open;
pub mod outcomes;
pub mod parcel;
pub mod pending;
pub mod refusal;
mod rehearsal;
pub mod run;
pub mod shelf;
pub mod ship;
mod show;
pub mod statement;
pub mod status;
pub mod view;
pub mod wire;
