//! Schedules.

use raftgrid_proto::v1::{Schedule, ScheduleRow};

use crate::limits::SCHEDULE_ID_BYTES_MAX;
use crate::read;
use crate::rows::{Rows, RowsError, Table};
use crate::views::{page_rows, ListError};

/// A page of schedules, in order of their id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchedulePage {
    /// The schedules.
    pub schedules: Vec<Schedule>,
    /// Token of the next page; empty: this was the last.
    pub next_page_token: Vec<u8>,
}

/// The schedule's whole row; None if there is none of that id.
pub fn schedule_row(rows: &dyn Rows, schedule_id: &str) -> Result<Option<ScheduleRow>, RowsError> {
    read::schedule(rows, schedule_id)
}

/// A page of at most `limit` schedules (0: the most that a page holds).
pub fn list_schedules(rows: &dyn Rows, token: &[u8], limit: usize) -> Result<SchedulePage, ListError> {
    if token.len() > SCHEDULE_ID_BYTES_MAX {
        return Err(ListError::Token);
    }
    let limit = page_rows(limit);
    let mut page = SchedulePage::default();
    read::each(rows, Table::Schedule, token, &[], |mut row: ScheduleRow| {
        let schedule = row.take_schedule();
        // The token is the last id that was given.
        if schedule.schedule_id.as_bytes() == token {
            return true;
        }
        if page.schedules.len() == limit {
            let last = page.schedules.last().map(|last| last.schedule_id.clone());
            page.next_page_token = last.unwrap_or_default().into_bytes();
            return false;
        }
        page.schedules.push(schedule);
        true
    })?;
    Ok(page)
}
