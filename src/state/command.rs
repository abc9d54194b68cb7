//! Logged commands and queries: layout, encode, decode.
/// One command or query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {}
