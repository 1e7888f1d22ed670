//! Jobs that are a set of tasks with dependencies among them: type `dag`, and `matmul` by blocks, which expands to one.
//!
//! The tasks are made in the apply that makes the job, those that others wait for first, so a cycle cannot be written. The job's row keeps no
//! copy of them. The job is over when all its tasks are: DONE unless one failed that nobody expected to.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::RepeatedField;
use raftgrid_proto::v1::{
    Condition, DagTask, Dependency, JobPhase, JobRow, JobSpec, Phase, TaskRow, TaskSpec, TaskStatus,
};
use serde_json::{Map, Value};

use crate::commands::job_spec::{check_task_type, DAG};
use crate::commands::tasks::{create, NewTask};
use crate::commands::{dependencies, job_end, matmul};
use crate::error::Fault;
use crate::limits::{
    DAG_EDGES_MAX, DAG_NAME_BYTES_MAX, DAG_TASKS_MAX, DEPENDENCIES_MAX, RESULT_DATA_BYTES_MAX, TASK_DATA_BYTES_MAX,
};
use crate::machine::Machine;
use crate::read;
use crate::reply::invalid;
use crate::tables::JobTable;
use crate::text::{check_bytes, check_name, check_spec};

/// Whether the job is a set of tasks with dependencies.
pub(crate) fn is_graph(spec: &JobSpec) -> bool {
    spec.field_type == DAG || spec.matmul.is_some()
}

/// The tasks of a graph.
pub(crate) fn tasks(spec: &JobSpec) -> Vec<DagTask> {
    match spec.matmul.as_ref() {
        Some(product) => matmul::tasks(spec, product),
        None => spec.get_dag().to_vec(),
    }
}

/// Checks a job's tasks and gives their indexes in the order in which they are made.
pub(crate) fn order(tasks: &[DagTask]) -> Result<Vec<usize>, Fault> {
    if tasks.is_empty() || tasks.len() > DAG_TASKS_MAX {
        return Err(invalid("spec.dag", format!("1 to {DAG_TASKS_MAX} tasks, is {}", tasks.len())));
    }
    let mut by_name = BTreeMap::new();
    for (at, task) in tasks.iter().enumerate() {
        check_name("spec.dag.name", &task.name, DAG_NAME_BYTES_MAX, b"")?;
        if by_name.insert(task.name.as_str(), at).is_some() {
            return Err(invalid("spec.dag", format!("two tasks are called {}", task.name)));
        }
        check_one(task)?;
    }
    let edges: usize = tasks.iter().map(|task| task.depends_on.len()).sum();
    if edges > DAG_EDGES_MAX {
        return Err(invalid("spec.dag", format!("at most {DAG_EDGES_MAX} dependencies, is {edges}")));
    }
    let mut waits = Vec::with_capacity(tasks.len());
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (at, task) in tasks.iter().enumerate() {
        let mut seen = BTreeSet::new();
        for edge in task.get_depends_on() {
            let field = format!("spec.dag.{}.depends_on", task.name);
            let other = by_name
                .get(edge.name.as_str())
                .ok_or_else(|| invalid(&field, format!("there is no task {} in this job", edge.name)))?;
            if !seen.insert(*other) {
                return Err(invalid(&field, format!("names {} twice", edge.name)));
            }
            waiting[*other].push(at);
        }
        waits.push(seen.len());
    }
    let mut ready: BTreeSet<usize> = (0..tasks.len()).filter(|at| waits[*at] == 0).collect();
    let mut order = Vec::with_capacity(tasks.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for next in &waiting[at] {
            waits[*next] -= 1;
            if waits[*next] == 0 {
                ready.insert(*next);
            }
        }
    }
    if order.len() < tasks.len() {
        return Err(invalid(
            "spec.dag",
            format!("these tasks wait for each other: {}", cycle(tasks, &by_name, &waits)),
        ));
    }
    Ok(order)
}

fn check_one(task: &DagTask) -> Result<(), Fault> {
    let field = format!("spec.dag.{}", task.name);
    check_task_type(&format!("{field}.type"), &task.field_type)?;
    check_bytes(&format!("{field}.task_data"), task.task_data.len(), TASK_DATA_BYTES_MAX)?;
    check_spec(&format!("{field}.spec"), task.get_spec())?;
    if !task.get_spec().depends_on.is_empty() {
        return Err(invalid(
            &format!("{field}.spec.depends_on"),
            "a task of a dag names others by depends_on beside it",
        ));
    }
    if task.depends_on.len() > DEPENDENCIES_MAX {
        let why = format!("at most {DEPENDENCIES_MAX} tasks, is {}", task.depends_on.len());
        return Err(invalid(&format!("{field}.depends_on"), why));
    }
    Ok(())
}

