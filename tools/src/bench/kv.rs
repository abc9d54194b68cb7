//! SET beside Redis: the same generator, the same machine, turn and turn about.
//!
//! Ours: acknowledged when the primary and a synchronous backup have the write on disk. Redis: a
//! primary and a replica with `appendfsync always`, each pipeline of SETs followed by `WAIT 1`.
//! WAIT counts acknowledgements and does not promise the replica's fsync, so Redis promises less.

use super::generator::{self, KEY_BYTES, Keys, Run, Shape, Target, VALUE_BYTES};
use super::report::{Machine, median, micros, rate};
use super::{Setting, redis};
use rig::{Cluster, Spec};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// The caveat stands beside the figures, wherever they are shown.
const CAVEAT: &str = "WAIT counts acknowledgements and does not promise the replica's fsync; \
                      Standfast acknowledges when both disks have the write.";

#[derive(clap::Args)]
pub struct Arguments {
    /// Runs of each, interleaved; the medians are shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of each run, after one second of warming up.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How many different keys are written.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Measure one side only.
    #[arg(long)]
    only: Option<Side>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Side {
    Standfast,
    Redis,
}

const SHAPES: [Shape; 3] = [
    Shape {
        connections: 1,
        depth: 1,
    },
    Shape {
        connections: 50,
        depth: 16,
    },
    Shape {
        connections: 50,
        depth: 64,
    },
];

/// The promise: at least Redis's throughput, and at depth 1 at most this much of its median.
const P50_BAR: f64 = 1.05;

/// What one side did with one shape.
struct Row {
    per_second: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
}

impl Row {
    fn new() -> Row {
        Row {
            per_second: Vec::new(),
            p50_us: Vec::new(),
            p99_us: Vec::new(),
        }
    }

    fn add(&mut self, run: &Run) {
        self.per_second.push(run.per_second());
        self.p50_us.push(run.latency_us(0.5));
        self.p99_us.push(run.latency_us(0.99));
    }

    fn rate(&self) -> f64 {
        median(self.per_second.iter().copied())
    }

    fn p50(&self) -> f64 {
        median(self.p50_us.iter().copied())
    }

    fn p99(&self) -> f64 {
        median(self.p99_us.iter().copied())
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "per_second": self.rate(), "p50_us": self.p50(), "p99_us": self.p99(),
            "runs": { "per_second": self.per_second, "p50_us": self.p50_us, "p99_us": self.p99_us },
        })
    }
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let wants = |side| arguments.only.is_none_or(|only| only == side);
    let cluster = if wants(Side::Standfast) {
        Some(Cluster::start_in(
            &setting.binary()?,
            &Spec::pair(),
            &setting.dir,
        ))
    } else {
        None
    };
    let pair = if wants(Side::Redis) {
        Some(redis::Pair::start(&setting.dir)?)
    } else {
        None
    };
    let ours = cluster.as_ref().map(|cluster| Target {
        address: cluster.primary().client,
        wait: false,
    });
    let theirs = pair.as_ref().map(|pair| Target {
        address: pair.address.clone(),
        wait: true,
    });
    let both = [(Side::Standfast, ours), (Side::Redis, theirs)];
    let sides: Vec<_> = both
        .into_iter()
        .filter_map(|(side, target)| Some((side, target?)))
        .collect();

    let mut table = Vec::new();
    for shape in SHAPES {
        table.push((shape, interleave(&sides, shape, arguments)?));
    }
    let machine = Machine::here(&setting.dir);
    let version = pair.as_ref().map_or("", |pair| pair.version.as_str());
    let met = verdict(&sides, &table);
    if setting.json {
        println!("{}", as_json(&machine, version, &sides, &table, met));
    } else {
        print_table(&machine, version, &sides, &table, arguments.rounds);
    }
    Ok(if met == Some(false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A B A B: what disturbs the machine for a while disturbs both.
fn interleave(sides: &Sides, shape: Shape, arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = sides.iter().map(|_| Row::new()).collect();
    for round in 1..=arguments.rounds {
        for ((side, target), row) in sides.iter().zip(&mut rows) {
            let keys = Keys::Among {
                count: arguments.keys,
                warm_up: Duration::from_secs(1),
                measured: Duration::from_secs_f64(arguments.seconds),
            };
            let run = generator::run(target, shape, keys)?;
            row.add(&run);
            let (per_second, p50) = (rate(run.per_second()), micros(run.latency_us(0.5)));
            eprintln!(
                "{} round {round}: {side:?} {per_second} p50 {p50}",
                name(shape)
            );
        }
    }
    Ok(rows)
}

fn name(shape: Shape) -> String {
    let plural = if shape.connections == 1 { "" } else { "s" };
    format!(
        "{} connection{plural}, depth {}",
        shape.connections, shape.depth
    )
}

type Sides = [(Side, Target)];
type Table = [(Shape, Vec<Row>)];

/// Whether the promise is kept; `None` when only one side ran.
fn verdict(sides: &Sides, table: &Table) -> Option<bool> {
    (sides.len() == 2).then(|| {
        table.iter().all(|(shape, rows)| {
            let at_least = rows[0].rate() >= rows[1].rate();
            at_least && (shape.depth > 1 || rows[0].p50() <= P50_BAR * rows[1].p50())
        })
    })
}

fn print_table(machine: &Machine, version: &str, sides: &Sides, table: &Table, rounds: usize) {
    println!("SET of {KEY_BYTES}-byte keys and {VALUE_BYTES}-byte values on two copies");
    println!("{}", machine.line());
    println!("medians of {rounds} interleaved runs; latency is that of a whole pipeline\n");
    print!("| {:<26} |", "");
    for (side, _) in sides {
        let title = match side {
            Side::Standfast => "Standfast".to_owned(),
            Side::Redis => format!("Redis {version} + WAIT 1"),
        };
        print!(" {title:>22} | {:>8} | {:>8} |", "p50", "p99");
    }
    println!(
        "{}",
        if sides.len() == 2 {
            " throughput | p50   |"
        } else {
            ""
        }
    );
    for (shape, rows) in table {
        print!("| {:<26} |", name(*shape));
        for row in rows {
            print!(
                " {:>22} | {:>8} | {:>8} |",
                rate(row.rate()),
                micros(row.p50()),
                micros(row.p99())
            );
        }
        if let [ours, theirs] = rows.as_slice() {
            print!(" {:>9.2}x |", ours.rate() / theirs.rate());
            print!(" {:>4.2}x |", ours.p50() / theirs.p50());
        }
        println!();
    }
    println!("\n{CAVEAT}");
}

fn as_json(
    machine: &Machine,
    version: &str,
    sides: &Sides,
    table: &Table,
    met: Option<bool>,
) -> serde_json::Value {
    let rows: Vec<_> = table
        .iter()
        .map(|(shape, rows)| {
            let mut row = json!({ "connections": shape.connections, "depth": shape.depth });
            for ((side, _), figures) in sides.iter().zip(rows) {
                row[format!("{side:?}").to_lowercase()] = figures.json();
            }
            row
        })
        .collect();
    json!({
        "bench": "kv", "machine": machine.json(), "redis_version": version, "caveat": CAVEAT,
        "rows": rows, "met": met,
    })
}
