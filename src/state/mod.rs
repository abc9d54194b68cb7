//! Deterministic; pure: what is stored and how committed records change it.
//!
//! Read in this order: `command.rs` (what can be asked), this file (how a record is applied),
//! `strings.rs`, `keys.rs`, `once.rs` (what the commands do), `store.rs` over `table.rs` over
//! `entry.rs` (where it lies), `snapshot.rs`.
//!
//! Two nodes that have applied the same records have equal digests (I2): nothing here reads a
//! clock, draws a random number, or lets the layout of a table show through. What has expired is
//! decided by log time, the timestamp of the last applied command.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod attestation;
mod bookkeeping;
mod codec;
pub mod command;
mod differences;
mod digest;
mod entry;
mod expiry;
mod glob;
mod integer;
mod keys;
pub mod ledger;
mod once;
mod place;
pub mod reply;
mod scan;
mod slots;
mod snapshot;
mod store;
mod strings;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use attestation::{ATTESTATION, ATTESTATION_BYTES, Attestation};
pub use command::Command;
pub use differences::{Difference, Differences};
pub use digest::Digest;
pub use entry::ENTRY_HEADER;
pub use glob::glob_matches;
pub use integer::parse_integer;
pub use ledger::{BLAKE3_BYTES, SEGMENT_SHIFT, Segment};
pub use place::slot_of;
pub use reply::Reply;
pub use snapshot::{BLOCK_HEADER, Block, LoadError, LoadedPart, Range, SnapshotHead, Tally};
pub use snapshot::{load_block, load_segment};

use command::Multi;
use digest::Sort;
use ledger::Ledger;
use standfast_wal::{Kind, Lsn, Record};
use store::{Garbage, Store, WARM_MAX};

/// Number of hash slots, as in Redis Cluster.
pub const SLOTS: u16 = 16384;

/// The longest value. A value must fit a record, and a block of a snapshot, comfortably.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
const _: () = assert!(VALUE_BYTES_MAX < standfast_wal::record::PAYLOAD_MAX);

/// What a Tick removes at most: a few milliseconds' work.
const TICK_SWEEP_MAX: usize = 2048;
/// Holds that a Tick releases at most: a few milliseconds' work.
const TICK_HOLDS_MAX: usize = ledger::BATCH_EVENTS_MAX;
/// What each command removes at most: keeps up with any rate of writes without a Tick.
const COMMAND_SWEEP_MAX: usize = 2;
/// How many entries that FLUSHALL left are freed with each record.
const RECLAIM_PER_RECORD: usize = 1024;

/// What every node of a cluster must agree on besides the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Seeds the key hash, which orders SCAN: the same on every node of a cluster (so that a
    /// cursor survives a failover), not known to clients. Take it from the cluster's random id.
    pub seed: u64,
    /// Transfers of a segment, as a power of two; the same for every segment of its life.
    pub segment_shift: u32,
}

impl Limits {
    /// With segments of the usual size.
    pub const fn new(seed: u64) -> Limits {
        Limits {
            seed,
            segment_shift: SEGMENT_SHIFT,
        }
    }
}

/// Where the state stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Applied {
    pub lsn: Lsn,
    /// Log time: nanoseconds since 1970 of the last applied command.
    pub timestamp: u64,
}

/// Everything that is stored. Changed by [`State::apply`] alone.
#[derive(Debug)]
pub struct State {
    limits: Limits,
    applied: Applied,
    keys: Store,
    /// ONCE tokens and their replies.
    tokens: Store,
    ledger: Ledger,
    garbage: Vec<Garbage>,
}

impl State {
    /// An empty state before the first record.
    pub fn new(limits: Limits) -> State {
        State {
            limits,
            applied: Applied::default(),
            keys: Store::new(Sort::Key, limits.seed),
            tokens: Store::new(Sort::Token, limits.seed),
            ledger: Ledger::with_segments(limits.seed, limits.segment_shift),
            garbage: Vec::new(),
        }
    }

    /// Applies a committed record of any kind; `on_reply` gets each command's LSN and reply, in
    /// order. Only records of kind Commands have replies.
    pub fn apply(&mut self, record: &Record, mut on_reply: impl FnMut(Lsn, Reply)) {
        self.apply_each(record, record.last_lsn(), |_, lsn, reply| {
            on_reply(lsn, reply)
        });
    }

    /// Applies a record's commands up to and including `through`: the last step of a restore, and
    /// of no other, since the rest of the record cannot be applied afterwards.
    pub fn apply_prefix(
        &mut self,
        record: &Record,
        through: Lsn,
        mut on_reply: impl FnMut(Lsn, Reply),
    ) {
        self.apply_each(record, through, |_, lsn, reply| on_reply(lsn, reply));
    }

