//! Who acts as primary knows of no successor, began as the register says, and forgets nobody.

use super::Observer;
use crate::simulate::node::Wants;
use standfast::replication::{Config, Replica};

impl Observer {
    pub(super) fn watch_reign(
        &mut self,
        node: usize,
        id: standfast_wal::NodeId,
        replica: &Replica,
    ) -> Result<(), String> {
        let seen = &mut self.nodes[node];
        if !replica.is_primary() {
            (seen.reign, seen.is_serving) = (None, false);
            return Ok(());
        }
        let reign = replica.fence();
        let config = replica.config();
        if config.history != reign.history || config.epoch > reign.epoch {
            return Err(format!(
                "I3: still primary of {reign}, and knows {config:?}"
            ));
        }
        if seen.reign != Some(reign) {
            seen.reign = Some(reign);
            seen.is_serving = false;
            self.register.promoted(id, replica.config())?;
            self.log.reigns(reign.history, replica);
            self.positions.begun(reign, replica);
        }
        if replica.is_serving() && !seen.is_serving {
            seen.is_serving = true;
            self.log.serves(reign.history, replica)?;
        }
        Ok(())
    }

    pub(super) fn note_reign_config(&mut self, node: usize, replica: &Replica) {
        let kept = &mut self.nodes[node].reigned_by;
        let config = replica.is_primary().then(|| replica.config());
        let key = |config: &Config| (config.history, config.version);
        if kept.as_ref().map(key) != config.map(key) {
            *kept = config.cloned();
        }
    }
}

/// The engine reads the log within the turn in which the core asks for it: afterwards nobody waits
/// for that.
pub fn serves_whom_it_reads_for(replica: &Replica, wants: &Wants) -> Result<(), String> {
    match replica
        .reads_for()
        .next()
        .filter(|_| wants.halted.is_none())
    {
        Some(to) => Err(format!("n{to} waits for what nobody reads from the log")),
        None => Ok(()),
    }
}
