//! SET, GET and single transfers in RESP, as ordinary clients send them.

use super::load::{Pace, Plan};
use super::ours::{self, Standfast};
use super::plot::Part;
use super::report::{Machine, Row, line, print_rows};
use super::system::{Case, System, What, parse_shape};
use super::{Setting, Timing};
use serde_json::json;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Arguments {
    /// What is asked; several with commas.
    #[arg(
        long = "command",
        value_enum,
        value_delimiter = ',',
        default_value = "set"
    )]
    commands: Vec<What>,
    /// Connections x pipelined commands of each; several with commas.
    #[arg(long, value_delimiter = ',', value_parser = parse_shape, default_value = "1x1,50x16,50x64")]
    shape: Vec<(usize, usize)>,
    /// Full copies of the data.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3))]
    copies: u32,
    /// How many different keys there are.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// How many accounts there are.
    #[arg(long, default_value_t = 10_000)]
    accounts: u64,
    /// Commands a second, in a steady stream (an open loop); as many as it takes when not given.
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    timing: Timing,
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let spec = ours::spec(arguments.copies, None);
    let mut system = Standfast::start(&setting.binary()?, &spec, &setting.dir);
    let mut rows = Vec::new();
    for &what in &arguments.commands {
        for &(connections, depth) in &arguments.shape {
            let among = match what {
                What::Set | What::Get => arguments.keys,
                What::Transfer => arguments.accounts,
            };
            let case = Case {
                what,
                connections,
                depth,
                among,
            };
            // The load counts requests, each of which is a pipeline.
            let rate = arguments.rate.map(|rate| Pace::Open(rate / depth as f64));
            let plan = arguments.timing.plan(rate.unwrap_or(Pace::Closed));
            rows.push(measure(&mut system, &case, &plan, arguments.timing.runs)?);
        }
    }
    let machine = Machine::here(&setting.dir);
    let part = Part {
        title: system.name(),
        rows: rows.iter().collect(),
    };
    setting.draw("kv", &machine, &[part])?;
    if setting.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let name = system.name();
        println!(
            "{}",
            json!({ "bench": "kv", "machine": machine.json(), "system": name, "rows": rows })
        );
    } else {
        println!("{}; latency is that of a whole pipeline", system.name());
        println!("{}; {}\n", machine.line(), arguments.timing.line());
        print_rows(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(system: &mut Standfast, case: &Case, plan: &Plan, runs: usize) -> anyhow::Result<Row> {
    let mut row = Row::new(&case.name());
    for number in 1..=runs {
        if let Some(run) = system.run(case, plan)? {
            eprintln!("{} run {number}: {}", row.name, line(&run));
            row.runs.push(run);
        }
    }
    Ok(row)
}
