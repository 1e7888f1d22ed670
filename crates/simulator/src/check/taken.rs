//! Work besides single tasks that somebody was told was taken: it is there in the end.

use raftgrid_manifest::{views, Rows, RowsError};
use raftgrid_proto::v1::{Command, Command_oneof_kind as Kind};

/// What was taken, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A task that waits for another.
    Task(String),
    /// A graph, an array or a gang.
    Job(String),
    /// A schedule.
    Schedule(String),
}

impl Taken {
    /// What a command hands in; None: something else.
    pub fn of(command: &Command) -> Option<Self> {
        match command.kind.as_ref()? {
            Kind::submit_task(submit) => Some(Self::Task(submit.task_id.clone())),
            Kind::submit_job(submit) => Some(Self::Job(submit.get_spec().name.clone())),
            Kind::put_schedule(put) => Some(Self::Schedule(put.get_schedule().schedule_id.clone())),
            _ => None,
        }
    }

    fn is_in(&self, rows: &dyn Rows) -> Result<bool, RowsError> {
        Ok(match self {
            Self::Task(id) => views::task_row(rows, id)?.is_some(),
            Self::Job(id) => views::job_row(rows, id)?.is_some(),
            Self::Schedule(id) => views::schedule_row(rows, id)?.is_some(),
        })
    }
}

/// What was taken and is not there.
pub fn lost(taken: &[Taken], rows: &dyn Rows) -> Result<Vec<String>, RowsError> {
    let mut lost = Vec::new();
    for one in taken {
        if !one.is_in(rows)? {
            lost.push(format!("{one:?} was acknowledged and is not there"));
        }
    }
    Ok(lost)
}
