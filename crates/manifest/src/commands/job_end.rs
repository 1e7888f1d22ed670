//! How a job ends: by its rounds, by its tasks, by order.

use raftgrid_proto::v1::{JobPhase, JobRow, Phase, RoundPhase, TaskRow, TaskStatus};

use crate::commands::job_spec::{EVAL, TRAIN};
use crate::commands::{arrays, dag, gangs, kv, lifecycle};
use crate::error::Fault;
use crate::limits::NOTE_BYTES_MAX;
use crate::machine::Machine;
use crate::read;
use crate::round_policy::RoundPolicy;
use crate::tables::{self, JobTable};
use crate::text::cut;

/// Whether the phase is terminal.
pub(crate) fn is_over(phase: JobPhase) -> bool {
    match phase {
        JobPhase::JOB_DONE | JobPhase::JOB_FAILED | JobPhase::JOB_CANCELLED | JobPhase::JOB_REJECTED => true,
        JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED => false,
    }
}

/// The phase as people read it.
pub(crate) fn phase_name(phase: JobPhase) -> &'static str {
    match phase {
        JobPhase::JOB_INIT => "INIT",
        JobPhase::JOB_RUNNING => "RUNNING",
        JobPhase::JOB_DONE => "DONE",
        JobPhase::JOB_FAILED => "FAILED",
        JobPhase::JOB_CANCELLED => "CANCELLED",
        JobPhase::JOB_PAUSED => "PAUSED",
        JobPhase::JOB_REJECTED => "REJECTED",
    }
}

/// Ends a job that is not over. Its open tasks are cancelled: at once where no process can be, else STOPPING first.
pub(crate) fn end_job(
    machine: &mut Machine<'_>,
    job_sequence: u64,
    phase: JobPhase,
    reason: &str,
) -> Result<(), Fault> {
    let mut row = JobTable::get(machine, job_sequence)?;
    assert!(!is_over(row.get_job().phase), "a job ends once");
    let now = machine.now_ms() as i64;
    let job = row.mut_job();
    job.phase = phase;
    job.reason = cut(reason);
    job.finished_at_ms = now;
    let why = format!("job {} is {}: {reason}", job.job_id, phase_name(phase));
    JobTable::put(machine, row);
    kv::job_over(machine, job_sequence)?;
    stop_tasks(machine, job_sequence, &why, true)
}

/// The last round is committed. Trainers that run may finish by themselves; those that wait for a node need none.
pub(crate) fn done(machine: &mut Machine<'_>, mut row: JobRow) -> Result<(), Fault> {
    let sequence = row.sequence;
    let now = machine.now_ms() as i64;
    row.mut_job().phase = JobPhase::JOB_DONE;
    row.mut_job().finished_at_ms = now;
    JobTable::put(machine, row);
    kv::job_over(machine, sequence)?;
    stop_tasks(machine, sequence, "the job was done before this trainer was placed", false)
}

fn stop_tasks(machine: &mut Machine<'_>, job_sequence: u64, reason: &str, running_too: bool) -> Result<(), Fault> {
    let array = arrays::is_array(JobTable::get(machine, job_sequence)?.get_job().get_spec());
    let rows = if array {
        read::open_elements(&machine.rows, job_sequence)?
    } else {
        read::tasks_of_job(&machine.rows, job_sequence)?
    };
    for row in rows {
        let waiting = row.get_task().status == TaskStatus::PENDING;
        if !tables::is_over(row.get_task()) && (waiting || running_too) {
            lifecycle::stop(machine, row, reason)?;
        }
    }
    Ok(())
}

/// A task of a job is over: what that means for the job.
pub(crate) fn task_ended(machine: &mut Machine<'_>, task_row: &TaskRow) -> Result<(), Fault> {
    let job_row = JobTable::get(machine, task_row.job_sequence)?;
    let spec = job_row.get_job().get_spec();
    if spec.field_type == TRAIN {
        trainer_ended(machine, task_row, job_row)
    } else if task_row.gang.is_some() {
        gangs::member_ended(machine, task_row, job_row)
    } else if dag::is_graph(spec) {
        dag::task_ended(machine, task_row, job_row)
    } else if arrays::is_array(spec) {
        arrays::element_ended(machine, task_row, job_row)
    } else {
        only_task_ended(machine, task_row, job_row)
    }
}

fn only_task_ended(machine: &mut Machine<'_>, task_row: &TaskRow, mut job_row: JobRow) -> Result<(), Fault> {
    if is_over(job_row.get_job().phase) {
        return Ok(());
    }
    let task = task_row.get_task();
    match (task.status, task.phase) {
        (TaskStatus::COMPLETED, _) => {
            let job = job_row.mut_job();
            job.result_json = task.result_data.clone();
            if job.get_spec().field_type == EVAL && task.result_data.len() <= NOTE_BYTES_MAX {
                job.metrics_json = task.result_data.clone();
            }
            done(machine, job_row)
        }
        (_, Phase::PHASE_CANCELLED) => {
            end_job(machine, job_row.sequence, JobPhase::JOB_CANCELLED, &task.failure_reason)
        }
        _ => end_job(machine, job_row.sequence, JobPhase::JOB_FAILED, &task.failure_reason),
    }
}

/// Every round that is left has all its contributions: the leader sums them without any trainer. They are more than one only where shards may
/// be ahead.
fn only_the_sum_is_missing(machine: &Machine<'_>, job_row: &JobRow) -> Result<bool, Fault> {
    let policy = RoundPolicy::of(job_row);
    for number in job_row.get_job().rounds_committed..policy.rounds {
        let full = read::round(&machine.rows, job_row.sequence, number)?.is_some_and(|round| match round.phase {
            RoundPhase::ROUND_SEALED | RoundPhase::ROUND_COMMITTED => true,
            RoundPhase::ROUND_OPEN => round.accepted >= policy.quorum,
        });
        if !full {
            return Ok(false);
        }
    }
    Ok(true)
}

fn trainer_ended(machine: &mut Machine<'_>, task_row: &TaskRow, mut job_row: JobRow) -> Result<(), Fault> {
    let (task, job) = (task_row.get_task(), job_row.get_job());
    let completed = task.status == TaskStatus::COMPLETED;
    if job.phase == JobPhase::JOB_DONE {
        if completed && job.result_json.is_empty() && !task.result_data.is_empty() {
            job_row.mut_job().result_json = task.result_data.clone();
            JobTable::put(machine, job_row);
        }
        return Ok(());
    }
    if is_over(job.phase) {
        return Ok(());
    }
    let (id, rounds) = (&task.task_id, job.get_spec().get_train().rounds);
    let exhausted = matches!(task.phase, Phase::PHASE_ERROR | Phase::PHASE_RETRIES_EXHAUSTED);
    let ended = if completed { "ended by itself".to_owned() } else { format!("failed: {}", task.failure_reason) };
    let reason = if !completed && exhausted {
        format!("{id} failed: {}", task.failure_reason)
    } else if !job.has_model && job_row.init_task == *id {
        format!("{id}, which was to make model 0, {ended}")
    } else if job_row.open_tasks == 0 && !only_the_sum_is_missing(machine, &job_row)? {
        format!("no trainer is left after {} of {rounds} rounds; the last, {id}, {ended}", job.rounds_committed)
    } else {
        return Ok(());
    };
    end_job(machine, job_row.sequence, JobPhase::JOB_FAILED, &reason)
}
