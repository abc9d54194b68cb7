//! Who starts a process, and how it opens its disks.

use super::plan::Tuning;
use super::world::CLUSTER;
use standfast::node::engine::EngineSettings;
use standfast::node::meta::MetaFile;
use standfast::node::open::Opening;
use standfast::replication::Introduction;
use standfast_wal::{ClusterId, NodeId, Options};

pub fn engine_settings(
    meta: &MetaFile,
    tuning: &Tuning,
    introduction: &Introduction,
) -> EngineSettings {
    EngineSettings {
        pid: meta.core.node.0,
        quarantined: meta.quarantined,
        introduction: introduction.clone(),
        ..tuning.engine.clone()
    }
}

/// How a node of these worlds opens its disks.
pub fn opening_of(
    id: NodeId,
    alone: bool,
    tuning: &Tuning,
    introduction: &Introduction,
) -> Opening {
    let starter = Starter {
        id,
        cluster: CLUSTER,
        alone,
        may_cut: false,
        introduction,
    };
    starter.opening(tuning)
}

/// Who starts.
pub struct Starter<'a> {
    pub id: NodeId,
    pub cluster: ClusterId,
    /// It has no peers.
    pub alone: bool,
    /// Its operator has read why it refused, and lets it cut the end of its log.
    pub may_cut: bool,
    pub introduction: &'a Introduction,
}

impl Starter<'_> {
    pub fn opening(&self, tuning: &Tuning) -> Opening {
        let introduction = self.introduction;
        Opening {
            node: self.id,
            cluster_name: "sim".to_string(),
            role: introduction.role,
            cluster_id: Some(self.cluster),
            alone: self.alone,
            options: Options {
                segment_bytes: tuning.segment_bytes,
                keep_bytes: 0,
                reserve_bytes: tuning.reserve_bytes,
                alone: self.alone,
                cut_damaged_end: self.may_cut,
            },
            addresses: introduction.addresses.clone(),
            site: introduction.site.clone(),
            priority: introduction.priority,
        }
    }
}
