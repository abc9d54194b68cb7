//! What of a loss may be sent again, and what a person has to decide. Pure.

use super::books::{Books, Fate, Lost, Sort};
use crate::node::statement::Acknowledged;
use crate::state::ledger::record::transfer_flags;
use crate::state::ledger::{Account, BATCH_EVENTS_MAX, Transfer};
use std::collections::BTreeSet;

/// What the operator allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allowed {
    /// Nothing but what was committed for certain.
    pub only_acknowledged: bool,
    /// Also what may have been refused in the lost history.
    pub unproved: bool,
}

/// Why a group is not sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Held {
    /// Refused when it was ordered, or its record was there: nothing is missing.
    NothingLost,
    NeverAcknowledged,
    PossiblyAcknowledged,
    Unproved,
    Balancing,
    Expired,
}

impl Held {
    pub fn text(self) -> &'static str {
        match self {
            Held::NothingLost => "it was refused or repeated in the lost history: nothing is lost",
            Held::NeverAcknowledged => "it was never committed, and nobody was told that it was",
            Held::PossiblyAcknowledged => {
                "whether it was acknowledged is not certain, and --only-acknowledged was given"
            }
            Held::Unproved => {
                "whether it was refused in the lost history cannot be proved (--unproved sends it)"
            }
            Held::Balancing => {
                "its amount follows from a balance, which is another one now; send the amount that \
                 was moved under a new id"
            }
            Held::Expired => {
                "its hold would have expired by now and nothing lost resolves it; the money was \
                 to be free again"
            }
        }
    }

    /// Whether something is missing that a person has to see to.
    pub fn is_open(self) -> bool {
        matches!(self, Held::Unproved | Held::Balancing | Held::Expired)
    }
}

/// Events of one sort that travel in one batch, whole groups of them, or one EXEC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parcel {
    /// Of [`Books::events`].
    pub groups: Vec<Vec<usize>>,
    pub is_exec: bool,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub parcels: Vec<Parcel>,
    pub held: Vec<(usize, Held)>,
}

/// Plans it as of `now`, ns since 1970.
pub fn plan(books: &Books, allowed: Allowed, now: u64) -> Plan {
    let mut plan = Plan::default();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut at = 0;
    for group in books.groups() {
        let numbers: Vec<usize> = (at..at + group.len()).collect();
        at += group.len();
        match held(books, group, allowed) {
            Some(why) => plan.held.extend(numbers.into_iter().map(|n| (n, why))),
            None => groups.push(numbers),
        }
    }
    hold_expired(books, &mut groups, &mut plan, now);
    for group in groups {
        plan.add(books, group);
    }
    plan.held.sort_unstable();
    plan
}

fn held(books: &Books, group: &[Lost], allowed: Allowed) -> Option<Held> {
    let acknowledged = books.origin(&group[0]).acknowledged;
    let is = |flags: u16| {
        let mut transfers = group.iter().filter_map(Lost::transfer);
        transfers.any(|transfer| transfer.has_any(flags))
    };
    if group.iter().all(|lost| lost.fate == Fate::Nothing) {
        Some(Held::NothingLost)
    } else if acknowledged == Acknowledged::No {
        Some(Held::NeverAcknowledged)
    } else if allowed.only_acknowledged && acknowledged != Acknowledged::Yes {
        Some(Held::PossiblyAcknowledged)
    } else if !allowed.unproved && group.iter().any(|lost| lost.fate == Fate::Unknown) {
        Some(Held::Unproved)
    } else if is(transfer_flags::BALANCING) {
        Some(Held::Balancing)
    } else {
        None
    }
}

/// A hold that has had its time is not held anew, unless what resolves it is sent, too.
fn hold_expired(books: &Books, groups: &mut Vec<Vec<usize>>, plan: &mut Plan, now: u64) {
    let transfer = |number: &usize| books.events[*number].transfer();
    let all = groups.iter().flatten().filter_map(transfer);
    let resolved: BTreeSet<u128> = all.map(|transfer| transfer.pending_id).collect();
    let is_over = |number: &usize| {
        let lost = &books.events[*number];
        let sent = transfer(number).filter(|transfer| !resolved.contains(&transfer.id));
        sent.is_some_and(|sent| {
            let ordered = books.origin(lost).timestamp_ns;
            let ended = Transfer {
                timestamp: lost.made().map_or(ordered, |made| made.timestamp),
                ..sent
            };
            ended.has(transfer_flags::PENDING) && ended.expires_at().is_some_and(|end| end <= now)
        })
    };
    groups.retain(|group| {
        let stays = !group.iter().any(is_over);
        if !stays {
            plan.held.extend(group.iter().map(|n| (*n, Held::Expired)));
        }
        stays
    });
}

impl Plan {
    /// Behind what is planned: into the newest parcel, if it goes there.
    fn add(&mut self, books: &Books, group: Vec<usize>) {
        let first = &books.events[group[0]];
        let is_exec = books.origin(first).is_composed;
        let kind = |number: &usize| {
            let lost = &books.events[*number];
            (lost.sort, is_imported(lost))
        };
        let fits = self.parcels.last_mut().filter(|parcel| {
            let events = parcel.groups.iter().flatten().count();
            let last = parcel.groups.last().and_then(|group| group.last());
            !is_exec
                && !parcel.is_exec
                && events + group.len() <= BATCH_EVENTS_MAX
                && last.map(kind) == group.first().map(kind)
        });
        match fits {
            Some(parcel) => parcel.groups.push(group),
            None => self.parcels.push(Parcel {
                groups: vec![group],
                is_exec,
            }),
        }
    }
}

fn is_imported(lost: &Lost) -> bool {
    match lost.sort {
        // The server's own timestamps are not in what was sent.
        Sort::Account => Account::decode(&lost.event).timestamp != 0,
        Sort::Transfer => Transfer::decode(&lost.event).has(transfer_flags::IMPORTED),
    }
}
