//! `loss replay`: lost accounts and transfers go to the new history's primary again, by their ids.
//!
//! What is there already is not sent, what is sent twice is made once, and chains stay whole. Keys
//! are never written: their commands are not idempotent, and newer ones may have been done.

use super::books::{Books, Fate, Lost, Sort};
use super::found;
use super::plan::{Allowed, Parcel, Plan, plan};
use super::{From, books, outcome};
use crate::cli::connect::Target;
use crate::cli::exit::{ExitCode, Failure, Outcome};
use crate::client::{self, Client, ledger};
use crate::state::ledger::record::account_flags;
use crate::state::ledger::{
    ACCOUNT_STATUSES, Account, AccountStatus, CREATED, Status, TRANSFER_STATUSES, Transfer,
    TransferStatus,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long one batch may take, failovers included.
const BATCH: Duration = Duration::from_secs(60);

/// Sends lost accounts and transfers to the primary again, by their ids: each is made once
#[derive(clap::Args, Debug)]
pub struct Replay {
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    target: Target,
    /// Look only: what is missing, what is there
    #[arg(long)]
    dry_run: bool,
    /// Nothing but what was committed for certain
    #[arg(long)]
    only_acknowledged: bool,
    /// Also what may have been refused when it was ordered
    #[arg(long)]
    unproved: bool,
    #[arg(long)]
    json: bool,
}

/// What became of one event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    /// Only of a dry run.
    Missing,
    Created,
    Exists,
    /// The id stands for something else in the new history.
    Differs,
    /// Some of its chain is there, some is not.
    Torn,
    Refused(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Verdict::Missing => "missing",
            Verdict::Created => "created",
            Verdict::Exists => "exists",
            Verdict::Differs => "differs",
            Verdict::Torn => "torn",
            Verdict::Refused(_) => "refused",
        }
    }

    fn is_well(&self) -> bool {
        matches!(self, Verdict::Missing | Verdict::Created | Verdict::Exists)
    }

    fn text(&self) -> String {
        match self {
            Verdict::Differs => {
                "differs: the id stands for something else in the new history".to_owned()
            }
            Verdict::Torn => {
                "torn: some of its chain is there and some is not; nothing was sent".to_owned()
            }
            Verdict::Refused(why) => format!("refused: {why}"),
            other => other.word().to_owned(),
        }
    }
}

pub fn run(args: &Replay) -> Outcome {
    let found = args.from.read()?;
    let (_, answer) = args.target.primary()?;
    let status = &answer.status;
    for dir in &args.from.from {
        let (cluster, _) = found::owner(dir)?;
        if cluster.to_string() != status.cluster {
            let (dir, theirs) = (dir.display(), &status.cluster);
            let text = format!("{dir} is of cluster {cluster}, the primary of {theirs}");
            return Err(Failure::new(ExitCode::Usage, text));
        }
    }
    let mut statements = found.iter().map(|one| &one.statement);
    let generation = |history: &str| history.split('-').next()?.parse::<u64>().ok();
    if let Some(one) = statements.find(|one| generation(&one.history) >= Some(status.generation)) {
        let text = format!(
            "history {} is not older than that of the primary (generation {}): nothing of it is \
             lost there",
            one.history, status.generation
        );
        return Err(Failure::new(ExitCode::Refused, text));
    }
    let members = status.members.iter().map(|member| member.client.clone());
    let mut nodes = args.target.addresses()?;
    nodes.extend(members.filter(|client| !client.is_empty()));
    let books = books::open(&found);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    let allowed = Allowed {
        only_acknowledged: args.only_acknowledged,
        unproved: args.unproved,
    };
    let plan = plan(&books, allowed, now);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut results = BTreeMap::new();
    let sent = runtime.block_on(async {
        let client = Client::connect(nodes).await?.with_timeout(BATCH);
        send_all(&client, &books, &plan, args.dry_run, &mut results).await
    });
    report(&books, &plan, &results, args.json)?;
    sent.map_err(|error| {
        Failure::new(ExitCode::Unknown, error.to_string())
            .hint("run it again: what was sent is there, and is not made twice")
    })?;
    let is_open = plan.held.iter().any(|(_, why)| why.is_open());
    outcome(!is_open && results.values().all(Verdict::is_well))
}

type Results = BTreeMap<usize, Verdict>;

