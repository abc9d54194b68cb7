//! What a node is filled with, before it is measured how it starts or is restored.

use super::ours;
use anyhow::{Context, ensure};
use rig::cluster::PATIENCE;
use rig::{Cluster, Conn, Node, Value, until};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, clap::Args)]
pub struct Contents {
    /// Keys of 16 bytes with values of 100.
    #[arg(long, default_value_t = 0)]
    keys: u64,
    #[arg(long, default_value_t = 0)]
    accounts: u64,
    /// Transfers between them.
    #[arg(long, default_value_t = 0)]
    transfers: u64,
    /// Commands behind all that: new keys.
    #[arg(long, default_value_t = 500_000)]
    commands: u64,
}

/// The keys of `commands` count from here, so that none of them was there before.
const COMMANDS_FROM: u64 = 1_000_000_000_000;

impl Contents {
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.items() > 0,
            "give --keys, or --accounts and --transfers"
        );
        ensure!(
            self.transfers == 0 || self.accounts > 1,
            "transfers are between --accounts"
        );
        ensure!(
            self.commands > 0,
            "the last of the --commands is what the first GET asks for"
        );
        Ok(())
    }

    /// Keys, accounts and transfers together.
    pub fn items(&self) -> u64 {
        self.keys + self.accounts + self.transfers
    }

    pub fn line(&self) -> String {
        let Contents {
            keys,
            accounts,
            transfers,
            commands,
        } = self;
        format!("{keys} keys, {accounts} accounts, {transfers} transfers, then {commands} commands")
    }

    pub fn json(&self) -> Json {
        json!({
            "keys": self.keys, "accounts": self.accounts, "transfers": self.transfers,
            "commands": self.commands,
        })
    }

    pub fn fill(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let target = ours::target(cluster);
        if self.keys > 0 {
            ours::set_keys(&target, 0, self.keys)?;
        }
        if self.accounts > 0 {
            ours::open_accounts(&target, self.accounts)?;
        }
        if self.transfers > 0 {
            ours::make_transfers(&target, self.accounts, self.transfers)?;
        }
        Ok(())
    }

    /// The commands: the last key is there only where the log was read to its end.
    pub fn write_commands(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let end = COMMANDS_FROM + self.commands;
        ours::set_keys(&ours::target(cluster), COMMANDS_FROM, end).map(drop)
    }

    /// The keys before the commands, and theirs.
    pub fn key_ranges(&self) -> [(u64, u64); 2] {
        [
            (0, self.keys),
            (COMMANDS_FROM, COMMANDS_FROM + self.commands),
        ]
    }

    /// Nothing but keys.
    pub fn is_keys_only(&self) -> bool {
        self.accounts == 0 && self.transfers == 0
    }

    pub fn last_key(&self) -> String {
        format!("{:016}", COMMANDS_FROM + self.commands - 1)
    }

    /// Asks again and again until the last key is answered.
    pub fn wait_served(&self, node: &Node) {
        let key = self.last_key();
        until("the last key is answered", 10 * PATIENCE, || {
            let mut conn = Conn::open(&node.client, PATIENCE).ok()?;
            let answer = conn.call(&["GET", &key]).ok()?;
            matches!(answer, Value::Bulk(_)).then_some(())
        });
    }
}

/// Asks for a snapshot and waits until a new one is there.
pub fn take_snapshot(cluster: &Cluster, node: &Node) -> anyhow::Result<Duration> {
    let mut conn = cluster.connect(node);
    // LASTSAVE counts whole seconds.
    let before = conn.call(&["LASTSAVE"])?.number();
    until("the clock's second ends", PATIENCE, || {
        let now = conn.call(&["TIME"]).ok()?.array();
        (now.first()?.number() > before).then_some(())
    });
    let started = Instant::now();
    let reply = conn.call(&["BGSAVE"])?;
    ensure!(reply.refusal().is_none(), "BGSAVE: {reply:?}");
    until("the snapshot is finished", 10 * PATIENCE, || {
        (conn.call(&["LASTSAVE"]).ok()?.number() > before).then_some(())
    });
    Ok(started.elapsed())
}

/// Reads every file once, so that it is in the page cache; how many bytes there are.
pub fn warm(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).context("the directory")? {
        let path = entry?.path();
        bytes += if path.is_dir() {
            warm(&path)?
        } else {
            std::io::copy(&mut std::fs::File::open(&path)?, &mut std::io::sink())?
        };
    }
    Ok(bytes)
}
