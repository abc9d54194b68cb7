//! A restored directory that somebody opens beside the cluster that it is a copy of, under the
//! number of a node that lives: quarantined, it takes nobody in, serves no write, ships nothing,
//! and the cluster goes on as if it were not there.

use crate::simulate::clock::Clock;
use crate::simulate::node::{Process, Wants};
use crate::simulate::plan;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::starter::Starter;
use crate::simulate::world::{CLUSTER, MS, World};
use bytes::BytesMut;
use standfast::cli::restore::{Past, make};
use standfast::node::client::{Control, Op, Request, SessionId};
use standfast::node::directory::sim::SimDir;
use standfast::node::engine::Event;
use standfast::node::link::LinkEvent;
use standfast::node::wire::{Frame, Head};
use standfast::replication::config::{Addresses, MemberRole};
use standfast::replication::{Body, Introduction, Message};
use standfast::state::Command;
use standfast_wal::{Incarnation, Lsn, NodeId, Nonce};

/// Frames that wait for it at most.
const INBOX_MAX: usize = 200;
/// Nobody in the world has this number.
const STRANGER: NodeId = NodeId(77);

/// One that is open.
pub struct Copy {
    process: Process,
    clock: Clock,
    /// Whose number it has.
    place: usize,
    incarnation: Incarnation,
    until: u64,
    inbox: Vec<Event>,
    wake_at: u64,
}

impl World {
    /// Opens what was restored, if none is open.
    pub(super) fn open_restored(
        &mut self,
        mut past: Past,
        random: &mut Random,
    ) -> Result<(), String> {
        let holds = |place: &usize| self.nodes[*place].introduction.role == MemberRole::Data;
        let places: Vec<usize> = (0..self.plan.members).filter(holds).collect();
        let place = random.pick(&places);
        let this = &self.nodes[place];
        let introduction = Introduction {
            asked: false,
            ..this.introduction.clone()
        };
        let incarnation = Incarnation(random.wide());
        let nonce = Nonce(random.wide());
        let new = past.node(this.id, incarnation, random.wide(), nonce);
        let member = plan::member(&introduction, incarnation);
        let dir = SimDir::new(random.next());
        let restored = (new.link.position.lsn, past.rebuilt.state.digest());
        make(&dir, &mut past.rebuilt, new, member, 1)?;
        let starter = Starter {
            id: this.id,
            cluster: CLUSTER,
            alone: false,
            may_cut: false,
            introduction: &introduction,
        };
        let clock = Clock::new(place, 0, 0);
        let tuning = &self.plan.tuning;
        let started = Process::start(&dir, clock.read(self.now), random, tuning, &starter);
        let mut process =
            started.map_err(|why| format!("a restored copy does not start: {why}"))?;
        process.archives(self.offsite.as_ref(), tuning);
        if process.engine.applied() != restored {
            return Err(format!(
                "a restored copy starts at {:?}",
                process.engine.applied()
            ));
        }
        self.observer.strangers.insert(incarnation);
        self.summary.copies_opened += 1;
        let mut inbox = self.knocks(place, random);
        let first = inbox.split_off(inbox.len() / 2);
        let offsite = self.offsite.as_mut().expect("it was restored from there");
        offsite.copy = Some(Copy {
            process,
            clock,
            place,
            incarnation,
            until: self.now + random.between(100 * MS, 3000 * MS),
            inbox,
            wake_at: self.now + 100 * MS,
        });
        self.queue.push(self.now + 100 * MS, Happening::Copy);
        self.copy_turn(first)
    }

