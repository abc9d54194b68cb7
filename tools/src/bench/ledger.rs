//! Transfers into the ledger, on a fresh cluster for each run: through its binary face in batches,
//! or one by one in words.

use super::fault::{Fault, Felt, MEASURED, Trial, Victim};
use super::load::measure::Run;
use super::load::{Pace, Plan, Shape, Target, Work, run as drive};
use super::plot::Part;
use super::report::{Machine, Row, line, print_rows};
use super::work::batches::{Mix, Transfers};
use super::work::pipeline::Pipeline;
use super::work::skew::{Kind, Skew};
use super::{Setting, Timing, ours};
use anyhow::ensure;
use rig::Cluster;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Arguments {
    /// Accounts; several numbers with commas make a row each.
    #[arg(long, value_delimiter = ',', default_value = "10000")]
    accounts: Vec<u64>,
    /// Transfers that are made before anything is measured; several with commas make a row each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    prefill: Vec<u64>,
    /// Transfers of one request.
    #[arg(long, default_value_t = ours::BATCH_MAX)]
    batch: usize,
    /// As batches of records, or in words: then a request is a pipeline of --batch commands.
    #[arg(long, value_enum, default_value = "batches")]
    face: Face,
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Requests that each connection has under way.
    #[arg(long, default_value_t = 2)]
    depth: usize,
    /// Full copies of the data; a write is acknowledged when all of one or two have it on disk, or
    /// two of three.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3))]
    copies: u32,
    /// Which accounts are drawn how often.
    #[arg(long, value_enum, default_value = "uniform")]
    skew: Kind,
    /// What the transfers are.
    #[arg(long, value_enum, default_value = "single")]
    mix: Mix,
    /// Transfers a second, in a steady stream (an open loop); as many as it takes when not given.
    #[arg(long)]
    rate: Option<f64>,
    /// What is done to a node in the middle of an open loop, at --load times the maximum that one
    /// closed run, as long as the open loop, measures first; --seconds has no say here.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    /// Whom it is done to.
    #[arg(long, value_enum, default_value = "backup")]
    victim: Victim,
    #[arg(long, default_value_t = 0.7)]
    load: f64,
    #[command(flatten)]
    timing: Timing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Face {
    Batches,
    Words,
}

/// What one row of the table is about.
#[derive(Clone, Copy)]
struct Case {
    accounts: u64,
    prefill: u64,
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    ensure!(
        (1..=ours::BATCH_MAX).contains(&arguments.batch),
        "a batch holds 1 to {} transfers",
        ours::BATCH_MAX
    );
    let bench = Bench {
        setting,
        arguments,
        binary: setting.binary()?,
    };
    let mut cases = Vec::new();
    for &accounts in &arguments.accounts {
        let prefills = arguments.prefill.iter();
        cases.extend(prefills.map(|&prefill| Case { accounts, prefill }));
    }
    match arguments.fault {
        Some(fault) => {
            let felt = cases.into_iter().map(|case| bench.fault(case, fault));
            bench.report_faults(&felt.collect::<Result<Vec<_>, _>>()?)?;
        }
        None => {
            let rows = cases.into_iter().map(|case| bench.row(case));
            bench.report(&rows.collect::<Result<Vec<_>, _>>()?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Case {
    fn name(self) -> String {
        let mut name = format!("{} accounts", self.accounts);
        if self.prefill > 0 {
            name.push_str(&format!(", after {} transfers", self.prefill));
        }
        name
    }
}

struct Bench<'a> {
    setting: &'a Setting,
    arguments: &'a Arguments,
    binary: std::path::PathBuf,
}

impl Bench<'_> {
    fn row(&self, case: Case) -> anyhow::Result<Row> {
        let mut row = Row::new(&case.name());
        // The load counts requests.
        let batch = self.arguments.batch as f64;
        let pace = self.arguments.rate.map(|rate| Pace::Open(rate / batch));
        let plan = self.arguments.timing.plan(pace.unwrap_or(Pace::Closed));
        for number in 1..=self.arguments.timing.runs {
            let cluster = self.cluster(case)?;
            let run = self.load(case, &ours::target(&cluster), &plan)?;
            eprintln!("{} run {number}: {}", row.name, line(&run));
            row.runs.push(run);
        }
        Ok(row)
    }

    fn fault(&self, case: Case, fault: Fault) -> anyhow::Result<Felt> {
        let closed = self.timing().plan(Pace::Closed);
        let cluster = self.cluster(case)?;
        let most = self.load(case, &ours::target(&cluster), &closed)?;
        drop(cluster);
        eprintln!("{}, the most: {}", case.name(), line(&most));
        let offered = most.per_second() * self.arguments.load;
        let trial = Trial {
            fault,
            victim: self.arguments.victim,
            rate: offered / self.arguments.batch as f64,
            warm_up: closed.warm_up,
        };
        let mut felt = Felt {
            name: format!("{fault:?} {:?}, {}", trial.victim, case.name()).to_lowercase(),
            offered,
            runs: Vec::new(),
        };
        for number in 1..=self.arguments.timing.runs {
            let mut cluster = self.cluster(case)?;
            let run = trial.run(&mut cluster, |target, plan| self.load(case, target, plan))?;
            eprintln!("{} run {number}: {}", felt.name, line(&run));
            felt.runs.push(run);
        }
        Ok(felt)
    }

    /// A fresh cluster with what the case says in it.
    fn cluster(&self, case: Case) -> anyhow::Result<Cluster> {
        let spec = ours::spec(self.arguments.copies, None);
        let cluster = Cluster::start_in(&self.binary, &spec, &self.setting.dir);
        let target = ours::target(&cluster);
        ours::open_accounts(&target, case.accounts)?;
        if case.prefill > 0 {
            ours::make_transfers(&target, case.accounts, case.prefill)?;
        }
        Ok(cluster)
    }

    fn load(&self, case: Case, target: &Target, plan: &Plan) -> anyhow::Result<Run> {
        let Arguments {
            batch, skew, mix, ..
        } = *self.arguments;
        let skew = Skew::new(skew, case.accounts);
        let run = ours::PREFILL_RUN + 1;
        let mut work: Box<dyn Work> = match self.arguments.face {
            Face::Batches => Box::new(Transfers::new(skew, mix, batch, run)),
            Face::Words => Box::new(Pipeline::transfer(skew, batch, run)),
        };
        let shape = Shape {
            connections: self.arguments.connections,
            window: self.arguments.depth,
        };
        drive(target, &mut *work, shape, plan)
    }

    fn timing(&self) -> Timing {
        let timing = self.arguments.timing.clone();
        match self.arguments.fault {
            Some(_) => timing.of(MEASURED),
            None => timing,
        }
    }

    fn conditions(&self) -> String {
        let Arguments {
            copies,
            batch,
            connections,
            depth,
            ..
        } = self.arguments;
        let skew = format!("{:?}", self.arguments.skew).to_lowercase();
        let mix = match self.arguments.mix {
            Mix::Single => "",
            Mix::TwoPhase => "a third each moves, holds and resolves; ",
        };
        let face = match self.arguments.face {
            Face::Batches => "batches",
            Face::Words => "pipelines in words",
        };
        format!(
            "{copies} full copies; {face} of {batch}, {connections} connections with {depth} under \
             way; {skew} accounts; {mix}{}, on a fresh cluster each",
            self.timing().line()
        )
    }

    fn report(&self, rows: &[Row]) -> anyhow::Result<()> {
        let pace = match self.arguments.rate {
            Some(rate) => format!("open loop at {rate} /s"),
            None => "closed loop".to_owned(),
        };
        let machine = Machine::here(&self.setting.dir);
        if self.setting.json {
            self.print_json(&machine, rows.iter().map(Row::json).collect());
        } else {
            println!("transfers, {pace}; {}", self.conditions());
            println!("{}\n", machine.line());
            print_rows(rows);
        }
        self.draw(&machine, rows)
    }

    fn report_faults(&self, faults: &[Felt]) -> anyhow::Result<()> {
        let machine = Machine::here(&self.setting.dir);
        if self.setting.json {
            self.print_json(&machine, faults.iter().map(Felt::json).collect());
        } else {
            let part = self.arguments.load * 100.0;
            println!(
                "transfers, open loop at {part} % of the maximum; {}",
                self.conditions()
            );
            println!("{}\n", machine.line());
            for felt in faults {
                felt.print();
            }
        }
        let rows = faults.iter().map(Felt::row);
        self.draw(&machine, &rows.collect::<Vec<_>>())
    }

    fn draw(&self, machine: &Machine, rows: &[Row]) -> anyhow::Result<()> {
        let part = Part {
            title: self.conditions(),
            rows: rows.iter().collect(),
        };
        self.setting.draw("ledger", machine, &[part])
    }

    fn print_json(&self, machine: &Machine, rows: Vec<Value>) {
        let json = json!({
            "bench": "ledger", "machine": machine.json(), "conditions": self.conditions(),
            "rows": rows,
        });
        println!("{json}");
    }
}
