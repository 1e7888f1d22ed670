//! SubmitTask, Assign, Start: a task comes, gets a lease, runs.

use protobuf::{RepeatedField, SingularPtrField};
use raftgrid_proto::v1::{
    Assign, Assignment, CommandReply, GangMember, GangPlace, Label, Outcome, Phase, Start, SubmitTask, Task, TaskRow,
    TaskSpec, TaskStatus,
};

use crate::attempts;
use crate::attributes::ATTRIBUTES_SINCE;
use crate::commands::placement_spec::check_placement;
use crate::commands::{dependencies, gangs};
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{ASSIGNMENTS_MAX, ID_BYTES_MAX, TASK_DATA_BYTES_MAX};
use crate::machine::Machine;
use crate::mutant;
use crate::neighbours;
use crate::predicates::{eligible_at, fits};
use crate::quota::within_quota;
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse, stale_lease};
use crate::requests;
use crate::rows::{Rows as _, Table};
use crate::tables::{demand, TaskTable};
use crate::text::{check_bytes, check_id, check_name, check_spec, encode, hash_parts, short_hex};

/// A task about to be made.
pub(crate) struct NewTask {
    pub(crate) task_id: String,
    pub(crate) task_type: String,
    pub(crate) task_data: Vec<u8>,
    pub(crate) spec: SingularPtrField<TaskSpec>,
    pub(crate) parent_task_id: String,
    /// Job id and sequence; empty and 0 where the task stands alone.
    pub(crate) job: (String, u64),
    /// Of an array or sweep.
    pub(crate) element: Option<Element>,
}

/// What makes a task an element.
pub(crate) struct Element {
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) parameters: Vec<Label>,
}

/// Writes the row of a new task. The id was checked to be unused, and that the tasks it depends on exist.
pub(crate) fn create(machine: &mut Machine<'_>, new: NewTask) -> Result<TaskRow, Fault> {
    create_member(machine, new, None)
}

/// The same for a member of a gang.
pub(crate) fn create_member(
    machine: &mut Machine<'_>,
    mut new: NewTask,
    gang: Option<GangMember>,
) -> Result<TaskRow, Fault> {
    let spec_digest = spec_digest(&new.task_type, &new.task_data, new.spec.as_ref());
    let queue = match new.spec.as_mut() {
        Some(spec) => {
            check_placement(machine, spec)?;
            default_priority(machine, spec)?;
            spec.queue.clone()
        }
        None => String::new(),
    };
    let mut task = Task {
        task_id: new.task_id,
        task_type: new.task_type,
        task_data: new.task_data,
        spec: new.spec,
        parent_task_id: new.parent_task_id,
        job_id: new.job.0,
        created_at: machine.now_s(),
        principal: machine.principal.to_owned(),
        queue,
        status: TaskStatus::PENDING,
        phase: Phase::PHASE_QUEUED,
        ..Task::default()
    };
    if let Some(element) = new.element {
        (task.array_index, task.array_count) = (element.index, element.count);
        task.parameters = RepeatedField::from_vec(element.parameters);
    }
    let mut row = TaskRow {
        sequence: machine.meta.next_task_sequence,
        job_sequence: new.job.1,
        submitted_at_ms: machine.now_ms(),
        spec_digest,
        gang: gang.into(),
        task: SingularPtrField::some(task),
        ..TaskRow::default()
    };
    machine.rows.note_absent(Table::Task, &keys::number(row.sequence));
    machine.rows.note_absent(Table::TaskByStatus, &keys::task_by_status(TaskStatus::PENDING, row.sequence));
    machine.meta.next_task_sequence += 1;
    let never = dependencies::block(machine, &mut row)?;
    let row = TaskTable::put(machine, row)?;
    match never {
        Some(never) => dependencies::give_up(machine, row, &never),
        None => Ok(row),
    }
}

fn spec_digest(task_type: &str, task_data: &[u8], spec: Option<&TaskSpec>) -> Vec<u8> {
    let spec = spec.map(encode).unwrap_or_default();
    hash_parts(&[task_type.as_bytes(), task_data, &spec])
}

/// An id for a task whose submitter named none: derived from (principal, request id) where there is one, so that the task's row itself is
/// the record; else it carries the sequence. Both rise with time, which keeps the index's writes together.
fn derived_id(machine: &Machine<'_>) -> Result<String, Fault> {
    if let Some(created) = requests::created_ms(machine.request_id) {
        let tail = hash_parts(&[machine.principal.as_bytes(), machine.request_id.as_bytes()]);
        return Ok(format!("task-{created:012x}-{}", short_hex(&tail)));
    }
    let id = format!("task-{:012}", machine.meta.next_task_sequence);
    let taken = read::task_by_id(&machine.rows, &id)?.is_some();
    Ok(if taken { format!("{id}-{:x}", machine.position.get()) } else { id })
}

