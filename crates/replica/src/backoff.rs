//! The pause after a failed attempt: drawn here, where the report arrives, and written into the command, so that apply draws nothing.

use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_control::{Config, Jitter};
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command, Command_oneof_kind, TaskStatus};

use crate::views::Views;

/// Draws for one replica.
pub(crate) struct Backoff {
    config: Config,
    jitter: Mutex<Jitter>,
    views: Arc<dyn Views>,
}

impl Backoff {
    pub(crate) fn new(config: Config, views: Arc<dyn Views>) -> Self {
        Self { jitter: Mutex::new(Jitter::new(config.jitter_seed)), config, views }
    }

    /// Fills in the pause of every report of a failure that has none.
    pub(crate) fn fill_in(&self, commands: &mut [Command]) {
        for command in commands {
            let Some(Command_oneof_kind::report_result(report)) = &mut command.kind else { continue };
            if report.final_status != TaskStatus::FAILED || report.backoff_ms != 0 {
                continue;
            }
            let (rows, _) = self.views.view();
            // A task that is not known here gets the shortest pause; apply judges the report either way.
            let row = views::task_row(rows.as_ref(), &report.task_id).ok().flatten();
            let failures = row.map_or(0, |row| row.user_failures.max(row.infrastructure_failures));
            let mut jitter = self.jitter.lock().unwrap_or_else(PoisonError::into_inner);
            report.set_backoff_ms(jitter.backoff(&self.config, failures));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftgrid_manifest::{MemRows, Rows};
    use raftgrid_proto::v1::ReportResult;

    struct Empty;

    impl Views for Empty {
        fn view(&self) -> (Arc<dyn Rows + Send + Sync>, u64) {
            (Arc::new(MemRows::default()), 0)
        }
    }

    #[test]
    fn a_failure_without_a_pause_gets_one_and_nothing_else_is_touched() {
        let report = |status, backoff_ms| {
            let report = ReportResult { final_status: status, backoff_ms, ..ReportResult::default() };
            Command { kind: Some(Command_oneof_kind::report_result(report)), ..Command::default() }
        };
        let mut commands =
            [report(TaskStatus::FAILED, 0), report(TaskStatus::FAILED, 7), report(TaskStatus::COMPLETED, 0)];
        let before = commands.clone();
        Backoff::new(Config::local(), Arc::new(Empty)).fill_in(&mut commands);
        let Some(Command_oneof_kind::report_result(first)) = &commands[0].kind else { panic!("still a report") };
        assert!((125..=250).contains(&first.backoff_ms), "{}", first.backoff_ms);
        assert_eq!(commands[1..], before[1..]);
    }
}
