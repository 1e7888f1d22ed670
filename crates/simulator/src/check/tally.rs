//! How everything ended, in numbers: for people, who want to see that all kinds of ends did happen.

use std::collections::BTreeMap;

use raftgrid_manifest::{views, Rows, RowsError};
use raftgrid_proto::v1::{JobPhase, Phase, TaskRow, TaskStatus};

use crate::check::ticks;

/// Counts by what they are of.
pub fn tally(rows: &dyn Rows) -> Result<BTreeMap<&'static str, u64>, RowsError> {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut add = |what, by| *counts.entry(what).or_default() += by;
    for status in [TaskStatus::COMPLETED, TaskStatus::FAILED] {
        views::task_rows(rows, status, |row| {
            ends(&row, &mut add);
            true
        })?;
    }
    views::job_rows(rows, |row| {
        add("job", 1);
        add("job done", u64::from(row.get_job().phase == JobPhase::JOB_DONE));
        if row.get_job().get_spec().field_type == "train" {
            add("train job", 1);
            add("train job done", u64::from(row.get_job().phase == JobPhase::JOB_DONE));
            add("round committed", row.get_job().rounds_committed);
            add("gradient accepted", row.get_job().accepted);
            add("gradient compared", row.get_job().compared);
            add("gradient stale", row.get_job().stale);
            add("gradient again", row.get_job().duplicates);
            add("gradient refused", row.get_job().mismatches + row.get_job().rejected);
        }
        add("gang placed", u64::from(row.get_job().gang_generation > 0));
        true
    })?;
    add("tick fired", ticks::fired(rows)?);
    Ok(counts)
}

fn ends(row: &TaskRow, add: &mut impl FnMut(&'static str, u64)) {
    let task = row.get_task();
    add("task", 1);
    add("attempt", u64::from(task.attempt));
    match task.phase {
        Phase::PHASE_SUCCEEDED => add("task succeeded", 1),
        Phase::PHASE_CANCELLED => add("task cancelled", 1),
        Phase::PHASE_DEPENDENCY_FAILED => add("task without its dependency", 1),
        _ => add("task failed", 1),
    }
}
