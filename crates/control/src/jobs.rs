//! Jobs that are over, or cannot go on: tasks that remain are cancelled, a job without tasks fails. Proposes CancelTask and FailJob.
//!
//! The machine does most of it in the command that ends a job (waiting tasks are cancelled, running ones are STOPPING, trainers of a job
//! that is done may finish by themselves). What is left here: an end to that last grace, and tasks that slipped through.

use raftgrid_proto::v1::{Command_oneof_kind, FailJob, JobPhase, Phase, RoundPhase, TaskRow};

use crate::cancel::cancel;
use crate::limits::DONE_GRACE_TTLS;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::types::{Config, Millis};
use crate::view::{JobView, View};

/// May the task still be placed? Not if its job is over or held.
pub(crate) fn wants_tasks(view: &View, row: &TaskRow) -> bool {
    let Some(job) = view.jobs.get(&row.job_sequence) else { return true };
    match job.row.get_job().phase {
        JobPhase::JOB_INIT | JobPhase::JOB_RUNNING => true,
        JobPhase::JOB_DONE
        | JobPhase::JOB_FAILED
        | JobPhase::JOB_CANCELLED
        | JobPhase::JOB_PAUSED
        | JobPhase::JOB_REJECTED => false,
    }
}

/// Until when (cluster time) the trainers of a finished job may end by themselves.
fn grace_until(config: &Config, job: &JobView) -> u64 {
    let finished = u64::try_from(job.row.get_job().finished_at_ms).unwrap_or(0);
    finished + DONE_GRACE_TTLS * config.lease_ttl_ms
}

/// One step; the answer is when to look again.
pub(crate) fn step(moment: &Moment<'_>, outbox: &mut Outbox) -> Option<Millis> {
    let view = moment.view;
    let mut wake: Option<Millis> = None;
    for (sequence, job) in &view.jobs {
        match job.row.get_job().phase {
            JobPhase::JOB_DONE => {
                let until = grace_until(moment.config, job);
                let over = moment.cluster_ms() >= until;
                if !over {
                    let at = moment.local(until);
                    wake = Some(wake.map_or(at, |wake| wake.min(at)));
                }
                let ends = |row: &TaskRow| over || row.open_epoch == 0;
                cancel_tasks(view, *sequence, "the job is done", ends, outbox);
            }
            JobPhase::JOB_FAILED | JobPhase::JOB_CANCELLED | JobPhase::JOB_REJECTED => {
                cancel_tasks(view, *sequence, "the job is over", |_| true, outbox);
            }
            JobPhase::JOB_INIT | JobPhase::JOB_RUNNING => fail_without_tasks(view, *sequence, job, outbox),
            JobPhase::JOB_PAUSED => {}
        }
    }
    wake
}

fn cancel_tasks(view: &View, job: u64, reason: &str, ends: impl Fn(&TaskRow) -> bool, outbox: &mut Outbox) {
    for (task, row) in view.tasks_of_job(job) {
        let subject = Subject::Task(task);
        // One that is stopping is `cancel`'s.
        if row.get_task().phase != Phase::PHASE_STOPPING && ends(row) && outbox.free(&subject) {
            outbox.put(subject, cancel(row, reason, false));
        }
    }
}

/// A train job whose last task is over before its last round cannot go on.
fn fail_without_tasks(view: &View, sequence: u64, job: &JobView, outbox: &mut Outbox) {
    let row = &job.row;
    if !row.get_job().get_spec().has_train() || row.open_tasks > 0 || view.tasks_of_job(sequence).next().is_some() {
        return;
    }
    if job.head().is_some_and(|head| head.row.phase == RoundPhase::ROUND_SEALED) {
        // It needs no trainer any more; if it was the last one, the job is done with its sum.
        return;
    }
    let subject = Subject::Job(sequence);
    if outbox.free(&subject) {
        let reason = "no trainer is left: all tasks of the job are over";
        outbox.put(subject, fail(row.get_job().get_job_id(), JobPhase::JOB_FAILED, reason));
    }
}

pub(crate) fn fail(job_id: &str, phase: JobPhase, reason: &str) -> Command_oneof_kind {
    Command_oneof_kind::fail_job(FailJob {
        job_id: job_id.to_owned(),
        phase,
        reason: reason.to_owned(),
        ..FailJob::default()
    })
}
