//! Statements in the books' terms: each lost account and transfer once, and what they add up to.

use super::found::Found;
use super::prove::prove;
use crate::node::statement::{Acknowledged, Listed, Made, What, records, unhex};
use crate::state::Command;
use crate::state::ledger::record::transfer_flags;
use crate::state::ledger::{Account, Transfer};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Of one sort or the other, as 128 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sort {
    Account,
    Transfer,
}

/// What an event came to in the history that is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// This record was made, and is lost.
    Made([u8; 128]),
    /// It was refused, or found its record there: nothing of it is lost.
    Nothing,
    /// The state in which it ran is not at hand.
    Unknown,
}

/// A lost event of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Of [`Books::commands`].
    pub command: usize,
    /// Events of one group were done together or not at all.
    pub group: usize,
    pub sort: Sort,
    /// As it was sent.
    pub event: [u8; 128],
    pub fate: Fate,
}

/// Where a command stood: the history, as text, the epoch and the LSN.
pub type Place = (String, u64, u64);

/// A lost command.
#[derive(Clone, Debug)]
pub struct Origin {
    pub place: Place,
    pub timestamp_ns: u64,
    pub acknowledged: Acknowledged,
    /// The nodes in whose logs it stood.
    pub held_by: BTreeSet<u32>,
    pub command: Command,
    /// Part of an EXEC.
    pub is_composed: bool,
}

/// All that is lost, by what was found.
#[derive(Debug, Default)]
pub struct Books {
    pub commands: Vec<Origin>,
    pub events: Vec<Lost>,
    /// Commands with something for keys in them, of [`Books::commands`].
    pub with_keys: Vec<usize>,
    /// Why it is not known what some commands had made.
    pub unproved: BTreeSet<String>,
    /// Commands that cannot be read.
    pub unreadable: Vec<Place>,
}

impl Lost {
    pub fn transfer(&self) -> Option<Transfer> {
        (self.sort == Sort::Transfer).then(|| Transfer::decode(&self.event))
    }

    pub fn id(&self) -> u128 {
        Account::decode(&self.event).id
    }

    /// What was made, of a transfer.
    pub fn made(&self) -> Option<Transfer> {
        match (self.sort, self.fate) {
            (Sort::Transfer, Fate::Made(record)) => Some(Transfer::decode(&record)),
            _ => None,
        }
    }
}

/// Reads statements, each command once, in the order in which they ran.
pub fn open(found: &[Found]) -> Books {
    let mut books = Books::default();
    let mut origins: BTreeMap<Place, Origin> = BTreeMap::new();
    // By place: what was made, if that is known.
    let mut made: BTreeMap<Place, usize> = BTreeMap::new();
    let mut proofs: Vec<Made> = Vec::new();
    for one in found.iter().filter(|one| one.statement.what == What::Cut) {
        let statement = &one.statement;
        let place = |listed: &Listed| (statement.history.clone(), listed.epoch, listed.lsn);
        let mut listed = statement.commands.iter();
        // Another node's copy of the same commands has told it already.
        let is_told = listed.all(|listed| made.contains_key(&place(listed)));
        let proof = match if is_told {
            Ok(Made::default())
        } else {
            prove(one)
        } {
            Ok(proof) => {
                proofs.push(proof);
                Some(proofs.len() - 1)
            }
            Err(why) => {
                books
                    .unproved
                    .insert(format!("{}: {why}", one.file.display()));
                None
            }
        };
        for listed in &statement.commands {
            let place = place(listed);
            if let Some(proof) = proof {
                made.entry(place.clone()).or_insert(proof);
            }
            let Some(command) = listed.decode() else {
                books.unreadable.push(place);
                continue;
            };
            let origin = origins.entry(place.clone()).or_insert_with(|| Origin {
                place,
                timestamp_ns: listed.timestamp_ns,
                acknowledged: listed.acknowledged,
                held_by: BTreeSet::new(),
                is_composed: command.parts().len() > 1,
                command,
            });
            origin.acknowledged = origin.acknowledged.max(listed.acknowledged);
            origin.held_by.insert(statement.node);
        }
    }
    let proofs: Vec<BTreeMap<_, _>> = proofs.iter().map(by_id).collect();
    let mut origins: Vec<Origin> = origins.into_values().collect();
    origins.sort_by_key(|origin| (origin.timestamp_ns, origin.place.1, origin.place.2));
    let mut used = BTreeSet::new();
    for origin in origins {
        let proof = made.get(&origin.place).map(|at| &proofs[*at]);
        books.enter(origin, proof, &mut used);
    }
    books
}

fn by_id(made: &Made) -> BTreeMap<(Sort, u128), [u8; 128]> {
    let record = |text: &String| <[u8; 128]>::try_from(unhex(text)?).ok();
    let of = |sort: Sort, texts: &[String]| {
        let records = texts.iter().filter_map(record);
        records
            .map(|bytes| ((sort, Account::decode(&bytes).id), bytes))
            .collect::<Vec<_>>()
    };
    let accounts = of(Sort::Account, &made.accounts);
    let transfers = of(Sort::Transfer, &made.transfers);
    accounts.into_iter().chain(transfers).collect()
}

