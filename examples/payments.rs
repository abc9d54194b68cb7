//! A payment processor: several workers take from one queue, any of them dies at any moment, and
//! every payment is done exactly once.
//!
//! ```text
//! cargo run --release -- dev                     # a cluster, in one terminal
//! cargo run --release --example payments         # customers, workers and an assassin, in another
//! ```
//!
//! Nothing here locks, elects or remembers: a worker repeats every step of a payment from the
//! first one, whoever has done it before. What makes that safe is that each step has an id which
//! follows from the payment's own, so the ledger does it once and tells the repeat that it exists.
//!
//! 1. A request is a key, `todo:<payment>`. Any worker finds it by SCAN.
//! 2. The money is held: transfer `<payment>/1`, pending.
//! 3. The card network is asked. It must know payments by their ids, too; real ones do.
//! 4. Approved: one linked chain posts the hold and splits off the fee, `<payment>/2` to `/4`: all
//!    of it or nothing. Declined: the hold is voided, `<payment>/5`.
//! 5. The outcome takes the request's place, in one transaction: `done:<payment>`.
#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own reads clocks and sleeps; the ban is for pure rooms"
)]

use standfast::client::ledger::{Account, Transfer, account_flags};
use standfast::client::{Client, Error, Options, Reply};
use std::error::Error as StdError;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

/// The books: amounts are cents.
const LEDGER: u32 = 978;
const CODE: u16 = 1;
/// Where money comes from, where it waits between two accounts, and who earns.
const BANK: u128 = 1;
const CLEARING: u128 = 2;
const FEES: u128 = 3;
const MERCHANT: u128 = 4;
const FIRST_CUSTOMER: u128 = 100;
const CUSTOMERS: u128 = 50;
const OPENING_BALANCE: u128 = 1_000_000;
/// How long a hold outlives a payment that nobody finishes, in seconds.
const HOLD_S: u32 = 3600;

type Failed = Box<dyn StdError + Send + Sync>;

/// Who pays how much; its number is its identity.
#[derive(Clone, Copy)]
struct Payment {
    number: u128,
    customer: u128,
    amount: u128,
}

impl Payment {
    fn drawn(number: u128) -> Payment {
        // Any numbers do, so long as they are the same whenever somebody asks.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17;
        Payment {
            number,
            customer: FIRST_CUSTOMER + mixed % CUSTOMERS,
            amount: 100 + mixed % 4_900,
        }
    }

    fn todo(&self) -> String {
        format!("todo:{}", self.number)
    }

    fn done(&self) -> String {
        format!("done:{}", self.number)
    }

    fn fee(&self) -> u128 {
        self.amount * 3 / 100 + 1
    }

    /// The id of one step: a retry of the step has the same.
    fn step(&self, step: u128) -> u128 {
        self.number << 8 | step
    }

    fn hold(&self) -> Transfer {
        Transfer::new(self.step(1), self.customer, CLEARING, self.amount)
            .in_ledger(LEDGER, CODE)
            .pending(HOLD_S)
    }

    /// Posts the hold and passes the money on, all of it or nothing.
    fn capture(&self) -> [Transfer; 3] {
        let net = self.amount - self.fee();
        [
            Transfer::post(self.step(2), self.step(1), u128::MAX).linked(),
            Transfer::new(self.step(3), CLEARING, MERCHANT, net)
                .in_ledger(LEDGER, CODE)
                .linked(),
            Transfer::new(self.step(4), CLEARING, FEES, self.fee()).in_ledger(LEDGER, CODE),
        ]
    }

    fn release(&self) -> Transfer {
        Transfer::void(self.step(5), self.step(1))
    }

    /// Stands for the card network: it takes a moment, and says the same to every repeat.
    async fn ask_the_network(&self) -> bool {
        tokio::time::sleep(Duration::from_millis(2)).await;
        !self.number.is_multiple_of(10)
    }

