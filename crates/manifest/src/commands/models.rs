//! CommitModel: version 0 by the init task, version r+1 by whoever leads. Model r+1 exists only if round r was sealed and its inputs hash
//! matches (invariant 6): the hash is recomputed here, from the ledger.

use raftgrid_proto::v1::{
    ArtifactRow, CommandReply, CommitModel, JobPhase, JobRow, Outcome, Receipt, RoundPhase, RoundRow,
};

use crate::commands::artifacts;
use crate::commands::history;
use crate::commands::hyperparameters::{self, check_combine, check_optimizer};
use crate::commands::init_role;
use crate::commands::job_end::{self, phase_name};
use crate::commands::lifecycle::require_running;
use crate::commands::retention;
use crate::commands::rounds::{self, note_class, train_job};
use crate::commands::trainers::trainer_of;
use crate::error::{Fault, Handled};
use crate::ledger::{chain_hash, round_inputs_hash, RoundInputs};
use crate::limits::NOTE_BYTES_MAX;
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, precondition, refuse};
use crate::round_policy::BY_DEADLINE;
use crate::tables::JobTable;
use crate::text::{check_bytes, check_digest, short_hex};

pub(crate) fn commit(machine: &mut Machine<'_>, command: &CommitModel) -> Handled {
    check_digest("model_digest", &command.model_digest)?;
    check_bytes("metrics_json", command.metrics_json.len(), NOTE_BYTES_MAX)?;
    check_bytes("numeric_class", command.numeric_class.len(), NOTE_BYTES_MAX)?;
    let job_row = train_job(machine, &command.job_id)?;
    let job = job_row.get_job();
    if job.has_model && command.version <= job.model_version {
        return compare(machine, command, &job_row);
    }
    if command.version == 0 {
        commit_first(machine, command, job_row)
    } else {
        commit_next(machine, command, job_row)
    }
}

/// The version is there: the same bytes are the same answer, others are refused. (`init_model` in other trainers only compares.)
fn compare(machine: &Machine<'_>, command: &CommitModel, job_row: &JobRow) -> Handled {
    let job = job_row.get_job();
    let digest = if command.version == job.model_version {
        job.model_digest.clone()
    } else {
        match read::round(&machine.rows, job_row.sequence, command.version)? {
            Some(round) => round.input_model_digest,
            None => return Err(refuse(Outcome::STALE, format!("model {} is no longer kept", command.version))),
        }
    };
    if digest != command.model_digest {
        let (theirs, ours) = (short_hex(&command.model_digest), short_hex(&digest));
        let why = format!("model {} of job {} has digest {ours}, not {theirs}", command.version, command.job_id);
        return Err(refuse(Outcome::MISMATCH, why));
    }
    Ok(CommandReply { id: job.model_artifact.clone(), ..machine.existing(job.revision) })
}

/// Checks that the artifact was begun for these bytes, and commits it.
fn take_artifact(
    machine: &mut Machine<'_>,
    command: &CommitModel,
    artifact_id: u64,
    digest: &[u8],
    receipts: &[Receipt],
) -> Result<ArtifactRow, Fault> {
    let row = artifacts::get(machine, artifact_id)?;
    if row.digest != digest {
        return Err(precondition(format!("artifact {artifact_id} was begun for other bytes")));
    }
    if !row.job_id.is_empty() && row.job_id != command.job_id {
        return Err(precondition(format!("artifact {artifact_id} belongs to job {}", row.job_id)));
    }
    artifacts::commit_by_receipts(machine, row, receipts)
}

fn commit_first(machine: &mut Machine<'_>, command: &CommitModel, mut job_row: JobRow) -> Handled {
    let phase = job_row.get_job().phase;
    if phase != JobPhase::JOB_INIT {
        return Err(precondition(format!("job {} is {}, not INIT", command.job_id, phase_name(phase))));
    }
    let version = machine.meta.machine_version;
    if !init_role::may_make(version, &job_row, &command.task_id) {
        let why = format!("model 0 is made by {}, not by {}", job_row.init_task, command.task_id);
        return Err(precondition(why));
    }
    trainer_of(machine, &job_row, &command.task_id, command.epoch)?;
    if command.state_artifact != 0 {
        return Err(invalid("state_artifact", "model 0 has no optimiser state"));
    }
    check_optimizer(version, "optimizer", command.get_optimizer())?;
    check_combine(version, "combine", command.get_combine())?;
    if version >= hyperparameters::SINCE {
        take_combine(&mut job_row, command)?;
    }
    let receipts = command.get_model_receipts();
    let model = take_artifact(machine, command, command.model_artifact, &command.model_digest, receipts)?;
    note_class(&mut job_row, &command.numeric_class, &format!("model 0 of {}", command.task_id));
    job_row.mut_job().optimizer = command.optimizer.clone();
    job_row.init_task = command.task_id.clone();
    rounds::begin_training(machine, job_row, &model)?;
    Ok(CommandReply { id: model.artifact_id.to_string(), number: model.artifact_id, ..machine.ok() })
}

