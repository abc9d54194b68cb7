//! The times and bounds of replication; `config` fills them in, tests choose their own.

use std::time::Duration;

/// What the primary may have ordered beyond what a backup holds, in max-performance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct LossBudget {
    /// Commands that no backup holds yet.
    pub commands: Option<u64>,
    /// Bytes of records that no backup holds yet.
    pub bytes: Option<u64>,
    /// Age of the oldest record that no backup holds yet.
    pub age: Option<Duration>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// Heartbeats of the primary, and their answers.
    pub heartbeat_interval: Duration,
    /// Silence after which a primary is suspected, and after which a primary calls itself deaf.
    pub failover_timeout: Duration,
    /// How long a write waits for a synchronous backup before it is taken out of the sync set.
    pub sync_timeout: Duration,
    /// How long the primary's own disk may stall before it stops accepting writes.
    pub degraded_timeout: Duration,
    /// How long a joining member may hold up commits before it is dropped again.
    pub join_timeout: Duration,
    /// How long a switchover may take before the old primary goes on.
    pub switchover_timeout: Duration,
    /// How long a candidate waits for more fence answers than it needs.
    pub fence_grace: Duration,
    /// Candidates of lower preference wait this much longer each.
    pub stagger: Duration,
    /// An attempt at promotion that got nowhere is given up.
    pub attempt_timeout: Duration,
    /// First wait before a removed member is put back; doubles up to `hold_down_max`.
    pub hold_down: Duration,
    pub hold_down_max: Duration,
    /// Without a removal for this long, the wait is the first one again.
    pub hold_down_reset: Duration,
    /// A new primary's clock further ahead of its peers' median than this starts from the median.
    pub max_clock_step: Duration,
    /// Bytes sent to one peer and not matched yet.
    pub window_bytes: u64,
    /// Bytes of records in one Append or Fetched.
    pub message_bytes: u64,
    /// Bytes of ordered and uncommitted records, beyond which `admit` says Busy.
    pub uncommitted_bytes: u64,
    /// Bytes of recent records kept in memory for peers and for applying.
    pub tail_bytes: u64,
    /// A peer this near to the primary's end may join the sync set.
    pub join_bytes: u64,
    pub loss_budget: LossBudget,
}

impl Default for Settings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Settings {
            heartbeat_interval: ms(50),
            failover_timeout: ms(500),
            sync_timeout: ms(1000),
            degraded_timeout: ms(3000),
            join_timeout: ms(2000),
            switchover_timeout: ms(2000),
            fence_grace: ms(100),
            stagger: ms(40),
            attempt_timeout: ms(1000),
            hold_down: ms(1000),
            hold_down_max: ms(30_000),
            hold_down_reset: ms(300_000),
            max_clock_step: ms(500),
            window_bytes: 16 << 20,
            message_bytes: 1 << 20,
            uncommitted_bytes: 64 << 20,
            tail_bytes: 64 << 20,
            join_bytes: 4 << 20,
            loss_budget: LossBudget::default(),
        }
    }
}
