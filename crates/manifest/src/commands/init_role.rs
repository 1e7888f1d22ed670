//! Who makes model 0 (decision 0004): the job's init task, and while that has no lease, another trainer that has one. Trainers that hold every slot
//! that there is would otherwise wait for ever for one that waits for a slot.

use raftgrid_proto::v1::JobRow;

use crate::read;
use crate::rows::{Rows, RowsError};

/// The machine version from which on model 0 may come from any trainer.
const SINCE: u64 = 7;

/// Whether model 0 is taken from `task_id`, whose lease is looked at elsewhere. The first one counts, whoever it is of: all are made from the job's
/// seed, and those that come later are compared.
pub(crate) fn may_make(machine_version: u64, job_row: &JobRow, task_id: &str) -> bool {
    machine_version >= SINCE || job_row.init_task == task_id
}

/// Who is to send model 0 now, so that not everybody does: the init task if it has a lease, else the first trainer that has one. None: nobody has.
pub(crate) fn maker(rows: &dyn Rows, job_row: &JobRow) -> Result<Option<String>, RowsError> {
    if read::meta(rows)?.machine_version < SINCE {
        return Ok(Some(job_row.init_task.clone()));
    }
    let leased = |row: &&raftgrid_proto::v1::TaskRow| row.open_epoch != 0;
    let trainers = read::tasks_of_job(rows, job_row.sequence)?;
    let init = trainers.iter().filter(leased).find(|row| row.get_task().task_id == job_row.init_task);
    Ok(init.or_else(|| trainers.iter().find(leased)).map(|row| row.get_task().task_id.clone()))
}
