//! `/metrics` in Prometheus's text format, from the view and the front's counters.

use crate::node::view::{Role, View};
use crate::server::{BUCKETS_US, Front, info};
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

/// The text, metric by metric; every name begins with `standfast_`.
#[derive(Default)]
struct Page(String);

impl Page {
    /// Begins a metric. Counters end in `_total`.
    fn metric(&mut self, name: &str, help: &str) -> &mut Page {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        self.typed(name, help, kind)
    }

    fn typed(&mut self, name: &str, help: &str, kind: &str) -> &mut Page {
        let _ = writeln!(
            self.0,
            "# HELP standfast_{name} {}",
            help.replace(['\n', '\\'], " ")
        );
        let _ = writeln!(self.0, "# TYPE standfast_{name} {kind}");
        self
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) -> &mut Page {
        let _ = write!(self.0, "standfast_{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
        self
    }

    fn plain(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, help).sample(name, &[], value);
    }
}

pub fn text(front: &Front, view: &View) -> String {
    let mut page = Page::default();
    node(&mut page, view);
    positions(&mut page, view);
    peers(&mut page, view);
    store(&mut page, view);
    clients(&mut page, front);
    latency(&mut page, front);
    page.metric(
        "alarm",
        "1 while something should be looked at; see status for the text",
    );
    for alarm in &view.alarms {
        page.sample("alarm", &[("name", alarm.name)], 1);
    }
    for metric in &view.metrics {
        page.plain(metric.name, metric.help, metric.value);
    }
    page.0
}

fn node(page: &mut Page, view: &View) {
    let node = view.node.to_string();
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("node", &node),
        ("cluster", &view.cluster_name),
    ];
    page.metric("info", "What runs here")
        .sample("info", &labels, 1);
    page.metric("role", "1 for the role this node has");
    let roles = [
        Role::Primary,
        Role::Backup,
        Role::Candidate,
        Role::Witness,
        Role::Loading,
    ];
    for role in roles {
        page.sample(
            "role",
            &[("role", role.name())],
            u8::from(role == view.role),
        );
    }
    page.plain(
        "serving",
        "1 while this node does what its role is for",
        u8::from(view.serving),
    );
    page.plain(
        "synchronous",
        "1 while this node is in the sync set",
        u8::from(view.is_synchronous(view.node)),
    );
    let uptime_ms = info::now_ms().saturating_sub(view.started_ms);
    page.plain(
        "uptime_seconds",
        "Since the process began",
        uptime_ms / 1_000,
    );
}

fn positions(page: &mut Page, view: &View) {
    page.plain(
        "generation",
        "Generation of this node's history",
        view.history.generation,
    );
    page.plain(
        "epoch",
        "Epoch of the primary that this node knows",
        view.epoch,
    );
    page.plain("written_lsn", "Last LSN in this node's log", view.written);
    page.plain("durable_lsn", "Last LSN that is durable here", view.durable);
    page.plain(
        "committed_lsn",
        "Last LSN known to be committed",
        view.committed,
    );
    page.plain("applied_lsn", "Last LSN that is applied here", view.applied);
    if let Some(staleness_ms) = view.staleness_ms {
        let seconds = seconds(staleness_ms);
        page.plain(
            "staleness_seconds",
            "How old this backup's data may be at most",
            seconds,
        );
    }
    if let Some(config) = view.config.as_deref() {
        page.plain(
            "sync_set_size",
            "Members of the sync set",
            config.sync_set.len(),
        );
        page.plain(
            "acks_needed",
            "Copies a write must have",
            config.acks_needed,
        );
    }
}

fn peers(page: &mut Page, view: &View) {
    type Gauge<'a> = (
        &'static str,
        &'static str,
        &'a dyn Fn(&crate::node::view::Peer) -> f64,
    );
    #[expect(
        clippy::cast_precision_loss,
        reason = "a metric is a double; 2^53 is far away"
    )]
    let gauges: [Gauge<'_>; 4] = [
        ("peer_up", "1 while the member is connected", &|peer| {
            f64::from(u8::from(peer.connected))
        }),
        (
            "peer_matched_lsn",
            "Last LSN the member holds durably",
            &|peer| peer.matched.0 as f64,
        ),
        (
            "peer_lag_bytes",
            "Log the member has still to acknowledge",
            &|peer| peer.lag_bytes as f64,
        ),
        (
            "peer_lag_seconds",
            "How far the member is behind",
            &|peer| seconds(peer.lag_ms),
        ),
    ];
    for (name, help, value) in gauges {
        page.metric(name, help);
        for (id, peer) in &view.peers {
            page.sample(name, &[("peer", &id.to_string())], value(peer));
        }
    }
}

fn store(page: &mut Page, view: &View) {
    page.plain("keys", "Keys held", view.keys);
    page.plain("accounts", "Accounts held", view.accounts);
    page.plain("transfers", "Transfers held", view.transfers);
    page.plain(
        "memory_used_bytes",
        "Memory the state takes",
        view.used_bytes,
    );
    page.plain(
        "memory_max_bytes",
        "Above it writes get OOM; 0: no limit",
        view.max_memory_bytes,
    );
    page.plain("log_bytes", "Log on this node's disk", view.log_bytes);
    page.plain(
        "disk_free_bytes",
        "Free on the log's disk",
        view.disk_free_bytes,
    );
    let (lsn, at_s) = view.snapshot.map_or((0, 0), |(lsn, at_s)| (lsn.0, at_s));
    page.plain(
        "snapshot_lsn",
        "LSN of the newest snapshot here; 0: none",
        lsn,
    );
    page.plain(
        "snapshot_timestamp_seconds",
        "When it was finished; 0: none",
        at_s,
    );
}

fn clients(page: &mut Page, front: &Front) {
    let counters = &front.counters;
    let totals = [
        (
            "connections_total",
            "Clients that connected",
            &counters.connections,
        ),
        (
            "connections_refused_total",
            "Clients turned away",
            &counters.connections_refused,
        ),
        ("commands_total", "Commands read", &counters.commands),
        ("errors_total", "Error replies", &counters.errors),
        (
            "protocol_errors_total",
            "Connections that spoke no RESP",
            &counters.protocol_errors,
        ),
        (
            "client_bytes_in_total",
            "Bytes read from clients",
            &counters.bytes_in,
        ),
        (
            "client_bytes_out_total",
            "Bytes written to clients",
            &counters.bytes_out,
        ),
    ];
    page.plain("clients", "Clients connected", front.clients.len());
    for (name, help, count) in totals {
        page.plain(name, help, count.load(Relaxed));
    }
}

fn latency(page: &mut Page, front: &Front) {
    const NAME: &str = "command_seconds";
    page.typed(
        NAME,
        "From a command's last byte to its answer by the engine",
        "histogram",
    );
    let mut count = 0;
    for (bucket, in_bucket) in front.counters.latency.iter().enumerate() {
        count += in_bucket.load(Relaxed);
        let end = match BUCKETS_US.get(bucket) {
            Some(us) => micros(*us).to_string(),
            None => "+Inf".to_string(),
        };
        page.sample("command_seconds_bucket", &[("le", &end)], count);
    }
    let sum_us = front.counters.latency_sum_us.load(Relaxed);
    page.sample("command_seconds_sum", &[], micros(sum_us));
    page.sample("command_seconds_count", &[], count);
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

fn micros(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64()
}
