//! Every setting: name, kind, default, limit, one sentence; validated into types.
//!
//! One table makes the struct, the flags, the environment's names, the example file and the
//! reference in `docs/operations.md`. A value is looked for as flag, then in the environment,
//! then in the file, then here.

mod check;
mod load;
mod render;
pub mod value;

pub use check::{check, voters_problem};
pub use load::{Error, Loaded, Origin, Sources};
pub use render::{example, reference};
pub use value::{HostPort, LogFormat, LogLevel, MaxMemory, Name, Peer, Place, Value};

use crate::limits;
pub use crate::replication::config::MemberRole;
use bytesize::ByteSize;
use standfast_snapshot::Recipient;
use standfast_snapshot::retention::Policy;
use standfast_wal::{ClusterId, NodeId};
use std::path::PathBuf;
use std::time::Duration;

/// One row of the table, without its type.
pub struct Setting {
    pub group: &'static str,
    /// The key in the file. The flag is `--` with `-` for `_`; the variable is `STANDFAST_` with
    /// upper case.
    pub name: &'static str,
    /// What a person should write.
    pub kind: &'static str,
    pub default: &'static str,
    /// The least and the most, as text; empty where only the kind limits.
    pub limit: [&'static str; 2],
    pub about: &'static str,
    /// Reads text into the setting's field; an error says what was expected.
    set: fn(&mut Config, &str) -> Result<(), String>,
    show: fn(&Config) -> String,
    toml: fn(&Config) -> String,
}

impl Setting {
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    pub fn variable(&self) -> String {
        format!("STANDFAST_{}", self.name.to_ascii_uppercase())
    }

    /// The value in `config`, as text that the flag takes back.
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    fn limit_text(&self) -> String {
        match self.limit {
            ["", ""] => String::new(),
            [least, ""] => format!("at least {least}"),
            ["", most] => format!("at most {most}"),
            [least, most] => format!("{least} to {most}"),
        }
    }
}

fn set<V: Value>(
    field: &mut V,
    text: &str,
    in_limits: impl Fn(&V, fn(&str) -> V) -> bool,
    limit: String,
) -> Result<(), String> {
    let value = V::parse(text).ok_or_else(|| format!("expected {}", V::KIND))?;
    if !in_limits(&value, |text| {
        V::parse(text).expect("the table's own limits are values")
    }) {
        return Err(format!("must be {limit}"));
    }
    *field = value;
    Ok(())
}

/// `name: Type = "default" in "least".."most", "sentence";`
macro_rules! settings {
    ($($group:literal { $(
        $name:ident: $type:ty = $default:literal $(in $least:literal to $most:literal)?,
            $about:literal;
    )* })*) => {
        /// One node's settings. What each is for stands in `SETTINGS`.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Config { $($(
            #[doc = $about]
            pub $name: $type,
        )*)* }

        impl Default for Config {
            fn default() -> Config {
                Config { $($(
                    $name: Value::parse($default).expect("the table's own defaults are values"),
                )*)* }
            }
        }

        /// The table of all settings, in the order in which people read them.
        pub static SETTINGS: &[Setting] = &[ $($(
            Setting {
                group: $group,
                name: stringify!($name),
                kind: <$type as Value>::KIND,
                default: $default,
                limit: settings!(@limit $($least to $most)?),
                about: $about,
                set: |config, text| {
                    let limit = find(stringify!($name)).map(Setting::limit_text);
                    set(
                        &mut config.$name,
                        text,
                        settings!(@in $($least to $most)?),
                        limit.unwrap_or_default(),
                    )
                },
                show: |config| Value::show(&config.$name),
                toml: |config| Value::toml(&config.$name),
            },
        )*)* ];
    };
    (@limit) => { ["", ""] };
    (@limit $least:literal to $most:literal) => { [$least, $most] };
    (@in) => { |_, _| true };
    (@in $least:literal to $most:literal) => {
        |value, parse| {
            ($least.is_empty() || *value >= parse($least))
                && ($most.is_empty() || *value <= parse($most))
        }
    };
}

