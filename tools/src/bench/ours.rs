//! Standfast under test: clusters of real processes, and the face that others are compared with.

use super::load::measure::Run;
use super::load::usage::Servers;
use super::load::{Plan, Shape, Target, Work, run};
use super::system::{Case, System, What};
use super::work::batches::{Accounts, Mix, Transfers};
use super::work::pipeline::{Draw, Pipeline};
use super::work::skew::{Kind, Skew};
use rig::cluster::discover;
use rig::{Cluster, Spec};
use std::path::Path;
use std::time::Duration;

/// Records of one request of the binary face.
pub const BATCH_MAX: usize = standfast::client::ledger::BATCH_MAX;

/// How a cluster is filled: enough to keep it busy.
pub const FILL: Shape = Shape {
    connections: 2,
    window: 2,
};

/// Who answers within this says who serves.
const LOOKUP: Duration = Duration::from_millis(50);

/// So many full copies. A write is acknowledged when it is on all of one or two disks, on two of
/// three, or on as many as `acks` says.
pub fn spec(copies: u32, acks: Option<&'static str>) -> Spec {
    let spec = match copies {
        1 => Spec::standalone(),
        2 => Spec::pair(),
        _ => Spec {
            sync: copies - 1,
            ..Spec::default()
        },
    };
    Spec { acks, ..spec }
}

/// Every node of the cluster, witnesses as well.
pub fn servers(cluster: &Cluster) -> Servers {
    let nodes = cluster.nodes();
    let pids = nodes.iter().map(|node| cluster.pid(node)).collect();
    Servers::new(pids, cluster.scratch())
}

pub fn target(cluster: &Cluster) -> Target<'static> {
    Target {
        address: cluster.primary().client,
        servers: servers(cluster),
        follow: None,
    }
}

/// Opens accounts.
pub fn open_accounts(target: &Target, accounts: u64) -> anyhow::Result<Run> {
    let mut work = Accounts::new(accounts, BATCH_MAX);
    run(target, &mut work, FILL, &Plan::TO_THE_END)
}

/// The run whose ids `make_transfers` takes.
pub const PREFILL_RUN: u64 = 1;

/// Makes transfers between accounts that are open.
pub fn make_transfers(target: &Target, accounts: u64, transfers: u64) -> anyhow::Result<Run> {
    let skew = Skew::new(Kind::Uniform, accounts);
    let work = Transfers::new(skew, Mix::Single, BATCH_MAX, PREFILL_RUN);
    run(target, &mut work.up_to(transfers), FILL, &Plan::TO_THE_END)
}

/// Sets each key of `first..end` once.
pub fn set_keys(target: &Target, first: u64, end: u64) -> anyhow::Result<Run> {
    let mut work = Pipeline::set(Draw::Each(first, end), 64);
    let shape = Shape {
        connections: 16,
        window: 1,
    };
    run(target, &mut work, shape, &Plan::TO_THE_END)
}

/// The node that names itself primary. What a node says of others is not asked: one that is cut off
/// does not know that they have moved on.
pub fn who_serves(nodes: &[String]) -> Option<String> {
    let names_itself = |node: &&String| discover(node, LOOKUP).as_ref() == Some(*node);
    nodes.iter().find(names_itself).cloned()
}

/// A cluster that is asked in RESP, as others are.
pub struct Standfast {
    cluster: Cluster,
    /// How many keys and accounts there are.
    keys: u64,
    accounts: u64,
    runs: u64,
}

impl Standfast {
    pub fn start(binary: &Path, spec: &Spec, dir: &Path) -> Standfast {
        Standfast {
            cluster: Cluster::start_in(binary, spec, dir),
            keys: 0,
            accounts: 0,
            runs: 0,
        }
    }

    /// Makes what the case asks for.
    fn prepare(&mut self, case: &Case, target: &Target) -> anyhow::Result<()> {
        match case.what {
            What::Get if self.keys < case.among => {
                set_keys(target, self.keys, case.among)?;
                self.keys = case.among;
            }
            What::Transfer if self.accounts == 0 => {
                open_accounts(target, case.among)?;
                self.accounts = case.among;
            }
            What::Set | What::Get | What::Transfer => {}
        }
        Ok(())
    }
}

impl System for Standfast {
    fn name(&self) -> String {
        let spec = self.cluster.spec();
        let copies = spec.data_nodes();
        let durable = match (copies, spec.acks) {
            (3, None) => 2,
            _ => copies,
        };
        format!("Standfast, on {durable} of {copies} disks")
    }

    fn run(&mut self, case: &Case, plan: &Plan) -> anyhow::Result<Option<Run>> {
        let target = target(&self.cluster);
        self.prepare(case, &target)?;
        self.runs += 1;
        let skew = Skew::new(Kind::Uniform, case.among);
        let mut work: Box<dyn Work> = match case.what {
            What::Set => Box::new(Pipeline::set(Draw::Among(skew), case.depth)),
            What::Get => Box::new(Pipeline::get(Draw::Among(skew), case.depth)),
            What::Transfer => Box::new(Pipeline::transfer(skew, case.depth, self.runs)),
        };
        run(&target, &mut *work, case.shape(), plan).map(Some)
    }
}
