//! One of the copies is killed or paused, or takes a snapshot, in the middle of an open loop at a
//! part of the maximum that was measured just before: what clients feel of it.

use super::load::measure::{Run, SLICE, Slice, histogram};
use super::load::{Pace, Plan, Target};
use super::ours;
use super::report::{Row, Spread, micros, rate, table};
use anyhow::ensure;
use hdrhistogram::Histogram;
use rig::Cluster;
use rig::poll::until_moment;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, until the run is over.
    Pause,
    /// `BGSAVE`.
    Snapshot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Victim {
    Backup,
    Primary,
}

/// Before the fault, and after it: what is compared.
const SIDE_SLICES: usize = 10;

/// From the fault to the end: the last requests have answers by then.
const AFTER: Duration = Duration::from_secs(15);

/// What a trial takes. The maximum is measured for as long, too: it is what can be kept up, with
/// the snapshots that come by themselves, and not what a few seconds show.
pub const MEASURED: Duration =
    Duration::from_secs(SIDE_SLICES as u64 * SLICE.as_secs() + AFTER.as_secs());

/// The part of the load that must be done before the fault, or the run tells nothing of it.
const KEPT_UP: f64 = 0.95;

/// What is to be done to whom, under which load.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub fault: Fault,
    pub victim: Victim,
    /// Requests a second.
    pub rate: f64,
    pub warm_up: Duration,
}

impl Trial {
    /// Runs `load` on the cluster and does the fault in the middle.
    pub fn run(
        &self,
        cluster: &mut Cluster,
        load: impl FnOnce(&Target, &Plan) -> anyhow::Result<Run>,
    ) -> anyhow::Result<Run> {
        let nodes = cluster.addresses();
        let follow = || ours::who_serves(&nodes);
        let target = Target {
            follow: Some(&follow),
            ..ours::target(cluster)
        };
        let plan = Plan {
            pace: Pace::Open(self.rate),
            warm_up: self.warm_up,
            measured: MEASURED,
        };
        let moment = Instant::now() + plan.warm_up + SIDE_SLICES as u32 * SLICE;
        let victim = match self.victim {
            Victim::Primary => cluster.primary(),
            Victim::Backup => cluster.backup(),
        };
        let run = std::thread::scope(|scope| {
            scope.spawn(|| {
                until_moment(moment);
                match self.fault {
                    Fault::Kill => cluster.kill(&victim),
                    Fault::Pause => cluster.pause(&victim),
                    Fault::Snapshot => {
                        let reply = cluster.connect(&victim).call(&["BGSAVE"]);
                        let reply = reply.expect("BGSAVE is answered");
                        assert!(reply.refusal().is_none(), "BGSAVE: {reply:?}");
                    }
                }
            });
            load(&target, &plan)
        })?;
        if self.fault == Fault::Pause {
            cluster.resume(&victim);
        }
        ensure!(
            run.slices.len() > 2 * SIDE_SLICES,
            "nothing was answered for seconds after the fault"
        );
        Ok(run)
    }
}

/// One side of a fault.
pub struct Side {
    pub per_second: f64,
    slowest: f64,
    latency: Histogram<u64>,
}

impl Side {
    pub fn of<'a>(slices: impl IntoIterator<Item = &'a Slice>) -> Side {
        let slices: Vec<&Slice> = slices.into_iter().collect();
        let mut latency = histogram();
        for slice in &slices {
            latency
                .add(&slice.latency)
                .expect("all have the same bounds");
        }
        let rates = slices
            .iter()
            .map(|slice| slice.operations as f64 / SLICE.as_secs_f64());
        Side {
            per_second: rates.clone().sum::<f64>() / slices.len() as f64,
            slowest: rates.fold(f64::INFINITY, f64::min),
            latency,
        }
    }

    pub fn p99_us(&self) -> f64 {
        self.latency.value_at_quantile(0.99) as f64 / 1000.0
    }

    fn max_us(&self) -> f64 {
        self.latency.max() as f64 / 1000.0
    }
}

/// A name, the values, and how they are shown.
type Figure = (&'static str, Spread, fn(f64) -> String);

/// Trials of one kind.
pub struct Felt {
    pub name: String,
    /// Operations a second that were asked for.
    pub offered: f64,
    pub runs: Vec<Run>,
}

impl Felt {
    fn figures(&self) -> [Figure; 9] {
        let of = |figure: fn(Side, Side) -> f64| {
            Spread::of(self.runs.iter().map(|run| {
                let (before, after) = run.slices.split_at(SIDE_SLICES);
                figure(Side::of(before), Side::of(&after[..SIDE_SLICES]))
            }))
        };
        let rest = |run: &Run| Side::of(&run.slices[2 * SIDE_SLICES..]).max_us();
        let later = Spread::of(self.runs.iter().map(rest));
        [
            ("before", of(|before, _| before.per_second), rate),
            ("10 s after", of(|_, after| after.per_second), rate),
            (
                "kept",
                of(|before, after| after.per_second / before.per_second),
                percent,
            ),
            ("slowest second", of(|_, after| after.slowest), rate),
            ("p99 before", of(|before, _| before.p99_us()), micros),
            ("p99 after", of(|_, after| after.p99_us()), micros),
            ("max before", of(|before, _| before.max_us()), micros),
            ("max after", of(|_, after| after.max_us()), micros),
            ("max later", later, micros),
        ]
    }

    /// The whole runs, fault and all.
    pub fn row(&self) -> Row {
        Row {
            name: self.name.clone(),
            runs: self.runs.clone(),
        }
    }

    pub fn json(&self) -> Value {
        let mut json = json!({ "name": self.name, "offered": self.offered });
        for (name, spread, _) in self.figures() {
            json[name.replace(' ', "_")] = spread.json();
        }
        json
    }

    pub fn print(&self) {
        let figures = self.figures();
        let mut head = vec![String::new(), "offered".to_owned()];
        head.extend(figures.iter().map(|(name, ..)| (*name).to_owned()));
        let mut cells = vec![self.name.clone(), rate(self.offered)];
        cells.extend(figures.iter().map(|(_, spread, show)| show(spread.median)));
        print!("{}", table(&[head, cells]));
        let later = AFTER.as_secs_f64() - SIDE_SLICES as f64 * SLICE.as_secs_f64();
        let [(_, before, _), ..] = &figures;
        if before.median < KEPT_UP * self.offered {
            println!("\nmore was offered than was kept up before the fault: this tells nothing");
        }
        println!("\nafter: the 10 s from the fault on; later: the {later} s behind them\n");
    }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sides_of_a_fault_are_told_apart() {
        let slice = |operations, millis: u64| {
            let mut latency = histogram();
            latency.record(millis * 1_000_000).unwrap();
            Slice {
                operations,
                latency,
            }
        };
        let mut run = Run::of(1, SLICE, histogram());
        run.slices = vec![slice(100, 1); SIDE_SLICES];
        run.slices.push(slice(10, 900));
        run.slices.extend(vec![slice(100, 2); SIDE_SLICES]);
        let felt = Felt {
            name: "a fault".to_owned(),
            offered: 100.0,
            runs: vec![run],
        };
        let json = felt.json();
        assert_eq!(json["kept"]["median"], 0.91);
        assert_eq!(json["slowest_second"]["median"], 10.0);
        assert!(json["p99_before"]["median"].as_f64().unwrap() < 1_001.0);
        assert!(json["max_after"]["median"].as_f64().unwrap() >= 900_000.0);
    }
}
