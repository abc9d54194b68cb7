//! What a client asks next: of strings, tokens, transactions, the books, old states, outcomes.
//!
//! Families of keys, by what they are good for: `k` strings whose history is searched, `p` keys
//! that expire, `e` any command on them (`keys.rs`), `a` accounts that only guarded transactions
//! change, `m` pairs that are only written together, `once` a number that only tokens raise; `l` is
//! written with the ledger only (`ledger.rs`). In some runs FLUSHALL takes them all.

use super::{Claim, Script, What, Written, control, read, text};
use crate::simulate::check::history::{Asks, Id};
use crate::simulate::world::World;
use bytes::{Bytes, BytesMut};
use standfast::node::client::{Control, Op};
use standfast::server::command as table;
use standfast::state::Command;
use standfast::state::command::{Multi, Once};
use standfast_wal::Lsn;

pub const KEYS: u64 = 5;
pub const ACCOUNTS: usize = 4;
/// The clocks of a majority, jump by jump, may run ahead by days: no token expires of that.
pub(super) const ONCE_TTL_MS: u64 = 1000 * 86_400_000;
/// More than a run makes. Tokens of the ledger always find room: the books know no other.
pub(super) const TOKENS_MAX: u64 = 1_000_000;

/// The keys whose history is searched.
pub fn searched_keys() -> impl Iterator<Item = Bytes> {
    let keys = (0..KEYS).map(|number| text(format!("k{number}")));
    keys.chain([text("k-number")])
}

/// What all clients of a run do.
#[derive(Default)]
pub struct Mix {
    /// How often each kind of step is drawn, in proportion.
    weights: Vec<u64>,
    /// `once_max`, in the runs in which it is small.
    pub(super) few_tokens: Option<u64>,
    pub(super) flushes: bool,
}

#[derive(Clone, Copy)]
enum Step {
    Write,
    Read,
    Expiring,
    Once,
    Transfer,
    Pair,
    Accounts,
    Stale,
    Pipeline,
    Point,
    Books,
    Key,
    Lock,
}

const STEPS: [Step; 13] = [
    Step::Write,
    Step::Read,
    Step::Expiring,
    Step::Once,
    Step::Transfer,
    Step::Pair,
    Step::Accounts,
    Step::Stale,
    Step::Pipeline,
    Step::Point,
    Step::Books,
    Step::Key,
    Step::Lock,
];

impl World {
    fn draw_mix(&mut self) {
        let random = &mut self.dice.clients;
        let mix = &mut self.clients.mix;
        if mix.weights.is_empty() {
            // Writes and reads always; the others in some runs much, in some not at all.
            mix.weights.extend([4, 2]);
            mix.weights
                .extend((2..STEPS.len()).map(|_| random.below(4)));
            mix.few_tokens = random.one_in(4).then(|| random.between(3, 40));
            mix.flushes = random.one_in(4);
        }
    }

    fn draw_kind(&mut self) -> Step {
        let random = &mut self.dice.clients;
        let weights = &self.clients.mix.weights;
        let mut left = random.below(weights.iter().sum());
        let place = weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        STEPS[place.expect("below the sum")]
    }

    /// The next requests of this client, in order.
    pub(super) fn draw_step(&mut self, number: usize) -> Vec<(What, Op)> {
        self.draw_mix();
        if std::mem::take(&mut self.clients.list[number].looks) {
            return vec![self.plain_read(number, true)];
        }
        if let Some(requests) = self.next_of_script(number) {
            return requests;
        }
        self.clients.list[number].script = Script::Nothing;
        if let Some(requests) = self.ledger_step(number) {
            return requests;
        }
        if self.is_time_to_flush() {
            return vec![self.data(number, vec![text("FLUSHALL")], false)];
        }
        match self.draw_kind() {
            Step::Key => vec![self.any_key_command(number)],
            Step::Lock => self.lock(number),
            Step::Write => vec![self.plain_write(number)],
            Step::Read => vec![self.plain_read(number, false)],
            Step::Stale => vec![self.plain_read(number, true)],
            Step::Expiring => vec![self.expiring(number)],
            Step::Once => self.once(number),
            Step::Transfer => self.watch(number),
            Step::Pair => vec![self.pair(number)],
            Step::Accounts => {
                let keys = (0..ACCOUNTS).map(account).collect();
                let stale = self.dice.clients.one_in(3);
                let (id, op) = self.ask(number, Command::MGet { keys }, stale);
                vec![(What::Accounts(id), op)]
            }
            Step::Pipeline => {
                let many = self.dice.clients.between(2, 8);
                let one = |world: &mut World| match world.dice.clients.one_in(2) {
                    true => world.plain_write(number),
                    false => world.plain_read(number, false),
                };
                (0..many).map(|_| one(self)).collect()
            }
            Step::Point => vec![self.point(number)],
            Step::Books => vec![self.books(number)],
        }
    }

