//! `drill failover`: the primary is lost on purpose, under load that counts what clients see.

use super::guard::{Guard, Undo};
use super::load::{self, Load, Plan, Told};
use super::report::{Drill, Report, seconds};
use super::rules::{RuleFlags, Rules};
use super::victim::Victim;
use super::watch::Members;
use crate::cli::connect::{Answer, Node, Target};
use crate::cli::exit::{ExitCode, Failure, Outcome};
use crate::cli::operate::{self, Reason};
use crate::cli::random;
use rustix::process::Signal;
use standfast_wal::NodeId;
use std::time::{Duration, Instant};

/// Acknowledgements before the fault, and after it, that make the load steady.
const STEADY: u64 = 200;
/// A voter agrees that a primary is lost only once it has heard it for a while.
const WARM_UP: Duration = Duration::from_secs(2);
/// Between two looks at a state that is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// How long a switchover may take.
const SWITCHOVER: Duration = Duration::from_secs(30);

/// What happens to the primary.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGKILL; it is started again at the end, by the command line that it had
    Kill,
    /// SIGSTOP; it goes on at the end, and also when the drill is killed
    Pause,
    /// A planned change of primary
    Switchover,
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Switchover => "switchover",
        }
    }
}

/// Loses the primary on purpose under steady load, measures the outage, and writes a report.
///
/// This one touches the cluster: clients wait as long as a failover takes. It writes keys of its
/// own only (drill:…), and removes them.
#[derive(clap::Args, Debug)]
pub struct Failover {
    #[command(flatten)]
    target: Target,
    /// What happens to the primary; kill and pause need its process on this machine
    #[arg(long, value_name = "FAULT")]
    fault: Fault,
    /// Confirm with the cluster's name instead of being asked
    #[arg(long, value_name = "CLUSTER")]
    yes: Option<String>,
    /// A supervisor starts a killed node again: the drill only waits for it
    #[arg(long)]
    supervised: bool,
    /// Clients that write
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// Writes a second of all clients together
    #[arg(long, value_name = "N", default_value_t = 400,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long the cluster may take until it serves, and until it is whole again
    #[arg(long, value_name = "DURATION", default_value = "60s",
          value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    rules: RuleFlags,
}

pub fn run(args: &Failover) -> Outcome {
    let (rules, _) = args.rules.resolve(args.target.config.as_ref())?;
    let (node, answer) = args.target.primary()?;
    let members = Members::of(&answer);
    let victim = prepare(args, &answer)?;
    operate::confirm(
        &answer.status.cluster_name,
        args.yes.as_deref(),
        "a failover drill",
    )?;
    let report = Exercise::begin(args, &rules, node, answer, members, victim)?.run()?;
    rules.conclude(&report, |_| Ok(()))
}

/// Refuses what would be an outage without an end, before anything is touched.
fn prepare(args: &Failover, answer: &Answer) -> Result<Option<Victim>, Failure> {
    let refuse = |text: String| {
        let text = format!("{text}: nothing was changed");
        Failure::new(ExitCode::Refused, text)
    };
    if answer.json["forecast"]["successor"].is_null() {
        let text = format!("nobody would take over: {}", answer.status.forecast.text);
        return Err(refuse(text));
    }
    match args.fault {
        Fault::Switchover => Ok(None),
        Fault::Kill | Fault::Pause => {
            let victim = Victim::of(answer).map_err(refuse)?;
            Ok(Some(victim))
        }
    }
}

/// A drill under way.
struct Exercise<'a> {
    args: &'a Failover,
    drill: Drill,
    /// The primary that is lost.
    node: Node,
    old: NodeId,
    members: Members,
    victim: Option<Victim>,
    guard: Option<Guard>,
    prefix: String,
}