/// One cycle among the tasks that still wait, as `a -> b -> a`: from any of them, always on to one that it waits for.
fn cycle(tasks: &[DagTask], by_name: &BTreeMap<&str, usize>, waits: &[usize]) -> String {
    let mut path: Vec<usize> = Vec::new();
    let mut at = waits.iter().position(|waits| *waits > 0);
    while let Some(now) = at {
        if let Some(begin) = path.iter().position(|seen| *seen == now) {
            let names: Vec<&str> = path[begin..].iter().chain([&now]).map(|at| tasks[*at].name.as_str()).collect();
            return names.join(" -> ");
        }
        path.push(now);
        let others = tasks[now].get_depends_on().iter().filter_map(|edge| by_name.get(edge.name.as_str()));
        at = others.copied().find(|other| waits[*other] > 0);
    }
    String::new()
}

/// Makes the tasks of a job whose spec was checked.
pub(crate) fn make_tasks(machine: &mut Machine<'_>, spec: &JobSpec, sequence: u64) -> Result<(), Fault> {
    let tasks = tasks(spec);
    for at in order(&tasks)? {
        let task = &tasks[at];
        let mut own = if task.spec.is_some() { task.get_spec().clone() } else { spec.get_task().clone() };
        if own.bundle_artifact.is_empty() {
            own.bundle_artifact = spec.get_task().bundle_artifact.clone();
        }
        own.depends_on = RepeatedField::from_vec(depends_on(spec, task));
        let new = NewTask {
            task_id: task_id(spec, &task.name),
            task_type: task.field_type.clone(),
            task_data: task.task_data.clone(),
            spec: Some(own).into(),
            parent_task_id: String::new(),
            job: (spec.name.clone(), sequence),
            element: None,
        };
        create(machine, new)?;
    }
    Ok(())
}

pub(crate) fn task_id(spec: &JobSpec, name: &str) -> String {
    format!("{}/{name}", spec.name)
}

fn depends_on(spec: &JobSpec, task: &DagTask) -> Vec<Dependency> {
    let dependency = |name: &str, condition: Condition| Dependency {
        task_id: task_id(spec, name),
        condition,
        ..Dependency::default()
    };
    task.get_depends_on().iter().map(|edge| dependency(&edge.name, edge.condition)).collect()
}

/// A failure that fails the job: not one that a task of the job waits for, and not that of a task which was only for a failure.
fn is_unexpected(machine: &Machine<'_>, row: &TaskRow) -> Result<bool, Fault> {
    if row.get_task().status == TaskStatus::COMPLETED || row.unneeded {
        return Ok(false);
    }
    for other in dependencies::waiting_for_failure(machine, row.sequence)? {
        let other = read::task(&machine.rows, other)?;
        if other.is_some_and(|other| other.job_sequence == row.job_sequence) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A task of a graph is over.
pub(crate) fn task_ended(machine: &mut Machine<'_>, task_row: &TaskRow, mut job_row: JobRow) -> Result<(), Fault> {
    if job_end::is_over(job_row.get_job().phase) {
        return Ok(());
    }
    let task = task_row.get_task();
    if is_unexpected(machine, task_row)? {
        job_row.failed_tasks += 1;
        // One that was given up follows from another, which is the one to be told.
        if job_row.first_failure.is_empty() && task.phase != Phase::PHASE_DEPENDENCY_FAILED {
            job_row.first_failure = format!("task {} failed: {}", task.task_id, task.failure_reason);
        }
        job_row = JobTable::put(machine, job_row);
    }
    if job_row.open_tasks > 0 {
        return Ok(());
    }
    if job_row.failed_tasks == 0 {
        job_row.mut_job().result_json = result(machine, job_row.sequence)?;
        return job_end::done(machine, job_row);
    }
    let (failed, first) = (job_row.failed_tasks, &job_row.first_failure);
    let reason = match first.is_empty() {
        true => format!("{failed} tasks could not run: {}", task.failure_reason),
        false if failed == 1 => first.clone(),
        false => format!("{failed} tasks failed or could not run; the first: {first}"),
    };
    job_end::end_job(machine, job_row.sequence, JobPhase::JOB_FAILED, &reason)
}

/// The result of the task that none waits for; of several, an object with one for each that has one.
fn result(machine: &Machine<'_>, job_sequence: u64) -> Result<String, Fault> {
    let mut sinks = Vec::new();
    for row in read::tasks_of_job(&machine.rows, job_sequence)? {
        if row.dependents == 0 && row.get_task().status == TaskStatus::COMPLETED {
            sinks.push(row);
        }
    }
    if let [only] = sinks.as_slice() {
        return Ok(only.get_task().result_data.clone());
    }
    let mut object = Map::new();
    for row in &sinks {
        let task = row.get_task();
        let name = task.task_id.rsplit('/').next().unwrap_or_default();
        if let Ok(value) = serde_json::from_str::<Value>(&task.result_data) {
            object.insert(name.to_owned(), value);
        }
    }
    let text = Value::Object(object).to_string();
    // The tasks keep their own.
    Ok(if text.len() > RESULT_DATA_BYTES_MAX { String::new() } else { text })
}

/// What tasks of a graph inherit of their job.
pub(crate) fn check_common(spec: &TaskSpec) -> Result<(), Fault> {
    if !spec.depends_on.is_empty() {
        return Err(invalid("spec.task.depends_on", "a job of several tasks cannot wait for other tasks as a whole"));
    }
    Ok(())
}
