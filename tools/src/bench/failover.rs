//! How long clients wait when the primary is killed, paused or hands over: 4 connections write
//! with ONCE tokens and look the primary up again at once; a fresh cluster for each trial.

use super::Setting;
use super::report::{Machine, median};
use rig::Spec;
use rig::trial::{self, Fault, Outcome};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Arguments {
    /// Trials of each kind; median and maximum are shown.
    #[arg(long, default_value_t = 10)]
    trials: usize,
    /// Run one kind of fault only.
    #[arg(long)]
    only: Option<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Kind {
    Kill,
    Pause,
    Switchover,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Kill, Kind::Pause, Kind::Switchover];

    fn fault(self) -> Fault {
        match self {
            Kind::Kill => Fault::Kill,
            Kind::Pause => Fault::Pause,
            Kind::Switchover => Fault::Switchover,
        }
    }

    /// What the median must stay under.
    fn bar(self) -> Duration {
        Duration::from_millis(match self {
            Kind::Kill => 150,
            Kind::Pause => 1000,
            Kind::Switchover => 50,
        })
    }
}

/// One kind of fault on one kind of cluster.
struct Row {
    cluster: &'static str,
    kind: Kind,
    outcomes: Vec<Outcome>,
}

impl Row {
    fn median_ms(&self) -> f64 {
        median(
            self.outcomes
                .iter()
                .map(|outcome| outcome.gap.as_secs_f64() * 1000.0),
        )
    }

    fn maximum_ms(&self) -> f64 {
        self.outcomes
            .iter()
            .map(|outcome| outcome.gap.as_secs_f64() * 1000.0)
            .fold(0.0, f64::max)
    }

    fn sum(&self, of: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(of).sum()
    }

    /// Error replies but READONLY, which sends a client on to the next primary.
    fn errors(&self) -> u64 {
        self.sum(|outcome| {
            let refusals = outcome.refusals.iter();
            refusals
                .filter(|(word, _)| *word != "READONLY")
                .map(|(_, count)| count)
                .sum()
        })
    }

    fn redirects(&self) -> u64 {
        self.sum(|outcome| outcome.refusals.get("READONLY").copied().unwrap_or(0))
    }

    /// Lost, doubled or wrongly answered writes: any is one too many.
    fn broken(&self) -> u64 {
        self.sum(|outcome| {
            let audit = &outcome.audit;
            audit.lost + audit.doubled + audit.open + audit.wrong.len() as u64
        })
    }

    fn is_met(&self) -> bool {
        let in_time = self.median_ms() < self.kind.bar().as_secs_f64() * 1000.0;
        in_time && self.broken() == 0 && (self.kind != Kind::Switchover || self.errors() == 0)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "cluster": self.cluster, "fault": format!("{:?}", self.kind).to_lowercase(),
            "median_ms": self.median_ms(), "maximum_ms": self.maximum_ms(),
            "bar_ms": self.kind.bar().as_millis() as u64,
            "gaps_ms": self.outcomes.iter()
                .map(|outcome| outcome.gap.as_secs_f64() * 1000.0).collect::<Vec<_>>(),
            "acknowledged": self.sum(|outcome| outcome.audit.acknowledged),
            "lost": self.sum(|outcome| outcome.audit.lost),
            "doubled": self.sum(|outcome| outcome.audit.doubled),
            "broken": self.broken(), "errors": self.errors(), "redirects": self.redirects(),
            "reconnects": self.sum(|outcome| outcome.reconnects), "met": self.is_met(),
        })
    }
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let binary = setting.binary()?;
    let clusters = [
        ("--sync 2", Spec::triple()),
        ("--sync 1 --witness 1", Spec::pair()),
    ];
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        if arguments.only.is_some_and(|only| only != kind) {
            continue;
        }
        for (cluster, spec) in &clusters {
            let mut outcomes = Vec::new();
            for number in 1..=arguments.trials {
                let outcome = trial::run_in(&binary, spec, kind.fault(), &setting.dir);
                let gap = outcome.gap;
                eprintln!(
                    "{cluster} {kind:?} {number}: {gap:.1?} {:?}",
                    outcome.refusals
                );
                outcomes.push(outcome);
            }
            rows.push(Row {
                cluster,
                kind,
                outcomes,
            });
        }
    }
    let machine = Machine::here(&setting.dir);
    if setting.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        println!(
            "{}",
            json!({ "bench": "failover", "machine": machine.json(), "rows": rows })
        );
    } else {
        print_table(&machine, &rows, arguments.trials);
    }
    Ok(if rows.iter().all(Row::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print_table(machine: &Machine, rows: &[Row], trials: usize) {
    println!("The longest time without an acknowledgement, 4 connections writing, {trials} trials");
    println!("{}\n", machine.line());
    println!(
        "| {:<21} | {:<10} | {:>9} | {:>9} | {:>7} | {:>6} | {:>4} | {:>7} | {:>6} | {:>9} |",
        "cluster",
        "fault",
        "median",
        "maximum",
        "bar",
        "writes",
        "lost",
        "doubled",
        "errors",
        "redirects",
    );
    for row in rows {
        println!(
            "| {:<21} | {:<10} | {:>6.1} ms | {:>6.1} ms | {:>4} ms | {:>6} | {:>4} | {:>7} \
             | {:>6} | {:>9} |{}",
            row.cluster,
            format!("{:?}", row.kind).to_lowercase(),
            row.median_ms(),
            row.maximum_ms(),
            row.kind.bar().as_millis(),
            row.sum(|outcome| outcome.audit.acknowledged),
            row.sum(|outcome| outcome.audit.lost),
            row.sum(|outcome| outcome.audit.doubled),
            row.errors(),
            row.redirects(),
            if row.is_met() { "" } else { "  <- not met" },
        );
    }
    println!("\nredirects: READONLY replies of a former primary, which clients follow.");
}
