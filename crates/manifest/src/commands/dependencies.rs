//! Tasks that wait for the end of others. Owns `Dependent`; decides inside apply, in the command that ends the other task.
//!
//! A task of which it is not known yet whether it may run is BLOCKED, `TaskRow.unmet` counts what is missing. When a task ends, those that wait
//! for it are told one by one, `DEPENDENTS_PER_COMMAND` in a command; a row (0, sequence) says that some are left, and the leader goes on with
//! ResolveDependents. A condition that can no longer hold ends the waiting task with DEPENDENCY_FAILED, which in turn tells those that wait
//! for it: by the same queue, never by recursion. Cycles cannot be: a task can only name tasks that exist.

use raftgrid_proto::v1::{CommandReply, Condition, Phase, ResolveDependents, Task, TaskRow, TaskSpec, TaskStatus};

use crate::commands::lifecycle;
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{DEPENDENCIES_MAX, DEPENDENTS_PER_COMMAND};
use crate::machine::Machine;
use crate::mutant;
use crate::read;
use crate::reply::invalid;
use crate::rows::{Rows as _, RowsError, Table};
use crate::tables::{is_over, TaskTable};
use crate::text::check_id;

/// First number of the keys of tasks that are over while some that wait for them were not told; no task has this sequence.
const LEFT: u64 = 0;

/// What a task that is over means to one that waits for it.
enum Verdict {
    Met,
    Never(Never),
}

/// Why a task will not run.
pub(crate) struct Never {
    reason: String,
    /// It was only for a failure that did not come.
    unneeded: bool,
}

pub(crate) fn pending_reason(unmet: u32) -> String {
    match unmet {
        1 => "waits for 1 task".to_owned(),
        unmet => format!("waits for {unmet} tasks"),
    }
}

/// The tasks that a spec names exist, each once.
pub(crate) fn check(machine: &Machine<'_>, field: &str, spec: &TaskSpec) -> Result<(), Fault> {
    let list = spec.get_depends_on();
    if list.len() > DEPENDENCIES_MAX {
        return Err(invalid(field, format!("at most {DEPENDENCIES_MAX} tasks, is {}", list.len())));
    }
    let mut seen = std::collections::BTreeSet::new();
    for dependency in list {
        let id = &dependency.task_id;
        check_id(field, id)?;
        if !seen.insert(id) {
            return Err(invalid(field, format!("names task {id} twice")));
        }
        if read::task_by_id(&machine.rows, id)?.is_none() {
            return Err(invalid(field, format!("task {id} does not exist")));
        }
    }
    Ok(())
}

fn judge(task: &Task, row: &TaskRow, condition: Condition) -> Verdict {
    let id = &task.task_id;
    let succeeded = task.status == TaskStatus::COMPLETED;
    match condition {
        Condition::WHEN_ENDED => Verdict::Met,
        Condition::WHEN_SUCCEEDED if succeeded => Verdict::Met,
        Condition::WHEN_FAILED if !succeeded => Verdict::Met,
        Condition::WHEN_SUCCEEDED => Verdict::Never(Never {
            reason: format!("task {id}, which must have succeeded, failed: {}", task.failure_reason),
            unneeded: row.unneeded,
        }),
        Condition::WHEN_FAILED => {
            Verdict::Never(Never { reason: format!("task {id}, whose failure it is for, succeeded"), unneeded: true })
        }
    }
}

/// Lets a new task wait for the tasks that its spec names, as far as they are not over. Some: it can never run; it must be given up as soon as
/// it is written.
pub(crate) fn block(machine: &mut Machine<'_>, row: &mut TaskRow) -> Result<Option<Never>, Fault> {
    let list = row.get_task().get_spec().depends_on.clone();
    let mut never = None;
    for dependency in list.iter() {
        let id = &dependency.task_id;
        let mut other = read::task_by_id(&machine.rows, id)?
            .ok_or_else(|| invalid("spec.depends_on", format!("task {id} does not exist")))?;
        if is_over(other.get_task()) {
            match judge(other.get_task(), &other, dependency.condition) {
                Verdict::Met => {}
                Verdict::Never(why) => never = never.or(Some(why)),
            }
            continue;
        }
        let edge = keys::pair(other.sequence, row.sequence);
        machine.put_bytes(Table::Dependent, edge, vec![dependency.condition as u8]);
        row.unmet += 1;
        other.dependents = other.dependents.saturating_add(1);
        TaskTable::put(machine, other)?;
    }
    if row.unmet > 0 {
        let reason = pending_reason(row.unmet);
        let task = row.mut_task();
        task.phase = Phase::PHASE_BLOCKED;
        task.pending_reason = reason;
    }
    Ok(never)
}

