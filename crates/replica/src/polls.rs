//! Long polls: tasks for a node (leader only), shards for a trainer (any replica).
//!
//! A poll looks at the rows, and if there is nothing it waits in the ring for a row that could matter, and looks again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protobuf::Message;
use raftgrid_driver::{RaftHandle, Role};
use raftgrid_manifest::watched::Watched;
use raftgrid_manifest::{keys, views, Rows, RowsError, Table};
use raftgrid_proto::v1::{
    Command, Command_oneof_kind, JobPhase, JobRow, NextShardsRequest, NextShardsResponse, PollTaskRequest,
    PollTaskResponse, Task, TaskRow, TaskStatus, TrainerReady,
};

use crate::clock::Clock;
use crate::handed_out::HandedOut;
use crate::limits::{HAND_OUT_AGAIN_MS, POLL_BYTES_MAX, POLL_TASKS_MAX, POLL_WAIT_MS_MAX};
use crate::models::job_of;
use crate::ports::{CallError, Callback, Commands, ModelQuery};
use crate::proposals::Proposals;
use crate::ring::Ring;
use crate::steps::steps_of;
use crate::views::Views;

/// Serves both polls.
pub(crate) struct Polls {
    /// Rows.
    pub views: Arc<dyn Views>,
    /// Changes.
    pub ring: Ring,
    /// Who leads.
    pub handle: RaftHandle,
    /// For `TrainerReady`.
    pub proposals: Arc<Proposals>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Attempts that polls have given out.
    pub handed_out: Mutex<HandedOut>,
}

/// The tables could not be read.
pub(crate) fn rows_failed(error: RowsError) -> CallError {
    CallError::Internal(error.to_string())
}

impl Polls {
    /// Tasks assigned to the node; see `ports::Leader`.
    pub(crate) fn poll_task(self: &Arc<Self>, request: PollTaskRequest, done: Callback<PollTaskResponse>) {
        let deadline = self.clock.monotonic_ms() + u64::from(request.wait_ms.min(POLL_WAIT_MS_MAX));
        self.poll_task_until(request, deadline, done);
    }

    fn poll_task_until(self: &Arc<Self>, request: PollTaskRequest, deadline: u64, done: Callback<PollTaskResponse>) {
        let status = self.handle.status();
        if status.role != Role::Leader {
            return done(Err(CallError::NotLeader { leader: status.leader }));
        }
        let (rows, position) = self.views.view();
        let tasks = match self.assigned(rows.as_ref(), &request) {
            Ok(tasks) => tasks,
            Err(error) => return done(Err(error)),
        };
        let now = self.clock.monotonic_ms();
        if !tasks.is_empty() || now >= deadline {
            let mut response = PollTaskResponse::new();
            if let Some(first) = tasks.first() {
                response.set_task(first.clone());
                response.set_has_task(true);
            }
            response.set_tasks(tasks.into());
            return done(Ok(response));
        }
        let polls = self.clone();
        let watched: Watched = vec![(Table::TaskByNode, keys::node_tasks(&request.node_id))];
        // A task that was handed out and not started must come again, and a leader that was deposed and cut off hears of no assignment: look
        // at least that often.
        let wait = (deadline - now).min(HAND_OUT_AGAIN_MS);
        self.ring.changed_after(
            position,
            Some(watched),
            Duration::from_millis(wait),
            Box::new(move |_| polls.poll_task_until(request, deadline, done)),
        );
    }

    fn assigned(&self, rows: &dyn Rows, request: &PollTaskRequest) -> Result<Vec<Task>, CallError> {
        let now = self.clock.monotonic_ms();
        let most = usize::try_from(request.max_tasks).unwrap_or(1).clamp(1, POLL_TASKS_MAX);
        let found = views::tasks_of_node(rows, &request.node_id).map_err(rows_failed)?;
        let mut handed_out = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        handed_out.forget_until(now);
        let (mut tasks, mut bytes) = (Vec::new(), 0);
        for row in found {
            let task = row.get_task();
            if task.status != TaskStatus::ASSIGNED || row.open_epoch == 0 || tasks.len() == most {
                continue;
            }
            // They must go into one message; the rest comes with the next poll.
            let size = task.compute_size() as usize;
            if !tasks.is_empty() && bytes + size > POLL_BYTES_MAX {
                break;
            }
            // An agent without leases asks once and means it: it gets its task again as long as it is assigned.
            let key = (task.task_id.clone(), row.open_epoch);
            if request.incarnation != 0 && handed_out.contains(&key) {
                continue;
            }
            handed_out.insert(key, now);
            bytes += size;
            tasks.push(task.clone());
        }
        Ok(tasks)
    }

    /// Shards leased to the trainer; see `ports::Leader`.
    pub(crate) fn next_shards(self: &Arc<Self>, request: NextShardsRequest, done: Callback<NextShardsResponse>) {
        let deadline = self.clock.monotonic_ms() + u64::from(request.wait_ms.min(POLL_WAIT_MS_MAX));
        self.next_shards_until(request, deadline, done);
    }

