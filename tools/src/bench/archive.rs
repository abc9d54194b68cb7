//! How old what could be restored off-site is under a steady load, and what clients feel while the
//! archive's store is away: an open loop, phases in turn, the age read from the primary all along.

use super::Setting;
use super::fault::Side;
use super::load::measure::{SLICE, Slice};
use super::load::{Pace, Plan, Shape, run as drive};
use super::ours;
use super::report::{Machine, median, micros, rate, table};
use super::work::batches::{Mix, Transfers};
use super::work::skew::{Kind, Skew};
use anyhow::{Context, ensure};
use rig::poll::until_moment;
use rig::{Cluster, S3};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Archive to moto's S3 (`./test.sh` installs it) instead of a directory.
    #[arg(long)]
    s3: bool,
    /// Transfers a second.
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Transfers in a request.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    #[arg(long, default_value_t = 10_000)]
    accounts: u64,
    /// Seconds of each phase; by turns all is well and the store is away.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..))]
    seconds: u32,
    /// How often the store is away.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    outages: u32,
}

/// The age must be below this, but for the outages.
const AGE_MAX: f64 = 2.0;
/// What clients may wait for at the 99th percentile while the store is away, against the phases
/// before and after: the median of the outages.
const SLOWER_MAX: f64 = 1.5;
/// Seconds from the store's return until the age must be small again.
const DRAIN_MAX: f64 = 60.0;

/// Where it archives, and how it is taken away.
enum Place {
    /// What stands in its place while it is away is no directory.
    Directory {
        dir: PathBuf,
        other: PathBuf,
    },
    S3(S3),
}

impl Place {
    fn make(is_s3: bool, scratch: &Path) -> anyhow::Result<Place> {
        if is_s3 {
            let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
            ensure!(python.exists(), "moto is not installed: run ./test.sh once");
            return Ok(Place::S3(S3::start(&python)));
        }
        let (dir, other) = (scratch.join("archive"), scratch.join("other"));
        std::fs::write(&other, "").context("nothing can stand in its place")?;
        Ok(Place::Directory { dir, other })
    }

    fn url(&self) -> String {
        match self {
            Place::Directory { dir, .. } => format!("file://{}", dir.display()),
            Place::S3(s3) => s3.url("bench"),
        }
    }

    fn take_away(&self) -> anyhow::Result<()> {
        match self {
            Place::Directory { .. } => self.exchange(),
            Place::S3(s3) => {
                s3.pause();
                Ok(())
            }
        }
    }

    fn bring_back(&self) -> anyhow::Result<()> {
        match self {
            Place::Directory { .. } => self.exchange(),
            Place::S3(s3) => {
                s3.resume();
                Ok(())
            }
        }
    }

    /// In one step: an archiver that finds no directory makes one.
    fn exchange(&self) -> anyhow::Result<()> {
        let Place::Directory { dir, other } = self else {
            return Ok(());
        };
        renameat_with(CWD, dir, CWD, other, RenameFlags::EXCHANGE)
            .context("the archive cannot be moved")
    }
}

/// Seconds since the load was measured, and the age that the primary told; `None`: it knew none.
type Samples = Vec<(f64, Option<f64>)>;

fn watch(cluster: &Cluster, from: Instant, until: Instant) -> Samples {
    let primary = cluster.primary();
    let mut samples = Samples::new();
    let mut next = from;
    while next < until {
        until_moment(next);
        let age = cluster.status(&primary)["archive"]["restorable_age_s"].as_f64();
        samples.push((from.elapsed().as_secs_f64(), age));
        next += Duration::from_millis(100);
    }
    samples
}

/// Phases 0, 2, 4 … are well, between them the store is away.
struct Felt {
    slices: Vec<Slice>,
    samples: Samples,
    /// Of a phase.
    seconds: f64,
    outages: usize,
}

/// One outage, and the phases before and after it.
struct Outage {
    near: Side,
    away: Side,
    /// Seconds from its end until the age was small again.
    drained: Option<f64>,
}

impl Outage {
    fn slower(&self) -> f64 {
        self.away.p99_us() / self.near.p99_us()
    }
}

impl Felt {
    fn phase(&self, number: usize) -> &[Slice] {
        let slices = (self.seconds / SLICE.as_secs_f64()) as usize;
        let end = (slices * (number + 1)).min(self.slices.len());
        &self.slices[(slices * number).min(end)..end]
    }