impl Books {
    fn enter(
        &mut self,
        origin: Origin,
        proof: Option<&BTreeMap<(Sort, u128), [u8; 128]>>,
        used: &mut BTreeSet<(Sort, u128)>,
    ) {
        let number = self.commands.len();
        let mut group = self.events.last().map_or(0, |last| last.group + 1);
        let mut has_keys = false;
        for part in origin.command.parts() {
            let (sort, events) = match part {
                Command::CreateAccounts(batch) => (Sort::Account, records(&batch.events)),
                Command::CreateTransfers(batch) => (Sort::Transfer, records(&batch.events)),
                _ => {
                    has_keys = true;
                    continue;
                }
            };
            for event in events {
                let id = Account::decode(event).id;
                let fate = match proof.map(|proof| proof.get(&(sort, id))) {
                    None => Fate::Unknown,
                    Some(Some(there)) if is_of(sort, event, there) && used.insert((sort, id)) => {
                        Fate::Made(*there)
                    }
                    Some(_) => Fate::Nothing,
                };
                self.events.push(Lost {
                    command: number,
                    group,
                    sort,
                    event: *event,
                    fate,
                });
                // The flag that ties to the next event is the lowest one of both sorts.
                let is_linked = Account::decode(event).flags & transfer_flags::LINKED != 0;
                if !is_linked && !origin.is_composed {
                    group += 1;
                }
            }
        }
        if has_keys {
            self.with_keys.push(number);
        }
        self.commands.push(origin);
    }

    pub fn origin(&self, lost: &Lost) -> &Origin {
        &self.commands[lost.command]
    }

    /// Events by group, in order.
    pub fn groups(&self) -> impl Iterator<Item = &[Lost]> {
        self.events.chunk_by(|a, b| a.group == b.group)
    }

    /// The requests of a command, for people and for exports.
    pub fn requests(&self, command: usize) -> Vec<Vec<Bytes>> {
        self.commands[command].command.requests()
    }
}

/// Whether this event, and not another one under the same id, made the record.
fn is_of(sort: Sort, event: &[u8; 128], there: &[u8; 128]) -> bool {
    match sort {
        Sort::Account => {
            let (event, there) = (Account::decode(event), Account::decode(there));
            (event.ledger, event.code) == (there.ledger, there.code)
        }
        Sort::Transfer => {
            let (event, there) = (Transfer::decode(event), Transfer::decode(there));
            (event.flags, event.pending_id, event.timeout)
                == (there.flags, there.pending_id, there.timeout)
        }
    }
}

/// Amounts of lost transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    pub transfers: u64,
    pub acknowledged: u64,
    /// Posted.
    pub moved: u128,
    /// Held by holds that nothing lost has resolved.
    pub held: u128,
}

/// What an account lacks by the loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Net {
    pub ledger: u32,
    pub debits_posted: u128,
    pub credits_posted: u128,
    pub debits_held: u128,
    pub credits_held: u128,
}

/// Per ledger and per account.
pub fn add_up(books: &Books) -> (BTreeMap<u32, Sum>, BTreeMap<u128, Net>) {
    let (mut sums, mut nets) = (BTreeMap::<u32, Sum>::new(), BTreeMap::<u128, Net>::new());
    let made = || {
        books
            .events
            .iter()
            .filter_map(|lost| Some((lost, lost.made()?)))
    };
    let resolved: BTreeSet<u128> = made().map(|(_, transfer)| transfer.pending_id).collect();
    for (lost, transfer) in made() {
        let is_hold = transfer.has(transfer_flags::PENDING);
        let is_held = is_hold && !resolved.contains(&transfer.id);
        let is_moved = !is_hold && !transfer.has(transfer_flags::VOID);
        let moved = if is_moved { transfer.amount } else { 0 };
        let held = if is_held { transfer.amount } else { 0 };
        let sum = sums.entry(transfer.ledger).or_default();
        sum.transfers += 1;
        sum.acknowledged += u64::from(books.origin(lost).acknowledged == Acknowledged::Yes);
        sum.moved = sum.moved.saturating_add(moved);
        sum.held = sum.held.saturating_add(held);
        let mut add = |account: u128, is_debit: bool| {
            let net = nets.entry(account).or_default();
            net.ledger = transfer.ledger;
            let (posted, pending) = match is_debit {
                true => (&mut net.debits_posted, &mut net.debits_held),
                false => (&mut net.credits_posted, &mut net.credits_held),
            };
            *posted = posted.saturating_add(moved);
            *pending = pending.saturating_add(held);
        };
        add(transfer.debit_account_id, true);
        add(transfer.credit_account_id, false);
    }
    (sums, nets)
}
