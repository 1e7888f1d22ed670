//! The scheduler: which pending task goes to which node. Owns the pending queue; proposes Assign.
//!
//! Order of the queue: priority with ageing, then sequence. Waiting `AGEING_MS` is worth one step of priority; since all tasks age alike,
//! the order of two tasks never changes and the key can be fixed when a task enters. Order of nodes: least loaded first, by a total order
//! (active/slots, gpus, cpu, memory, node id). A node on which an attempt of the task ended badly comes after all others, whatever its load.
//! Whether a node may take a task at all is manifest's predicate, the same that guards Assign.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::RepeatedField;
use raftgrid_manifest::predicates;
use raftgrid_proto::v1::{Assign, Assignment, Command_oneof_kind, Node, Phase, Task, TaskRow, TaskStatus};

use crate::jobs;
use crate::limits::{AGEING_MS, PASS_EXAMINED_MAX, PASS_PLACED_MAX};
use crate::liveness::Liveness;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject, Verdict};
use crate::timers::Timers;
use crate::types::Millis;
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

/// The nodes of one pass: as their rows say, with the newest loads, and with what this pass and proposals under way put on them.
#[derive(Default)]
struct Candidates {
    nodes: BTreeMap<String, Node>,
    /// By active tasks per slot (32 bits behind the point: exact for up to 4,096 slots), least first.
    by_load: BTreeMap<u64, BTreeSet<String>>,
}

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
    pub(crate) fn step(&mut self, moment: &Moment<'_>, liveness: &Liveness, outbox: &mut Outbox) {
        let view = moment.view;
        for task in self.backoffs.pop_due(moment.cluster_ms()) {
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
        let mut candidates = self.candidates(moment, liveness);
        if candidates.nodes.is_empty() {
            return;
        }
        let mut placed = 0;
        for (_, task) in self.queue.iter().take(PASS_EXAMINED_MAX) {
            let Some(row) = view.tasks.get(task) else { continue };
            let subject = Subject::Task(*task);
            if !outbox.free(&subject) || !jobs::wants_tasks(view, row) {
                continue;
            }
            let Some(node_id) = candidates.choose(row.get_task(), view.avoided_nodes(*task)) else { continue };
            candidates.take(&node_id, row.get_task());
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

    /// Nodes in reach, with what is under way to them.
    fn candidates(&self, moment: &Moment<'_>, liveness: &Liveness) -> Candidates {
        let mut candidates = Candidates::default();
        for (node_id, row) in &moment.view.nodes {
            if liveness.in_reach(moment, node_id) {
                let mut node = row.get_node().clone();
                (node.cpu_usage, node.memory_usage) = liveness.load(node_id);
                candidates.by_load.entry(load_key(&node)).or_default().insert(node_id.clone());
                candidates.nodes.insert(node_id.clone(), node);
            }
        }
        for (task, node_id) in &self.underway {
            if let Some(row) = moment.view.tasks.get(task) {
                candidates.take(node_id, row.get_task());
            }
        }
        candidates
    }

    /// What became of a proposal about the task. A refused or lost Assign frees its room.
    pub(crate) fn on_reply(&mut self, task: u64, verdict: &Verdict) {
        match verdict {
            Verdict::Accepted => {}
            Verdict::Refused(_) | Verdict::Lost => {
                self.underway.remove(&task);
            }
        }
        self.dirty = true;
    }

    /// A subject rests no longer.
    pub(crate) fn on_wake(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn next_wake(&self, moment: &Moment<'_>) -> Option<Millis> {
        self.backoffs.next().map(|at| moment.local(at))
    }
}

impl Candidates {
    /// The node that manifest's order picks of those on which the task did not fail; if none of them can take it, of those on which it
    /// failed longest ago.
    fn choose(&self, task: &Task, avoided: &[String]) -> Option<String> {
        (0..=avoided.len()).find_map(|oldest| self.choose_without(task, &avoided[oldest..]))
    }

    /// Only the least loaded group with a node that fits has to be compared.
    fn choose_without(&self, task: &Task, avoided: &[String]) -> Option<String> {
        let wanted = |node_id: &&String| !avoided.contains(node_id);
        let preferred = task.get_spec().preferred_nodes.iter().filter(wanted);
        let preferred = preferred.filter_map(|node_id| self.nodes.get(node_id));
        if let Some(node) = predicates::select_least_loaded(task, preferred) {
            return Some(node.node_id.clone());
        }
        self.by_load.values().find_map(|group| {
            let nodes = group.iter().filter(wanted).filter_map(|node_id| self.nodes.get(node_id));
            predicates::select_least_loaded(task, nodes).map(|node| node.node_id.clone())
        })
    }

    /// Counts a task in on its node.
    fn take(&mut self, node_id: &str, task: &Task) {
        let Some(node) = self.nodes.get_mut(node_id) else { return };
        let key = load_key(node);
        let demand = task.get_spec().get_resources();
        node.active_tasks += 1;
        let allocated = node.mut_allocated();
        allocated.slots += demand.slots.max(1);
        allocated.gpus += demand.gpus;
        allocated.cpu_milli += demand.cpu_milli;
        allocated.memory_bytes += demand.memory_bytes;
        let moved = load_key(node);
        if let Some(group) = self.by_load.get_mut(&key) {
            group.remove(node_id);
            if group.is_empty() {
                self.by_load.remove(&key);
            }
        }
        self.by_load.entry(moved).or_default().insert(node_id.to_owned());
    }
}

fn load_key(node: &Node) -> u64 {
    let slots = u64::from(node.get_capacity().slots.max(1));
    ((node.active_tasks.max(0) as u64) << 32) / slots
}

fn assign(row: &TaskRow, node_id: &str) -> Command_oneof_kind {
    let assignment =
        Assignment { task_id: row.get_task().task_id.clone(), node_id: node_id.to_owned(), ..Assignment::default() };
    Command_oneof_kind::assign(Assign { assignments: RepeatedField::from_vec(vec![assignment]), ..Assign::default() })
}
