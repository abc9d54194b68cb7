//! What an omniscient observer knows: the committed log, who reigned, and what was broken.

use crate::lab::News;
use crate::site::Broken;

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Ledger {
    /// The committed log, from LSN 1: numbers of records.
    pub truth: Vec<u16>,
    /// Who was primary of what: epoch, node, process.
    pub reigns: Vec<(u64, u8, u8)>,
    pub broken: Option<(Broken, String)>,
}

/// Who says so.
#[derive(Clone, Copy)]
pub struct Speaker {
    pub node: u8,
    pub life: u8,
}

impl Ledger {
    pub fn fail(&mut self, broken: Broken, story: String) {
        self.broken.get_or_insert((broken, story));
    }

    /// Takes one piece of news into account. `epoch_of` a record; `decided`: the primary that the
    /// register has chosen for an epoch.
    pub fn note(
        &mut self,
        speaker: Speaker,
        news: &News,
        epoch_of: impl Fn(u16) -> u64,
        decided: impl Fn(u64) -> Option<u8>,
    ) {
        let node = speaker.node;
        match news {
            News::Committed(records, primary) => {
                let shared = records.len().min(self.truth.len());
                if records[..shared] != self.truth[..shared] {
                    let story =
                        format!("n{node} has committed another log: two records at one LSN");
                    return self.fail(Broken::I1, story);
                }
                if records.len() > shared && !primary {
                    let story = format!("n{node} commits what no primary has committed");
                    return self.fail(Broken::I6, story);
                }
                self.truth.extend(&records[shared..]);
                let epochs: Vec<u64> = self.truth.iter().map(|record| epoch_of(*record)).collect();
                if !epochs.is_sorted() {
                    self.fail(Broken::I3, "epochs of committed records fall".to_string());
                }
            }
            News::Reign(epoch, log) => {
                let reign = (*epoch, node, speaker.life);
                if self
                    .reigns
                    .iter()
                    .any(|known| known.0 == *epoch && *known != reign)
                {
                    let story = format!("n{node} is another primary of epoch {epoch}");
                    return self.fail(Broken::I3, story);
                }
                if decided(*epoch) != Some(node) {
                    let story = format!("n{node} is primary of epoch {epoch} undecided");
                    return self.fail(Broken::I5, story);
                }
                if !self.reigns.contains(&reign) {
                    self.reigns.push(reign);
                    self.reigns.sort_unstable();
                }
                // A process that stood still may begin an epoch that was overtaken already: it
                // need not hold what later epochs have committed.
                let before = |record: &&u16| epoch_of(**record) < *epoch;
                let owed = self.truth.iter().take_while(before).count();
                if log.len() < owed || log[..owed] != self.truth[..owed] {
                    let story =
                        format!("n{node} begins epoch {epoch} without all that is committed");
                    self.fail(Broken::I1, story);
                }
            }
            News::Broken(broken, story) => self.fail(*broken, format!("n{node}: {story}")),
            News::Offered(_) | News::Mark(_) | News::Stands => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records 10..19 are of epoch 1, 20..29 of epoch 2, and so on; the register has chosen the
    /// node of an epoch's number.
    fn note(ledger: &mut Ledger, node: u8, news: News) -> Option<Broken> {
        let speaker = Speaker { node, life: 1 };
        let decided = |epoch| u8::try_from(epoch).ok();
        ledger.note(speaker, &news, |record| u64::from(record) / 10, decided);
        ledger.broken.take().map(|(broken, _)| broken)
    }

    #[test]
    fn the_observer_sees_what_must_not_be() {
        let mut ledger = Ledger::default();
        assert_eq!(note(&mut ledger, 1, News::Reign(1, vec![])), None);
        let commit = |log: &[u16], primary| News::Committed(log.to_vec(), primary);
        assert_eq!(note(&mut ledger, 1, commit(&[10, 11], true)), None);
        assert_eq!(note(&mut ledger, 2, commit(&[10], false)), None);
        for (what, node, news, broken) in [
            ("another record", 2, commit(&[10, 12], false), Broken::I1),
            (
                "not by a primary",
                2,
                commit(&[10, 11, 12], false),
                Broken::I6,
            ),
            (
                "a second primary",
                2,
                News::Reign(1, vec![10, 11]),
                Broken::I3,
            ),
            ("undecided", 3, News::Reign(2, vec![10, 11]), Broken::I5),
            ("without all", 2, News::Reign(2, vec![10]), Broken::I1),
            ("with another", 2, News::Reign(2, vec![10, 12]), Broken::I1),
        ] {
            assert_eq!(
                note(&mut ledger.clone(), node, news),
                Some(broken),
                "{what}"
            );
        }
        assert_eq!(note(&mut ledger, 2, News::Reign(2, vec![10, 11])), None);
        assert_eq!(note(&mut ledger, 2, commit(&[10, 11, 20], true)), None);
        let falls = commit(&[10, 11, 20, 13], true);
        assert_eq!(note(&mut ledger.clone(), 2, falls), Some(Broken::I3));
        // Overtaken before it began: it owes what was committed before its epoch.
        ledger.reigns.clear();
        assert_eq!(note(&mut ledger, 1, News::Reign(1, vec![])), None);
    }
}
