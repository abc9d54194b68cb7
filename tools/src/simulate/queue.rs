//! What will happen, by virtual time; what is due at one moment happens in the order it was queued.

use standfast::node::engine::Event;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens at a moment. Nodes, clients and pipes are named by their place in the world.
#[derive(Debug)]
pub enum Happening {
    /// The node's own deadline.
    Wake {
        node: usize,
    },
    /// The oldest bytes under way reach the far end of a pipe.
    Arrive {
        pipe: usize,
    },
    /// The log's disk has done what it was given.
    LogDone {
        node: usize,
        life: u64,
    },
    /// The meta file's disk has done what it was given.
    MetaDone {
        node: usize,
        life: u64,
    },
    /// The archive's store has done what a node's archiver asked of it.
    Shipped {
        node: usize,
        life: u64,
    },
    /// It has put one object of a snapshot.
    Put {
        node: usize,
        life: u64,
    },
    /// The archive's store changes its behaviour.
    Store,
    /// An operator removes what need not be kept in the archive.
    Expire,
    /// Somebody restores from the archive.
    Restore,
    /// What was restored and is open has its deadline.
    Copy,
    /// A node tries to reach another.
    Dial {
        from: usize,
        to: usize,
        ticket: u64,
    },
    /// The greeting has gone forth and back.
    Greeted {
        from: usize,
        to: usize,
        life: u64,
        to_life: u64,
    },
    /// The dialler learns that its pipe is broken.
    Broken {
        pipe: usize,
    },
    Restart {
        node: usize,
    },
    Crash {
        node: usize,
    },
    Resume {
        node: usize,
    },
    /// A busy node takes what has come meanwhile.
    Gathered {
        node: usize,
    },
    /// The primary that is cut off changes.
    Relay,
    /// A node stands still for a moment.
    Stop {
        node: usize,
    },
    /// A partition ends.
    Heal {
        partition: u64,
    },
    /// Slow links are as they were.
    Hasten {
        from: usize,
        to: usize,
    },
    /// A node falls silent for so long.
    Silence {
        node: usize,
        span: u64,
    },
    /// A message comes out of its pipe once more.
    Again {
        pipe: usize,
        event: Box<Event>,
    },
    /// A disk that failed, was full or slow is as it was.
    Mend {
        node: usize,
    },
    /// The next fault is due.
    Fault,
    /// An operator does something.
    Operator,
    /// An operator asks a node for a snapshot.
    Save {
        node: usize,
    },
    /// A node that is between two histories is asked for what it must not say yet.
    Between {
        node: usize,
    },
    /// A node that lacks something is told to found a history.
    Founds {
        node: usize,
    },
    /// A node that has founded a history is asked what became of the older one's writes.
    Founded {
        node: usize,
    },
    /// All are told to follow the newest history.
    Gather,
    /// A client asks for something.
    Client {
        client: usize,
    },
    /// A client has waited long enough.
    GiveUp {
        client: usize,
        step: u64,
    },
    /// The faults have ended.
    Calm,
}

struct Entry {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Everything that is to come.
#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    next: u64,
}

impl Queue {
    pub fn push(&mut self, at: u64, what: Happening) {
        let order = self.next;
        self.next += 1;
        self.heap.push(Reverse(Entry { at, order, what }));
    }

    pub fn pop(&mut self) -> Option<(u64, Happening)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}
