//! What happens seldom to a ledger.

use crate::simulate::check::rare::rare;
use crate::simulate::node::Process;
use books::{Outcome, Transfer, TransferStatus, transfer_flags};

rare! {
    Expired "hold expired";
    ExpiredLater "hold expired in a later epoch";
    ResolvedLater "hold posted or voided in a later epoch";
    ChainBroken "chain broken";
    ChainBrokenLast "chain broken by its last event";
    Closed "account closed";
    Reopened "account opened again by an expiry";
    Imported "transfer imported";
    Balanced "amount cut by balancing";
    Burned "id used up";
    BurnedAgain "used-up id tried again";
    ExistsAgain "batch sent again and answered exists";
    ExecAborted "EXEC aborted by a refusal";
    ExecUndone "EXEC aborted behind commands that were done";
    OnceAgain "ONCE answered again with a ledger's reply";
    StaleRead "backup's answer about the ledger";
    Statement "statement with rows";
    Page "page with a cursor behind it";
    SnapshotInstalled "snapshot with a ledger installed";
    SnapshotStarted "start from a snapshot with open holds";
    NodeCompared "node's ledger compared at the end";
}

impl Counts {
    /// A snapshot replaced this process's state.
    pub fn note_installed(&mut self, process: Option<&Process>) {
        if process.is_some_and(|process| process.engine.state().ledger().transfers() > 0) {
            self.note(Rare::SnapshotInstalled);
        }
    }

    pub fn note_started(&mut self, process: &Process) {
        if process.from.is_some() && process.engine.state().ledger().open_holds() > 0 {
            self.note(Rare::SnapshotStarted);
        }
    }

    /// What the outcomes of a batch of transfers show.
    pub fn note_outcomes(&mut self, events: &[Transfer], outcomes: &[Outcome]) {
        use TransferStatus::{Exists, IdAlreadyFailed, LinkedEventChainOpen, LinkedEventFailed};
        let mut was_linked = false;
        for (event, outcome) in events.iter().zip(outcomes) {
            let is_linked = event.has(transfer_flags::LINKED);
            let status = TransferStatus::from_number(outcome.status).expect("a known status");
            let breaks = !matches!(
                status,
                TransferStatus::Created | LinkedEventFailed | LinkedEventChainOpen
            );
            if breaks && (is_linked || was_linked) {
                self.note(Rare::ChainBroken);
            }
            if breaks && was_linked && !is_linked && status != Exists {
                self.note(Rare::ChainBrokenLast);
            }
            if status.is_transient() {
                self.note(Rare::Burned);
            }
            if status == IdAlreadyFailed {
                self.note(Rare::BurnedAgain);
            }
            was_linked = is_linked;
        }
    }
}
