//! Arrays and sweeps: one task after another for each index, out of one row. Owns `ArrayChunk`.
//!
//! What is over stands in a bitmap, `ARRAY_CHUNK` elements to a row (docs/decisions); an element that was no task yet stands nowhere but below
//! the row's cursor. The leader asks for the next elements (MaterializeElements) while fewer than the window are open, so a million elements
//! cost a row at first and a window of tasks at any time. Every command costs what it makes or ends, whatever the length of the array.

use raftgrid_proto::v1::{
    ArrayChunkRow, CommandReply, JobPhase, JobRow, JobSpec, Label, MaterializeElements, Outcome, RetryElements,
    TaskRow, TaskStatus,
};
use serde_json::{Map, Value};

use crate::commands::job_end;
use crate::commands::lifecycle::require_running;
use crate::commands::tasks::{create, Element, NewTask};
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{
    ARRAY_CHUNK, ARRAY_ELEMENTS_MAX, ARRAY_RETRIES_MAX, ARRAY_WINDOW_DEFAULT, ARRAY_WINDOW_MAX, CHUNKS_PER_COMMAND_MAX,
    ELEMENTS_PER_COMMAND_MAX, PARAMETER_NAME_BYTES_MAX, SWEEP_BYTES_MAX, SWEEP_PARAMETERS_MAX,
};
use crate::machine::Machine;
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse};
use crate::rows::Table;
use crate::tables::JobTable;

/// Names in an element's JSON that are the machine's.
const OWN_KEYS: [&str; 2] = ["array_index", "parameters"];

pub(crate) fn is_array(spec: &JobSpec) -> bool {
    spec.array.is_some() || !spec.sweep.is_empty()
}

/// Elements of an array whose spec was checked.
pub(crate) fn element_count(spec: &JobSpec) -> u32 {
    if spec.sweep.is_empty() {
        return spec.get_array().count;
    }
    let combinations = spec.get_sweep().iter().map(|parameter| parameter.values.len() as u64);
    u32::try_from(combinations.fold(1_u64, u64::saturating_mul)).unwrap_or(u32::MAX)
}

/// Elements that are tasks at once.
pub(crate) fn window(spec: &JobSpec) -> u32 {
    match spec.get_array().max_parallel {
        0 => ARRAY_WINDOW_DEFAULT,
        most => most.min(ARRAY_WINDOW_MAX),
    }
}

pub(crate) fn check(spec: &JobSpec) -> Result<(), Fault> {
    let array = spec.get_array();
    if !spec.sweep.is_empty() && array.count != 0 {
        return Err(invalid("spec.array.count", "a sweep counts its own combinations; leave it out"));
    }
    check_sweep(spec)?;
    let count = u64::from(element_count(spec));
    if count == 0 || count > ARRAY_ELEMENTS_MAX {
        return Err(invalid("spec.array.count", format!("1 to {ARRAY_ELEMENTS_MAX} elements, is {count}")));
    }
    if array.max_parallel > ARRAY_WINDOW_MAX {
        let why = format!("at most {ARRAY_WINDOW_MAX}, is {}", array.max_parallel);
        return Err(invalid("spec.array.max_parallel", why));
    }
    let data: Map<String, Value> = serde_json::from_slice(&spec.task_data)
        .map_err(|cause| invalid("spec.task_data", format!("an array's must be a JSON object: {cause}")))?;
    match OWN_KEYS.iter().find(|key| data.contains_key(**key)) {
        Some(key) => Err(invalid("spec.task_data", format!("\"{key}\" is set for each element; leave it out"))),
        None => Ok(()),
    }
}

fn check_sweep(spec: &JobSpec) -> Result<(), Fault> {
    let list = spec.get_sweep();
    if list.len() > SWEEP_PARAMETERS_MAX {
        return Err(invalid("spec.sweep", format!("at most {SWEEP_PARAMETERS_MAX} parameters, is {}", list.len())));
    }
    let mut bytes = 0;
    let mut seen = std::collections::BTreeSet::new();
    for parameter in list {
        let name = &parameter.name;
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if !plain || !begins || name.len() > PARAMETER_NAME_BYTES_MAX {
            let why = format!("a name is a letter, then letters, digits and '_', is \"{name}\"");
            return Err(invalid("spec.sweep.name", why));
        }
        if !seen.insert(name.to_ascii_uppercase()) {
            return Err(invalid("spec.sweep", format!("two parameters are called {name}")));
        }
        if parameter.values.is_empty() {
            return Err(invalid(&format!("spec.sweep.{name}"), "needs a value"));
        }
        for value in parameter.get_values() {
            bytes += value.len();
            serde_json::from_str::<Value>(value)
                .map_err(|cause| invalid(&format!("spec.sweep.{name}"), format!("a value is not JSON: {cause}")))?;
        }
    }
    if bytes > SWEEP_BYTES_MAX {
        return Err(invalid("spec.sweep", format!("at most {SWEEP_BYTES_MAX} bytes of values, is {bytes}")));
    }
    Ok(())
}