    /// Does what is left to do of it; any number of workers may be at it.
    async fn process(&self, client: &Client) -> Result<(), Failed> {
        let held = client.create_transfers(&[self.hold()]).await?;
        let outcome = if !held[0].is_transfer_there() {
            // Not enough money, say: the ledger has used the id up, so no repeat succeeds later.
            "refused"
        } else if self.ask_the_network().await {
            let captured = client.create_transfers(&self.capture()).await?;
            // Where the chain was done before, its first event exists and the others say that
            // the chain failed; nothing of it is done twice.
            if !captured[0].is_transfer_there() {
                return Err(format!("payment {}: {captured:?}", self.number).into());
            }
            "captured"
        } else {
            let voided = client.create_transfers(&[self.release()]).await?;
            if !voided[0].is_transfer_there() {
                return Err(format!("payment {}: {voided:?}", self.number).into());
            }
            "declined"
        };
        let finished = client.multi().set(self.done(), outcome).del(self.todo());
        finished
            .exec_once(format!("finish:{}", self.number))
            .await?;
        Ok(())
    }
}

async fn connect(nodes: &str) -> Result<Client, Error> {
    let options = Options {
        timeout: Duration::from_secs(60),
        ..Options::default()
    };
    Client::connect_with(nodes.split(','), options).await
}

/// The payments of one page of the queue, and where to go on.
async fn queued(client: &Client, cursor: &str) -> Result<(String, Vec<Payment>), Failed> {
    let page = client
        .read(&["SCAN", cursor, "MATCH", "todo:*", "COUNT", "100"])
        .await?;
    let Reply::Array(parts) = page else {
        return Err("SCAN answers a cursor and keys".into());
    };
    let next = parts.first().and_then(Reply::text).ok_or("no cursor")?;
    let Some(Reply::Array(keys)) = parts.get(1) else {
        return Err("SCAN answers keys".into());
    };
    let numbers = keys
        .iter()
        .filter_map(|key| key.text()?.strip_prefix("todo:"));
    let payments: Result<Vec<Payment>, _> = numbers
        .map(|text| text.parse().map(Payment::drawn))
        .collect();
    Ok((next.to_owned(), payments?))
}

/// Works until the queue is empty.
async fn work(nodes: &str) -> Result<(), Failed> {
    let client = connect(nodes).await?;
    let mut cursor = "0".to_owned();
    let mut seen = 0;
    loop {
        let (next, mut payments) = queued(&client, &cursor).await?;
        seen += payments.len();
        // Each begins elsewhere, so that they seldom meet; where they do, no harm is done.
        let begin = std::process::id() as usize % payments.len().max(1);
        payments.rotate_left(begin);
        for payment in payments {
            payment.process(&client).await?;
        }
        cursor = next;
        if cursor == "0" && std::mem::take(&mut seen) == 0 {
            return Ok(());
        }
    }
}

async fn open_the_books(client: &Client) -> Result<(), Failed> {
    let mut accounts = [BANK, CLEARING, FEES, MERCHANT]
        .map(|id| Account::new(id, LEDGER, CODE))
        .to_vec();
    let customers = FIRST_CUSTOMER..FIRST_CUSTOMER + CUSTOMERS;
    accounts.extend(customers.clone().map(|id| {
        Account::new(id, LEDGER, CODE).with_flags(account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS)
    }));
    let opened = client.create_accounts(&accounts).await?;
    if !opened.iter().all(|outcome| outcome.is_account_there()) {
        return Err(format!("the accounts are there with other fields: {opened:?}").into());
    }
    let deposits: Vec<_> = customers
        .map(|id| Transfer::new(id, BANK, id, OPENING_BALANCE).in_ledger(LEDGER, CODE))
        .collect();
    let deposited = client.create_transfers(&deposits).await?;
    if !deposited.iter().all(|outcome| outcome.is_transfer_there()) {
        return Err(format!("the deposits are there with other fields: {deposited:?}").into());
    }
    Ok(())
}

