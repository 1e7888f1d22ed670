//! The pause after a failed attempt: drawn here, where the report arrives, and written into the command, so that apply draws nothing. Here
//! too it is said how often a node may take the blame for a task that failed on it.

use std::sync::{Arc, Mutex, PoisonError};

use raftgrid_control::limits::NODE_FAILURES_FREE;
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
            let (user, interrupted) = row.map_or((0, 0), |row| (row.user_failures, row.infrastructure_failures));
            let node_failed = report.infrastructure;
            report.infrastructure &= interrupted < NODE_FAILURES_FREE;
            // Another node is tried soon: that it would fail too is not to be expected.
            let failures = match (node_failed, report.infrastructure) {
                (true, true) => 0,
                (true, false) => user,
                (false, _) => user.max(interrupted),
            };
            let mut jitter = self.jitter.lock().unwrap_or_else(PoisonError::into_inner);
            report.set_backoff_ms(jitter.backoff(&self.config, failures));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message;
    use raftgrid_manifest::{Change, MemRows, Rows, Table};
    use raftgrid_proto::v1::{ReportResult, TaskRow};

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

    /// A view with one task whose attempts were interrupted so often.
    struct Interrupted(u32);

    impl Views for Interrupted {
        fn view(&self) -> (Arc<dyn Rows + Send + Sync>, u64) {
            let mut rows = MemRows::default();
            let mut row = TaskRow { sequence: 1, infrastructure_failures: self.0, ..TaskRow::default() };
            row.mut_task().task_id = "task-1".to_owned();
            let value = Some(row.write_to_bytes().expect("rows encode"));
            rows.write(&[
                Change { table: Table::Task, key: 1u64.to_be_bytes().to_vec(), value },
                Change { table: Table::TaskById, key: b"task-1".to_vec(), value: Some(1u64.to_be_bytes().to_vec()) },
            ]);
            (Arc::new(rows), 0)
        }
    }

    #[test]
    fn a_node_takes_the_blame_a_bounded_number_of_times_and_the_next_node_is_tried_soon() {
        let filled = |interrupted: u32| {
            let report = ReportResult {
                task_id: "task-1".to_owned(),
                final_status: TaskStatus::FAILED,
                infrastructure: true,
                ..ReportResult::default()
            };
            let mut commands =
                [Command { kind: Some(Command_oneof_kind::report_result(report)), ..Command::default() }];
            Backoff::new(Config::local(), Arc::new(Interrupted(interrupted))).fill_in(&mut commands);
            match commands[0].kind.clone() {
                Some(Command_oneof_kind::report_result(report)) => (report.infrastructure, report.backoff_ms),
                _ => panic!("still a report"),
            }
        };
        for interrupted in 0..NODE_FAILURES_FREE {
            let (infrastructure, pause) = filled(interrupted);
            assert!(infrastructure && (125..=250).contains(&pause), "{interrupted}: {infrastructure}, {pause}");
        }
        let (infrastructure, pause) = filled(NODE_FAILURES_FREE);
        assert!(!infrastructure && (125..=250).contains(&pause), "{infrastructure}, {pause}");
    }
}
