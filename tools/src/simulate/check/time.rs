//! Log time: within a reign it goes as its primary's clock of running time does, however the wall
//! clock jumps.

use super::Observer;
use crate::simulate::node::Wants;
use crate::simulate::nodes::Node;
use standfast::replication::Fence;
use standfast_wal::Kind;

/// Log time is slewed towards wall time by one part in so many at most.
const SLEW: u64 = 1000;
/// Records of one moment follow each other by a nanosecond each.
const SLACK_NS: u64 = 100_000;

/// The newest record of a reign that was stamped by its running clock: when, and with what.
#[derive(Default)]
pub struct Times {
    reign: Fence,
    newest: Option<(u64, u64)>,
}

impl Observer {
    pub fn watch_time(
        &mut self,
        now: u64,
        node: usize,
        nodes: &[Node],
        wants: &Wants,
    ) -> Result<(), String> {
        let Some(process) = nodes[node]
            .process
            .as_ref()
            .filter(|_| !wants.built.is_empty())
        else {
            return Ok(());
        };
        let replica = process.engine.replica();
        if !replica.is_primary() {
            return Ok(());
        }
        let times = &mut self.nodes[node].time;
        let reign = replica.fence();
        if times.reign != reign {
            *times = Times {
                reign,
                newest: None,
            };
        }
        let clock = nodes[node].clock.boot(now);
        let own = |record: &&standfast_wal::Record| {
            // An EpochStart is stamped before the reign's clock is set.
            record.epoch() == reign.epoch && record.kind() != Kind::EpochStart
        };
        for record in wants.built.iter().filter(own) {
            let stamp = record.timestamp();
            if let Some((at, before)) = times.newest {
                let passed = clock.saturating_sub(at);
                let most = before + passed + passed / SLEW + SLACK_NS;
                if stamp > most || stamp < before {
                    return Err(format!(
                        "log time went from {before} to {stamp} in {passed} ns: {record:?}"
                    ));
                }
            }
            times.newest = Some((clock, stamp));
        }
        Ok(())
    }
}
