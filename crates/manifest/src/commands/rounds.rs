//! Rounds: OPEN(r) → SEALED(r) → COMMITTED(r), and SealRound. A sealed round's list of contributions never changes.

use protobuf::{RepeatedField, SingularPtrField};
use raftgrid_proto::v1::{
    ArtifactRow, JobPhase, JobRow, Outcome, RoundLease, RoundPhase, RoundRow, SealRound, ShardLease,
};

use crate::commands::job_spec::{quorum, TRAIN};
use crate::commands::lifecycle::require_running;
use crate::commands::trainers::is_same_attempt;
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::ROUND_LEASES_MAX;
use crate::machine::Machine;
use crate::read;
use crate::reply::{not_found, precondition, refuse};
use crate::rows::Table;
use crate::tables::JobTable;
use crate::text::short_hex;

pub(crate) fn put(machine: &mut Machine<'_>, job_sequence: u64, round: &RoundRow) {
    machine.put(Table::Round, keys::pair(job_sequence, round.round), round);
}

/// The row of a train job.
pub(crate) fn train_job(machine: &Machine<'_>, job_id: &str) -> Result<JobRow, Fault> {
    let row = read::job_by_id(&machine.rows, job_id)?.ok_or_else(|| not_found("job", job_id))?;
    if row.get_job().get_spec().field_type != TRAIN {
        return Err(precondition(format!("job {job_id} is no train job")));
    }
    Ok(row)
}

/// Model 0 stands: the job runs and round 0 opens.
pub(crate) fn begin_training(machine: &mut Machine<'_>, mut row: JobRow, model: &ArtifactRow) -> Result<(), Fault> {
    let now = machine.now_ms();
    let job = row.mut_job();
    job.phase = JobPhase::JOB_RUNNING;
    job.has_model = true;
    job.model_version = 0;
    job.model_digest = model.digest.clone();
    job.model_artifact = model.artifact_id.to_string();
    job.first_round_at_ms = now;
    open(machine, &row, 0, model, None);
    JobTable::put(machine, row);
    Ok(())
}

/// Opens round `round` over model `round`.
pub(crate) fn open(
    machine: &mut Machine<'_>,
    job_row: &JobRow,
    round: u64,
    model: &ArtifactRow,
    state: Option<&ArtifactRow>,
) {
    let row = RoundRow {
        round,
        phase: RoundPhase::ROUND_OPEN,
        opened_at_ms: machine.now_ms(),
        model_artifact: model.artifact_id,
        input_model_digest: model.digest.clone(),
        state_artifact: state.map_or(0, |state| state.artifact_id),
        input_state_digest: state.map(|state| state.digest.clone()).unwrap_or_default(),
        leases: RepeatedField::new(),
        ..RoundRow::default()
    };
    put(machine, job_row.sequence, &row);
}

/// Seals at quorum, inside the apply of the contribution that fills it.
pub(crate) fn seal_at_quorum(job_row: &JobRow, round: &mut RoundRow) {
    if round.phase == RoundPhase::ROUND_OPEN && round.accepted >= quorum(job_row.get_job().get_spec().get_train()) {
        round.phase = RoundPhase::ROUND_SEALED;
    }
}

/// By deadline; never below the quorum, which is also the least that this release seals with.
pub(crate) fn seal(machine: &mut Machine<'_>, command: &SealRound) -> Handled {
    let job_row = train_job(machine, &command.job_id)?;
    let mut round = match read::round(&machine.rows, job_row.sequence, command.round)? {
        Some(round) => round,
        None if command.round < job_row.get_job().rounds_committed => {
            return Err(refuse(Outcome::STALE, format!("round {} is committed", command.round)));
        }
        None => return Err(precondition(format!("round {} is not open yet", command.round))),
    };
    match round.phase {
        RoundPhase::ROUND_SEALED | RoundPhase::ROUND_COMMITTED => Ok(machine.existing(job_row.get_job().revision)),
        RoundPhase::ROUND_OPEN => {
            require_running(job_row.get_job().phase, &command.job_id)?;
            let needed = quorum(job_row.get_job().get_spec().get_train());
            seal_at_quorum(&job_row, &mut round);
            if round.phase != RoundPhase::ROUND_SEALED {
                let why = format!("round {} has {} of {needed} contributions", round.round, round.accepted);
                return Err(precondition(why));
            }
            put(machine, job_row.sequence, &round);
            Ok(machine.ok())
        }
    }
}

/// Marks the attempt's lease of a shard answered; one without a lease is noted as answered, so that its retry is known for one. Tells
/// whether this was the first answer of the attempt.
pub(crate) fn answer(round: &mut RoundRow, attempt: &ShardLease) -> bool {
    let held = round.leases.iter_mut().find(|held| is_same_attempt(held.get_lease(), attempt));
    if let Some(held) = held {
        return !std::mem::replace(&mut held.answered, true);
    }
    if round.leases.len() >= ROUND_LEASES_MAX {
        return false;
    }
    let lease = SingularPtrField::some(attempt.clone());
    round.leases.push(RoundLease { lease, answered: true, ..RoundLease::default() });
    true
}

/// Notes the numeric class of a result on the job: the first one seen, and the first that differed from it.
pub(crate) fn note_class(job_row: &mut JobRow, class: &[u8], whose: &str) {
    if class.is_empty() {
        return;
    }
    if job_row.numeric_class.is_empty() {
        job_row.numeric_class = class.to_vec();
    } else if job_row.numeric_class != class && job_row.numeric_class_note.is_empty() {
        let (first, other) = (show(&job_row.numeric_class), show(class));
        job_row.numeric_class_note = format!("{whose} has numeric class {other}, the first had {first}");
    }
}

fn show(class: &[u8]) -> String {
    match std::str::from_utf8(class) {
        Ok(text) if text.len() <= 200 && !text.chars().any(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => short_hex(class),
    }
}
