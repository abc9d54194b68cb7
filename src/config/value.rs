//! How each kind of setting is read from text and written back: durations, sizes, addresses.

use crate::limits;
use crate::replication::config::MemberRole;
use bytesize::ByteSize;
use standfast_snapshot::Recipient;
use standfast_wal::{ClusterId, NodeId};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A type that a setting can have. Flags, the environment and the file all give text.
pub trait Value: Sized + PartialEq {
    /// What a person should write: shown in errors and in the documents.
    const KIND: &'static str;
    /// `None`: refused; the caller says what was expected.
    fn parse(text: &str) -> Option<Self>;
    /// As it is written in flags and the environment; `parse` takes it back.
    fn show(&self) -> String;
    /// As it is written in the file.
    fn toml(&self) -> String {
        toml::Value::String(self.show()).to_string()
    }
}

/// `host:port`. The host may be a name, an IPv4 address or an IPv6 address in brackets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort(String);

impl HostPort {
    pub fn host(&self) -> &str {
        let (host, _) = self.0.rsplit_once(':').expect("checked when it was made");
        host
    }

    pub fn port(&self) -> u16 {
        let (_, port) = self.0.rsplit_once(':').expect("checked when it was made");
        port.parse().expect("checked when it was made")
    }

    /// The same host with another port.
    pub fn with_port(&self, port: u16) -> HostPort {
        HostPort(format!("{}:{port}", self.host()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an address to listen on everywhere, which nobody can dial.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host(), "0.0.0.0" | "[::]" | "*")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for HostPort {
    const KIND: &'static str = "host:port";
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let inner = if bracketed {
            &host[1..host.len() - 1]
        } else {
            host
        };
        let named = !bracketed
            && !inner.is_empty()
            && inner
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b));
        let numbered = bracketed && inner.parse::<std::net::Ipv6Addr>().is_ok();
        let fits = text.len() <= limits::ADDRESS_BYTES_MAX;
        (fits && (named || numbered)).then(|| HostPort(text.to_owned()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Another node of the cluster: where to find it, and what it is planned to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub id: NodeId,
    /// Its peer address, not its client address.
    pub peer: HostPort,
    pub role: MemberRole,
}

impl Value for Peer {
    const KIND: &'static str = "id@host:port, with /witness or /asynchronous behind it";
    fn parse(text: &str) -> Option<Self> {
        let (id, rest) = text.split_once('@')?;
        let (address, role) = match rest.split_once('/') {
            Some((address, role)) => (address, MemberRole::parse(role)?),
            None => (rest, MemberRole::Data),
        };
        Some(Peer {
            id: NodeId::parse(id)?,
            peer: HostPort::parse(address)?,
            role,
        })
    }
    fn show(&self) -> String {
        let role = match self.role {
            MemberRole::Data => String::new(),
            role => format!("/{}", role.show()),
        };
        format!("{}@{}{role}", self.id, self.peer)
    }
}

/// The most memory that the state may take.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum MaxMemory {
    /// Per cent of the memory that this process may use.
    Share(u8),
    Bytes(ByteSize),
}

impl MaxMemory {
    /// In bytes, where the process may use `available` bytes.
    pub fn bytes(self, available: u64) -> u64 {
        match self {
            MaxMemory::Share(share) => available / 100 * u64::from(share),
            MaxMemory::Bytes(bytes) => bytes.as_u64(),
        }
    }
}

impl Value for MaxMemory {
    const KIND: &'static str = "size such as 8GiB, or share such as 80%";
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(share) => {
                let share = share.trim().parse().ok()?;
                (1..=100)
                    .contains(&share)
                    .then_some(MaxMemory::Share(share))
            }
            None => ByteSize::parse(text)
                .filter(|bytes| bytes.as_u64() > 0)
                .map(MaxMemory::Bytes),
        }
    }
    fn show(&self) -> String {
        match self {
            MaxMemory::Share(share) => format!("{share}%"),
            MaxMemory::Bytes(bytes) => bytes.show(),
        }
    }
}

