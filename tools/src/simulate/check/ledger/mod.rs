//! I7 and every answer about the ledger: the committed log is replayed through the plain books
//! (`tools/books`), never through production's state, and each result, each read and each node's
//! ledger at the end is held against them.

mod expected;
mod model;
mod rare;

pub use expected::Expected;
pub use model::KEYS;
pub use rare::{Counts, RARE, Rare};

use super::history::{Asks, End, Histories, Operation};
use super::log::Branch;
use super::told::Told;
use super::whole;
use crate::simulate::nodes::Node;
use books::{Hold, Transfer, TransferStatus};
use model::{Change, Model};
use standfast::state::command::BatchForm;
use standfast::state::ledger::{Filter, HoldStatus, Ledger, Row};
use standfast::state::{Command, Reply};
use standfast_wal::{Epoch, History, Lsn};
use std::collections::{BTreeMap, BTreeSet};

/// An answered operation of the ledger.
struct Answered<'a> {
    operation: &'a Operation,
    lsn: Lsn,
    epoch: Epoch,
    reply: &'a Reply,
}

/// The books at the end of a history.
pub struct Closed {
    through: Lsn,
    model: Model,
    /// Where EXEC was refused for an event of the ledger: of all its commands nothing was done.
    pub aborted: BTreeSet<Lsn>,
}

/// Replays a history's log through the books. `None`: nobody asked for anything of the ledger.
pub fn check(
    branch: &Branch,
    histories: &Histories,
    told: &Told,
    counts: &mut Counts,
) -> Result<Option<Closed>, String> {
    let ours = histories.operations.iter();
    let mut ours = ours.filter(|operation| {
        operation.command != Command::FlushAll && model::concerns(&operation.command)
    });
    if ours.next().is_none() {
        return Ok(None);
    }
    let answered = answered(branch, histories);
    created_once(&answered)?;
    let mut replay = Replay::new(&answered, told.replies(branch.history));
    let mut model = Model::default();
    let mut aborted = BTreeSet::new();
    for record in &branch.records {
        for (lsn, place, change) in model::changes(record) {
            replay.reads_before(lsn, &mut model)?;
            let expected = model.apply(place, &change);
            if expected.is_abort() {
                aborted.insert(lsn);
            }
            if let Change::Command(command) = &change {
                replay.write(lsn, record.epoch(), command, &expected)?;
            }
            if !model.is_balanced() {
                return Err(format!(
                    "I7: at {lsn} the plain books themselves do not balance"
                ));
            }
        }
    }
    replay.reads_before(Lsn(u64::MAX), &mut model)?;
    counts.add(&model.counts);
    sent_again(&answered, histories, counts);
    let through = branch
        .records
        .last()
        .map_or(Lsn::ZERO, |last| last.last_lsn());
    Ok(Some(Closed {
        through,
        model,
        aborted,
    }))
}

/// What was answered about the ledger in this history.
fn answered<'a>(branch: &Branch, histories: &'a Histories) -> Vec<Answered<'a>> {
    let all = histories.operations.iter();
    let ours = all.filter(|operation| model::concerns(&operation.command));
    let answered = ours.filter_map(|operation| match &operation.end {
        End::Answered {
            history,
            lsn,
            epoch,
            reply,
            ..
        } if *history == branch.history => Some(Answered {
            operation,
            lsn: *lsn,
            epoch: *epoch,
            reply,
        }),
        _ => None,
    });
    answered.collect()
}

struct Replay<'a> {
    writes: BTreeMap<Lsn, &'a Answered<'a>>,
    /// By LSN, the last first.
    reads: Vec<&'a Answered<'a>>,
    /// What OUTCOME said was done, with which reply.
    outcomes: BTreeMap<Lsn, Vec<(Epoch, &'a Reply)>>,
}

