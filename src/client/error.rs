//! How a call can end without its reply. Each error says whether something may have been done.

use std::fmt;

/// Where an ordered command stands in the log; `OUTCOME` tells what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    pub generation: u64,
    pub epoch: u64,
    pub lsn: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.generation, self.epoch, self.lsn)
    }
}

/// Why a call has no reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The primary said no. Nothing was done, and nothing will be.
    #[error("{code} {text}")]
    Refused {
        /// The first word of the refusal, such as `WRONGTYPE` or `OOM`.
        code: String,
        /// The rest, which says what to do.
        text: String,
    },
    /// It may have been done or not, and asking brought no answer before the deadline. Repeating it
    /// is safe only under the same token or id.
    #[error("it is not known whether this was done{}", at(position))]
    Unknown {
        /// Known where a node has said `UNKNOWN`: ask again with `OUTCOME`.
        position: Option<Position>,
    },
    /// It was done, but its reply is not kept any more.
    #[error("this was done, at {position}, and its reply is not kept")]
    ReplyGone { position: Position },
    /// No primary was found before the deadline. Nothing was done.
    #[error("no primary was found in time: {trouble}")]
    NoPrimary {
        /// What the nodes said when they were asked last.
        trouble: String,
    },
    /// The deadline passed before a write was sent, or while a read was under way: it is not done.
    #[error("there was no reply in time")]
    Timeout,
    /// Such a call is not sent: it is too large, or would change the connection that all callers
    /// share.
    #[error("{0}")]
    Invalid(String),
    /// The reply is not what this command answers: not the server this client was made for.
    #[error("an unexpected reply: {0}")]
    Unexpected(String),
    /// The runtime in which the client was connected has ended. Nothing was done.
    #[error("the client's runtime has ended")]
    Closed,
}

fn at(position: &Option<Position>) -> String {
    match position {
        Some(position) => format!("; ask with OUTCOME {position}"),
        None => String::new(),
    }
}

impl Error {
    /// From the text of an error reply.
    pub(super) fn refused(reply: &str) -> Error {
        let (code, text) = reply.split_once(' ').unwrap_or((reply, ""));
        Error::Refused {
            code: code.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The first word of a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether it is certain that nothing was done.
    pub fn is_not_done(&self) -> bool {
        !matches!(
            self,
            Error::Unknown { .. } | Error::ReplyGone { .. } | Error::Unexpected(_)
        )
    }
}
