//! What a task may ask of its placement: queue, operators of constraints, preferences, spread, affinities, labels. Asked for every task that
//! is made, whatever makes it. All of it means something from machine version 3 on, and is refused before.

use raftgrid_proto::v1::{Affinity, Constraint, JobSpec, Operator, TaskSpec};

use crate::attributes::{number, ATTRIBUTES_SINCE};
use crate::commands::job_spec::TRAIN;
use crate::error::Fault;
use crate::limits::{
    AFFINITIES_MAX, JOB_NAME_BYTES_MAX, LABELS_MAX, NOTE_BYTES_MAX, PREFERENCE_WEIGHT_MAX, WORKERS_MAX,
};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, precondition};
use crate::text::{check_bytes, check_name};

fn says_more_than_before(spec: &TaskSpec) -> bool {
    let plain = |constraint: &Constraint| constraint.operator == Operator::OP_EQUAL && constraint.values.is_empty();
    !spec.queue.is_empty()
        || !spec.preferences.is_empty()
        || !spec.spread_over.is_empty()
        || !spec.affinities.is_empty()
        || spec.preemptible
        || !spec.labels.is_empty()
        || !spec.constraints.iter().all(plain)
}

/// Refuses what cannot be meant, with the field's name. `spec`: of the task about to be made.
pub(crate) fn check_placement(machine: &Machine<'_>, spec: &TaskSpec) -> Result<(), Fault> {
    if !says_more_than_before(spec) {
        return Ok(());
    }
    let version = machine.meta.machine_version;
    if version < ATTRIBUTES_SINCE {
        let why = "queues, preferences, affinities, preemption and operators of constraints";
        return Err(precondition(format!(
            "{why} need machine version {ATTRIBUTES_SINCE}, the cluster is at {version}"
        )));
    }
    spec.constraints.iter().try_for_each(|constraint| check_constraint("spec.constraints", constraint))?;
    if spec.preferences.len() > LABELS_MAX || spec.labels.len() > LABELS_MAX {
        return Err(invalid("spec", format!("at most {LABELS_MAX} preferences and labels, each")));
    }
    for preference in &spec.preferences {
        check_constraint("spec.preferences", preference.get_wanted())?;
        check_weight("spec.preferences.weight", preference.weight)?;
    }
    if spec.labels.iter().any(|label| label.key.is_empty()) {
        return Err(invalid("spec.labels", "a key must not be empty"));
    }
    check_bytes("spec.spread_over", spec.spread_over.len(), NOTE_BYTES_MAX)?;
    if spec.affinities.len() > AFFINITIES_MAX {
        return Err(invalid("spec.affinities", format!("at most {AFFINITIES_MAX}, is {}", spec.affinities.len())));
    }
    spec.affinities.iter().try_for_each(check_affinity)?;
    if !spec.queue.is_empty() {
        check_name("spec.queue", &spec.queue, JOB_NAME_BYTES_MAX, b"")?;
        if read::queue(&machine.rows, &spec.queue)?.is_none() {
            return Err(invalid("spec.queue", format!("there is no queue {}", spec.queue)));
        }
    }
    Ok(())
}

fn check_constraint(field: &str, constraint: &Constraint) -> Result<(), Fault> {
    let Constraint { key, value, values, .. } = constraint;
    if key.is_empty() {
        return Err(invalid(field, "a key must not be empty"));
    }
    let wants_value =
        || if values.is_empty() { Ok(()) } else { Err(invalid(field, format!("{key}: values go with IN"))) };
    match constraint.operator {
        Operator::OP_EQUAL | Operator::OP_NOT_EQUAL => wants_value(),
        Operator::OP_AT_LEAST | Operator::OP_AT_MOST => {
            if number(value).is_none() {
                return Err(invalid(field, format!("{key}: a number is needed, is \"{value}\"")));
            }
            wants_value()
        }
        Operator::OP_IN if values.is_empty() || values.len() > LABELS_MAX || !value.is_empty() => {
            Err(invalid(field, format!("{key}: IN needs 1 to {LABELS_MAX} values, and no value")))
        }
        Operator::OP_IN => Ok(()),
        Operator::OP_EXISTS | Operator::OP_NOT_EXISTS if !value.is_empty() || !values.is_empty() => {
            Err(invalid(field, format!("{key}: EXISTS and NOT_EXISTS take no value")))
        }
        Operator::OP_EXISTS | Operator::OP_NOT_EXISTS => Ok(()),
    }
}

fn check_weight(field: &str, weight: u32) -> Result<(), Fault> {
    if weight == 0 || weight > PREFERENCE_WEIGHT_MAX {
        return Err(invalid(field, format!("1..={PREFERENCE_WEIGHT_MAX}, is {weight}")));
    }
    Ok(())
}

fn check_affinity(affinity: &Affinity) -> Result<(), Fault> {
    let field = "spec.affinities";
    let labelled = affinity.label.as_ref().is_some_and(|label| !label.key.is_empty());
    if labelled != affinity.job_id.is_empty() || affinity.label.is_some() != labelled {
        return Err(invalid(field, "each names a job or a label, one of the two"));
    }
    if !affinity.hard {
        check_weight("spec.affinities.weight", affinity.weight)?;
    } else if affinity.weight != 0 {
        return Err(invalid("spec.affinities.weight", "a hard one has none"));
    }
    Ok(())
}

/// The gang of a job.
pub(crate) fn check_gang(machine: &Machine<'_>, spec: &JobSpec) -> Result<(), Fault> {
    let Some(gang) = spec.gang.as_ref() else { return Ok(()) };
    let version = machine.meta.machine_version;
    if version < ATTRIBUTES_SINCE {
        let why = format!("gangs need machine version {ATTRIBUTES_SINCE}, the cluster is at {version}");
        return Err(precondition(why));
    }
    if spec.field_type == TRAIN {
        return Err(invalid("spec.gang", "a train job has trainers, which need not run together"));
    }
    let (min, max) = (gang.min_members, gang.max_members);
    if max == 0 || max > WORKERS_MAX {
        return Err(invalid("spec.gang.max_members", format!("1..={WORKERS_MAX}, is {max}")));
    }
    if min == 0 || min > max {
        return Err(invalid("spec.gang.min_members", format!("1..={max}, is {min}")));
    }
    Ok(())
}
