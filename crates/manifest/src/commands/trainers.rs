//! TrainerReady and LeaseShards: which trainer computes which (round, shard).

use protobuf::{RepeatedField, SingularPtrField};
use raftgrid_proto::v1::{
    ContributionRow, JobRow, LeaseShards, RoundLease, RoundPhase, RoundRow, ShardLease, TaskRow, TrainerReady,
};

use crate::commands::job_spec::TRAIN;
use crate::commands::lifecycle::require_running;
use crate::commands::rounds;
use crate::commands::tasks::with_open_lease;
use crate::error::{Fault, Handled};
use crate::limits::ROUND_LEASES_MAX;
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition, stale_lease};
use crate::round_policy::{is_head, RoundPolicy, ASYNC};
use crate::tables::TaskTable;

/// The trainer's process asked for work under its open lease; an old client was also given a model, which its next gradient belongs to.
pub(crate) fn ready(machine: &mut Machine<'_>, command: &TrainerReady) -> Handled {
    let mut row = with_open_lease(machine, &command.task_id, command.epoch)?;
    if row.job_sequence == 0 || row.get_task().task_type != TRAIN {
        return Err(precondition(format!("task {} is no trainer", command.task_id)));
    }
    if row.ready && !command.model_given {
        return Ok(machine.existing(row.get_task().revision));
    }
    row.ready = true;
    if command.model_given {
        row.model_given = true;
        row.model_given_version = command.model_version;
        // Even of the same model: what comes after it is new work, and no retry of what came before.
        row.model_given_position = machine.position.get();
    }
    TaskTable::put(machine, row)?;
    Ok(machine.ok())
}

/// All or nothing. A pair is free while nobody's result for it was accepted and no trainer with an open lease works on it; a `verify` lease
/// is a second computation of a pair that another attempt has or had.
pub(crate) fn lease_shards(machine: &mut Machine<'_>, command: &LeaseShards) -> Handled {
    let job_row = read::job_by_id(&machine.rows, &command.job_id)?.ok_or_else(|| not_found("job", &command.job_id))?;
    require_running(job_row.get_job().phase, &command.job_id)?;
    if command.leases.is_empty() {
        return Err(invalid("leases", "must not be empty"));
    }
    let mut round = read::round(&machine.rows, job_row.sequence, command.round)?
        .ok_or_else(|| precondition(format!("round {} of job {} is not open", command.round, command.job_id)))?;
    let mut kept = Vec::with_capacity(round.leases.len() + command.leases.len());
    for lease in round.take_leases() {
        if lease.answered || is_open(machine, lease.get_lease())? {
            kept.push(lease);
        }
    }
    round.leases = RepeatedField::from_vec(kept);
    check_order(machine, &job_row, &round, command.get_leases())?;
    for lease in command.get_leases() {
        lease_one(machine, &job_row, &mut round, lease)?;
    }
    if round.leases.len() > ROUND_LEASES_MAX {
        return Err(invalid("leases", format!("a round keeps at most {ROUND_LEASES_MAX}")));
    }
    rounds::put(machine, job_row.sequence, &round);
    Ok(machine.ok())
}

/// Ahead of the job's model a shard takes one round after the other, so that its state goes with it.
fn check_order(machine: &Machine<'_>, job_row: &JobRow, round: &RoundRow, leases: &[ShardLease]) -> Result<(), Fault> {
    if is_head(round) {
        return Ok(());
    }
    if RoundPolicy::of(job_row).mode_name() == ASYNC {
        return Err(precondition(format!("round {} is not summed yet", round.round.saturating_sub(1))));
    }
    for lease in leases {
        check_before(machine, job_row, round.round, lease.shard)?;
    }
    Ok(())
}

/// The shard's contribution to the round before is there.
pub(crate) fn check_before(machine: &Machine<'_>, job_row: &JobRow, round: u64, shard: u32) -> Result<(), Fault> {
    let before = round.saturating_sub(1);
    let row = read::contribution(&machine.rows, job_row.sequence, before, shard)?;
    if row.is_some_and(|row| !row.digest.is_empty()) {
        return Ok(());
    }
    Err(precondition(format!("round {round} shard {shard} follows round {before}, which the shard did not give yet")))
}

