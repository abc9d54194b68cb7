//! I6: what is in the archive was committed, and is what the nodes have applied. A snapshot comes
//! after its segments, a manifest after what it names; in the end all of it proves sound.

use super::restored::There;
use super::{Observer, process_of};
use crate::simulate::nodes::Node;
use crate::simulate::plan::Plan;
use crate::simulate::world::{CLUSTER, MS};
use bytes::Bytes;
use standfast::node::archiver::Standing;
use standfast::node::shelf::Contents;
use standfast::state::Digest;
use standfast_snapshot::manifest::Manifest;
use standfast_snapshot::object::decode_log;
use standfast_snapshot::store::{Memory, join, last_part, parent};
use standfast_snapshot::verify::{Finding, verify};
use standfast_snapshot::{Card, Identities, Reader, Shared, catalogue};
use standfast_wal::{History, Kind, Link, Lsn, Record};
use std::collections::{BTreeMap, BTreeSet};

/// What has been looked at. An object never changes.
#[derive(Default)]
pub struct Archived {
    seen: BTreeSet<String>,
    /// Of the store, when it was looked at last.
    changes: u64,
    pub there: There,
    /// How far the log of each history was ever put.
    put: BTreeMap<History, Lsn>,
    /// Nanoseconds between attestations that close a piece of log.
    interval: u64,
    /// What was said to be restorable of each history.
    pub promised: BTreeMap<History, Lsn>,
    /// The newest of the ended histories of which something has expired.
    expired: Option<History>,
}

impl Archived {
    pub fn new(plan: &Plan) -> Archived {
        let settings = plan.tuning.engine.archive.as_ref();
        let interval = settings.map_or(0, |settings| settings.interval.as_nanos());
        Archived {
            interval: u64::try_from(interval).expect("some seconds"),
            ..Archived::default()
        }
    }

    /// A piece that could be closed behind an Attestation is.
    fn ends_attested(&self, before: Option<Link>, records: &[Record]) -> Result<(), String> {
        let from = before.map_or(0, |link| link.timestamp) + self.interval;
        let is_due =
            |record: &Record| record.kind() == Kind::Attestation && record.timestamp() >= from;
        match records.iter().rposition(is_due) {
            Some(place) if place + 1 < records.len() => Err(format!(
                "it ends with {:?}, behind {:?}",
                records.last(),
                records[place]
            )),
            _ => Ok(()),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.seen.contains(name)
    }

    /// Whether anything that is there says how far this history has come, beside its log itself.
    pub fn tells_the_end_of(&self, history: History) -> bool {
        let prefix = join(&catalogue::history_dir(CLUSTER, history), "manifest-");
        let from = self.seen.range(prefix.clone()..);
        from.take(1).any(|name| name.starts_with(&prefix))
    }
}

/// Clocks begin so far apart (ns); beside that they drift.
const SKEW: u64 = 400 * MS;

impl Observer {
    /// Something may have been put.
    pub fn archived(&mut self, store: &Memory) -> Result<(), String> {
        let changes = store.changes();
        if std::mem::replace(&mut self.archived.changes, changes) == changes {
            return Ok(());
        }
        let mut new: Vec<(String, Bytes)> = Vec::new();
        store.each(|name, bytes| {
            if !self.archived.seen.contains(name) {
                new.push((name.to_string(), bytes.clone()));
            }
        });
        for (name, _) in &new {
            self.archived.seen.insert(name.clone());
        }
        for (name, bytes) in &new {
            let looked = match last_part(name) {
                last if last.starts_with("log-") => self.log_archived(name, bytes),
                last if last.starts_with("snapshot-") => self.snapshot_archived(name, bytes),
                last if last.starts_with("manifest-") => self.manifest_archived(name, bytes),
                catalogue::CARD_NAME => self.card_archived(name, bytes),
                _ => Ok(()),
            };
            looked.map_err(|story| format!("the archive: {name}: {story}"))?;
        }
        Ok(())
    }

