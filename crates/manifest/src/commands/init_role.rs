//! Who makes model 0: the job's init task, and while that has no lease, whichever trainer has one (decision 0004). Trainers that hold every slot
//! that there is would otherwise wait for ever for one that waits for a slot.

use raftgrid_proto::v1::JobRow;

use crate::read;
use crate::rows::{Rows, RowsError};

/// The machine version from which on the role passes on.
const SINCE: u64 = 7;

/// Whether model 0 of the job is `task_id`'s to make; its lease is not looked at.
pub(crate) fn is_of(rows: &dyn Rows, machine_version: u64, job_row: &JobRow, task_id: &str) -> Result<bool, RowsError> {
    if job_row.init_task == task_id {
        return Ok(true);
    }
    if machine_version < SINCE {
        return Ok(false);
    }
    Ok(read::task_by_id(rows, &job_row.init_task)?.is_none_or(|init| init.open_epoch == 0))
}
