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
use crate::deadlines;
use crate::dependents;
use crate::drains;
use crate::jitter::Jitter;
use crate::leases::Leases;
use crate::liveness::Liveness;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject};
use crate::retention::Retention;
use crate::rounds::Rounds;
use crate::scheduler::Scheduler;
use crate::schedules::Schedules;
use crate::shards::Shards;
use crate::types::{Action, Config, Input, Millis};
use crate::view::{number, Touched, View};
use crate::{arrays, jobs};

/// A leader's memory.
#[derive(Debug)]
pub struct Control {
    config: Config,
    /// Of the last step.
    now: Millis,
    view: View,
    clock: ClusterClock,
    /// The Meta row changed since the last step.
    clock_changed: bool,
    jitter: Jitter,
    outbox: Outbox,
    parts: Parts,
}

/// The loops, each with what it owns.
#[derive(Debug)]
struct Parts {
    liveness: Liveness,
    leases: Leases,
    scheduler: Scheduler,
    cancel: Cancel,
    shards: Shards,
    rounds: Rounds,
    retention: Retention,
    schedules: Schedules,
}

impl Control {
    /// A new leader's, with nothing known yet. `now`: the leader's monotonic clock; the grace of a new leader starts here.
    pub fn new(config: Config, now: Millis) -> Self {
        Self {
            parts: Parts {
                liveness: Liveness::new(now + config.election_grace_ms),
                leases: Leases::default(),
                scheduler: Scheduler::default(),
                cancel: Cancel::default(),
                shards: Shards::default(),
                rounds: Rounds::default(),
                retention: Retention::default(),
                schedules: Schedules::default(),
            },
            jitter: Jitter::new(config.jitter_seed),
            config,
            now,
            view: View::default(),
            clock: ClusterClock::default(),
            clock_changed: false,
            outbox: Outbox::new(now),
        }
    }

    /// Builds the state from the rows as of one instant: the counters, tasks that are not over, nodes, live jobs with their rounds and
    /// contributions, artifacts. Every lease found gets the election grace.
    pub fn load(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        for table in [Table::Meta, Table::Job, Table::Node, Table::Queue, Table::Artifact, Table::Schedule] {
            self.load_range(rows, table, &[], &[])?;
        }
        self.load_range(rows, Table::Dependent, &0_u64.to_be_bytes(), &1_u64.to_be_bytes())?;
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
        self.parts.leases.start_fresh(self.now, self.config.election_grace_ms);
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
        let parts = &mut self.parts;
        match self.view.apply(change)? {
            Touched::Nothing => {}
            Touched::Meta => self.clock_changed = true,
            Touched::Task(task) => {
                parts.leases.on_task(&self.view, task);
                parts.scheduler.on_task(&self.view, task);
                parts.cancel.on_task(&self.config, &self.view, task);
                self.outbox.touch(&Subject::Task(task));
            }
            Touched::Node(node_id) => {
                parts.liveness.on_node(&self.config, &self.view, &node_id);
                parts.scheduler.on_node(&node_id);
                self.outbox.touch(&Subject::Node(node_id));
            }
            Touched::Queue(name) => parts.scheduler.on_queue(&self.view, &name),
            Touched::Job(job) => {
                parts.scheduler.on_job(&self.view, job);
                self.outbox.touch(&Subject::Job(job));
            }
            Touched::Unresolved(task) => self.outbox.touch(&Subject::Unresolved(task)),
            Touched::Schedule(id) => {
                parts.schedules.on_schedule(&self.view, &id);
                self.outbox.touch(&Subject::Schedule(id));
            }
            Touched::Artifact(artifact) => {
                parts.retention.on_artifact(&self.view, artifact);
                self.outbox.touch(&Subject::Artifact(artifact));
            }
        }
        Ok(())
    }