    /// What a client goes on with; `None`: with something new.
    fn next_of_script(&mut self, number: usize) -> Option<Vec<(What, Op)>> {
        Some(match &self.clients.list[number].script {
            Script::Retry { token, command, .. } => {
                let (token, command) = (*token, command.clone());
                let (id, op) = self.ask(number, command, false);
                let what = match token {
                    Some(token) => What::Once(id, token),
                    None => What::Data(id),
                };
                vec![(what, op)]
            }
            Script::Outcome { claim, .. } => {
                let claim = *claim;
                vec![(What::Outcome(claim), outcome(claim))]
            }
            Script::Receipt(write) => vec![(What::Receipt(*write), receipt(*write))],
            Script::Copies(write) => {
                let write = *write;
                let op = control(Control::Wait {
                    write: Some(write.place()),
                    copies: self.dice.clients.between(0, 4) as u32,
                    timeout_ms: self.dice.clients.between(1, 300),
                });
                vec![(What::Copies(write), op)]
            }
            Script::Transfer {
                revisions: Some(_),
                balances: Some(_),
                ..
            } => vec![self.transfer(number)],
            Script::Lock {
                revisions: Some(_), ..
            } => vec![self.under_a_lock(number)],
            Script::Room { .. } => {
                self.clients.list[number].script = Script::Nothing;
                self.once(number)
            }
            Script::Transfer { .. } | Script::Lock { .. } | Script::Nothing => return None,
        })
    }

    /// Notes in the history what is asked, and makes the request.
    pub(super) fn ask(&mut self, number: usize, command: Command, stale: bool) -> (Id, Op) {
        let is_write = command.is_write();
        let mut encoded = BytesMut::new();
        command.encode(&mut encoded);
        let encoded = encoded.freeze();
        let asks = match (is_write, stale) {
            (true, _) => Asks::Write,
            (false, true) => Asks::Stale,
            (false, false) => Asks::Read,
        };
        let session = self.session(number);
        let at = self.clients.list[number].at;
        let history = &mut self.observer.history;
        let id = history.invoke(
            self.now,
            session,
            at,
            asks,
            command.clone(),
            encoded.clone(),
        );
        if asks == Asks::Read {
            self.observer.read_came_in(id, &self.nodes[at], &self.nodes);
        }
        match is_write {
            true => (id, Op::Write(encoded)),
            false => (id, read(command, stale)),
        }
    }

    pub(super) fn data(&mut self, number: usize, words: Vec<Bytes>, stale: bool) -> (What, Op) {
        let (id, op) = self.ask(number, parse(&words), stale);
        (What::Data(id), op)
    }

    /// A value that is written once only, in the whole run.
    pub(super) fn value(&mut self, number: usize) -> Bytes {
        let client = &mut self.clients.list[number];
        client.written += 1;
        let mut value = format!("c{number}-{};", client.written);
        if self.dice.clients.one_in(8) {
            let more = self.dice.clients.below(self.plan.value_bytes);
            value.extend((0..more).map(|_| 'x'));
        }
        text(value)
    }

    fn plain_write(&mut self, number: usize) -> (What, Op) {
        let key = text(format!("k{}", self.dice.clients.below(KEYS)));
        let value = self.value(number);
        let kind = self.dice.clients.below(12);
        let words = match kind {
            0..=3 => vec![text("SET"), key, value],
            4 => vec![text("SET"), key, value, text("NX")],
            5 => vec![text("SET"), key, value, text("XX")],
            6 => vec![text("SET"), key, value, text("GET")],
            7 => vec![text("INCR"), text("k-number")],
            8 | 9 => vec![text("APPEND"), key, value],
            10 => {
                let other = text(format!("k{}", self.dice.clients.below(KEYS)));
                vec![text("MSET"), key, value.clone(), other, value]
            }
            _ => vec![text("DEL"), key],
        };
        self.data(number, words, false)
    }

    fn plain_read(&mut self, number: usize, stale: bool) -> (What, Op) {
        let key = |world: &mut World| text(format!("k{}", world.dice.clients.below(KEYS)));
        let words = match self.dice.clients.below(4) {
            0 => vec![text("MGET"), key(self), key(self), text("k-number")],
            1 => vec![text("GET"), text("k-number")],
            _ => vec![text("GET"), key(self)],
        };
        self.data(number, words, stale)
    }

    fn expiring(&mut self, number: usize) -> (What, Op) {
        let key = text(format!("p{}", self.dice.clients.below(3)));
        let value = self.value(number);
        let ms = text(self.dice.clients.scaled(5, 3000).to_string());
        let words = match self.dice.clients.below(6) {
            0 | 1 => vec![text("SET"), key, value, text("PX"), ms],
            2 => vec![text("PEXPIRE"), key, ms],
            3 => vec![text("PTTL"), key],
            _ => vec![text("GET"), key],
        };
        self.data(number, words, false)
    }

    fn once(&mut self, number: usize) -> Vec<(What, Op)> {
        let raise = parse(&[text("INCR"), text("once")]);
        if let Some(token) = self.clients.list[number].token.clone()
            && self.dice.clients.one_in(8)
        {
            return vec![self.reused_token(number, token)];
        }
        if self.clients.mix.few_tokens.is_some() && !self.dice.clients.one_in(4) {
            return self.short_onces(number, &raise);
        }
        vec![self.under_a_token(number, raise)]
    }

