//! Job rows, with the count of their open tasks.

use raftgrid_proto::v1::JobRow;

use crate::error::Fault;
use crate::keys;
use crate::machine::Machine;
use crate::read;
use crate::rows::{RowsError, Table};

/// The writer of job rows.
pub(crate) struct JobTable;

impl JobTable {
    /// Writes the row as of this command.
    pub(crate) fn put(machine: &mut Machine<'_>, mut row: JobRow) -> JobRow {
        row.mut_job().revision = machine.position.get();
        machine.put(Table::Job, keys::number(row.sequence), &row);
        row
    }

    /// The job that a row of ours names by its sequence.
    pub(crate) fn get(machine: &Machine<'_>, sequence: u64) -> Result<JobRow, Fault> {
        Ok(read::job(&machine.rows, sequence)?.ok_or_else(|| RowsError(format!("job {sequence} has no row")))?)
    }

    /// A task of the job changed between open and over.
    pub(crate) fn count_task(
        machine: &mut Machine<'_>,
        sequence: u64,
        was_open: bool,
        is_open: bool,
    ) -> Result<(), Fault> {
        if was_open == is_open {
            return Ok(());
        }
        let mut row = Self::get(machine, sequence)?;
        row.open_tasks = if is_open {
            row.open_tasks + 1
        } else {
            row.open_tasks.checked_sub(1).expect("a task that was open was counted")
        };
        Self::put(machine, row);
        Ok(())
    }
}
