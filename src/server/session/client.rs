//! CLIENT and HELLO: what a connection says of itself and of others.

use super::Session;
use super::pubsub::Subscription;
use super::replies::Silence;
use super::transaction::Transaction;
use crate::limits;
use crate::node::client::SessionId;
use crate::node::view::Role;
use crate::server::command::Spec;
use crate::server::operator::positive;
use crate::server::resp::Protocol;
use crate::server::{Client, REDIS_VERSION, text};
use crate::state::Reply;
use bytes::Bytes;
use std::sync::Arc;

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
                           default user. Are you sure your configuration is correct?";

impl Session {
    pub(super) fn client_command(&mut self, spec: &Spec, args: &[Bytes]) {
        let words: Vec<String> = args
            .iter()
            .skip(1)
            .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let reply = match words[..] {
            ["id"] => Reply::Int(i64::try_from(self.client.id.0).unwrap_or(i64::MAX)),
            ["getname"] => match self.client.facts().name.as_str() {
                "" => Reply::Nil,
                name => text(name),
            },
            ["setname", _] => self.set_name(&args[2]),
            ["setinfo", attribute, _] => self.set_info(attribute, &args[3]),
            ["info"] => {
                self.tell_facts();
                text(self.client.line() + "\n")
            }
            ["list", ref filter @ ..] => {
                self.tell_facts();
                self.list(filter)
            }
            ["kill", ref filter @ ..] => self.kill(filter),
            ["no-evict" | "no-touch", "on" | "off"] => Reply::Ok,
            ["reply", "on"] => {
                self.replies.silence = Silence::None;
                Reply::Ok
            }
            ["reply", "off"] => {
                self.replies.silence = Silence::All;
                return;
            }
            ["reply", "skip"] => {
                if self.replies.silence == Silence::None {
                    self.replies.silence = Silence::Next;
                }
                return;
            }
            ["no-evict" | "no-touch" | "reply", ..] => Reply::error("ERR syntax error"),
            ["help"] => Reply::Array(vec![text(spec.summary)]),
            _ => return self.wrong_subcommand(spec, args),
        };
        self.reply(reply);
    }

    /// What CLIENT LIST shows, once per read.
    pub(super) fn tell_facts(&mut self) {
        let mut facts = self.client.facts();
        facts.active = self.active;
        facts.command = self.batch.last_command;
        facts.resp3 = self.replies.protocol == Protocol::Resp3;
        facts.read_only = self.is_stale_allowed;
        facts.queued = self.transaction.as_ref().map(Transaction::len);
        (facts.channels, facts.patterns) = self
            .subscription
            .as_ref()
            .map_or((0, 0), Subscription::counts);
    }

    /// Who asks, for operator records: the connection's name and address.
    pub(super) fn who(&self) -> String {
        let name = self.client.facts().name.clone();
        format!("{name}@{}", self.client.address)
    }

    /// The row of a command that is answered here; for replies that name it.
    pub(super) fn wrong_subcommand(&mut self, spec: &Spec, args: &[Bytes]) {
        let word = args
            .get(1)
            .map(|word| String::from_utf8_lossy(word))
            .unwrap_or_default();
        self.reply(Reply::error(format!(
            "ERR unknown subcommand or wrong number of arguments for '{word}'. Try {} HELP.",
            spec.name.to_ascii_uppercase()
        )));
    }

    fn set_name(&mut self, name: &Bytes) -> Reply {
        match printable(name) {
            Some(name) => {
                self.client.facts().name = name.to_string();
                Reply::Ok
            }
            None => Reply::error(BAD_NAME),
        }
    }

    fn set_info(&mut self, attribute: &str, value: &Bytes) -> Reply {
        let Some(value) = printable(value) else {
            return Reply::error(format!(
                "ERR {attribute} cannot contain spaces, newlines or special characters."
            ));
        };
        let mut facts = self.client.facts();
        match attribute {
            "lib-name" => facts.library = value.to_string(),
            "lib-ver" => facts.library_version = value.to_string(),
            _ => return Reply::error(format!("ERR Unrecognized option '{attribute}'")),
        }
        Reply::Ok
    }

    fn list(&self, filter: &[&str]) -> Reply {
        let is_listed: Box<dyn Fn(&Client) -> bool> = match filter {
            [] | ["type", "normal"] => Box::new(|_| true),
            ["type", "pubsub"] => Box::new(Client::is_subscribed),
            ["type", "master" | "replica" | "slave"] => Box::new(|_| false),
            ["id", ids @ ..] if !ids.is_empty() => {
                let ids: Vec<u64> = ids.iter().filter_map(|id| id.parse().ok()).collect();
                Box::new(move |client| ids.contains(&client.id.0))
            }
            _ => return Reply::error("ERR syntax error"),
        };
        let mut lines = String::new();
        for client in self
            .front
            .clients
            .all()
            .iter()
            .filter(|client| is_listed(client))
        {
            lines += &client.line();
            lines.push('\n');
        }
        text(lines)
    }

