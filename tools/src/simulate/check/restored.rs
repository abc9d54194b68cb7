//! What can be restored from an archive, by the names of what lies in it alone; and whether what
//! was restored is what the nodes had there. A restore is refused only where this knows a hole.

use super::Observer;
use super::offsite::Archived;
use crate::simulate::random::Random;
use standfast::cli::Failure;
use standfast::cli::restore::Past;
use standfast::state::{Digest, State};
use standfast_snapshot::Target;
use standfast_wal::{History, Link, Lsn, Record};
use std::collections::{BTreeMap, BTreeSet};

/// Records that a restored state goes on by, to a place at which its digest is known.
const ON_MAX: usize = 64;

/// The pieces of log and the snapshots that lie there, by name.
#[derive(Default)]
pub struct There {
    logs: BTreeMap<String, (History, Lsn, Lsn)>,
    snapshots: BTreeMap<String, Snapshot>,
    /// A history is the newest from its card on, whatever there is of it besides.
    cards: BTreeMap<String, History>,
}

struct Snapshot {
    history: History,
    lsn: Lsn,
    segments: Vec<String>,
}

impl There {
    pub fn add_log(&mut self, name: &str, history: History, first: Lsn, last: Lsn) {
        self.logs.insert(name.to_string(), (history, first, last));
    }

    pub fn add_snapshot(&mut self, name: &str, history: History, lsn: Lsn, segments: Vec<String>) {
        let snapshot = Snapshot {
            history,
            lsn,
            segments,
        };
        self.snapshots.insert(name.to_string(), snapshot);
    }

    pub fn add_card(&mut self, name: &str, history: History) {
        self.cards.insert(name.to_string(), history);
    }

    /// Says of which history it was, if of one.
    pub fn remove(&mut self, name: &str) -> Option<History> {
        let card = self.cards.remove(name);
        let log = self.logs.remove(name).map(|(history, ..)| history);
        let snapshot = self.snapshots.remove(name).map(|one| one.history);
        card.or(log).or(snapshot)
    }

    /// A snapshot without one of its segments.
    pub fn lacks(&self, archived: &Archived) -> Option<(String, String)> {
        self.snapshots.iter().find_map(|(name, snapshot)| {
            let mut segments = snapshot.segments.iter();
            let segment = segments.find(|segment| !archived.has(segment))?;
            Some((name.clone(), segment.clone()))
        })
    }

    fn histories(&self) -> BTreeSet<History> {
        let of_logs = self.logs.values().map(|(history, ..)| *history);
        let of_snapshots = self.snapshots.values().map(|one| one.history);
        let of_cards = self.cards.values().copied();
        of_logs.chain(of_snapshots).chain(of_cards).collect()
    }
}

/// The part of a lineage that lies in one history: LSNs above `above` up to `through`.
#[derive(Clone, Copy)]
struct Span {
    history: History,
    above: Lsn,
    through: Lsn,
}

/// What of one history, and of those that it forked from, can be restored.
#[derive(Debug)]
pub struct Reachable {
    /// States that something begins at; 0: the empty one.
    starts: BTreeSet<Lsn>,
    /// First and last LSN of stretches of log without a hole, in order.
    stretches: Vec<(Lsn, Lsn)>,
    newest: Lsn,
}

impl Reachable {
    /// The last state that can be had from this start.
    fn end_of(&self, start: Lsn) -> Lsn {
        let next = start.next();
        let covers = |(first, last): &&(Lsn, Lsn)| *first <= next && next <= *last;
        let stretch = self.stretches.iter().find(covers);
        stretch.map_or(start, |(_, last)| *last)
    }

    fn has(&self, lsn: Lsn) -> bool {
        let mut starts = self.starts.range(..=lsn);
        lsn > Lsn::ZERO && starts.any(|start| self.end_of(*start) >= lsn)
    }

    pub fn furthest(&self) -> Lsn {
        let ends = self.starts.iter().map(|start| self.end_of(*start));
        ends.max().unwrap_or_default()
    }
}

/// What somebody wants restored.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// `None`: the newest.
    pub history: Option<History>,
    pub target: Target,
    of: History,
    /// The last LSN of that.
    lsn: Lsn,
}

impl Wish {
    pub fn latest(history: History) -> Wish {
        Wish {
            history: Some(history),
            target: Target::Latest,
            of: history,
            lsn: Lsn::ZERO,
        }
    }
}