    /// What comes to its door: its peers are there, somebody wants to be taken in, an operator
    /// wants that, too, and a client writes.
    fn knocks(&self, place: usize, random: &mut Random) -> Vec<Event> {
        let mut events = Vec::new();
        for other in (0..self.nodes.len()).filter(|other| *other != place) {
            if self.nodes[other].is_up() {
                let hello = Box::new(self.hello(other, place));
                let peer = self.nodes[other].id;
                events.push(Event::Link(LinkEvent::Up { peer, hello }));
            }
        }
        let incarnation = Incarnation(random.wide());
        let introduction = &self.nodes[place].introduction;
        let join = Body::Join {
            role: introduction.role,
            voter: introduction.voter,
            site: introduction.site.clone(),
            priority: introduction.priority,
            addresses: Addresses::default(),
            asked: true,
        };
        let message = Message {
            history: standfast::node::archive::NO_HISTORY,
            body: join,
        };
        events.push(Event::Link(LinkEvent::Frame {
            from: STRANGER,
            incarnation,
            frame: Frame::plain(Head::Core { message }),
        }));
        let add = Control::AddMember {
            id: STRANGER,
            member: plan::member(introduction, incarnation),
            voter: true,
            who: "sim".to_string(),
        };
        let mut write = BytesMut::new();
        Command::FlushAll.encode(&mut write);
        let ops = [Op::Control(Box::new(add)), Op::Write(write.freeze())];
        events.extend(ops.into_iter().zip(1..).map(|(op, seq)| Event::Submit {
            session: SessionId(seq),
            requests: vec![Request { seq: 1, op }],
        }));
        events
    }

    /// A node sends something to the number that the copy has: it may be where the copy listens.
    pub fn overhears(&mut self, from: usize, to: usize, frame: &Frame) {
        let Some(copy) = self.offsite.as_mut().and_then(|it| it.copy.as_mut()) else {
            return;
        };
        if copy.place == to && copy.inbox.len() < INBOX_MAX {
            let this = &self.nodes[from];
            copy.inbox.push(Event::Link(LinkEvent::Frame {
                from: this.id,
                incarnation: this.incarnation,
                frame: frame.clone(),
            }));
        }
    }

    /// It takes what has come, or its own deadline has.
    pub fn copy_wakes(&mut self) -> Result<(), String> {
        let offsite = self.offsite.as_mut().expect("it was restored from there");
        let Some(copy) = &mut offsite.copy else {
            return Ok(());
        };
        if copy.wake_at > self.now {
            return Ok(());
        }
        if copy.until <= self.now {
            offsite.copy = None;
            return Ok(());
        }
        let events = std::mem::take(&mut copy.inbox);
        self.copy_turn(events)
    }

    fn copy_turn(&mut self, mut events: Vec<Event>) -> Result<(), String> {
        let (now, mut frames) = (self.now, Vec::new());
        let offsite = self.offsite.as_mut().expect("it was restored from there");
        let copy = offsite.copy.as_mut().expect("it is open");
        loop {
            let wants = copy.process.turn(copy.clock.read(now), events);
            copy.keeps_to_itself(&wants)?;
            frames.extend(wants.frames);
            events = wants.events;
            if wants.log_work || wants.log_idle {
                events.extend(copy.process.log_done());
            }
            if wants.meta_work {
                events.extend(copy.process.meta_done());
            }
            if events.is_empty() {
                break;
            }
        }
        let deadline = copy.process.engine.deadline();
        let at = deadline.map_or(u64::MAX, |at| copy.clock.when(now, at.0));
        copy.wake_at = at.clamp(now + MS, now + 100 * MS);
        let (at, place, incarnation) = (copy.wake_at, copy.place, copy.incarnation);
        self.queue.push(at, Happening::Copy);
        let from = self.nodes[place].id;
        for (to, frame) in frames {
            let to = to.0 as usize;
            if to < self.nodes.len() && self.nodes[to].is_up() {
                let frame = LinkEvent::Frame {
                    from,
                    incarnation,
                    frame,
                };
                self.turn(to, vec![Event::Link(frame)])?;
            }
        }
        Ok(())
    }
}

impl Copy {
    fn keeps_to_itself(&self, wants: &Wants) -> Result<(), String> {
        let config = self.process.engine.replica().config();
        if let Some(story) = &wants.halted {
            return Err(format!("a restored copy: {story}"));
        }
        if wants.ships {
            return Err("a restored copy ships into the archive".to_string());
        }
        if config.members.len() != 1 {
            return Err(format!("a restored copy has taken somebody in: {config:?}"));
        }
        let written = wants.answers.iter().find(|(_, a)| a.lsn > Lsn::ZERO);
        match written {
            Some((_, answer)) => Err(format!("a restored copy took a write: {answer:?}")),
            None => Ok(()),
        }
    }
}
