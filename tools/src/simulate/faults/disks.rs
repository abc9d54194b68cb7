//! Disks that lose, rot, fail, fill up and grow slow; never beyond the budget.

use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::{MS, SECOND, World};
use standfast_wal::SimDisk;
use standfast_wal::storage::sim::Faults;

impl World {
    /// From now on this node's disk counts as lost.
    fn harm(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.harmed = Some(node.incarnation);
        node.harmed_in = node.life;
        // A data node that lost its disk asks to be taken in again.
        node.introduction.asked = true;
        self.observer.harmed(place, &self.nodes[place]);
    }

    /// True if this node's disk may take damage; then it counts as lost.
    fn strikes(&mut self, place: usize) -> bool {
        for place in 0..self.nodes.len() {
            self.forgive(place);
        }
        let may = self.nodes[place].life > 0 && self.may_lose(place);
        if may {
            self.harm(place);
        }
        may
    }

    /// The machine is gone; another one with an empty disk takes its place.
    pub(super) fn lose_disk(&mut self, place: usize, random: &mut Random) -> bool {
        if !self.strikes(place) {
            return false;
        }
        self.say(|| format!("n{place} loses its disk"));
        self.crash(place);
        self.nodes[place].disks.wipe();
        let wait = random.scaled(MS, 8 * SECOND);
        self.after(wait, Happening::Restart { node: place });
        true
    }

    fn a_disk(&self, place: usize, random: &mut Random) -> SimDisk {
        let disks = &self.nodes[place].disks;
        match random.below(8) {
            0 => disks.root.clone(),
            1 | 2 => disks.snapshots.clone(),
            _ => disks.wal.clone(),
        }
    }

    /// Bits flip at rest, or sectors can no longer be read, in one file; found at once, or when
    /// the node starts again, or when somebody reads it.
    pub(super) fn rot(&mut self, place: usize, random: &mut Random) -> bool {
        if random.one_in(2) {
            let place = self.a_backup(random).unwrap_or(place);
            return self.rot_at_the_end(place, random);
        }
        let disk = self.a_disk(place, random);
        let files: Vec<_> = disk.files().into_iter().filter(|f| f.1 > 0).collect();
        if files.is_empty() || !self.strikes(place) {
            return false;
        }
        let (name, len) = files[random.index(files.len())].clone();
        // Rot is likelier to be met where records are than in the zeros behind them.
        let used = disk.contents(&name).map_or(len, |bytes| {
            let end = bytes.iter().rposition(|byte| *byte != 0);
            end.map_or(len, |end| end as u64 + 1)
        });
        let reach = match random.one_in(4) {
            true => len,
            false => used,
        };
        let at = random.below(reach);
        match random.below(4) {
            0 => {
                let end = (at + random.scaled(1, 8192)).min(len);
                disk.make_unreadable(&name, at..end);
            }
            1 => disk.lose(&name),
            _ => {
                for _ in 0..random.scaled(1, 40) {
                    let near = (at + random.below(64)).min(len - 1);
                    disk.flip(&name, near, random.below(8) as u32);
                }
            }
        }
        self.say(|| format!("n{place}: {name} rots at {at}"));
        if random.one_in(2) {
            self.crash_and_restart(place, random);
        }
        true
    }

    /// A member of the sync set that is not its primary.
    fn a_backup(&self, random: &mut Random) -> Option<usize> {
        let config = self.observer.newest_config(&self.nodes)?;
        let backups = config.sync_set.iter().filter(|id| **id != config.primary);
        let backups: Vec<usize> = backups.map(|id| id.0 as usize).collect();
        (!backups.is_empty()).then(|| random.pick(&backups))
    }

