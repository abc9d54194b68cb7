//! The disks of a world's nodes at work: each thing that they were given takes its time.

use super::queue::Happening;
use super::world::World;
use standfast::node::engine::Event;

impl World {
    pub fn log_done(&mut self, node: usize, life: u64) -> Result<(), String> {
        let this = &self.nodes[node];
        let Some(process) = this.process.as_ref().filter(|_| this.life == life) else {
            return Ok(());
        };
        if this.stalled_until > self.now {
            let at = this.stalled_until;
            self.queue.push(at, Happening::LogDone { node, life });
            return Ok(());
        }
        if let Some(after) = process.log.cutting {
            self.rehearse_cut(node, after)?;
        }
        let Some(process) = &mut self.nodes[node].process else {
            return Ok(());
        };
        let events = process.log_done();
        let cut = events.iter().find_map(|event| match event {
            Event::Cut { end, .. } => Some(end.position.lsn),
            _ => None,
        });
        if let Some(after) = cut {
            self.cut_is_kept(node, after)?;
        }
        self.note_failure(node, &events);
        self.turn(node, events)
    }

    /// A process that is busy or paused hears of it later, when its disk may be mended again.
    fn note_failure(&mut self, node: usize, events: &[Event]) {
        let this = &mut self.nodes[node];
        let has_failed = |event: &Event| matches!(event, Event::DiskFailed(_));
        this.has_failed |= this.may_stop() && events.iter().any(has_failed);
    }

    pub fn meta_done(&mut self, node: usize, life: u64) -> Result<(), String> {
        let this = &mut self.nodes[node];
        let Some(process) = this.process.as_mut().filter(|_| this.life == life) else {
            return Ok(());
        };
        let events = process.meta_done();
        self.say(|| format!("n{node} has stored {}", self.nodes[node].story_of_meta()));
        self.note_failure(node, &events);
        self.turn(node, events)
    }
}