impl Observer {
    /// The newest history that the archive has something of.
    pub fn newest_archived(&self) -> Option<History> {
        self.archived.there.histories().last().copied()
    }

    /// How far this history can be restored.
    pub fn restorable_through(&self, history: History) -> Lsn {
        self.reachable(history).furthest()
    }

    fn spans(&self, history: History) -> Vec<Span> {
        let ancestors = self.register.newest(history).map(|one| one.forks());
        let ancestors = ancestors.unwrap_or_default();
        let mut spans = Vec::new();
        let mut above = Lsn::ZERO;
        for (i, (ancestor, _)) in ancestors.iter().enumerate() {
            let forks = ancestors[i..].iter().map(|(_, fork)| Lsn(*fork));
            let through = forks.min().unwrap_or_default();
            spans.push(Span {
                history: *ancestor,
                above,
                through,
            });
            above = above.max(through);
        }
        spans.push(Span {
            history,
            above,
            through: Lsn(u64::MAX),
        });
        spans
    }

    pub fn reachable(&self, history: History) -> Reachable {
        let mut found = Reachable {
            starts: BTreeSet::from([Lsn::ZERO]),
            stretches: Vec::new(),
            newest: Lsn::ZERO,
        };
        let there = &self.archived.there;
        let mut pieces = Vec::new();
        for span in self.spans(history) {
            let logs = there.logs.values();
            for (_, first, last) in logs.filter(|(of, ..)| *of == span.history) {
                // What its ancestor's archive lacks of what both share a history puts again.
                let clipped = (*first, (*last).min(span.through));
                if clipped.0 <= clipped.1 {
                    pieces.push(clipped);
                }
            }
            let own = there.snapshots.values();
            for one in own.filter(|one| one.history == span.history) {
                if one.lsn < span.above || one.lsn > span.through {
                    continue;
                }
                found.starts.insert(one.lsn);
                found.newest = found.newest.max(one.lsn);
            }
        }
        // Its founder's log is to be there, whatever is.
        let config = self.register.newest(history);
        let founded = config.and_then(|config| config.ancestors.last());
        found.newest = found.newest.max(founded.map_or(Lsn::ZERO, |past| past.end));
        pieces.sort_unstable();
        for (first, last) in pieces {
            found.newest = found.newest.max(last);
            match found.stretches.last_mut() {
                Some((_, end)) if first <= end.next() => *end = last.max(*end),
                _ => found.stretches.push((first, last)),
            }
        }
        found
    }

    /// What somebody could want of this archive.
    pub fn draw_wish(&self, random: &mut Random) -> Option<Wish> {
        let histories: Vec<History> = self.archived.there.histories().into_iter().collect();
        let newest = *histories.last()?;
        let (history, of) = match random.one_in(4) {
            true => {
                let one = random.pick(&histories);
                (Some(one), one)
            }
            false => (None, newest),
        };
        let records = &self.log.branch(of)?.records;
        if records.is_empty() || random.one_in(3) {
            return Some(Wish {
                history,
                ..Wish::latest(of)
            });
        }
        let record = self.draw_record(of, records, random);
        let (first, last) = (record.first_lsn(), record.last_lsn());
        let lsn = match random.one_in(3) {
            true => Lsn(random.between(first.0, last.0)),
            false => last,
        };
        let time = record.timestamp() + (lsn.0 - first.0);
        let target = match random.one_in(3) {
            true => Target::Time(time),
            false => Target::Lsn(lsn),
        };
        Some(Wish {
            history,
            target,
            of,
            lsn,
        })
    }

    /// The first state of a history that is not its ancestor's.
    pub fn wish_behind_fork(&self, history: History) -> Option<Wish> {
        let fork = self.spans(history).last()?.above;
        let record = self.log.branch(history)?.at(fork.next())?;
        let lsn = record.last_lsn();
        (fork > Lsn::ZERO).then_some(Wish {
            target: Target::Lsn(lsn),
            lsn,
            ..Wish::latest(history)
        })
    }

