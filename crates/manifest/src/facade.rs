//! A manifest in memory behind plain calls, for embedders and tools: every call is one entry of the same commands that replicas apply.
//! It brings no durability and no consensus, and knows no clock: time is an argument.

use raftgrid_proto::v1::{
    Assign, Assignment, Command, CommandReply, Command_oneof_kind as Kind, ExpireLease, LoadReport, Node, NodeLoad,
    NodeStatus, NodeStatusChange, Outcome, RegisterNode, ReportResult, Start, SubmitTask, Task, TaskStatus,
};

use crate::apply::apply;
use crate::error::ApplyError;
use crate::make::{command, encode_batch};
use crate::predicates::select_least_loaded;
use crate::rows::{MemRows, RowsError};
use crate::views;

/// Why a call had no effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ManifestError {
    /// A guard of the state machine said no.
    #[error("failed to change the manifest: {message} ({outcome:?})")]
    Refused {
        /// Which kind of refusal; a retry helps only after the state has changed.
        outcome: Outcome,
        /// What the guard said.
        message: String,
    },
    /// The rows are damaged.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl From<RowsError> for ManifestError {
    fn from(error: RowsError) -> Self {
        Self::Apply(ApplyError::Rows(error))
    }
}

type Done = Result<(), ManifestError>;

/// The state machine over tables in memory.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    rows: MemRows,
    entries: u64,
    time_ms: u64,
}

impl Manifest {
    /// Empty, at time 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets cluster time (Unix milliseconds); it never falls.
    pub fn set_time_ms(&mut self, time_ms: u64) {
        self.time_ms = self.time_ms.max(time_ms);
    }

    /// The tables, for `views`.
    pub fn rows(&self) -> &MemRows {
        &self.rows
    }

    /// Applies one command as an entry of its own.
    pub fn apply(&mut self, command: Command) -> Result<CommandReply, ManifestError> {
        self.entries += 1;
        let payload = encode_batch(self.time_ms, vec![command]);
        let applied = apply(&self.rows, self.entries, &[payload])?;
        self.rows.write(&applied.changes);
        let reply = applied.replies.into_iter().flatten().next().unwrap_or_default();
        match reply.outcome {
            Outcome::OK | Outcome::EXISTING | Outcome::DUPLICATE => Ok(reply),
            Outcome::NOT_FOUND
            | Outcome::ALREADY_EXISTS
            | Outcome::STALE_LEASE
            | Outcome::PRECONDITION
            | Outcome::INVALID
            | Outcome::OUTCOME_UNKNOWN
            | Outcome::MISMATCH
            | Outcome::STALE
            | Outcome::EXHAUSTED => Err(ManifestError::Refused { outcome: reply.outcome, message: reply.message }),
        }
    }

    fn run(&mut self, kind: Kind) -> Done {
        self.apply(command(kind)).map(drop)
    }

    /// Adds a task: its id (empty: one is given), type, data and spec count. Gives the id.
    pub fn add_task(&mut self, task: Task) -> Result<String, ManifestError> {
        let submit = SubmitTask {
            task_id: task.task_id,
            task_type: task.task_type,
            task_data: task.task_data,
            spec: task.spec,
            ..SubmitTask::default()
        };
        Ok(self.apply(command(Kind::submit_task(submit)))?.id)
    }

    /// The task of this id.
    pub fn get_task(&self, task_id: &str) -> Result<Option<Task>, ManifestError> {
        Ok(views::get_task(&self.rows, task_id)?)
    }

    fn epoch(&self, task_id: &str) -> Result<u64, ManifestError> {
        Ok(views::task_row(&self.rows, task_id)?.map_or(0, |row| row.open_epoch))
    }

    /// Moves a task on: RUNNING starts it, COMPLETED and FAILED end its attempt, PENDING takes its lease away. ASSIGNED is refused, since it
    /// needs a node: `assign_task`.
    pub fn update_task_status(&mut self, task_id: &str, status: TaskStatus) -> Done {
        let epoch = self.epoch(task_id)?;
        let task_id = task_id.to_owned();
        match status {
            TaskStatus::RUNNING => self.run(Kind::start(Start { task_id, epoch, ..Start::default() })),
            TaskStatus::COMPLETED => self.complete_task(&task_id, ""),
            TaskStatus::FAILED => self.fail_task(&task_id, ""),
            TaskStatus::PENDING => self.run(Kind::expire_lease(ExpireLease {
                task_id,
                epoch,
                reason: "taken back".to_owned(),
                ..ExpireLease::default()
            })),
            TaskStatus::ASSIGNED => Err(ManifestError::Refused {
                outcome: Outcome::INVALID,
                message: format!("task {task_id} needs a node to be ASSIGNED; use assign_task"),
            }),
        }
    }

    /// Gives a waiting task to a node that can take it.
    pub fn assign_task(&mut self, task_id: &str, node_id: &str) -> Done {
        let assignment =
            Assignment { task_id: task_id.to_owned(), node_id: node_id.to_owned(), ..Assignment::default() };
        let mut assign = Assign::default();
        assign.assignments.push(assignment);
        self.run(Kind::assign(assign))
    }