/// The parameters of an element, in the order of the sweep; the last one changes fastest.
fn parameters(spec: &JobSpec, index: u32) -> Vec<Label> {
    let mut rest = index as usize;
    let mut list: Vec<Label> = Vec::new();
    for parameter in spec.get_sweep().iter().rev() {
        let values = parameter.get_values();
        let value = values[rest % values.len()].clone();
        rest /= values.len();
        list.push(Label { key: parameter.name.clone(), value, ..Label::default() });
    }
    list.reverse();
    list
}

/// The array's JSON with what is the element's own, put in front: an object that was checked to have no such keys.
fn element_data(spec: &JobSpec, index: u32, parameters: &[Label]) -> Vec<u8> {
    let text = String::from_utf8_lossy(&spec.task_data);
    let inside = text.trim().strip_prefix('{').unwrap_or_default().trim_start();
    let mut data = format!("{{\"array_index\":{index}");
    if !parameters.is_empty() {
        let pairs: Vec<String> =
            parameters.iter().map(|label| format!("{}:{}", Value::from(label.key.as_str()), label.value)).collect();
        data.push_str(&format!(",\"parameters\":{{{}}}", pairs.join(",")));
    }
    if !inside.starts_with('}') {
        data.push(',');
    }
    data.push_str(inside);
    data.into_bytes()
}

/// False: somebody gave a task of their own this name, and the job is over.
fn make_element(machine: &mut Machine<'_>, row: &JobRow, index: u32, task_id: String) -> Result<bool, Fault> {
    if read::task_by_id(&machine.rows, &task_id)?.is_some() {
        let reason = format!("a task {task_id} exists already, which is none of its elements");
        job_end::end_job(machine, row.sequence, JobPhase::JOB_FAILED, &reason)?;
        return Ok(false);
    }
    let spec = row.get_job().get_spec();
    let parameters = parameters(spec, index);
    let new = NewTask {
        task_id,
        task_type: spec.field_type.clone(),
        task_data: element_data(spec, index, &parameters),
        spec: spec.task.clone(),
        parent_task_id: String::new(),
        job: (row.get_job().job_id.clone(), row.sequence),
        element: Some(Element { index, count: element_count(spec), parameters }),
    };
    create(machine, new)?;
    Ok(true)
}

fn array_of(machine: &Machine<'_>, job_id: &str) -> Result<JobRow, Fault> {
    let row = read::job_by_id(&machine.rows, job_id)?.ok_or_else(|| not_found("job", job_id))?;
    if !is_array(row.get_job().get_spec()) {
        return Err(precondition(format!("job {job_id} is no array")));
    }
    Ok(row)
}

/// The next elements become tasks: as many as are asked for and the window takes.
pub(crate) fn materialize(machine: &mut Machine<'_>, command: &MaterializeElements) -> Handled {
    if command.count == 0 || command.count > ELEMENTS_PER_COMMAND_MAX {
        return Err(invalid("count", format!("1 to {ELEMENTS_PER_COMMAND_MAX}, is {}", command.count)));
    }
    let row = array_of(machine, &command.job_id)?;
    require_running(row.get_job().phase, &command.job_id)?;
    let retrying = row.retry_left > 0;
    let cursor = if retrying { row.retry_from } else { row.next_element };
    if command.generation != row.retry_generation || command.from != cursor {
        return Err(refuse(Outcome::STALE, format!("job {} goes on with element {cursor}", command.job_id)));
    }
    let open = u32::try_from(row.open_tasks).unwrap_or(u32::MAX);
    let most = window(row.get_job().get_spec()).saturating_sub(open).min(command.count);
    if most == 0 {
        return Err(precondition(format!("job {} has as many open tasks as it may", command.job_id)));
    }
    let made = if retrying { again(machine, &row, most)? } else { onwards(machine, &row, most)? };
    Ok(CommandReply { id: command.job_id.clone(), number: u64::from(made), ..machine.ok() })
}

fn onwards(machine: &mut Machine<'_>, row: &JobRow, most: u32) -> Result<u32, Fault> {
    let job_id = &row.get_job().job_id;
    let from = row.next_element;
    let to = element_count(row.get_job().get_spec()).min(from.saturating_add(most));
    for index in from..to {
        if !make_element(machine, row, index, format!("{job_id}/{index}"))? {
            return Ok(index - from);
        }
    }
    let mut row = JobTable::get(machine, row.sequence)?;
    row.next_element = to;
    JobTable::put(machine, row);
    Ok(to - from)
}

fn bit(index: u32) -> (usize, u8) {
    let inside = index % ARRAY_CHUNK;
    ((inside / 8) as usize, 1 << (inside % 8))
}

fn has(bits: &[u8], index: u32) -> bool {
    let (byte, mask) = bit(index);
    bits.get(byte).is_some_and(|bits| bits & mask != 0)
}

