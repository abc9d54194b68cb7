//! Single transfers of many tasks travel together: at once when none is under way, and gathered
//! while a batch is.

use super::call::Caller;
use super::ledger::{self, BATCH_MAX, Outcome, Transfer};
use super::{Client, Error};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// One transfer and who waits for it.
#[derive(Debug)]
pub struct Single {
    transfer: Transfer,
    answer: oneshot::Sender<Result<Outcome, Error>>,
}

/// Starts the task that sends them; it ends with the last client.
pub fn start(caller: Caller) -> mpsc::Sender<Single> {
    let (singles, queue) = mpsc::channel(BATCH_MAX);
    tokio::spawn(run(caller, queue));
    singles
}

async fn run(caller: Caller, mut queue: mpsc::Receiver<Single>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        batch.retain(|single: &Single| !single.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let transfers: Vec<Transfer> = batch.iter().map(|single| single.transfer).collect();
        let results = match ledger::create_transfers(&caller, &transfers, None).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); batch.len()],
        };
        for (single, result) in batch.drain(..).zip(results) {
            // A caller that went away needs no answer.
            let _ = single.answer.send(result);
        }
    }
}

impl Client {
    /// Creates one transfer, in one batch with those that other tasks create at this time. After an
    /// error repeat it with the same id: it is created once.
    ///
    /// The deadline of the batch is that of the client as it was connected; this caller waits no
    /// longer than its own. A linked or imported transfer needs a batch of its own kind and is sent
    /// alone: use [`Client::create_transfers`] for those.
    pub async fn create_transfer(&self, transfer: Transfer) -> Result<Outcome, Error> {
        if transfer.is_linked() || transfer.is_imported() {
            let outcomes = self.create_transfers(&[transfer]).await?;
            return outcomes.first().copied().ok_or(Error::Closed);
        }
        let deadline = Instant::now() + self.caller.timeout;
        let (answer, outcome) = oneshot::channel();
        let single = Single { transfer, answer };
        match timeout_at(deadline, self.singles.send(single)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => return Err(Error::Timeout),
        }
        match timeout_at(deadline, outcome).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::Unknown { position: None }),
        }
    }
}