    /// Asked for under a new token until it is answered.
    pub(super) fn under_a_token(&mut self, number: usize, command: Command) -> (What, Op) {
        self.clients.list[number].written += 1;
        let token = self.clients.list[number].written;
        let name = text(format!("t{number}-{token}"));
        let mut tokens_max = TOKENS_MAX;
        if let Command::IncrBy { .. } = command {
            tokens_max = self.clients.mix.few_tokens.unwrap_or(TOKENS_MAX);
            self.clients.list[number].token = Some(name.clone());
        }
        let command = Command::Once(Once::new(name, ONCE_TTL_MS, tokens_max, command));
        let (id, op) = self.ask(number, command.clone(), false);
        self.clients.list[number].script = Script::Retry {
            token: Some(token),
            command,
            tries: 0,
        };
        (What::Once(id, token), op)
    }

    /// Two keys that are only ever written together.
    fn pair(&mut self, number: usize) -> (What, Op) {
        let (left, right) = (text("m-left"), text("m-right"));
        if self.dice.clients.one_in(2) {
            return self.data(number, vec![text("MGET"), left, right], false);
        }
        let value = self.value(number);
        let set = |key: Bytes| parse(&[text("SET"), key, value.clone()]);
        let multi = Multi {
            watches: Vec::new(),
            commands: vec![set(left), set(right)],
        };
        let (id, op) = self.ask(number, Command::Multi(multi), false);
        (What::Data(id), op)
    }

    /// WATCH two accounts, and look at them.
    fn watch(&mut self, number: usize) -> Vec<(What, Op)> {
        let from = self.dice.clients.index(ACCOUNTS);
        let to = (from + 1 + self.dice.clients.index(ACCOUNTS - 1)) % ACCOUNTS;
        let keys = vec![account(from), account(to)];
        self.clients.list[number].script = Script::Transfer {
            accounts: [from, to],
            revisions: None,
            balances: None,
        };
        let (watch, first) = self.ask(number, Command::Revisions { keys: keys.clone() }, false);
        let (look, second) = self.ask(number, Command::MGet { keys }, false);
        vec![(What::Watch(watch), first), (What::Data(look), second)]
    }

    /// EXEC: takes effect only if nobody has changed the accounts since.
    fn transfer(&mut self, number: usize) -> (What, Op) {
        let script = std::mem::replace(&mut self.clients.list[number].script, Script::Nothing);
        let Script::Transfer {
            accounts,
            revisions: Some(revisions),
            balances: Some(balances),
        } = script
        else {
            unreachable!("the caller has looked");
        };
        let amount = self.dice.clients.between(1, 9) as i64;
        // An account that was not there when it was watched had nothing: what was read later may
        // have been taken again by FLUSHALL, and then it is once more as it was when watched.
        let known = balances.iter().zip(&revisions);
        let balances: Vec<i64> = known
            .map(|(balance, revision)| match *revision {
                Lsn::ZERO => 0,
                _ => *balance,
            })
            .collect();
        let set = |place: usize, balance: i64| {
            parse(&[text("SET"), account(place), text(balance.to_string())])
        };
        let multi = Multi {
            watches: accounts.map(account).into_iter().zip(revisions).collect(),
            commands: vec![
                set(accounts[0], balances[0] - amount),
                set(accounts[1], balances[1] + amount),
            ],
        };
        let (id, op) = self.ask(number, Command::Multi(multi), false);
        (What::Data(id), op)
    }

    /// Asks a node whether it contains, or has reached, a point that was seen.
    fn point(&mut self, number: usize) -> (What, Op) {
        let Some(seen) = self.clients.list[number].seen else {
            return self.plain_read(number, false);
        };
        if self.dice.clients.one_in(2) {
            let lsn = Lsn(seen.lsn.0 + self.dice.clients.below(20));
            let timeout_ms = self.dice.clients.between(1, 300);
            let op = control(Control::WaitLsn { lsn, timeout_ms });
            return (What::WaitLsn(lsn), op);
        }
        let op = control(Control::Seen {
            generation: seen.history.generation,
            history_id: seen.history.id,
            epoch: seen.reign.epoch,
            lsn: seen.lsn,
        });
        (What::Seen(seen), op)
    }
}

fn receipt(write: Written) -> Op {
    control(Control::Receipt {
        write: write.place(),
    })
}

fn outcome(claim: Claim) -> Op {
    control(Control::Outcome {
        generation: claim.generation,
        epoch: claim.epoch,
        lsn: claim.lsn,
    })
}

fn account(place: usize) -> Bytes {
    text(format!("a{place}"))
}

/// A command on data, from a client's words.
pub fn parse(words: &[Bytes]) -> Command {
    let spec = table::find(words).expect("a command of the table");
    let context = table::Context {
        once_ttl_ms: ONCE_TTL_MS,
        once_max: TOKENS_MAX,
        seed: 0,
    };
    match table::parse(spec, words, &context) {
        Ok(table::Parsed::Data(command)) => command,
        other => unreachable!("{words:?} is a data command: {other:?}"),
    }
}
