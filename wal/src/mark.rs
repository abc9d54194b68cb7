//! Coverage marks: the rare branches, by name, and how often each was reached on this thread.
//!
//! `Mark::TailCut.hit()` beside a branch costs some nanoseconds and changes nothing. The simulator
//! counts the hits of each run and fails a batch that never reached a mark; the tidy test demands
//! that each mark is hit somewhere.

use std::cell::Cell;

/// One row per mark: name in the code, name for people, what it means to have been there.
macro_rules! marks {
    ($($variant:ident $name:literal $meaning:literal;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mark {
            $(#[doc = $meaning] $variant,)*
        }

        impl Mark {
            pub const ALL: &[Mark] = &[$(Mark::$variant,)*];

            pub fn name(self) -> &'static str {
                match self { $(Mark::$variant => $name,)* }
            }

            pub fn meaning(self) -> &'static str {
                match self { $(Mark::$variant => $meaning,)* }
            }
        }
    };
}

marks! {
    TailCut "tail-cut" "A backup cut its tail at the first record that differs from the primary's.";
    RecordsCut "cut-record-on-disk" "A cut took records away that lay durably on the disk.";
    CutFinished "cut-finished" "A cut or reset that a crash had interrupted was finished at the start.";
    TornEnd "torn-end" "Recovery found a torn end that no sync had promised, and cut it.";
    SuspectLog "suspect-log" "Recovery found a damaged end that may have been acknowledged.";
    SuspicionEnded "suspicion-ended" "A suspect log was verified against a primary and counts again.";
    SuspectsWeighed "suspects-weighed" "A promotion went on although a suspect log was among the answers.";
    SuffixFetched "suffix-fetched" "A candidate copied the missing end of a better log.";
    FetchFromDisk "fetch-from-disk" "A candidate was served from the log's files, not from memory.";
    CandidateCut "candidate-cut" "A candidate cut its own tail in favour of the better log.";
    RaceLost "race-lost" "A candidate lost the race for an epoch.";
    RaceOvertaken "register-overtaken" "A candidate found another promoted meanwhile, and withdrew.";
    PromotedWithoutAsking "promoted-unasked" "The registered primary took over again without asking.";
    SetKept "set-kept" "A promotion kept the sync set as it was.";
    SetShrunk "set-shrunk" "A promotion took only those into the sync set that answered.";
    ChangeProposed "change-proposed" "A change of the sync set was proposed: both rules count.";
    ChangeForbidden "change-forbidden" "The change rule forbade a change that was wanted.";
    ChangeRevoked "change-revoked" "A change that nobody had voted for was taken back, for copies were lost.";
    ChangeUnready "change-unready" "A change was given up, for its new voters did not answer.";
    ReignOver "reign-over" "A primary learned from the register that its epoch is over.";
    MemberEvicted "member-evicted" "A lost member was taken out of the sync set.";
    JoiningAdmitted "joining-admitted" "A joining member caught up and was proposed for the sync set.";
    JoiningDropped "joining-dropped" "A joining member took too long and was dropped.";
    HeldDown "held-down" "A member that was taken out by timeout has to wait before it comes back.";
    SnapshotOffered "snapshot-offered" "A member lags so far that a snapshot was offered to it.";
    SnapshotRefused "snapshot-refused" "A backup refused a snapshot that it was offered.";
    SnapshotInstalled "snapshot-installed" "A received snapshot replaced log and state.";
    SnapshotCutLog "snapshot-replaced-tail" "A snapshot replaced a log whose end differed.";
    SnapshotNotYet "snapshot-not-yet" "A node that moves to a newer history was asked for a snapshot of it.";
    SnapshotNotSent "snapshot-not-sent" "A snapshot that a member accepted was gone, or not readable.";
    SnapshotAborted "snapshot-aborted" "The connection broke while a snapshot was on its way.";
    SnapshotFinishedInVain "snapshot-finished-in-vain" "A snapshot was finished that had been given up.";
    SegmentWritten "segment-written" "A full segment of the ledger got a file of its own.";
    SegmentSpared "segment-spared" "A snapshot was sent without segments that its receiver has.";
    LogTrimmed "log-trimmed" "Log that a snapshot covers was dropped.";
    ReadFromDisk "read-from-disk" "A peer that lags was served from the log's files.";
    LogGone "log-gone" "A peer asked for log that is gone.";
    TookIn "taken-in" "A node that the Config did not name was taken in.";
    StrangerIgnored "stranger-ignored" "A message of a node that the Config does not name counted for nothing.";
    SwitchoverDone "switchover-done" "A primary handed over as it was told.";
    SwitchoverAborted "switchover-aborted" "A switchover took too long; the old primary went on.";
    WriteForwarded "write-forwarded" "A command without an LSN was passed on to the successor.";
    ForwardLost "forward-lost" "The link broke under forwarded commands: their outcome is unknown.";
    DeafPrimary "deaf-primary" "A primary that no majority of the voters answers fell silent.";
    DiskStalled "disk-stalled" "A primary whose disk does not answer stopped taking writes.";
    ReadByVoters "read-by-voters" "Reads were confirmed by a majority of the voters.";
    TickCommitted "tick-committed" "A Tick was ordered, for a deadline had passed.";
    ClockDistrusted "clock-distrusted" "A new primary far ahead of its peers began with their median.";
    AttestationCompared "attestation-compared" "A copy compared its digest with an attestation.";
    UnknownTold "unknown-told" "A command with an LSN was answered UNKNOWN.";
    UnknownReplaced "unknown-replaced" "A command was answered UNKNOWN: another epoch stands at its LSN.";
    HeldExpired "held-expired" "A request that waited to be ordered was refused in the end.";
    TooStale "too-stale" "A backup refused a read: what it has is too old.";
    TimeTravel "time-travel" "SEEN was refused: that point is not in the history here.";
    Forced "forced" "A node founded a new history by force.";
    HistoryEnded "history-ended" "A node learned that its history was ended by force.";
    Rejoined "rejoined" "A node gave up its history and followed a newer one.";
    LateDescription "late-description" "A late or repeated description of a primary's log was ignored.";
    GapInAppend "gap-in-append" "Records came behind a gap: something before them was lost.";
    BallotRefused "ballot-refused" "A voter refused a ballot below what it had promised.";
    LossBudgetUsed "loss-budget-used" "max-performance: no write is taken, too much is unreplicated.";
    TooFewCopies "too-few-copies" "max-protection: no write is taken, for too few copies are there.";
    ArchivePresent "archive-present" "An object that was to be put into the archive was there already.";
    ArchivePutAgain "archive-put-again" "A name in the archive was taken by a put that came to nothing: it was put again.";
    ArchiveCaughtUp "archive-caught-up" "An archiver that slept went on where another one had come to.";
    ArchiveGap "archive-gap" "Log was dropped before it was shipped: the archive got a hole.";
    ArchiveUnattested "archive-unattested" "A piece of log was shipped without an attestation, for none came.";
    ArchiveHanded "archive-handed" "A primary named another node to archive.";
    RestoreCutRecord "restore-cut-record" "A restore ended inside a record.";
    RestoreForked "restore-forked" "A restore followed the log of one history into the one that forked from it.";
    Busy "busy" "No write is taken, for too much is ordered and not committed.";
}

thread_local! {
    static HITS: [Cell<u64>; Mark::ALL.len()] = const { [const { Cell::new(0) }; Mark::ALL.len()] };
}

impl Mark {
    /// This branch was taken.
    #[inline]
    pub fn hit(self) {
        HITS.with(|hits| {
            let hits = &hits[self as usize];
            hits.set(hits.get() + 1);
        });
    }
}

/// Hits on this thread since `reset`, by place in [`Mark::ALL`].
pub fn counts() -> [u64; Mark::ALL.len()] {
    HITS.with(|hits| std::array::from_fn(|place| hits[place].get()))
}

/// Forgets this thread's hits.
pub fn reset() {
    HITS.with(|hits| hits.iter().for_each(|hits| hits.set(0)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hits_are_counted_by_mark_and_names_are_unique() {
        reset();
        Mark::TailCut.hit();
        Mark::TailCut.hit();
        let counts = counts();
        let total: u64 = counts.iter().sum();
        assert_eq!((counts[Mark::TailCut as usize], total), (2, 2));
        let names: BTreeSet<&str> = Mark::ALL.iter().map(|mark| mark.name()).collect();
        assert_eq!(names.len(), Mark::ALL.len());
    }
}
