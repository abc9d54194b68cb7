//! `soak`: real processes under random kills, pauses, partitions and switchovers for a given time,
//! a bank working on them all through; then the audit, and the distribution of the time nobody was
//! served, by kind of fault.

use crate::bench::Setting;
use crate::bench::report::{Machine, median};
use anyhow::ensure;
use rig::Spec;
use rig::bank::Staff;
use rig::chaos::Kind;
use rig::soak::{self, Felt, Outcome, Plan, ms};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Arguments {
    /// How long faults are done.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Decides which faults come, on whom and for how long; drawn and printed when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Synchronous backups.
    #[arg(long, default_value_t = 2)]
    sync: u32,
    /// Asynchronous backups.
    #[arg(long = "async", default_value_t = 0)]
    asynchronous: u32,
    /// Witnesses; what makes the voters odd when not given.
    #[arg(long)]
    witness: Option<u32>,
    /// Accounts of the bank.
    #[arg(long, default_value_t = 64)]
    accounts: usize,
    /// Connections that transfer.
    #[arg(long, default_value_t = 8)]
    clerks: usize,
    /// Milliseconds from one transfer of a clerk to its next. Each takes a ONCE token, of which a
    /// node remembers a million.
    #[arg(long, default_value_t = 25)]
    pace: u64,
    /// Do only faults of these kinds, by the names in the table; several with commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keep the nodes' directories and logs.
    #[arg(long)]
    keep: bool,
    /// The standfast binary; built in release mode when not given.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where scratch directories are made.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    ensure!(arguments.sync > 0, "--sync 0 leaves nobody to take over");
    let setting = Setting {
        binary: arguments.binary.clone(),
        dir: arguments.dir.clone().unwrap_or_else(std::env::temp_dir),
        json: arguments.json,
        plot: None,
    };
    let binary = setting.binary()?;
    let plan = plan_of(&arguments)?;
    let asked = format!(
        "soak --minutes {} --seed {} --sync {} --async {} --witness {} --accounts {} --clerks {} \
         --pace {}",
        arguments.minutes,
        plan.seed,
        plan.spec.sync,
        plan.spec.asynchronous,
        plan.spec.witness,
        arguments.accounts,
        arguments.clerks,
        arguments.pace
    );
    eprintln!("{asked}");
    let outcome = soak::run(&binary, &plan, &setting.dir, |line| eprintln!("{line}"));
    let machine = Machine::here(&setting.dir);
    if setting.json {
        println!("{}", report(&asked, &machine, &outcome));
    } else {
        print(&asked, &machine, &outcome);
    }
    Ok(if outcome.audit.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn plan_of(arguments: &Arguments) -> anyhow::Result<Plan> {
    let drawn = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |time| time.as_nanos() as u64 % 1_000_000_000)
    };
    let seed = arguments.seed.unwrap_or_else(drawn);
    let spec = Spec {
        sync: arguments.sync,
        asynchronous: arguments.asynchronous,
        witness: arguments.witness.unwrap_or(arguments.sync % 2),
        proxied: true,
        ..Spec::default()
    };
    let mut kinds = Kind::all(&spec);
    if !arguments.only.is_empty() {
        kinds.retain(|kind| arguments.only.iter().any(|name| name == kind.name()));
        ensure!(
            kinds.len() == arguments.only.len(),
            "--only {:?}: not all of these are faults of such a cluster",
            arguments.only
        );
    }
    Ok(Plan {
        spec,
        kinds,
        keep: arguments.keep,
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        seed,
        staff: Staff {
            accounts: arguments.accounts,
            clerks: arguments.clerks,
            pace: Duration::from_millis(arguments.pace),
            seed,
        },
    })
}

/// Median, 99th percentile and maximum, in milliseconds.
struct Spread {
    median: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    fn of(times: impl Iterator<Item = Duration>) -> Spread {
        let mut times: Vec<f64> = times.map(ms).collect();
        times.sort_by(f64::total_cmp);
        // The nearest rank: a value that was measured, with few of them the highest.
        let rank = (times.len() as f64 * 0.99).ceil() as usize;
        Spread {
            median: median(times.iter().copied()),
            p99: times[rank - 1],
            max: times[times.len() - 1],
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "median_ms": self.median, "p99_ms": self.p99, "max_ms": self.max })
    }
}

/// One kind of fault, or a group of kinds.
struct Row<'a> {
    name: &'a str,
    stops_service: bool,
    count: usize,
    lasted: Spread,
    first: Spread,
    silence: Spread,
}

impl Row<'_> {
    fn of<'a>(name: &'a str, stops_service: bool, felt: &[&Felt]) -> Row<'a> {
        let spread = |of: fn(&Felt) -> Duration| Spread::of(felt.iter().map(|felt| of(felt)));
        Row {
            name,
            stops_service,
            count: felt.len(),
            lasted: spread(|felt| felt.incident.undone - felt.incident.began),
            first: spread(|felt| felt.first),
            silence: spread(|felt| felt.silence),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "fault": self.name, "count": self.count, "stops_service": self.stops_service,
            "lasted": self.lasted.json(), "first_acknowledged": self.first.json(),
            "silence": self.silence.json(),
        })
    }
}