impl<'a> Exercise<'a> {
    fn begin(
        args: &'a Failover,
        rules: &Rules,
        node: Node,
        answer: Answer,
        members: Members,
        victim: Option<Victim>,
    ) -> Result<Exercise<'a>, Failure> {
        let old = answer.status.node;
        let fault = args.fault.as_str();
        let what = format!("{fault} of node {old}, the primary, under load");
        let mut drill = Drill::begin("failover", what, rules, &args.reason)?;
        drill.of_cluster(&answer.status, &members.versions());
        if let Some(victim) = &victim {
            let (pid, dir) = (victim.pid, victim.data_dir.display());
            drill.fact("process", format!("pid {pid}, {dir}"));
        }
        Ok(Exercise {
            args,
            drill,
            node,
            old,
            members,
            victim,
            guard: None,
            prefix: format!("drill:{:08x}:", random::id()? as u32),
        })
    }

    fn run(mut self) -> Result<Report, Failure> {
        let load = Load::start(Plan {
            nodes: self.members.addresses(),
            prefix: self.prefix.clone(),
            clients: self.args.clients,
            every: Duration::from_secs(1) * self.args.clients / self.args.rate,
        });
        let moment = self.disturb(&load);
        self.repair();
        // Also of a drill that has failed by now: its keys are to be counted and removed.
        let open = self.drill.open("stop the load");
        let told = load
            .stop()
            .map(|told| (told, "all clients have ended".to_owned()));
        if let Some(told) = self.drill.close(open, told) {
            self.count(told, moment);
        }
        self.compare();
        Ok(self.drill.end())
    }

    /// Everything up to service by another node; answers when the fault was done.
    fn disturb(&mut self, load: &Load) -> Option<Instant> {
        let patience = self.args.timeout;
        let warm = Instant::now() + WARM_UP;
        self.drill.step("steady load", || {
            wait(patience, "the load does not get going", || {
                (load.acknowledged() >= STEADY && Instant::now() >= warm) || load.has_ended()
            })?;
            goes_on(load)?;
            Ok(((), format!("{} writes acknowledged", load.acknowledged())))
        })?;
        let open = self.drill.open("fault");
        let moment = Instant::now();
        let done = self.hurt();
        self.drill.close(open, done)?;
        let (members, old) = (&self.members, self.old);
        let mut found = None;
        self.drill.step("another primary", || {
            wait(patience, "no other node takes writes", || {
                found = members.primary_besides(old);
                found.is_some()
            })?;
            let node = found.map_or(String::new(), |id| id.to_string());
            Ok(((), format!("node {node} takes writes")))
        })?;
        let before = load.acknowledged();
        self.drill.step("writes go on", || {
            wait(patience, "clients are not answered", || {
                load.acknowledged() >= before + STEADY || load.has_ended()
            })?;
            goes_on(load)?;
            let more = load.acknowledged() - before;
            Ok(((), format!("{more} more writes acknowledged")))
        })?;
        Some(moment)
    }

    /// Does the fault, once somebody stands by who undoes it.
    fn hurt(&mut self) -> Result<((), String), String> {
        let fault = self.args.fault;
        let Some(victim) = &self.victim else {
            let [_, who, _, why] = self.args.reason.words().map_err(|f| f.in_short())?;
            let words = ["SWITCHOVER", "WHO", &who, "WHY", &why];
            let done = self
                .node
                .ask(&words, SWITCHOVER)
                .map_err(|f| f.in_short())?;
            return Ok(((), operate::readable(&done)));
        };
        let undo = match fault {
            Fault::Pause => Undo {
                resume: Some(victim.pid),
                ..Undo::default()
            },
            _ => Undo {
                start: (!self.args.supervised).then(|| victim.again.clone()),
                ..Undo::default()
            },
        };
        self.guard = Some(Guard::start(&undo).map_err(|failure| failure.in_short())?);
        let (signal, name) = match fault {
            Fault::Pause => (Signal::STOP, "SIGSTOP"),
            _ => (Signal::KILL, "SIGKILL"),
        };
        victim.signal(signal)?;
        Ok(((), format!("{name} to process {}", victim.pid)))
    }

    /// Brings the node back and waits until everything is as it was.
    fn repair(&mut self) {
        if let Some(guard) = self.guard.take() {
            let word = match self.args.fault {
                Fault::Pause => "it goes on",
                _ if self.args.supervised => "its supervisor starts it again",
                _ => "it was started again",
            };
            let name = "bring the node back";
            self.drill.step(name, || {
                guard.release()?;
                Ok(((), word.to_owned()))
            });
        }
        let (members, patience) = (&self.members, self.args.timeout);
        self.drill.step("cluster whole", || {
            wait(patience, "not every member is back in its place", || {
                members.are_whole()
            })?;
            Ok(((), members.describe()))
        });
    }

    /// What clients were told, against what is there.
    fn count(&mut self, mut all: Vec<Told>, moment: Option<Instant>) {
        let nodes = self.members.addresses();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| error.to_string());
        let checked = self.drill.step("lost and doubled", || {
            let runtime = runtime.as_ref().map_err(Clone::clone)?;
            runtime.block_on(load::check(&nodes, &mut all))?;
            let lost: u64 = all.iter().map(|told| told.lost).sum();
            let doubled: u64 = all.iter().map(|told| told.doubled).sum();
            Ok(((lost, doubled), format!("{lost} lost, {doubled} doubled")))
        });
        if let Some((lost, doubled)) = checked {
            let measured = &mut self.drill.report.measured;
            (measured.lost, measured.doubled) = (Some(lost), Some(doubled));
            measured.rpo_commands = Some(lost);
            // Nothing lost is no time lost; how old what is lost was, nobody knows.
            measured.rpo_seconds = (lost == 0).then_some(0.0);
        }
        if let Some(moment) = moment {
            let gap = load::longest_gap(&all, moment);
            self.drill.report.measured.rto_seconds = gap.map(seconds);
            if let Some(wait) = load::longest_wait(&all, moment) {
                let text = format!("{:.3} s", wait.as_secs_f64());
                self.drill.fact("longest wait of one client", text);
            }
        }
        let errors = load::errors(&all);
        let told = errors.iter().map(|(name, count)| format!("{count} {name}"));
        let told: Vec<String> = told.collect();
        let told = if told.is_empty() {
            "none".to_owned()
        } else {
            told.join(", ")
        };
        self.drill.fact("errors at clients", told);
        self.drill.fact("clients", self.args.clients);
        self.drill.step("remove keys", || {
            let runtime = runtime.as_ref().map_err(Clone::clone)?;
            let removed = runtime.block_on(load::remove(&nodes, &all))?;
            Ok(((), format!("{removed} keys of the drill removed")))
        });
    }

    /// Digests of all data nodes, each at one LSN with the others.
    fn compare(&mut self) {
        let (members, patience) = (&self.members, self.args.timeout);
        let open = self.drill.open("digests");
        match members.compare_digests(patience) {
            Ok(Some(text)) => {
                self.drill.report.measured.digests_equal = Some(true);
                self.drill.close(open, Ok(((), text)));
            }
            Ok(None) => self.drill.unchecked(
                "digests: the data nodes were never seen at one LSN, others write all the time",
            ),
            Err(text) => {
                self.drill.report.measured.digests_equal = Some(false);
                self.drill.close::<()>(open, Err(text));
            }
        }
    }
}

/// Clients end by themselves only over something that no write may be answered.
fn goes_on(load: &Load) -> Result<(), String> {
    if load.has_ended() {
        return Err("a client gave up".to_owned());
    }
    Ok(())
}

fn wait(
    patience: Duration,
    otherwise: &str,
    mut holds: impl FnMut() -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() >= deadline {
            return Err(format!("{otherwise} within {} s", patience.as_secs_f64()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
