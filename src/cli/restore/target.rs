//! Which point: what an operator writes, and what is said of one that cannot be met.

use super::Created;
use crate::cli::backup::point;
use crate::cli::exit::{ExitCode, Failure};
use crate::server::command::{Context, Parsed, find, parse as parse_words};
use crate::state::Command;
use crate::state::command::LedgerRead;
use bytes::Bytes;
use standfast_snapshot::Target;
use standfast_snapshot::plan::Unmet;
use standfast_wal::{History, Lsn};

/// Which point an operator asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    At(Target),
    /// Right before the command that created the transfer with this id.
    Before(u128),
}

impl From<Target> for Aim {
    fn from(target: Target) -> Aim {
        Aim::At(target)
    }
}

impl Aim {
    /// The point itself, once it is known which command created the transfer.
    pub fn at(self, created: Option<Created>) -> Target {
        match (self, created) {
            (Aim::At(target), _) => target,
            (Aim::Before(_), Some(created)) => Target::Lsn(Lsn(created.lsn.0 - 1)),
            (Aim::Before(id), None) => panic!("transfer {id} is looked for first"),
        }
    }
}

/// What commands of this program's own need; none of it shows in what only reads.
pub const CONTEXT: Context = Context {
    once_ttl_ms: 0,
    once_max: 0,
    seed: 0,
};

/// `latest`, `lsn:N`, `time:RFC3339` or `before:TRANSFER_ID`.
pub fn parse(text: &str) -> Result<Aim, String> {
    let expected = "expected latest, lsn:N, time:RFC3339 (2026-01-31T12:00:00Z) or \
                    before:TRANSFER_ID";
    if text == "latest" {
        return Ok(Aim::At(Target::Latest));
    }
    match text.split_once(':') {
        Some(("lsn", number)) => match number.parse() {
            Ok(lsn) => Ok(Aim::At(Target::Lsn(Lsn(lsn)))),
            Err(error) => Err(format!("{error}: {expected}")),
        },
        Some(("time", time)) => {
            let time: jiff::Timestamp = time.parse().map_err(|e| format!("{e}: {expected}"))?;
            let ns = u64::try_from(time.as_nanosecond());
            ns.map(|ns| Aim::At(Target::Time(ns)))
                .map_err(|_| format!("the time is before 1970: {expected}"))
        }
        Some(("before", id)) => transfer_id(id).map(Aim::Before).ok_or_else(|| {
            format!("{id:?} is no transfer id (decimal, 0x and hex digits, or a UUID): {expected}")
        }),
        _ => Err(expected.to_owned()),
    }
}

/// An id as TRANSFER.GET takes it.
fn transfer_id(word: &str) -> Option<u128> {
    let words = [
        Bytes::from_static(b"TRANSFER.GET"),
        Bytes::copy_from_slice(word.as_bytes()),
    ];
    let parsed = find(&words).and_then(|spec| parse_words(spec, &words, &CONTEXT));
    match parsed {
        Ok(Parsed::Data(Command::Ledger(read))) => match *read {
            LedgerRead::Transfer { id } => Some(id),
            _ => None,
        },
        _ => None,
    }
}

/// `GENERATION-ID`, as histories are shown.
pub fn parse_history(text: &str) -> Result<History, String> {
    let expected = "expected GENERATION-ID as `standfast backup list` shows it";
    let (generation, id) = text.split_once('-').ok_or(expected)?;
    Ok(History {
        generation: generation.parse().map_err(|_| expected)?,
        id: u128::from_str_radix(id, 16).map_err(|_| expected)?,
    })
}

pub fn unmet(unmet: Unmet) -> Failure {
    let (text, hint) = match &unmet {
        Unmet::Nothing => {
            let hint = "`standfast backup list` shows what an archive holds";
            (unmet.to_string(), hint.to_owned())
        }
        Unmet::Expired { newest } => (
            unmet.to_string(),
            format!("--target lsn:{} for what is left of it", newest.lsn),
        ),
        Unmet::Ambiguous(_) => (unmet.to_string(), "name one with --history".to_owned()),
        Unmet::Between {
            below,
            above,
            newest,
        } => {
            let newest = point(newest);
            let nearest = [below, above].into_iter().flatten();
            let nearest: Vec<String> = nearest
                .map(|one| format!("`--target lsn:{}` ({})", one.lsn, point(one)))
                .collect();
            (
                format!("the target cannot be met exactly; the newest point known is {newest}"),
                match nearest.len() {
                    0 => "nothing can be restored: `standfast backup verify` says why".to_owned(),
                    _ => format!("what can be restored next to it: {}", nearest.join(", ")),
                },
            )
        }
    };
    Failure::new(ExitCode::NotExact, text).hint(hint)
}
