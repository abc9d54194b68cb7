//! Restores of a world: at any moment, from the archive as it is then, by the production command.

use crate::simulate::check::restored::Wish;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::{CLUSTER, World};
use standfast::cli::Failure;
use standfast::cli::restore::{Aim, Past, Source};
use standfast::node::directory::Directory;
use standfast_snapshot::{Identities, Target};
use standfast_wal::History;

impl World {
    /// Somebody restores, to wherever.
    pub fn restore_something(&mut self) -> Result<(), String> {
        let Some(offsite) = &mut self.offsite else {
            return Ok(());
        };
        if self.calm.is_none() {
            let wait = offsite
                .random
                .between(offsite.restores[0], offsite.restores[1]);
            self.queue.push(self.now + wait, Happening::Restore);
        }
        if offsite.store.is_down() {
            return match self.restored(None, Target::Latest) {
                Ok(_) => Err("a restore from a store that does not answer".to_string()),
                Err(_) => Ok(()),
            };
        }
        let mut random = Random::new(offsite.random.next());
        let Some(wish) = self.observer.draw_wish(&mut random) else {
            return Ok(());
        };
        self.restore_as(wish)?;
        let is_open = self
            .offsite
            .as_ref()
            .is_some_and(|offsite| offsite.copy.is_some());
        if is_open || self.calm.is_some() || !random.one_in(3) {
            return Ok(());
        }
        match self.restored(wish.history, wish.target) {
            Ok(past) => self.open_restored(past, &mut random),
            Err(_) => Ok(()),
        }
    }

    /// What the archive has last of the newest history, and what it has where that forked.
    pub fn restore_last(&mut self) -> Result<(), String> {
        let Some(history) = self.observer.newest_archived() else {
            return Ok(());
        };
        self.restore_as(Wish::latest(history))?;
        match self.observer.wish_behind_fork(history) {
            Some(wish) => self.restore_as(wish),
            None => Ok(()),
        }
    }

    fn restore_as(&mut self, wish: Wish) -> Result<(), String> {
        let past = self.restored(wish.history, wish.target);
        self.summary.restores += u64::from(past.is_ok());
        self.say(|| match &past {
            Ok(past) => format!("{wish:?} is restored: {:?}", past.rebuilt.link.position),
            Err(failure) => format!("{wish:?} is not restored: {failure:?}"),
        });
        self.observer.is_restored(&wish, past)
    }

    fn restored(&self, history: Option<History>, target: Target) -> Result<Past, Failure> {
        let offsite = self.offsite.as_ref().expect("somebody restores from it");
        let source = Source {
            from: offsite.store.clone(),
            target: Aim::At(target),
            identities: Identities::default(),
            cluster: Some(CLUSTER),
            history,
            threads: 1,
            segment_shift: self.nodes[0].disks.segment_shift(),
        };
        source.read(&mut |_| ())
    }
}
