//! Commands that are not data commands: dispatch, and the short ones.

use super::{End, Purpose, Session};
use crate::node::client::{Control, Op};
use crate::server::command::{self, Id, Spec};
use crate::server::operator::{self, positive};
use crate::server::{info, sentinel, text, wall_clock};
use crate::state::{Command, Reply};
use bytes::Bytes;

impl Session {
    /// A command that is not on data; false if it must wait until all before it is answered.
    pub(super) fn local(&mut self, id: Id, spec: &Spec, args: &[Bytes]) -> bool {
        match id {
            Id::Ping => self.ping(args),
            Id::Echo => self.reply(Reply::Bulk(args[1].clone())),
            Id::Multi => self.multi(),
            Id::Exec => return self.exec(None),
            Id::Discard => return self.discard(),
            Id::Watch => self.watch(args),
            Id::Select => self.select(args),
            Id::ReadOnly | Id::ReadWrite => {
                self.is_stale_allowed = id == Id::ReadOnly;
                self.reply(Reply::Ok);
            }
            Id::Token => {
                let keys = vec![args[1].clone()];
                let command = Command::Revisions { keys };
                self.request(
                    Op::Read {
                        command,
                        stale: false,
                    },
                    Purpose::Token,
                );
            }
            Id::Outcome => self.controlled(operator::outcome(args)),
            Id::Seen => self.controlled(operator::seen(args)),
            Id::WaitLsn => self.controlled(operator::wait_lsn(args)),
            Id::Digest => self.digest(args),
            Id::BgSave => self.control(Control::Snapshot),
            _ if !self.replies.is_quiet() => return false,
            _ => self.quiet(id, spec, args),
        }
        true
    }

    /// Commands that look at the connection or the node as everything before them left it.
    fn quiet(&mut self, id: Id, spec: &Spec, args: &[Bytes]) {
        match id {
            Id::Auth => self.auth(args),
            Id::Client => self.client_command(spec, args),
            Id::Command => self.reply(command::answer(args)),
            Id::Config => self.config_command(spec, args),
            Id::Failover => {
                let view = self.front.handle.view();
                self.controlled(operator::failover(args, &view, self.who()));
            }
            Id::Hello => self.hello(args),
            Id::Info => {
                let view = self.front.handle.view();
                let reply = info::info(args, &self.front, &view);
                self.reply(reply);
            }
            Id::LastSave => {
                let saved = self.front.handle.view().snapshot;
                self.reply(info::integer(saved.map_or(0, |(_, at_s)| at_s)));
            }
            Id::Quit => {
                self.reply(Reply::Ok);
                self.end = End::Closing;
            }
            Id::Receipt => self.receipt(),
            Id::Reset => self.reset(),
            Id::Role => {
                let reply = info::role(&self.front.handle.view());
                self.reply(reply);
            }
            Id::Sentinel => match sentinel::answer(args, &self.front.handle.view()) {
                sentinel::Answer::Reply(reply) => self.reply(reply),
                sentinel::Answer::Switchover => self.control(Control::Switchover {
                    to: None,
                    who: self.who(),
                    why: "SENTINEL FAILOVER".to_string(),
                }),
            },
            Id::Shutdown => self.control(Control::Shutdown),
            Id::SlowLog => self.slowlog(spec, args),
            Id::Standfast => self.controlled(operator::standfast(args, self.who())),
            Id::Subscribe | Id::PSubscribe => self.subscribe(id, args),
            Id::Unsubscribe | Id::PUnsubscribe => self.unsubscribe(id, args),
            Id::Time => {
                let now = wall_clock();
                let parts = [now.as_secs(), u64::from(now.subsec_micros())];
                self.reply(Reply::Array(parts.into_iter().map(text).collect()));
            }
            Id::Unwatch => {
                self.watches.clear();
                self.reply(Reply::Ok);
            }
            Id::Wait | Id::WaitAof => self.wait(id, args),
            _ => unreachable!("'{}' is a data command or was answered above", spec.name),
        }
    }

    fn controlled(&mut self, control: Result<Control, Reply>) {
        match control {
            Ok(control) => self.control(control),
            Err(reply) => self.reply(reply),
        }
    }

