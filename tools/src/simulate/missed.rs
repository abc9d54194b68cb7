//! What comes to a process while it is stopped, and in which order it is read afterwards.

use super::random::Random;
use standfast::node::client::SessionId;
use standfast::node::engine::Event;
use standfast::node::link::LinkEvent;
use standfast_wal::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// Who said something: a peer, a client's session, or this node's own disks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Peer(NodeId),
    Session(SessionId),
    Itself,
}

impl Source {
    fn of(event: &Event) -> Source {
        match event {
            Event::Submit { session, .. } => Source::Session(*session),
            Event::Link(LinkEvent::Up { peer, .. }) => Source::Peer(*peer),
            Event::Link(LinkEvent::Down { peer } | LinkEvent::Refused { peer }) => {
                Source::Peer(*peer)
            }
            Event::Link(LinkEvent::Frame { from, .. }) => Source::Peer(*from),
            _ => Source::Itself,
        }
    }
}

/// What came while a process was stopped is read in any order, but each source's in its own.
pub fn shuffled(events: Vec<Event>, random: &mut Random) -> Vec<Event> {
    let mut sources: BTreeMap<Source, VecDeque<Event>> = BTreeMap::new();
    for event in events {
        let source = Source::of(&event);
        sources.entry(source).or_default().push_back(event);
    }
    let mut left: Vec<VecDeque<Event>> = sources.into_values().collect();
    let mut all = Vec::new();
    while !left.is_empty() {
        let place = random.index(left.len());
        // Runs of one source, as one read of a socket gives them.
        for _ in 0..random.between(1, 8) {
            all.extend(left[place].pop_front());
        }
        if left[place].is_empty() {
            left.swap_remove(place);
        }
    }
    all
}