    /// One step at `now` (never before the last one's). The last action is `WakeAt` if anything waits for time to pass.
    pub fn step(&mut self, now: Millis, inputs: Vec<Input>) -> Vec<Action> {
        self.now = self.now.max(now);
        let now = self.now;
        if std::mem::take(&mut self.clock_changed) {
            self.clock.observe(now, self.view.cluster_time_ms);
        }
        let moment = Moment { now, config: &self.config, view: &self.view, clock: &self.clock };
        let (parts, outbox) = (&mut self.parts, &mut self.outbox);
        let mut actions = Vec::new();
        parts.leases.start_fresh(now, self.config.lease_ttl_ms);
        for input in inputs {
            parts.take(&moment, outbox, input, &mut actions);
        }
        if outbox.wake(now) {
            parts.scheduler.on_wake(&self.view);
        }
        let wake = parts.step(&moment, &mut self.jitter, outbox, &mut actions);
        outbox.flush(now, &mut actions);
        // A timer that is due but whose subject is taken is woken by the subject; 1 ms keeps a step from waking itself at once.
        let wake = [wake, outbox.next_wake()].into_iter().flatten().min();
        actions.extend(wake.map(|at| Action::WakeAt(at.max(now + 1))));
        actions
    }

    /// When this leader last heard of each node: (node id, Unix seconds of cluster time). For listings; rows lag behind it.
    pub fn last_heard(&self) -> impl Iterator<Item = (&str, i64)> {
        self.parts.liveness.last_heard()
    }
}

impl Parts {
    fn take(&mut self, moment: &Moment<'_>, outbox: &mut Outbox, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Beat { ticket, beat } => {
                if !self.liveness.on_beat(moment, ticket, beat) {
                    actions.push(Action::AnswerBeat { ticket, answer: None });
                }
            }
            Input::QuorumConfirmed { ticket } => self.liveness.on_quorum(ticket),
            Input::Proposed { tag, replies } => {
                for (subject, verdict) in outbox.replied(moment.now, tag, replies) {
                    match subject {
                        Subject::Task(task) => self.scheduler.on_reply(moment.view, task, &verdict),
                        Subject::Job(job) => {
                            self.scheduler.on_job_reply(moment.view, job, &verdict);
                            self.rounds.on_reply(moment.now, job, &verdict);
                        }
                        Subject::Node(_)
                        | Subject::Artifact(_)
                        | Subject::Unresolved(_)
                        | Subject::Schedule(_)
                        | Subject::Load => {}
                    }
                }
            }
            Input::Explain { ticket, task_id } => {
                let explanation = self.scheduler.explain(moment, &self.liveness, &task_id).map(Box::new);
                actions.push(Action::Explained { ticket, explanation });
            }
            Input::Aggregated { job_id, round, result } => {
                self.rounds.on_aggregated(moment.now, moment.view, &job_id, round, result);
            }
        }
    }

    /// Runs every loop once; the answer is the earliest timer. Beats come first, so that a renewal that is here saves its lease.
    fn step(
        &mut self,
        moment: &Moment<'_>,
        jitter: &mut Jitter,
        outbox: &mut Outbox,
        actions: &mut Vec<Action>,
    ) -> Option<Millis> {
        self.liveness.step_beats(moment, &mut self.leases, outbox, actions);
        self.scheduler.on_beats(std::mem::take(&mut self.liveness.stirred));
        self.leases.step(moment, jitter, outbox);
        self.liveness.step_nodes(moment, outbox);
        self.cancel.step(moment, jitter, outbox);
        let drains_wake = drains::step(moment, outbox);
        let jobs_wake = jobs::step(moment, outbox);
        arrays::step(moment, outbox);
        dependents::step(moment, outbox);
        self.schedules.step(moment, outbox);
        // Before the shards, which might always have something to lease.
        let deadlines_wake = deadlines::step(moment, outbox);
        self.rounds.step(moment, &self.liveness, outbox, actions);
        let shards_wake = self.shards.step(moment, &self.liveness, outbox);
        self.scheduler.step(moment, &self.liveness, outbox);
        self.retention.step(moment, outbox);
        let wakes = [
            drains_wake,
            deadlines_wake,
            jobs_wake,
            shards_wake,
            self.liveness.next_wake(moment.config),
            self.leases.next_wake(),
            self.cancel.next_wake(moment),
            self.rounds.next_wake(),
            self.scheduler.next_wake(moment),
            self.retention.next_wake(moment),
            self.schedules.next_wake(moment),
        ];
        wakes.into_iter().flatten().min()
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
