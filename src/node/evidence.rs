//! A node whose state differs from the primary's at one LSN (I2). It serves nothing more, also when
//! it is started again, and keeps what it had for whoever looks into it.

use crate::node::directory::Directory;
use crate::node::engine::Engine;
use crate::node::shelf;
use crate::state::{Block, Segment, SnapshotHead};
use standfast_snapshot::{Header, Options, Writer};
use standfast_wal::{Lsn, Storage, durable};
use std::io;

/// In the data directory: why the node serves no more.
pub const MARKER: &str = "differs";

/// Among the snapshots: the state that differs. A start does not look at it.
pub fn name_of(lsn: Lsn) -> String {
    format!("differing-{:020}.sfs", lsn.0)
}

/// The state that differs, copied step by step.
pub struct Evidence<'a> {
    pub story: String,
    header: Header,
    segments: Vec<Segment>,
    engine: &'a mut Engine,
}

impl Engine {
    pub fn story_of_difference(&self) -> Option<&str> {
        self.differs.as_deref()
    }

    /// What there is to keep; `None` where nothing was found to differ.
    pub fn evidence(&mut self) -> Option<Evidence<'_>> {
        let mut story = self.differs.clone()?;
        if self.state.is_in_snapshot() {
            self.state.abort_snapshot();
        }
        let begun = self.state.begin_snapshot();
        // What is stored is the evidence, whatever was kept beside it.
        let digest = self.state.digest_made_again();
        if digest != begun.digest {
            story.push_str(&format!(
                "; and what it stores has the digest {digest}, not the one that it kept: memory, \
                 or this program, has changed it"
            ));
        }
        Some(Evidence {
            story,
            header: self.snapshot_header(&SnapshotHead { digest, ..begun }),
            segments: self.state.segments(),
            engine: self,
        })
    }
}

impl Evidence<'_> {
    fn step(&mut self, into: &mut Vec<Block>) -> bool {
        const BUDGET: usize = 1 << 20;
        self.engine.state.snapshot_step(BUDGET, into)
    }
}

/// Marks the directory: before anything that takes as long as the state is large.
pub fn mark<D: Directory>(dir: &D, story: &str) -> Result<(), String> {
    let root = dir.root();
    // Durable here: no start goes on from what this directory holds.
    let marked = root.and_then(|root| durable::replace(&root, MARKER, story.as_bytes()));
    marked.map_err(|error| error.to_string())
}

/// Writes the state into a directory that is marked; says under which name.
pub fn keep<D: Directory>(dir: &D, mut evidence: Evidence<'_>) -> Result<String, String> {
    mark(dir, &evidence.story)?;
    let text = |error: io::Error| error.to_string();
    let name = name_of(evidence.header.link.position.lsn);
    let storage = dir.snapshots().map_err(text)?;
    let text = |error: standfast_snapshot::Error| error.to_string();
    let writer = Writer::create_in(storage, &name, &evidence.header, Options::default());
    let mut writer = writer.map_err(text)?;
    let mut blocks = Vec::new();
    loop {
        let is_done = evidence.step(&mut blocks);
        for block in blocks.drain(..) {
            writer.push(shelf::file_block(block)).map_err(text)?;
        }
        if is_done {
            break;
        }
    }
    let segments = std::mem::take(&mut evidence.segments);
    shelf::finish_beside(dir, writer, segments, drop)?;
    Ok(name)
}

/// Why the node of this directory may not be started; `None`: it may.
pub fn story<S: Storage>(root: &S) -> io::Result<Option<String>> {
    let found = durable::read(root, MARKER)?;
    Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
