//! SubmitJob, CancelJob, FailJob. A job's tasks are made in the same apply as the job.

use protobuf::{RepeatedField, SingularPtrField};
use raftgrid_proto::v1::{
    CancelJob, Combine, CommandReply, FailJob, GangMember, Job, JobPhase, JobRow, JobSpec, Outcome, ResumeJob,
    SubmitJob,
};

use crate::commands::job_end::{self, end_job, is_over, phase_name};
use crate::commands::job_spec::{checked, committed_artifact, ids_are_free, trainer_data, TRAIN};
use crate::commands::tasks::{create_member, NewTask};
use crate::commands::{arrays, dag, deadlines, hyperparameters, round_settings, rounds};
use crate::error::{Fault, Handled};
use crate::keys;
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse};
use crate::rows::Table;
use crate::tables::JobTable;
use crate::text::{cut, encode, hash_parts};

pub(crate) fn submit(machine: &mut Machine<'_>, command: &SubmitJob) -> Handled {
    let asked = command.get_spec();
    if let Some(row) = read::job_by_id(&machine.rows, &asked.name)? {
        return again(machine, asked, &row);
    }
    let spec = checked(machine, asked)?;
    let ids = task_ids(&spec);
    ids_are_free(machine, ids.iter().cloned())?;
    let row = make_job(machine, &spec, &ids);
    if dag::is_graph(&spec) {
        dag::make_tasks(machine, &spec, row.sequence)?;
    } else {
        make_tasks(machine, &spec, row.sequence, ids)?;
    }
    if !spec.get_train().initial_model.is_empty() {
        start_from_model(machine, row.sequence, &spec)?;
    }
    Ok(CommandReply { id: spec.name, number: row.sequence, ..machine.ok() })
}

/// The name is taken: the same spec of the same principal is the same job.
fn again(machine: &Machine<'_>, asked: &JobSpec, row: &JobRow) -> Handled {
    let job = row.get_job();
    let mut asked = asked.clone();
    if asked.bundle_digest.is_empty() {
        asked.bundle_digest = job.get_spec().bundle_digest.clone();
    }
    if !asked.bundle_digest.is_empty() && asked.bundle_digest == job.get_spec().bundle_digest {
        // The same code uploaded again has another artifact id; what counts is its content.
        asked.mut_task().bundle_artifact = job.get_spec().get_task().bundle_artifact.clone();
    }
    let same = if row.spec_digest.is_empty() { asked == *job.get_spec() } else { digest(&asked) == row.spec_digest };
    if !same || job.principal != machine.principal {
        return Err(refuse(Outcome::ALREADY_EXISTS, format!("job {} exists with another spec", job.job_id)));
    }
    Ok(CommandReply { id: job.job_id.clone(), number: row.sequence, ..machine.existing(job.revision) })
}

/// What the row keeps of a spec whose tasks say the rest.
fn digest(spec: &JobSpec) -> Vec<u8> {
    hash_parts(&[&encode(spec)])
}

/// The tasks that the row names. A graph may have many, and an array has none at first: their tasks are found by the index.
fn task_ids(spec: &JobSpec) -> Vec<String> {
    if dag::is_graph(spec) || arrays::is_array(spec) {
        Vec::new()
    } else if spec.field_type == TRAIN {
        (0..spec.get_train().workers).map(|i| format!("{}/trainer-{i}", spec.name)).collect()
    } else if let Some(gang) = spec.gang.as_ref() {
        (0..gang.max_members).map(|i| format!("{}/member-{i}", spec.name)).collect()
    } else {
        vec![spec.name.clone()]
    }
}

fn make_job(machine: &mut Machine<'_>, spec: &JobSpec, ids: &[String]) -> JobRow {
    let train = spec.field_type == TRAIN;
    let sequence = machine.meta.next_job_sequence;
    machine.meta.next_job_sequence += 1;
    let mut kept = spec.clone();
    let spec_digest = if spec.dag.is_empty() { Vec::new() } else { digest(spec) };
    kept.dag.clear();
    let job = Job {
        job_id: spec.name.clone(),
        spec: SingularPtrField::some(kept),
        phase: if train { JobPhase::JOB_INIT } else { JobPhase::JOB_RUNNING },
        created_at_ms: machine.now_ms() as i64,
        task_ids: RepeatedField::from_vec(ids.to_vec()),
        principal: machine.principal.to_owned(),
        combine: combine_of(machine, spec),
        ..Job::default()
    };
    let init_task = if train && spec.get_train().initial_model.is_empty() { ids[0].clone() } else { String::new() };
    // An older replica keeps the fields of this and reads none of them: so does a newer one below their version, for the whole job.
    let round_rules = round_settings::is_new(spec.get_train()) && machine.meta.machine_version >= round_settings::SINCE;
    let job = SingularPtrField::some(job);
    let row = JobRow { sequence, init_task, spec_digest, round_rules, job, ..JobRow::default() };
    machine.put_bytes(Table::JobById, spec.name.clone().into_bytes(), keys::number(sequence));
    JobTable::put(machine, row)
}

