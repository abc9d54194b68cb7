//! A bank that works while its cluster is hurt in every way, for as long as one likes; then the
//! audit, and how long nobody was served after each fault.

use crate::audit::{Audit, History};
use crate::bank::{Bank, Staff};
use crate::chaos::{Chaos, Incident, Kind};
use crate::cluster::Cluster;
use crate::spec::Spec;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub spec: Spec,
    pub time: Duration,
    /// The kinds of fault that are done.
    pub kinds: Vec<Kind>,
    pub seed: u64,
    pub staff: Staff,
    /// Whether the cluster's directory with all logs stays.
    pub keep: bool,
}

/// One fault and what clients felt of it.
#[derive(Clone, Debug)]
pub struct Felt {
    pub incident: Incident,
    /// From the fault's beginning to the first acknowledgement of a transfer that was begun after
    /// it.
    pub first: Duration,
    /// The longest time without any acknowledgement from the fault's beginning to the next fault's.
    pub silence: Duration,
}

/// What a soak gave.
#[derive(Debug)]
pub struct Outcome {
    pub felt: Vec<Felt>,
    pub audit: Audit,
    /// The LSN at which all data nodes had the same digest in the end; they are waited for, and
    /// unequal ones panic.
    pub equal_at: i64,
    /// How many epochs later it ended than it began.
    pub promotions: u64,
    pub refusals: BTreeMap<String, u64>,
    pub reconnects: u64,
    pub took: Duration,
}

/// Runs it to its end. Panics, and leaves the cluster's directory behind, when the cluster does not
/// heal; a history that is not clean is in the outcome, and leaves the directory, too.
pub fn run(binary: &Path, plan: &Plan, parent: &Path, mut tell: impl FnMut(&str)) -> Outcome {
    let began = Instant::now();
    let mut cluster = Cluster::start_in(binary, &plan.spec, parent);
    let data_nodes: Vec<String> = cluster
        .data_nodes()
        .into_iter()
        .map(|node| node.client)
        .collect();
    let bank = Bank::open(&cluster.addresses(), &data_nodes, plan.staff);
    bank.wait_more(100);
    let first_epoch = epoch(&cluster);
    let mut incidents: Vec<Incident> = Vec::new();
    let mut chaos = Chaos::new(&mut cluster, plan.kinds.clone(), plan.seed);
    chaos.calm(1000, 1500);
    while began.elapsed() < plan.time {
        let kind = chaos.draw();
        let incident = chaos.hurt(kind);
        let (at, lasted) = (incident.began - began, incident.undone - incident.began);
        chaos.settle();
        tell(&format!(
            "{:>7.1} s  {:<29} lasted {:>6.0} ms, whole after {:>6.0} ms, {} transfers; {}",
            at.as_secs_f64(),
            kind.name(),
            ms(lasted),
            ms(incident.began.elapsed()),
            bank.acknowledged(),
            incident.story,
        ));
        incidents.push(incident);
        chaos.calm(300, 1500);
    }
    bank.wait_more(100);
    let history = bank.close();
    let audit = history.audit(&mut cluster.client());
    if plan.keep || !audit.is_clean() {
        cluster.keep();
    }
    let (equal_at, _) = cluster.wait_equal_digests(&cluster.data_nodes());
    Outcome {
        felt: feel(&told(&history), &incidents),
        audit,
        equal_at,
        promotions: epoch(&cluster) - first_epoch,
        refusals: history.refusals,
        reconnects: history.reconnects,
        took: began.elapsed(),
    }
}

fn epoch(cluster: &Cluster) -> u64 {
    let status = cluster.status(&cluster.primary());
    status["epoch"].as_u64().expect("status tells the epoch")
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// When a transfer was acknowledged, and when it had begun.
type Told = (Instant, Instant);

fn told(history: &History) -> Vec<Told> {
    let transfers = history.transfers.iter();
    let mut told: Vec<Told> = transfers
        .map(|transfer| (transfer.acknowledged, transfer.invoked))
        .collect();
    told.sort_unstable();
    told
}

/// What clients felt of each fault; `told` in order of acknowledgement.
fn feel(told: &[Told], incidents: &[Incident]) -> Vec<Felt> {
    let next = incidents.iter().skip(1).map(|incident| incident.began);
    let ends = next.chain(told.last().map(|last| last.0));
    let pairs = incidents.iter().zip(ends);
    pairs
        .map(|(incident, end)| {
            let from = told.partition_point(|(acknowledged, _)| *acknowledged < incident.began);
            let later = &told[from..];
            let first = later
                .iter()
                .find(|(_, invoked)| *invoked >= incident.began)
                .map_or(end, |(acknowledged, _)| *acknowledged);
            let mut silence = Duration::ZERO;
            let mut before = incident.began;
            for (acknowledged, _) in later {
                // What lies behind the next fault's beginning is that one's.
                silence = silence.max((*acknowledged).min(end) - before);
                before = *acknowledged;
                if before >= end {
                    break;
                }
            }
            Felt {
                incident: incident.clone(),
                first: first - incident.began,
                silence,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_belongs_to_the_fault_that_it_began_in_up_to_the_next_ones_beginning() {
        let zero = Instant::now();
        let at = |time: u64| zero + Duration::from_millis(time);
        // Begun and acknowledged; the one begun at 95 was under way when the first fault came.
        let transfers = [(95, 105), (106, 300), (310, 320), (500, 900), (910, 911)];
        let told: Vec<Told> = transfers
            .iter()
            .map(|&(begun, acknowledged)| (at(acknowledged), at(begun)))
            .collect();
        let incident = |began: u64| Incident {
            kind: Kind::KillPrimary,
            began: at(began),
            undone: at(began + 1),
            story: String::new(),
        };
        let felt = feel(&told, &[incident(100), incident(600)]);
        let spans: Vec<(u128, u128)> = felt
            .iter()
            .map(|felt| (felt.first.as_millis(), felt.silence.as_millis()))
            .collect();
        // From 320 to 600 nothing came; from 600 to 900 the second fault's silence.
        assert_eq!(spans, [(200, 280), (311, 300)]);
    }
}
