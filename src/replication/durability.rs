//! The durable small state at work: edits of Meta, what waits for them, and owed fence answers.
//!
//! Keeps "nothing is answered on the strength of what is not durable": an answer that rests on an
//! edit waits here until that edit, persisted whole, is reported durable.

use crate::replication::fence::Fence;
use crate::replication::io::Effect;
use crate::replication::message::{Body, Message};
use crate::replication::meta::Meta;
use crate::replication::node::Node;
use crate::replication::register::{self, ConfigStore};
use standfast_wal::{NodeId, Nonce};
use std::collections::VecDeque;

/// A fence answer that is owed once fence and log are durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Owed {
    attempt: Nonce,
    fence: Fence,
}

/// Edits of Meta and what waits for them.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct Edits {
    /// Number of the newest edit; the serial of the Persist that carries it.
    pub(super) made: u64,
    pub(super) issued: u64,
    pub(super) durable: u64,
    /// Fence carried by each Persist under way.
    pub(super) fences: VecDeque<(u64, Fence)>,
    /// The register's own serials, by the edit that carries them.
    pub(super) register: VecDeque<(u64, u64)>,
    /// Messages that may go once an edit is durable.
    pub(super) waiting: VecDeque<(u64, NodeId, Message)>,
}

impl Node {
    /// Changes Meta; the edit is persisted whole at the end of the step.
    pub fn edit(&mut self, change: impl FnOnce(&mut Meta)) {
        let before = self.meta.fence;
        change(&mut self.meta);
        // I3: a fence never falls, whatever else changes.
        assert!(
            self.meta.fence >= before,
            "I3: fence {} after {before}",
            self.meta.fence
        );
        self.edits.made += 1;
    }

    /// Hands the newest Meta to the shell, one at a time.
    pub fn persist_edits(&mut self) {
        let edits = &mut self.edits;
        if edits.made > edits.issued && edits.issued == edits.durable {
            edits.issued = edits.made;
            edits.fences.push_back((edits.made, self.meta.fence));
            let meta = Box::new(self.meta.clone());
            self.out.push(Effect::Persist(meta, edits.made));
        }
    }

    pub fn on_persisted(&mut self, serial: u64) {
        let edits = &mut self.edits;
        assert!(
            serial <= edits.issued,
            "persisted {serial}, but the last handed out is {}",
            edits.issued
        );
        edits.durable = edits.durable.max(serial);
        while let Some((_, fence)) = take_if(&mut edits.fences, |(edit, _)| *edit <= serial) {
            self.durable_fence = fence;
        }
        while let Some(ready) = take_if(&mut edits.waiting, |(edit, ..)| *edit <= serial) {
            self.out.push(Effect::Send(ready.1, ready.2));
        }
        let mut newest = None;
        while let Some((_, own)) = take_if(&mut edits.register, |(edit, _)| *edit <= serial) {
            newest = Some(own);
        }
        if let Some(own) = newest {
            let input = register::Input::Persisted(own);
            self.register
                .step(self.now, input, &mut self.register_effects);
        }
        self.run_register();
        self.answer_fences();
    }

    /// Raises the fence; nothing is answered until that is durable.
    pub fn raise_fence(&mut self, fence: Fence) {
        if fence > self.meta.fence {
            self.edit(|meta| meta.fence = fence);
        }
    }

    pub fn fence_is_durable(&self, fence: Fence) -> bool {
        self.durable_fence >= fence
    }

    // Fence answers

    /// Will answer once the fence and all that was accepted before it is durable.
    pub fn owe_fenced(&mut self, to: NodeId, attempt: Nonce, fence: Fence) {
        self.owed.insert(to, Owed { attempt, fence });
        self.answer_fences();
    }

    pub fn answer_fences(&mut self) {
        if self.owed.is_empty() || !self.log.is_all_durable() {
            return;
        }
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|(_, owed)| self.fence_is_durable(owed.fence));
        self.owed = waiting.into_iter().collect();
        for (to, owed) in ready {
            // Promised away to a higher reign meanwhile: this answer would promise less.
            if owed.fence == self.meta.fence {
                let body = Body::Fenced {
                    fence: owed.fence,
                    attempt: owed.attempt,
                    last: self.log.tip().position,
                    commit: self.log.commit,
                    suspect: self.meta.suspect,
                    wall: self.wall_now().unwrap_or(0),
                    epochs: self.log.epochs.clone(),
                };
                self.send(to, body);
            }
        }
    }
}

/// Takes the front of a queue when it is ready.
fn take_if<T>(queue: &mut VecDeque<T>, ready: impl Fn(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(ready) {
        queue.pop_front()
    } else {
        None
    }
}
