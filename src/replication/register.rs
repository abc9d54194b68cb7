//! The register: one Config, agreed by a majority of the voters and changed by compare-and-set.
//!
//! Paxos over a single value, in the manner of CASPaxos (Rystsov, 2018), both phases always: it is
//! cold. A `Register` is a node's acceptor and its proposer in one; a node that does not vote, or
//! proposes nothing, uses the half it needs. It has no clock, socket or disk: see `Input`, `Effect`.
//!
//! Why a value once chosen is never lost, although the voters change:
//!
//! - R1 A value is proposed only against a parent that is known to be chosen. So whoever sees the
//!   proposal knows its parent to be chosen, and chosen values form one chain of versions.
//! - R2 A value is chosen by a majority of its parent's voters *and* of its own. So all proposals
//!   for one version compete for the same majority, and the successors' majority holds it too.
//! - R3 Who votes for a value at a ballot had it prepared by a majority of its parent's voters, and
//!   a value is proposed again only when a majority of its own voters promised as well, unless it is
//!   known to be chosen: then its own suffice. Of all that the promises tell, the highest ballot is
//!   taken.
//! - R4 An acceptor answers only what is durable, never goes back on a promise, and is counted by
//!   incarnation: one that lost its memory is another voter, and empty.
//!
//! With these, by induction over ballots: after a value is chosen at ballot b, every vote at a
//! ballot above b is for it or for a descendant of it.

mod ballot;
mod message;
mod store;
mod value;
mod voters;

pub use ballot::{Ballot, ROUND_MAX};
pub use message::{AcceptorState, Body, Message};
pub use store::{ConfigStore, Outcome, Refusal, Request, Ticket};
pub use value::{Accepted, Misfit, Proposal, Value, succession};
pub use voters::{VOTERS_MAX, Voter, Voters};

use standfast_wal::NodeId;
use std::time::Duration;

/// Operations that may wait behind the one that runs.
pub const QUEUE_MAX: usize = 16;

/// What happens to a register. Everything else comes by `ConfigStore::submit` and `cancel`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// From another node; `from` is what the connection's greeting proved.
    Message { from: Voter, message: Message },
    /// The state of `Effect::Persist` with this serial, hence all before it, is durable.
    Persisted(u64),
    /// A value known to be chosen from elsewhere: a heartbeat, this node's own meta file.
    Learned(Value),
    /// `deadline()` has passed. Too early is harmless.
    Timeout,
}

/// What must be done for a register; to one target in order, to different targets in any order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// May be lost. Never to the node itself.
    Send { to: NodeId, message: Message },
    /// Make this the acceptor's durable state, then give `Input::Persisted(serial)`. A newer one
    /// replaces those before it.
    Persist { serial: u64, state: AcceptorState },
    /// An operation ended.
    Done { ticket: Ticket, outcome: Outcome },
    /// A newer value is known to be chosen. Worth remembering, not needed for safety.
    Known(Value),
    /// An input made no sense, or none any more. To be counted; logged where `is_suspicious`.
    Ignored { from: Option<Voter>, reason: Reason },
}

/// Why an input was ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Reason {
    #[error("it belongs to another history's register")]
    OtherHistory,
    #[error("its ballot is not the sender's, or out of range")]
    NotItsBallot,
    #[error("no correct node can have made this value")]
    Unsound,
    #[error("it asks for the vote of a node that is no voter of that value")]
    NotAVoter,
    #[error("it votes otherwise at a ballot that has a vote already")]
    TwoValuesAtOneBallot,
    #[error("it answers what is not asked any more")]
    Late,
    #[error("it comes from an incarnation that does not count")]
    DoesNotCount,
    #[error("more answers wait for the disk than are kept")]
    DiskIsBehind,
    #[error("a majority of the voters has forgotten a value that was chosen")]
    VotersForgot,
}

impl Reason {
    /// Whether an operator should hear of it: lateness and races are ordinary.
    pub fn is_suspicious(self) -> bool {
        !matches!(
            self,
            Reason::Late | Reason::DoesNotCount | Reason::DiskIsBehind
        )
    }
}

/// How patient a proposer is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timing {
    /// After which an unanswered message is sent again.
    pub resend: Duration,
    /// The least wait after a ballot was refused; doubles with every refusal, up to `backoff_max`,
    /// and is spread at random up to twice that.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            resend: Duration::from_millis(100),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(200),
        }
    }
}