    fn report(&mut self, task_id: &str, final_status: TaskStatus, result_data: &str, reason: &str) -> Done {
        let epoch = match self.epoch(task_id)? {
            // Not open: an equal report is answered again, any other is refused.
            0 => views::task_row(&self.rows, task_id)?.map_or(0, |row| row.get_task().lease_epoch),
            open => open,
        };
        self.run(Kind::report_result(ReportResult {
            task_id: task_id.to_owned(),
            epoch,
            final_status,
            result_data: result_data.to_owned(),
            reason: reason.to_owned(),
            exit_code: i32::from(final_status == TaskStatus::FAILED),
            ..ReportResult::default()
        }))
    }

    /// Ends the open attempt with a result (JSON).
    pub fn complete_task(&mut self, task_id: &str, result_data: &str) -> Done {
        self.report(task_id, TaskStatus::COMPLETED, result_data, "")
    }

    /// Ends the open attempt as failed. The task waits for another try while its spec allows one, else it is FAILED.
    pub fn fail_task(&mut self, task_id: &str, reason: &str) -> Done {
        self.report(task_id, TaskStatus::FAILED, "", reason)
    }

    /// Waiting tasks, oldest first.
    pub fn get_pending_tasks(&self) -> Result<Vec<Task>, ManifestError> {
        self.get_tasks_by_status(TaskStatus::PENDING)
    }

    /// Tasks of one status, oldest first.
    pub fn get_tasks_by_status(&self, status: TaskStatus) -> Result<Vec<Task>, ManifestError> {
        let mut tasks = Vec::new();
        views::task_rows(&self.rows, status, |mut row| {
            tasks.push(row.take_task());
            true
        })?;
        Ok(tasks)
    }

    /// All tasks, oldest first.
    pub fn get_all_tasks(&self) -> Result<Vec<Task>, ManifestError> {
        let mut tasks = Vec::new();
        let mut token = Vec::new();
        loop {
            let filter = views::TaskFilter::default();
            let page = views::list_tasks(&self.rows, &filter, &token, 0).map_err(|error| match error {
                views::ListError::Rows(error) => error,
                views::ListError::Token => RowsError("a page token of our own was refused".to_owned()),
            })?;
            tasks.extend(page.tasks);
            if page.next_page_token.is_empty() {
                return Ok(tasks);
            }
            token = page.next_page_token;
        }
    }

    /// A node is heard from at `now_s` (Unix seconds): registered on first contact, HEALTHY again if it was not.
    pub fn update_node_heartbeat(&mut self, node: Node, now_s: i64) -> Done {
        let known = views::node_row(&self.rows, &node.node_id)?;
        let load = NodeLoad {
            node_id: node.node_id.clone(),
            cpu_usage: node.cpu_usage,
            memory_usage: node.memory_usage,
            last_heartbeat: now_s,
            ..NodeLoad::default()
        };
        if known.is_none() {
            let mut register = RegisterNode::default();
            register.set_node(Node { last_heartbeat: now_s, ..node });
            return self.run(Kind::register_node(register));
        }
        let node_id = node.node_id;
        let mut report = LoadReport::default();
        report.loads.push(load);
        self.run(Kind::load_report(report))?;
        self.set_node_status(&node_id, NodeStatus::HEALTHY)
    }

    fn set_node_status(&mut self, node_id: &str, status: NodeStatus) -> Done {
        let incarnation = views::get_node(&self.rows, node_id)?.map_or(0, |node| node.incarnation);
        let node_id = node_id.to_owned();
        self.run(Kind::node_status_change(NodeStatusChange {
            node_id,
            incarnation,
            status,
            ..NodeStatusChange::default()
        }))
    }

    /// Gives the node no new work; its leases stay until they are ended.
    pub fn mark_node_unhealthy(&mut self, node_id: &str) -> Done {
        self.set_node_status(node_id, NodeStatus::UNHEALTHY)
    }

    /// HEALTHY nodes, in order of their id.
    pub fn get_healthy_nodes(&self) -> Result<Vec<Node>, ManifestError> {
        let mut nodes = self.get_all_nodes()?;
        nodes.retain(|node| node.status == NodeStatus::HEALTHY);
        Ok(nodes)
    }

    /// All nodes, in order of their id.
    pub fn get_all_nodes(&self) -> Result<Vec<Node>, ManifestError> {
        Ok(views::get_nodes(&self.rows)?)
    }

    /// The node that a task without demands would go to; None if none can take one.
    pub fn select_least_loaded_node(&self) -> Result<Option<Node>, ManifestError> {
        let nodes = self.get_all_nodes()?;
        Ok(select_least_loaded(&Task::default(), &nodes).cloned())
    }

    /// Marks HEALTHY nodes UNHEALTHY that were last heard from more than `timeout_s` before `now_s` (Unix seconds). Gives their ids.
    pub fn check_stale_nodes(&mut self, now_s: i64, timeout_s: i64) -> Result<Vec<String>, ManifestError> {
        let mut stale = Vec::new();
        for node in self.get_healthy_nodes()? {
            if now_s.saturating_sub(node.last_heartbeat) > timeout_s {
                self.mark_node_unhealthy(&node.node_id)?;
                stale.push(node.node_id);
            }
        }
        Ok(stale)
    }

    /// Tasks that the node has, ASSIGNED and RUNNING; 0 for a node that is not known.
    pub fn get_node_task_count(&self, node_id: &str) -> Result<u32, ManifestError> {
        Ok(views::node_row(&self.rows, node_id)?.map_or(0, |row| row.open_tasks))
    }
}