    /// As [`State::apply_prefix`]; `on_reply` also gets the state as it is right after the command,
    /// for reads that must see exactly that.
    pub fn apply_each(
        &mut self,
        record: &Record,
        through: Lsn,
        on_reply: impl FnMut(&State, Lsn, Reply),
    ) {
        let (first, last) = (record.first_lsn(), record.last_lsn());
        assert_eq!(
            first,
            self.applied.lsn.next(),
            "I2: records are applied in order, once"
        );
        assert!(
            record.timestamp() > self.applied.timestamp,
            "log time rises: {record:?}"
        );
        assert!(
            first <= through && through <= last,
            "{through} is not in {record:?}"
        );
        match record.kind() {
            Kind::Commands => self.apply_commands(record, through, on_reply),
            Kind::Tick | Kind::EpochStart | Kind::Attestation | Kind::Operator => {
                let timestamp = record.timestamp() + first.distance_to(through);
                self.applied = Applied {
                    lsn: through,
                    timestamp,
                };
            }
        }
        if record.kind() == Kind::Tick {
            self.sweep(TICK_SWEEP_MAX);
            self.ledger
                .expire_due(self.applied.timestamp, TICK_HOLDS_MAX);
        }
        self.reclaim(RECLAIM_PER_RECORD);
    }

    fn apply_commands(
        &mut self,
        record: &Record,
        through: Lsn,
        mut on_reply: impl FnMut(&State, Lsn, Reply),
    ) {
        let mut lsn = record.first_lsn();
        let mut encoded = codec::iter(record.payload());
        let mut group = Vec::with_capacity(WARM_MAX.min(record.count() as usize));
        while lsn <= through {
            // The record's checksums held and a primary of this version built it: what cannot be
            // read now is of a newer version, and guessing would make this node diverge (I2).
            group.extend(encoded.by_ref().take(WARM_MAX).map(|one| {
                one.and_then(Command::from_encoded)
                    .unwrap_or_else(|why| panic!("a command of {record:?}: {why}"))
            }));
            assert!(
                !group.is_empty(),
                "{record:?} has fewer commands than it says"
            );
            self.warm(&group);
            for command in group.drain(..) {
                if lsn > through {
                    break;
                }
                let timestamp = record.timestamp() + record.first_lsn().distance_to(lsn);
                self.applied = Applied { lsn, timestamp };
                self.sweep(COMMAND_SWEEP_MAX);
                let reply = self.execute(&command);
                on_reply(self, lsn, reply);
                lsn = lsn.next();
            }
        }
        let whole = through == record.last_lsn();
        assert!(
            !whole || encoded.next().is_none(),
            "{record:?} has more commands than it says"
        );
    }

    /// Makes a batch of commands fast that is about to be read or applied: see `Store::warm` and
    /// `Ledger::warm`. Changes nothing; of more than a few dozen commands only the first count.
    pub fn warm(&self, batch: &[Command]) {
        if batch.len() > 1 {
            self.keys.warm(batch.iter().filter_map(Command::single_key));
            let transfers = batch.iter().filter_map(Command::single_transfer);
            self.ledger.warm(transfers);
        }
    }

    /// Answers a command that is not a write, at the log time of the last applied command.
    pub fn read(&self, command: &Command) -> Reply {
        match command {
            Command::Get { key } => self.get(key),
            Command::MGet { keys } => Reply::Array(keys.iter().map(|key| self.get(key)).collect()),
            Command::StrLen { key } => self.str_len(key),
            Command::GetRange { key, start, end } => self.get_range(key, *start, *end),
            Command::Exists { keys } => self.exists(keys),
            Command::Type { key } => self.type_of(key),
            Command::Ttl { key, form } => self.ttl(key, *form),
            Command::RandomKey { seed } => self.random_key(*seed),
            Command::Keys { pattern } => self.matching_keys(pattern),
            Command::Scan(scan) => self.scan(scan),
            Command::DbSize => integer_reply(self.live_keys()),
            Command::Revisions { keys } => Reply::Array(
                keys.iter()
                    .map(|key| integer_reply(self.revision(key).0))
                    .collect(),
            ),
            Command::Ledger(read) => self.read_ledger(read),
            Command::Multi(multi) if !command.is_write() => {
                if !self.watches_hold(multi) {
                    return Reply::NilArray;
                }
                Reply::Array(
                    multi
                        .commands
                        .iter()
                        .map(|command| self.read(command))
                        .collect(),
                )
            }
            write => panic!("I6: a write must come through the log: {write:?}"),
        }
    }