async fn send_all(
    client: &Client,
    books: &Books,
    plan: &Plan,
    is_dry: bool,
    results: &mut Results,
) -> Result<(), client::Error> {
    for parcel in &plan.parcels {
        let there = look_up(client, books, parcel).await?;
        let mut missing = Vec::new();
        for group in &parcel.groups {
            let found = group.iter().map(|number| {
                let lost = &books.events[*number];
                compare(lost, there.get(&(lost.sort, lost.id())))
            });
            let found: Vec<Verdict> = found.collect();
            let is = |result: &Verdict| found.iter().all(|one| one == result);
            // In an EXEC, and outside of one, what is there is a success; in a chain it breaks it.
            let is_torn = !parcel.is_exec && !is(&Verdict::Missing) && !is(&Verdict::Exists);
            let is_different = found.contains(&Verdict::Differs);
            let verdicts = found.into_iter().map(|one| match one {
                Verdict::Missing if is_different || is_torn => Verdict::Torn,
                other => other,
            });
            let verdicts: Vec<Verdict> = verdicts.collect();
            if verdicts.contains(&Verdict::Missing) {
                let sent = group.iter().zip(&verdicts);
                let sent = sent.filter(|(_, verdict)| **verdict == Verdict::Missing);
                missing.extend(sent.map(|(number, _)| *number));
            }
            results.extend(group.iter().copied().zip(verdicts));
        }
        if !is_dry && !missing.is_empty() {
            let sent = match parcel.is_exec {
                true => send_exec(client, books, &missing).await?,
                false => send_batch(client, books, &missing).await?,
            };
            results.extend(missing.into_iter().zip(sent));
        }
    }
    Ok(())
}

type Records = BTreeMap<(Sort, u128), [u8; 128]>;

async fn look_up(
    client: &Client,
    books: &Books,
    parcel: &Parcel,
) -> Result<Records, client::Error> {
    let ids = |sort: Sort| {
        let events = parcel.groups.iter().flatten();
        let events = events.map(|number| &books.events[*number]);
        let events = events.filter(move |lost| lost.sort == sort);
        events.map(Lost::id).collect::<Vec<_>>()
    };
    let (accounts, transfers) = (ids(Sort::Account), ids(Sort::Transfer));
    let mut there = Records::new();
    for ids in accounts.chunks(ledger::BATCH_MAX) {
        let found = client.lookup_accounts(ids).await?;
        let found = found.iter().map(|one| (one.id, one.to_bytes()));
        there.extend(found.map(|(id, bytes)| ((Sort::Account, id), bytes)));
    }
    for ids in transfers.chunks(ledger::BATCH_MAX) {
        let found = client.lookup_transfers(ids).await?;
        let found = found.iter().map(|one| (one.id, one.to_bytes()));
        there.extend(found.map(|(id, bytes)| ((Sort::Transfer, id), bytes)));
    }
    Ok(there)
}

/// What is there under the id, beside what was made or is to be.
fn compare(lost: &Lost, there: Option<&[u8; 128]>) -> Verdict {
    let Some(there) = there else {
        return Verdict::Missing;
    };
    let wanted = match lost.fate {
        Fate::Made(record) => record,
        Fate::Nothing | Fate::Unknown => lost.event,
    };
    let is_same = match lost.sort {
        Sort::Account => {
            let plain = |bytes: &[u8; 128]| Account {
                debits_pending: 0,
                debits_posted: 0,
                credits_pending: 0,
                credits_posted: 0,
                timestamp: 0,
                // A transfer may have closed it since.
                flags: Account::decode(bytes).flags & !account_flags::CLOSED,
                ..Account::decode(bytes)
            };
            plain(&wanted) == plain(there)
        }
        Sort::Transfer => {
            let plain = |bytes: &[u8; 128]| Transfer {
                timestamp: 0,
                ..Transfer::decode(bytes)
            };
            plain(&wanted) == plain(there)
        }
    };
    match is_same {
        true => Verdict::Exists,
        false => Verdict::Differs,
    }
}

async fn send_batch(
    client: &Client,
    books: &Books,
    numbers: &[usize],
) -> Result<Vec<Verdict>, client::Error> {
    let events = numbers.iter().map(|number| &books.events[*number]);
    let sort = books.events[numbers[0]].sort;
    let outcomes = match sort {
        Sort::Account => {
            let accounts = events.map(|lost| ledger::Account::from_bytes(&lost.event));
            client
                .create_accounts(&accounts.collect::<Vec<_>>())
                .await?
        }
        Sort::Transfer => {
            let transfers = events.map(|lost| ledger::Transfer::from_bytes(&lost.event));
            let transfers: Vec<_> = transfers.collect();
            client.create_transfers(&transfers).await?
        }
    };
    let statuses = outcomes.iter().map(|outcome| outcome.status);
    Ok(statuses.map(|status| result_of(sort, status)).collect())
}

