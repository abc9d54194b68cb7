//! How old what could be restored off-site is under a steady load, and what clients feel while the
//! archive's store is away: an open loop, three phases, the age read from the primary all along.

use super::Setting;
use super::fault::Side;
use super::load::measure::{Run, SLICE};
use super::load::{Pace, Plan, Shape, run as drive};
use super::ours;
use super::report::{Machine, micros, rate, table};
use super::work::batches::{Mix, Transfers};
use super::work::skew::{Kind, Skew};
use anyhow::{Context, ensure};
use rig::poll::until_moment;
use rig::{Cluster, S3};
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
    /// Seconds of each phase: all is well, the store is away, it is back.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// The age must be below this, but for the outage.
const AGE_MAX: f64 = 2.0;
/// What clients may wait for at the 99th percentile while the store is away, against before.
const SLOWER_MAX: f64 = 1.5;

/// Where it archives, and how it is taken away.
enum Place {
    Directory { dir: PathBuf, aside: PathBuf },
    S3(S3),
}

impl Place {
    fn make(is_s3: bool, scratch: &Path) -> anyhow::Result<Place> {
        if is_s3 {
            let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
            ensure!(python.exists(), "moto is not installed: run ./test.sh once");
            return Ok(Place::S3(S3::start(&python)));
        }
        Ok(Place::Directory {
            dir: scratch.join("archive"),
            aside: scratch.join("aside"),
        })
    }

    fn url(&self) -> String {
        match self {
            Place::Directory { dir, .. } => format!("file://{}", dir.display()),
            Place::S3(s3) => s3.url("bench"),
        }
    }

    fn take_away(&self) -> anyhow::Result<()> {
        match self {
            Place::Directory { dir, aside } => {
                std::fs::rename(dir, aside).context("the archive cannot be moved")?;
                // What stands in its place is no directory.
                std::fs::write(dir, "").context("nothing can stand in its place")
            }
            Place::S3(s3) => {
                s3.pause();
                Ok(())
            }
        }
    }

    fn bring_back(&self) -> anyhow::Result<()> {
        match self {
            Place::Directory { dir, aside } => {
                std::fs::remove_file(dir).context("it stood there")?;
                std::fs::rename(aside, dir).context("the archive cannot be moved")
            }
            Place::S3(s3) => {
                s3.resume();
                Ok(())
            }
        }
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

struct Felt {
    run: Run,
    samples: Samples,
    seconds: f64,
}

impl Felt {
    fn side(&self, phase: usize) -> Side {
        let slices = (self.seconds / SLICE.as_secs_f64()) as usize;
        let end = (slices * (phase + 1)).min(self.run.slices.len());
        Side::of(&self.run.slices[slices * phase..end])
    }

    /// Ages while all is well, in order; where none was known, infinitely old.
    fn ages(&self) -> Vec<f64> {
        let well = self.samples.iter().filter(|(at, _)| *at < self.seconds);
        let mut ages: Vec<f64> = well.map(|(_, age)| age.unwrap_or(f64::INFINITY)).collect();
        ages.sort_by(f64::total_cmp);
        ages
    }

    /// Seconds from the store's return until the age was small again.
    fn drained_after(&self) -> Option<f64> {
        let back = self.seconds * 2.0;
        let late = self.samples.iter().filter(|(at, _)| *at >= back);
        let late: Vec<_> = late.collect();
        let is_old = |age: &Option<f64>| age.is_none_or(|age| age >= AGE_MAX);
        let last_old = late.iter().rposition(|(_, age)| is_old(age));
        match last_old {
            Some(last) => late.get(last + 1).map(|(at, _)| at - back),
            None => Some(0.0),
        }
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
    let plan = Plan {
        pace: Pace::Open(arguments.rate / arguments.batch as f64),
        warm_up: Duration::from_secs(5),
        measured: Duration::from_secs(u64::from(arguments.seconds) * 3),
    };
    let skew = Skew::new(Kind::Uniform, arguments.accounts);
    let mut work = Transfers::new(skew, Mix::Single, arguments.batch, ours::PREFILL_RUN);
    let shape = Shape {
        connections: 4,
        window: 16,
    };
    let from = Instant::now() + plan.warm_up;
    let phase = Duration::from_secs(u64::from(arguments.seconds));
    let (run, samples) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&cluster, from, from + phase * 3));
        let breaking = scope.spawn(|| {
            until_moment(from + phase);
            place.take_away()?;
            until_moment(from + phase * 2);
            place.bring_back()
        });
        let run = drive(&target, &mut work, shape, &plan)?;
        breaking.join().expect("the thread does not panic")?;
        let samples = watching.join().expect("the thread does not panic");
        anyhow::Ok((run, samples))
    })?;
    let felt = Felt {
        run,
        samples,
        seconds: phase.as_secs_f64(),
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
    let (well, away) = (felt.side(0), felt.side(1));
    let slower = away.p99_us() / well.p99_us();
    let drained = felt.drained_after();
    let is_met = age(0.99) < AGE_MAX
        && slower <= SLOWER_MAX
        && drained.is_some_and(|seconds| seconds <= 60.0)
        && is_whole;
    if setting.json {
        let figures: Value = json!({
            "bench": "archive", "machine": machine.json(), "s3": arguments.s3,
            "offered": arguments.rate, "batch": arguments.batch, "seconds": arguments.seconds,
            "age_p50_s": age(0.5), "age_p99_s": age(0.99), "age_max_s": age(1.0),
            "per_second": well.per_second,
            "p99_us": well.p99_us(), "p99_away_us": away.p99_us(),
            "drained_after_s": drained, "whole": is_whole, "met": is_met,
        });
        println!("{figures}");
        return;
    }
    println!("{}\n", machine.line());
    let head = [
        "store",
        "done",
        "age p50",
        "p99",
        "max",
        "p99 before",
        "p99 away",
        "slower",
        "drained",
        "whole",
    ];
    let cells = vec![
        if arguments.s3 { "S3" } else { "directory" }.to_owned(),
        rate(well.per_second),
        format!("{:.2} s", age(0.5)),
        format!("{:.2} s", age(0.99)),
        format!("{:.2} s", age(1.0)),
        micros(well.p99_us()),
        micros(away.p99_us()),
        format!("{slower:.2}"),
        drained.map_or("never".to_owned(), |seconds| format!("{seconds:.1} s")),
        if is_whole { "yes" } else { "NO" }.to_owned(),
    ];
    print!("{}", table(&[head.map(str::to_owned).to_vec(), cells]));
    println!(
        "\nage: of the newest state read back from the store, in {} s of {} transfers a second; \
         away: the store does not answer for as long; drained: until the age is under {AGE_MAX} s \
         again. Bars {}.",
        arguments.seconds,
        rate(arguments.rate),
        if is_met { "met" } else { "MISSED" }
    );
}
