//! The one table of exit codes, and the error that carries one.

use std::fmt;

macro_rules! exit_codes {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        /// How every command ends.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum ExitCode { $( #[doc = $meaning] $name = $code, )* }

        /// The table that `--help` and the documents print.
        pub const EXIT_CODES: &[(ExitCode, &str)] = &[ $( (ExitCode::$name, $meaning), )* ];
    };
}

exit_codes! {
    Done = 0, "done";
    Failed = 1, "failed for a reason that has no code of its own";
    Usage = 2, "the command line makes no sense";
    Settings = 3, "the settings are refused";
    Unreachable = 4, "no node answered, or no primary; nothing was changed";
    Refused = 5, "the cluster refused; nothing was changed";
    Unknown = 6, "the request was sent and its answer was lost: ask `status` what became of it";
    Damaged = 7, "bytes on disk are damaged, or a proof failed";
    InUse = 8, "the data directory or an address is in use by another process";
    Exists = 9, "there is data already, or another layout than asked for";
    NotServing = 10, "the cluster answers and does not serve writes";
    NotExact = 11, "the restore target cannot be met exactly";
    Halted = 12, "the node halted: a disk failed or an invariant broke";
    DrillFailed = 13, "a drill failed: a proof did not hold or a target was missed; its report says why";
}

/// Why a command did not do what was asked, for people: what happened, and what to do.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: ExitCode,
    pub message: String,
    /// What to do next; empty if the message says it.
    pub hint: String,
}

impl Failure {
    pub fn new(code: ExitCode, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            hint: String::new(),
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        self
    }

    /// In one line, for a report or a list.
    pub fn in_short(&self) -> String {
        match self.hint.is_empty() {
            true => self.message.clone(),
            false => format!("{} ({})", self.message, self.hint),
        }
    }

    /// As one line of JSON, for scripts.
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "error": self.message, "hint": self.hint, "exit_code": self.code as u8,
        })
        .to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if self.hint.is_empty() {
            Ok(())
        } else {
            write!(f, "\nhint: {}", self.hint)
        }
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(ExitCode::Failed, error.to_string())
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Failure {
        Failure::new(ExitCode::Settings, error.to_string())
            .hint("`standfast config example` shows every setting")
    }
}

/// The table for people, one code a line.
pub fn table() -> String {
    let line = |(code, meaning): &(ExitCode, &str)| format!("  {:>3}  {meaning}\n", *code as u8);
    EXIT_CODES.iter().map(line).collect()
}

/// The table for `docs/operations.md`, in Markdown.
pub fn reference() -> String {
    let line = |(code, meaning): &(ExitCode, &str)| format!("| {} | {meaning} |\n", *code as u8);
    let lines: String = EXIT_CODES.iter().map(line).collect();
    format!("\n| code | meaning |\n| ---: | --- |\n{lines}")
}

/// What a command returns.
pub type Outcome = Result<ExitCode, Failure>;