/// How contributions become one is the script's to say, unless the job's spec says it. From here on the job's rounds go by the rules of
/// [`hyperparameters::SINCE`], if it asks for any of them.
fn take_combine(job_row: &mut JobRow, command: &CommitModel) -> Result<(), Fault> {
    let job = job_row.mut_job();
    let wanted = command.combine.as_ref();
    if let (Some(given), Some(wanted)) = (job.combine.as_ref(), wanted) {
        if given != wanted {
            return Err(invalid("combine", "the job's spec says another"));
        }
    } else if job.combine.is_none() && hyperparameters::is_new(command.get_optimizer(), wanted) {
        job.set_combine(command.get_combine().clone());
    }
    Ok(())
}

fn commit_next(machine: &mut Machine<'_>, command: &CommitModel, job_row: JobRow) -> Handled {
    let job = job_row.get_job();
    require_running(job.phase, &command.job_id)?;
    if command.version != job.rounds_committed + 1 {
        let why = format!("model {} does not follow model {}", command.version, job.model_version);
        return Err(precondition(why));
    }
    let mut round = read::round(&machine.rows, job_row.sequence, command.version - 1)?
        .filter(|round| round.phase == RoundPhase::ROUND_SEALED)
        .ok_or_else(|| precondition(format!("round {} is not sealed", command.version - 1)))?;
    check_inputs(machine, command, &job_row, &round)?;
    check_digest("state_digest", &command.state_digest)?;
    if command.state_artifact == command.model_artifact {
        return Err(invalid("state_artifact", "must not be the model's"));
    }
    let model_receipts = command.get_model_receipts();
    let model = take_artifact(machine, command, command.model_artifact, &command.model_digest, model_receipts)?;
    let state_receipts = command.get_state_receipts();
    let state = take_artifact(machine, command, command.state_artifact, &command.state_digest, state_receipts)?;

    round.phase = RoundPhase::ROUND_COMMITTED;
    round.inputs_hash = command.inputs_hash.clone();
    round.chain_hash = chain_hash(&job.ledger_hash, &command.inputs_hash, &command.model_digest).to_vec();
    round.model_digest = command.model_digest.clone();
    round.metrics_json = command.metrics_json.clone();
    round.committed_at_ms = machine.now_ms();
    round.committed_position = machine.position.get();
    rounds::put(machine, job_row.sequence, &round);
    history::note(machine, job_row.sequence, &round);
    advance(machine, command, job_row, &round, (&model, &state))?;
    Ok(CommandReply { id: model.artifact_id.to_string(), number: model.artifact_id, ..machine.ok() })
}

fn check_inputs(machine: &Machine<'_>, command: &CommitModel, job_row: &JobRow, round: &RoundRow) -> Result<(), Fault> {
    let contributions = read::contributions(&machine.rows, job_row.sequence, round.round)?;
    let hash = round_inputs_hash(&RoundInputs::of_rows(job_row, round, &contributions));
    if command.inputs_hash != hash {
        let (theirs, ours) = (short_hex(&command.inputs_hash), short_hex(&hash));
        let why = format!("inputs_hash {theirs} is not that of round {} in the ledger ({ours})", round.round);
        return Err(refuse(Outcome::MISMATCH, why));
    }
    Ok(())
}

/// The job moves on to the new model: the next round opens, or the job is done.
fn advance(
    machine: &mut Machine<'_>,
    command: &CommitModel,
    mut job_row: JobRow,
    round: &RoundRow,
    (model, state): (&ArtifactRow, &ArtifactRow),
) -> Result<(), Fault> {
    job_row.state_digest = state.digest.clone();
    if job_row.round_rules {
        count(&mut job_row, round);
    }
    let job = job_row.mut_job();
    job.rounds_committed = command.version;
    job.model_version = command.version;
    job.model_digest = model.digest.clone();
    job.model_artifact = model.artifact_id.to_string();
    job.state_artifact = state.artifact_id.to_string();
    job.ledger_hash = round.chain_hash.clone();
    job.metrics_json = command.metrics_json.clone();
    let over = command.version == job.get_spec().get_train().rounds;
    retention::after_commit(machine, &mut job_row)?;
    if over {
        return job_end::done(machine, job_row);
    }
    rounds::open(machine, &job_row, command.version, model, Some(state))?;
    JobTable::put(machine, job_row);
    Ok(())
}

/// What the audit must find in the ledger, and what people are told of the job's rounds.
fn count(job_row: &mut JobRow, round: &RoundRow) {
    job_row.sealed_contributions += u64::from(round.accepted);
    let job = job_row.mut_job();
    job.rounds_by_deadline += u64::from(round.sealed_by == BY_DEADLINE);
    job.extensions += u64::from(round.extensions);
}
