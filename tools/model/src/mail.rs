//! The network: a set of messages that only grows. Any of them may arrive now, later, again, or
//! never, at the process that is there then; which covers loss, doubling and every order.
//!
//! A message that can never again change anything is dropped, so that states differ only by what
//! matters. The rules for that are here; each is exact, with its reason.

use standfast::replication::{Body, Message};
use standfast_wal::Nonce;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Letter {
    pub from: u8,
    pub to: u8,
    pub message: Message,
}

/// What decides whether a letter is dead, of its sender and of its receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The epoch of which it is primary.
    pub reign: Option<u64>,
    pub attempt: Option<Nonce>,
    /// The fence on its disk.
    pub durable_fence: u64,
}

impl Letter {
    /// Whether it cannot change anything at its receiver any more, nor cause an answer that could
    /// change anything at its sender.
    pub fn is_dead(&self, from: &Standing, to: &Standing) -> bool {
        match &self.message.body {
            // A process that was primary of an epoch and is not any more never will be again.
            Body::Acked { epoch, .. }
            | Body::Heard { epoch, .. }
            | Body::Followed { epoch, .. } => to.reign != Some(epoch.0),
            // Attempts are never taken up again.
            Body::Asked { attempt, .. }
            | Body::Fenced { attempt, .. }
            | Body::Fetched { attempt, .. } => to.attempt != Some(*attempt),
            Body::Fetch { attempt, .. } => from.attempt != Some(*attempt),
            // It will be refused for ever, by a fence that no crash takes back; and who is told of
            // it is primary of that epoch no more.
            Body::Follow { epoch, .. }
            | Body::Append { epoch, .. }
            | Body::HandOver { epoch, .. } => {
                to.durable_fence > epoch.0 && from.reign != Some(epoch.0)
            }
            Body::Heartbeat(beat) => {
                to.durable_fence > beat.epoch.0 && from.reign != Some(beat.epoch.0)
            }
            // The receiver has promised as much, durably, and nobody waits for its answer.
            Body::Fence { fence, attempt } => {
                to.durable_fence >= fence.epoch.0 && from.attempt != Some(*attempt)
            }
            // Only a primary below that fence minds; one that is no primary and has promised as
            // much will never be primary below it.
            Body::Refused { fence, .. } => match to.reign {
                Some(reign) => reign >= fence.epoch.0,
                None => to.durable_fence >= fence.epoch.0,
            },
            _ => false,
        }
    }
}
