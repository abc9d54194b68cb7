//! `dev`: a whole cluster on this machine, of real processes with real data directories.

mod layout;
pub mod processes;
mod truth;

use super::create;
use super::exit::{ExitCode, Failure, Outcome};
use crate::config::{Config, Place};
use crate::node::meta::NewNode;
use crate::node::status::{Role, Status};
use crate::replication::config::{Acks, Protection};
use layout::{Asked, Layout, Plan, node_dir, place};
use processes::{Process, lock};
use standfast_snapshot::Recipient;
use standfast_wal::{Incarnation, NodeId};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use truth::{Cluster, NodeLine, Watch};

/// How long a new cluster may take until it serves.
const STARTING: Duration = Duration::from_secs(60);
/// How long the sync set of a cluster that serves may take to be complete before it is shown.
const COMPLETING: Duration = Duration::from_secs(5);
/// How long nodes may take to stop before they are killed.
const STOPPING: Duration = Duration::from_secs(5);
/// How often `cluster.json` is held against what is true.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a whole cluster on this machine in the foreground; Ctrl-C stops it, and a second start
/// finds its data.
#[derive(clap::Args, Debug)]
pub struct Dev {
    /// Where the nodes' data lies
    #[arg(long, value_name = "DIR", default_value = "standfast-dev")]
    dir: PathBuf,
    /// The client port of node 0; node i has this + 10 i, its peer port one above, HTTP two above
    /// [default: 7600]
    #[arg(long)]
    port: Option<u16>,
    /// Synchronous backups; 0 is a standalone node [default: 1]
    #[arg(long, value_name = "N")]
    sync: Option<u32>,
    /// Asynchronous (DR) backups [default: 1, or 0 where any number is given]
    #[arg(long = "async", value_name = "N")]
    asynchronous: Option<u32>,
    /// Witnesses [default: what makes the voters odd]
    #[arg(long, value_name = "N")]
    witness: Option<u32>,
    /// max-protection, max-availability or max-performance [default: max-availability]
    #[arg(long, value_name = "MODE", value_parser = word::<Protection>)]
    protection: Option<Protection>,
    /// all or majority [default: all with two data nodes, majority with more]
    #[arg(long, value_name = "RULE", value_parser = word::<Acks>)]
    acks: Option<Acks>,
    /// Where the cluster archives its snapshots and log all the time: a directory or a URL
    #[arg(long, value_name = "PLACE", value_parser = place)]
    archive: Option<Place>,
    /// Whom it is encrypted to, age1…; may be given several times
    #[arg(long, value_name = "RECIPIENT", requires = "archive")]
    archive_recipient: Vec<Recipient>,
    /// Nodes tell each other a peer port two above the one they listen at; whoever asks for this
    /// puts a proxy there that can lose, hold back and break what passes
    #[arg(long, hide = true)]
    peer_proxies: bool,
}

fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

pub fn run(args: &Dev) -> Outcome {
    let asked = Asked {
        sync: args.sync,
        asynchronous: args.asynchronous,
        witness: args.witness,
        port: args.port,
        protection: args.protection,
        acks: args.acks,
        peer_proxies: args.peer_proxies,
    };
    // Before anything is made: a layout that cannot work leaves no directory behind.
    Layout::resolve(&asked)?;
    std::fs::create_dir_all(&args.dir)?;
    let dir = args.dir.canonicalize()?;
    let _lock = lock(&dir)?;
    let (plan, fresh) = prepare(&dir, &asked, args.archive.as_ref(), &args.archive_recipient)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut cluster = Running::start(dir, plan, args.archive.as_ref())?;
        let outcome = cluster.foreground(fresh).await;
        cluster.stop().await;
        outcome
    })
}

