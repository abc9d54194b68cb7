//! What a node's disk does in its own time: syncs, reads of the log, snapshots for others.

use super::*;

/// What lies on a node's disk.
#[derive(Clone)]
pub struct Disk {
    pub meta: Meta,
    pub log: Vec<Record>,
    pub snapshot: Option<SnapshotHead>,
    pub suspect: bool,
}

impl Disk {
    pub(super) fn base(&self) -> Link {
        self.snapshot
            .as_ref()
            .map_or(Link::default(), |head| head.link)
    }

    pub fn tip(&self) -> Link {
        self.log.last().map_or(self.base(), Record::link)
    }

    pub fn epochs(&self) -> EpochTable {
        let mut entries = match &self.snapshot {
            Some(head) => head.epochs.entries().to_vec(),
            None => Vec::new(),
        };
        entries.extend(self.log.iter().filter_map(EpochEntry::decode));
        EpochTable::new(entries)
    }

    pub(super) fn facts(&self) -> LogFacts {
        LogFacts {
            tip: self.tip(),
            committed: self.base().position.lsn,
            first_lsn: self.base().position.lsn.next(),
            epochs: self.epochs(),
            suspect: self.suspect,
        }
    }
}

impl World {
    pub(super) fn queue(&mut self, id: NodeId, work: Work) {
        if let Some(process) = self.process(id) {
            process.work.push_back(work);
        }
    }

    pub(super) fn start_disk(&mut self, id: NodeId) {
        let wait = self.sync_time();
        let Some(process) = self.process(id) else {
            return;
        };
        if process.busy > 0 || process.work.is_empty() {
            return;
        }
        let appends = process
            .work
            .iter()
            .take_while(|work| matches!(work, Work::Append(_)));
        process.busy = appends.count().max(1);
        let number = process.number;
        self.schedule(wait, id, number, What::DiskDone);
    }

    pub(super) fn disk_done(&mut self, id: NodeId) {
        let site = self.sites.get_mut(&id).expect("a site");
        let Some(process) = &mut site.process else {
            return;
        };
        let done: Vec<Work> = process.work.drain(..process.busy).collect();
        process.busy = 0;
        let mut input = None;
        for work in done {
            let report = work.clone();
            do_work(&mut site.disk, work);
            input = Some(match report {
                Work::Append(record) => Input::Durable(record.last_lsn()),
                Work::Cut(_) => Input::CutDone {
                    end: site.disk.tip(),
                    durable: site.disk.tip().position.lsn,
                },
                Work::Install(head) => Input::SnapshotInstalled(head),
            });
        }
        if let Some(input) = input {
            let installed = matches!(input, Input::SnapshotInstalled(_));
            self.input(id, input);
            if installed {
                self.tell_installed(id);
            }
        }
        self.start_disk(id);
    }

    pub(super) fn tell_installed(&mut self, id: NodeId) {
        for other in self.ids() {
            if self.replica_is_primary(other) {
                let wait = self.delay();
                let input = Input::SnapshotSent { to: id };
                self.schedule(wait, other, 0, What::Input(input));
            }
        }
    }

    pub(super) fn read_log(&mut self, id: NodeId, number: u64, to: NodeId, after: Lsn) {
        let disk = &self.sites[&id].disk;
        let first = disk
            .log
            .iter()
            .position(|record| record.first_lsn() == after.next());
        let input = match first {
            Some(i) => {
                let previous = if i == 0 {
                    disk.base()
                } else {
                    disk.log[i - 1].link()
                };
                let records = disk.log[i..].iter().take(3).cloned().collect();
                Input::LogRead {
                    to,
                    previous,
                    records,
                }
            }
            None if after < disk.base().position.lsn => Input::LogGone { to },
            // Not on the disk yet: the reader would see it a little later.
            None => Input::LogGone { to },
        };
        let wait = self.delay();
        self.schedule(wait, id, number, What::Input(input));
    }

    /// A snapshot of what is committed and durable.
    pub(super) fn snapshot_of(&self, id: NodeId) -> Option<SnapshotHead> {
        let replica = self.replica(id)?;
        let disk = &self.sites[&id].disk;
        let applied = replica.commit().min(replica.durable());
        let link = match disk
            .log
            .iter()
            .rev()
            .find(|record| record.last_lsn() <= applied)
        {
            Some(record) => record.link(),
            None => return disk.snapshot.clone(),
        };
        let lsn = link.position.lsn;
        let mut epochs = disk.epochs();
        epochs.cut(lsn);
        Some(SnapshotHead {
            history: replica.history(),
            link,
            epochs,
        })
    }

    pub(super) fn send_snapshot(&mut self, id: NodeId, number: u64, to: NodeId, at_least: Lsn) {
        let head = self
            .snapshot_of(id)
            .filter(|head| head.link.position.lsn >= at_least);
        let wait = self.delay();
        match head {
            Some(head) if !self.cut_links.contains(&(id, to)) => {
                self.schedule(wait, to, 0, What::SnapshotSend(id, head));
                // The engine gives a transfer that falls silent up.
                let input = Input::SnapshotFailed { to };
                self.schedule(2_000_000_000, id, number, What::Input(input));
            }
            _ => {
                let input = Input::SnapshotFailed { to };
                self.schedule(wait, id, number, What::Input(input));
            }
        }
    }

    /// Takes a snapshot and drops the log below it.
    pub fn compact(&mut self, id: NodeId) {
        let Some(head) = self.snapshot_of(id) else {
            return;
        };
        let lsn = head.link.position.lsn;
        let site = self.sites.get_mut(&id).expect("a site");
        if site.disk.base().position.lsn >= lsn || site.process.as_ref().is_none_or(|p| p.busy > 0)
        {
            return;
        }
        site.disk.log.retain(|record| record.first_lsn() > lsn);
        site.disk.snapshot = Some(head);
        self.note(format!("n{id} drops its log below {lsn}"));
        self.input(
            id,
            Input::LogTrimmed {
                first_lsn: lsn.next(),
            },
        );
    }

    // Clients

    /// Orders one record on this node, if it admits it.
    pub fn propose(&mut self, id: NodeId, count: u32) -> Result<Lsn, Refusal> {
        let payload = self.dice.roll().to_le_bytes();
        let Some(process) = self.process(id) else {
            return Err(Refusal::NotPrimary { primary: None });
        };
        process.replica.admit()?;
        let (tip, epoch) = (process.replica.tip(), process.replica.epoch());
        let stamp = tip.timestamp + 10;
        let record = Record::build(tip, Kind::Commands, epoch, stamp, count, &payload);
        let last = record.last_lsn();
        process.pending.push((epoch, last));
        self.input(id, Input::Propose(record));
        self.input(id, Input::TurnEnd);
        Ok(last)
    }

    pub fn read(&mut self, id: NodeId) -> Result<ReadTicket, Refusal> {
        let now = self.local_time(id);
        let acked = self.past(id).acknowledged();
        let Some(process) = self.process(id) else {
            return Err(Refusal::NotPrimary { primary: None });
        };
        let ticket = process.replica.read(now)?;
        process.reads.push((ticket, acked));
        self.input(id, Input::TurnEnd);
        Ok(ticket)
    }

    // Judging
}

pub(super) fn do_work(disk: &mut Disk, work: Work) {
    match work {
        Work::Append(record) => {
            assert_eq!(record.follows(disk.tip()), Ok(()), "{record:?} on disk");
            disk.log.push(record);
        }
        Work::Cut(after) => disk.log.retain(|record| record.last_lsn() <= after),
        Work::Install(head) => {
            disk.log.clear();
            disk.snapshot = Some(head);
        }
    }
}
