//! The drawn settings of one run: timeouts, buffers, intervals; the same on all of its nodes.

use standfast::node::engine::EngineSettings;
use standfast::replication::config::MemberRole;
use standfast::replication::{Introduction, Settings};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a simulated node is started with, besides its disks.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub core: Settings,
    /// `pid` and `introduction` are each node's own: `node` fills them in.
    pub engine: EngineSettings,
    pub segment_bytes: u64,
    pub reserve_bytes: u64,
    /// Bytes of one piece of a snapshot on its way to a peer.
    pub piece_bytes: usize,
}

impl Tuning {
    /// Small buffers and the production's own times.
    pub fn small() -> Tuning {
        let core = Settings {
            tail_bytes: 16 << 10,
            window_bytes: 8 << 10,
            message_bytes: 2 << 10,
            join_bytes: 4 << 10,
            ..Settings::default()
        };
        let engine = EngineSettings {
            write_timeout: Duration::from_secs(5),
            max_staleness: Duration::from_secs(5),
            max_clock_step: Duration::from_secs(1),
            attest_interval: Duration::from_millis(200),
            degraded_timeout: Duration::from_secs(2),
            snapshot_interval: Some(Duration::from_secs(3)),
            snapshot_after: None,
            wal_keep: 0,
            max_memory: 0,
            seeds: BTreeMap::new(),
            started_ms: 0,
            pid: 0,
            quarantined: false,
            introduction: introduction(MemberRole::Data),
        };
        Tuning {
            core,
            engine,
            segment_bytes: 64 << 10,
            reserve_bytes: 4 << 10,
            piece_bytes: 1000,
        }
    }
}

/// How a node that only has its role to tell describes itself.
pub fn introduction(role: MemberRole) -> Introduction {
    Introduction {
        role,
        voter: role != MemberRole::Asynchronous,
        site: "sim".to_string(),
        priority: 100,
        addresses: Default::default(),
        asked: false,
    }
}
