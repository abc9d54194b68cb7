//! A batch of events in order: timestamps, linked chains, and what holds for every kind of event.

use super::record::{Bytes128, RECORD_BYTES};
use super::status::{EventResult, Outcome, Status};
use super::{Ledger, Mark};

/// Events that are looked up together: enough to overlap the waits for memory, few enough to stay
/// cached.
pub(super) const GROUP_EVENTS: usize = 32;

/// The latest timestamp there can be: what fits the signed numbers of clients.
pub(super) const TIMESTAMP_MAX: u64 = i64::MAX as u64;

/// What `create_accounts` and `create_transfers` do alike.
pub(super) trait Event: Sized {
    type Status: Status;
    const LINKED: u16;
    const IMPORTED: u16;

    fn decode(bytes: &Bytes128) -> Self;
    fn flags(&self) -> u16;
    fn timestamp(&self) -> u64;

    /// What is found about an event before its turn comes, and stays true until then.
    type Found: Copy + Default;

    /// Looks up what a group of events needs, and so brings it into the processor's caches.
    fn look_up(_: &Ledger, _: &[Bytes128], _: &mut [Self::Found; GROUP_EVENTS]) {}

    /// Does it or says why not, at `time` in ns.
    fn create(&self, ledger: &mut Ledger, found: &Self::Found, time: u64) -> ResultOf<Self>;

    /// Uses the id up, if a refusal of this kind does.
    fn burn(&self, ledger: &mut Ledger, status: Self::Status);
}

/// What an event of this kind comes to.
type ResultOf<E> = EventResult<<E as Event>::Status>;

/// A chain under way.
struct Chain {
    /// Its first event.
    first: usize,
    /// The books before it.
    before: Mark,
    is_broken: bool,
}

impl Ledger {
    /// Runs the events of a batch; `now` is the log time of its command in ns. Event i happens at
    /// the first free nanosecond from `now` on, plus i.
    pub(super) fn run<E: Event>(&mut self, now: u64, batch: &[u8]) -> Vec<ResultOf<E>> {
        let (events, rest) = batch.as_chunks::<RECORD_BYTES>();
        assert!(rest.is_empty(), "a batch is whole events: {}", batch.len());
        let begin = now.max(self.last_event + 1);
        let Some(first) = events.first() else {
            return Vec::new();
        };
        let is_imported = E::decode(first).flags() & E::IMPORTED != 0;
        self.last_event = begin + events.len() as u64 - 1;
        let mut results: Vec<ResultOf<E>> = Vec::with_capacity(events.len());
        let mut chain: Option<Chain> = None;
        let mut found = [E::Found::default(); GROUP_EVENTS];
        for (at, bytes) in events.iter().enumerate() {
            if at % GROUP_EVENTS == 0 {
                let group = &events[at..events.len().min(at + GROUP_EVENTS)];
                E::look_up(self, group, &mut found);
            }
            let event = E::decode(bytes);
            let time = begin + at as u64;
            let is_linked = event.flags() & E::LINKED != 0;
            let is_last = at + 1 == events.len();
            if is_linked && chain.is_none() {
                chain = Some(Chain {
                    first: at,
                    before: self.mark(),
                    is_broken: false,
                });
            }
            let is_broken = chain.as_ref().is_some_and(|chain| chain.is_broken);
            let refusal = if is_linked && is_last {
                Some(E::Status::LINKED_EVENT_CHAIN_OPEN)
            } else if is_broken {
                Some(E::Status::LINKED_EVENT_FAILED)
            } else {
                untimely(&event, is_imported, begin)
            };
            let result = match refusal {
                Some(status) => EventResult {
                    timestamp: time,
                    outcome: Outcome::Refused(status),
                },
                None => event.create(self, &found[at % GROUP_EVENTS], time),
            };
            results.push(result);
            if let Outcome::Refused(status) = result.outcome {
                if let Some(chain) = chain.as_mut().filter(|chain| !chain.is_broken) {
                    chain.is_broken = true;
                    self.roll_back(chain.before);
                    for (result, time) in results[chain.first..at]
                        .iter_mut()
                        .zip(begin + chain.first as u64..)
                    {
                        *result = EventResult {
                            timestamp: time,
                            outcome: Outcome::Refused(E::Status::LINKED_EVENT_FAILED),
                        };
                    }
                }
                event.burn(self, status);
            }
            if !is_linked || is_last {
                chain = None;
            }
        }
        self.totals.assert_balanced();
        results
    }
}

/// What is wrong with an event's timestamp, or with its being imported or not; `begin` is the
/// batch's first nanosecond.
fn untimely<E: Event>(event: &E, is_imported: bool, begin: u64) -> Option<E::Status> {
    let claims = event.flags() & E::IMPORTED != 0;
    match (is_imported, claims) {
        (true, false) => return Some(E::Status::IMPORTED_EVENT_EXPECTED),
        (false, true) => return Some(E::Status::IMPORTED_EVENT_NOT_EXPECTED),
        (false, false) => {
            return (event.timestamp() != 0).then_some(E::Status::TIMESTAMP_MUST_BE_ZERO);
        }
        (true, true) => {}
    }
    if !(1..=TIMESTAMP_MAX).contains(&event.timestamp()) {
        Some(E::Status::IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE)
    } else if event.timestamp() >= begin {
        Some(E::Status::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE)
    } else {
        None
    }
}
