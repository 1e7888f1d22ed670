//! The scheduler: which pending task goes to which node. Feeds the planner with rows, carries out its plans as Assign and PreemptTask.
//!
//! | file | noun |
//! |---|---|
//! | `planner` | the order in which units are tried, what a plan comes to |
//! | `choice` | the node for one task |
//! | `holds` | nodes kept for a unit that waits |
//! | `shapes` | waiting tasks that ask for the same |
//! | `hosts` | nodes in order of load, and searches in that order |
//! | `share` | queues: whose turn it is, and what each may hold |
//! | `gangs` | members that wait for each other |
//! | `neighbours` | spread and affinities |
//! | `preemption` | victims |
//! | `explanation` | why a task waits |
//!
//! Whether a node may take a task at all is manifest's predicate, the same that guards Assign.

mod choice;
mod explanation;
mod gangs;
mod holds;
mod hosts;
mod neighbours;
mod planner;
mod preemption;
mod shapes;
mod share;

use std::collections::{BTreeMap, BTreeSet};

use protobuf::RepeatedField;
use raftgrid_proto::v1::{Assign, Assignment, Command_oneof_kind, Phase, PreemptTask, TaskRow, TaskStatus};

use crate::jobs;
use crate::limits::{HOSTS_SETTLED_MAX, PASS_PLACED_MAX};
use crate::liveness::Liveness;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject, Verdict};
use crate::timers::Timers;
use crate::types::{Explanation, Millis};
use crate::view::View;

pub use planner::{Gate, Placement, Plan, Planner};

#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    planner: Planner,
    /// Until when (cluster time) a task rests after a failure.
    backoffs: Timers<u64>,
    /// Tasks that could not be proposed for: looked at again when a subject is free.
    kept_out: BTreeSet<u64>,
    /// Tasks whose job wants none now, by job: looked at again when it changes.
    unwanted: BTreeMap<u64, BTreeSet<u64>>,
    /// Gangs on their way: the job, and which tasks.
    gangs: BTreeMap<u64, Vec<u64>>,
    /// Victims whose preemption is on its way.
    victims: BTreeSet<u64>,
    /// The last plan did not come to its end.
    more: bool,
    /// Nodes whose row or reach changed since the last step.
    touched: BTreeSet<String>,
}

/// What the planner asks of the leader.
struct Surroundings<'a> {
    moment: &'a Moment<'a>,
    liveness: &'a Liveness,
    outbox: &'a Outbox,
}

impl Gate for Surroundings<'_> {
    fn in_reach(&mut self, node_id: &str) -> bool {
        self.liveness.in_reach(self.moment, node_id)
    }

    fn admits(&mut self, task: u64) -> bool {
        let view = self.moment.view;
        let Some(row) = view.tasks.get(&task) else { return false };
        let gang_is_free = row.gang.is_none() || self.outbox.free(&Subject::Job(row.job_sequence));
        gang_is_free && self.outbox.free(&Subject::Task(task)) && jobs::wants_tasks(view, row)
    }
}

impl Scheduler {
    /// The task's row changed.
    pub(crate) fn on_task(&mut self, view: &View, task: u64) {
        self.backoffs.clear(&task);
        self.kept_out.remove(&task);
        self.victims.remove(&task);
        let Some(row) = view.tasks.get(&task) else {
            self.planner.let_go(task);
            self.planner.remove(task);
            return;
        };
        if row.open_epoch != 0 {
            self.planner.hold(row);
            return;
        }
        self.planner.let_go(task);
        self.planner.remove(task);
        match row.get_task().phase {
            Phase::PHASE_BACKOFF if row.get_task().status == TaskStatus::PENDING => {
                self.backoffs.set(task, row.not_before_ms);
                if let Some(gang) = row.gang.as_ref() {
                    self.planner.wait_for(row.job_sequence, gang.min_members, task);
                }
            }
            Phase::PHASE_QUEUED if row.get_task().status == TaskStatus::PENDING => self.enqueue(view, row),
            Phase::PHASE_QUEUED
            | Phase::PHASE_BACKOFF
            | Phase::PHASE_BLOCKED
            | Phase::PHASE_SUSPENDED
            | Phase::PHASE_LEASED
            | Phase::PHASE_STAGING
            | Phase::PHASE_ACTIVE
            | Phase::PHASE_STOPPING
            | Phase::PHASE_ORPHANED
            | Phase::PHASE_SUCCEEDED
            | Phase::PHASE_ERROR
            | Phase::PHASE_RETRIES_EXHAUSTED
            | Phase::PHASE_CANCELLED
            | Phase::PHASE_DEADLINE
            | Phase::PHASE_LOST
            | Phase::PHASE_DEPENDENCY_FAILED
            | Phase::PHASE_REJECTED => {}
        }
    }

