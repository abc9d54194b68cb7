//! What leaves a node would survive the loss of its power in that moment: fences, votes, records.
//!
//! A node says such a thing only when it is durable (2-replication, "Durable before said"). So with
//! each such message a copy of its meta file's disk loses power, and what is left is read; of the
//! log, what its owner has synced counts, and now and then a copy of all disks is opened.

use crate::simulate::starter::opening_of;
use crate::simulate::world::World;
use standfast::node::directory::sim::SimDir;
use standfast::node::meta::{self, MetaFile};
use standfast::node::open;
use standfast::node::wire::{Frame, Head};
use standfast::replication::register::{Ballot, Body as Vote};
use standfast::replication::{Body, EpochTable, Fence, Message, Meta};
use standfast_wal::storage::sim::Faults;
use standfast_wal::{Lsn, Position};

/// One claim in so many, and the first of each process, which rests on what it has read, is held
/// against a whole start on what a crash would leave.
const STARTS_ONE_IN: u64 = 400;

/// What is known to be on a node's disk: it is not read again for less.
#[derive(Clone, Default)]
pub struct Kept {
    life: u64,
    fence: Fence,
    promised: Ballot,
    claims: u64,
}

/// Whether nothing that the one meta file says was promised, voted or chosen is missing in another.
fn has_all_of(meta: &Meta, other: &Meta) -> bool {
    let votes = |meta: &Meta| {
        let acceptor = &meta.acceptor;
        let voted = acceptor.accepted.as_ref().map(|vote| vote.ballot);
        let (promised, history) = (acceptor.promised, acceptor.history);
        ((history, promised), (history, voted))
    };
    let config = |meta: &Meta| (meta.config.history, meta.config.version);
    let ((promised, voted), (others_promised, others_voted)) = (votes(meta), votes(other));
    meta.fence >= other.fence
        && promised >= others_promised
        && voted >= others_voted
        && config(meta) >= config(other)
}

impl World {
    /// A frame leaves a node.
    pub fn says_what_it_kept(&mut self, from: usize, frame: &Frame) -> Result<(), String> {
        let Head::Core { message } = &frame.head else {
            return Ok(());
        };
        if self.nodes[from].harmed.is_some() {
            return Ok(()); // What rotted was there.
        }
        if self.kept[from].life != self.nodes[from].life {
            self.kept[from] = Kept {
                life: self.nodes[from].life,
                ..Kept::default()
            };
        }
        self.holds_what_it_says(from, message)
            .map_err(|story| format!("n{from} says what is not durable: {story}: {message}"))
    }

