//! What a replica offers to its transports (`Commands`, `Reads`, `Bytes`, `Leader`), and what it needs of them (`Peers`).
//!
//! Everything is by callback, called once, from any thread; a callback must not block. `api` turns them into futures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use raftgrid_manifest::watched::Watched;
use raftgrid_manifest::Rows;
use raftgrid_proto::v1::{
    Ack, Combine, Command, CommandReply, ExplainTaskResponse, HeartbeatRequest, HeartbeatResponse, LeaderResponse,
    MembersResponse, NextShardsRequest, NextShardsResponse, Node, Optimizer, PollTaskRequest, PollTaskResponse,
    Receipt, StateResponse, StatsResponse,
};

/// Called once with the outcome.
pub type Callback<T> = Box<dyn FnOnce(Result<T, CallError>) + Send>;

/// Who asks. Tokens come with a later release; the place is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Whose request it is; "" until there are tokens.
    pub principal: String,
}

/// Why a call was not served. Each maps to one gRPC status in `api`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    /// Only the leader serves this; `api` forwards once.
    #[error("failed to serve the call: this replica does not lead")]
    NotLeader {
        /// The leader as known here; 0: none.
        leader: u64,
    },
    /// UNAVAILABLE: no leader, no quorum, shutting down. Try again.
    #[error("failed to reach a decision: {0}; try again")]
    Unavailable(String),
    /// RESOURCE_EXHAUSTED: a queue is full or a disk is low. Try again later.
    #[error("failed to accept the call: {0}; try again later")]
    Exhausted(String),
    /// The command may or may not have been recorded; the same request id gives the outcome.
    #[error("failed to learn the outcome; try again with the same request id")]
    Unknown,
    /// INVALID_ARGUMENT.
    #[error("{0}")]
    Invalid(String),
    /// FAILED_PRECONDITION.
    #[error("{0}")]
    Precondition(String),
    /// NOT_FOUND.
    #[error("{0}")]
    NotFound(String),
    /// INTERNAL or DATA_LOSS: a person must look.
    #[error("{0}")]
    Internal(String),
}

/// Replicated writes.
pub trait Commands: Send + Sync {
    /// Proposes the commands as one batch. On a follower the batch is forwarded to the leader, once. One reply a command.
    fn propose(&self, commands: Vec<Command>, done: Callback<Vec<CommandReply>>);
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Everything that was acknowledged before: a read index is confirmed by a quorum first. A replica that does not lead asks the leader for
    /// one; `NotLeader` if it cannot, or is far behind.
    Linearizable,
    /// The same without a question while the leader's lease holds. Off the leader: `NotLeader`. Leases that are off: `Precondition`.
    Lease,
    /// Whatever is applied here.
    Local,
}

/// Rows as of one applied position.
#[derive(Clone)]
pub struct ReadView {
    /// The rows.
    pub rows: Arc<dyn Rows + Send + Sync>,
    /// Position up to which everything is in them.
    pub position: u64,
    /// Of local reads: since this replica last heard of the leader (leading: of a quorum), in milliseconds. Else 0.
    pub age_ms: u64,
}

/// Reads of the replicated state.
pub trait Reads: Send + Sync {
    /// Rows, fresh as asked.
    fn read(&self, freshness: Freshness, done: Callback<ReadView>);
    /// Calls back when something was applied after `position` here that changes one of the rows `watched` (None: anything), or after
    /// `timeout`, whichever is first. The value is the newest applied position. For watches: read, then wait, then read again.
    fn changed_after(
        &self,
        position: u64,
        watched: Option<Watched>,
        timeout: Duration,
        done: Box<dyn FnOnce(u64) + Send>,
    );
}

/// Calls that live in the leader's memory. On a follower, but for `next_shards` and `nodes`: `NotLeader`.
pub trait Leader: Send + Sync {
    /// A heartbeat; answered after a read index that began after its arrival.
    fn heartbeat(&self, request: HeartbeatRequest, done: Callback<HeartbeatResponse>);
    /// Tasks assigned to the node; waits up to `wait_ms` for one.
    fn poll_task(&self, request: PollTaskRequest, done: Callback<PollTaskResponse>);
    /// (round, shard) pairs leased to the trainer; waits up to `wait_ms` for one. Served by any replica.
    fn next_shards(&self, request: NextShardsRequest, done: Callback<NextShardsResponse>);
    /// Why a task that waits for a node is not placed, as the leader's scheduler sees it. None: it does not wait for one; the rows tell the rest.
    fn explain(&self, task_id: String, done: Callback<Option<ExplainTaskResponse>>);
    /// Node rows with the leader's knowledge of last heartbeats filled in.
    fn nodes(&self, done: Callback<Vec<Node>>);
}