/// Finds the cluster of the directory or makes it; also says whether it was made now.
fn prepare(
    dir: &Path,
    asked: &Asked,
    archive: Option<&Place>,
    recipients: &[Recipient],
) -> Result<(Plan, bool), Failure> {
    let mut plan = match Plan::read(dir)? {
        Some(plan) if plan.made => {
            let layout = plan.layout.reconcile(asked)?;
            Plan { layout, ..plan }
        }
        // Interrupted before anything ran: make it again as it is asked for now.
        Some(_) => Plan::new(Layout::resolve(asked)?)?,
        None => {
            refuse_foreign(dir)?;
            Plan::new(Layout::resolve(asked)?)?
        }
    };
    let fresh = !plan.made;
    if fresh {
        store(dir, &plan)?;
        make_nodes(dir, &plan)?;
        plan.made = true;
        store(dir, &plan)?;
    }
    for node in 0..plan.layout.nodes() {
        let mut settings = plan.layout.settings(dir, node, plan.cluster()?);
        settings.archive = archive.cloned();
        settings.archive_recipients = recipients.to_vec();
        std::fs::create_dir_all(node_dir(dir, node))?;
        let text = format!(
            "# Written by `standfast dev` at every start.\n{}",
            settings.to_toml()
        );
        truth::write_whole(&node_dir(dir, node), "node.toml", &text)?;
    }
    Ok((plan, fresh))
}

fn store(dir: &Path, plan: &Plan) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(plan).expect("plain fields encode");
    truth::write_whole(dir, Plan::FILE, &text)
}

/// A directory without a plan may hold nothing but the lock.
fn refuse_foreign(dir: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name != "lock" {
            return Err(Failure::new(
                ExitCode::Exists,
                format!(
                    "{} holds {name:?} and no cluster of `standfast dev`",
                    dir.display()
                ),
            )
            .hint("name an empty or a new directory with --dir"));
        }
    }
    Ok(())
}

/// Makes every node's data directory, all with the same first Config.
fn make_nodes(dir: &Path, plan: &Plan) -> Result<(), Failure> {
    let (initial, incarnations) = plan.first_members(dir)?;
    for (id, incarnation) in &incarnations {
        let own = node_dir(dir, id.0);
        if own.exists() {
            // Half-made by a start that was interrupted; nothing has run from it.
            std::fs::remove_dir_all(&own)?;
        }
        std::fs::create_dir_all(&own)?;
        let settings = plan.layout.settings(dir, id.0, plan.cluster()?);
        create::create(
            &settings.data_dir,
            new_node(plan, *id, *incarnation, &initial)?,
        )?;
    }
    Ok(())
}

fn new_node(
    plan: &Plan,
    node: NodeId,
    incarnation: Incarnation,
    initial: &crate::replication::config::Config,
) -> Result<NewNode, Failure> {
    Ok(NewNode {
        cluster: plan.cluster()?,
        cluster_name: Config::default().cluster.to_string(),
        node,
        incarnation,
        initial: Some(initial.clone()),
    })
}

/// The cluster while it runs.
struct Running {
    dir: PathBuf,
    plan: Plan,
    processes: Vec<Process>,
    watches: Vec<Watch>,
    cluster: Cluster,
}

impl Running {
    fn start(dir: PathBuf, plan: Plan, archive: Option<&Place>) -> Result<Running, Failure> {
        let program = std::env::current_exe()?;
        let mut running = Running {
            processes: Vec::new(),
            watches: Vec::new(),
            cluster: Cluster {
                nodes: Vec::new(),
                offsite: archive.map(|place| place.as_str().to_owned()),
            },
            dir,
            plan,
        };
        let before = Cluster::read(&running.dir);
        for node in 0..running.plan.layout.nodes() {
            let mut process = Process::new(&program, &running.dir, node);
            // One that was started by hand and outlived the last `dev` is taken as it is.
            if process.look().is_none() {
                process.start()?;
            }
            let line = running.line(&process, before.as_ref())?;
            running.watches.push(Watch::start(line.client.clone()));
            running.cluster.nodes.push(line);
            running.processes.push(process);
        }
        running.cluster.write(&running.dir)?;
        Ok(running)
    }

    /// A node's line before anybody was asked: with the role it had last.
    fn line(&self, process: &Process, before: Option<&Cluster>) -> Result<NodeLine, Failure> {
        let node = process.node;
        let settings = self
            .plan
            .layout
            .settings(&self.dir, node, self.plan.cluster()?);
        let last = before.and_then(|before| before.nodes.iter().find(|line| line.id == node));
        Ok(NodeLine {
            id: node,
            role: last.map_or_else(|| self.plan.layout.first_role(node), |line| line.role),
            client: settings.client_address().to_string(),
            http: settings.http_address().to_string(),
            pid: None,
            data_dir: settings.data_dir.display().to_string(),
            start: process.start_command(),
        })
    }

