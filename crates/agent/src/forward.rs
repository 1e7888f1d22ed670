//! Trying again while the control plane moves: until an answer, the fence, or the end of the caller's patience.

use std::sync::Arc;
use std::time::Duration;

use grpcio::{Deadline, RpcStatus, RpcStatusCode};
use raftgrid_rpc::status::status;
use raftgrid_worker::{PlaneError, TaskContext, TaskTable};

use crate::limits::RETRY;

/// One caller: its task and how long it waits.
pub(crate) struct Caller {
    pub(crate) task: Arc<TaskContext>,
    pub(crate) deadline: Deadline,
}

/// The status of a task that may not be passed on.
pub(crate) fn stale(task: &TaskContext, why: &str) -> RpcStatus {
    let message = format!("STALE_LEASE: task {} epoch {}: {why}", task.task_id, task.epoch);
    status(RpcStatusCode::FAILED_PRECONDITION, message)
}

/// Calls `attempt` until it gives a final answer. STALE_LEASE is told to the worker, which kills the process.
pub(crate) fn persistently<T>(
    caller: &Caller,
    table: &TaskTable,
    mut attempt: impl FnMut() -> Result<T, PlaneError>,
) -> Result<T, RpcStatus> {
    let mut pause = RETRY.0;
    loop {
        if caller.task.is_fenced() {
            return Err(stale(&caller.task, "this attempt lost its lease"));
        }
        let error = match attempt() {
            // The lease may have gone while the call was under way: its answer is another attempt's business.
            Ok(_) if caller.task.is_fenced() => return Err(stale(&caller.task, "this attempt lost its lease")),
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if let PlaneError::StaleLease(message) = &error {
            table.stale(&caller.task);
            return Err(stale(&caller.task, message));
        }
        if !error.retryable() {
            return Err(of_plane(&error));
        }
        if caller.deadline.exceeded() {
            return Err(of_plane(&error));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(RETRY.1).max(Duration::from_millis(1));
    }
}

/// The control plane's refusal for Python.
pub(crate) fn of_plane(error: &PlaneError) -> RpcStatus {
    let (code, message) = match error {
        PlaneError::Unavailable(message) => (RpcStatusCode::UNAVAILABLE, message),
        PlaneError::StaleLease(message) => {
            return status(RpcStatusCode::FAILED_PRECONDITION, format!("STALE_LEASE: {message}"));
        }
        PlaneError::Precondition(message) => (RpcStatusCode::FAILED_PRECONDITION, message),
        PlaneError::NotFound(message) => (RpcStatusCode::NOT_FOUND, message),
        PlaneError::Invalid(message) => (RpcStatusCode::INVALID_ARGUMENT, message),
        PlaneError::Unimplemented(message) => (RpcStatusCode::UNIMPLEMENTED, message),
        PlaneError::Internal(message) => (RpcStatusCode::INTERNAL, message),
    };
    status(code, message.clone())
}
