//! What clients and workers ask of a node, through the replica's ports, and what they are told.

use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_manifest::views;
use raftgrid_proto::v1::{
    Ack, Command, CommandReply, HeartbeatRequest, HeartbeatResponse, NextShardsRequest, NextShardsResponse,
    PollTaskRequest, PollTaskResponse, TaskRow,
};
use raftgrid_replica::ports::{
    self, Bytes, CallError, Commands, Freshness, Leader, ModelQuery, Purpose, Reads, Uploaded,
};
use raftgrid_replica::Replica;

use crate::digest::sha256;
use crate::hands::Work;
use crate::ports::all_of;

/// Bytes of one chunk of an upload: small, like everything that is uploaded here.
const CHUNK_BYTES: usize = 64;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A client, by number.
    Client(usize),
    /// A worker, by number.
    Worker(usize),
}

impl Caller {
    /// For the trace.
    pub fn number(self) -> u64 {
        match self {
            Self::Client(number) => number as u64,
            Self::Worker(number) => 1_000 + number as u64,
        }
    }
}

/// A call.
#[derive(Clone, Debug)]
pub enum Request {
    /// One command.
    Command(Box<Command>),
    /// A linearizable read of a task.
    Read(String),
    /// A heartbeat.
    Beat(Box<HeartbeatRequest>),
    /// A poll for tasks.
    Poll(PollTaskRequest),
    /// A poll of a trainer for shards.
    NextShards(NextShardsRequest),
    /// A model, whole.
    Model(Box<ModelQuery>),
    /// Model 0 or a gradient, whole: what it is for, and its bytes.
    Upload(Box<(Purpose, Vec<u8>)>),
}

impl Request {
    /// For the trace.
    pub fn code(&self) -> u64 {
        match self {
            Self::Command(_) => 1,
            Self::Read(_) => 2,
            Self::Beat(_) => 3,
            Self::Poll(_) => 4,
            Self::NextShards(_) => 5,
            Self::Model(_) => 6,
            Self::Upload(_) => 7,
        }
    }
}

/// Its answer.
#[derive(Clone, Debug)]
pub enum Response {
    /// Of `Command`.
    Command(Result<Box<CommandReply>, CallError>),
    /// Of `Read`: the row, and the position up to which it looked.
    Read(Result<(Option<Box<TaskRow>>, u64), CallError>),
    /// Of `Beat`.
    Beat(Result<Box<HeartbeatResponse>, CallError>),
    /// Of `Poll`.
    Poll(Result<PollTaskResponse, CallError>),
    /// Of `NextShards`.
    NextShards(Result<Box<NextShardsResponse>, CallError>),
    /// Of `Model`: version and bytes.
    Model(Result<(u64, Vec<u8>), CallError>),
    /// Of `Upload`.
    Upload(Result<Box<Ack>, CallError>),
}

impl Response {
    /// For the trace.
    pub fn code(&self) -> u64 {
        let of = |error: Option<&CallError>| match error {
            None => 0,
            Some(CallError::NotLeader { .. }) => 1,
            Some(CallError::Unavailable(_)) => 2,
            Some(CallError::Exhausted(_)) => 3,
            Some(CallError::Unknown) => 4,
            Some(CallError::Invalid(_)) => 5,
            Some(CallError::Precondition(_)) => 6,
            Some(CallError::NotFound(_)) => 7,
            Some(CallError::Internal(_)) => 8,
        };
        match self {
            Self::Command(Ok(reply)) => reply.position << 8 | reply.outcome as u64,
            Self::Read(Ok((row, position))) => position << 8 | u64::from(row.is_some()),
            Self::Command(result) => of(result.as_ref().err()),
            Self::Read(result) => of(result.as_ref().err()),
            Self::Beat(result) => of(result.as_ref().err()),
            Self::Poll(result) => of(result.as_ref().err()),
            Self::NextShards(result) => of(result.as_ref().err()),
            Self::Model(result) => of(result.as_ref().err()),
            Self::Upload(Ok(ack)) => ack.position << 8 | ack.outcome as u64,
            Self::Upload(result) => of(result.as_ref().err()),
        }
    }

