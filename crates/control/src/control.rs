//! The leader's loops as one pure step: `step(now, inputs) → actions`.
//!
//! One `Control` lives as long as a leader's term in office. The replica's leader service owns it: it calls `load` once with a snapshot of
//! the rows that contains everything committed before the term, `fold` with every later change in order, and `step` when inputs arrived,
//! rows changed or a `WakeAt` is due. Rows that a proposal changed should be folded before its `Proposed` is given, and everything up to
//! a read index before its `QuorumConfirmed`; if they are late, the guards of the machine refuse what the late rows mislead into.
//!
//! It never reads a clock, draws a random number, touches a socket or a file, or iterates a map with a random order: the same calls give
//! the same actions.

use raftgrid_manifest::{Change, Rows, RowsError, Table};
use raftgrid_proto::v1::TaskStatus;

use crate::cancel::Cancel;
use crate::clock::ClusterClock;
use crate::jitter::Jitter;
use crate::jobs;
use crate::leases::Leases;
use crate::liveness::Liveness;
use crate::outbox::{Outbox, Subject};
use crate::retention::Retention;
use crate::rounds::Rounds;
use crate::scheduler::Scheduler;
use crate::shards::Shards;
use crate::types::{Action, Config, Input, Millis};
use crate::view::{number, Touched, View};

/// A leader's memory.
#[derive(Debug)]
pub struct Control {
    config: Config,
    /// Of the last step.
    now: Millis,
    /// Silence of nodes not heard yet counts from here.
    grace_until: Millis,
    view: View,
    clock: ClusterClock,
    jitter: Jitter,
    outbox: Outbox,
    liveness: Liveness,
    leases: Leases,
    scheduler: Scheduler,
    cancel: Cancel,
    shards: Shards,
    rounds: Rounds,
    retention: Retention,
}

impl Control {
    /// A new leader's, with nothing known yet. `now`: the leader's monotonic clock; the grace of a new leader starts here.
    pub fn new(config: Config, now: Millis) -> Self {
        Self {
            grace_until: now + config.election_grace_ms,
            jitter: Jitter::new(config.jitter_seed),
            config,
            now,
            view: View::default(),
            clock: ClusterClock::default(),
            outbox: Outbox::default(),
            liveness: Liveness::default(),
            leases: Leases::default(),
            scheduler: Scheduler::default(),
            cancel: Cancel::default(),
            shards: Shards::default(),
            rounds: Rounds::default(),
            retention: Retention::default(),
        }
    }

    /// Builds the state from the rows as of one instant: the counters, tasks that are not over, nodes, live jobs with their rounds and
    /// contributions, artifacts. Every lease found gets the election grace.
    pub fn load(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        for table in [Table::Meta, Table::Job, Table::Node, Table::Artifact] {
            self.load_range(rows, table, &[], &[])?;
        }
        let jobs: Vec<u64> = self.view.jobs.keys().copied().collect();
        for job in jobs {
            let (from, to) = (job.to_be_bytes(), (job + 1).to_be_bytes());
            self.load_range(rows, Table::Round, &from, &to)?;
            self.load_range(rows, Table::Contribution, &from, &to)?;
        }
        for task in open_tasks(rows)? {
            let key = task.to_be_bytes().to_vec();
            let value = rows.get(Table::Task, &key)?;
            if value.is_none() {
                return Err(RowsError(format!("task {task} is in the index of statuses only")));
            }
            self.fold(&Change { table: Table::Task, key, value })?;
        }
        self.leases.start_fresh(self.now, self.config.election_grace_ms);
        Ok(())
    }

    fn load_range(&mut self, rows: &dyn Rows, table: Table, from: &[u8], to: &[u8]) -> Result<(), RowsError> {
        let mut folded = Ok(());
        rows.scan(table, from, to, &mut |key, value| {
            folded = self.fold(&Change { table, key: key.to_vec(), value: Some(value.to_vec()) });
            folded.is_ok()
        })?;
        folded
    }

    /// Takes one later change of a row, in order. An error means that a row does not decode: the replica must stop.
    pub fn fold(&mut self, change: &Change) -> Result<(), RowsError> {
        match self.view.apply(change)? {
            Touched::Nothing => {}
            Touched::Meta => self.clock.observe(self.now, self.view.cluster_time_ms),
            Touched::Task(task) => {
                self.leases.on_task(&self.view, task);
                self.scheduler.on_task(&self.view, task);
                self.cancel.on_task(&self.config, &self.view, task);
                self.outbox.touch(&Subject::Task(task));
            }
            Touched::Node(node_id) => {
                let silent_from = self.grace_until.max(self.now);
                self.liveness.on_node(&self.view, &node_id, silent_from, &self.config);
                self.scheduler.on_nodes();
                self.outbox.touch(&Subject::Node(node_id));
            }
            Touched::Job(job) => {
                self.scheduler.on_nodes();
                self.outbox.touch(&Subject::Job(job));
            }
            Touched::Artifact(artifact) => {
                self.retention.on_artifact(self.now, &self.view, artifact);
                self.outbox.touch(&Subject::Artifact(artifact));
            }
        }
        Ok(())
    }