    fn outages(&self) -> Vec<Outage> {
        let outage = |number: usize| {
            let phase = number * 2 + 1;
            Outage {
                near: Side::of(self.phase(phase - 1).iter().chain(self.phase(phase + 1))),
                away: Side::of(self.phase(phase)),
                drained: self.drained_after(phase),
            }
        };
        (0..self.outages).map(outage).collect()
    }

    fn ages_of(&self, phase: usize) -> impl DoubleEndedIterator<Item = (f64, f64)> {
        let (from, to) = (
            self.seconds * phase as f64,
            self.seconds * (phase + 1) as f64,
        );
        // One that is not known is without bound.
        let ages = self
            .samples
            .iter()
            .filter(move |(at, _)| (from..to).contains(at));
        ages.map(move |(at, age)| (at - from, age.unwrap_or(f64::INFINITY)))
    }

    /// In order: of all phases that are well, from where the one before it is made good.
    fn ages(&self) -> Vec<f64> {
        let mut ages = Vec::new();
        for phase in (0..=self.outages * 2).step_by(2) {
            let from = match phase.checked_sub(1) {
                Some(away) => self.drained_after(away).unwrap_or(0.0),
                None => 0.0,
            };
            let counted = self.ages_of(phase).filter(|(at, _)| *at >= from);
            ages.extend(counted.map(|(_, age)| age));
        }
        ages.sort_by(f64::total_cmp);
        ages
    }

    /// Seconds from the end of this outage until the age was small for the first time; `None`: it
    /// was not before the next outage.
    fn drained_after(&self, away: usize) -> Option<f64> {
        let mut ages = self.ages_of(away + 1);
        ages.find(|(_, age)| *age < AGE_MAX).map(|(at, _)| at)
    }
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    ensure!(
        (1..=ours::BATCH_MAX).contains(&arguments.batch),
        "a batch holds 1 to {} transfers",
        ours::BATCH_MAX
    );
    let scratch = tempfile::tempdir_in(&setting.dir).context("no scratch directory")?;
    let place = Place::make(arguments.s3, scratch.path())?;
    let url = place.url();
    let mut spec = ours::spec(3, None).archived(&url);
    if let Place::S3(s3) = &place {
        for (variable, value) in s3.environment() {
            spec = spec.with(variable, &value);
        }
    }
    let cluster = Cluster::start_in(&setting.binary()?, &spec, &setting.dir);
    let target = ours::target(&cluster);
    ours::open_accounts(&target, arguments.accounts)?;
    let phase = Duration::from_secs(u64::from(arguments.seconds));
    let phases = arguments.outages * 2 + 1;
    let plan = Plan {
        pace: Pace::Open(arguments.rate / arguments.batch as f64),
        warm_up: Duration::from_secs(5),
        measured: phase * phases,
    };
    let skew = Skew::new(Kind::Uniform, arguments.accounts);
    let mut work = Transfers::new(skew, Mix::Single, arguments.batch, ours::PREFILL_RUN);
    let shape = Shape {
        connections: 4,
        window: 16,
    };
    let from = Instant::now() + plan.warm_up;
    let (run, samples) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&cluster, from, from + phase * phases));
        let breaking = scope.spawn(|| {
            (0..arguments.outages).try_for_each(|outage| {
                until_moment(from + phase * (outage * 2 + 1));
                place.take_away()?;
                until_moment(from + phase * (outage * 2 + 2));
                place.bring_back()
            })
        });
        let run = drive(&target, &mut work, shape, &plan)?;
        breaking.join().expect("the thread does not panic")?;
        let samples = watching.join().expect("the thread does not panic");
        anyhow::Ok((run, samples))
    })?;
    let felt = Felt {
        slices: run.slices,
        samples,
        seconds: phase.as_secs_f64(),
        outages: arguments.outages as usize,
    };
    let gap = cluster.status(&cluster.primary())["archive"]["gap"].clone();
    let proof = cluster.cli(&["backup", "verify", "--from", &url]);
    let is_whole = gap.is_null() && proof.code == Some(0);
    report(setting, arguments, &felt, is_whole);
    if !is_whole {
        eprintln!("gap {gap}; {}{}", proof.stdout, proof.stderr);
    }
    Ok(ExitCode::from(u8::from(!is_whole)))
}