    /// Why it was not served.
    pub fn error(&self) -> Option<&CallError> {
        match self {
            Self::Command(result) => result.as_ref().err(),
            Self::Read(result) => result.as_ref().err(),
            Self::Beat(result) => result.as_ref().err(),
            Self::Poll(result) => result.as_ref().err(),
            Self::NextShards(result) => result.as_ref().err(),
            Self::Model(result) => result.as_ref().err(),
            Self::Upload(result) => result.as_ref().err(),
        }
    }

    /// The leader that it names: (named, id); id 0: the node knows none.
    pub fn leader(&self) -> Option<u64> {
        match self.error() {
            Some(CallError::NotLeader { leader }) => Some(*leader),
            _ => None,
        }
    }
}

/// Answers that left a node's process, in order.
pub type Answers = Arc<Mutex<Vec<(Caller, u64, Response)>>>;

fn tell(answers: &Answers, caller: Caller, number: u64, response: Response) {
    answers.lock().unwrap_or_else(PoisonError::into_inner).push((caller, number, response));
}

/// Serves a call on `replica`; its answer appears in `answers` at some time, or never. What is given back waits for other replicas, and is to
/// be run as a job.
pub fn serve(replica: &Arc<Replica>, answers: &Answers, caller: Caller, number: u64, request: Request) -> Option<Work> {
    let answers = Arc::clone(answers);
    match request {
        Request::Command(command) => replica.propose(
            vec![*command],
            Box::new(move |replies| {
                let reply = replies.and_then(|mut replies| {
                    replies.pop().map(Box::new).ok_or_else(|| CallError::Internal("no reply".to_owned()))
                });
                tell(&answers, caller, number, Response::Command(reply));
            }),
        ),
        Request::Read(task) => replica.read(
            Freshness::Linearizable,
            Box::new(move |view| {
                let read = view.and_then(|view| {
                    let row = views::task_row(view.rows.as_ref(), &task);
                    let row = row.map_err(|error| CallError::Internal(error.to_string()))?;
                    Ok((row.map(Box::new), view.position))
                });
                tell(&answers, caller, number, Response::Read(read));
            }),
        ),
        Request::Beat(request) => replica.heartbeat(
            *request,
            Box::new(move |answer| tell(&answers, caller, number, Response::Beat(answer.map(Box::new)))),
        ),
        Request::Poll(request) => {
            replica.poll_task(request, Box::new(move |answer| tell(&answers, caller, number, Response::Poll(answer))))
        }
        Request::NextShards(request) => {
            let done = move |answer: Result<_, _>| {
                tell(&answers, caller, number, Response::NextShards(answer.map(Box::new)));
            };
            replica.next_shards(request, Box::new(done));
        }
        Request::Model(query) => {
            let replica = Arc::clone(replica);
            return Some(Box::new(move || {
                let model = replica
                    .open_model(&query)
                    .and_then(|(version, mut download)| Ok((version, all_of(download.as_mut())?)));
                tell(&answers, caller, number, Response::Model(model));
            }));
        }
        Request::Upload(upload) => {
            let (purpose, bytes) = *upload;
            let done = move |uploaded: Result<Uploaded, CallError>| {
                let ack = uploaded.and_then(|uploaded| match uploaded {
                    Uploaded::Ack(ack) => Ok(Box::new(ack)),
                    Uploaded::Artifact { .. } | Uploaded::Value { .. } => {
                        Err(CallError::Internal("not a tensor".to_owned()))
                    }
                });
                tell(&answers, caller, number, Response::Upload(ack));
            };
            take(replica, purpose, &bytes, Box::new(done));
        }
    }
    None
}

/// As `api` does, chunk by chunk; what follows the last one runs in a pool.
fn take(replica: &Replica, purpose: Purpose, bytes: &[u8], done: ports::Callback<Uploaded>) {
    let (total, digest) = (bytes.len() as u64, sha256(bytes).to_vec());
    let begun = replica.begin(&ports::Caller::default(), purpose, Some(total), Some(digest));
    let written = begun.and_then(|mut upload| {
        bytes.chunks(CHUNK_BYTES).try_for_each(|chunk| upload.write(chunk))?;
        Ok(upload)
    });
    match written {
        Ok(upload) => upload.finish(None, done),
        Err(error) => done(Err(error)),
    }
}