    /// `CLIENT KILL address` in the old form, filters in the new.
    fn kill(&mut self, filter: &[&str]) -> Reply {
        let all = self.front.clients.all();
        if let [address] = filter {
            let found = all
                .iter()
                .find(|client| client.address.to_string() == *address);
            return match found {
                Some(client) => {
                    client.kill();
                    Reply::Ok
                }
                None => Reply::error("ERR No such client"),
            };
        }
        let (mut chosen, mut skips_me): (Vec<&Arc<Client>>, bool) = (all.iter().collect(), true);
        if filter.is_empty() {
            return Reply::error("ERR syntax error");
        }
        for pair in filter.chunks(2) {
            match pair {
                ["id", id] => match positive(id.as_bytes()) {
                    Ok(id) => chosen.retain(|client| client.id == SessionId(id)),
                    Err(_) => return Reply::error("ERR client-id should be greater than 0"),
                },
                ["addr", address] => {
                    chosen.retain(|client| client.address.to_string() == *address);
                }
                ["laddr", address] => chosen.retain(|client| client.local.to_string() == *address),
                ["type", "normal"] => chosen.retain(|client| !client.is_subscribed()),
                ["type", "pubsub"] => chosen.retain(|client| client.is_subscribed()),
                ["user", "default"] => {}
                ["skipme", "yes"] => skips_me = true,
                ["skipme", "no"] => skips_me = false,
                _ => return Reply::error("ERR syntax error"),
            }
        }
        if skips_me {
            chosen.retain(|client| client.id != self.client.id);
        }
        chosen.iter().for_each(|client| client.kill());
        Reply::Int(i64::try_from(chosen.len()).unwrap_or(i64::MAX))
    }

    /// `AUTH [username] password`: there are no users yet, so only the default one needs none.
    pub(super) fn auth(&mut self, args: &[Bytes]) {
        let reply = match args {
            [_, _] => Reply::error(NO_PASSWORD),
            [_, user, _] => match is_default(user) {
                true => Reply::Ok,
                false => wrong_password(),
            },
            _ => Reply::error("ERR syntax error"),
        };
        self.reply(reply);
    }

    /// HELLO [version [AUTH user password] [SETNAME name]]
    pub(super) fn hello(&mut self, args: &[Bytes]) {
        let mut protocol = self.protocol();
        if let Some(version) = args.get(1) {
            protocol = match &**version {
                b"2" => Protocol::Resp2,
                b"3" => Protocol::Resp3,
                _ if positive(version).is_err() => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return self.reply(Reply::error(text));
                }
                _ => return self.reply(Reply::error("NOPROTO unsupported protocol version")),
            };
        }
        let mut rest = args.get(2..).unwrap_or_default();
        let mut name = None;
        loop {
            rest = match rest {
                [] => break,
                [word, user, _, rest @ ..] if word.eq_ignore_ascii_case(b"auth") => {
                    if !is_default(user) {
                        return self.reply(wrong_password());
                    }
                    rest
                }
                [word, value, rest @ ..] if word.eq_ignore_ascii_case(b"setname") => {
                    if printable(value).is_none() {
                        return self.reply(Reply::error(BAD_NAME));
                    }
                    name = Some(value);
                    rest
                }
                [word, ..] => {
                    let word = String::from_utf8_lossy(word);
                    let text = format!("ERR Syntax error in HELLO option '{word}'");
                    return self.reply(Reply::error(text));
                }
            };
        }
        if let Some(name) = name {
            self.set_name(name);
        }
        self.replies.protocol = protocol;
        let role = self.front.handle.view().role;
        let pairs = [
            ("server", text("redis")),
            ("version", text(REDIS_VERSION)),
            (
                "proto",
                Reply::Int(if protocol == Protocol::Resp3 { 3 } else { 2 }),
            ),
            (
                "id",
                Reply::Int(i64::try_from(self.client.id.0).unwrap_or(i64::MAX)),
            ),
            (
                "mode",
                text(if role == Role::Witness {
                    "sentinel"
                } else {
                    "standalone"
                }),
            ),
            (
                "role",
                text(if role == Role::Primary {
                    "master"
                } else {
                    "replica"
                }),
            ),
            ("modules", Reply::Array(Vec::new())),
        ];
        let pairs = pairs
            .into_iter()
            .map(|(name, value)| (text(name), value))
            .collect();
        self.reply(Reply::Map(pairs));
    }
}

fn is_default(user: &[u8]) -> bool {
    user == b"default"
}

fn wrong_password() -> Reply {
    Reply::error("WRONGPASS invalid username-password pair or user is disabled.")
}

/// A name as CLIENT LIST can show it; empty is allowed and takes the name away.
fn printable(name: &Bytes) -> Option<&str> {
    let is_short = name.len() <= limits::CLIENT_NAME_BYTES_MAX;
    let is_plain = name.iter().all(|byte| matches!(byte, b'!'..=b'~'));
    (is_short && is_plain).then(|| std::str::from_utf8(name).ok())?
}
