//! What clients and workers ask of a node, through the replica's ports, and what they are told.

use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_manifest::views;
use raftgrid_proto::v1::{
    Command, CommandReply, HeartbeatRequest, HeartbeatResponse, PollTaskRequest, PollTaskResponse, TaskRow,
};
use raftgrid_replica::ports::{CallError, Commands, Freshness, Leader, Reads};
use raftgrid_replica::Replica;

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
        }
    }

    /// The leader that it names: (named, id); id 0: the node knows none.
    pub fn leader(&self) -> Option<u64> {
        let error = match self {
            Self::Command(result) => result.as_ref().err(),
            Self::Read(result) => result.as_ref().err(),
            Self::Beat(result) => result.as_ref().err(),
            Self::Poll(result) => result.as_ref().err(),
        };
        match error {
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

/// Serves a call on `replica`; its answer appears in `answers` at some time, or never.
pub fn serve(replica: &Replica, answers: &Answers, caller: Caller, number: u64, request: Request) {
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
    }
}
