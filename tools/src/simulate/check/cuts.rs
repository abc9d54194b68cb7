//! A cut is all or nothing: what a loss of power anywhere inside it leaves is the log before it or
//! after it, and once it is reported done, after it.
//!
//! Each cut is rehearsed on a copy of the disks that stops after some operation and loses power;
//! and so is each start after a process that had died within its disk's work.

use crate::simulate::starter::opening_of;
use crate::simulate::world::World;
use standfast::node::directory::sim::SimDir;
use standfast::node::open::{self, Opened};
use standfast_wal::Lsn;

/// Operations of the disk after which a rehearsal stops at the latest: more than a cut takes.
const OPERATIONS_MAX: u64 = 24;
const REHEARSALS: u64 = 12;

impl World {
    fn may_rehearse(&self, node: usize) -> bool {
        let this = &self.nodes[node];
        this.is_up() && !this.failing && !this.dying && this.harmed.is_none()
    }

    /// A copy of a node's disks, of another life.
    fn disks_of(&mut self, node: usize) -> SimDir {
        let seed = self.dice.check.next();
        let disks = self.nodes[node].disks.each();
        let [root, wal, snapshots] = disks.map(|disk| disk.fork(seed).restart());
        SimDir {
            root,
            wal,
            snapshots,
        }
    }

    fn open_copy(&mut self, node: usize, disks: &SimDir) -> Result<Opened<SimDir>, String> {
        let this = &self.nodes[node];
        let alone = self.nodes.len() == 1;
        let opening = opening_of(this.id, alone, &self.plan.tuning, &this.introduction);
        let opened = open::open(disks, &opening, &mut || self.dice.check.wide());
        let opened = opened.map_err(|error| error.to_string())?;
        match opened.meta.core.incarnation == this.incarnation {
            true => Ok(opened),
            false => Err("its log is taken for damaged".to_string()),
        }
    }

    /// The log's owner is about to cut.
    pub fn rehearse_cut(&mut self, node: usize, after: Lsn) -> Result<(), String> {
        for _ in 0..REHEARSALS {
            if self.may_rehearse(node) {
                self.cut_and_lose_power(node, after).map_err(|story| {
                    format!("n{node}: a loss of power in a cut to {after}: {story}")
                })?;
            }
        }
        Ok(())
    }

    fn cut_and_lose_power(&mut self, node: usize, after: Lsn) -> Result<(), String> {
        let mut disks = self.disks_of(node);
        let mut opened = self.open_copy(node, &disks)?;
        let before = opened.facts.tip.position.lsn;
        let Some(log) = opened.log.as_mut().filter(|_| before > after) else {
            return Ok(()); // What is cut is not on the disk yet.
        };
        let was_suspect = opened.facts.suspect;
        let operations = self.dice.check.below(OPERATIONS_MAX);
        disks.wal.halt_after(operations);
        let is_done = log.cut(after).is_ok();
        drop(opened);
        disks.crash();
        let facts = self.open_copy(node, &disks)?.facts;
        let end = facts.tip.position.lsn;
        let is_whole = end == after || !is_done && end == before;
        if !is_whole || facts.suspect != was_suspect {
            return Err(format!(
                "done: {is_done}; after {operations} operations it ends at {end}, not at {before} \
                 as before; suspect: {}",
                facts.suspect
            ));
        }
        Ok(())
    }

    /// A process starts on what another one had written and not synced. Wherever that start stops
    /// and the power goes with it, nothing is taken for damaged.
    pub fn rehearse_start(&mut self, node: usize) -> Result<(), String> {
        let this = &mut self.nodes[node];
        let is_due = std::mem::take(&mut this.has_unsynced);
        if !is_due || this.failing || this.dying || this.harmed.is_some() {
            return Ok(());
        }
        for _ in 0..REHEARSALS {
            let mut disks = self.disks_of(node);
            let operations = self.dice.check.below(OPERATIONS_MAX / 2);
            disks.wal.halt_after(operations);
            let _ = self.open_copy(node, &disks);
            disks.crash();
            let Err(story) = self.open_copy(node, &disks) else {
                continue;
            };
            // Alone, what was torn out of order is the operator's to judge.
            if self.nodes.len() == 1 && story.contains("--cut-damaged-end") {
                continue;
            }
            return Err(format!(
                "n{node}: a start stops after {operations} operations, and then {story}"
            ));
        }
        Ok(())
    }

    /// A cut was reported done, and nothing was appended since.
    pub fn cut_is_kept(&mut self, node: usize, after: Lsn) -> Result<(), String> {
        if !self.may_rehearse(node) {
            return Ok(());
        }
        let mut disks = self.disks_of(node);
        disks.crash();
        let end = self.open_copy(node, &disks)?.facts.tip.position.lsn;
        match end == after {
            true => Ok(()),
            false => Err(format!(
                "n{node} reports a cut to {after}, and a loss of power leaves a log that ends at \
                 {end}"
            )),
        }
    }
}
