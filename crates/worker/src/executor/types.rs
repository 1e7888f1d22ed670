//! What goes into a step of the executor, and what comes out.

use raftgrid_proto::v1::{HeartbeatResponse, Lease, Task, TaskStatus};
use sha2::{Digest as _, Sha256};

/// Milliseconds of CLOCK_BOOTTIME, or of the simulator.
pub type Millis = u64;

/// Names one attempt of one task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseId {
    /// The task.
    pub task_id: String,
    /// The lease epoch: of all attempts of one task, unique; members of a gang share theirs.
    pub epoch: u64,
}

impl LeaseId {
    /// A name for files of the attempt. The epoch alone is not enough: the members of a gang get theirs from one command. Names from users are
    /// never paths, so the task's is hashed.
    pub fn file_name(&self) -> String {
        let digest = Sha256::digest(self.task_id.as_bytes());
        let tail: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{tail}", self.epoch)
    }
}

impl LeaseId {
    /// Of a message.
    pub fn of(lease: &Lease) -> Self {
        Self { task_id: lease.get_task_id().to_owned(), epoch: lease.get_epoch() }
    }

    /// As a message.
    pub fn message(&self) -> Lease {
        let mut lease = Lease::new();
        lease.set_task_id(self.task_id.clone());
        lease.set_epoch(self.epoch);
        lease
    }
}

/// Settings that do not change while a worker lives.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tasks at once.
    pub slots: u32,
    /// From SIGTERM to SIGKILL.
    pub stop_grace_ms: u64,
    /// TTL until a leader names one.
    pub lease_ttl_ms: u64,
}

/// How a process (or the attempt to start one) ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// 0: success; 128 + n: killed by signal n.
    pub code: i32,
    /// One line; empty on success.
    pub reason: String,
    /// JSON or "".
    pub result_data: String,
    /// This machine lacks what the task needs; another one may have it.
    pub node_failed: bool,
    /// Where the attempt's log is kept; "" if it has none.
    pub log_artifact: String,
}

/// What the worker tells about an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// COMPLETED or FAILED.
    pub status: TaskStatus,
    /// See `Exit`; 75 is tried again whatever the number of retries.
    pub exit_code: i32,
    /// One line; empty on success.
    pub reason: String,
    /// JSON or "".
    pub result_data: String,
    /// This machine lacks what the task needs; another one may have it.
    pub node_failed: bool,
    /// Where the attempt's log is kept; "" if it has none.
    pub log_artifact: String,
}

/// Why a process is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No acknowledged renewal for ⅔ TTL.
    Fenced,
    /// The lease is somebody else's.
    Revoked,
    /// Somebody cancelled the task.
    Cancelled,
    /// The worker leaves.
    Drained,
    /// run_timeout_ms of the task, this long.
    TimedOut(u64),
}

impl std::fmt::Display for Why {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fenced => out.write_str("fenced: no acknowledged renewal for two thirds of the lease"),
            Self::Revoked => out.write_str("the lease was given to another attempt"),
            Self::Cancelled => out.write_str("cancelled"),
            Self::Drained => out.write_str("drained"),
            Self::TimedOut(ms) => write!(out, "ran longer than run_timeout_ms = {ms}"),
        }
    }
}

/// SIGTERM or SIGKILL, to the whole process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// Ask.
    Terminate,
    /// Force.
    Kill,
}

/// How a start or a report was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken, now or before.
    Done,
    /// The lease is not open (any more).
    Stale,
    /// The control plane will never take it; why.
    Refused(String),
    /// Nobody answered.
    Unavailable,
}

/// What a step is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// The answer to `Output::Beat` with this number.
    BeatAnswered {
        /// Of the beat.
        number: u64,
        /// The answer.
        answer: Box<HeartbeatResponse>,
    },
    /// No answer to it. `refused`: this node has a newer incarnation elsewhere.
    BeatFailed {
        /// Of the beat.
        number: u64,
        /// The leader's words, if it said no rather than nothing.
        refused: Option<String>,
    },
    /// The answer to `Output::Poll`; None: it failed.
    Polled {
        /// Tasks of this node that wait for a start.
        tasks: Option<Vec<Task>>,
    },
    /// The answer to `Output::ConfirmStart`.
    StartAnswered {
        /// The attempt.
        lease: LeaseId,
        /// How.
        answer: Answer,
    },
    /// The process group is gone, or was never started.
    Exited {
        /// The attempt.
        lease: LeaseId,
        /// How.
        exit: Exit,
    },
    /// The answer to `Output::Report`.
    ReportAnswered {
        /// The attempt.
        lease: LeaseId,
        /// How.
        answer: Answer,
    },
    /// Somebody else learned that the lease is not open: a gradient was refused.
    Stale {
        /// The attempt.
        lease: LeaseId,
    },
    /// Leave in good order: what runs is stopped and given back.
    Drain,
    /// The same once nothing runs any more, or this time has passed.
    Leave {
        /// How long tasks may go on, in milliseconds.
        wait_ms: u64,
    },
}

/// What a step wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a heartbeat now, and answer with its number. It counts as sent at this step's time.
    Beat {
        /// Comes back.
        number: u64,
        /// Leases to renew.
        held: Vec<LeaseId>,
        /// What this worker is; 0 before it knows.
        incarnation: u64,
        /// The description of the node goes along.
        describe: bool,
        /// How long it may take, in milliseconds.
        timeout_ms: u64,
    },
    /// Ask for tasks and answer `Polled`.
    Poll {
        /// Free slots.
        max_tasks: u32,
        /// Of this worker.
        incarnation: u64,
    },
    /// Tell that the task is about to run and answer `StartAnswered`.
    ConfirmStart {
        /// The attempt.
        lease: LeaseId,
    },
    /// Start it and answer `Exited` when its process group is gone.
    Launch {
        /// The attempt.
        lease: LeaseId,
        /// The task.
        task: Box<Task>,
    },
    /// Signal the process group. With Kill for `Fenced` and `Revoked`, also refuse what the process still sends.
    Stop {
        /// The attempt.
        lease: LeaseId,
        /// Which.
        signal: StopSignal,
        /// Why.
        why: Why,
    },
    /// Tell the result and answer `ReportAnswered`.
    Report {
        /// The attempt.
        lease: LeaseId,
        /// The result.
        report: Report,
    },
    /// The attempt is over; clean up.
    Forget {
        /// The attempt.
        lease: LeaseId,
    },
    /// All is done. Deregister (if `error` is None) and end.
    Finished {
        /// Why the worker cannot go on.
        error: Option<String>,
        /// To deregister.
        incarnation: u64,
    },
    /// Step again at this time at the latest.
    WakeAt(Millis),
}
