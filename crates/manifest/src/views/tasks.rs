//! Tasks.

use raftgrid_proto::v1::{Task, TaskRow, TaskStatus};

use crate::keys;
use crate::limits::SCANNED_PER_WANTED;
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::views::{page_rows, page_start, EncodedTask, ListError};

/// What a listing is narrowed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only this status.
    pub status: Option<TaskStatus>,
    /// Only tasks of this job.
    pub job_id: Option<String>,
    /// Only tasks of this queue.
    pub queue: Option<String>,
}

impl TaskFilter {
    fn takes(&self, status: TaskStatus, queue: &str) -> bool {
        self.queue.as_ref().is_none_or(|wanted| wanted == queue) && self.status.is_none_or(|wanted| wanted == status)
    }
}

/// A page of tasks, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskPage<T = Task> {
    /// The tasks.
    pub tasks: Vec<T>,
    /// Token of the next page; empty: this was the last.
    pub next_page_token: Vec<u8>,
}

/// The task; None if there is none of that id.
pub fn get_task(rows: &dyn Rows, task_id: &str) -> Result<Option<Task>, RowsError> {
    Ok(read::task_by_id(rows, task_id)?.map(|mut row| row.take_task()))
}

/// The task as its row holds it, with its sequence; None if there is none of that id.
pub fn encoded_task(rows: &dyn Rows, task_id: &str) -> Result<Option<(u64, EncodedTask)>, RowsError> {
    let Some(number) = read::task_sequence(rows, task_id)? else { return Ok(None) };
    let row = rows.get(Table::Task, &keys::number(number))?.ok_or_else(|| only_in_index(number))?;
    Ok(Some((number, EncodedTask::of_row(&row)?)))
}

/// The task's whole row, with its open epoch.
pub fn task_row(rows: &dyn Rows, task_id: &str) -> Result<Option<TaskRow>, RowsError> {
    read::task_by_id(rows, task_id)
}

/// All rows of one status, oldest first, as long as `visit` answers true. Costs what it visits.
pub fn task_rows(rows: &dyn Rows, status: TaskStatus, mut visit: impl FnMut(TaskRow) -> bool) -> Result<(), RowsError> {
    let mut from = 0;
    loop {
        let numbers = sequences(rows, Table::TaskByStatus, &keys::task_status(status), from, 1_000)?;
        let Some(last) = numbers.last() else { return Ok(()) };
        from = last + 1;
        for number in numbers {
            let row = read::task(rows, number)?.ok_or_else(|| only_in_index(number))?;
            if !visit(row) {
                return Ok(());
            }
        }
    }
}

/// How many tasks have this status. Reads the keys of an index: cheap for each, and there may be many.
pub fn count_tasks(rows: &dyn Rows, status: TaskStatus) -> Result<u64, RowsError> {
    let prefix = keys::task_status(status);
    let mut count = 0;
    rows.scan(Table::TaskByStatus, &prefix, &keys::after_prefix(&prefix), &mut |_, _| {
        count += 1;
        true
    })?;
    Ok(count)
}

fn only_in_index(number: u64) -> RowsError {
    RowsError(format!("task {number} is in an index only"))
}

/// Rows of the tasks whose lease on this node is open.
pub fn tasks_of_node(rows: &dyn Rows, node_id: &str) -> Result<Vec<TaskRow>, RowsError> {
    read::tasks_of_node(rows, node_id)
}

/// Rows of a job's tasks, in the order in which they were made.
pub fn tasks_of_job(rows: &dyn Rows, job_sequence: u64) -> Result<Vec<TaskRow>, RowsError> {
    read::tasks_of_job(rows, job_sequence)
}

/// A page of at most `limit` tasks (0: the most that a page holds), oldest first. Costs O(page), whatever the number of tasks; with two
/// filters, O(tasks of the job, or of the queue).
pub fn list_tasks(rows: &dyn Rows, filter: &TaskFilter, token: &[u8], limit: usize) -> Result<TaskPage, ListError> {
    page(rows, filter, token, limit, |row| {
        let task = read::decode::<TaskRow>(Table::Task, row)?.take_task();
        let wanted = filter.takes(task.status, &task.queue);
        Ok(wanted.then_some(task))
    })
}