    fn log_archived(&mut self, name: &str, bytes: &Bytes) -> Result<(), String> {
        let decoded = decode_log(name, bytes, &Identities::default());
        let (head, records) = decoded.map_err(|error| error.to_string())?;
        self.log
            .branch(head.history)
            .ok_or("of an unknown history")?;
        let commit = self.committed_in(head.history);
        for record in &records {
            let lsn = record.last_lsn();
            let there = self.committed_at(head.history, lsn);
            if lsn > commit || there != Some(record) {
                return Err(format!(
                    "I6: it has {record:?} up to {lsn}; committed is {commit}, there stands \
                     {there:?}"
                ));
            }
        }
        let before = Lsn(head.first_lsn.0 - 1);
        let before = self.committed_at(head.history, before).map(Record::link);
        self.archived.ends_attested(before, &records)?;
        let put = self.archived.put.entry(head.history).or_default();
        *put = head.last_lsn().max(*put);
        let there = &mut self.archived.there;
        there.add_log(name, head.history, head.first_lsn, head.last_lsn());
        Ok(())
    }

    /// Where the archive is required no log is dropped that it lacks; but a disk that was damaged
    /// has lost it anyhow.
    pub fn may_trim(&self, node: usize, nodes: &[Node], through: Lsn) -> Result<(), String> {
        let replica = process_of(nodes, node)?.engine.replica();
        let config = replica.config();
        let past = config.ancestors.iter();
        let past = past.map(|past| self.put_of(past.history).min(past.shared));
        let put = past.chain([self.put_of(config.history)]).max();
        let put = put.unwrap_or_default();
        match through > put && !self.losses.was_harmed(node) {
            true => Err(format!(
                "n{node} drops log up to {through}, and the archive, which is required, has {put}"
            )),
            false => Ok(()),
        }
    }

    /// Of a history that has only been founded nothing is committed but what it has inherited.
    fn committed_in(&self, history: History) -> Lsn {
        let config = self.register.newest(history).into_iter();
        let past = config.flat_map(|config| &config.ancestors);
        let past = past.map(|past| self.log.true_commit(past.history).min(past.shared));
        past.chain([self.log.true_commit(history)])
            .max()
            .unwrap_or_default()
    }

    /// What was committed there in a history, or in one of which it surely shares that.
    fn committed_at(&self, history: History, lsn: Lsn) -> Option<&Record> {
        let own = self.log.branch(history)?.at(lsn);
        let inherited = || {
            let past = self.register.newest(history)?.ancestors.iter().rev();
            let mut sharing = past.filter(|past| lsn <= past.shared);
            sharing.find_map(|past| self.log.branch(past.history)?.at(lsn))
        };
        own.or_else(inherited)
    }

    fn put_of(&self, history: History) -> Lsn {
        self.archived.put.get(&history).copied().unwrap_or_default()
    }

    fn snapshot_archived(&mut self, name: &str, bytes: &Bytes) -> Result<(), String> {
        let reader = Reader::new(bytes.clone(), name).map_err(|error| error.to_string())?;
        let header = reader.header();
        let lsn = header.link.position.lsn;
        let commit = self.committed_in(header.history);
        if lsn > commit {
            return Err(format!("I6: it is of {lsn}, and committed is {commit}"));
        }
        let known = self.digest_of(header.history, lsn);
        if known.is_some_and(|known| known != Digest(header.digest)) {
            return Err(format!("I2: its digest is not {known:?}"));
        }
        let named = reader.references().map_err(|error| error.to_string())?;
        let dir = catalogue::segments_beside(parent(name), None);
        let named: Vec<String> = named.iter().map(|one| join(&dir, &one.name())).collect();
        if let Some(missing) = named.iter().find(|path| !self.archived.has(path)) {
            return Err(format!("it is there before {missing}"));
        }
        let there = &mut self.archived.there;
        there.add_snapshot(name, header.history, lsn, named);
        Ok(())
    }

    fn card_archived(&mut self, name: &str, bytes: &Bytes) -> Result<(), String> {
        let card = Card::decode(name, bytes).map_err(|error| error.to_string())?;
        self.archived.there.add_card(name, card.history);
        Ok(())
    }

    fn manifest_archived(&mut self, name: &str, bytes: &Bytes) -> Result<(), String> {
        let manifest = Manifest::decode(name, bytes).map_err(|error| error.to_string())?;
        for one in &manifest.named {
            let path = join(parent(name), &catalogue::named_name(one));
            if !self.archived.seen.contains(&path) {
                return Err(format!("it names {path}, which was never put"));
            }
        }
        Ok(())
    }

