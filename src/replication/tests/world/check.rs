//! What must hold at every step, seen from above.

use super::*;

impl World {
    /// I6: who does not count is sent nothing that is not committed.
    pub(super) fn check_secrecy(&self, from: NodeId, to: NodeId, message: &Message) {
        let (Body::Append { records, .. }, Some(replica)) = (&message.body, self.replica(from))
        else {
            return;
        };
        let last = records.last().map_or(Lsn::ZERO, Record::last_lsn);
        assert!(
            last <= replica.commit()
                || replica.awaited().contains(&to)
                || self.counted.contains(&to),
            "I6: n{from} sends {last} to n{to}, commit is {}",
            replica.commit()
        );
    }

    /// What has happened in the history that this node lives in. A forced promotion begins another
    /// past: what it lacks is lost, as its operator wished.
    pub(super) fn past(&mut self, id: NodeId) -> &mut Past {
        let config = self.replica(id).map_or(&self.first, Replica::config);
        let (history, parent) = (config.history, config.ancestors.last().copied());
        if let Some(parent) = parent.filter(|_| !self.pasts.contains_key(&history)) {
            let fork = parent.end.0;
            let mut past = self.pasts[&parent.history].clone();
            // Its founder is the first to be seen in it; what that one had of its own, uncommitted,
            // belongs to the new past from now on.
            let log = self.written(id);
            let base = self.sites[&id].disk.base().position.lsn;
            past.truth.retain(|record| {
                let lsn = record.last_lsn();
                lsn.0 <= fork && (lsn <= base || log.get(&lsn) == Some(record))
            });
            let end = past.truth.last().map_or(Lsn::ZERO, Record::last_lsn);
            let own = log.into_values().filter(|record| record.last_lsn() > end);
            past.truth
                .extend(own.filter(|record| record.last_lsn().0 <= fork));
            past.acked.clear();
            self.pasts.insert(history, past);
        }
        self.pasts.entry(history).or_default()
    }

    /// I1: the log that a new epoch begins with holds everything that was ever committed.
    pub(super) fn check_new_primary(&mut self, id: NodeId, start: &Record) {
        let log = self.written(id);
        // A process that stood still may learn late that it was chosen, and begin an epoch that was
        // overtaken: it commits nothing, and need not hold what later epochs did.
        let before = |record: &Record| record.epoch() < start.epoch();
        for record in self.past(id).truth.clone().into_iter().filter(before) {
            let held = log.get(&record.last_lsn());
            let snapshot = self.sites[&id].disk.base().position.lsn;
            assert!(
                record.last_lsn() <= snapshot || held == Some(&record),
                "I1: n{id} begins epoch {} without {record:?}, it has {held:?}",
                start.epoch()
            );
        }
    }

    /// Everything written at this node, by last LSN.
    pub(super) fn written(&self, id: NodeId) -> BTreeMap<Lsn, Record> {
        let site = &self.sites[&id];
        let mut log: BTreeMap<Lsn, Record> = site
            .disk
            .log
            .iter()
            .map(|record| (record.last_lsn(), record.clone()))
            .collect();
        for work in site.process.iter().flat_map(|process| &process.work) {
            match work {
                Work::Append(record) => {
                    log.insert(record.last_lsn(), record.clone());
                }
                Work::Cut(after) => log.retain(|lsn, _| lsn <= after),
                Work::Install(_) => log.clear(),
            }
        }
        log
    }

    /// The records written at this node that end after `lsn`.
    pub(super) fn written_after(&self, id: NodeId, lsn: Lsn) -> Vec<Record> {
        let site = &self.sites[&id];
        let mut fresh: Vec<Record> = Vec::new();
        for work in site.process.iter().flat_map(|process| &process.work) {
            match work {
                Work::Append(record) => fresh.push(record.clone()),
                Work::Cut(_) | Work::Install(_) => {
                    let all = self.written(id).into_values();
                    return all.filter(|record| record.last_lsn() > lsn).collect();
                }
            }
        }
        let recent = site.disk.log.iter().rev();
        let recent = recent.take_while(|record| record.last_lsn() > lsn);
        let mut all: Vec<Record> = recent.cloned().collect();
        all.reverse();
        all.extend(fresh.into_iter().filter(|record| record.last_lsn() > lsn));
        all
    }

    /// I1, I4 and what is acknowledged to clients, after each step of a node.
    pub(super) fn check(&mut self, id: NodeId) {
        let Some(process) = &self.sites[&id].process else {
            return;
        };
        let commit = process.replica.commit();
        if commit != process.checked {
            self.check_committed(id, commit);
        }
        self.check_reads(id);
        self.check_freshness(id);
    }

    pub(super) fn check_committed(&mut self, id: NodeId, commit: Lsn) {
        let checked = self.sites[&id]
            .process
            .as_ref()
            .map_or(Lsn::ZERO, |p| p.checked);
        for record in self.written_after(id, checked) {
            if record.last_lsn() > commit {
                break;
            }
            let truth = &mut self.past(id).truth;
            match truth.binary_search_by_key(&record.last_lsn(), Record::last_lsn) {
                Ok(i) => assert_eq!(
                    truth[i],
                    record,
                    "I1: n{id} has committed another record at {}",
                    record.last_lsn()
                ),
                Err(i) => {
                    assert_eq!(i, truth.len(), "I1: {record:?} at n{id} is not the truth");
                    let end = truth.last().map_or(Lsn::ZERO, Record::last_lsn);
                    assert_eq!(
                        record.first_lsn(),
                        end.next(),
                        "I1: a gap before {record:?}"
                    );
                    truth.push(record);
                }
            }
        }
        let now = self.now;
        let Some(process) = self.process(id) else {
            return;
        };
        process.checked = commit;
        if process.serving {
            let durable = process.replica.durable();
            let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut process.pending)
                .into_iter()
                .partition(|(_, lsn)| *lsn <= commit && *lsn <= durable);
            process.pending = rest;
            if let Some((_, lsn)) = done.into_iter().max() {
                let past = self.past(id);
                let last = past.acknowledged();
                past.acked.push((now, lsn.max(last)));
            }
        }
    }

    /// I4: a read that is answered has seen everything acknowledged before it came in.
    pub(super) fn check_reads(&mut self, id: NodeId) {
        let Some(process) = self.process(id) else {
            return;
        };
        let confirmed = process.confirmed.max(process.replica.confirmed());
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut process.reads)
            .into_iter()
            .partition(|(ticket, _)| ticket.round <= confirmed);
        process.reads = rest;
        self.reads_done += done.len() as u64;
        for (ticket, acked) in done {
            assert!(
                ticket.after >= acked,
                "I4: n{id} answers a read with {} although {acked} was acknowledged before",
                ticket.after
            );
        }
    }

    pub(super) fn check_freshness(&mut self, id: NodeId) {
        let Some(replica) = self.replica(id) else {
            return;
        };
        // A primary's own acknowledgements stand above what it names here.
        let Some((lsn, at)) = replica.freshness().filter(|_| !replica.is_primary()) else {
            return;
        };
        let at = at.0.saturating_sub(self.sites[&id].offset);
        let acked = &self.past(id).acked;
        let i = acked.partition_point(|(time, _)| *time < at);
        let before = i.checked_sub(1).map_or(Lsn::ZERO, |i| acked[i].1);
        assert!(
            lsn >= before,
            "n{id} calls {lsn} fresh as of {at}, but {before} was acknowledged"
        );
    }
}
