//! What a job lets go as its rounds go on: gradient bytes by its `retain`, ledger rows beyond the last `LEDGER_ROUNDS`. Each commit lets go
//! a bounded number, so that no apply is long. Bytes go in two phases: here the artifact becomes DELETING, the leader confirms the second.

use raftgrid_proto::v1::{ArtifactState, JobRow};

use crate::commands::artifacts;
use crate::commands::shard_states::{self, STATE_KIND};
use crate::error::Fault;
use crate::keys;
use crate::limits::{
    LEDGER_ROUNDS, RELEASED_ROUNDS_PER_COMMIT, RETAIN_BYTES_DEFAULT, RETAIN_ROUNDS_DEFAULT, RETAIN_ROUNDS_MIN,
};
use crate::machine::Machine;
use crate::read;
use crate::rows::{Rows, Table};

/// Called when model `rounds_committed` stands in `job_row`.
pub(crate) fn after_commit(machine: &mut Machine<'_>, job_row: &mut JobRow) -> Result<(), Fault> {
    let version = job_row.get_job().rounds_committed;
    for _ in 0..RELEASED_ROUNDS_PER_COMMIT {
        if job_row.retained_from_round >= version.saturating_sub(rounds_kept(job_row)) {
            break;
        }
        release(machine, job_row)?;
    }
    if let Some(round) = version.checked_sub(LEDGER_ROUNDS + 1) {
        prune(machine, job_row, round)?;
    }
    Ok(())
}

/// Rounds whose gradients the job keeps: what it asks for, else all up to a total size. Never more than the ledger has rows for.
fn rounds_kept(job_row: &JobRow) -> u64 {
    let asked = job_row.get_job().get_spec().get_train().retain_rounds;
    let kept = match asked {
        0 if job_row.retained_bytes <= RETAIN_BYTES_DEFAULT => LEDGER_ROUNDS,
        0 => RETAIN_ROUNDS_DEFAULT,
        rounds => rounds.max(RETAIN_ROUNDS_MIN),
    };
    kept.min(LEDGER_ROUNDS)
}

/// Lets go the bytes of the oldest round that is kept: its gradients, and the optimiser state that only its recomputation needs.
fn release(machine: &mut Machine<'_>, job_row: &mut JobRow) -> Result<(), Fault> {
    let round = job_row.retained_from_round;
    for contribution in read::contributions(&machine.rows, job_row.sequence, round)? {
        if contribution.artifact_id != 0 {
            let bytes = delete_artifact(machine, job_row, contribution.artifact_id)?;
            job_row.retained_bytes = job_row.retained_bytes.saturating_sub(bytes);
        }
        if machine.meta.machine_version >= shard_states::SINCE {
            release_state(machine, job_row, &contribution.state_artifact)?;
        }
    }
    if let Some(row) = read::round(&machine.rows, job_row.sequence, round)? {
        delete_artifact(machine, job_row, row.state_artifact)?;
    }
    job_row.retained_from_round += 1;
    Ok(())
}

/// Lets go the state of a shard that a contribution named. One that came before machine version 5 could name anything: only what was kept as a
/// state goes.
fn release_state(machine: &mut Machine<'_>, job_row: &JobRow, named: &str) -> Result<(), Fault> {
    let Ok(artifact_id) = named.parse() else { return Ok(()) };
    match read::artifact(&machine.rows, artifact_id)? {
        Some(row) if row.kind == STATE_KIND => delete_artifact(machine, job_row, artifact_id).map(|_| ()),
        Some(_) | None => Ok(()),
    }
}

/// Begins to delete an artifact of the job's own; gives its size.
fn delete_artifact(machine: &mut Machine<'_>, job_row: &JobRow, artifact_id: u64) -> Result<u64, Fault> {
    let Some(row) = read::artifact(&machine.rows, artifact_id)? else { return Ok(0) };
    let job = job_row.get_job();
    let id = artifact_id.to_string();
    let kept = [&job.model_artifact, &job.state_artifact, &job.get_spec().get_train().initial_model];
    let foreign = !row.job_id.is_empty() && row.job_id != job.job_id;
    let bytes = row.total_bytes;
    if row.state == ArtifactState::ARTIFACT_COMMITTED && !foreign && !kept.contains(&&id) {
        artifacts::let_go(machine, row)?;
    }
    Ok(bytes)
}

/// Takes a round out of the ledger. Its row stays for one commit more: the chain hash of the oldest whole round is verified against it. The
/// first mismatch of the job stays for ever, so that the audit can always name it.
fn prune(machine: &mut Machine<'_>, job_row: &JobRow, round: u64) -> Result<(), Fault> {
    let sequence = job_row.sequence;
    let mut named = false;
    machine.rows.scan(Table::Contribution, &keys::pair(sequence, 0), &keys::pair(sequence, round), &mut |_, _| {
        named = true;
        false
    })?;
    for contribution in read::contributions(&machine.rows, sequence, round)? {
        if !named && contribution.refused.iter().any(|refused| refused.outcome == "MISMATCH") {
            named = true;
            continue;
        }
        machine.delete(Table::Contribution, keys::contribution(sequence, round, contribution.shard));
    }
    if let Some(row) = read::round(&machine.rows, sequence, round)? {
        delete_artifact(machine, job_row, row.model_artifact)?;
    }
    if let Some(before) = round.checked_sub(1) {
        machine.delete(Table::Round, keys::pair(sequence, before));
    }
    Ok(())
}