/// What an upload is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A gradient; `finish` commits it into the ledger.
    Gradient(GradientMeta),
    /// Model 0; `finish` commits it, or compares with the one that is there.
    InitModel(InitModelMeta),
    /// An artifact under a name ("" for none); `finish` commits it.
    Artifact(ArtifactMeta),
    /// A value of a key; `finish` makes it durable, and the command that sets the key commits it.
    Value,
}

/// Of an artifact.
#[derive(Clone, Debug, Default)]
pub struct ArtifactMeta {
    /// Name or "".
    pub name: String,
    /// bundle, model, checkpoint, file.
    pub kind: String,
    /// Other bytes than the name's newest version's are its next one; else they are refused.
    pub versioned: bool,
    /// With `versioned`: older versions than so many go; 0: none.
    pub keep: u32,
    /// UUIDv7, or "": a second try with the same gets the first one's answer.
    pub request_id: String,
}

/// Of a gradient. With `lease_epoch` 0 (a client without leases) job, round, shard, task and epoch are resolved by the worker's task and
/// the model that it was given.
#[derive(Clone, Debug, Default)]
pub struct GradientMeta {
    /// Job id; may be "" for old clients.
    pub job_id: String,
    /// Node id of the sender.
    pub worker_id: String,
    /// Round.
    pub round: u64,
    /// Shard.
    pub shard: u32,
    /// Trainer task.
    pub task_id: String,
    /// Its lease.
    pub lease_epoch: u64,
    /// Weight in the mean.
    pub weight: f64,
    /// JSON object of numbers, or empty.
    pub metrics_json: Vec<u8>,
    /// Artifact id of the shard's carried state, or "".
    pub state_artifact: String,
    /// Numeric class, opaque.
    pub numeric_class: Vec<u8>,
    /// The model that it was computed over; None: the sender does not say, it is that of the round.
    pub model_version: Option<u64>,
}

/// Of model 0.
#[derive(Clone, Debug, Default)]
pub struct InitModelMeta {
    /// Job id.
    pub job_id: String,
    /// The trainer.
    pub task_id: String,
    /// Its lease.
    pub lease_epoch: u64,
    /// What the leader runs over the mean.
    pub optimizer: Optimizer,
    /// How contributions become one; None: as the job's spec says.
    pub combine: Option<Combine>,
    /// Numeric class, opaque.
    pub numeric_class: Vec<u8>,
}

/// How an upload ended.
#[derive(Clone, Debug)]
pub enum Uploaded {
    /// Of gradients and model 0: what the sender is told.
    Ack(Ack),
    /// Of artifacts.
    Artifact {
        /// Its id.
        artifact_id: u64,
        /// SHA-256.
        digest: [u8; 32],
        /// Of its name; 0: it has none, or names have no versions yet.
        version: u64,
        /// The bytes were there before under this name.
        existing: bool,
    },
    /// Of values.
    Value {
        /// Begun for it.
        artifact_id: u64,
        /// Of its fragments.
        receipts: Vec<Receipt>,
        /// SHA-256.
        digest: [u8; 32],
    },
}

/// Bytes on their way in. Dropping it abandons the upload.
pub trait Upload: Send {
    /// The next bytes, already verified against their chunk's checksum. Blocks for the disk only; call it off the gRPC threads.
    fn write(&mut self, data: &[u8]) -> Result<(), CallError>;
    /// The end: checks total and digest (if announced), makes F+1 copies durable, commits, then answers.
    fn finish(self: Box<Self>, digest: Option<Vec<u8>>, done: Callback<Uploaded>);
}

/// Bytes on their way out.
pub trait Download: Send {
    /// Size in bytes.
    fn total_bytes(&self) -> u64;
    /// SHA-256 of the whole.
    fn digest(&self) -> [u8; 32];
    /// Artifact id.
    fn artifact_id(&self) -> u64;
    /// Fills `buffer` from `offset`, whole unless the end is nearer; verified. Blocks; call it off the gRPC threads.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError>;
}

/// Which model is meant.
#[derive(Clone, Debug, Default)]
pub struct ModelQuery {
    /// Job id; "" : by the caller's lease, or else the only running train job.
    pub job_id: String,
    /// Task of the caller; "" if not known.
    pub task_id: String,
    /// Node of the caller, for clients without leases; "" if not known.
    pub node_id: String,
    /// Lease of the caller; 0 if not known.
    pub lease_epoch: u64,
    /// None: the newest.
    pub version: Option<u64>,
}