/// The same, as the rows hold them.
pub fn list_encoded_tasks(
    rows: &dyn Rows,
    filter: &TaskFilter,
    token: &[u8],
    limit: usize,
) -> Result<TaskPage<EncodedTask>, ListError> {
    page(rows, filter, token, limit, |row| {
        let task = EncodedTask::of_row(row)?;
        let wanted = filter.takes(task.status, &task.queue);
        Ok(wanted.then_some(task))
    })
}

/// The page of what `take` makes of a row; None: the filter keeps it out.
fn page<T>(
    rows: &dyn Rows,
    filter: &TaskFilter,
    token: &[u8],
    limit: usize,
    take: impl Fn(&[u8]) -> Result<Option<T>, RowsError>,
) -> Result<TaskPage<T>, ListError> {
    let mut from = page_start(token).ok_or(ListError::Token)?;
    let limit = page_rows(limit);
    let (mut tasks, mut next_page_token) = (Vec::new(), Vec::new());
    let (table, prefix) = match (&filter.job_id, &filter.queue, filter.status) {
        (Some(job_id), ..) => match read::job_by_id(rows, job_id)? {
            Some(job) => (Table::TaskByJob, keys::number(job.sequence)),
            None => return Ok(TaskPage { tasks, next_page_token }),
        },
        (None, Some(queue), _) => (Table::TaskByQueue, keys::queue_tasks(queue)),
        (None, None, Some(status)) => (Table::TaskByStatus, keys::task_status(status)),
        (None, None, None) => (Table::Task, Vec::new()),
    };
    loop {
        let numbers = sequences(rows, table, &prefix, from, limit + 1)?;
        let more = numbers.len() > limit;
        each_of(rows, &numbers, |number, row| {
            if tasks.len() == limit {
                next_page_token = keys::number(from - 1);
                return Ok(false);
            }
            from = number + 1;
            tasks.extend(take(row)?);
            Ok(true)
        })?;
        if !more || !next_page_token.is_empty() {
            return Ok(TaskPage { tasks, next_page_token });
        }
    }
}

/// The encoded rows of these tasks, whose numbers rise, as long as `visit` answers true. Where they lie close together one scan gives them
/// all, which costs a fraction of looking each up.
fn each_of(
    rows: &dyn Rows,
    numbers: &[u64],
    mut visit: impl FnMut(u64, &[u8]) -> Result<bool, RowsError>,
) -> Result<(), RowsError> {
    let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) else { return Ok(()) };
    if last - first >= SCANNED_PER_WANTED * numbers.len() as u64 {
        for &number in numbers {
            let row = rows.get(Table::Task, &keys::number(number))?.ok_or_else(|| only_in_index(number))?;
            if !visit(number, &row)? {
                break;
            }
        }
        return Ok(());
    }
    let mut wanted = numbers.iter().copied().peekable();
    let (mut failed, mut ended) = (None, false);
    rows.scan(Table::Task, &keys::number(first), &keys::after_prefix(&keys::number(last)), &mut |key, row| {
        let Some(number) = keys::last_number(key).filter(|number| wanted.peek() == Some(number)) else { return true };
        wanted.next();
        match visit(number, row) {
            Ok(true) => wanted.peek().is_some(),
            Ok(false) => {
                ended = true;
                false
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    })?;
    match (failed, wanted.next()) {
        (Some(error), _) => Err(error),
        (None, Some(number)) if !ended => Err(only_in_index(number)),
        (None, _) => Ok(()),
    }
}

/// At most `most` task sequences from `from` on that stand behind `prefix`.
fn sequences(rows: &dyn Rows, table: Table, prefix: &[u8], from: u64, most: usize) -> Result<Vec<u64>, RowsError> {
    let mut start = prefix.to_vec();
    start.extend_from_slice(&from.to_be_bytes());
    let mut numbers = Vec::new();
    rows.scan(table, &start, &keys::after_prefix(prefix), &mut |key, _| {
        numbers.extend(keys::last_number(key));
        numbers.len() < most
    })?;
    Ok(numbers)
}