    /// Does what a command says, at `self.applied`.
    fn execute(&mut self, command: &Command) -> Reply {
        match command {
            Command::Set(set) => self.set(set),
            Command::MSet {
                pairs,
                if_none_exists,
            } => self.mset(pairs, *if_none_exists),
            Command::Append { key, value } => self.append(key, value),
            Command::SetRange { key, offset, value } => self.set_range(key, *offset, value),
            Command::IncrBy { key, by } => self.incr_by(key, *by),
            Command::GetDel { key } => self.get_del(key),
            Command::GetEx { key, expiry } => self.get_ex(key, *expiry),
            Command::Del { keys } => self.del(keys),
            Command::DelIfEq { key, value } => self.del_if_eq(key, value),
            Command::Expire {
                key,
                when,
                condition,
            } => self.expire(key, *when, *condition),
            Command::Persist { key } => self.persist(key),
            Command::Rename {
                source,
                target,
                if_absent,
            } => self.rename(source, target, *if_absent),
            Command::Copy {
                source,
                target,
                replace,
            } => self.copy(source, target, *replace),
            Command::FlushAll => {
                let garbage = self.keys.clear();
                self.garbage.push(garbage);
                Reply::Ok
            }
            Command::CreateAccounts(batch) => self.create_accounts(batch),
            Command::CreateTransfers(batch) => self.create_transfers(batch),
            Command::Multi(multi) => match self.watches_hold(multi) {
                true => self.multi(multi),
                false => Reply::NilArray,
            },
            Command::Once(once) => self.once(once),
            read => self.read(read),
        }
    }

    fn watches_hold(&self, multi: &Multi) -> bool {
        multi
            .watches
            .iter()
            .all(|(key, revision)| self.revision(key) == *revision)
    }

    fn sweep(&mut self, max: usize) {
        let now_ms = self.now_ms();
        self.keys.sweep(now_ms, max);
        self.tokens.sweep(now_ms, max);
    }

    fn now_ms(&self) -> u64 {
        expiry::now_ms(self.applied.timestamp)
    }

    pub fn applied(&self) -> Applied {
        self.applied
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Covers keys, values, revisions, expiries, ONCE tokens and the ledger; neither LSN nor log
    /// time.
    pub fn digest(&self) -> Digest {
        let mut digest = self.keys.digest();
        digest.add(self.tokens.digest());
        digest.add(self.ledger.digest());
        digest
    }

    /// As `digest`, made again from what is stored. Takes as long as reading everything.
    pub fn digest_made_again(&self) -> Digest {
        let mut digest = self.keys.digest_made_again();
        digest.add(self.tokens.digest_made_again());
        digest.add(self.ledger.digest_made_again());
        digest
    }

    /// One digest per slot of keys and tokens, in order: tells which slots differ.
    pub fn slot_digests(&self) -> Vec<Digest> {
        let slots = self.keys.slots().iter().zip(self.tokens.slots().iter());
        slots
            .map(|(keys, tokens)| {
                let mut digest = keys.digest;
                digest.add(tokens.digest);
                digest
            })
            .collect()
    }

    /// Earliest deadline in ns of anything not yet swept: a Tick is due once the clock passes it.
    pub fn next_deadline(&self) -> Option<u64> {
        let of = |store: &Store| store.deadlines.first().map(|(ms, _)| ms);
        let stores = earlier(of(&self.keys), of(&self.tokens));
        stores.into_iter().chain(self.ledger.next_deadline()).min()
    }

    /// Earliest deadline in ns above log time: once the clock passes it, a read needs a Tick
    /// first. What log time has passed already is invisible, swept or not.
    pub fn next_expiry(&self) -> Option<u64> {
        let now_ms = self.now_ms();
        let stores = earlier(
            self.keys.deadlines.next_after(now_ms),
            self.tokens.deadlines.next_after(now_ms),
        );
        let holds = self.ledger.next_expiry(self.applied.timestamp);
        stores.into_iter().chain(holds).min()
    }

    /// Estimate of the heap bytes held, by the allocator's size classes.
    pub fn used_bytes(&self) -> u64 {
        self.keys.used_bytes() + self.tokens.used_bytes() + self.ledger.used_bytes()
    }

    /// Number of keys held, including expired ones that are not yet swept.
    pub fn keys(&self) -> u64 {
        self.keys.len()
    }

    /// Number of keys that there are by log time.
    pub fn live_keys(&self) -> u64 {
        self.keys.len() - self.keys.deadlines.due(self.now_ms())
    }

    /// Number of keys held that will end by themselves.
    pub fn expiring_keys(&self) -> u64 {
        self.keys.deadlines.len() as u64
    }

    /// Number of ONCE tokens held.
    pub fn tokens(&self) -> u64 {
        self.tokens.len()
    }

    /// The books, to look at.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Frees memory that FLUSHALL left, about `entries_max` entries; true while there is more.
    /// Each applied record does some of it, so calling it on idle turns only makes it faster.
    pub fn reclaim(&mut self, entries_max: usize) -> bool {
        if let Some(garbage) = self.garbage.last_mut()
            && !garbage.free(entries_max)
        {
            self.garbage.pop();
        }
        !self.garbage.is_empty()
    }

    /// Recomputes everything that is kept incrementally and halts on any difference: for tests
    /// and the simulator.
    pub fn check(&self) {
        self.keys.check();
        self.tokens.check();
        self.ledger.check();
    }
}

/// The earlier of two deadlines in ms, as ns.
fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    let ms = a.into_iter().chain(b).min()?;
    Some(ms.saturating_mul(1_000_000))
}

/// Counts and LSNs as replies: none comes near the end of i64.
fn integer_reply(number: u64) -> Reply {
    Reply::Int(i64::try_from(number).expect("2^63 commands are never ordered"))
}