fn is_open(machine: &Machine<'_>, lease: &ShardLease) -> Result<bool, Fault> {
    Ok(read::task_by_id(&machine.rows, &lease.task_id)?.is_some_and(|row| row.open_epoch == lease.epoch))
}

fn lease_one(machine: &Machine<'_>, job_row: &JobRow, round: &mut RoundRow, lease: &ShardLease) -> Result<(), Fault> {
    let (shard, shards) = (lease.shard, job_row.get_job().get_spec().get_train().shards);
    if shard >= shards {
        return Err(invalid("leases.shard", format!("below {shards}, is {shard}")));
    }
    trainer_of(machine, job_row, &lease.task_id, lease.epoch)?;
    let held = round.leases.iter().position(|held| is_same_attempt(held.get_lease(), lease));
    if held.is_some_and(|at| !round.leases[at].answered && !round.leases[at].taken) {
        return Ok(());
    }
    let contribution = read::contribution(&machine.rows, job_row.sequence, round.round, shard)?;
    let winner = contribution.filter(|row| !row.digest.is_empty());
    if lease.verify && held.is_some() {
        return Err(precondition(format!("{} answered for round {} shard {shard}", lease.task_id, round.round)));
    } else if lease.verify {
        check_verify(round, lease, winner.as_ref())?;
    } else if round.phase != RoundPhase::ROUND_OPEN {
        return Err(precondition(format!("round {} is closed", round.round)));
    } else if winner.is_some() {
        return Err(precondition(format!("round {} shard {shard} is accepted already", round.round)));
    } else if let Some(held) = round.leases.iter().find(|held| works_on(held, shard)) {
        let why = format!("round {} shard {shard} is leased to {}", round.round, held.get_lease().task_id);
        return Err(precondition(why));
    }
    if let Some(at) = held {
        // Its answer was refused or an extension took it, and the pair came back to it.
        round.leases.remove(at);
    }
    round.leases.push(RoundLease { lease: SingularPtrField::some(lease.clone()), ..RoundLease::default() });
    Ok(())
}

/// A computation of the shard that is not answered, and not a second one to compare with.
pub(crate) fn works_on(held: &RoundLease, shard: u32) -> bool {
    !held.answered && !held.taken && !held.get_lease().verify && held.get_lease().shard == shard
}

/// A second computation says something only beside another attempt's.
fn check_verify(round: &RoundRow, lease: &ShardLease, winner: Option<&ContributionRow>) -> Result<(), Fault> {
    let shard = lease.shard;
    let by_winner =
        winner.is_some_and(|row| (row.task_id.as_str(), row.epoch) != (lease.task_id.as_str(), lease.epoch));
    let by_lease = round.leases.iter().any(|held| works_on(held, shard) && held.get_lease().task_id != lease.task_id);
    if !by_winner && !by_lease {
        return Err(precondition(format!("round {} shard {shard} has no other attempt to compare with", round.round)));
    }
    Ok(())
}

/// Whether two leases are the same attempt's at the same shard.
pub(crate) fn is_same_attempt(a: &ShardLease, b: &ShardLease) -> bool {
    (a.shard, a.epoch, &a.task_id) == (b.shard, b.epoch, &b.task_id)
}

/// The trainer's row if it belongs to this job and this very epoch is open.
pub(crate) fn trainer_of(machine: &Machine<'_>, job_row: &JobRow, task_id: &str, epoch: u64) -> Result<TaskRow, Fault> {
    let row = read::task_by_id(&machine.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    if row.job_sequence != job_row.sequence {
        return Err(precondition(format!("task {task_id} is no trainer of job {}", job_row.get_job().job_id)));
    }
    if epoch == 0 || row.open_epoch != epoch {
        return Err(stale_lease(task_id, epoch));
    }
    Ok(row)
}