    /// One step at `now` (never before the last one's). The last action is `WakeAt` if anything waits for time to pass.
    pub fn step(&mut self, now: Millis, inputs: Vec<Input>) -> Vec<Action> {
        self.now = self.now.max(now);
        let now = self.now;
        let mut actions = Vec::new();
        self.leases.start_fresh(now, self.config.lease_ttl_ms);
        for input in inputs {
            self.take(input, &mut actions);
        }
        if self.outbox.wake(now) {
            self.scheduler.on_wake();
        }
        self.liveness.step_beats(
            now,
            &self.config,
            &self.view,
            &self.clock,
            &mut self.leases,
            &mut self.outbox,
            &mut actions,
        );
        if std::mem::take(&mut self.liveness.reach_changed) {
            self.scheduler.on_nodes();
        }
        self.leases.step(now, &self.config, &self.view, &mut self.jitter, &mut self.outbox);
        self.liveness.step_nodes(now, &self.config, &self.view, &self.clock, &mut self.outbox);
        self.cancel.step(now, &self.config, &self.view, &self.clock, &mut self.jitter, &mut self.outbox);
        let jobs_wake = jobs::step(now, &self.config, &self.view, &self.clock, &mut self.outbox);
        self.rounds.step(now, &self.config, &self.view, &self.liveness, &mut self.outbox, &mut actions);
        let shards_wake = self.shards.step(now, &self.config, &self.view, &self.liveness, &mut self.outbox);
        self.scheduler.step(now, &self.config, &self.view, &self.clock, &self.liveness, &mut self.outbox);
        self.retention.step(now, &self.clock, &mut self.outbox);
        self.outbox.flush(&mut actions);
        let wakes = [
            jobs_wake,
            shards_wake,
            self.outbox.next_wake(),
            self.liveness.next_wake(&self.config),
            self.leases.next_wake(),
            self.cancel.next_wake(now, &self.clock),
            self.rounds.next_wake(),
            self.scheduler.next_wake(now, &self.clock),
            self.retention.next_wake(now, &self.clock),
        ];
        // A timer that is due but waits for its subject is woken by the subject's reply or rest; 1 ms keeps a step from waking itself at once.
        actions.extend(wakes.into_iter().flatten().min().map(|at| Action::WakeAt(at.max(now + 1))));
        actions
    }

    fn take(&mut self, input: Input, actions: &mut Vec<Action>) {
        let now = self.now;
        match input {
            Input::Beat { ticket, beat } => {
                self.liveness.on_beat(now, &self.config, &self.view, &self.clock, ticket, beat, actions);
            }
            Input::QuorumConfirmed { ticket } => self.liveness.on_quorum(ticket),
            Input::Proposed { tag, replies } => {
                for (subject, verdict) in self.outbox.replied(now, tag, replies) {
                    match subject {
                        Subject::Task(task) => self.scheduler.on_reply(task, &verdict),
                        Subject::Job(job) => self.rounds.on_reply(now, job, &verdict),
                        Subject::Node(_) | Subject::Artifact(_) | Subject::Load => {}
                    }
                }
            }
            Input::Aggregated { job_id, round, result } => {
                self.rounds.on_aggregated(now, &self.view, &job_id, round, result);
            }
        }
    }

    /// When this leader last heard of each node: (node id, Unix seconds of cluster time). For listings; rows lag behind it.
    pub fn last_heard(&self) -> impl Iterator<Item = (&str, i64)> {
        self.liveness.last_heard()
    }
}

/// Sequences of tasks that are not over, in order of (status, sequence).
fn open_tasks(rows: &dyn Rows) -> Result<Vec<u64>, RowsError> {
    let mut tasks = Ok(Vec::new());
    let (first, end) = ([TaskStatus::PENDING as u8], [TaskStatus::COMPLETED as u8]);
    rows.scan(Table::TaskByStatus, &first, &end, &mut |key, _| {
        if let Ok(list) = &mut tasks {
            match number(key, 1) {
                Ok(task) => list.push(task),
                Err(error) => tasks = Err(error),
            }
        }
        tasks.is_ok()
    })?;
    tasks
}