    /// Until it is interrupted.
    async fn foreground(&mut self, fresh: bool) -> Outcome {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let began = Instant::now();
        let (mut served, mut told_late) = (false, false);
        let mut serves_since = None;
        let mut told_down = vec![false; self.processes.len()];
        loop {
            self.look()?;
            if !served && self.serves() {
                let since = *serves_since.get_or_insert_with(Instant::now);
                served = self.is_complete() || since.elapsed() > COMPLETING;
                if served {
                    print!("{}", self.summary(fresh));
                }
            }
            self.tell_changes(&mut told_down);
            let all_down = told_down.iter().all(|down| *down);
            let late = !told_late && began.elapsed() > STARTING;
            if !served && (all_down || late) {
                let failure = self.not_started();
                // A cluster with data stays up, so that its operator can repair it.
                if fresh || all_down {
                    return Err(failure);
                }
                told_late = true;
                println!("{failure}");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = either(&mut interrupt, &mut terminate) => return Ok(ExitCode::Done),
            }
        }
    }

    /// Brings `cluster.json` up to what is true.
    fn look(&mut self) -> Result<(), Failure> {
        let mut now = self.cluster.clone();
        for (line, process) in now.nodes.iter_mut().zip(&mut self.processes) {
            line.pid = process.look();
        }
        now.take_roles(&self.views());
        if now != self.cluster {
            now.write(&self.dir)?;
            self.cluster = now;
        }
        Ok(())
    }

    fn views(&self) -> Vec<Status> {
        self.watches.iter().filter_map(Watch::view).collect()
    }

    fn serves(&self) -> bool {
        self.views().iter().any(Status::takes_writes)
    }

    /// Whether every synchronous backup of the layout is in the sync set again.
    fn is_complete(&self) -> bool {
        let nodes = &self.cluster.nodes;
        let planned = nodes
            .iter()
            .filter(|line| self.plan.layout.first_role(line.id) == Role::SyncBackup);
        let found = nodes.iter().filter(|line| line.role == Role::SyncBackup);
        found.count() >= planned.count()
    }

    /// Says when a node ends and when it is back.
    fn tell_changes(&self, told_down: &mut [bool]) {
        for ((line, process), told) in self
            .cluster
            .nodes
            .iter()
            .zip(&self.processes)
            .zip(told_down.iter_mut())
        {
            let down = line.pid.is_none();
            if down && !*told {
                println!(
                    "node {} is down: {}\n  start it again with: {}",
                    line.id,
                    process.last_words(),
                    process.start_command()
                );
            } else if !down && *told {
                println!("node {} is back", line.id);
            }
            *told = down;
        }
    }

    fn not_started(&self) -> Failure {
        let mut message = format!(
            "the cluster in {} does not serve after {} s:",
            self.dir.display(),
            STARTING.as_secs()
        );
        if self.cluster.nodes.iter().all(|line| line.pid.is_none()) {
            message = format!(
                "every node of the cluster in {} has ended:",
                self.dir.display()
            );
        }
        for ((line, process), watch) in self
            .cluster
            .nodes
            .iter()
            .zip(&self.processes)
            .zip(&self.watches)
        {
            let view = watch.view();
            let text = match (line.pid, view) {
                (None, _) => process.last_words(),
                (Some(pid), None) => {
                    format!("process {pid} does not answer; {}", process.last_words())
                }
                (Some(_), Some(view)) => doing(&view),
            };
            message.push_str(&format!("\n  node {}: {text}", line.id));
        }
        Failure::new(ExitCode::NotServing, message)
            .hint("the nodes' log lines are in <dir>/node-<i>/log")
    }