    fn next_shards_until(
        self: &Arc<Self>,
        request: NextShardsRequest,
        deadline: u64,
        done: Callback<NextShardsResponse>,
    ) {
        let (rows, position) = self.views.view();
        let found = match self.look_for_shards(rows.as_ref(), position, &request) {
            Ok(found) => found,
            Err(error) => return done(Err(error)),
        };
        let now = self.clock.monotonic_ms();
        if found.ready || now >= deadline {
            return done(Ok(found.response));
        }
        let polls = self.clone();
        self.ring.changed_after(
            position,
            Some(found.watched),
            Duration::from_millis(deadline - now),
            Box::new(move |_| polls.next_shards_until(request, deadline, done)),
        );
    }

    fn look_for_shards(&self, rows: &dyn Rows, position: u64, request: &NextShardsRequest) -> Result<Found, CallError> {
        let task = views::task_row(rows, &request.task_id).map_err(rows_failed)?;
        let open = task.as_ref().is_some_and(|row| row.open_epoch == request.lease_epoch);
        if !open && request.lease_epoch > position {
            // This replica has not applied the assignment yet.
            return Ok(Found::nothing(vec![(Table::Task, Vec::new())]));
        }
        let Some(task) = task.filter(|_| open) else {
            return Err(CallError::Precondition(format!(
                "STALE_LEASE: task {} is no longer leased with epoch {}",
                request.task_id, request.lease_epoch
            )));
        };
        let job_id = task.get_task().job_id.clone();
        let Some(job) = views::job_row(rows, &job_id).map_err(rows_failed)? else {
            return Err(CallError::NotFound(format!("job {job_id} does not exist")));
        };
        if !task.ready {
            self.report_ready(request);
        }
        shards_of(rows, &task, &job, request)
    }

    fn report_ready(&self, request: &NextShardsRequest) {
        let mut ready = TrainerReady::new();
        ready.set_task_id(request.task_id.clone());
        ready.set_epoch(request.lease_epoch);
        let mut command = Command::new();
        command.kind = Some(Command_oneof_kind::trainer_ready(ready));
        // Nobody waits: the next poll asks again if it was lost.
        self.proposals.propose(vec![command], Box::new(|_| ()));
    }
}

impl Polls {
    /// A client without leases was given a model: its gradient goes to that round and to no newer one. Blocks.
    pub(crate) fn remember_model(&self, query: &ModelQuery, version: u64) -> Result<(), CallError> {
        let (rows, _) = self.views.view();
        let task = if query.task_id.is_empty() {
            // The stream names no worker: the open trainer of the job, if there is only one.
            let job = job_of(rows.as_ref(), query)?;
            let open: Vec<TaskRow> = views::tasks_of_job(rows.as_ref(), job.sequence)
                .map_err(rows_failed)?
                .into_iter()
                .filter(|row| row.open_epoch != 0)
                .filter(|row| query.node_id.is_empty() || row.get_task().assigned_node_id == query.node_id)
                .collect();
            <[TaskRow; 1]>::try_from(open).ok().map(|[row]| row)
        } else {
            views::task_row(rows.as_ref(), &query.task_id).map_err(rows_failed)?
        };
        drop(rows);
        let Some(task) = task.filter(|row| row.open_epoch != 0) else { return Ok(()) };
        let mut ready = TrainerReady::new();
        ready.set_task_id(task.get_task().task_id.clone());
        ready.set_epoch(task.open_epoch);
        ready.set_model_given(true);
        ready.set_model_version(version);
        let mut command = Command::new();
        command.kind = Some(Command_oneof_kind::trainer_ready(ready));
        self.proposals.propose_one(command).map(|_| ())
    }
}

struct Found {
    response: NextShardsResponse,
    ready: bool,
    watched: Watched,
}

impl Found {
    fn nothing(watched: Watched) -> Self {
        Self { response: NextShardsResponse::new(), ready: false, watched }
    }
}

fn shards_of(rows: &dyn Rows, task: &TaskRow, row: &JobRow, request: &NextShardsRequest) -> Result<Found, CallError> {
    let job = row.get_job();
    let train = job.get_spec().get_train();
    let mut response = NextShardsResponse::new();
    response.set_phase(format!("{:?}", job.phase));
    response.set_rounds(train.rounds);
    response.set_rounds_committed(job.rounds_committed);
    response.set_model_version(job.model_version);
    response.set_has_model(job.has_model);
    response.set_shard_state(true);
    response.set_finished(!matches!(job.phase, JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED));
    response.set_steps(steps_of(rows, task, row, request.lease_epoch).map_err(rows_failed)?.into());
    let ready = response.finished || !response.steps.is_empty();
    let watched = vec![
        (Table::Round, keys::number(row.sequence)),
        (Table::Job, keys::number(row.sequence)),
        (Table::Task, keys::number(task.sequence)),
    ];
    Ok(Found { response, ready, watched })
}