/// What the merchant, the fees and the clearing account have received and paid out.
async fn balances(client: &Client) -> Result<[u128; 3], Failed> {
    let accounts = client.lookup_accounts(&[MERCHANT, FEES, CLEARING]).await?;
    let [merchant, fees, clearing] = accounts[..] else {
        return Err("the accounts are gone".into());
    };
    if clearing.debits_pending + clearing.credits_pending > 0 {
        return Err("a hold is still open".into());
    }
    let waiting = clearing.credits_posted - clearing.debits_posted;
    Ok([merchant.credits_posted, fees.credits_posted, waiting])
}

fn hire(nodes: &str) -> std::io::Result<Child> {
    let me = std::env::current_exe()?;
    Command::new(me).args(["work", nodes]).spawn()
}

/// Keeps workers at work until all have found the queue empty; kills one every now and then.
fn supervise(nodes: &str, workers: usize, every: Duration) -> Result<u32, Failed> {
    let mut team = (0..workers)
        .map(|_| hire(nodes))
        .collect::<Result<Vec<_>, _>>()?;
    let mut next_death = Instant::now() + every;
    let (mut killed, mut at) = (0, 0);
    while !team.is_empty() {
        if Instant::now() >= next_death {
            next_death += every;
            at = (at + 1) % team.len();
            team[at].kill()?;
            team[at].wait()?;
            team[at] = hire(nodes)?;
            killed += 1;
        }
        let mut left = Vec::new();
        for mut worker in team {
            match worker.try_wait()? {
                None => left.push(worker),
                Some(status) if status.success() => {}
                Some(_) => left.push(hire(nodes)?),
            }
        }
        team = left;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(killed)
}

/// Asks for payments, has them processed by mortal workers, and proves what came of it.
async fn demonstrate(
    nodes: &str,
    count: u128,
    workers: usize,
    every: Duration,
) -> Result<(), Failed> {
    let client = connect(nodes).await?;
    open_the_books(&client).await?;
    let before = balances(&client).await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let first = now.as_micros();
    let payments: Vec<_> = (first..first + count).map(Payment::drawn).collect();
    for payment in &payments {
        client.set(payment.todo(), "").await?;
    }
    let begun = Instant::now();
    let team = nodes.to_owned();
    let killed = tokio::task::spawn_blocking(move || supervise(&team, workers, every)).await??;
    let took = begun.elapsed();

    let keys: Vec<_> = payments.iter().map(Payment::done).collect();
    let mut expected = before;
    let mut outcomes = [0u32; 3];
    for (payment, outcome) in payments.iter().zip(client.mget(&keys).await?) {
        match outcome.as_deref() {
            Some(b"captured") => {
                expected[0] += payment.amount - payment.fee();
                expected[1] += payment.fee();
                outcomes[0] += 1;
            }
            Some(b"declined") => outcomes[1] += 1,
            Some(b"refused") => outcomes[2] += 1,
            other => return Err(format!("payment {}: {other:?}", payment.number).into()),
        }
    }
    let after = balances(&client).await?;
    let [captured, declined, refused] = outcomes;
    println!(
        "{count} payments by {workers} workers in {:.1} s, {killed} of them killed: {captured} captured, \
         {declined} declined, {refused} refused",
        took.as_secs_f64()
    );
    if after != expected {
        return Err(format!("the books say {after:?}, the outcomes {expected:?}").into());
    }
    println!("every cent is where the outcomes say, and no hold is open");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize, default: &str| args.get(at).map_or(default.to_owned(), String::clone);
    let done = if args.first().is_some_and(|first| first == "work") {
        work(&word(1, "")).await
    } else {
        let number = |at, default: &str| word(at, default).parse::<u64>();
        match (number(1, "500"), number(2, "4"), number(3, "200")) {
            (Ok(count), Ok(workers), Ok(every_ms)) => {
                let nodes = word(0, "127.0.0.1:7600,127.0.0.1:7610");
                let every = Duration::from_millis(every_ms.max(1));
                let workers = usize::try_from(workers.max(1)).unwrap_or(1);
                demonstrate(&nodes, count.into(), workers, every).await
            }
            _ => Err("payments [NODE,NODE] [PAYMENTS] [WORKERS] [KILL-EVERY-MS]".into()),
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payments: {error}");
            ExitCode::FAILURE
        }
    }
}