    fn enqueue(&mut self, view: &View, row: &TaskRow) {
        self.planner.add(row, view.avoided_nodes(row.sequence));
    }

    /// A node's row changed.
    pub(crate) fn on_node(&mut self, node_id: &str) {
        self.touched.insert(node_id.to_owned());
    }

    /// Nodes came back into reach, or their load moved.
    pub(crate) fn on_beats(&mut self, nodes: BTreeSet<String>) {
        self.touched.extend(nodes);
    }

    /// A queue's settings changed.
    pub(crate) fn on_queue(&mut self, view: &View, name: &str) {
        self.planner.put_queue(name, view.queues.get(name).cloned());
    }

    /// A job changed: it may want tasks again.
    pub(crate) fn on_job(&mut self, view: &View, job: u64) {
        let tasks = self.unwanted.remove(&job).unwrap_or_default();
        self.look_again(view, tasks);
    }

    /// A subject rests no longer.
    pub(crate) fn on_wake(&mut self, view: &View) {
        let tasks = std::mem::take(&mut self.kept_out);
        self.look_again(view, tasks);
    }

    fn look_again(&mut self, view: &View, tasks: BTreeSet<u64>) {
        for task in tasks {
            if let Some(row) = view.tasks.get(&task).filter(|row| waits(row)) {
                self.enqueue(view, row);
            }
        }
    }

    fn keep_out(&mut self, view: &View, task: u64) {
        match view.tasks.get(&task) {
            Some(row) if !jobs::wants_tasks(view, row) => {
                self.unwanted.entry(row.job_sequence).or_default().insert(task);
            }
            Some(_) => {
                self.kept_out.insert(task);
            }
            None => {}
        }
    }

    /// One pass: places what can be placed.
    pub(crate) fn step(&mut self, moment: &Moment<'_>, liveness: &Liveness, outbox: &mut Outbox) {
        let view = moment.view;
        for task in self.backoffs.pop_due(moment.cluster_ms()) {
            if let Some(row) = view.tasks.get(&task) {
                self.enqueue(view, row);
            }
        }
        let unread = !self.refresh_nodes(moment, liveness);
        self.planner.on_time(moment.now);
        // A full outbox wakes the next step with its replies.
        self.more = unread;
        if !self.planner.has_work() || !outbox.has_room() {
            return;
        }
        let mut surroundings = Surroundings { moment, liveness, outbox };
        let plan = self.planner.plan(moment.now, PASS_PLACED_MAX, &mut surroundings);
        self.more = plan.more || unread;
        plan.kept_out.iter().for_each(|task| self.keep_out(view, *task));
        for placement in plan.placements {
            self.propose(view, placement, outbox);
        }
        for task in plan.victims {
            self.preempt(view, task, outbox);
        }
    }

    /// False: there were more than one step reads.
    fn refresh_nodes(&mut self, moment: &Moment<'_>, liveness: &Liveness) -> bool {
        for _ in 0..HOSTS_SETTLED_MAX {
            let Some(node_id) = self.touched.pop_first() else { return true };
            match moment.view.nodes.get(&node_id) {
                Some(row) => {
                    let mut node = row.get_node().clone();
                    (node.cpu_usage, node.memory_usage) = liveness.load(&node_id);
                    self.planner.put_node(&node, liveness.in_reach(moment, &node_id));
                }
                None => self.planner.remove_node(&node_id),
            }
        }
        self.touched.is_empty()
    }