/// Ends a task that can never run.
pub(crate) fn give_up(machine: &mut Machine<'_>, mut row: TaskRow, never: &Never) -> Result<TaskRow, Fault> {
    row.unneeded = never.unneeded;
    lifecycle::fail(machine, row, Phase::PHASE_DEPENDENCY_FAILED, &never.reason)
}

/// Tells those that wait for the tasks that this command ended, as far as one command may.
pub(crate) fn settle(machine: &mut Machine<'_>) -> Result<(), Fault> {
    let mut left = DEPENDENTS_PER_COMMAND;
    while !machine.ended.is_empty() {
        let sequence = machine.ended.remove(0);
        if !tell_all(machine, sequence, &mut left)? {
            machine.put_bytes(Table::Dependent, keys::pair(LEFT, sequence), Vec::new());
        }
    }
    Ok(())
}

/// Tells those that wait for one task; false if some are left.
fn tell_all(machine: &mut Machine<'_>, sequence: u64, left: &mut usize) -> Result<bool, Fault> {
    let prefix = keys::number(sequence);
    let mut edges = Vec::new();
    machine.rows.scan(Table::Dependent, &prefix, &keys::after_prefix(&prefix), &mut |key, value| {
        edges.push((key.to_vec(), value.to_vec()));
        edges.len() <= *left
    })?;
    let whole = edges.len() <= *left;
    edges.truncate(if mutant::on("dependents_not_told") { 1 } else { *left });
    *left -= edges.len();
    let ended = task(machine, sequence)?;
    for (key, value) in edges {
        let waiting = keys::last_number(&key).ok_or_else(|| RowsError("a dependent's key is too short".to_owned()))?;
        let condition = value.first().and_then(|code| condition(*code));
        let condition = condition.ok_or_else(|| RowsError("a dependent has an unknown condition".to_owned()))?;
        machine.delete(Table::Dependent, key);
        tell(machine, waiting, judge(ended.get_task(), &ended, condition))?;
    }
    Ok(whole)
}

/// Sequences of tasks that run if this one fails, too. Asked before they are told of its end.
pub(crate) fn waiting_for_failure(machine: &Machine<'_>, sequence: u64) -> Result<Vec<u64>, Fault> {
    let prefix = keys::number(sequence);
    let mut found = Vec::new();
    machine.rows.scan(Table::Dependent, &prefix, &keys::after_prefix(&prefix), &mut |key, value| {
        if value != [Condition::WHEN_SUCCEEDED as u8] {
            found.extend(keys::last_number(key));
        }
        true
    })?;
    Ok(found)
}

fn task(machine: &Machine<'_>, sequence: u64) -> Result<TaskRow, Fault> {
    Ok(read::task(&machine.rows, sequence)?.ok_or_else(|| RowsError(format!("task {sequence} is waited for only")))?)
}

fn condition(code: u8) -> Option<Condition> {
    [Condition::WHEN_SUCCEEDED, Condition::WHEN_FAILED, Condition::WHEN_ENDED]
        .into_iter()
        .find(|condition| *condition as u8 == code)
}

fn tell(machine: &mut Machine<'_>, sequence: u64, verdict: Verdict) -> Result<(), Fault> {
    let mut row = task(machine, sequence)?;
    if is_over(row.get_task()) {
        return Ok(());
    }
    match verdict {
        Verdict::Never(never) => {
            give_up(machine, row, &never)?;
        }
        Verdict::Met => {
            row.unmet = row.unmet.checked_sub(1).expect("a dependency that was counted is met once");
            if row.get_task().phase == Phase::PHASE_BLOCKED {
                let now = machine.now_ms();
                if row.unmet == 0 {
                    row.submitted_at_ms = now;
                    row.mut_task().phase = Phase::PHASE_QUEUED;
                    row.mut_task().pending_reason.clear();
                } else {
                    row.mut_task().pending_reason = pending_reason(row.unmet);
                }
            }
            TaskTable::put(machine, row)?;
        }
    }
    Ok(())
}

/// The leader's part: what a command had to leave.
pub(crate) fn resolve(machine: &mut Machine<'_>, command: &ResolveDependents) -> Handled {
    let key = keys::pair(LEFT, command.task_sequence);
    if machine.rows.get(Table::Dependent, &key)?.is_none() {
        return Ok(machine.existing(machine.position.get()));
    }
    machine.delete(Table::Dependent, key);
    machine.ended.push(command.task_sequence);
    Ok(CommandReply { number: command.task_sequence, ..machine.ok() })
}
