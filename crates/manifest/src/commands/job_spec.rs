//! What a job may ask for. Each refusal names the field.

use raftgrid_proto::v1::{ArtifactRow, ArtifactState, JobSpec, Outcome, TrainSpec};
use serde::{Deserialize, Serialize};

use crate::commands::hyperparameters::{check_combine, check_optimizer};
use crate::commands::placement_spec::check_gang;
use crate::commands::{arrays, dag, dependencies, matmul, round_settings};
use crate::error::Fault;
use crate::limits::{JOB_NAME_BYTES_MAX, NOTE_BYTES_MAX, ROUNDS_MAX, SHARDS_MAX, TASK_DATA_BYTES_MAX, WORKERS_MAX};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, refuse};
use crate::text::{check_bytes, check_name, check_spec};

/// The type whose tasks are trainers.
pub(crate) const TRAIN: &str = "train";
/// The type whose tasks are agents of torchrun; from machine version 3 on.
pub(crate) const TORCHRUN: &str = "torchrun";
/// The type whose tasks are named one by one.
pub(crate) const DAG: &str = "dag";
/// The type that multiplies: in one task, or by blocks.
pub(crate) const MATMUL: &str = "matmul";
/// The type whose result is metrics.
pub(crate) const EVAL: &str = "eval";
const ONE_TASK_TYPES: [&str; 5] = ["command", "python", MATMUL, EVAL, TORCHRUN];

/// Whether the spec asks for something that came with machine version 3.
pub(crate) fn is_new(spec: &JobSpec) -> bool {
    let named = matches!(spec.field_type.as_str(), DAG | EVAL | TORCHRUN);
    let given = spec.array.is_some() || spec.matmul.is_some() || !spec.sweep.is_empty() || !spec.dag.is_empty();
    named || given || !spec.get_task().depends_on.is_empty()
}

/// A type that a task may have outside of training.
pub(crate) fn check_task_type(field: &str, task_type: &str) -> Result<(), Fault> {
    if !ONE_TASK_TYPES.contains(&task_type) {
        return Err(invalid(field, format!("{}, is \"{task_type}\"", ONE_TASK_TYPES.join(", "))));
    }
    Ok(())
}

/// `task_data` of a train job, as it is submitted.
#[derive(Deserialize)]
struct TrainData {
    script: String,
    #[serde(default)]
    args: Vec<String>,
}

/// `task_data` of a trainer. The order of the fields is the order of the bytes.
#[derive(Serialize)]
struct TrainerData<'a> {
    job: &'a str,
    script: &'a str,
    args: &'a [String],
}

/// Checks a spec and fills in what follows from the artifacts that it names.
pub(crate) fn checked(machine: &Machine<'_>, spec: &JobSpec) -> Result<JobSpec, Fault> {
    check_name("spec.name", &spec.name, JOB_NAME_BYTES_MAX, b"")?;
    check_bytes("spec.task_data", spec.task_data.len(), TASK_DATA_BYTES_MAX)?;
    check_spec("spec.task", spec.get_task())?;
    check_gang(machine, spec)?;
    let mut spec = spec.clone();
    fill_bundle_digest(machine, &mut spec)?;
    if spec.field_type == TRAIN {
        let train = spec.train.as_ref().ok_or_else(|| invalid("spec.train", "a train job needs it"))?;
        check_train(machine, train)?;
        trainer_data(&spec)?;
    } else if spec.field_type != DAG && !ONE_TASK_TYPES.contains(&spec.field_type.as_str()) {
        let known = ONE_TASK_TYPES.join(", ");
        return Err(invalid("spec.type", format!("{known}, {DAG} or {TRAIN}, is \"{}\"", spec.field_type)));
    } else if spec.train.is_some() {
        return Err(invalid("spec.train", format!("only for jobs of type {TRAIN}, this is {}", spec.field_type)));
    }
    check_shape(machine, &spec)?;
    Ok(spec)
}

/// Which tasks the job becomes.
fn check_shape(machine: &Machine<'_>, spec: &JobSpec) -> Result<(), Fault> {
    let only_for = |field: &str, kind: &str| {
        Err(invalid(field, format!("only for jobs of type {kind}, this is {}", spec.field_type)))
    };
    let is_array = arrays::is_array(spec);
    if spec.gang.is_some() && (is_array || dag::is_graph(spec)) {
        return Err(invalid("spec.gang", "a gang's members are equal tasks: it is no array and no graph"));
    }
    if spec.field_type != DAG && !spec.dag.is_empty() {
        return only_for("spec.dag", DAG);
    }
    if spec.field_type != MATMUL && spec.matmul.is_some() {
        return only_for("spec.matmul", MATMUL);
    }
    if is_array && (matches!(spec.field_type.as_str(), DAG | TRAIN) || spec.matmul.is_some()) {
        return Err(invalid("spec.array", format!("a job of type {} has no elements", spec.field_type)));
    }
    if let Some(product) = spec.matmul.as_ref() {
        matmul::check(product)?;
        if !product.check.is_empty() && spec.get_task().bundle_artifact.is_empty() {
            return Err(invalid("spec.matmul.check", "needs a bundle with the script: spec.task.bundle_artifact"));
        }
    }
    if dag::is_graph(spec) {
        dag::check_common(spec.get_task())?;
        let tasks = dag::tasks(spec);
        dag::order(&tasks)?;
        return ids_are_free(machine, tasks.iter().map(|task| dag::task_id(spec, &task.name)));
    }
    if is_array {
        dag::check_common(spec.get_task())?;
        return arrays::check(spec);
    }
    if spec.field_type == TRAIN {
        return dag::check_common(spec.get_task());
    }
    dependencies::check(machine, "spec.task.depends_on", spec.get_task())
}

