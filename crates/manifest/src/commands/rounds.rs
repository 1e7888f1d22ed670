//! Rounds: OPEN(r) → SEALED(r) → COMMITTED(r). A sealed round's list of contributions never changes. `deadlines` has what time does to them.

use protobuf::{RepeatedField, SingularPtrField};
use raftgrid_proto::v1::{ArtifactRow, JobPhase, JobRow, RoundLease, RoundPhase, RoundRow, ShardLease};

use crate::commands::job_spec::TRAIN;
use crate::commands::trainers::is_same_attempt;
use crate::error::Fault;
use crate::keys;
use crate::limits::ROUND_LEASES_MAX;
use crate::machine::Machine;
use crate::read;
use crate::reply::{not_found, precondition};
use crate::round_policy::{is_head, RoundMode, RoundPolicy, BY_QUORUM};
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
    open(machine, &row, 0, model, None)?;
    JobTable::put(machine, row);
    Ok(())
}

/// Opens round `number` over model `number`. What was collected for it ahead of its model is in it.
pub(crate) fn open(
    machine: &mut Machine<'_>,
    job_row: &JobRow,
    number: u64,
    model: &ArtifactRow,
    state: Option<&ArtifactRow>,
) -> Result<(), Fault> {
    let policy = RoundPolicy::of(job_row);
    let collected = match policy.mode {
        RoundMode::Sync => None,
        RoundMode::Bounded { .. } | RoundMode::Async { .. } => read::round(&machine.rows, job_row.sequence, number)?,
    };
    let mut row = RoundRow {
        opened_at_ms: machine.now_ms(),
        model_artifact: model.artifact_id,
        input_model_digest: model.digest.clone(),
        state_artifact: state.map_or(0, |state| state.artifact_id),
        input_state_digest: state.map(|state| state.digest.clone()).unwrap_or_default(),
        ..collected.unwrap_or_else(|| collecting(number))
    };
    seal_at_quorum(machine, job_row, &mut row);
    put(machine, job_row.sequence, &row);
    match policy.mode {
        RoundMode::Bounded { .. } => open_ahead(machine, job_row, &policy, number)?,
        // A round of these is followed when it is sealed.
        RoundMode::Sync | RoundMode::Async { .. } => {}
    }
    Ok(())
}

/// A round whose model does not stand yet.
fn collecting(number: u64) -> RoundRow {
    RoundRow { round: number, phase: RoundPhase::ROUND_OPEN, ..RoundRow::default() }
}

/// The rounds that shards may be ahead in, up to the last one that is open beside `head`.
fn open_ahead(machine: &mut Machine<'_>, job_row: &JobRow, policy: &RoundPolicy, head: u64) -> Result<(), Fault> {
    let last = policy.last_open(head);
    // Those of the heads before stand already.
    let first = if head == 0 { 1 } else { last };
    for number in first.max(head + 1)..=last {
        if read::round(&machine.rows, job_row.sequence, number)?.is_none() {
            put(machine, job_row.sequence, &collecting(number));
        }
    }
    Ok(())
}

/// Seals at quorum, inside the apply of the contribution that fills it. Not ahead of its model: the one before comes first.
pub(crate) fn seal_at_quorum(machine: &mut Machine<'_>, job_row: &JobRow, round: &mut RoundRow) {
    if round.phase == RoundPhase::ROUND_OPEN && is_head(round) && round.accepted >= RoundPolicy::of(job_row).quorum {
        close(machine, job_row, round, BY_QUORUM);
    }
}

/// Its list of contributions is what it is from now on. In an async job the next round collects while this one is summed, and has the leases
/// of those who were not first.
pub(crate) fn close(machine: &mut Machine<'_>, job_row: &JobRow, round: &mut RoundRow, how: &str) {
    round.phase = RoundPhase::ROUND_SEALED;
    if !job_row.round_rules {
        return;
    }
    round.sealed_by = how.to_owned();
    let policy = RoundPolicy::of(job_row);
    let followed = policy.last_open(round.round) > round.round;
    match policy.mode {
        RoundMode::Async { .. } if followed => {
            let (late, kept) = round.take_leases().into_iter().partition(is_late);
            round.leases = RepeatedField::from_vec(kept);
            let next = RoundRow { leases: RepeatedField::from_vec(late), ..collecting(round.round + 1) };
            put(machine, job_row.sequence, &next);
        }
        RoundMode::Sync | RoundMode::Bounded { .. } | RoundMode::Async { .. } => {}
    }
}

/// Whether somebody still works on it for a round to come.
fn is_late(held: &RoundLease) -> bool {
    !held.answered && !held.taken && !held.get_lease().verify
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
