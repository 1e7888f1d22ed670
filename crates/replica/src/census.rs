//! How many tasks, nodes and jobs there are in each state, counted from the rows when somebody asks for metrics.
//!
//! Tasks are counted by the keys of an index, without decoding a row. A count is kept for a while that grows with what it cost, so that counting
//! never takes more than a hundredth of the time, however often somebody asks and however many rows there are.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use protobuf::ProtobufEnum;
use raftgrid_manifest::{views, Rows, RowsError};
use raftgrid_proto::v1::{JobPhase, NodeStatus, TaskStatus};
use raftgrid_telemetry::Registry;

use crate::clock::Clock;
use crate::limits::CENSUS_AGAIN_MS;
use crate::views::Views;

/// When the rows are counted next.
#[derive(Debug, Default)]
pub(crate) struct Census {
    again_ms: Mutex<u64>,
}

impl Census {
    /// Counts, if it is time to. A second caller at the same time waits for the first, and finds its figures.
    pub(crate) fn sample(&self, registry: &Registry, views: &dyn Views, clock: &dyn Clock) {
        let mut again_ms = self.again_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = clock.monotonic_ms();
        if begun < *again_ms {
            return;
        }
        let (rows, _) = views.view();
        if let Ok(counts) = Counts::of(rows.as_ref()) {
            counts.show(registry);
        }
        let now = clock.monotonic_ms();
        *again_ms = now + CENSUS_AGAIN_MS.max(100 * (now - begun));
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    tasks: BTreeMap<&'static str, u64>,
    nodes: BTreeMap<&'static str, u64>,
    jobs: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn of(rows: &dyn Rows) -> Result<Self, RowsError> {
        let mut counts = Self::default();
        for status in TaskStatus::values() {
            counts.tasks.insert(of_task(*status), views::count_tasks(rows, *status)?);
        }
        for status in NodeStatus::values() {
            counts.nodes.insert(of_node(*status), 0);
        }
        for row in views::node_rows(rows)? {
            *counts.nodes.entry(of_node(row.get_node().get_status())).or_default() += 1;
        }
        for phase in JobPhase::values() {
            counts.jobs.insert(of_job(*phase), 0);
        }
        views::job_rows(rows, |row| {
            *counts.jobs.entry(of_job(row.get_job().get_phase())).or_default() += 1;
            true
        })?;
        Ok(counts)
    }

    fn show(&self, registry: &Registry) {
        let families = [
            ("raftgrid_tasks_count", "tasks by status", &self.tasks),
            ("raftgrid_workers_count", "registered workers by status", &self.nodes),
            ("raftgrid_jobs_count", "jobs by phase", &self.jobs),
        ];
        for (name, help, counts) in families {
            let labels: Vec<[(&str, &str); 1]> = counts.keys().map(|state| [("state", *state)]).collect();
            let values: Vec<(&[(&str, &str)], f64)> =
                labels.iter().zip(counts.values()).map(|(labels, count)| (labels.as_slice(), *count as f64)).collect();
            registry.sampled(name, help, &values);
        }
    }
}

fn of_task(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::PENDING => "pending",
        TaskStatus::ASSIGNED => "assigned",
        TaskStatus::RUNNING => "running",
        TaskStatus::COMPLETED => "completed",
        TaskStatus::FAILED => "failed",
    }
}

fn of_node(status: NodeStatus) -> &'static str {
    match status {
        NodeStatus::HEALTHY => "healthy",
        NodeStatus::UNHEALTHY => "unhealthy",
        NodeStatus::UNKNOWN => "unknown",
    }
}

fn of_job(phase: JobPhase) -> &'static str {
    match phase {
        JobPhase::JOB_INIT => "init",
        JobPhase::JOB_RUNNING => "running",
        JobPhase::JOB_PAUSED => "paused",
        JobPhase::JOB_DONE => "done",
        JobPhase::JOB_FAILED => "failed",
        JobPhase::JOB_CANCELLED => "cancelled",
        JobPhase::JOB_REJECTED => "rejected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftgrid_manifest::{apply, encode_batch, MemRows};
    use raftgrid_proto::v1::{CancelTask, Command, Command_oneof_kind, SubmitTask};

    #[test]
    fn tasks_are_counted_in_the_state_they_are_in() {
        let mut rows = MemRows::default();
        let mut index = 1;
        let mut run = |kind: Command_oneof_kind| {
            index += 1;
            let command = Command { kind: Some(kind), ..Command::default() };
            let applied = apply(&rows, index, &[encode_batch(1_000, vec![command])]).expect("it applies");
            assert_eq!(applied.replies[0][0].get_outcome(), raftgrid_proto::v1::Outcome::OK, "{:?}", applied.replies);
            rows.write(&applied.changes);
        };
        for name in ["a", "b", "c"] {
            let mut submit = SubmitTask::new();
            submit.set_task_id(name.to_owned());
            submit.set_task_type("command".to_owned());
            submit.set_task_data(br#"{"argv":["true"]}"#.to_vec());
            run(Command_oneof_kind::submit_task(submit));
        }
        let mut cancel = CancelTask::new();
        cancel.set_task_id("b".to_owned());
        run(Command_oneof_kind::cancel_task(cancel));
        let counts = Counts::of(&rows).expect("rows in memory");
        assert_eq!((counts.tasks["pending"], counts.tasks["failed"], counts.tasks["running"]), (2, 1, 0));
        let registry = Registry::new();
        counts.show(&registry);
        assert!(registry.exposition().contains("raftgrid_tasks_count{state=\"pending\"} 2\n"));
    }
}