/// Bytes of models, gradients and artifacts.
pub trait Bytes: Send + Sync {
    /// Starts an upload. `total_bytes`/`digest` as announced in the first chunk, if they were. Blocks; call it off the gRPC threads.
    fn begin(
        &self,
        caller: &Caller,
        purpose: Purpose,
        total_bytes: Option<u64>,
        digest: Option<Vec<u8>>,
    ) -> Result<Box<dyn Upload>, CallError>;
    /// Opens a model: (version, bytes). A client without leases is remembered with its task. Blocks.
    fn open_model(&self, query: &ModelQuery) -> Result<(u64, Box<dyn Download>), CallError>;
    /// Opens an artifact by id or name (`JOB/model@latest`, `JOB/model@7`). Blocks.
    fn open_artifact(&self, artifact: &str) -> Result<Box<dyn Download>, CallError>;
    /// Bytes that were made durable and are not committed are not needed after all. Best effort: else they expire. Blocks.
    fn give_up(&self, artifact_id: u64) {
        let _ = artifact_id;
    }

    /// Sums a committed round again from what the job retained. Blocks.
    fn recompute(&self, job_id: &str, round: u64) -> Result<Recomputed, CallError>;
    /// Stores a fragment for a peer, fsynced when it returns; for `peer`. `digest` is the SHA-256 of `data`'s whole stream.
    fn fragment_sink(
        &self,
        artifact_id: u64,
        fragment: u32,
        total_bytes: u64,
        digest: [u8; 32],
    ) -> Result<Box<dyn FragmentSink>, CallError>;
    /// Opens a fragment kept here; for `peer`.
    fn open_fragment(&self, artifact_id: u64, fragment: u32) -> Result<Box<dyn Download>, CallError>;
}

/// A round that was summed again.
#[derive(Clone, Debug)]
pub struct Recomputed {
    /// Here.
    pub node_id: u64,
    /// In the sum.
    pub contributions: u32,
    /// SHA-256 of the next model, as computed now.
    pub model_digest: [u8; 32],
    /// SHA-256 of the next state, as computed now.
    pub state_digest: [u8; 32],
    /// SHA-256 of the next model in the ledger.
    pub ledger_model_digest: Vec<u8>,
    /// SHA-256 of the next state in the ledger.
    pub ledger_state_digest: Vec<u8>,
}

/// A fragment on its way in from a peer. Dropping it abandons the file.
pub trait FragmentSink: Send {
    /// The next bytes.
    fn write(&mut self, data: &[u8]) -> Result<(), CallError>;
    /// Verifies size and digest, fsyncs file and directory.
    fn finish(self: Box<Self>) -> Result<(), CallError>;
}

/// How an attempt at a peer goes on: a peer that is slow is told from one that is silent by it.
#[derive(Debug, Default)]
pub struct Steps {
    made: AtomicU64,
    unwanted: AtomicBool,
}

impl Steps {
    /// The attempt has moved on. An error: nobody waits for it any more, it should end.
    pub fn step(&self) -> Result<(), CallError> {
        self.made.fetch_add(1, Ordering::Relaxed);
        if self.unwanted.load(Ordering::Relaxed) {
            return Err(CallError::Unavailable("another peer was faster".to_owned()));
        }
        Ok(())
    }

    /// Steps so far.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Nobody waits for the attempt any more.
    pub fn give_up(&self) {
        self.unwanted.store(true, Ordering::Relaxed);
    }
}

/// Something that is tried at one peer or another. Blocks.
pub type Attempt = Arc<dyn Fn(u64, &Steps) -> Result<(), CallError> + Send + Sync>;

/// A peer, and what came of the attempt there.
pub type Attempted = (u64, Result<(), CallError>);