pub(crate) fn submit(machine: &mut Machine<'_>, command: &SubmitTask) -> Handled {
    check_name("task_type", &command.task_type, ID_BYTES_MAX, b"/:")?;
    check_bytes("task_data", command.task_data.len(), TASK_DATA_BYTES_MAX)?;
    check_spec("spec", command.get_spec())?;
    dependencies::check(machine, "spec.depends_on", command.get_spec())?;
    let task_id = if command.task_id.is_empty() {
        derived_id(machine)?
    } else {
        check_id("task_id", &command.task_id)?;
        command.task_id.clone()
    };
    if let Some(row) = read::task_by_id(&machine.rows, &task_id)? {
        let same = row.spec_digest == spec_digest(&command.task_type, &command.task_data, command.spec.as_ref());
        if !same || row.get_task().principal != machine.principal || row.job_sequence != 0 {
            return Err(refuse(Outcome::ALREADY_EXISTS, format!("task {task_id} exists with another spec")));
        }
        return Ok(CommandReply { id: task_id, ..machine.existing(row.get_task().revision) });
    }
    let new = NewTask {
        task_id: task_id.clone(),
        task_type: command.task_type.clone(),
        task_data: command.task_data.clone(),
        spec: command.spec.clone(),
        parent_task_id: String::new(),
        job: (String::new(), 0),
        element: None,
    };
    let row = create(machine, new)?;
    Ok(CommandReply { id: task_id, number: row.sequence, ..machine.ok() })
}

/// A task that names no priority gets its queue's.
fn default_priority(machine: &Machine<'_>, spec: &mut TaskSpec) -> Result<(), Fault> {
    if spec.priority == 0 && !spec.queue.is_empty() {
        spec.priority = read::queue(&machine.rows, &spec.queue)?.map_or(0, |row| row.get_queue().default_priority);
    }
    Ok(())
}

/// All or nothing: the first guard that fails refuses the whole command.
pub(crate) fn assign(machine: &mut Machine<'_>, command: &Assign) -> Handled {
    let count = command.assignments.len();
    if count == 0 || count > ASSIGNMENTS_MAX {
        return Err(invalid("assignments", format!("1..={ASSIGNMENTS_MAX}, is {count}")));
    }
    let mut places = gangs::Places::new();
    if machine.meta.machine_version >= ATTRIBUTES_SINCE {
        places = gangs::places(machine, command)?;
    }
    for assignment in command.get_assignments() {
        let placed = assign_one(machine, assignment, &mut places);
        if !mutant::on("gang_in_part") {
            placed?;
        }
    }
    Ok(CommandReply { number: machine.position.get(), ..machine.ok() })
}

fn assign_one(machine: &mut Machine<'_>, assignment: &Assignment, places: &mut gangs::Places) -> Result<(), Fault> {
    let (task_id, node_id) = (&assignment.task_id, &assignment.node_id);
    let mut row = read::task_by_id(&machine.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    let task = row.get_task();
    let placeable = match task.phase {
        Phase::PHASE_QUEUED => true,
        Phase::PHASE_BACKOFF => row.not_before_ms <= machine.now_ms(),
        _ => false,
    };
    if task.status != TaskStatus::PENDING || !placeable {
        return Err(precondition(format!(
            "task {task_id} is {:?} {:?}, it waits for no node now",
            task.status, task.phase
        )));
    }
    let node = read::node(&machine.rows, node_id)?.ok_or_else(|| not_found("node", node_id))?;
    eligible_at(machine.meta.machine_version, task, node.get_node())
        .and_then(|()| fits(task.get_spec().get_resources(), node.get_node()))
        .map_err(|why| precondition(format!("node {node_id} cannot take task {task_id}: {why}")))?;
    neighbours::guard(machine, &row, node_id)?;
    guard_quota(machine, task)?;

    row.open_epoch = machine.position.get();
    row.not_before_ms = 0;
    let place: Option<GangPlace> = places.remove(&row.sequence);
    let task = row.mut_task();
    task.gang_place = place.into();
    task.status = TaskStatus::ASSIGNED;
    task.phase = Phase::PHASE_LEASED;
    task.assigned_node_id = node_id.clone();
    task.lease_epoch = machine.position.get();
    task.attempt += 1;
    task.pending_reason.clear();
    attempts::opened(machine, &mut row);
    TaskTable::put(machine, row)?;
    Ok(())
}

/// What the queue's tasks hold stays within its quota.
fn guard_quota(machine: &Machine<'_>, task: &Task) -> Result<(), Fault> {
    if task.queue.is_empty() {
        return Ok(());
    }
    let row = read::queue(&machine.rows, &task.queue)?.ok_or_else(|| not_found("queue", &task.queue))?;
    let queue = row.get_queue();
    within_quota(queue, queue.get_usage(), u64::from(queue.running_tasks), &demand(task), 1)
        .map_err(|over| precondition(format!("task {} waits: {over}", task.task_id)))
}

pub(crate) fn start(machine: &mut Machine<'_>, command: &Start) -> Handled {
    let mut row = with_open_lease(machine, &command.task_id, command.epoch)?;
    if row.get_task().status == TaskStatus::RUNNING {
        return Ok(machine.existing(row.get_task().revision));
    }
    let now = machine.now_s();
    let task = row.mut_task();
    task.status = TaskStatus::RUNNING;
    task.phase = Phase::PHASE_ACTIVE;
    task.started_at = now;
    attempts::started(machine, &mut row);
    TaskTable::put(machine, row)?;
    Ok(machine.ok())
}

/// The fence: the task's row if this very epoch is open, else STALE_LEASE.
pub(crate) fn with_open_lease(machine: &Machine<'_>, task_id: &str, epoch: u64) -> Result<TaskRow, Fault> {
    let row = read::task_by_id(&machine.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    let other = row.open_epoch != epoch && !mutant::on("expiry_of_any_lease");
    if epoch == 0 || other {
        return Err(stale_lease(task_id, epoch));
    }
    Ok(row)
}
