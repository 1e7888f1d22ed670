//! The scheduler: which pending task goes to which node. Owns the pending queue; proposes Assign.
//!
//! Order of the queue: priority with ageing, then sequence. Waiting `AGEING_MS` is worth one step of priority; since all tasks age alike,
//! the order of two tasks never changes and the key can be fixed when a task enters. Order of nodes: least loaded first, by a total order
//! (active/slots, gpus, cpu, memory, node id). Whether a node may take a task at all is manifest's predicate, the same that guards Assign.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::RepeatedField;
use raftgrid_manifest::predicates;
use raftgrid_proto::v1::{Assign, Assignment, Command_oneof_kind, NodeRow, Phase, TaskRow, TaskStatus};

use crate::clock::ClusterClock;
use crate::jobs;
use crate::limits::{AGEING_MS, PASS_EXAMINED_MAX, PASS_PLACED_MAX};
use crate::liveness::Liveness;
use crate::outbox::{Outbox, Subject};
use crate::timers::Timers;
use crate::types::{Config, Millis};
use crate::view::View;

/// Place in the queue: (submitted, moved earlier by priority; sequence).
type Rank = (i128, u64);

#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    queue: BTreeSet<Rank>,
    ranks: BTreeMap<u64, Rank>,
    /// Until when (cluster time) a task rests after a failure.
    backoffs: Timers<u64>,
    /// Where a task goes whose Assign is under way.
    underway: BTreeMap<u64, String>,
    /// Something changed that may let a task be placed.
    dirty: bool,
}

/// A node in a pass: its row with what this pass and proposals under way put on it.
struct Candidate {
    row: NodeRow,
    /// Thousandths of cpu and memory in use, as last beaten.
    load: (u32, u32),
}

/// Least loaded first: active tasks per slot, free gpus (machines with gpus last), cpu, memory, id.
type LoadKey = (u64, u32, u32, u32, String);

impl Scheduler {
    /// The task's row changed.
    pub(crate) fn on_task(&mut self, view: &View, task: u64) {
        if let Some(rank) = self.ranks.remove(&task) {
            self.queue.remove(&rank);
        }
        self.backoffs.clear(&task);
        self.underway.remove(&task);
        self.dirty = true;
        let Some(row) = view.tasks.get(&task) else { return };
        if row.get_task().status != TaskStatus::PENDING {
            return;
        }
        match row.get_task().phase {
            Phase::PHASE_BACKOFF => self.backoffs.set(task, row.not_before_ms),
            Phase::PHASE_QUEUED => self.enqueue(task, row),
            Phase::PHASE_BLOCKED
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

    fn enqueue(&mut self, task: u64, row: &TaskRow) {
        let credit = i128::from(row.get_task().get_spec().priority) * i128::from(AGEING_MS);
        let rank = (i128::from(row.submitted_at_ms) - credit, task);
        self.ranks.insert(task, rank);
        self.queue.insert(rank);
    }

    /// A node's row or reach changed.
    pub(crate) fn on_nodes(&mut self) {
        self.dirty = true;
    }

    /// One pass: places what can be placed.
    pub(crate) fn step(
        &mut self,
        now: Millis,
        config: &Config,
        view: &View,
        clock: &ClusterClock,
        liveness: &Liveness,
        outbox: &mut Outbox,
    ) {
        for task in self.backoffs.pop_due(clock.at(now)) {
            if let Some(row) = view.tasks.get(&task) {
                self.enqueue(task, row);
                self.dirty = true;
            }
        }
        if !self.dirty || self.queue.is_empty() {
            return;
        }
        self.dirty = false;
        self.underway.retain(|task, _| outbox.busy(&Subject::Task(*task)));
        let (mut candidates, mut order) = self.candidates(now, config, view, liveness);
        if order.is_empty() {
            return;
        }
        let mut placed = 0;
        for (_, task) in self.queue.iter().take(PASS_EXAMINED_MAX) {
            let Some(row) = view.tasks.get(task) else { continue };
            let subject = Subject::Task(*task);
            if !outbox.free(&subject) || !jobs::wants_tasks(view, row) {
                continue;
            }
            let Some(node_id) = choose(row, clock.at(now), &candidates, &order) else { continue };
            if let Some(candidate) = candidates.get_mut(&node_id) {
                order.remove(&candidate.key());
                predicates::take(&mut candidate.row, row.get_task());
                order.insert(candidate.key());
            }
            outbox.put(subject, assign(row, &node_id));
            self.underway.insert(*task, node_id);
            placed += 1;
            if placed == PASS_PLACED_MAX {
                // The rest goes on with the next step, which the replies bring.
                self.dirty = true;
                break;
            }
        }
    }

    /// Nodes that may take work now, with what is under way to them, and their order.
    fn candidates(
        &self,
        now: Millis,
        config: &Config,
        view: &View,
        liveness: &Liveness,
    ) -> (BTreeMap<String, Candidate>, BTreeSet<LoadKey>) {
        let mut candidates: BTreeMap<String, Candidate> = BTreeMap::new();
        for (node_id, row) in &view.nodes {
            if predicates::node_takes_work(row) && liveness.in_reach(now, config, node_id) {
                let (cpu, memory) = liveness.load(node_id);
                let load = ((cpu * 1_000.0) as u32, (memory * 1_000.0) as u32);
                candidates.insert(node_id.clone(), Candidate { row: row.clone(), load });
            }
        }
        for (task, node_id) in &self.underway {
            if let (Some(row), Some(candidate)) = (view.tasks.get(task), candidates.get_mut(node_id)) {
                predicates::take(&mut candidate.row, row.get_task());
            }
        }
        let order = candidates.values().map(Candidate::key).collect();
        (candidates, order)
    }

    /// A refused or lost Assign: the task is looked at again.
    pub(crate) fn on_reply(&mut self, task: u64) {
        self.underway.remove(&task);
        self.dirty = true;
    }

    /// A subject rests no longer.
    pub(crate) fn on_wake(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn next_wake(&self, now: Millis, clock: &ClusterClock) -> Option<Millis> {
        self.backoffs.next().map(|at| clock.local(now, at))
    }
}

impl Candidate {
    fn key(&self) -> LoadKey {
        let node = self.row.get_node();
        let slots = u64::from(predicates::slots(node));
        let busy = u64::from(self.row.open_tasks) * 1_000_000 / slots.max(1);
        let gpus = node.get_capacity().gpus.saturating_sub(node.get_allocated().gpus);
        (busy, gpus, self.load.0, self.load.1, node.node_id.clone())
    }
}

/// The least loaded node that may take the task; preferred nodes first.
fn choose(
    task: &TaskRow,
    cluster_ms: u64,
    candidates: &BTreeMap<String, Candidate>,
    order: &BTreeSet<LoadKey>,
) -> Option<String> {
    let fits = |node_id: &str| {
        candidates.get(node_id).is_some_and(|candidate| predicates::obstacle(task, &candidate.row, cluster_ms).is_none())
    };
    let preferred = &task.get_task().get_spec().preferred_nodes;
    let by_order = || order.iter().map(|key| key.4.as_str());
    by_order()
        .filter(|node_id| preferred.iter().any(|id| id == node_id))
        .chain(by_order())
        .find(|node_id| fits(node_id))
        .map(str::to_owned)
}

fn assign(row: &TaskRow, node_id: &str) -> Command_oneof_kind {
    let assignment = Assignment {
        task_id: row.get_task().task_id.clone(),
        node_id: node_id.to_owned(),
        ..Assignment::default()
    };
    Command_oneof_kind::assign(Assign { assignments: RepeatedField::from_vec(vec![assignment]), ..Assign::default() })
}
