//! What a worker asks of the control plane. Brought by `agent` over gRPC, by the simulator without.

use std::io::{Read, Seek};
use std::time::Duration;

use raftgrid_proto::v1::*;

/// A body that can be sent again from its start.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlaneError {
    /// Nobody answered, or nobody leads: a retry helps.
    #[error("failed to reach the control plane: {0}")]
    Unavailable(String),
    /// The lease belongs to another attempt: stop.
    #[error("failed: STALE_LEASE: {0}")]
    StaleLease(String),
    /// The state does not allow it. Of a heartbeat: a newer incarnation of this node exists.
    #[error("failed: {0}")]
    Precondition(String),
    /// No such thing.
    #[error("failed to find it: {0}")]
    NotFound(String),
    /// The request is wrong; a retry does not help.
    #[error("failed: {0}")]
    Invalid(String),
    /// The server does not have this call.
    #[error("failed: not implemented: {0}")]
    Unimplemented(String),
    /// Something broke, here or there.
    #[error("failed: {0}")]
    Internal(String),
}

impl PlaneError {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::StaleLease(_)
            | Self::Precondition(_)
            | Self::NotFound(_)
            | Self::Invalid(_)
            | Self::Unimplemented(_)
            | Self::Internal(_) => false,
        }
    }
}

/// What the receiver of a stream wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// The next chunk.
    Continue,
    /// Nothing more: it has the bytes already.
    Enough,
}

/// Takes one chunk of a model.
pub type ModelSink<'a> = &'a mut dyn FnMut(&ModelChunk) -> Result<Fetch, PlaneError>;

/// The control plane as a worker sees it. Every call blocks; heartbeats, other small calls and bytes each have a connection of their
/// own, so that none waits for another.
pub trait ControlPlane: Send + Sync {
    /// One attempt at one replica; the next call asks the next one after a failure.
    fn heartbeat(&self, request: &HeartbeatRequest, timeout: Duration) -> Result<HeartbeatResponse, PlaneError>;
    /// One attempt; waits up to `wait_ms` for a task.
    fn poll(&self, request: &PollTaskRequest) -> Result<PollTaskResponse, PlaneError>;
    /// The task is about to run.
    fn start_task(&self, request: &StartTaskRequest, timeout: Duration) -> Result<StartTaskResponse, PlaneError>;
    /// The result of an attempt.
    fn report(
        &self,
        request: &ReportTaskResultRequest,
        timeout: Duration,
    ) -> Result<ReportTaskResultResponse, PlaneError>;
    /// A piece of live log; an aid, not a promise.
    fn append_log(&self, request: &AppendLogRequest) -> Result<AppendLogResponse, PlaneError>;
    /// This worker leaves.
    fn deregister(&self, request: &DeregisterRequest, timeout: Duration) -> Result<(), PlaneError>;
    /// A log that is kept under an id, which is returned. Takes `LOG_UPLOAD_MS` at most.
    fn put_log(&self, _bytes: Vec<u8>) -> Result<String, PlaneError> {
        Err(PlaneError::Unimplemented("logs cannot be kept".to_owned()))
    }
    /// A job, for its trainers' environment.
    fn job(&self, job_id: &str) -> Result<Job, PlaneError>;
    /// One attempt; waits up to `wait_ms` for a (round, shard).
    fn next_shards(&self, request: &NextShardsRequest) -> Result<NextShardsResponse, PlaneError>;
    /// A model, chunk by chunk, each verified. One attempt from `request.offset` on.
    fn fetch_model(&self, request: &ModelRequest, sink: ModelSink<'_>) -> Result<(), PlaneError>;
    /// A gradient: `head` has everything but data; the body is `head.total_bytes` long. One attempt.
    fn send_gradients(&self, head: &GradientChunk, body: &mut dyn ReadSeek) -> Result<Ack, PlaneError>;
    /// Model 0, like a gradient.
    fn init_model(&self, head: &InitModelChunk, body: &mut dyn ReadSeek) -> Result<Ack, PlaneError>;
    /// An artifact into `target`, verified against its digest, which is returned (32 bytes).
    fn get_artifact(&self, artifact: &str, target: &mut dyn std::io::Write) -> Result<Vec<u8>, PlaneError>;
    /// Keeps `body` under a name; returns when it is durable, with the artifact's id. The same bytes under the same name are the same artifact.
    fn put_artifact(&self, name: &str, _body: &mut dyn ReadSeek) -> Result<String, PlaneError> {
        Err(PlaneError::Unimplemented(format!("artifact {name} cannot be kept")))
    }
}
