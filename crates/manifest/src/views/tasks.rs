//! Tasks.

use raftgrid_proto::v1::{Task, TaskRow, TaskStatus};

use crate::keys;
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::views::{page_rows, page_start, ListError};

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

/// A page of tasks, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Token of the next page; empty: this was the last.
    pub next_page_token: Vec<u8>,
}

/// The task; None if there is none of that id.
pub fn get_task(rows: &dyn Rows, task_id: &str) -> Result<Option<Task>, RowsError> {
    Ok(read::task_by_id(rows, task_id)?.map(|mut row| row.take_task()))
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
    let mut from = page_start(token).ok_or(ListError::Token)?;
    let limit = page_rows(limit);
    let (table, prefix) = match (&filter.job_id, &filter.queue, filter.status) {
        (Some(job_id), ..) => match read::job_by_id(rows, job_id)? {
            Some(job) => (Table::TaskByJob, keys::number(job.sequence)),
            None => return Ok(TaskPage::default()),
        },
        (None, Some(queue), _) => (Table::TaskByQueue, keys::queue_tasks(queue)),
        (None, None, Some(status)) => (Table::TaskByStatus, keys::task_status(status)),
        (None, None, None) => (Table::Task, Vec::new()),
    };
    let mut page = TaskPage::default();
    loop {
        let numbers = sequences(rows, table, &prefix, from, limit + 1)?;
        let more = numbers.len() > limit;
        for number in numbers {
            if page.tasks.len() == limit {
                page.next_page_token = keys::number(from - 1);
                return Ok(page);
            }
            from = number + 1;
            let mut row = read::task(rows, number)?.ok_or_else(|| only_in_index(number))?;
            let task = row.get_task();
            let in_queue = filter.queue.as_ref().is_none_or(|queue| task.queue == *queue);
            if in_queue && filter.status.is_none_or(|status| task.status == status) {
                page.tasks.push(row.take_task());
            }
        }
        if !more {
            return Ok(page);
        }
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
