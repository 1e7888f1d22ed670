//! Queues.

use raftgrid_proto::v1::{Queue, QueueRow};

use crate::read;
use crate::rows::{Rows, RowsError, Table};

/// The queue; None if there is none of that name.
pub fn get_queue(rows: &dyn Rows, name: &str) -> Result<Option<Queue>, RowsError> {
    Ok(read::queue(rows, name)?.and_then(|row| row.queue.into_option()))
}

/// All queues, by name. There are at most `QUEUES_MAX`.
pub fn list_queues(rows: &dyn Rows) -> Result<Vec<Queue>, RowsError> {
    let mut queues = Vec::new();
    read::each(rows, Table::Queue, &[], &[], |row: QueueRow| {
        queues.extend(row.queue.into_option());
        true
    })?;
    Ok(queues)
}
