//! A system under test, ours or another, and what all of them are asked.

use super::load::measure::Run;
use super::load::{Plan, Shape};
use super::ours::BATCH_MAX;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum What {
    /// A write of one key.
    Set,
    /// A read of one key, linearizable.
    Get,
    /// One transfer between two accounts.
    Transfer,
}

/// And how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    pub what: What,
    pub connections: usize,
    /// Commands that leave in one write; the next follow when all are answered.
    pub depth: usize,
    /// Of how many keys, or accounts, each is drawn.
    pub among: u64,
}

impl Case {
    pub fn name(&self) -> String {
        let what = match self.what {
            What::Set => "SET",
            What::Get => "GET",
            What::Transfer => "transfer",
        };
        format!("{what} {}x{}", self.connections, self.depth)
    }

    /// A pipeline is one request.
    pub fn shape(&self) -> Shape {
        Shape {
            connections: self.connections,
            window: 1,
        }
    }
}

/// Reads `50x16`: connections and depth.
pub fn parse_shape(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once('x')
        .and_then(|(connections, depth)| Some((connections.parse().ok()?, depth.parse().ok()?)));
    match parsed {
        Some((connections, depth)) if connections > 0 && (1..=BATCH_MAX).contains(&depth) => {
            Ok((connections, depth))
        }
        _ => Err("connections x depth, such as 50x16".to_owned()),
    }
}

pub trait System {
    /// With its version and what it counts as durable.
    fn name(&self) -> String;

    /// Measures one case; `None` when the system cannot be asked that.
    fn run(&mut self, case: &Case, plan: &Plan) -> anyhow::Result<Option<Run>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_two_numbers() {
        assert_eq!(parse_shape("50x16"), Ok((50, 16)));
        for wrong in ["50", "x16", "0x1", "1x0", "1x9000", "ax1"] {
            assert!(parse_shape(wrong).is_err(), "{wrong}");
        }
    }
}
