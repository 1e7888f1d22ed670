//! The one table of points.

use std::fmt;

/// The program that has a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A control-plane replica.
    Controld,
    /// A worker node.
    Workerd,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Owner::Controld => "controld",
            Owner::Workerd => "workerd",
        })
    }
}

/// A point, with what is true when it is reached.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The point.
    pub point: Point,
    /// As it is armed.
    pub name: &'static str,
    /// Whose.
    pub owner: Owner,
    /// What is done by then, and what is not.
    pub state: &'static str,
}

macro_rules! points {
    ($($owner:ident { $($point:ident $name:literal $state:literal)* })*) => {
        /// Where a process can be made to end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[doc = $state] $point,)*)*
        }

        /// All of them, in the order of `Point`.
        pub const PLACES: &[Place] = &[
            $($(Place { point: Point::$point, name: $name, owner: Owner::$owner, state: $state },)*)*
        ];
    };
}

points! {
    Controld {
        LogBeforeWrite "log.before-write" "a batch of entries or a vote is about to be written; nothing of it is there"
        LogWritten "log.written" "the batch is visible in the log, not synced"
        LogSynced "log.synced" "the log is synced; nobody was told"
        StateBeforeWrite "state.before-write" "an entry is committed; the tables lack it"
        StateWritten "state.written" "the tables have the entry, unsynced; who proposed it was not told"
        SnapshotMade "snapshot.made" "a snapshot is on the shelf; the log was not cut"
        SnapshotBeforeInstall "snapshot.before-install" "a snapshot came and is in the log's base; the old tables are still used"
        SnapshotInstalled "snapshot.installed" "the tables are the snapshot's; nobody was told"
        UploadReceived "upload.received" "a whole body is in incoming/, checked, not synced, without a name"
        FragmentBeforeSync "fragment.before-sync" "a fragment or copy is to be kept; nothing of it is synced"
        FragmentSynced "fragment.synced" "its bytes are synced; it has no name"
        FragmentNamed "fragment.named" "bytes, name and folder are synced; no receipt was given"
        PeerFragmentKept "fragment.kept-for-peer" "the same, for another replica, which has no answer yet"
        FirstModelPlaced "first-model.placed" "model 0 is durable on F+1 replicas; CommitModel is not proposed"
        FirstModelCommitted "first-model.committed" "it is committed and applied; the worker was not told"
        GradientPlaced "gradient.placed" "a gradient is durable on F+1 replicas; CommitGradient is not proposed"
        GradientCommitted "gradient.committed" "CommitGradient is applied; the Ack is not sent"
        RoundBeforeSum "round.before-sum" "a round is sealed; nothing of its sum is there"
        RoundSummed "round.summed" "the next model and state are in files without a place"
        RoundModelPlaced "round.model-placed" "the next model is durable, its state is not"
        RoundPlaced "round.placed" "both are durable; CommitModel is not proposed"
        RoundCommitted "round.committed" "CommitModel is applied; the leader's loops were not told"
    }
    Workerd {
        ProcessNoted "process.noted" "the attempt's note is written; there is no process"
        ProcessStarted "process.started" "the process runs; its note lacks the process id"
        BundleUnpacked "bundle.unpacked" "the bundle is unpacked beside its place"
        ShardsTaken "shards.taken" "shards were given for a round; Python was not told"
        ModelFetched "model.fetched" "a model's bytes are here and verified; the cache lacks it"
        ModelCached "model.cached" "it is in the cache; Python has nothing of it"
        GradientReceived "gradient.received" "Python's gradient is here whole; nothing was sent up"
        GradientAcked "gradient.acked" "the control plane acknowledged it; it is not noted in acks.jsonl"
        GradientNoted "gradient.noted" "it is noted; Python was not told"
        ResultBeforeReport "result.before-report" "a process has ended; its result is not told"
        ResultReported "result.reported" "its result is committed; the worker has not taken note"
    }
}

impl Point {
    /// Its row.
    pub fn place(self) -> &'static Place {
        &PLACES[self as usize]
    }

    /// As it is armed.
    pub fn name(self) -> &'static str {
        self.place().name
    }

    /// The point of that name.
    pub fn named(name: &str) -> Option<Self> {
        PLACES.iter().find(|place| place.name == name).map(|place| place.point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_finds_its_own_row_and_no_two_share_a_name() {
        for place in PLACES {
            assert_eq!(place.point.place().name, place.name);
            assert_eq!(Point::named(place.name), Some(place.point), "{}", place.name);
        }
    }

    #[test]
    fn the_manual_lists_every_point_with_what_is_true_there() {
        let manual = include_str!("../../../docs/chaos.md");
        for place in PLACES {
            let row = manual.lines().find(|line| line.starts_with(&format!("| `{}` |", place.name)));
            assert!(row.is_some_and(|row| row.ends_with(&format!("| {} |", place.state))), "{}: {row:?}", place.name);
        }
    }
}