settings! {
    "Who this node is" {
        node: NodeId = "0" in "0" to "65535",
            "This node's number, unique in the cluster and never given to another machine.";
        cluster: Name = "standfast",
            "The cluster's name: what Sentinel clients ask for and what is typed to confirm force.";
        cluster_id: Option<ClusterId> = "",
            "The cluster's random identity as `init` prints it: with it and peers, a node whose \
             disk was lost joins again by itself.";
        data_dir: PathBuf = "standfast-data",
            "The directory that holds everything this node must not lose; one process at a time.";
        role: MemberRole = "data",
            "What this node is for when it joins: data, asynchronous (a DR copy, never votes) or \
             witness (votes, holds no data).";
        site: Name = "main",
            "Where this node stands; shown by status.";
        priority: u32 = "100" in "0" to "1000",
            "Lower is preferred as the next primary, among nodes that hold everything.";
    }
    "Addresses" {
        client_listen: HostPort = "127.0.0.1:7600",
            "Where clients connect (RESP).";
        client_advertised: Option<HostPort> = "",
            "The client address that clients and other nodes are told; empty means client_listen.";
        peer_listen: HostPort = "127.0.0.1:7601",
            "Where other nodes connect.";
        peer_advertised: Option<HostPort> = "",
            "The peer address that other nodes are told; empty means peer_listen.";
        http_listen: HostPort = "127.0.0.1:7602",
            "Where metrics, health and status are served over HTTP.";
        http_advertised: Option<HostPort> = "",
            "The HTTP address that status shows; empty means http_listen.";
        peers: Vec<Peer> = "",
            "The other nodes, by their peer addresses: how this node finds its cluster after a \
             start.";
    }
    "Replication" {
        heartbeat_interval: Duration = "50ms" in "5ms" to "5s",
            "How often the primary sends a heartbeat to every member.";
        failover_timeout: Duration = "500ms" in "50ms" to "60s",
            "How long a node hears nothing from the primary before it suspects it.";
        sync_timeout: Duration = "1s" in "50ms" to "60s",
            "How long writes wait for a synchronous backup before max-availability takes it out \
             of the sync set.";
        degraded_timeout: Duration = "2s" in "100ms" to "60s",
            "How long the primary's own disk may stall before it stops accepting writes and \
             heartbeats.";
        write_timeout: Duration = "5s" in "100ms" to "10m",
            "How long an ordered write waits for its acknowledgement before it is answered \
             UNKNOWN.";
        join_timeout: Duration = "30s" in "1s" to "1h",
            "How long a joining backup may slow down commits before it is dropped again.";
        hold_down: Duration = "1s" in "0" to "10m",
            "How long a backup that was removed by timeout waits to be put back; doubles with \
             every removal.";
        hold_down_max: Duration = "30s" in "0" to "1h",
            "Where the doubling of hold_down ends.";
        max_staleness: Duration = "5s" in "100ms" to "1h",
            "How old a read on a backup may be (READONLY connections); beyond it the read is \
             refused.";
        max_clock_step: Duration = "1s" in "10ms" to "1h",
            "How far a new primary's clock may be ahead of the median of its peers before it \
             starts from the median.";
        attest_interval: Duration = "1s" in "10ms" to "1h",
            "How often the log names the digest of the state, while there are writes.";
    }
    "Loss budget (max-performance)" {
        max_unreplicated: u64 = "0",
            "How many commands may be acknowledged that no backup holds; 0 is no limit.";
        max_unreplicated_bytes: ByteSize = "0B",
            "How many bytes of log may be acknowledged that no backup holds; 0B is no limit.";
        max_unreplicated_age: Duration = "0",
            "How old an acknowledged write may get that no backup holds; 0 is no limit.";
        site_compression: bool = "true",
            "Compress what is sent to members of another `site`.";
        site_limit: ByteSize = "0B" in "0B" to "",
            "Bytes a second that this node sends at most to each asynchronous member of another \
             `site`; 0B is no limit.";
    }
    "Log and snapshots" {
        wal_segment: ByteSize = "64MiB" in "1MiB" to "1GiB",
            "Size of one file of the write-ahead log; it is filled with zeros ahead of time.";
        wal_keep: ByteSize = "16GiB" in "0B" to "",
            "How much log is kept for members that lag; beyond it they catch up by a snapshot.";
        snapshot_interval: Duration = "15m" in "0" to "7days",
            "How often a snapshot is taken while there are writes; 0 is never by time.";
        snapshot_after: ByteSize = "1GiB" in "0B" to "",
            "A snapshot is taken once this much log lies behind the newest one; 0B is never by \
             size.";
        backup_dir: Option<PathBuf> = "",
            "Where `backup now` puts its files on this node when no directory is given; empty \
             means backups in data_dir.";
    }
    "Archive" {
        archive: Option<Place> = "",
            "Where snapshots and the committed log are archived all the time, off-site; the same \
             on every node; empty is nowhere.";
        archive_interval: Duration = "1s" in "10ms" to "1h",
            "How often a piece of log is closed and archived: what a lost site costs at most.";
        archive_recipients: Vec<Recipient> = "",
            "Whom the archive and `backup now` are encrypted to, the same on every node; empty is \
             nobody, and plain. No node needs, or should have, the keys that open it.";
        verify_interval: Duration = "1day" in "0" to "365days",
            "How often the node that archives reads all of the archive and proves it; 0 is never.";
        archive_keep_for: Duration = "0" in "0" to "36500days",
            "How far back every point stays restorable from the archive; what only older ones need \
             is removed behind each proof of all of it that found nothing wrong. 0 is for ever.";
        archive_keep_full: u32 = "2" in "1" to "1000000",
            "How many snapshots of the newest history stay at least, where archive_keep_for removes \
             any; of an older one, as long as it had a command within that time.";
        archive_required: bool = "false",
            "Refuse writes rather than drop log that the archive lacks, once wal_keep is passed or \
             the disk is 80 % full.";
    }
    "Drills" {
        rto_target: Duration = "0" in "0" to "365days",
            "How long a drill may take until it is served again: a longer one has failed; 0 is no \
             target.";
        rpo_target: Duration = "0" in "0" to "365days",
            "How much time of commits a restored backup may lack: a drill that lacks more has \
             failed; 0 is no target.";
        drill_interval: Duration = "0" in "0" to "365days",
            "How often the node that archives tries a restore beside the cluster, proves it and \
             keeps the report in the archive, too; 0 is never. It takes memory for the state \
             twice.";
        drill_dir: Option<PathBuf> = "",
            "Where such a drill makes its scratch directory, which takes the room of the state; \
             empty is the system's directory for temporary files.";
        drill_identity: Option<PathBuf> = "",
            "The age identity file with which such a drill, and `drill restore --config`, opens an \
             encrypted archive.";
        drill_timeout: Duration = "1h" in "1s" to "7days",
            "How long such a drill may take; then it is ended and none was done.";
        drill_key: Option<PathBuf> = "",
            "The key that signs the reports of drills (`standfast drill keygen`); empty leaves \
             them unsigned.";
        drill_reports: PathBuf = "standfast-drills",
            "The directory that keeps the reports of drills.";
    }
    "Memory" {
        max_memory: MaxMemory = "80%",
            "Writes are refused with OOM once the state takes this much; a share is of the memory \
             this process may use.";
        once_ttl: Duration = "24h" in "1m" to "90days",
            "How long the reply of a ONCE token is remembered.";
        once_max: u64 = "1000000" in "0" to "1000000000",
            "How many ONCE tokens are remembered at a time; more are refused, none is forgotten \
             early.";
    }
    "Clients" {
        max_clients: u32 = "10000" in "1" to "1000000",
            "Connections at a time; more are told so and closed.";
        idle_timeout: Duration = "0" in "0" to "30days",
            "A connection that sends nothing for so long is closed; 0 is never.";
        output_buffer: ByteSize = "64MiB" in "1MiB" to "4GiB",
            "Unread replies of one connection; a client that lets more pile up is closed.";
        max_bulk: ByteSize = "16MiB" in "1KiB" to "16MiB",
            "The largest single argument of a command.";
        max_request: ByteSize = "20MiB" in "64KiB" to "20MiB",
            "The largest command or MULTI, all arguments together.";
    }
    "Logging" {
        log_format: LogFormat = "text",
            "What log lines on standard error look like.";
        log_level: LogLevel = "info",
            "Which log lines are printed: a level, or levels by module.";
    }
}