    /// What there is and what to try.
    fn summary(&self, fresh: bool) -> String {
        let nodes = &self.cluster.nodes;
        let primary = nodes
            .iter()
            .find(|line| line.role == Role::Primary)
            .unwrap_or(&nodes[0]);
        let made = if fresh {
            "a new cluster"
        } else {
            "the cluster found there"
        };
        let mut out = format!("standfast serves: {made} in {}\n\n", self.dir.display());
        for line in nodes {
            let pid = line
                .pid
                .map_or("down".to_owned(), |pid| format!("pid {pid}"));
            let entry = format!(
                "  node {}  {:<12}  clients {}  http {}  {pid}",
                line.id,
                line.role.as_str(),
                line.client,
                line.http
            );
            out.push_str(entry.trim_end());
            out.push('\n');
        }
        out.push_str(&self.ideas(primary));
        out
    }

    fn ideas(&self, primary: &NodeLine) -> String {
        let port = primary.client.rsplit_once(':').map_or("", |(_, port)| port);
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "standfast".to_owned());
        let node = format!("--node {}", primary.client);
        let mut out = format!(
            "\nconnect:   redis-cli -p {port}   (Sentinel clients: any node's client port, service \
             standfast)\ntry:       redis-cli -p {port} SET greeting hello\n           \
             {program} status {node}\n"
        );
        if self.plan.layout.sync > 0 {
            let pid = primary
                .pid
                .map_or("<pid>".to_owned(), |pid| pid.to_string());
            out.push_str(&format!("           {program} switchover {node}\n"));
            out.push_str(&format!(
                "           kill -9 {pid}   (and see a backup take over)\n"
            ));
        }
        let backups = self.dir.join("backup");
        out.push_str(&format!(
            "           {program} backup now {node} --to {}\n\nevery node's start command and \
             state: {}\nCtrl-C stops all nodes; a second start finds their data.\n",
            backups.display(),
            self.dir.join(Cluster::FILE).display()
        ));
        out
    }

    /// Asks all nodes to stop, at once: a handover between nodes that all go would be for nothing.
    async fn stop(&mut self) {
        let mut running = self.running();
        if running.is_empty() {
            return;
        }
        let nodes = if running.len() == 1 { "node" } else { "nodes" };
        println!("stopping {} {nodes}", running.len());
        for at in &running {
            self.processes[*at].ask_to_stop();
        }
        let began = Instant::now();
        while !running.is_empty() && began.elapsed() < STOPPING {
            tokio::time::sleep(LOOK / 4).await;
            running = self.running();
        }
        for at in &running {
            println!("node {at} does not stop: killing it");
            self.processes[*at].kill();
        }
        while !self.running().is_empty() && began.elapsed() < 2 * STOPPING {
            tokio::time::sleep(LOOK / 4).await;
        }
        if let Err(failure) = self.look() {
            println!("{failure}");
        }
    }

    /// Which nodes run now, by their place.
    fn running(&mut self) -> Vec<usize> {
        let processes = self.processes.iter_mut().enumerate();
        processes
            .filter_map(|(at, process)| process.look().map(|_| at))
            .collect()
    }
}

/// What a node does while the cluster does not serve.
fn doing(view: &Status) -> String {
    let mut text = format!("{}, epoch {}", view.role, view.epoch);
    if !view.reason.is_empty() {
        text.push_str(&format!(": {}", view.reason));
    }
    for alarm in &view.alarms {
        text.push_str(&format!("\n    {}", alarm.text));
    }
    text
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_holds_something_else_is_refused() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        std::fs::write(dir.path().join("lock"), "").expect("a scratch file");
        refuse_foreign(dir.path()).expect("only the lock");
        std::fs::write(dir.path().join("photo.jpg"), "").expect("a scratch file");
        let refused = prepare(dir.path(), &Asked::default(), None, &[]).expect_err("not empty");
        assert_eq!(refused.code, ExitCode::Exists);
        assert!(refused.message.contains("photo.jpg"), "{refused}");
    }

    #[test]
    fn one_dev_at_a_time() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let _first = lock(dir.path()).expect("free");
        assert_eq!(lock(dir.path()).expect_err("taken").code, ExitCode::InUse);
    }

    #[test]
    fn modes_are_given_by_their_words() {
        assert_eq!(
            word::<Protection>("max-protection"),
            Ok(Protection::MaxProtection)
        );
        assert_eq!(word::<Acks>("majority"), Ok(Acks::Majority));
        assert!(
            word::<Acks>("some")
                .expect_err("no such rule")
                .contains("majority")
        );
    }
}
