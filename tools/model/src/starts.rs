//! Hard beginnings: the moments that random walks miss, brought about one act at a time.

use crate::script::{Script, Shape};
use crate::site::Happening::{Answered, Crash, Persist, Start, Suspect, Sync, Tick, Write};
use crate::worlds::shape;
use standfast::replication::config::{Acks, Protection};

/// The primary is alone in the sync set, its backup is back and follows.
pub fn shrunk(name: &'static str) -> Script {
    let mut script = Script::new(name, shape(2, Acks::All));
    script.boot();
    script.at(1, Write).at(1, Sync).lose_mail();
    script.at(1, Tick).lose_mail();
    script.settle(&[1]);
    script.at(2, Crash).at(2, Start);
    script
}

/// Figure 8 at (c): n1 wrote in epoch 1 for itself alone; n3 was primary of epoch 2 for itself
/// alone; n1 is primary of epoch 3 and its old record is on n2 as well, the EpochStart is not.
pub fn figure_8(name: &'static str) -> Script {
    let mut script = Script::new(name, shape(3, Acks::Majority));
    script.boot();
    script.at(1, Write).at(1, Sync).lose_mail().at(1, Crash);
    promote(&mut script, 3, 2);
    script.at(3, Sync).lose_mail().at(3, Crash);
    script.at(1, Start).settle(&[1]).lose_mail();
    promote(&mut script, 1, 2);
    script.at(1, Sync);
    script.deliver(1, 2, "Follow");
    script
        .deliver(2, 1, "Followed")
        .deliver(1, 2, "Append @3 2..2")
        .at(2, Sync);
    script.deliver(2, 1, "Acked").lose_mail();
    script.at(3, Start).lose_mail();
    script
}

/// n1 fell with a record that n2 has, too, and n3, out of the set, has not. n2 is primary in
/// max-protection, and needs another copy before it can commit its EpochStart.
pub fn re_add(name: &'static str) -> Script {
    let protected = Shape {
        protection: Protection::MaxProtection,
        ..shape(3, Acks::All)
    };
    let mut script = Script::new(name, protected);
    script.boot();
    script.at(1, Write).settle(&[1, 2]).lose_mail();
    script.at(1, Tick).settle(&[1, 2]).lose_mail().at(1, Crash);
    script.at(2, Suspect).settle(&[2]);
    script
}

/// n2 has the promises of n3, and asks the register for epoch 2, which has not heard of it; and
/// n2 falls. n1 reigns on and knows of nothing.
pub fn stale_fence(name: &'static str) -> Script {
    let mut script = Script::new(name, shape(3, Acks::Majority));
    script.boot();
    script.at(2, Suspect).at(2, Persist);
    script
        .deliver(2, 3, "Fence")
        .at(3, Persist)
        .deliver(3, 2, "Fenced");
    script.lose_mail().at(2, Crash).at(2, Start).lose_mail();
    script
}

/// n2's acknowledgement is on its way to n1, which fell before its own disk had the record.
pub fn late_ack(name: &'static str) -> Script {
    let mut script = Script::new(name, shape(2, Acks::All));
    script.boot();
    script.at(1, Write).deliver(1, 2, "Append").at(2, Sync);
    script.at(1, Crash);
    script
}

/// `id` becomes primary with the promise of `other`, and nobody has heard of it yet.
fn promote(script: &mut Script, id: u8, other: u8) {
    script.at(id, Suspect).at(id, Persist);
    script
        .deliver(id, other, "Fence")
        .at(other, Persist)
        .deliver(other, id, "Fenced");
    script.choose().at(id, Answered);
}
