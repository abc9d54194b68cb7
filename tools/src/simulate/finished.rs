//! Snapshots whose files are finished and of which the node has not been told: it may have another
//! state by then.

use crate::simulate::world::SECOND;
use standfast::node::copies::CopyEvent;
use std::collections::VecDeque;

/// So long one that was given up may be finished after all (ns): nothing says that its thread is
/// quicker than the next one's.
const IN_VAIN: u64 = 10 * SECOND;

/// When each is told, in order (ns).
#[derive(Default)]
pub struct Finished(VecDeque<(u64, CopyEvent)>);

impl Finished {
    pub fn tell_at(&mut self, due: u64, event: CopyEvent) {
        self.0.push_back((due, event));
    }

    /// What the node is told now. While it takes no snapshot the oldest was given up: that is told
    /// when the next is under way, if one begins soon.
    pub fn next(&mut self, now: u64, takes_another: bool) -> Option<CopyEvent> {
        let wait = if takes_another { 0 } else { IN_VAIN };
        let (due, _) = self.0.front()?;
        let is_due = due + wait <= now;
        is_due.then(|| self.0.pop_front().expect("there is one").1)
    }

    /// The oldest's time.
    pub fn first(&self) -> Option<u64> {
        self.0.front().map(|(due, _)| *due)
    }
}
