//! What registers say to each other, and what an acceptor keeps on its disk.

use super::ballot::Ballot;
use super::value::{Accepted, Proposal, Value};
use serde::{Deserialize, Serialize};
use standfast_wal::History;
use std::fmt;

/// One message between the registers of two nodes. May be lost, doubled, delayed, reordered.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Another history's register is another register.
    pub history: History,
    pub body: Body,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Body {
    /// Proposer to voter: promise to refuse everything below `ballot`, and tell what you hold.
    /// `known` is the version of the newest value that the sender knows to be chosen: who knows a
    /// newer one answers with `Chosen` as well.
    Prepare { ballot: Ballot, known: u64 },
    /// The answer, once the promise is durable.
    Promised {
        ballot: Ballot,
        accepted: Option<Accepted>,
    },
    /// Proposer to voter: vote for this.
    Accept { ballot: Ballot, proposal: Proposal },
    /// The answer, once the vote is durable. `settled`: it was for a proposal without a parent.
    Accepted { ballot: Ballot, settled: bool },
    /// The answer to a `ballot` below what was promised.
    Refused { ballot: Ballot, promised: Ballot },
    /// A fact: this value is, or was, chosen. Sent to whoever may not know; never needed.
    Chosen { value: Value },
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Prepare { ballot, known } => write!(f, "Prepare {ballot} known v{known}"),
            Body::Promised { ballot, accepted } => match accepted {
                Some(vote) => write!(
                    f,
                    "Promised {ballot} holds {} {:?}",
                    vote.ballot, vote.proposal.value
                ),
                None => write!(f, "Promised {ballot} holds nothing"),
            },
            Body::Accept { ballot, proposal } => match &proposal.parent {
                Some(parent) => write!(f, "Accept {ballot} {:?} after {parent:?}", proposal.value),
                None => write!(f, "Accept {ballot} {:?} chosen", proposal.value),
            },
            Body::Accepted { ballot, .. } => write!(f, "Accepted {ballot}"),
            Body::Refused { ballot, promised } => write!(f, "Refused {ballot} below {promised}"),
            Body::Chosen { value } => write!(f, "Chosen {value:?}"),
        }
    }
}

/// An acceptor's memory. Lost memory is a lost voter: it must come back as another incarnation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct AcceptorState {
    pub history: History,
    /// No ballot below this is answered any more.
    pub promised: Ballot,
    pub accepted: Option<Accepted>,
}

impl AcceptorState {
    /// Of a node that has never voted in `history`.
    pub fn empty(history: History) -> AcceptorState {
        AcceptorState {
            history,
            promised: Ballot::ZERO,
            accepted: None,
        }
    }

    /// Of each voter of a register's first value, which is chosen by decree: when a cluster or,
    /// by force or restore, a new history is founded. All its voters must start with the same.
    pub fn genesis(value: Value) -> AcceptorState {
        assert!(
            value.is_sound(value.history),
            "a register starts with voters that are members: {:?}",
            *value
        );
        AcceptorState {
            history: value.history,
            promised: Ballot::GENESIS,
            accepted: Some(Accepted {
                ballot: Ballot::GENESIS,
                proposal: Proposal::settled(value),
            }),
        }
    }
}