/// What a replica needs of its peers; brought by `peer`. All of it blocks; called off the raft and apply threads.
pub trait Peers: Send + Sync {
    /// Streams a fragment to `node` and returns when it is durable there (its receipt was right).
    fn put_fragment(
        &self,
        node: u64,
        artifact_id: u64,
        fragment: u32,
        digest: [u8; 32],
        data: &mut dyn Download,
    ) -> Result<(), CallError>;
    /// Fetches a fragment from `node` into `sink`: each chunk verified, no byte missing. Whoever asks hashes the whole, and knows what it must be.
    fn get_fragment(
        &self,
        node: u64,
        artifact_id: u64,
        fragment: u32,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError>;
    /// Makes the attempt at `nodes`, in that order, until it succeeded at `wanted` of them; what came of each that was begun. One after
    /// another here. A real network begins the next one beside a peer that has made no step for `patience`, and does not wait for those
    /// that are still silent in the end: they are among the outcomes as `Unavailable`.
    fn first_of(&self, nodes: &[u64], wanted: usize, patience: Duration, attempt: Attempt) -> Vec<Attempted> {
        let _ = patience;
        let (mut outcomes, mut good) = (Vec::new(), 0);
        for node in nodes {
            if good == wanted {
                break;
            }
            let outcome = attempt(*node, &Steps::default());
            good += usize::from(outcome.is_ok());
            outcomes.push((*node, outcome));
        }
        outcomes
    }
    /// Asks `node`, which leads, for a read index (`READ_INDEX_PATH`). Does not block; `done` is called once, by the end of `timeout`.
    /// A network that cannot ask says so with `NotLeader`: the caller is sent to the leader.
    fn read_index(&self, node: u64, timeout: Duration, done: Callback<u64>) {
        let _ = timeout;
        done(Err(CallError::NotLeader { leader: node }));
    }
    /// A unary call to `node`: full method path and encoded request; the encoded answer. The path `raftgrid/propose` carries a
    /// CommandBatch and answers the concatenation of length-delimited CommandReply.
    fn forward(&self, node: u64, method: &str, request: Vec<u8>, timeout: Duration) -> Result<Vec<u8>, CallError>;
    /// The same, for a caller that may block and need not: `done` is called once, before this returns or later.
    fn forward_then(&self, node: u64, method: &str, request: Vec<u8>, timeout: Duration, done: Callback<Vec<u8>>) {
        done(self.forward(node, method, request, timeout));
    }
}

/// A snapshot on its way out; its files stay while it lives.
pub trait SnapshotOut: Send {
    /// (index, term)
    fn stands(&self) -> (u64, u64);
    /// (plain name, bytes) of all files, in the order in which they are sent.
    fn files(&self) -> Vec<(String, u64)>;
    /// `length` bytes of `file` from `offset`, fewer at its end. Blocks.
    fn read(&mut self, file: &str, offset: u64, length: usize) -> Result<Vec<u8>, CallError>;
}

/// What a membership call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberVerb {
    /// A new replica, without a vote; promoted when it has caught up.
    AddLearner,
    /// A vote for a replica that is a member, or a new voter.
    AddVoter,
    /// A voter becomes a learner.
    Demote,
    /// A member is taken out.
    Remove,
    /// A newcomer takes the place of a voter.
    Replace,
}

/// A change of membership with the member's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// What to do.
    pub verb: MemberVerb,
    /// To whom; never 0.
    pub node_id: u64,
    /// host:port of its Raft port; "" if it is a member already.
    pub raft_address: String,
    /// host:port of its client port; "" if it is a member already.
    pub client_address: String,
    /// For a retry.
    pub request_id: String,
    /// With `Replace`: who goes; else 0.
    pub replaces: u64,
    /// Take it out although bytes lose redundancy.
    pub force: bool,
}

/// Calls about the group. None of them blocks.
pub trait Cluster: Send + Sync {
    /// This replica, as it sees itself.
    fn state(&self) -> StateResponse;
    /// Its counters.
    fn stats(&self) -> StatsResponse;
    /// The members as applied here; `match_index` is known on the leader only.
    fn members(&self) -> MembersResponse;
    /// The leader as known here; `node_id` 0: none.
    fn leader(&self) -> LeaderResponse;
    /// Makes a snapshot of this replica; answers its index.
    fn snapshot(&self, done: Callback<u64>);
    /// Opens the newest snapshot of this replica at or above `min_index`. Blocks; call it off the gRPC threads.
    fn open_snapshot(&self, min_index: u64) -> Result<Box<dyn SnapshotOut>, CallError> {
        Err(CallError::NotFound(format!("no snapshot at {min_index} or above is here")))
    }
    /// On the leader: changes the membership; answers the index at which it was applied.
    fn change_member(&self, change: MemberChange, done: Callback<u64>);
    /// On the leader: hands leadership to `to`; 0: to the one that is most caught up.
    fn transfer(&self, to: u64, done: Callback<()>);
    /// On the leader: confirms leadership with a quorum; answers the read index.
    fn verify_leader(&self, done: Callback<u64>);
    /// On the leader: answers an index when everything proposed before is applied here.
    fn barrier(&self, done: Callback<u64>);
    /// On the leader: moves cluster time to `unix_ms` (0: its wall clock), never back; answers (before, after) in milliseconds.
    fn set_time(&self, unix_ms: u64, done: Callback<(u64, u64)>);
    /// Ends this replica, after the answer has gone out.
    fn shutdown(&self);
}