impl<'a> Replay<'a> {
    fn new(
        answered: &'a [Answered<'a>],
        outcomes: BTreeMap<Lsn, Vec<(Epoch, &'a Reply)>>,
    ) -> Replay<'a> {
        let (writes, mut reads): (Vec<_>, Vec<_>) = answered
            .iter()
            .partition(|one| one.operation.asks == Asks::Write);
        reads.sort_by_key(|one| std::cmp::Reverse(one.lsn));
        Replay {
            writes: writes.into_iter().map(|one| (one.lsn, one)).collect(),
            reads,
            outcomes,
        }
    }

    /// What was read at places before this one, of the books as they stand.
    fn reads_before(&mut self, lsn: Lsn, model: &mut Model) -> Result<(), String> {
        while let Some(read) = self.reads.pop_if(|read| read.lsn < lsn) {
            let expected = model.read(&read.operation.command);
            if !expected.fits(read.reply) {
                return Err(wrong(read.operation, &expected, read.reply));
            }
            if read.operation.asks == Asks::Stale {
                model.counts.note(Rare::StaleRead);
            }
            if let Reply::Array(page) = read.reply
                && let [Reply::Bulk(cursor), Reply::Array(rows)] = &page[..]
            {
                if &cursor[..] != b"0" {
                    model.counts.note(Rare::Page);
                }
                let is_statement = matches!(rows.first(), Some(Reply::Map(fields))
                    if fields[0].0 == Reply::Bulk("kind".into()));
                if is_statement {
                    model.counts.note(Rare::Statement);
                }
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        lsn: Lsn,
        epoch: Epoch,
        command: &Command,
        expected: &Expected,
    ) -> Result<(), String> {
        for (there, said) in self.outcomes.remove(&lsn).into_iter().flatten() {
            if there == epoch && !expected.fits(said) {
                return Err(format!(
                    "I7: OUTCOME of {command:?} at {lsn} said {said:?}; by the books {expected:?}"
                ));
            }
        }
        match self.writes.remove(&lsn) {
            Some(write) if write.epoch == epoch && !expected.fits(write.reply) => {
                Err(wrong(write.operation, expected, write.reply))
            }
            _ => Ok(()),
        }
    }
}

fn wrong(operation: &Operation, expected: &Expected, reply: &Reply) -> String {
    format!("I7: {}: {operation:?}", expected.unlike(reply))
}

/// The events of a batch of transfers, with what its client was told of each.
fn told_of(answered: &Answered) -> Vec<(Transfer, u64, u32)> {
    let Command::CreateTransfers(batch) = &answered.operation.command else {
        return Vec::new();
    };
    let (BatchForm::Results, Reply::Bulk(results)) = (batch.form, answered.reply) else {
        return Vec::new();
    };
    let (events, _) = batch.events.as_chunks::<{ Transfer::BYTES }>();
    let results = results.chunks_exact(16);
    let told = events.iter().zip(results).map(|(event, result)| {
        let timestamp = result[..8].try_into().expect("16 bytes");
        let status = result[8..12].try_into().expect("16 bytes");
        (
            Transfer::from_bytes(event),
            u64::from_le_bytes(timestamp),
            u32::from_le_bytes(status),
        )
    });
    told.collect()
}

/// Known without any books: an id is created once, and everybody who asks hears the same time.
fn created_once(answered: &[Answered]) -> Result<(), String> {
    let mut created: BTreeSet<u128> = BTreeSet::new();
    let mut times: BTreeMap<u128, (u64, &Answered)> = BTreeMap::new();
    for one in answered {
        let told = told_of(one);
        // An event that names one of its own chain again breaks that: it existed for a moment only.
        let taken_back = |id: u128| {
            let failed = TransferStatus::LinkedEventFailed.number();
            told.iter()
                .any(|(event, _, status)| event.id == id && *status == failed)
        };
        for (event, timestamp, status) in &told {
            let is_created = *status == TransferStatus::Created.number();
            let exists = *status == TransferStatus::Exists.number() && !taken_back(event.id);
            if !is_created && !exists {
                continue;
            }
            let (known, first) = *times.entry(event.id).or_insert((*timestamp, one));
            let is_first = !is_created || created.insert(event.id);
            if !is_first || known != *timestamp {
                return Err(format!(
                    "I7: transfer {} was created twice, at {known} by LSN {} and at {timestamp} by \
                     LSN {}: {:?} and {:?}",
                    event.id, first.lsn, one.lsn, first.operation, one.operation
                ));
            }
        }
    }
    Ok(())
}

/// Counts batches whose first answer was lost and whose repetition found all of it done.
fn sent_again(answered: &[Answered], histories: &Histories, counts: &mut Counts) {
    let lost = histories.operations.iter();
    let lost = lost.filter(|operation| matches!(operation.end, End::Unknown(_)));
    let lost: BTreeSet<_> = lost.map(|operation| &operation.encoded).collect();
    for one in answered {
        let told = told_of(one);
        let exists = TransferStatus::Exists.number();
        let is_done = told.iter().any(|(_, _, status)| *status == exists);
        if is_done && lost.contains(&one.operation.encoded) {
            counts.note(Rare::ExistsAgain);
        }
    }
}

impl Closed {
    /// Every node of this history that has applied all of it.
    pub fn compare_nodes(
        &self,
        history: History,
        nodes: &[Node],
        counts: &mut Counts,
    ) -> Result<(), String> {
        for (node, engine) in whole(history, self.through, nodes) {
            self.compare(engine.state().ledger())
                .map_err(|story| format!("n{}: {story}", node.id))?;
            counts.note(Rare::NodeCompared);
        }
        Ok(())
    }

    /// A node's ledger is what the books say: every account, transfer, hold, sum and statement.
    fn compare(&self, ledger: &Ledger) -> Result<(), String> {
        let books = &self.model.books;
        let mut count = 0;
        for account in books.accounts() {
            let found = ledger.account(account.id).map(|found| found.encode());
            if found != Some(account.to_bytes()) {
                let found = ledger.account(account.id);
                return Err(format!("I7: by the books {account:?}, here {found:?}"));
            }
            count += 1;
            self.compare_statement(account.id, ledger)?;
        }
        let mut transfers = 0;
        for transfer in books.transfers() {
            let found = ledger.transfer(transfer.id).map(|found| found.encode());
            let status = ledger.hold_status(transfer.id).map(|status| match status {
                HoldStatus::Open => Hold::Pending,
                HoldStatus::Posted => Hold::Posted,
                HoldStatus::Voided => Hold::Voided,
                HoldStatus::Expired => Hold::Expired,
            });
            let hold = books.hold(transfer.id);
            if found != Some(transfer.to_bytes()) || status != hold {
                let found = ledger.transfer(transfer.id);
                return Err(format!(
                    "I7: by the books {transfer:?}, {hold:?}, here {found:?}, {status:?}"
                ));
            }
            transfers += 1;
        }
        let expected = (count, transfers, self.model.open_hold_count());
        let found = (ledger.accounts(), ledger.transfers(), ledger.open_holds());
        if expected != found {
            return Err(format!(
                "I7: accounts, transfers, open holds are {expected:?} by the books, here {found:?}"
            ));
        }
        self.compare_totals(ledger)
    }

    fn compare_totals(&self, ledger: &Ledger) -> Result<(), String> {
        let expected = self.model.books.totals().into_iter().map(|(number, sums)| {
            let debits = [sums.debits_pending.low, sums.debits_posted.low];
            let credits = [sums.credits_pending.low, sums.credits_posted.low];
            (number, sums.accounts, debits, credits)
        });
        let found = ledger.totals().map(|(number, sums)| {
            let debits = [sums.debits_pending, sums.debits_posted];
            let credits = [sums.credits_pending, sums.credits_posted];
            (number, sums.accounts, debits, credits)
        });
        let (expected, found): (Vec<_>, Vec<_>) = (expected.collect(), found.collect());
        if expected != found {
            return Err(format!(
                "I7: sums are {expected:?} by the books, here {found:?}"
            ));
        }
        Ok(())
    }

    fn compare_statement(&self, account: u128, ledger: &Ledger) -> Result<(), String> {
        let rows = self.model.rows.iter().filter(|row| row.account == account);
        let expected: Vec<_> = rows
            .map(|row| (row.kind, row.timestamp, row.happened, row.balances))
            .take(books::ROWS_MAX)
            .collect();
        let asked = Filter {
            account_id: account,
            limit: u32::try_from(books::ROWS_MAX).expect("some thousands"),
            ..Filter::default()
        };
        let found = ledger.account_balances(&asked);
        let found = found.map(|page| page.items).unwrap_or_default();
        let here = |row: &Row| {
            let balances = [
                row.debits_pending,
                row.debits_posted,
                row.credits_pending,
                row.credits_posted,
            ];
            (row.kind.name(), row.timestamp, row.happened, balances)
        };
        let found: Vec<_> = found.iter().map(here).collect();
        if expected != found {
            return Err(format!(
                "I7: the statement of account {account} is {expected:?} by the books, here {found:?}"
            ));
        }
        Ok(())
    }
}