    /// Something was removed, by the rules of retention: never the last way to the newest point.
    pub fn expired(&mut self, store: &Memory) -> Result<(), String> {
        let before = self.newest_archived();
        let before = before.map(|history| (history, self.reachable(history)));
        let mut there = BTreeSet::new();
        store.each(|name, _| {
            there.insert(name.to_string());
        });
        let gone = |name: &&String| !there.contains(*name);
        let gone: Vec<String> = self.archived.seen.iter().filter(gone).cloned().collect();
        for name in gone {
            let of = self.archived.there.remove(&name);
            if of < before.as_ref().map(|(newest, _)| *newest) {
                self.archived.expired = of.max(self.archived.expired);
            }
            self.archived.seen.remove(&name);
        }
        if let Some((name, segment)) = self.archived.there.lacks(&self.archived) {
            return Err(format!("the archive: {name} is left without {segment}"));
        }
        self.archived.changes = store.changes();
        let Some((history, before)) = before else {
            return Ok(());
        };
        let left = self.reachable(history);
        if left.furthest() < before.furthest() {
            return Err(format!(
                "of {history} there was {before:?}, and {left:?} has not expired"
            ));
        }
        Ok(())
    }

    /// An archiver, by whose clock it is `wall` now, says that everything up to some moment can be
    /// restored: what had been acknowledged by then is. Of clocks that never jump.
    pub fn restorable(&mut self, now: u64, wall: u64, standing: &Standing) -> Result<(), String> {
        let history = standing.history;
        if self.archived.expired >= Some(history) {
            return Ok(());
        }
        let age = wall.saturating_sub(standing.restorable_ns);
        let slack = SKEW + now / 1_000_000 * self.drift_ppm * 2;
        let told = self.told_by(history, now.saturating_sub(age + slack));
        if standing.restorable_ns == 0 || told == Lsn::ZERO {
            return Ok(());
        }
        let promised = self.archived.promised.entry(history).or_default();
        *promised = told.max(*promised);
        let there = self.restorable_through(history);
        if told > there {
            return Err(format!(
                "of {history} {there} can be restored, by {:?}; {told} was acknowledged more than \
                 {} ms ago, and what is older than {} ms is said to be restorable",
                self.reachable(history),
                (age + slack) / MS,
                age / MS
            ));
        }
        Ok(())
    }

    /// Somebody removes segments, or died while he did.
    pub fn removal_is_under_way(&self) -> bool {
        let mut names = self.archived.seen.iter();
        names.any(|name| name.contains("/marks/removal-"))
    }

    /// The highest LSN that a client had been told of in this history by then.
    pub fn told_by(&self, history: History, time: u64) -> Lsn {
        self.log.acknowledged_by(history, time)
    }

    /// All of the archive is sound. Log that was dropped before it was shipped leaves a hole, which
    /// no snapshot bridges in a run that did not end whole, or while what somebody removes
    /// must not be put again; and an archive may have only just begun where nobody is owed
    /// anything: no client had been told of a write by `time`, nor anybody that one can be
    /// restored.
    pub fn archive_is_sound(
        &self,
        store: &std::sync::Arc<Memory>,
        is_whole: bool,
        time: u64,
    ) -> Result<(), String> {
        let store: Shared = store.clone();
        let report = verify(
            &store,
            CLUSTER,
            1,
            &Identities::default(),
            &Contents::of(CLUSTER),
        );
        let report = report.map_err(|error| format!("the archive: {error}"))?;
        let may_begin_nowhere = !is_whole || self.removal_is_under_way();
        let owes = |history: History| {
            // What came out of another one has its past to show.
            let is_first = history.generation == 1;
            let promised = self.archived.promised.get(&history);
            !is_first
                || self
                    .told_by(history, time)
                    .max(*promised.unwrap_or(&Lsn::ZERO))
                    > Lsn::ZERO
        };
        let of_histories = report.histories.iter();
        let findings = of_histories.flat_map(|of| of.findings.iter().map(|one| (of.history, one)));
        let mut bad = findings.filter_map(|(history, one)| match one {
            Finding::Hole(_) => None,
            Finding::Nothing if may_begin_nowhere || !owes(history) => None,
            other => Some(other),
        });
        bad.next()
            .map_or(Ok(()), |bad| Err(format!("the archive: {bad}")))
    }
}
