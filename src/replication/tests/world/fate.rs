//! What is done to nodes: crashes, pauses, damage, partitions.

use super::*;

impl World {
    /// The process dies: what was not synced is lost, but for some first part of it.
    pub fn crash(&mut self, id: NodeId) {
        let site = self.sites.get_mut(&id).expect("a site");
        let Some(mut process) = site.process.take() else {
            return;
        };
        let survive = self.dice.below(process.busy as u64 + 1);
        for _ in 0..survive {
            if let Some(work) = process.work.pop_front() {
                disk::do_work(&mut site.disk, work);
            }
        }
        site.paused_until = 0;
        site.held.clear();
        self.note(format!("n{id} crashes"));
        self.link_news(id);
    }

    /// Power fails at the worst moment: nothing that was not synced survives.
    pub fn lose_unsynced(&mut self, id: NodeId) {
        if let Some(process) = &mut self.sites.get_mut(&id).expect("a site").process {
            process.busy = 0;
        }
        self.crash(id);
    }

    pub fn sent_to(&self, id: NodeId) -> u64 {
        self.sent.get(&id).copied().unwrap_or(0)
    }

    /// It stands still; what happens to it waits. Time passes all the same.
    pub fn pause(&mut self, id: NodeId, wait: u64) {
        let until = self.now + wait;
        self.sites.get_mut(&id).expect("a site").paused_until = until;
        self.sent.remove(&id);
        self.note(format!("n{id} pauses"));
        self.schedule(wait, id, 0, What::Resume);
    }

    pub fn resume(&mut self, id: NodeId) {
        let site = self.sites.get_mut(&id).expect("a site");
        site.paused_until = 0;
        for (process, what) in std::mem::take(&mut site.held) {
            self.schedule(0, id, process, what);
        }
    }

    /// The disk is replaced by an empty one: another incarnation.
    pub fn wipe(&mut self, id: NodeId) {
        self.crash(id);
        let incarnation = Incarnation(self.dice.wide());
        let meta = Meta::first(self.cluster, id, incarnation, self.first.clone());
        let site = self.sites.get_mut(&id).expect("a site");
        site.highest_fence = meta.fence;
        site.disk = Disk {
            meta,
            log: Vec::new(),
            snapshot: None,
            suspect: false,
        };
        self.note(format!("n{id} loses its disk"));
    }

    /// The next start finds the log's end damaged, and `lost` records gone that were synced.
    pub fn damage(&mut self, id: NodeId, lost: usize) {
        self.crash(id);
        let disk = &mut self.sites.get_mut(&id).expect("a site").disk;
        disk.log.truncate(disk.log.len().saturating_sub(lost));
        disk.suspect = true;
        self.note(format!("n{id}'s log is damaged"));
    }

    pub fn partition(&mut self, side: &BTreeSet<NodeId>) {
        self.cut_links.clear();
        for a in self.ids() {
            for b in self.ids() {
                if side.contains(&a) != side.contains(&b) {
                    self.cut_links.insert((a, b));
                }
            }
        }
        self.all_link_news();
    }

    pub fn heal(&mut self) {
        self.cut_links.clear();
        self.all_link_news();
    }

    pub fn all_link_news(&mut self) {
        for id in self.ids() {
            self.link_news(id);
        }
    }

    /// Everybody learns of this node's reachability, and it of theirs, a little later.
    pub(super) fn link_news(&mut self, id: NodeId) {
        for other in self.ids() {
            if other != id {
                let wait = self.delay();
                self.schedule(wait, other, 0, What::LinkNews(id));
                let wait = self.delay();
                self.schedule(wait, id, 0, What::LinkNews(other));
            }
        }
    }
}