    fn propose(&mut self, view: &View, placement: Placement, outbox: &mut Outbox) {
        let id = |task: &u64| view.tasks.get(task).map(|row| row.get_task().task_id.clone());
        let assignments = placement.tasks.iter().filter_map(|(task, node_id)| {
            Some(Assignment { task_id: id(task)?, node_id: node_id.clone(), ..Assignment::default() })
        });
        let assign = Assign { assignments: RepeatedField::from_vec(assignments.collect()), ..Assign::default() };
        let subject = match (placement.gang, placement.tasks.first()) {
            (Some(job), _) => {
                self.gangs.insert(job, placement.tasks.iter().map(|(task, _)| *task).collect());
                Subject::Job(job)
            }
            (None, Some((task, _))) => Subject::Task(*task),
            (None, None) => return,
        };
        outbox.put(subject, Command_oneof_kind::assign(assign));
    }

    fn preempt(&mut self, view: &View, task: u64, outbox: &mut Outbox) {
        let row = view.tasks.get(&task);
        let (Some(row), Some(epoch)) = (row, self.planner.epoch_of(task)) else { return };
        if !outbox.free(&Subject::Task(task)) {
            self.planner.spare(task);
            return;
        }
        self.victims.insert(task);
        outbox.put(Subject::Task(task), preempt(row, epoch, "preempted: its node is needed by work that goes first"));
    }

    /// What became of a proposal about the task. A refused or lost Assign frees its room.
    pub(crate) fn on_reply(&mut self, view: &View, task: u64, verdict: &Verdict) {
        match verdict {
            Verdict::Accepted => {}
            Verdict::Refused(_) | Verdict::Lost => {
                if self.victims.remove(&task) {
                    self.planner.spare(task);
                }
                self.take_back(view, task);
            }
        }
    }

    /// The same of a gang's Assign.
    pub(crate) fn on_job_reply(&mut self, view: &View, job: u64, verdict: &Verdict) {
        let Some(tasks) = self.gangs.remove(&job) else { return };
        match verdict {
            Verdict::Accepted => {}
            Verdict::Refused(_) | Verdict::Lost => tasks.into_iter().for_each(|task| self.take_back(view, task)),
        }
    }

    fn take_back(&mut self, view: &View, task: u64) {
        if !self.planner.is_underway(task) {
            return;
        }
        self.planner.let_go(task);
        match view.tasks.get(&task) {
            Some(row) if waits(row) => self.enqueue(view, row),
            _ => self.planner.remove(task),
        }
    }

    /// Why a waiting task is not placed; None: it is not waiting for a node.
    pub(crate) fn explain(&mut self, moment: &Moment<'_>, liveness: &Liveness, task_id: &str) -> Option<Explanation> {
        while !self.refresh_nodes(moment, liveness) {}
        let (task, row) = moment.view.task_by_id(task_id)?;
        let waits = match row.get_task().phase {
            Phase::PHASE_QUEUED => true,
            Phase::PHASE_BACKOFF => row.not_before_ms <= moment.cluster_ms(),
            _ => false,
        };
        if row.get_task().status != TaskStatus::PENDING || !waits {
            return None;
        }
        let avoided = moment.view.avoided_nodes(task);
        let mut answer = self.planner.explain(row, avoided, &|node_id| liveness.in_reach(moment, node_id));
        if !jobs::wants_tasks(moment.view, row) {
            answer.summary = "its job is paused or over".to_owned();
        } else if self.planner.is_underway(task) {
            answer.summary = "its assignment is on its way".to_owned();
        }
        Some(answer)
    }

    pub(crate) fn next_wake(&self, moment: &Moment<'_>) -> Option<Millis> {
        let rested = self.backoffs.next().map(|at| moment.local(at));
        let more = self.more.then_some(moment.now);
        [rested, more, self.planner.next_wake()].into_iter().flatten().min()
    }
}

/// In the queue, as its row says; the time of its rest aside.
fn waits(row: &TaskRow) -> bool {
    let task = row.get_task();
    task.status == TaskStatus::PENDING && matches!(task.phase, Phase::PHASE_QUEUED | Phase::PHASE_BACKOFF)
}

/// PreemptTask, also for tasks on a node that drains.
pub(crate) fn preempt(row: &TaskRow, epoch: u64, reason: &str) -> Command_oneof_kind {
    Command_oneof_kind::preempt_task(PreemptTask {
        task_id: row.get_task().task_id.clone(),
        epoch,
        reason: reason.to_owned(),
        ..PreemptTask::default()
    })
}
