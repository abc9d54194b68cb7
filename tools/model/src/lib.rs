//! Every interleaving of small worlds: the replication core, as it runs in production, under a
//! model checker. `docs/model.md` says what is modelled, what is left out and what was explored.
pub mod lab;
pub mod ledger;
pub mod mail;
pub mod outside;
pub mod run;
pub mod script;
pub mod site;
pub mod starts;
pub mod turn;
pub mod world;
pub mod worlds;