fn report(setting: &Setting, arguments: &Arguments, felt: &Felt, is_whole: bool) {
    let machine = Machine::here(&setting.dir);
    let ages = felt.ages();
    let age = |quantile: f64| ages[((ages.len() - 1) as f64 * quantile) as usize];
    let outages = felt.outages();
    let middle = |figure: fn(&Outage) -> f64| median(outages.iter().map(figure));
    let slower = middle(Outage::slower);
    let drains = outages
        .iter()
        .map(|outage| outage.drained.unwrap_or(f64::INFINITY));
    let drained = drains.fold(0.0, f64::max);
    let is_met = age(0.99) < AGE_MAX && slower <= SLOWER_MAX && drained <= DRAIN_MAX && is_whole;
    if setting.json {
        let each = |figure: fn(&Outage) -> f64| outages.iter().map(figure).collect::<Vec<_>>();
        let figures: Value = json!({
            "bench": "archive", "machine": machine.json(), "s3": arguments.s3,
            "offered": arguments.rate, "batch": arguments.batch, "seconds": arguments.seconds,
            "age_p50_s": age(0.5), "age_p99_s": age(0.99), "age_max_s": age(1.0),
            "per_second": each(|outage| outage.away.per_second),
            "p99_us": each(|outage| outage.near.p99_us()),
            "p99_away_us": each(|outage| outage.away.p99_us()),
            "slower": slower, "drained_after_s": drained, "whole": is_whole, "met": is_met,
        });
        println!("{figures}");
        return;
    }
    println!("{}\n", machine.line());
    let head = [
        "outage", "done", "p99 near", "p99 away", "slower", "drained",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (number, outage) in outages.iter().enumerate() {
        rows.push(vec![
            (number + 1).to_string(),
            rate(outage.away.per_second),
            micros(outage.near.p99_us()),
            micros(outage.away.p99_us()),
            format!("{:.2}", outage.slower()),
            outage
                .drained
                .map_or("never".to_owned(), |seconds| format!("{seconds:.1} s")),
        ]);
    }
    rows.push(vec![
        "median".to_owned(),
        rate(middle(|outage| outage.away.per_second)),
        micros(middle(|outage| outage.near.p99_us())),
        micros(middle(|outage| outage.away.p99_us())),
        format!("{slower:.2}"),
        String::new(),
    ]);
    print!("{}", table(&rows));
    println!(
        "\nstore: {}; age of the newest state read back from it while it is there: p50 {:.2} s, \
         p99 {:.2} s, max {:.2} s; the archive is {}.",
        if arguments.s3 { "S3" } else { "directory" },
        age(0.5),
        age(0.99),
        age(1.0),
        if is_whole { "whole" } else { "NOT WHOLE" }
    );
    println!(
        "offered: {} transfers; each outage lasts {} s; near: the phases before and after it; \
         drained: until the age is under {AGE_MAX} s again. Bars {}.",
        rate(arguments.rate),
        arguments.seconds,
        if is_met { "met" } else { "MISSED" }
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One outage of two; phases of ten seconds, an age each half second.
    fn felt(age: impl Fn(f64) -> Option<f64>) -> Felt {
        let moments = (0..100).map(|half| f64::from(half) / 2.0);
        Felt {
            slices: Vec::new(),
            samples: moments.map(|at| (at, age(at))).collect(),
            seconds: 10.0,
            outages: 2,
        }
    }

    #[test]
    fn ages_of_outages_and_what_follows_until_it_is_made_good_are_not_counted() {
        let felt = felt(|at| match at {
            10.0..23.0 => Some(at - 9.0),
            30.0..40.0 => None,
            _ => Some(1.0),
        });
        assert_eq!(felt.drained_after(1), Some(3.0));
        assert_eq!(felt.drained_after(3), Some(0.0));
        assert_eq!(felt.ages(), vec![1.0; 54]);
    }

    #[test]
    fn an_age_that_stays_old_is_counted_and_never_drained() {
        let felt = felt(|at| if at < 10.0 { Some(1.0) } else { None });
        assert_eq!(felt.drained_after(1), None);
        let ages = felt.ages();
        assert_eq!(ages.len(), 60);
        assert_eq!(ages[20..], vec![f64::INFINITY; 40]);
    }
}