pub(crate) fn ids_are_free(machine: &Machine<'_>, ids: impl Iterator<Item = String>) -> Result<(), Fault> {
    for id in ids {
        if read::task_by_id(&machine.rows, &id)?.is_some() {
            return Err(refuse(Outcome::ALREADY_EXISTS, format!("a task {id} exists already; name the job otherwise")));
        }
    }
    Ok(())
}

fn fill_bundle_digest(machine: &Machine<'_>, spec: &mut JobSpec) -> Result<(), Fault> {
    let bundle = spec.get_task().bundle_artifact.clone();
    if bundle.is_empty() {
        return check_bytes("spec.bundle_digest", spec.bundle_digest.len(), 32);
    }
    let row = committed_artifact(machine, "spec.task.bundle_artifact", &bundle)?;
    if spec.bundle_digest.is_empty() {
        spec.bundle_digest = row.digest;
    } else if spec.bundle_digest != row.digest {
        return Err(invalid("spec.bundle_digest", format!("artifact {bundle} has another digest")));
    }
    Ok(())
}

/// A committed artifact by its id.
pub(crate) fn committed_artifact(machine: &Machine<'_>, field: &str, id: &str) -> Result<ArtifactRow, Fault> {
    let number: u64 = id.parse().map_err(|_| invalid(field, format!("an artifact id is a number, is \"{id}\"")))?;
    let row = read::artifact(&machine.rows, number)?;
    row.filter(|row| row.state == ArtifactState::ARTIFACT_COMMITTED)
        .ok_or_else(|| invalid(field, format!("artifact {id} is not committed")))
}

fn check_train(machine: &Machine<'_>, train: &TrainSpec) -> Result<(), Fault> {
    let version = machine.meta.machine_version;
    let numbers = [
        ("shards", u64::from(train.shards), u64::from(SHARDS_MAX)),
        ("workers", u64::from(train.workers), u64::from(WORKERS_MAX)),
        ("rounds", train.rounds, ROUNDS_MAX),
    ];
    for (name, value, most) in numbers {
        if value == 0 || value > most {
            return Err(invalid(&format!("spec.train.{name}"), format!("1..={most}, is {value}")));
        }
    }
    if train.quorum > train.shards {
        let why = format!("0 (all) or at most the {} shards, is {}", train.shards, train.quorum);
        return Err(invalid("spec.train.quorum", why));
    }
    if !(0.0..=1.0).contains(&train.verify) {
        return Err(invalid("spec.train.verify", format!("0..=1, is {}", train.verify)));
    }
    if !(train.norm_limit.is_finite() && train.norm_limit >= 0.0) {
        return Err(invalid("spec.train.norm_limit", format!("0 (2^64) or above it, is {}", train.norm_limit)));
    }
    check_bytes("spec.train.openblas_coretype", train.openblas_coretype.len(), NOTE_BYTES_MAX)?;
    if !train.initial_model.is_empty() {
        committed_artifact(machine, "spec.train.initial_model", &train.initial_model)?;
        check_optimizer(version, "spec.train.optimizer", train.get_optimizer())?;
    }
    check_combine(version, "spec.train.combine", train.get_combine())?;
    if version >= round_settings::SINCE {
        round_settings::check(train)?;
    }
    Ok(())
}

/// The data of each trainer task of the job.
pub(crate) fn trainer_data(spec: &JobSpec) -> Result<Vec<u8>, Fault> {
    let data: TrainData = serde_json::from_slice(&spec.task_data).map_err(|cause| {
        invalid("spec.task_data", format!("must be JSON like {{\"script\":\"a.py\",\"args\":[]}}: {cause}"))
    })?;
    if data.script.is_empty() {
        return Err(invalid("spec.task_data", "script must not be empty"));
    }
    let trainer = TrainerData { job: &spec.name, script: &data.script, args: &data.args };
    serde_json::to_vec(&trainer).map_err(|cause| invalid("spec.task_data", cause))
}
