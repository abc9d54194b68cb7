//! What an archive has of one history, as far as whoever goes on shipping it must know.
//!
//! The names from the newest snapshot on are listed, and the heads of the log behind it are read:
//! enough to say where the log ends, and whether that end can be restored.

use crate::Result;
use crate::archive::read_log;
use crate::card::Card;
use crate::catalogue::{self, Catalogue, HistoryEntry, LogEntry};
use crate::object::LogHead;
use crate::plan::{Lineage, shares};
use crate::read::side_by_side;
use crate::seal::Identities;
use crate::store::{Shared, join};
use standfast_wal::{Link, Lsn};

/// What is there of one history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// Where the log that reaches furthest ends. `None`: there is none.
    pub end: Option<Link>,
    /// The head of the piece that ends there.
    pub newest: Option<LogHead>,
    /// The LSN of the newest snapshot.
    pub snapshot_lsn: Option<Lsn>,
    /// Up to where its ancestors' archives have what is surely shared with it; looked for if none
    /// of its own log is there.
    pub inherited: Lsn,
    /// From the newest snapshot, or from LSN 1 where there is none, the log goes on unbroken to its
    /// end.
    pub is_whole: bool,
}

/// Looks at what `store` has of the history that `card` names.
pub fn survey(store: &Shared, card: &Card) -> Result<Survey> {
    let dir = catalogue::history_dir(card.cluster, card.history);
    let snapshots = catalogue::snapshots_in(&**store, &dir)?;
    let snapshot_lsn = snapshots.iter().copied().max();
    let base = snapshot_lsn.unwrap_or(Lsn::ZERO);
    let mut names = catalogue::pieces_reaching(&**store, &dir, base, &snapshots)?;
    let furthest = names.iter().map(|(_, last)| *last).max();
    names.retain(|(_, last)| *last > base || Some(*last) == furthest);
    let path = |(first, last): &(Lsn, Lsn)| join(&dir, &catalogue::log_name(*first, *last));
    let heads = side_by_side(
        store.readers(),
        &names,
        || (),
        |(), name| {
            match catalogue::read_log_head(&**store, &path(name)) {
                Err(error) if error.is_unanswered() => Err(error),
                // A hole.
                head => Ok(head.ok()),
            }
        },
    )?;
    let whose = |head: &LogHead| (head.cluster, head.history) == (card.cluster, card.history);
    let mut entry = HistoryEntry::new(card.history);
    for (name, head) in names.iter().zip(heads) {
        if let Some(head) = head.filter(whose) {
            let path = path(name);
            entry.logs.push(LogEntry { path, head });
        }
    }
    entry
        .logs
        .sort_unstable_by_key(|l| (l.head.first_lsn, std::cmp::Reverse(l.head.last_lsn())));
    let newest = entry.logs.iter().map(|log| log.head);
    let newest = newest.max_by_key(LogHead::last_lsn);
    if let Some(lsn) = snapshot_lsn {
        let path = join(&dir, &catalogue::snapshot_name(lsn));
        match catalogue::read_snapshot(store, &path) {
            Err(error) if error.is_unanswered() => return Err(error),
            Err(_) => {}
            Ok((snapshot, _)) => entry.snapshots.push(snapshot),
        }
    }
    let end = newest.map(|head| head.end);
    let is_whole = reaches(card, entry, end);
    Ok(Survey {
        end,
        newest,
        snapshot_lsn,
        inherited: match end {
            None => inherited(store, card)?,
            Some(_) => Lsn::ZERO,
        },
        is_whole,
    })
}

fn inherited(store: &Shared, card: &Card) -> Result<Lsn> {
    let mut reached = Lsn::ZERO;
    for (ancestor, through) in shares(&card.ancestors) {
        let dir = catalogue::history_dir(card.cluster, ancestor);
        reached = reached.max(sound_through(store, &dir, through)?);
    }
    Ok(reached)
}

/// Up to where the log in `dir` goes on unbroken, no further than `through`: behind its newest
/// snapshot, or to its end where that lies before the snapshot. Too low is harmless, too high would
/// leave a hole.
fn sound_through(store: &Shared, dir: &str, through: Lsn) -> Result<Lsn> {
    let snapshots = catalogue::snapshots_in(&**store, dir)?;
    let base = snapshots.into_iter().filter(|lsn| *lsn <= through).max();
    let base = base.unwrap_or(Lsn::ZERO);
    let mut pieces = catalogue::pieces_from(&**store, dir, Lsn::ZERO)?;
    pieces.retain(|(first, _)| *first <= through);
    loop {
        let at_base = pieces.iter().filter(|(first, _)| *first <= base.next());
        let mut reached = at_base.map(|(_, last)| *last).max().unwrap_or(base);
        for (first, last) in &pieces {
            if base <= reached && *first <= reached.next() {
                reached = reached.max(*last);
            }
        }
        // Whoever put the last one may have died before he read it back.
        let is_last = |(_, last): &(Lsn, Lsn)| *last == reached;
        let Some(at) = pieces.iter().position(is_last) else {
            return Ok(reached.min(through));
        };
        let path = join(dir, &catalogue::log_name(pieces[at].0, pieces[at].1));
        match read_log(&**store, &path, &Identities::default()) {
            Err(error) if error.is_unanswered() => return Err(error),
            Err(error) if error.locked_to().is_none() => drop(pieces.remove(at)),
            _ => return Ok(reached.min(through)),
        }
    }
}

/// What an archive lacks that was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// Not even the history's card is there.
    Everything,
    /// The log between these two.
    Between(Lsn, Lsn),
}

/// Whether log goes on unbroken to `end` from the newest snapshot at or below it, or from LSN 1; by
/// names alone, so that it may be asked often. What an object holds, and segments, are for a proof.
pub fn missing(store: &Shared, card: &Card, end: Lsn) -> Result<Option<Missing>> {
    if !catalogue::has_card(&**store, card.cluster, card.history)? {
        return Ok(Some(Missing::Everything));
    }
    let dir = catalogue::history_dir(card.cluster, card.history);
    let mut snapshots = catalogue::snapshots_in(&**store, &dir)?;
    snapshots.retain(|lsn| *lsn <= end);
    let base = snapshots.iter().copied().max().unwrap_or(Lsn::ZERO);
    let mut pieces = catalogue::pieces_reaching(&**store, &dir, base, &snapshots)?;
    pieces.sort_unstable();
    let mut reached = base;
    for (first, last) in pieces {
        if first > reached.next() && reached < end {
            return Ok(Some(Missing::Between(reached, first)));
        }
        reached = reached.max(last);
    }
    Ok((reached < end).then_some(Missing::Between(reached, end.next())))
}

/// Whether a restore from what `entry` has gets to `end`.
fn reaches(card: &Card, entry: HistoryEntry, end: Option<Link>) -> bool {
    let catalogue = Catalogue {
        cluster: card.cluster,
        cluster_name: String::new(),
        histories: vec![entry],
        segments: Vec::new(),
    };
    let lineage = Lineage::of(&catalogue, card.history).expect("it is in this catalogue");
    let reaches = lineage.reaches();
    let end = end.map_or(Lsn::ZERO, |end| end.position.lsn);
    reaches.iter().any(|reach| reach.to.lsn >= end)
}
