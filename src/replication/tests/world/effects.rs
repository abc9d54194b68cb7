//! What a node wants done: sent, written, answered; and what comes of it.

use super::*;

impl World {
    pub(super) fn effect(&mut self, id: NodeId, effect: Effect) {
        let number = match &self.sites[&id].process {
            Some(process) => process.number,
            None => return,
        };
        match effect {
            Effect::Send(to, message) => self.send(id, to, message),
            Effect::Append(record) => {
                if record.kind() == Kind::EpochStart && self.replica_is_primary(id) {
                    self.check_new_primary(id, &record);
                }
                self.queue(id, Work::Append(record));
            }
            Effect::Cut { after, loss } => {
                self.cuts += 1;
                self.losses.push((id, loss));
                self.note(format!("n{id} cuts after {after}"));
                self.queue(id, Work::Cut(after));
            }
            Effect::InstallSnapshot { head, loss } => {
                self.installs += 1;
                self.losses.extend(loss.map(|loss| (id, loss)));
                self.note(format!(
                    "n{id} installs a snapshot at {}",
                    head.link.position
                ));
                self.queue(id, Work::Install(head));
            }
            Effect::NothingLost(loss) => {
                self.note(format!("n{id} had nothing more of {}", loss.history));
            }
            Effect::Persist(meta, serial) => {
                let wait = self.sync_time();
                self.schedule(wait, id, number, What::Persisted(meta, serial));
            }
            Effect::ReadLog { to, after, .. } => self.read_log(id, number, to, after),
            Effect::SendSnapshot { to, at_least } => self.send_snapshot(id, number, to, at_least),
            Effect::AcceptSnapshot { from } => {
                let head = self.snapshot_of(from);
                let wait = self.delay() + self.sync_time();
                match head {
                    Some(head) => {
                        let input = Input::SnapshotReceived { from, head };
                        self.schedule(wait, id, number, What::Input(input));
                    }
                    None => {
                        let input = Input::SnapshotAborted { from };
                        self.schedule(wait, id, number, What::Input(input));
                    }
                }
            }
            Effect::RefuseSnapshot { from, why } => {
                self.note(format!("n{id} refuses the snapshot of n{from}: {why}"));
                let wait = self.delay();
                let input = Input::SnapshotFailed { to: id };
                self.schedule(wait, from, 0, What::Input(input));
            }
            Effect::Committed(lsn) => self.note(format!("n{id} commit={lsn}")),
            Effect::Confirmed(round) => {
                if let Some(process) = self.process(id) {
                    process.confirmed = round;
                }
            }
            Effect::Serving { epoch } => {
                if let Some(process) = self.process(id) {
                    process.serving = true;
                }
                self.note(format!("n{id} serves epoch {epoch}"));
            }
            Effect::StopServing(reason) => {
                if let Some(process) = self.process(id) {
                    process.serving = false;
                    process.reads.clear();
                    process.pending.clear();
                }
                self.note(format!("n{id} stops serving: {reason:?}"));
            }
            Effect::Answer(ticket, result) => {
                self.note(match &result {
                    Ok(text) => format!("n{id} answers order {ticket}: {text}"),
                    Err(why) => format!("n{id} refuses order {ticket}: {why}"),
                });
                self.answers.push((ticket, result));
            }
            Effect::Event(text) => self.note(format!("n{id} | {text}")),
            Effect::DrawRandom => {
                let number = self.dice.wide();
                let input = Input::Random(number);
                self.schedule(1_000, id, 0, What::Input(input));
            }
            Effect::Halt(story) => {
                self.note(format!("n{id} halts: {story}"));
                assert!(!story.starts_with('I'), "{story}");
                if let Some(process) = self.process(id) {
                    process.halted = true;
                }
                self.link_news(id);
            }
            Effect::Roll(_) | Effect::NewConfig | Effect::Forced { .. } => {}
        }
    }

    pub(super) fn process(&mut self, id: NodeId) -> Option<&mut Process> {
        self.sites.get_mut(&id)?.process.as_mut()
    }

