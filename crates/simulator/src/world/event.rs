//! What can happen.

use raftgrid_driver::Message;
use raftgrid_replica::ports::CallError;
use raftgrid_store::SnapshotReader;

use crate::calls::{Caller, Request, Response};
use crate::disk::SimDisk;
use crate::plan::{Every, Plan};
use crate::ports::Wanted;

/// A turn of one of a node's loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Tick,
    Raft,
    Apply,
    SyncBegin,
    SyncEnd,
    PowerLoss,
    Leader,
    LeaderDue(u64),
    Timer(u64),
    Pool,
    /// A job goes on: its number, and how often it has waited.
    Job(u64, u64),
    Janitor,
    Flushed,
    Room,
}

impl Turn {
    /// The thread that takes it, as `SimNode::stalled_until_us` counts them; a loss of power waits for none.
    pub(super) fn thread(self) -> Option<usize> {
        match self {
            Self::Tick | Self::Raft => Some(0),
            Self::Apply | Self::Flushed => Some(1),
            Self::SyncBegin | Self::SyncEnd => Some(2),
            Self::Leader | Self::LeaderDue(_) => Some(3),
            Self::Timer(_) => Some(4),
            Self::Pool | Self::Job(..) | Self::Janitor | Self::Room => Some(5),
            Self::PowerLoss => None,
        }
    }
}

/// A snapshot on its way.
pub(super) struct Transfer {
    pub(super) from: u64,
    pub(super) from_life: u64,
    pub(super) to: u64,
    pub(super) store: [u8; 16],
    pub(super) message: Message,
    pub(super) reader: SnapshotReader<SimDisk>,
}

/// Trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Partition,
    Crash,
    CrashAll,
    Pause,
    Stall,
    ClockJump,
    FullDisk,
    LowDisk,
    FailedSync,
    LostDisk,
    RottenSnapshot,
    Change,
    Transfer,
    Snapshot,
    WorkerDeath,
    WorkerPause,
    WorkerLeave,
}

impl Fault {
    pub(super) const ALL: [Self; 17] = [
        Self::Partition,
        Self::Crash,
        Self::CrashAll,
        Self::Pause,
        Self::Stall,
        Self::ClockJump,
        Self::FullDisk,
        Self::LowDisk,
        Self::FailedSync,
        Self::LostDisk,
        Self::RottenSnapshot,
        Self::Change,
        Self::Transfer,
        Self::Snapshot,
        Self::WorkerDeath,
        Self::WorkerPause,
        Self::WorkerLeave,
    ];

    pub(super) fn every(self, plan: &Plan) -> Every {
        match self {
            Self::Partition => plan.partition,
            Self::Crash => plan.crash,
            Self::CrashAll => plan.crash_all,
            Self::Pause => plan.pause,
            Self::Stall => plan.stall,
            Self::ClockJump => plan.clock_jump,
            Self::FullDisk => plan.full_disk,
            Self::LowDisk => plan.low_disk,
            Self::FailedSync => plan.failed_sync,
            Self::LostDisk => plan.lost_disk,
            Self::RottenSnapshot => plan.rotten_snapshot,
            Self::Change => plan.change,
            Self::Transfer => plan.transfer,
            Self::Snapshot => plan.snapshot,
            Self::WorkerDeath => plan.worker_death,
            Self::WorkerPause => plan.worker_pause,
            Self::WorkerLeave => plan.worker_leave,
        }
    }

    /// For counts and the trace.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Crash => "crash",
            Self::CrashAll => "crash-all",
            Self::Pause => "pause",
            Self::Stall => "stall",
            Self::ClockJump => "clock-jump",
            Self::FullDisk => "full-disk",
            Self::LowDisk => "low-disk",
            Self::FailedSync => "failed-sync",
            Self::LostDisk => "lost-disk",
            Self::RottenSnapshot => "rotten-snapshot",
            Self::Change => "change",
            Self::Transfer => "transfer",
            Self::Snapshot => "snapshot",
            Self::WorkerDeath => "worker-death",
            Self::WorkerPause => "worker-pause",
            Self::WorkerLeave => "worker-leave",
        }
    }
}

/// An event.
pub(super) enum Event {
    Start { node: u64 },
    Turn { node: u64, life: u64, turn: Turn },
    Message { to: u64, from: u64, store: [u8; 16], message: Message },
    Snapshot(Box<Transfer>),
    SnapshotReport { node: u64, life: u64, to: u64, ok: bool },
    Question { to: u64, from: u64, life: u64, number: u64, wanted: Wanted },
    Told { to: u64, life: u64, number: u64, answer: Result<Vec<u8>, CallError> },
    Call { node: u64, caller: Caller, number: u64, request: Request },
    Answer { caller: Caller, number: u64, response: Response },
    Wake(Caller),
    Gone { worker: usize, until_us: u64 },
    Fault(Fault),
    Mend,
    Repair { node: u64 },
    Retire { node: u64 },
    Heal,
    Look,
}

impl Event {
    /// The node that it happens to, and of which life, if of a certain one.
    pub(super) fn node(&self) -> Option<(u64, Option<u64>)> {
        match self {
            Self::Turn { node, life, .. } | Self::SnapshotReport { node, life, .. } => Some((*node, Some(*life))),
            Self::Told { to, life, .. } => Some((*to, Some(*life))),
            Self::Message { to, .. } | Self::Question { to, .. } => Some((*to, None)),
            Self::Snapshot(transfer) => Some((transfer.to, None)),
            Self::Start { node } | Self::Call { node, .. } => Some((*node, None)),
            Self::Answer { .. }
            | Self::Wake(_)
            | Self::Gone { .. }
            | Self::Fault(_)
            | Self::Mend
            | Self::Repair { .. }
            | Self::Retire { .. }
            | Self::Heal
            | Self::Look => None,
        }
    }
}