/// The row of a setting by its key.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Config {
    /// The client address that others are told.
    pub fn client_address(&self) -> &HostPort {
        self.client_advertised
            .as_ref()
            .unwrap_or(&self.client_listen)
    }

    /// The peer address that others are told.
    pub fn peer_address(&self) -> &HostPort {
        self.peer_advertised.as_ref().unwrap_or(&self.peer_listen)
    }

    /// The HTTP address that others are told.
    pub fn http_address(&self) -> &HostPort {
        self.http_advertised.as_ref().unwrap_or(&self.http_listen)
    }

    /// The three addresses as the register holds them.
    pub fn addresses(&self) -> crate::replication::config::Addresses {
        crate::replication::config::Addresses {
            client: self.client_address().to_string(),
            peer: self.peer_address().to_string(),
            http: self.http_address().to_string(),
        }
    }

    /// Where `backup now` puts its files when it is not told.
    pub fn backup_dir(&self) -> PathBuf {
        self.backup_dir
            .clone()
            .unwrap_or_else(|| self.data_dir.join("backups"))
    }

    /// What of the archive is to be kept; `None`: everything.
    pub fn archive_policy(&self) -> Option<Policy> {
        (!self.archive_keep_for.is_zero()).then(|| Policy {
            keep_full: self.archive_keep_full as usize,
            keep_for_ns: u64::try_from(self.archive_keep_for.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    /// `max_memory` in bytes, on this machine and in this container.
    pub fn max_memory_bytes(&self) -> u64 {
        self.max_memory.bytes(available_memory())
    }

    /// This configuration as a file that loads to the same.
    pub fn to_toml(&self) -> String {
        render::file(self)
    }
}

/// The memory that this process may use: the machine's, or its control group's limit if lower.
fn available_memory() -> u64 {
    let system = rustix::system::sysinfo();
    let machine = system.totalram.saturating_mul(u64::from(system.mem_unit));
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    limit.map_or(machine, |limit| limit.min(machine))
}

// The table writes the bounds as text; they are the limits' own numbers.
const _: () = assert!(limits::NODE_ID_MAX == 65_535);
const _: () = assert!(limits::BULK_BYTES_MAX == 16 << 20);
const _: () = assert!(limits::REQUEST_BYTES_MAX == 20 << 20);
const _: () = assert!(limits::WAL_SEGMENT_BYTES_MIN == 1 << 20);

#[cfg(test)]
mod tests;