/// Set: the job's rounds go by the rules of [`hyperparameters::SINCE`].
fn combine_of(machine: &Machine<'_>, spec: &JobSpec) -> SingularPtrField<Combine> {
    let train = spec.get_train();
    let asked = hyperparameters::is_new(train.get_optimizer(), train.combine.as_ref());
    if asked && machine.meta.machine_version >= hyperparameters::SINCE {
        SingularPtrField::some(train.get_combine().clone())
    } else {
        SingularPtrField::none()
    }
}

fn make_tasks(machine: &mut Machine<'_>, spec: &JobSpec, sequence: u64, ids: Vec<String>) -> Result<(), Fault> {
    let task_data = if spec.field_type == TRAIN { trainer_data(spec)? } else { spec.task_data.clone() };
    for (index, task_id) in ids.into_iter().enumerate() {
        let member = spec.gang.as_ref().map(|gang| GangMember {
            index: index as u32,
            min_members: gang.min_members,
            max_members: gang.max_members,
            ..GangMember::default()
        });
        let new = NewTask {
            task_id,
            task_type: spec.field_type.clone(),
            task_data: task_data.clone(),
            spec: spec.task.clone(),
            parent_task_id: String::new(),
            job: (spec.name.clone(), sequence),
            element: None,
        };
        create_member(machine, new, member)?;
    }
    Ok(())
}

/// Model 0 is an artifact that exists: no init task, round 0 opens at once.
fn start_from_model(machine: &mut Machine<'_>, sequence: u64, spec: &JobSpec) -> Result<(), Fault> {
    let train = spec.get_train();
    let model = committed_artifact(machine, "spec.train.initial_model", &train.initial_model)?;
    let mut row = JobTable::get(machine, sequence)?;
    row.mut_job().optimizer = train.optimizer.clone();
    rounds::begin_training(machine, row, &model)
}

pub(crate) fn cancel(machine: &mut Machine<'_>, command: &CancelJob) -> Handled {
    let row = read::job_by_id(&machine.rows, &command.job_id)?.ok_or_else(|| not_found("job", &command.job_id))?;
    let job = row.get_job();
    if job.phase == JobPhase::JOB_CANCELLED {
        return Ok(CommandReply { id: job.job_id.clone(), ..machine.existing(job.revision) });
    }
    if is_over(job.phase) {
        return Err(precondition(format!("job {} is {} already", job.job_id, phase_name(job.phase))));
    }
    let reason = if command.reason.is_empty() { "cancelled" } else { &command.reason };
    end_job(machine, row.sequence, JobPhase::JOB_CANCELLED, reason)?;
    Ok(CommandReply { id: command.job_id.clone(), ..machine.ok() })
}

/// The leader gives a job up (FAILED, REJECTED) or holds it (PAUSED: no leases, no models; its tasks stay).
pub(crate) fn fail(machine: &mut Machine<'_>, command: &FailJob) -> Handled {
    let mut row = read::job_by_id(&machine.rows, &command.job_id)?.ok_or_else(|| not_found("job", &command.job_id))?;
    let (phase, job) = (command.phase, row.get_job());
    if phase == job.phase {
        return Ok(CommandReply { id: job.job_id.clone(), ..machine.existing(job.revision) });
    }
    if is_over(job.phase) {
        return Err(precondition(format!("job {} is {} already", job.job_id, phase_name(job.phase))));
    }
    match phase {
        JobPhase::JOB_FAILED | JobPhase::JOB_REJECTED => {
            job_end::end_job(machine, row.sequence, phase, &command.reason)?;
        }
        JobPhase::JOB_PAUSED => {
            row.mut_job().phase = phase;
            row.mut_job().reason = cut(&command.reason);
            JobTable::put(machine, row);
        }
        JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_DONE | JobPhase::JOB_CANCELLED => {
            return Err(invalid("phase", format!("FAILED, PAUSED or REJECTED, is {}", phase_name(phase))));
        }
    }
    Ok(CommandReply { id: command.job_id.clone(), ..machine.ok() })
}

/// A paused job goes on where it stands.
pub(crate) fn resume(machine: &mut Machine<'_>, command: &ResumeJob) -> Handled {
    let mut row = read::job_by_id(&machine.rows, &command.job_id)?.ok_or_else(|| not_found("job", &command.job_id))?;
    let job = row.get_job();
    match job.phase {
        JobPhase::JOB_PAUSED => {}
        JobPhase::JOB_INIT | JobPhase::JOB_RUNNING => {
            return Ok(CommandReply { id: job.job_id.clone(), ..machine.existing(job.revision) });
        }
        JobPhase::JOB_DONE | JobPhase::JOB_FAILED | JobPhase::JOB_CANCELLED | JobPhase::JOB_REJECTED => {
            return Err(precondition(format!("job {} is {} already", job.job_id, phase_name(job.phase))));
        }
    }
    let trains = job.get_spec().field_type == TRAIN;
    let waits_for_model = trains && !job.has_model;
    let job = row.mut_job();
    job.phase = if waits_for_model { JobPhase::JOB_INIT } else { JobPhase::JOB_RUNNING };
    job.reason.clear();
    let row = JobTable::put(machine, row);
    if trains && !waits_for_model {
        deadlines::resumed(machine, &row)?;
    }
    Ok(CommandReply { id: command.job_id.clone(), ..machine.ok() })
}
