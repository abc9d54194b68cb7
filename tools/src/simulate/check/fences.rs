//! What a node has promised in a message, it has kept: over restarts, and in what it says later.
//!
//! Fences and votes are said only when they are durable, so a process that starts with less than
//! its predecessor said has lost, or never kept, a promise.

use standfast::replication::register::{Ballot, Body as Vote};
use standfast::replication::{Body, Fence, Message, Meta};
use standfast_wal::History;

#[derive(Clone, Default)]
struct Promises {
    fence: Fence,
    /// By the register's history: the highest ballot promised, and voted at.
    promised: (History, Ballot),
    voted: (History, Ballot),
}

pub struct Said(Vec<Promises>);

impl Said {
    pub fn new(nodes: usize) -> Said {
        Said(vec![Promises::default(); nodes])
    }

    pub fn sent(&mut self, from: usize, message: &Message) -> Result<(), String> {
        let said = &mut self.0[from];
        let history = message.history;
        match &message.body {
            Body::Fenced { fence, .. } | Body::Refused { fence, .. } => {
                said.fence = said.fence.max(*fence);
            }
            Body::Acked { epoch, .. }
            | Body::Heard { epoch, .. }
            | Body::Followed { epoch, .. } => {
                let reign = Fence {
                    history,
                    epoch: *epoch,
                };
                if reign < said.fence {
                    return Err(format!(
                        "I3: {reign} is obeyed after {} was promised: {message}",
                        said.fence
                    ));
                }
                said.fence = reign;
            }
            Body::Register(vote) => match &vote.body {
                Vote::Promised { ballot, .. } => raise(&mut said.promised, vote.history, *ballot),
                Vote::Accepted { ballot, .. } => {
                    raise(&mut said.promised, vote.history, *ballot);
                    raise(&mut said.voted, vote.history, *ballot);
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Another incarnation than before: it has promised nothing yet.
    pub fn reborn(&mut self, node: usize) {
        self.0[node] = Promises::default();
    }

    pub fn started(&self, node: usize, meta: &Meta) -> Result<(), String> {
        let said = &self.0[node];
        if meta.fence < said.fence {
            return Err(format!(
                "I3: it said fence {} and starts with {}",
                said.fence, meta.fence
            ));
        }
        let votes = &meta.acceptor;
        if said.promised.0 == votes.history && votes.promised < said.promised.1 {
            return Err(format!(
                "R4: it promised {} and starts with {}",
                said.promised.1, votes.promised
            ));
        }
        let voted = votes.accepted.as_ref().map(|vote| vote.ballot);
        if said.voted.1 > Ballot::ZERO
            && said.voted.0 == votes.history
            && voted < Some(said.voted.1)
        {
            return Err(format!(
                "R4: it voted at {} and starts with {voted:?}",
                said.voted.1
            ));
        }
        Ok(())
    }
}

fn raise(kept: &mut (History, Ballot), history: History, ballot: Ballot) {
    if kept.0 == history {
        kept.1 = kept.1.max(ballot);
    } else {
        *kept = (history, ballot);
    }
}
