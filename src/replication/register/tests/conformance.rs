//! What any engine behind `ConfigStore` must do, run on the built-in one and on the plainest one
//! that can be: a cell that everybody sees.

use super::cluster::Cluster;
use super::*;

/// Runs operations against an engine, each to its end, at one of two nodes.
trait Bench {
    fn ask(&mut self, node: u32, request: Request) -> Result<Outcome, Refusal>;
}

impl Bench for Cluster {
    fn ask(&mut self, node: u32, request: Request) -> Result<Outcome, Refusal> {
        let ticket = self.submit(node, request)?;
        self.run();
        let mut ends = self.ends.iter();
        let end = ends.find(|(at, other, _)| *at == NodeId(node) && *other == ticket);
        Ok(end.expect("all nodes are up").2.clone())
    }
}

/// An engine that decides on the spot.
struct Cell {
    value: Value,
    history: Vec<Value>,
    tickets: u64,
}

impl ConfigStore for Cell {
    type Input = ();
    type Effect = (Ticket, Outcome);

    fn submit(
        &mut self,
        _now: Time,
        request: Request,
        effects: &mut Vec<(Ticket, Outcome)>,
    ) -> Result<Ticket, Refusal> {
        let outcome = match request {
            Request::Read => Outcome::Current(self.value.clone()),
            Request::CompareAndSet { expected, next } => {
                succession(&expected, &next)?;
                if expected == self.value {
                    self.history
                        .push(std::mem::replace(&mut self.value, next.clone()));
                    Outcome::Chosen(next)
                } else if next == self.value || self.history.contains(&next) {
                    Outcome::Chosen(next)
                } else {
                    Outcome::Lost(self.value.clone())
                }
            }
        };
        self.tickets += 1;
        effects.push((Ticket(self.tickets), outcome));
        Ok(Ticket(self.tickets))
    }

    fn cancel(
        &mut self,
        _now: Time,
        _ticket: Ticket,
        _effects: &mut Vec<(Ticket, Outcome)>,
    ) -> bool {
        false
    }

    fn is_revocable(&self, _ticket: Ticket) -> bool {
        false
    }

    fn step(&mut self, _now: Time, _input: (), _effects: &mut Vec<(Ticket, Outcome)>) {}

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn known(&self) -> Option<&Value> {
        Some(&self.value)
    }
}

impl Bench for Cell {
    fn ask(&mut self, _node: u32, request: Request) -> Result<Outcome, Refusal> {
        let mut effects = Vec::new();
        let ticket = self.submit(Time::ZERO, request, &mut effects)?;
        let (told, outcome) = effects.pop().expect("a cell decides at once");
        assert_eq!(told, ticket);
        Ok(outcome)
    }
}

fn conforms(first: &Value, bench: &mut impl Bench) {
    let trio = [voter(1, 0), voter(2, 0), voter(3, 0)];
    let cas = |expected: &Value, next: &Value| Request::CompareAndSet {
        expected: expected.clone(),
        next: next.clone(),
    };
    assert_eq!(
        bench.ask(1, Request::Read),
        Ok(Outcome::Current(first.clone()))
    );
    let (a, b) = (value(2, 21, &trio), value(2, 22, &trio));
    assert_eq!(bench.ask(1, cas(first, &a)), Ok(Outcome::Chosen(a.clone())));
    assert_eq!(bench.ask(2, Request::Read), Ok(Outcome::Current(a.clone())));
    assert_eq!(
        bench.ask(2, cas(first, &b)),
        Ok(Outcome::Lost(a.clone())),
        "version"
    );
    assert_eq!(
        bench.ask(2, cas(first, &a)),
        Ok(Outcome::Chosen(a.clone())),
        "the identical"
    );
    let c = value(3, 31, &trio);
    assert_eq!(
        bench.ask(2, cas(&b, &c)),
        Ok(Outcome::Lost(a.clone())),
        "same version"
    );
    assert_eq!(bench.ask(2, cas(&a, &c)), Ok(Outcome::Chosen(c.clone())));
    assert_eq!(bench.ask(1, Request::Read), Ok(Outcome::Current(c.clone())));
    let gap = value(5, 51, &trio);
    let refused = Err(Refusal::Misfit(Misfit::Version));
    assert_eq!(bench.ask(1, cas(&c, &gap)), refused);
    let others = value(4, 41, &[voter(3, 0), voter(4, 0), voter(5, 0)]);
    let refused = Err(Refusal::Misfit(Misfit::TooManyVoters));
    assert_eq!(bench.ask(1, cas(&c, &others)), refused);
}

#[test]
fn the_built_in_engine_conforms() {
    let (first, mut cluster) = Cluster::found(3, &[]);
    conforms(&first, &mut cluster);
}

#[test]
fn a_cell_conforms() {
    let first = value(1, 1, &[voter(1, 0), voter(2, 0), voter(3, 0)]);
    let mut cell = Cell {
        value: first.clone(),
        history: Vec::new(),
        tickets: 0,
    };
    conforms(&first, &mut cell);
}
