//! MULTI, EXEC, DISCARD, WATCH: commands are queued here and ordered as one.

use super::{Purpose, Session};
use crate::limits;
use crate::node::client::Op;
use crate::server::command::{self, Id, Parsed, Spec};
use crate::state::command::Multi;
use crate::state::{Command, Reply};
use bytes::Bytes;
use standfast_wal::Lsn;

/// Commands since MULTI.
#[derive(Debug, Default)]
pub struct Transaction {
    commands: Vec<Command>,
    /// Of their arguments.
    bytes: usize,
    args: usize,
    /// One of them was refused, so EXEC runs none.
    is_spoiled: bool,
}

impl Transaction {
    pub fn len(&self) -> usize {
        self.commands.len()
    }
}

/// Commands that are not queued inside MULTI.
pub fn is_immediate(id: Id) -> bool {
    matches!(
        id,
        Id::Exec | Id::Discard | Id::Multi | Id::Watch | Id::Quit | Id::Reset
    )
}

impl Session {
    pub(super) fn multi(&mut self) {
        if self.transaction.is_some() {
            self.reply(Reply::error("ERR MULTI calls can not be nested"));
            return;
        }
        self.transaction = Some(Transaction::default());
        self.reply(Reply::Ok);
    }

    /// A refused command makes EXEC refuse the whole.
    pub(super) fn spoil_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.is_spoiled = true;
        }
    }

    /// A command inside MULTI; false if it must wait (`ONCE token EXEC` may have to).
    pub(super) fn queue(&mut self, spec: &'static Spec, args: &[Bytes]) -> bool {
        // They outlive their read, so they must not hold on to its buffer.
        let args: Vec<Bytes> = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        let command = match command::parse(spec, &args, &self.context) {
            Ok(Parsed::OnceExec { token }) => return self.exec(Some(token)),
            Ok(Parsed::Data(command)) => Ok(command),
            Ok(Parsed::Session(_)) => Err(Reply::error(format!(
                "ERR '{}' is not allowed inside MULTI: only commands on data become part of the \
                 transaction",
                spec.name
            ))),
            Err(refusal) => Err(refusal.reply()),
        };
        let request_bytes_max = self.front.settings.in_flight_bytes_max;
        let transaction = self
            .transaction
            .as_mut()
            .expect("queue is only called inside MULTI");
        let bytes = transaction.bytes + args.iter().map(Bytes::len).sum::<usize>();
        let words = transaction.args + args.len();
        let reply = match command {
            Ok(_)
                if transaction.len() == limits::MULTI_COMMANDS_MAX
                    || bytes > request_bytes_max
                    || words > limits::ARGUMENTS_MAX =>
            {
                transaction.commands = Vec::new();
                Reply::error("ERR the transaction is too large; split it")
            }
            Ok(command) => {
                transaction.bytes = bytes;
                transaction.args = words;
                transaction.commands.push(command);
                Reply::Simple("QUEUED")
            }
            Err(reply) => reply,
        };
        transaction.is_spoiled |= matches!(reply, Reply::Error(_));
        self.reply(reply);
        true
    }

    pub(super) fn discard(&mut self) -> bool {
        if self.transaction.is_none() {
            self.reply(Reply::error("ERR DISCARD without MULTI"));
            return true;
        }
        if !self.replies.is_quiet() {
            return false;
        }
        self.transaction = None;
        self.watches.clear();
        self.reply(Reply::Ok);
        true
    }

    /// EXEC, or `ONCE token EXEC`. Waits for the answers to WATCH, for it takes what they found.
    pub(super) fn exec(&mut self, token: Option<Bytes>) -> bool {
        if self.transaction.is_none() {
            self.reply(Reply::error("ERR EXEC without MULTI"));
            return true;
        }
        if self.watches_in_flight > 0 {
            return false;
        }
        let transaction = self.transaction.take().expect("it was just looked at");
        let watches = std::mem::take(&mut self.watches);
        if transaction.is_spoiled {
            self.reply(Reply::error(
                "EXECABORT Transaction discarded because of previous errors.",
            ));
            return true;
        }
        if transaction.commands.is_empty() && watches.is_empty() {
            self.reply(Reply::Array(Vec::new()));
            return true;
        }
        let multi = Multi {
            watches,
            commands: transaction.commands,
        };
        self.ask(match token {
            Some(token) => command::once_exec(token, multi, &self.context),
            None => Command::Multi(multi),
        });
        true
    }

    pub(super) fn watch(&mut self, args: &[Bytes]) {
        if self.transaction.is_some() {
            self.reply(Reply::error("ERR WATCH inside MULTI is not allowed"));
            return;
        }
        let keys: Vec<Bytes> = args
            .iter()
            .skip(1)
            .map(|key| Bytes::copy_from_slice(key))
            .collect();
        if self.watches.len() + keys.len() > limits::WATCHES_MAX {
            self.reply(Reply::error("ERR too many keys are watched; UNWATCH first"));
            return;
        }
        self.watches_in_flight += 1;
        let op = Op::Read {
            command: Command::Revisions { keys: keys.clone() },
            stale: false,
        };
        self.request(op, Purpose::Watch(keys));
    }

    /// The answer to WATCH has come.
    pub(super) fn on_watched(&mut self, keys: Vec<Bytes>, reply: Reply) -> Reply {
        self.watches_in_flight -= 1;
        let Reply::Array(revisions) = reply else {
            return reply;
        };
        assert!(
            revisions.len() == keys.len(),
            "{} revisions for {} watched keys",
            revisions.len(),
            keys.len()
        );
        for (key, revision) in keys.into_iter().zip(revisions) {
            let Reply::Int(revision) = revision else {
                return Reply::error("ERR a watched key has no revision");
            };
            // A key that is watched twice stands there twice: EXEC wants both revisions, so it
            // counts as it was when it was watched first.
            self.watches
                .push((key, Lsn(u64::try_from(revision).unwrap_or(0))));
        }
        Reply::Ok
    }
}