    fn ping(&mut self, args: &[Bytes]) {
        let reply = match args {
            [_] if self.is_listening_only() => Reply::Array(vec![text("pong"), text("")]),
            [_, word] if self.is_listening_only() => {
                Reply::Array(vec![text("pong"), Reply::Bulk(word.clone())])
            }
            [_] => Reply::Simple("PONG"),
            [_, word] => Reply::Bulk(word.clone()),
            _ => Reply::error("ERR wrong number of arguments for 'ping' command"),
        };
        self.reply(reply);
    }

    fn select(&mut self, args: &[Bytes]) {
        let reply = match positive(&args[1]) {
            Ok(0) => Reply::Ok,
            Ok(_) => Reply::error("ERR DB index is out of range"),
            Err(error) => error,
        };
        self.reply(reply);
    }

    fn digest(&mut self, args: &[Bytes]) {
        match args {
            [_] => self.control(Control::Digest { slots: false }),
            [_, word] if word.eq_ignore_ascii_case(b"slots") => {
                self.control(Control::Digest { slots: true });
            }
            _ => self.reply(Reply::error("ERR syntax error")),
        }
    }

    fn receipt(&mut self) {
        match self.last_write {
            Some(write) => self.control(Control::Receipt { write }),
            None => self.reply(Reply::error("ERR this connection has not written anything")),
        }
    }

    /// WAIT copies ms; WAITAOF local copies ms.
    fn wait(&mut self, id: Id, args: &[Bytes]) {
        let numbers: Result<Vec<u64>, Reply> =
            args.iter().skip(1).map(|word| positive(word)).collect();
        let (purpose, copies, timeout_ms) = match numbers.as_deref() {
            Ok([copies, timeout_ms]) if id == Id::Wait => (Purpose::Control, copies, timeout_ms),
            Ok([0 | 1, copies, timeout_ms]) => (Purpose::WaitAof, copies, timeout_ms),
            Ok(_) => return self.reply(Reply::error("ERR numlocal is 0 or 1")),
            Err(error) => return self.reply(error.clone()),
        };
        let control = Control::Wait {
            write: self.last_write,
            copies: u32::try_from(*copies).unwrap_or(u32::MAX),
            timeout_ms: *timeout_ms,
        };
        self.request(Op::Control(Box::new(control)), purpose);
    }

    fn slowlog(&mut self, spec: &Spec, args: &[Bytes]) {
        let word = args
            .get(1)
            .map(|word| word.to_ascii_lowercase())
            .unwrap_or_default();
        let log = &self.front.slowlog;
        let reply = match (&*word, args.get(2)) {
            (b"get", None) => log.reply(10),
            (b"get", Some(count)) if &**count == b"-1" => log.reply(usize::MAX),
            (b"get", Some(count)) => match positive(count) {
                Ok(count) => log.reply(usize::try_from(count).unwrap_or(usize::MAX)),
                Err(error) => error,
            },
            (b"len", None) => Reply::Int(i64::try_from(log.len()).unwrap_or(i64::MAX)),
            (b"reset", None) => {
                log.clear();
                Reply::Ok
            }
            (b"help", None) => Reply::Array(vec![text(spec.summary)]),
            _ => return self.wrong_subcommand(spec, args),
        };
        self.reply(reply);
    }

    /// As if the connection were new; only its number and address stay.
    fn reset(&mut self) {
        self.transaction = None;
        self.watches.clear();
        self.subscription = None;
        self.is_stale_allowed = false;
        self.replies.protocol = Default::default();
        self.replies.silence = Default::default();
        self.client.facts().name.clear();
        self.reply(Reply::Simple("RESET"));
    }
}

/// The fencing token of a key's last change: generation and LSN as 32 hex digits, so that tokens
/// of one cluster compare as strings. Nil where there is no key.
pub fn token(revisions: Reply, generation: u64) -> Reply {
    match revisions {
        Reply::Array(revisions) => match revisions.first() {
            Some(Reply::Int(revision)) if *revision > 0 => {
                text(format!("{generation:016x}{revision:016x}"))
            }
            _ => Reply::Nil,
        },
        refusal => refusal,
    }
}