fn result_of(sort: Sort, status: u32) -> Verdict {
    let text = match sort {
        _ if status == CREATED => return Verdict::Created,
        Sort::Account if status == AccountStatus::Exists.code() => return Verdict::Exists,
        Sort::Transfer if status == TransferStatus::Exists.code() => return Verdict::Exists,
        Sort::Account => text_of(ACCOUNT_STATUSES, status),
        Sort::Transfer => text_of(TRANSFER_STATUSES, status),
    };
    Verdict::Refused(text)
}

fn text_of<S: Status>(all: &[S], status: u32) -> String {
    let known = all.iter().find(|one| one.code() == status);
    known.map_or_else(|| format!("status {status}"), |one| one.text())
}

/// All of it or nothing, as it was.
async fn send_exec(
    client: &Client,
    books: &Books,
    numbers: &[usize],
) -> Result<Vec<Verdict>, client::Error> {
    let mut multi = client.multi();
    let events = || numbers.iter().map(|number| &books.events[*number]);
    for lost in events() {
        let name: &[u8] = match lost.sort {
            Sort::Account => b"LEDGER.CREATE_ACCOUNTS",
            Sort::Transfer => b"LEDGER.CREATE_TRANSFERS",
        };
        multi = multi.command(&[name, &lost.event[..]]);
    }
    match multi.exec().await {
        Ok(_) => Ok(vec![Verdict::Created; numbers.len()]),
        Err(error @ client::Error::Refused { .. }) => {
            Ok(vec![Verdict::Refused(error.to_string()); numbers.len()])
        }
        Err(error) => Err(error),
    }
}

fn report(books: &Books, plan: &Plan, results: &Results, json: bool) -> Result<(), Failure> {
    let mut counts: BTreeMap<(Sort, &str), u64> = BTreeMap::new();
    for (number, result) in results {
        let sort = books.events[*number].sort;
        *counts.entry((sort, result.word())).or_default() += 1;
    }
    for (number, why) in &plan.held {
        let word = if why.is_open() {
            "held_back"
        } else {
            "not_sent"
        };
        *counts
            .entry((books.events[*number].sort, word))
            .or_default() += 1;
    }
    let of = |sort: Sort| {
        let counts = counts.iter().filter(move |((of, _), _)| *of == sort);
        counts
            .map(|((_, word), count)| (*word, *count))
            .collect::<BTreeMap<_, _>>()
    };
    let told = results
        .iter()
        .map(|(number, result)| (*number, result.word(), result.text()));
    let held = plan.held.iter().map(|(number, why)| match why.is_open() {
        true => (*number, "held_back", why.text().to_owned()),
        false => (*number, "not_sent", why.text().to_owned()),
    });
    let mut lines: Vec<(usize, &str, String)> = told.chain(held).collect();
    lines.sort();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if json {
        let events = lines.iter().map(|(number, word, text)| {
            let lost = &books.events[*number];
            json!({
                "kind": kind(lost.sort), "id": lost.id().to_string(), "result": word,
                "why": text, "lsn": books.origin(lost).place.2,
                "acknowledged": books.origin(lost).acknowledged.word(),
            })
        });
        let answer = json!({
            "transfers": of(Sort::Transfer), "accounts": of(Sort::Account),
            "key_commands": books.with_keys.len(), "events": events.collect::<Vec<_>>(),
        });
        writeln!(out, "{answer}")?;
        return Ok(out.flush()?);
    }
    for (number, _, text) in &lines {
        let lost = &books.events[*number];
        writeln!(out, "{} {}  {text}", kind(lost.sort), lost.id())?;
    }
    for sort in [Sort::Account, Sort::Transfer] {
        let counts = of(sort);
        let counts = counts.iter().map(|(word, count)| format!("{count} {word}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        if !counts.is_empty() {
            writeln!(out, "{}s: {counts}", kind(sort))?;
        }
    }
    let keys = books.with_keys.len();
    if keys > 0 {
        writeln!(
            out,
            "{keys} commands on keys are not sent again; see `standfast loss export`"
        )?;
    }
    Ok(out.flush()?)
}

fn kind(sort: Sort) -> &'static str {
    match sort {
        Sort::Account => "account",
        Sort::Transfer => "transfer",
    }
}