/// One row for each kind, then all that service should survive, then those it cannot.
fn rows(outcome: &Outcome) -> Vec<Row<'static>> {
    let mut kinds: BTreeMap<_, Vec<&Felt>> = BTreeMap::new();
    for felt in &outcome.felt {
        kinds.entry(felt.incident.kind).or_default().push(felt);
    }
    let mut rows: Vec<Row> = kinds
        .iter()
        .map(|(kind, felt)| Row::of(kind.name(), kind.stops_service(), felt))
        .collect();
    for (name, stops) in [
        ("all but those that stop every node", false),
        ("those", true),
    ] {
        let felt: Vec<&Felt> = outcome
            .felt
            .iter()
            .filter(|felt| felt.incident.kind.stops_service() == stops)
            .collect();
        if !felt.is_empty() {
            rows.push(Row::of(name, stops, &felt));
        }
    }
    rows
}

fn report(asked: &str, machine: &Machine, outcome: &Outcome) -> serde_json::Value {
    let audit = &outcome.audit;
    let rows: Vec<_> = rows(outcome).iter().map(Row::json).collect();
    json!({
        "command": asked, "machine": machine.json(), "seconds": outcome.took.as_secs_f64(),
        "faults": outcome.felt.len(), "acknowledged": audit.acknowledged, "lost": audit.lost,
        "doubled": audit.doubled, "refused": audit.refused, "refused_ran": audit.refused_ran,
        "open": audit.open, "conserved": audit.conserved, "looks": audit.looks,
        "stale_looks": audit.stale_looks, "receipts": audit.receipts,
        "contradictions": audit.contradictions, "stories": audit.stories,
        "digests_equal_at_lsn": outcome.equal_at, "refusals": outcome.refusals,
        "reconnects": outcome.reconnects, "promotions": outcome.promotions,
        "clean": audit.is_clean(), "rows": rows,
        "incidents": outcome.felt.iter().map(incident).collect::<Vec<_>>(),
    })
}

fn incident(felt: &Felt) -> serde_json::Value {
    json!({
        "fault": felt.incident.kind.name(), "story": felt.incident.story,
        "lasted_ms": ms(felt.incident.undone - felt.incident.began),
        "first_acknowledged_ms": ms(felt.first), "silence_ms": ms(felt.silence),
    })
}

fn print(asked: &str, machine: &Machine, outcome: &Outcome) {
    let audit = &outcome.audit;
    println!("{asked}\n{}\n", machine.line());
    println!(
        "{} faults and {} promotions in {:.0} s; {} transfers acknowledged, {} lost, {} doubled; \
         {} refused for good, {} of them ran; {} open",
        outcome.felt.len(),
        outcome.promotions,
        outcome.took.as_secs_f64(),
        audit.acknowledged,
        audit.lost,
        audit.doubled,
        audit.refused,
        audit.refused_ran,
        audit.open,
    );
    println!(
        "sum {}; {} linearizable looks at all accounts, {} at backups, {} receipts: {} \
         contradictions; digests equal on all data nodes at LSN {}",
        if audit.conserved {
            "conserved"
        } else {
            "NOT CONSERVED"
        },
        audit.looks,
        audit.stale_looks,
        audit.receipts,
        audit.contradictions,
        outcome.equal_at,
    );
    for story in &audit.stories {
        println!("  {story}");
    }
    println!(
        "refusals {:?}, {} reconnections\n",
        outcome.refusals, outcome.reconnects
    );
    println!("Milliseconds from the fault to the first acknowledgement of a transfer begun after");
    println!("it, and the longest silence of all clerks until the next fault:\n");
    println!(
        "| {:<34} | {:>5} | {:>8} | {:>6} | {:>6} | {:>6} | {:>8} | {:>6} | {:>6} |",
        "fault", "count", "lasted", "first", "p99", "max", "silence", "p99", "max"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for row in rows(outcome) {
        println!(
            "| {:<34} | {:>5} | {:>8.0} | {:>6.0} | {:>6.0} | {:>6.0} | {:>8.0} | {:>6.0} \
             | {:>6.0} |",
            row.name,
            row.count,
            row.lasted.median,
            row.first.median,
            row.first.p99,
            row.first.max,
            row.silence.median,
            row.silence.p99,
            row.silence.max,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let spread = |count: u64| Spread::of((1..=count).map(Duration::from_millis));
        let many = spread(200);
        assert_eq!((many.p99, many.max), (198.0, 200.0));
        let few = spread(3);
        assert_eq!((few.median, few.p99, few.max), (2.0, 3.0, 3.0));
    }
}
