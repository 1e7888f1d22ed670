//! Cancels that take too long, and tasks that run out of time. Owns their timers; proposes CancelTask.
//!
//! A task in STOPPING is the worker's to end; when the grace is over the leader confirms in its place (the lease keeps its effects out).

use std::collections::{BTreeMap, BTreeSet};

use raftgrid_proto::v1::{CancelTask, Command_oneof_kind, ExpireLease, Phase, TaskRow, TaskStatus};

use crate::jitter::Jitter;
use crate::leases::is_started;
use crate::limits::{DEADLINE_CHECK_MS, RETRY_PAUSE_MS};
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::timers::Timers;
use crate::types::{Config, Millis};
use crate::view::View;

#[derive(Debug, Default)]
pub(crate) struct Cancel {
    /// Cluster time at which the leader confirms.
    stopping: Timers<u64>,
    /// Tasks with a timeout or deadline in their spec.
    timed: BTreeSet<u64>,
    /// Of timed tasks on a node: the open epoch and when it was first seen.
    leased: BTreeMap<u64, (u64, Millis)>,
    next_check: Millis,
}

impl Cancel {
    /// The task's row changed.
    pub(crate) fn on_task(&mut self, config: &Config, view: &View, task: u64) {
        self.stopping.clear(&task);
        self.timed.remove(&task);
        let Some(row) = view.tasks.get(&task) else { return };
        if row.get_task().phase == Phase::PHASE_STOPPING {
            self.stopping.set(task, row.stop_requested_ms + config.cancel_grace_ms);
        } else if is_timed(row) {
            self.timed.insert(task);
        }
    }

    pub(crate) fn step(&mut self, moment: &Moment<'_>, jitter: &mut Jitter, outbox: &mut Outbox) {
        let (now, view, cluster_ms) = (moment.now, moment.view, moment.cluster_ms());
        for task in self.stopping.pop_due(cluster_ms) {
            let Some(row) = view.tasks.get(&task) else { continue };
            // Again until the row shows the end.
            self.stopping.set(task, cluster_ms + RETRY_PAUSE_MS);
            let subject = Subject::Task(task);
            if outbox.free(&subject) {
                // Without a reason, the one that was given with the stop stands.
                outbox.put(subject, cancel(row, "", true));
            }
        }
        if self.timed.is_empty() || now < self.next_check {
            return;
        }
        self.next_check = now + DEADLINE_CHECK_MS;
        self.leased.retain(|task, _| self.timed.contains(task));
        for task in &self.timed {
            let Some(row) = view.tasks.get(task) else { continue };
            let leased = self.leased.entry(*task).or_insert((row.open_epoch, now));
            if leased.0 != row.open_epoch {
                *leased = (row.open_epoch, now);
            }
            let Some(end) = overdue(row, cluster_ms, now - leased.1) else { continue };
            let subject = Subject::Task(*task);
            if outbox.free(&subject) {
                let backoff_ms = jitter.backoff(moment.config, row.infrastructure_failures);
                outbox.put(subject, end.command(row, backoff_ms));
            }
        }
    }

    pub(crate) fn next_wake(&self, moment: &Moment<'_>) -> Option<Millis> {
        let stopping = self.stopping.next().map(|at| moment.local(at));
        let check = (!self.timed.is_empty()).then_some(self.next_check);
        [stopping, check].into_iter().flatten().min()
    }
}

/// CancelTask; `confirmed`: no process is left, or nobody waits for it any more.
pub(crate) fn cancel(row: &TaskRow, reason: &str, confirmed: bool) -> Command_oneof_kind {
    Command_oneof_kind::cancel_task(CancelTask {
        task_id: row.get_task().task_id.clone(),
        reason: reason.to_owned(),
        confirmed,
        ..CancelTask::default()
    })
}

fn is_timed(row: &TaskRow) -> bool {
    let spec = row.get_task().get_spec();
    let times = [spec.start_timeout_ms, spec.run_timeout_ms, spec.deadline_unix_ms, spec.queue_ttl_ms];
    times.iter().any(|time| *time != 0)
}

/// How a task that is out of time ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Cancel(&'static str),
    /// Another node may start it.
    Expire(&'static str),
}

impl End {
    fn command(&self, row: &TaskRow, backoff_ms: u64) -> Command_oneof_kind {
        match self {
            End::Cancel(reason) => cancel(row, reason, row.open_epoch == 0),
            End::Expire(reason) => Command_oneof_kind::expire_lease(ExpireLease {
                task_id: row.get_task().task_id.clone(),
                epoch: row.open_epoch,
                reason: (*reason).to_owned(),
                backoff_ms,
                before_start: !is_started(row),
                ..ExpireLease::default()
            }),
        }
    }
}

/// `leased_ms`: for how long this leader has known the open lease.
fn overdue(row: &TaskRow, cluster_ms: u64, leased_ms: u64) -> Option<End> {
    let task = row.get_task();
    let spec = task.get_spec();
    let passed = |limit: u64, time: u64| limit != 0 && time >= limit;
    let queued_ms = cluster_ms.saturating_sub(row.submitted_at_ms);
    let started_ms = u64::try_from(task.started_at).unwrap_or(0).saturating_mul(1_000);
    if spec.deadline_unix_ms != 0 && cluster_ms >= spec.deadline_unix_ms {
        return Some(End::Cancel("deadline passed"));
    }
    match task.status {
        // A task that is suspended, or waits for other tasks, does not wait for a node.
        TaskStatus::PENDING
            if !matches!(task.phase, Phase::PHASE_SUSPENDED | Phase::PHASE_BLOCKED)
                && passed(spec.queue_ttl_ms, queued_ms) =>
        {
            Some(End::Cancel("queue_ttl passed"))
        }
        TaskStatus::ASSIGNED if passed(spec.start_timeout_ms, leased_ms) => Some(End::Expire("start_timeout passed")),
        TaskStatus::RUNNING if passed(spec.run_timeout_ms, cluster_ms.saturating_sub(started_ms)) => {
            Some(End::Cancel("run_timeout passed"))
        }
        TaskStatus::PENDING
        | TaskStatus::ASSIGNED
        | TaskStatus::RUNNING
        | TaskStatus::COMPLETED
        | TaskStatus::FAILED => None,
    }
}