fn set(bits: &mut Vec<u8>, index: u32, on: bool) {
    let (byte, mask) = bit(index);
    if bits.len() <= byte {
        bits.resize(byte + 1, 0);
    }
    if on {
        bits[byte] |= mask;
    } else {
        bits[byte] &= !mask;
    }
}

/// The next failed elements, as tasks of their own.
fn again(machine: &mut Machine<'_>, row: &JobRow, most: u32) -> Result<u32, Fault> {
    let (sequence, generation) = (row.sequence, row.retry_generation);
    let count = element_count(row.get_job().get_spec());
    let (mut index, mut made) = (row.retry_from, 0);
    for _ in 0..CHUNKS_PER_COMMAND_MAX {
        let chunk_number = u64::from(index / ARRAY_CHUNK);
        let end = count.min((index / ARRAY_CHUNK + 1).saturating_mul(ARRAY_CHUNK));
        let mut chunk = read::array_chunk(&machine.rows, sequence, chunk_number)?.unwrap_or_default();
        while index < end && made < most {
            if has(&chunk.failed, index) {
                set(&mut chunk.failed, index, false);
                let task_id = format!("{}/{index}/retry-{generation}", row.get_job().job_id);
                if !make_element(machine, row, index, task_id)? {
                    return Ok(made);
                }
                made += 1;
            }
            index += 1;
        }
        machine.put(Table::ArrayChunk, keys::pair(sequence, chunk_number), &chunk);
        if index >= count || made == most {
            break;
        }
    }
    let mut row = JobTable::get(machine, sequence)?;
    row.retry_from = index;
    row.elements_failed = row.elements_failed.saturating_sub(u64::from(made));
    row.retry_left = row.retry_left.saturating_sub(u64::from(made));
    JobTable::put(machine, row);
    Ok(made)
}

/// An element is over.
pub(crate) fn element_ended(machine: &mut Machine<'_>, task_row: &TaskRow, mut job_row: JobRow) -> Result<(), Fault> {
    if job_end::is_over(job_row.get_job().phase) {
        return Ok(());
    }
    let (task, sequence) = (task_row.get_task(), job_row.sequence);
    let index = task.array_index;
    let chunk_number = u64::from(index / ARRAY_CHUNK);
    let mut chunk: ArrayChunkRow = read::array_chunk(&machine.rows, sequence, chunk_number)?.unwrap_or_default();
    assert!(!has(&chunk.done, index) && !has(&chunk.failed, index), "element {index} of {} ends once", task.job_id);
    if task.status == TaskStatus::COMPLETED {
        set(&mut chunk.done, index, true);
        job_row.elements_done += 1;
    } else {
        set(&mut chunk.failed, index, true);
        job_row.elements_failed += 1;
        if job_row.first_failure.is_empty() {
            job_row.first_failure = format!("task {}: {}", task.task_id, task.failure_reason);
        }
    }
    machine.put(Table::ArrayChunk, keys::pair(sequence, chunk_number), &chunk);
    let count = u64::from(element_count(job_row.get_job().get_spec()));
    let is_last = job_row.open_tasks == 0 && job_row.retry_left == 0 && u64::from(job_row.next_element) == count;
    if !is_last {
        JobTable::put(machine, job_row);
        return Ok(());
    }
    if job_row.elements_failed == 0 {
        return job_end::done(machine, job_row);
    }
    let reason =
        format!("{} of {count} elements failed; the first: {}", job_row.elements_failed, job_row.first_failure);
    JobTable::put(machine, job_row);
    job_end::end_job(machine, sequence, JobPhase::JOB_FAILED, &reason)
}

/// The failed elements of an array that is over run again, under other ids: a task that is over never changes.
pub(crate) fn retry(machine: &mut Machine<'_>, command: &RetryElements) -> Handled {
    let mut row = array_of(machine, &command.job_id)?;
    let count = u64::from(element_count(row.get_job().get_spec()));
    let complete = row.elements_done + row.elements_failed == count;
    if row.get_job().phase != JobPhase::JOB_FAILED || !complete {
        let phase = job_end::phase_name(row.get_job().phase);
        let why = format!("job {} is {phase}; the failed elements are retried when all are over", command.job_id);
        return Err(precondition(why));
    }
    if row.retry_generation >= ARRAY_RETRIES_MAX {
        return Err(refuse(
            Outcome::EXHAUSTED,
            format!("job {} was retried {ARRAY_RETRIES_MAX} times", command.job_id),
        ));
    }
    row.retry_generation += 1;
    row.retry_from = 0;
    row.retry_left = row.elements_failed;
    row.first_failure.clear();
    let job = row.mut_job();
    job.phase = JobPhase::JOB_RUNNING;
    job.reason.clear();
    job.finished_at_ms = 0;
    let row = JobTable::put(machine, row);
    Ok(CommandReply { id: command.job_id.clone(), number: row.retry_left, ..machine.ok() })
}