/// The name of a cluster or a site: it is typed by people and stands in paths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for Name {
    const KIND: &'static str = "name of letters, digits, - and _, at most 64";
    fn parse(text: &str) -> Option<Self> {
        let ok = !text.is_empty()
            && text.len() <= limits::NAME_BYTES_MAX
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        ok.then(|| Name(text.to_owned()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where an archive lies: a directory, or the URL of an object store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place(String);

impl Place {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Place {
    const KIND: &'static str = "directory, file:///DIR, s3://BUCKET/PREFIX, gs://… or az://…";
    fn parse(text: &str) -> Option<Self> {
        let is_known = match text.split_once("://") {
            None => !text.is_empty(),
            Some(("file", path)) => path.starts_with('/'),
            // Nobody's password belongs into a file of settings.
            Some(("s3" | "gs" | "az", rest)) => !rest.is_empty() && !rest.contains('@'),
            Some(_) => false,
        };
        is_known.then(|| Place(text.to_owned()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Value for Recipient {
    const KIND: &'static str = "age1…, the public half of an age identity";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// What log lines look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Text,
    Json,
}

impl Value for LogFormat {
    const KIND: &'static str = "text or json";
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return None,
        })
    }
    fn show(&self) -> String {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
        .to_owned()
    }
}

/// Which log lines are printed: a level, or levels by module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLevel(pub String);

impl Value for LogLevel {
    const KIND: &'static str = "error, warn, info, debug or trace, or module=level,...";
    fn parse(text: &str) -> Option<Self> {
        let plain =
            |level: &str| matches!(level, "off" | "error" | "warn" | "info" | "debug" | "trace");
        let ok = text.split(',').all(|part| match part.split_once('=') {
            Some((module, level)) => !module.is_empty() && plain(level),
            None => plain(part),
        });
        ok.then(|| LogLevel(text.to_owned()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Value for MemberRole {
    const KIND: &'static str = "data, asynchronous or witness";
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "data" => MemberRole::Data,
            "asynchronous" => MemberRole::Asynchronous,
            "witness" => MemberRole::Witness,
            _ => return None,
        })
    }
    fn show(&self) -> String {
        match self {
            MemberRole::Data => "data",
            MemberRole::Asynchronous => "asynchronous",
            MemberRole::Witness => "witness",
        }
        .to_owned()
    }
}

impl Value for NodeId {
    const KIND: &'static str = "whole number";
    fn parse(text: &str) -> Option<Self> {
        let id = text.parse().ok().filter(|id| *id <= limits::NODE_ID_MAX)?;
        Some(NodeId(id))
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn toml(&self) -> String {
        self.show()
    }
}

impl Value for ClusterId {
    const KIND: &'static str = "32 hex digits";
    fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| text.parse().ok()).flatten()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const KIND: &'static str = "whole number";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn toml(&self) -> String {
        self.show()
    }
}

impl Value for u64 {
    const KIND: &'static str = "whole number";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn toml(&self) -> String {
        self.show()
    }
}

impl Value for Duration {
    const KIND: &'static str = "duration such as 50ms, 2s or 24h";
    fn parse(text: &str) -> Option<Self> {
        // Plain 0 is the one number that needs no unit.
        if text == "0" {
            return Some(Duration::ZERO);
        }
        humantime::parse_duration(text).ok()
    }
    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Value for ByteSize {
    const KIND: &'static str = "size such as 64KiB, 16MiB or 2GiB";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        let bytes = self.as_u64();
        let units = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        for (unit, name) in units {
            if bytes >= unit && bytes.is_multiple_of(unit) {
                return format!("{}{name}", bytes / unit);
            }
        }
        format!("{bytes}B")
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| PathBuf::from(text))
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// Empty text is `None`.
impl Value for bool {
    const KIND: &'static str = "true or false";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn toml(&self) -> String {
        self.to_string()
    }
}

impl<V: Value> Value for Option<V> {
    const KIND: &'static str = V::KIND;
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            Some(None)
        } else {
            V::parse(text).map(Some)
        }
    }
    fn show(&self) -> String {
        self.as_ref().map(V::show).unwrap_or_default()
    }
    fn toml(&self) -> String {
        self.as_ref()
            .map(V::toml)
            .unwrap_or_else(|| "\"\"".to_owned())
    }
}

/// Separated by commas in flags and the environment; an array in the file.
impl<V: Value> Value for Vec<V> {
    const KIND: &'static str = V::KIND;
    fn parse(text: &str) -> Option<Self> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(V::parse)
            .collect()
    }
    fn show(&self) -> String {
        self.iter().map(V::show).collect::<Vec<_>>().join(",")
    }
    fn toml(&self) -> String {
        let parts: Vec<_> = self.iter().map(V::toml).collect();
        format!("[{}]", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trips<V: Value + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let value = V::parse(text).unwrap_or_else(|| panic!("{text} is refused"));
            assert_eq!(V::parse(&value.show()).as_ref(), Some(&value), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        round_trips::<HostPort>(&["127.0.0.1:7600", "[::1]:7600", "db-1.example:1"]);
        round_trips::<Vec<Peer>>(&["", "1@a:2", "1@a:2, 2@[::1]:3/witness,3@c:4/asynchronous"]);
        round_trips::<MaxMemory>(&["80%", "8GiB", "1B"]);
        round_trips::<Duration>(&["0", "50ms", "1s", "24h", "1h 30m"]);
        round_trips::<ByteSize>(&["0B", "100B", "64KiB", "1.5MiB", "16GiB"]);
        round_trips::<LogLevel>(&["info", "warn,standfast::node=debug"]);
        round_trips::<Option<HostPort>>(&["", "a:1"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["", "a", "a:", ":1", "a:99999", "::1:7600", "a b:1", "[x]:1"] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
        for text in ["a:1", "1@a", "x@a:1", "1@a:1/boss", "70000@a:1"] {
            assert_eq!(Peer::parse(text), None, "{text}");
        }
        for text in ["0%", "101%", "0", "0B", "-1%"] {
            assert_eq!(MaxMemory::parse(text), None, "{text}");
        }
        assert_eq!(Duration::parse("50"), None, "a unit is needed");
        assert_eq!(Name::parse("a/b"), None);
        assert_eq!(LogLevel::parse("loud"), None);
    }
}
