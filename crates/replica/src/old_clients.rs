//! Clients without leases: they name neither round, shard nor attempt. What their gradient belongs to follows from the trainer of their
//! node, the model that it was given, and what it has sent since.

use raftgrid_manifest::{views, Rows};
use raftgrid_proto::v1::{AckOutcome, ContributionRow, RoundPhase, TaskRow};

use crate::acks::refusal;
use crate::gradients::{Resolved, Target};
use crate::polls::rows_failed;
use crate::ports::{CallError, GradientMeta};

/// A client without leases: its node's trainer, the round of the model that it was given, its first shard there without an answer.
/// The same bytes again without another `GetModel` in between are a retry after a lost Ack: they belong to the shard that has them.
pub(crate) fn resolve(rows: &dyn Rows, meta: &GradientMeta, digest: [u8; 32]) -> Result<Resolved, CallError> {
    let refused = |outcome, reason: String| Ok(Err(Box::new(refusal(outcome, reason))));
    let trainers: Vec<TaskRow> = views::tasks_of_node(rows, &meta.worker_id)
        .map_err(rows_failed)?
        .into_iter()
        .filter(|row| row.open_epoch != 0 && !row.get_task().job_id.is_empty())
        .filter(|row| meta.job_id.is_empty() || row.get_task().job_id == meta.job_id)
        .collect();
    let Ok([task]) = <[TaskRow; 1]>::try_from(trainers) else {
        return refused(AckOutcome::ACK_STALE, format!("worker {} has not exactly one trainer task", meta.worker_id));
    };
    if !task.model_given {
        return refused(AckOutcome::ACK_STALE, "this worker was given no model".to_owned());
    }
    let job_id = task.get_task().job_id.clone();
    let Some(job) = views::job_row(rows, &job_id).map_err(rows_failed)? else {
        return refused(AckOutcome::ACK_STALE, format!("job {job_id} does not exist"));
    };
    let round = task.model_given_version;
    let Some(row) = views::round_of(rows, job.sequence, round).map_err(rows_failed)? else {
        return refused(AckOutcome::ACK_STALE, format!("round {round} is no longer kept"));
    };
    let mine: Vec<(u32, bool)> = row
        .leases
        .iter()
        .filter(|lease| lease.get_lease().epoch == task.open_epoch)
        .map(|lease| (lease.get_lease().shard, lease.answered))
        .collect();
    let known = views::contributions(rows, &job_id, round).map_err(rows_failed)?;
    let again = known.into_iter().find(|row| is_sent_again(row, &task, digest)).map(|row| row.shard);
    // When every shard has its answer, other bytes are compared with the last one.
    let next = mine.iter().find(|(_, answered)| !answered).or(mine.last()).map(|(shard, _)| *shard);
    let shard = again.or(next);
    let Some(shard) = shard else {
        return refused(AckOutcome::ACK_STALE, format!("no shard of round {round} is leased to {}", meta.worker_id));
    };
    Ok(Ok(Target { epoch: task.open_epoch, round, shard, job, task, model_version: round }))
}

/// Whether the ledger has these bytes of this very attempt, and they came after the last model that it was given.
fn is_sent_again(row: &ContributionRow, task: &TaskRow, digest: [u8; 32]) -> bool {
    row.digest == digest
        && row.task_id == task.get_task().task_id
        && row.epoch == task.open_epoch
        && row.position > task.model_given_position
}

/// Whether a client without leases was given a model of the open round and has no shard of it yet.
pub(crate) fn awaits_lease(rows: &dyn Rows, meta: &GradientMeta) -> Result<bool, CallError> {
    for task in views::tasks_of_node(rows, &meta.worker_id).map_err(rows_failed)? {
        if !task.model_given || task.open_epoch == 0 {
            continue;
        }
        let Some(job) = views::job_row_by_sequence(rows, task.job_sequence).map_err(rows_failed)? else { continue };
        let round = views::round_of(rows, job.sequence, task.model_given_version).map_err(rows_failed)?;
        let open = round.filter(|row| row.phase == RoundPhase::ROUND_OPEN);
        if open.is_some_and(|row| row.leases.iter().all(|lease| lease.get_lease().epoch != task.open_epoch)) {
            return Ok(true);
        }
    }
    Ok(false)
}
