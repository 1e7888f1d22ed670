//! Ticks of schedules: each is a task, or is counted as gone by, and none is both or twice. Reckoned here by division: the schedules of
//! `work::schedule` are due at each full minute, are put once and never changed.

use raftgrid_manifest::{views, Rows, RowsError};
use raftgrid_proto::v1::Schedule;

use crate::check::told;

const MINUTE_MS: u64 = 60_000;
/// How long after a tick a healed leader may not have dealt with it, in milliseconds of cluster time.
const LATE_MS: u64 = 30_000;

/// What cannot be of the schedules in `rows`.
pub fn judge(rows: &dyn Rows) -> Vec<String> {
    told(schedules(rows).and_then(|schedules| {
        let mut broken = Vec::new();
        for schedule in schedules {
            broken.extend(lost_or_twice(rows, &schedule)?);
        }
        Ok(broken)
    }))
}

/// A schedule whose ticks are not dealt with yet.
pub fn behind(rows: &dyn Rows) -> Result<Option<String>, RowsError> {
    let now = views::meta(rows)?.cluster_time_ms;
    let is_behind = |schedule: &Schedule| now.saturating_sub(LATE_MS) / MINUTE_MS > schedule.last_tick_ms / MINUTE_MS;
    let found = schedules(rows)?.into_iter().find(is_behind);
    Ok(found.map(|it| format!("schedule {} stands at {} of {now}", it.schedule_id, it.last_tick_ms)))
}

/// Ticks that runs were made of.
pub fn fired(rows: &dyn Rows) -> Result<u64, RowsError> {
    Ok(schedules(rows)?.iter().map(|schedule| schedule.fired).sum())
}

fn schedules(rows: &dyn Rows) -> Result<Vec<Schedule>, RowsError> {
    match views::list_schedules(rows, &[], 0) {
        Ok(page) => Ok(page.schedules),
        Err(views::ListError::Rows(error)) => Err(error),
        Err(views::ListError::Token) => Ok(Vec::new()),
    }
}

fn lost_or_twice(rows: &dyn Rows, schedule: &Schedule) -> Result<Vec<String>, RowsError> {
    let id = &schedule.schedule_id;
    let (first, last) = (schedule.created_at_ms / MINUTE_MS, schedule.last_tick_ms / MINUTE_MS);
    let mut runs = 0;
    for minute in first + 1..=last {
        let tick_ms = minute * MINUTE_MS;
        runs += u64::from(views::task_row(rows, &format!("sched/{id}/{tick_ms}"))?.is_some());
    }
    let mut broken = Vec::new();
    if runs != schedule.fired {
        broken.push(format!("schedule {id} counts {} runs, {runs} are there", schedule.fired));
    }
    if schedule.fired + schedule.skipped != last - first {
        let counted = (schedule.fired, schedule.skipped);
        broken.push(format!("schedule {id} counts {counted:?} ticks fired and gone by, {} were due", last - first));
    }
    Ok(broken)
}
