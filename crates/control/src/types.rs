//! What goes into a step of the leader's loops, and what comes out.

use raftgrid_manifest::OverQuota;
use raftgrid_proto::v1::{Command, CommandReply, CommitModel};

/// The leader's monotonic clock, in milliseconds. Only differences mean anything.
pub type Millis = u64;

/// Liveness and pacing. Presets scale it; see docs/operations.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Interval that a worker with leases is told.
    pub beat_ms: u64,
    /// Missed beats until a node is UNKNOWN.
    pub unknown_after_beats: u64,
    /// Time without a renewal until a lease is expired.
    pub lease_ttl_ms: u64,
    /// A new leader expires nobody for this long: twice the TTL.
    pub election_grace_ms: u64,
    /// From a cancel's STOPPING to FAILED(CANCELLED) without a word of the worker.
    pub cancel_grace_ms: u64,
    /// First pause after a failure; doubled for each further one.
    pub backoff_ms: u64,
    /// Longest pause.
    pub backoff_ms_max: u64,
    /// The seed of the jitter that goes into commands.
    pub jitter_seed: u64,
}

impl Config {
    /// One machine, fast fail-over: beat 0.25 s, UNKNOWN 1 s (4 beats), TTL 3 s, grace 6 s.
    pub fn local() -> Self {
        Self {
            beat_ms: 250,
            unknown_after_beats: 4,
            lease_ttl_ms: 3_000,
            election_grace_ms: 6_000,
            cancel_grace_ms: 5_000,
            backoff_ms: 250,
            backoff_ms_max: 5_000,
            jitter_seed: 0,
        }
    }

    /// A data centre: beat 1 s, UNKNOWN after 3, TTL 15 s, grace 30 s.
    pub fn lan() -> Self {
        Self {
            beat_ms: 1_000,
            unknown_after_beats: 3,
            lease_ttl_ms: 15_000,
            election_grace_ms: 30_000,
            cancel_grace_ms: 20_000,
            backoff_ms: 1_000,
            backoff_ms_max: 60_000,
            jitter_seed: 0,
        }
    }
}

/// A heartbeat as the leader got it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beat {
    /// The node.
    pub node_id: String,
    /// 0: an old agent, which has none.
    pub boot_nonce: u64,
    /// Rises from process to process of the node; 0: an old agent.
    pub generation: u64,
    /// What the worker believes; 0 before it knows.
    pub incarnation: u64,
    /// (task id, lease epoch) that it asks to renew. An old agent names none: all of its node's leases are meant.
    pub held: Vec<(String, u64)>,
    /// Share of the cores in use, 0..=1.
    pub cpu_usage: f64,
    /// Share of the memory in use, 0..=1.
    pub memory_usage: f64,
    /// What the node's own checks found: it is UNHEALTHY while this is not empty.
    pub problem: String,
    /// Description for a registration; None: only the id is known.
    pub node: Option<raftgrid_proto::v1::Node>,
}

/// The answer to a beat, given only after a read index that began after the beat's arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeatAnswer {
    /// The node's incarnation.
    pub incarnation: u64,
    /// When to beat next.
    pub next_beat_ms: u32,
    /// Time to live of a renewed lease.
    pub lease_ttl_ms: u32,
    /// No longer open: kill.
    pub revoked: Vec<(String, u64)>,
    /// Being cancelled: stop with grace, then report.
    pub stopping: Vec<(String, u64)>,
    /// Unknown here as yet: keep and ask again.
    pub not_renewed: Vec<(String, u64)>,
    /// The node has a newer process: nothing else counts.
    pub overtaken: bool,
}

/// Why a waiting task is not placed, as the leader's scheduler sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// In one line.
    pub summary: String,
    /// One line each: quota, share, gang, holds, avoided nodes, then for each node the first thing that keeps the task away.
    pub reasons: Vec<String>,
    /// Its queue; "": the default one.
    pub queue: String,
    /// Among the waiting tasks of its queue, from 1; 0: too far back to be counted.
    pub position: u64,
    /// Of a gang: (least number of members, how many would fit now).
    pub gang: Option<(u32, u32)>,
    /// The limit of its queue that it waits for.
    pub quota: Option<OverQuota>,
    /// No registered node could ever run it.
    pub never: bool,
}

/// What a step is told.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a beat with a description is rare, and inputs live for one step")]
pub enum Input {
    /// A heartbeat arrived. `ticket` rises by arrival.
    Beat {
        /// Names it in `QuorumConfirmed` and `AnswerBeat`.
        ticket: u64,
        /// Its content.
        beat: Beat,
    },
    /// A read index that began after the arrival of every beat up to `ticket` has succeeded.
    QuorumConfirmed {
        /// The last beat that it covers.
        ticket: u64,
    },
    /// What became of `Action::Propose` with this tag. None: not accepted, or outcome unknown; the step looks at the rows again.
    Proposed {
        /// Of the action.
        tag: u64,
        /// One reply a command.
        replies: Option<Vec<CommandReply>>,
    },
    /// Somebody asks why a task waits.
    Explain {
        /// Names it in `Explained`.
        ticket: u64,
        /// The task.
        task_id: String,
    },
    /// The sum of a sealed round is durable; the command is complete with receipts.
    Aggregated {
        /// The job.
        job_id: String,
        /// The round that was summed.
        round: u64,
        /// The command to propose, or why there is none (the step orders it again after a pause).
        result: Result<Box<CommitModel>, String>,
    },
}

/// What a step wants done.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Propose these commands as one batch and answer `Proposed`.
    Propose {
        /// Comes back.
        tag: u64,
        /// In order.
        commands: Vec<Command>,
    },
    /// Sum a sealed round off the apply thread and answer `Aggregated`.
    Aggregate {
        /// The job.
        job_id: String,
        /// The sealed round.
        round: u64,
    },
    /// Answer a heartbeat.
    AnswerBeat {
        /// Of the beat.
        ticket: u64,
        /// The answer; None: no quorum stands behind this leader, answer UNAVAILABLE.
        answer: Option<BeatAnswer>,
    },
    /// Answer `Input::Explain`.
    Explained {
        /// Of the question.
        ticket: u64,
        /// None: the task is not waiting for a node; the rows tell the rest.
        explanation: Option<Box<Explanation>>,
    },
    /// Step again at this time at the latest.
    WakeAt(Millis),
}