    pub(super) fn replica_is_primary(&self, id: NodeId) -> bool {
        self.replica(id).is_some_and(Replica::is_primary)
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let bytes = message
            .records()
            .iter()
            .map(|record| record.bytes().len() as u64);
        *self.sent.entry(to).or_default() += bytes.sum::<u64>();
        let quiet = matches!(message.body, Body::Heartbeat(_) | Body::Heard { .. });
        if !quiet {
            self.note(format!("n{from} → n{to} {message}"));
        }
        self.check_secrecy(from, to, &message);
        self.maybe_spite(from, to, &message);
        if self.cut_links.contains(&(from, to)) || !self.sites.contains_key(&to) {
            return;
        }
        let incarnation = self.sites[&from].disk.meta.incarnation;
        let copies = 1 + u64::from(self.dice.chance(self.faults.double));
        for _ in 0..copies {
            if self.dice.chance(self.faults.lose) {
                continue;
            }
            let mut wait = self.delay();
            if self.dice.chance(self.faults.slow) {
                wait += self.dice.below(self.faults.slow_ms * 1_000_000);
            }
            let bound = self.sites[&to].disk.meta.incarnation;
            let message = message.clone();
            let what = What::Message {
                from,
                incarnation,
                bound,
                message,
            };
            self.schedule(wait, to, 0, what);
        }
    }

    /// Random walks alone seldom meet the moments at which a rule matters; so these are hit more
    /// often: right around what a promotion, a change or a first acknowledgement says.
    pub(super) fn maybe_spite(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let matters = match &message.body {
            Body::Heartbeat(_) | Body::Heard { .. } | Body::AskConfig { .. } => false,
            Body::Append { .. } | Body::Acked { .. } => self.dice.chance(100),
            _ => true,
        };
        if self.faults.spite == 0 || !matters || !self.dice.chance(self.faults.spite) {
            return;
        }
        let (id, other) = if self.dice.chance(500) {
            (from, to)
        } else {
            (to, from)
        };
        let misfortune = match self.dice.below(13) {
            0 | 1 => Misfortune::LosesPower,
            2 => Misfortune::Crashes,
            3 | 4 => Misfortune::Restarts,
            5 => Misfortune::Pauses,
            6 | 7 => Misfortune::Loses(other, self.dice.chance(500)),
            8 => Misfortune::LeftBehind,
            9..=11 => {
                let wait = self.dice.below(200_000);
                let misfortune = Misfortune::Forgets(to);
                return self.schedule(wait, from, 0, What::Misfortune(misfortune));
            }
            _ => Misfortune::IsAlone,
        };
        let wait = self.dice.below(6_000_000);
        self.schedule(wait, id, 0, What::Misfortune(misfortune));
    }

    pub(super) fn befall(&mut self, id: NodeId, misfortune: Misfortune) {
        match misfortune {
            Misfortune::LosesPower => self.lose_unsynced(id),
            Misfortune::Crashes => self.crash(id),
            Misfortune::Restarts => {
                self.lose_unsynced(id);
                self.start(id);
            }
            Misfortune::Forgets(other) => {
                self.lose_unsynced(id);
                self.befall(id, Misfortune::Loses(other, true));
                self.start(id);
            }
            Misfortune::LeftBehind => {
                let data = |other: &NodeId| self.first.members[other].role.holds_data();
                let others = self
                    .ids()
                    .into_iter()
                    .filter(|other| *other != id && data(other));
                let fails = 20_000_000 + self.dice.below(150_000_000);
                for other in others.collect::<Vec<_>>() {
                    self.cut_links.insert((id, other));
                    self.cut_links.insert((other, id));
                    let what = match self.dice.chance(700) {
                        true => Misfortune::Crashes,
                        false => Misfortune::Pauses,
                    };
                    self.schedule(fails, other, 0, What::Misfortune(what));
                }
                self.all_link_news();
                let wait = 1_000_000_000 + self.dice.below(1_000_000_000);
                self.schedule(wait, id, 0, What::Misfortune(Misfortune::Heals));
            }
            Misfortune::Pauses => {
                let wait = self.dice.below(1_500_000_000);
                self.pause(id, wait);
            }
            Misfortune::Loses(other, both) => {
                self.cut_links.insert((id, other));
                if both {
                    self.cut_links.insert((other, id));
                }
                self.all_link_news();
                let wait = self.dice.below(3_000_000_000);
                self.schedule(wait, id, 0, What::Misfortune(Misfortune::Heals));
            }
            Misfortune::IsAlone => {
                self.partition(&BTreeSet::from([id]));
                let wait = self.dice.below(2_000_000_000);
                self.schedule(wait, id, 0, What::Misfortune(Misfortune::Heals));
            }
            Misfortune::Heals => {
                self.cut_links.retain(|(a, b)| *a != id && *b != id);
                self.all_link_news();
            }
        }
    }

    // Disks
}
