//! Standfast beside other systems: the same load, the same machine, turn and turn about, each with
//! as many durable copies. A system that is not installed is named and left out.

use super::load::{Pace, Plan};
use super::ours::{self, Standfast};
use super::peers::etcd::Etcd;
use super::peers::postgres::Postgres;
use super::peers::redis::Redis;
use super::plot::Part;
use super::report::{Machine, Row, line, micros, rate, table};
use super::system::{Case, System, What};
use super::{Setting, Timing};
use rig::Spec;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Arguments {
    /// How many different keys are written and read.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// How many accounts there are.
    #[arg(long, default_value_t = 10_000)]
    accounts: u64,
    /// Compare these groups only, by number; several with commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<usize>,
    #[command(flatten)]
    timing: Timing,
}

type Start = fn(&Path) -> anyhow::Result<Box<dyn System>>;

/// Systems that promise the same, and what they are asked.
struct Group {
    title: &'static str,
    ours: Spec,
    peers: Vec<(&'static str, Start)>,
    /// What, connections, depth.
    cases: Vec<(What, usize, usize)>,
}

fn groups() -> Vec<Group> {
    let redis_one: Start = |dir| Ok(Box::new(Redis::start(dir, 1)?));
    let redis_two: Start = |dir| Ok(Box::new(Redis::start(dir, 2)?));
    let redis_memory: Start = |dir| Ok(Box::new(Redis::in_memory(dir)?));
    let postgres: Start = |dir| Ok(Box::new(Postgres::start(dir)?));
    let etcd: Start = |dir| Ok(Box::new(Etcd::start(dir)?));
    let (redis, many) = ("Redis", 50);
    vec![
        Group {
            title: "writes, two copies of two",
            ours: ours::spec(2, None),
            peers: vec![(redis, redis_one), ("PostgreSQL", postgres)],
            cases: vec![
                (What::Set, 1, 1),
                (What::Set, many, 16),
                (What::Set, many, 64),
                (What::Transfer, 1, 1),
                (What::Transfer, many, 1),
                (What::Transfer, many, 16),
            ],
        },
        Group {
            title: "writes, two copies of three",
            ours: ours::spec(3, None),
            peers: vec![("etcd", etcd)],
            cases: vec![
                (What::Set, 1, 1),
                (What::Set, many, 1),
                (What::Transfer, 1, 1),
                (What::Transfer, many, 1),
            ],
        },
        Group {
            title: "writes, three copies of three",
            ours: ours::spec(3, Some("all")),
            peers: vec![(redis, redis_two)],
            cases: vec![(What::Set, many, 16), (What::Transfer, many, 16)],
        },
        Group {
            title: "reads, linearizable here; Redis as one process in memory only",
            ours: ours::spec(2, None),
            peers: vec![(redis, redis_memory)],
            cases: vec![(What::Get, 1, 1), (What::Get, many, 16)],
        },
    ]
}

/// Figures of one group, system by system for each case.
struct Outcome {
    title: &'static str,
    /// The systems' names.
    systems: Vec<String>,
    missing: Vec<String>,
    cases: Vec<(String, Vec<Option<Row>>)>,
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let binary = setting.binary()?;
    let mut outcomes = Vec::new();
    for (number, group) in groups().into_iter().enumerate() {
        if arguments.only.is_empty() || arguments.only.contains(&(number + 1)) {
            outcomes.push(compare(&binary, setting, arguments, group)?);
        }
    }
    let machine = Machine::here(&setting.dir);
    let parts: Vec<Part> = outcomes.iter().flat_map(Outcome::parts).collect();
    setting.draw("compare", &machine, &parts)?;
    if setting.json {
        let groups: Vec<_> = outcomes.iter().map(Outcome::json).collect();
        println!(
            "{}",
            json!({ "bench": "compare", "machine": machine.json(), "groups": groups })
        );
    } else {
        println!("{}; {}", machine.line(), arguments.timing.line());
        println!("latency is that of all commands of a connection that leave together\n");
        for outcome in &outcomes {
            outcome.print();
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(
    binary: &Path,
    setting: &Setting,
    arguments: &Arguments,
    group: Group,
) -> anyhow::Result<Outcome> {
    eprintln!("{}", group.title);
    let ours = Standfast::start(binary, &group.ours, &setting.dir);
    let mut systems: Vec<Box<dyn System>> = vec![Box::new(ours)];
    let mut missing = Vec::new();
    for (name, start) in group.peers {
        match start(&setting.dir) {
            Ok(system) => systems.push(system),
            Err(error) => missing.push(format!("{name} is missing: {error:#}")),
        }
    }
    let plan = arguments.timing.plan(Pace::Closed);
    let mut cases = Vec::new();
    for (what, connections, depth) in group.cases {
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
        let rows = interleave(&mut systems, &case, &plan, arguments.timing.runs)?;
        cases.push((case.name(), rows));
    }
    Ok(Outcome {
        title: group.title,
        systems: systems.iter().map(|system| system.name()).collect(),
        missing,
        cases,
    })
}

/// A B A B: what disturbs the machine for a while disturbs all.
fn interleave(
    systems: &mut [Box<dyn System>],
    case: &Case,
    plan: &Plan,
    runs: usize,
) -> anyhow::Result<Vec<Option<Row>>> {
    let mut rows: Vec<Row> = systems
        .iter()
        .map(|system| Row::new(&system.name()))
        .collect();
    for number in 1..=runs {
        for (system, row) in systems.iter_mut().zip(&mut rows) {
            if let Some(run) = system.run(case, plan)? {
                eprintln!("{} run {number}, {}: {}", case.name(), row.name, line(&run));
                row.runs.push(run);
            }
        }
    }
    let measured = rows
        .into_iter()
        .map(|row| (!row.runs.is_empty()).then_some(row));
    Ok(measured.collect())
}

impl Outcome {
    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.cases.iter().map(|(case, rows)| Part {
            title: format!("{case}: {}", self.title),
            rows: rows.iter().flatten().collect(),
        })
    }

    fn print(&self) {
        println!("{}:\n", self.title);
        let head = [
            "",
            "",
            "throughput",
            "(min..max)",
            "p50",
            "p99",
            "CPU/op",
            "ratio",
            "p50 ratio",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for (case, rows) in &self.cases {
            let ours = rows.first().and_then(Option::as_ref);
            for row in rows.iter().flatten() {
                let spread = row.rate();
                let mut cells = vec![
                    case.clone(),
                    row.name.clone(),
                    rate(spread.median),
                    format!("{}..{}", rate(spread.min()), rate(spread.max())),
                    micros(row.latency_us(0.5).median),
                    micros(row.latency_us(0.99).median),
                    format!("{:.2} us", row.cpu_us().median),
                ];
                if let Some((throughput, p50)) = ours.and_then(|ours| ratios(ours, row)) {
                    cells.push(format!("{throughput:.2}x"));
                    cells.push(format!("{p50:.2}x"));
                }
                lines.push(cells);
            }
        }
        println!("{}", table(&lines));
        for missing in &self.missing {
            println!("{missing} (tools/peers.sh installs it)\n");
        }
    }

    fn json(&self) -> Value {
        let cases = self.cases.iter().map(|(case, rows)| {
            let ours = rows.first().and_then(Option::as_ref);
            let rows = rows.iter().flatten().map(|row| {
                let mut json = row.json();
                if let Some((throughput, p50)) = ours.and_then(|ours| ratios(ours, row)) {
                    json["ours_to_theirs"] = json!({ "throughput": throughput, "p50": p50 });
                }
                json
            });
            json!({ "case": case, "systems": rows.collect::<Vec<_>>() })
        });
        json!({
            "title": self.title, "systems": self.systems, "missing": self.missing,
            "cases": cases.collect::<Vec<_>>(),
        })
    }
}

/// Ours to theirs: throughput, and the median latency; `None` for ours itself.
fn ratios(ours: &Row, theirs: &Row) -> Option<(f64, f64)> {
    (ours.name != theirs.name).then(|| {
        let throughput = ours.rate().median / theirs.rate().median;
        let p50 = ours.latency_us(0.5).median / theirs.latency_us(0.5).median;
        (throughput, p50)
    })
}