    /// One that is long, or near a fork, or any.
    fn draw_record<'a>(
        &self,
        of: History,
        records: &'a [Record],
        random: &mut Random,
    ) -> &'a Record {
        let spans = self.spans(of);
        let fork = match &spans[..] {
            [.., last] if spans.len() > 1 && random.one_in(2) => last.above,
            _ => Lsn::ZERO,
        };
        let behind = records.partition_point(|one| one.last_lsn() <= fork);
        let most = match fork {
            Lsn::ZERO => records.len(),
            _ => 20,
        };
        let near = &records[behind.min(records.len() - 1)..];
        let near = &near[..near.len().min(most)];
        let some = (0..3).map(|_| &near[random.index(near.len())]);
        some.max_by_key(|one| one.first_lsn().distance_to(one.last_lsn()))
            .expect("three were drawn")
    }

    /// What came of a restore is what was wished for, and what the nodes had there.
    pub fn is_restored(&self, wish: &Wish, past: Result<Past, Failure>) -> Result<(), String> {
        let found = self.reachable(wish.of);
        let lsn = match wish.target {
            Target::Latest => found.newest,
            _ => wish.lsn,
        };
        let must = match wish.target {
            // Which state a time names only what comes behind it tells.
            Target::Time(_) => found.has(lsn) && found.has(lsn.next()),
            _ => found.has(lsn),
        };
        let is_open = wish.target == Target::Latest && self.is_end_unknown(wish.of);
        match past {
            Err(failure) if must && !is_open => {
                let message = failure.message;
                Err(format!(
                    "{wish:?} is there up to {lsn} and is refused: {message}"
                ))
            }
            Err(_) => Ok(()),
            Ok(_) if !found.has(lsn) => Err(format!("{wish:?} is restored and is not there")),
            Ok(past) => {
                let promised = self.archived.promised.get(&wish.of);
                let promised = promised.copied().unwrap_or_default();
                if wish.target == Target::Latest && lsn < promised {
                    return Err(format!(
                        "I1: {promised} of {} was said to be restorable, and the latest is {lsn}",
                        wish.of
                    ));
                }
                let rebuilt = past.rebuilt;
                // Of a history that has only been founded nothing is known but what it inherited.
                let has_own = self
                    .log
                    .branch(wish.of)
                    .is_some_and(|own| own.at(lsn).is_some());
                let reign = rebuilt.epochs.at(lsn).filter(|_| !has_own);
                let of = reign.map_or(wish.of, |reign| reign.history);
                self.is_state_of(of, lsn, rebuilt.link, rebuilt.state)
                    .map_err(|story| format!("{wish:?}: {story}"))
            }
        }
    }

    /// Of a history that has ended nothing is left that says where: it may have expired.
    fn is_end_unknown(&self, history: History) -> bool {
        let has_ended = self
            .archived
            .there
            .histories()
            .iter()
            .any(|h| h.generation > history.generation);
        has_ended && !self.archived.tells_the_end_of(history)
    }

    fn is_state_of(
        &self,
        history: History,
        lsn: Lsn,
        link: Link,
        mut state: State,
    ) -> Result<(), String> {
        let branch = self.log.branch(history).ok_or("of an unknown history")?;
        let record = branch.at(lsn).ok_or("of what nobody has applied")?;
        let position = link.position;
        if (position.lsn, position.epoch) != (lsn, record.epoch()) {
            return Err(format!("{position:?} is restored, {lsn} was to be"));
        }
        let differs = |at: Lsn, digest: Digest| {
            let known = self.digest_of(history, at).filter(|known| *known != digest);
            known.map(|known| {
                format!("I2: at {at} the digest is {digest} and was {known}, restored to {lsn}")
            })
        };
        if let Some(story) = differs(lsn, state.digest()) {
            return Err(story);
        }
        if record.last_lsn() > lsn {
            // No state goes on from within a record.
            return Ok(());
        }
        let behind = branch.records.partition_point(|one| one.last_lsn() <= lsn);
        for record in branch.records[behind..].iter().take(ON_MAX) {
            if self.digest_of(history, state.applied().lsn).is_some() {
                return Ok(());
            }
            state.apply(record, |_, _| ());
            if let Some(story) = differs(record.last_lsn(), state.digest()) {
                return Err(story);
            }
        }
        Ok(())
    }

    /// The digest that nodes had at this LSN of this history.
    pub fn digest_of(&self, history: History, lsn: Lsn) -> Option<Digest> {
        let branch = self.log.branch(history)?;
        let epoch = branch.at(lsn)?.epoch();
        let generation = *branch.generations.get(&epoch)?;
        let all = self.log.branches().iter().map(|branch| branch.history);
        all.filter(|history| history.generation == generation)
            .find_map(|history| self.digests.at(history, epoch, lsn))
    }
}
