//! The register as an atomic object, outside of all nodes: one value, changed by compare-and-set.
//!
//! To the core it is the only voter, and speaks the messages of a voter; so the core is as in
//! production. But it keeps no ballots: a change takes effect at any one moment after it was asked
//! for, even when its proposer has died or has been overtaken, if the value is still the expected.

use standfast::replication::register::{Accepted, Ballot, Body, Proposal, Value};
use standfast_wal::NodeId;

/// The one voter.
pub const OUTSIDE: NodeId = NodeId(9);

/// What the register holds now.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Service {
    pub current: Value,
    /// All that were chosen before: their proposers may hear of it late.
    pub past: Vec<Value>,
}

impl Service {
    pub fn has_chosen(&self, value: &Value) -> bool {
        self.current == *value || self.past.contains(value)
    }

    /// The answer to a proposer. `late`: rather that its change was overtaken, or lost.
    pub fn answer(&self, asked: &Body, late: bool) -> Body {
        match asked {
            Body::Prepare { ballot, .. } => Body::Promised {
                ballot: *ballot,
                accepted: Some(Accepted {
                    ballot: Ballot::GENESIS,
                    proposal: Proposal::settled(self.current.clone()),
                }),
            },
            Body::Accept { ballot, proposal } if !late && self.has_chosen(&proposal.value) => {
                Body::Accepted {
                    ballot: *ballot,
                    settled: false,
                }
            }
            _ => Body::Chosen {
                value: self.current.clone(),
            },
        }
    }
}
