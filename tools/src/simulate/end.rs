//! The end of a run: no fault strikes any more, and within a bounded time the cluster serves again
//! and all copies are equal.

use super::node::Process;
use super::queue::Happening;
use super::world::{HEAL, SECOND, World};
use standfast::limits::VOTERS_MAX;
use standfast::replication::Config;
use standfast::replication::config::{MemberRole, Protection};
use standfast_wal::{Epoch, History};

/// How long after the last request open holds are looked at: some end by themselves meanwhile.
const SETTLE: u64 = 2 * SECOND;

impl World {
    pub fn begin_calm(&mut self) {
        self.calm = Some(self.now);
        self.summary.faults = self.faults.struck.clone();
        self.say(|| "--- the faults have ended".to_string());
        for partition in self.net.partitions() {
            self.heal(partition);
        }
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.net.hasten(from, to);
            }
        }
        for node in 0..self.nodes.len() {
            self.mend(node);
            let is_known = node < self.plan.members || self.nodes[node].life > 0;
            self.queue.push(self.now, Happening::Resume { node });
            if is_known {
                self.queue.push(self.now, Happening::Restart { node });
            }
        }
        // Whoever forced something puts the pieces together.
        self.store_changes();
        self.plan.operator_pause = self.plan.operator_pause.map(|_| [SECOND, SECOND]);
    }

    /// Once the cluster is whole, and takes writes, nobody asks for anything more; then all copies
    /// become equal, and what is due ends by itself.
    pub fn is_over(&mut self) -> Result<bool, String> {
        let since = self.now - self.calm.unwrap_or(self.now);
        if let Some(offsite) = self.offsite.as_mut().filter(|_| since > HEAL / 2) {
            offsite.hasten();
        }
        let Some(config) = self.whole_cluster() else {
            return Ok(false);
        };
        let reign = (config.history, config.epoch);
        if self.quiet.is_none() && !self.takes_writes(reign) {
            return Ok(false);
        }
        if self.quiet.is_none() {
            self.quiet = Some(self.now);
            let since = self.now - self.calm.unwrap_or(self.now);
            self.summary.slowest_heal_ns = since;
            self.say(|| format!("--- whole again after {} ms", since / 1_000_000));
        }
        let is_settled = self.all_are_equal(&config) && self.nothing_is_overdue();
        Ok(is_settled && self.is_archived(&config)?)
    }

    /// A write is acknowledged that was asked for when this primary was seen to serve already.
    fn takes_writes(&mut self, reign: (History, Epoch)) -> bool {
        let seen = self.reign.filter(|(known, _)| *known == reign);
        let (_, since) = *self.reign.insert(seen.unwrap_or((reign, self.now)));
        self.clients.wrote.is_some_and(|asked| asked >= since)
    }

    /// Nobody has asked for a while, and yet no hold is open whose time is over by the primary's
    /// own clock.
    fn nothing_is_overdue(&self) -> bool {
        let mut nodes = self.nodes.iter();
        let primary = nodes.find_map(|node| {
            let process = node.process.as_ref()?;
            let is_serving = process.engine.replica().is_serving();
            is_serving.then_some((&process.engine, node.clock.read(self.now)))
        });
        let Some((engine, now)) = primary else {
            return false;
        };
        let Some(deadline) = engine.state().ledger().next_deadline() else {
            return true;
        };
        let is_due = engine.log_time_at(now).is_none_or(|time| deadline <= time);
        let asked_last = self.quiet.unwrap_or(self.now);
        !is_due && self.now - asked_last >= SETTLE
    }

    /// The Config of the one primary that serves, if every member is up and near, and every data
    /// node is where its protection wants it.
    fn whole_cluster(&self) -> Option<Config> {
        let mut serving = self.nodes.iter().filter_map(|node| {
            let process = node.process.as_ref().filter(|_| !node.paused)?;
            let replica = process.engine.replica();
            (replica.is_serving() && replica.admit().is_ok()).then_some(process)
        });
        let primary = serving.next()?;
        if serving.next().is_some() {
            return None;
        }
        let config = primary.engine.replica().config();
        let tip = primary.engine.replica().tip().position.lsn;
        for (id, member) in &config.members {
            let node = &self.nodes[id.0 as usize];
            let process = node.process.as_ref()?;
            let replica = process.engine.replica();
            let near = tip.0.saturating_sub(process.engine.applied().0.0) <= 64;
            let is_placed = member.role != MemberRole::Data
                || config.protection == Protection::MaxPerformance
                || config.sync_set.contains(id);
            let follows = replica.history() == config.history;
            if !(follows && is_placed && (near || member.role == MemberRole::Witness)) {
                return None;
            }
        }
        // Who was never taken out is in, after a forced promotion, too; only a witness may find
        // that the founder, who did not vote before, has taken the last seat.
        let no_seat = config.voters.len() == VOTERS_MAX;
        let missing = (0..self.plan.members).any(|node| {
            let id = self.nodes[node].id;
            let is_left_over = no_seat && self.nodes[node].introduction.role == MemberRole::Witness;
            let was_removed = self.operators.removed.contains(&node);
            !config.members.contains_key(&id) && !was_removed && !is_left_over
        });
        (!missing).then(|| config.clone())
    }

    fn all_are_equal(&self, config: &Config) -> bool {
        // What was verified against the primary is believed, by the log's own mark, too.
        // A node that was taken out meanwhile has nobody to be verified against.
        let members = config.members.keys().map(|id| &self.nodes[id.0 as usize]);
        let processes = members.filter_map(|node| node.process.as_ref());
        if processes.into_iter().any(Process::has_suspect_log) {
            return false;
        }
        let mut copies = config.members.iter().filter_map(|(id, member)| {
            let process = self.nodes[id.0 as usize].process.as_ref()?;
            let holds = member.role.holds_data();
            let end = process.engine.replica().tip().position.lsn;
            holds.then(|| (end, process.engine.applied()))
        });
        let Some(first) = copies.next() else {
            return false;
        };
        let (end, (applied, _)) = first;
        end == applied && copies.all(|copy| copy == first)
    }

    pub fn story_of_no_calm(&self) -> String {
        let mut text = format!(
            "no service, no write, no equal copies, or a hold that does not end, within {} s after the \
             faults ended; committed {:?}\n",
            HEAL / SECOND,
            self.observer.committed_through()
        );
        for node in &self.nodes {
            text += &match &node.process {
                Some(process) => {
                    let replica = process.engine.replica();
                    format!(
                        "  n{} {:?} applied {} primary config {:?}\n",
                        node.id,
                        replica.view(process.engine.core_time()),
                        process.engine.applied().0,
                        replica.config()
                    )
                }
                None => format!("  n{} is down\n", node.id),
            };
        }
        text
    }
}