    fn holds_what_it_says(&mut self, from: usize, message: &Message) -> Result<(), String> {
        let reign = |epoch| Fence {
            history: message.history,
            epoch,
        };
        match &message.body {
            Body::Fenced {
                fence,
                last,
                epochs,
                ..
            } => {
                self.holds_fence(from, *fence)?;
                self.holds_log(from, last.lsn, Some((*last, epochs)))
            }
            Body::Acked { epoch, matched, .. } | Body::Heard { epoch, matched, .. } => {
                self.holds_fence(from, reign(*epoch))?;
                self.holds_log(from, *matched, None)
            }
            Body::Followed { epoch, agreed, .. } => {
                self.holds_fence(from, reign(*epoch))?;
                self.holds_log(from, *agreed, None)
            }
            Body::Register(vote) => match &vote.body {
                Vote::Promised { ballot, accepted } => {
                    let least = accepted.as_ref().map(|vote| vote.ballot);
                    self.holds_votes(from, vote.history, *ballot, least)
                }
                Vote::Accepted { ballot, .. } => {
                    self.holds_votes(from, vote.history, *ballot, Some(*ballot))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A process has started: it goes by all that the meta file held, and by nothing that a loss of
    /// power would take away. What it tells nobody counts, too: alone it promises to itself.
    pub fn starts_with_what_is_kept(
        &mut self,
        node: usize,
        before: Option<&Meta>,
        now: &Meta,
    ) -> Result<(), String> {
        let same = |meta: &&Meta| meta.incarnation == now.incarnation;
        let Some(before) = before.filter(same) else {
            return Ok(());
        };
        if self.nodes[node].harmed.is_some() {
            return Ok(());
        }
        let after_crash = self.meta_after_crash(node)?;
        let (read, kept) = (has_all_of(now, before), has_all_of(&after_crash, now));
        if !read || !kept {
            return Err(format!(
                "n{node} goes by {now:?}; its meta file held {before:?}, and a loss of power would \
                 leave {after_crash:?}"
            ));
        }
        Ok(())
    }

    /// The meta file as a loss of power would leave it.
    fn meta_after_crash(&mut self, node: usize) -> Result<Meta, String> {
        let seed = self.dice.check.next();
        let disk = self.nodes[node].disks.root.fork(seed).crash();
        let bytes = disk.contents(meta::FILE).ok_or("there is no meta file")?;
        let meta = MetaFile::decode(&bytes).map_err(|error| error.to_string())?;
        Ok(meta.core)
    }

    fn holds_fence(&mut self, node: usize, said: Fence) -> Result<(), String> {
        if said <= self.kept[node].fence {
            return Ok(());
        }
        let kept = self.meta_after_crash(node)?.fence;
        if kept < said {
            return Err(format!("its disk holds fence {kept}"));
        }
        self.kept[node].fence = kept;
        Ok(())
    }

    fn holds_votes(
        &mut self,
        node: usize,
        history: standfast_wal::History,
        promised: Ballot,
        voted: Option<Ballot>,
    ) -> Result<(), String> {
        if voted.is_none() && promised <= self.kept[node].promised {
            return Ok(());
        }
        let acceptor = self.meta_after_crash(node)?.acceptor;
        if acceptor.history != history {
            return Ok(()); // It has begun another register since.
        }
        let kept = acceptor.accepted.as_ref().map(|vote| vote.ballot);
        if acceptor.promised < promised || kept < voted {
            return Err(format!(
                "its disk holds promise {} and vote {kept:?}",
                acceptor.promised
            ));
        }
        self.kept[node].promised = acceptor.promised;
        Ok(())
    }

    /// Records through `said` are synced; `end`: where a fenced log ends, and its reigns.
    fn holds_log(
        &mut self,
        node: usize,
        said: Lsn,
        end: Option<(Position, &EpochTable)>,
    ) -> Result<(), String> {
        let Some(process) = &self.nodes[node].process else {
            return Ok(());
        };
        let Some(synced) = process.synced() else {
            return match said {
                Lsn::ZERO => Ok(()),
                _ => Err("a witness has no log".to_string()),
            };
        };
        if synced < said {
            return Err(format!("its log is synced through {synced}"));
        }
        self.kept[node].claims += 1;
        let is_due = end.is_some() || self.kept[node].claims % STARTS_ONE_IN == 1;
        let may_start = !self.nodes[node].failing && !self.nodes[node].dying;
        match is_due && may_start {
            true => self.starts_with(node, said, end),
            false => Ok(()),
        }
    }

    /// A start on what a loss of power leaves finds these records.
    fn starts_with(
        &mut self,
        node: usize,
        said: Lsn,
        end: Option<(Position, &EpochTable)>,
    ) -> Result<(), String> {
        let this = &self.nodes[node];
        let seed = self.dice.check.next();
        let [root, wal, snapshots] = this.disks.each().map(|disk| {
            let left = disk.fork(seed).crash();
            // What is there is looked at, not whether it can be read in the first try.
            left.set_faults(Faults::default());
            left
        });
        let left = SimDir {
            root,
            wal,
            snapshots,
        };
        let alone = self.nodes.len() == 1;
        let opening = opening_of(this.id, alone, &self.plan.tuning, &this.introduction);
        let mut random = || self.dice.check.wide();
        let opened = open::open(&left, &opening, &mut random);
        let opened = opened.map_err(|error| format!("it would not start: {error}"))?;
        let tip = opened.facts.tip.position.lsn;
        if tip < said {
            return Err(format!("it would start with a log that ends at {tip}"));
        }
        if let Some((last, epochs)) = end {
            let (kept, told) = (opened.facts.epochs.at(last.lsn), epochs.at(last.lsn));
            if kept != told {
                return Err(format!("it would start with {kept:?}, not {told:?}"));
            }
        }
        Ok(())
    }
}