    /// Of the newest records some rot, the node starts again, and now and then nobody else can
    /// take over from the primary that is lost just then.
    fn rot_at_the_end(&mut self, place: usize, random: &mut Random) -> bool {
        let disk = self.nodes[place].disks.wal.clone();
        let files = disk.files().into_iter();
        let newest = files.filter(|(name, _)| name.ends_with(".wal")).max();
        let Some((name, _)) = newest.filter(|_| self.nodes[place].is_up()) else {
            return false;
        };
        let bytes = disk.contents(&name).unwrap_or_default();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        if !self.strikes(place) {
            return false;
        }
        let near = random.pick(&[60, 600]).min(used);
        let at = used - random.below(near) - 1;
        disk.flip(&name, at, random.below(8) as u32);
        self.say(|| format!("n{place}: {name} rots at {at}, of {used}"));
        let primary = self.primary_place().filter(|primary| *primary != place);
        self.crash(place);
        let wait = random.between(0, 50 * MS);
        self.after(wait, Happening::Restart { node: place });
        if let Some(primary) = primary.filter(|_| !random.one_in(4)) {
            let ways = self.ways(|from, to| from == primary || to == primary);
            let partition = self.net.cut(ways);
            let failover = self.failover_ns();
            let wait = random.between(failover * 2, failover * 8);
            self.after(wait, Happening::Heal { partition });
        }
        true
    }

    /// Reads fail for a while: what was needed then is found missing.
    pub(super) fn fail_reads(&mut self, place: usize, random: &mut Random) -> bool {
        let read_error_ppm = random.pick(&[1_000, 100_000, 1_000_000]) as u32;
        self.fail_reads_of(place, read_error_ppm, random)
    }

    pub(super) fn fail_reads_of(
        &mut self,
        place: usize,
        read_error_ppm: u32,
        random: &mut Random,
    ) -> bool {
        if !self.strikes(place) {
            return false;
        }
        let faults = Faults {
            read_error_ppm,
            ..Faults::default()
        };
        self.set_disk_faults(place, faults, random);
        true
    }

    /// A write or a sync fails: the process must stop, and what it had synced is there.
    pub(super) fn fail_writes(&mut self, place: usize, random: &mut Random) -> bool {
        // A write that fails half-way leaves a torn end, as a power cut does.
        if !self.nodes[place].is_up() || self.power_is_safe() {
            return false;
        }
        let ppm = random.pick(&[1_000, 50_000, 1_000_000]) as u32;
        let faults = match random.one_in(2) {
            true => Faults {
                write_error_ppm: ppm,
                ..Faults::default()
            },
            false => Faults {
                sync_error_ppm: ppm,
                ..Faults::default()
            },
        };
        self.set_disk_faults(place, faults, random);
        true
    }

    fn set_disk_faults(&mut self, place: usize, faults: Faults, random: &mut Random) {
        self.say(|| format!("n{place}: {faults:?}"));
        for disk in self.nodes[place].disks.each() {
            disk.set_faults(faults);
        }
        self.nodes[place].failing = true;
        self.mend_later(place, random);
    }

    /// Little or nothing is left of the space: for log and snapshots, now and then for the meta
    /// file, too, where all are on one disk.
    pub(super) fn fill_disk(&mut self, place: usize, random: &mut Random) -> bool {
        let left = random.pick(&[0, 4 << 10, 64 << 10, 300 << 10]);
        self.say(|| format!("n{place}: {left} bytes of space are left"));
        let disks = &self.nodes[place].disks;
        let all = [&disks.wal, &disks.snapshots, &disks.root];
        let many = if random.one_in(4) { 3 } else { 2 };
        for disk in &all[..many] {
            let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
            disk.set_capacity(used + left);
        }
        // A node that starts needs room to settle what a crash left.
        self.nodes[place].failing = true;
        self.mend_later(place, random);
        true
    }

    /// Every write takes many times as long; or the log's disk does nothing at all for a while; or
    /// the meta file's takes long, as where it shares a disk with something that writes much.
    pub(super) fn slow_disk(&mut self, place: usize, random: &mut Random) -> bool {
        let node = &mut self.nodes[place];
        match random.below(3) {
            0 => node.slowness = random.scaled(5, 500),
            1 => node.stalled_until = self.now + random.scaled(100 * MS, 5 * SECOND),
            _ => node.meta_wait = random.scaled(50 * MS, 500 * MS),
        }
        self.mend_later(place, random);
        true
    }

    fn mend_later(&mut self, place: usize, random: &mut Random) {
        let wait = random.scaled(100 * MS, 20 * SECOND);
        self.after(wait, Happening::Mend { node: place });
    }

    /// The disk answers, has room, and is as fast as ever.
    pub fn mend(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.slowness = 1;
        node.stalled_until = 0;
        node.meta_wait = 0;
        node.failing = false;
        for disk in node.disks.each() {
            disk.set_faults(Faults::default());
            disk.set_capacity(u64::MAX);
        }
    }
}
