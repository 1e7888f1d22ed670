//! The plan: which waiting task goes to which node. Pure, and independent of how the plan is carried out: the scheduler feeds it rows and
//! proposes what it says; the benchmark feeds it ten thousand nodes and a million tasks.
//!
//! Order: the queue with the least weighted dominant share first; inside a queue by rank (priority with ageing, then age). Tasks of one
//! *shape* ask for the same thing: one failing search answers for all of them until a node improves. A *sweep* goes through the first task of
//! every shape; it ends when all were looked at, however many calls of `plan` that takes, so nothing waits behind what cannot be placed.
//!
//! A gang is one unit: all of it is placed or nothing. The first unit of a sweep that has waited too long for room (a gang: at once) *holds*
//! nodes: what gets free there is kept for it. There is one hold at a time, so two gangs cannot take halves from each other; work of higher
//! priority passes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raftgrid_proto::v1::{Node, Queue, TaskRow};

use super::gangs::Gangs;
use super::holds::Hold;
use super::hosts::{Found, HostId, Hosts, Taken, Undo};
use super::neighbours::{tags, Neighbours, Tag};
use super::shapes::{rank, Rank, Shape, ShapeId, Shapes};
use super::share::{Lines, Share};
use crate::limits::{HOLD_AFTER_MS, HOSTS_SETTLED_MAX, PASS_PROBES_MAX};
use crate::types::Millis;
use crate::view::Avoided;

/// What a plan asks of its surroundings.
pub trait Gate {
    /// Whether the node is heard from.
    fn in_reach(&mut self, node_id: &str) -> bool;
    /// Whether something may be proposed for the task now. If not, the planner forgets it until it is added again.
    fn admits(&mut self, task: u64) -> bool;
}

/// Tasks that go to nodes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The sequence of the gang's job; None: a single task.
    pub gang: Option<u64>,
    /// (task sequence, node id).
    pub tasks: Vec<(u64, String)>,
}

/// What a call of `plan` came to.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be carried out, or given back by `give_back`.
    pub placements: Vec<Placement>,
    /// Tasks that the gate kept out; they are not waiting any more.
    pub kept_out: Vec<u64>,
    /// Attempts to be preempted.
    pub victims: Vec<u64>,
    /// There is more to look at now.
    pub more: bool,
}

/// A task with a lease, or on its way to one.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) node_id: Arc<str>,
    pub(super) taken: Taken,
    pub(super) queue: Arc<str>,
    pub(super) priority: i32,
    pub(super) preemptible: bool,
    pub(super) gang: Option<u64>,
    /// Its lease shows in the rows.
    pub(super) is_leased: bool,
    /// It is being stopped already.
    pub(super) is_stopping: bool,
    pub(super) epoch: u64,
    tags: Vec<Tag>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Planner {
    pub(super) hosts: Hosts,
    pub(super) shapes: Shapes,
    pub(super) lines: Lines,
    pub(super) gangs: Gangs,
    pub(super) neighbours: Neighbours,
    /// Tasks that wait, with their place.
    pub(super) waiting: BTreeMap<u64, (Rank, ShapeId)>,
    pub(super) held: BTreeMap<u64, Held>,
    /// Preemptible tasks with a lease, by node.
    pub(super) tenants: BTreeMap<Arc<str>, BTreeSet<u64>>,
    pub(super) holds: Vec<Hold>,
    /// Something changed since the sweep began: another one has to follow.
    pub(super) stale: bool,
    sweeping: bool,
    /// When `plan` was last called.
    planned_at: Millis,
    pub(super) probes: usize,
}

impl Planner {
    /// The node's row, loads in it, as it is now; `present`: the leader hears it.
    pub fn put_node(&mut self, node: &Node, present: bool) {
        self.hosts.put(node, present);
        self.stale = true;
    }

    /// The node is gone.
    pub fn remove_node(&mut self, node_id: &str) {
        if let Some(host) = self.hosts.find(node_id) {
            for hold in &mut self.holds {
                hold.hosts.remove(&host);
            }
        }
        self.hosts.remove(node_id);
    }

    /// New settings of a queue; None: it is gone.
    pub fn put_queue(&mut self, name: &str, settings: Option<Queue>) {
        self.lines.set(name, settings);
        self.stale = true;
    }

    /// The task waits for a node from now on.
    pub(crate) fn add(&mut self, row: &TaskRow, avoided: &[Avoided]) {
        let task = row.sequence;
        self.remove(task);
        // Members of a gang ask for the same, whatever happened to each.
        let shape = self.shapes.of(row, if row.gang.is_some() { &[] } else { avoided });
        self.stale = true;
        if let Some((job, min)) = self.shapes.get(shape).gang {
            self.gangs.add(job, min, task, row, shape);
            self.requeue_gang(job);
        } else {
            self.line_up(task, rank(row), shape);
        }
    }

    /// As `add`, for a task without a history: benchmarks and embedders.
    pub fn add_task(&mut self, row: &TaskRow) {
        self.add(row, &[]);
    }

    /// A gang's member exists that cannot be placed now: the others wait for it.
    pub(crate) fn wait_for(&mut self, job: u64, min: u32, task: u64) {
        self.gangs.wait_for(job, min, task);
        self.requeue_gang(job);
    }

    /// The task does not wait any more.
    pub fn remove(&mut self, task: u64) {
        self.leave_line(task);
        if let Some(job) = self.gangs.remove(task) {
            self.requeue_gang(job);
        }
    }

    fn line_up(&mut self, task: u64, rank: Rank, shape: ShapeId) {
        self.waiting.insert(task, (rank, shape));
        self.change_shape(shape, |entry| {
            entry.waiting.insert(rank);
        });
    }

    fn leave_line(&mut self, task: u64) {
        let Some((rank, shape)) = self.waiting.remove(&task) else { return };
        self.change_shape(shape, |entry| {
            entry.waiting.remove(&rank);
        });
    }

    /// Changes a shape's waiting tasks and lets its queue follow.
    fn change_shape(&mut self, shape: ShapeId, change: impl FnOnce(&mut Shape)) {
        let entry = self.shapes.get_mut(shape);
        let before = entry.waiting.first().copied();
        change(entry);
        let after = entry.waiting.first().copied();
        if before == after {
            return;
        }
        let line = if before.is_some() { self.lines.known(&entry.queue) } else { self.lines.entry(&entry.queue) };
        if let Some(rank) = before {
            line.heads.remove(&(rank, shape));
        }
        match after {
            Some(rank) => {
                line.heads.insert((rank, shape));
                self.shapes.wake(shape);
            }
            None => {
                entry.blocked_since = None;
                let of_gang = entry.gang.is_some();
                self.end_hold(shape);
                // A gang's members name its shape as long as there are any.
                if !of_gang {
                    self.shapes.rest(shape);
                }
            }
        }
    }

    /// The gang waits in line exactly while all its members can be placed and are enough.
    fn requeue_gang(&mut self, job: u64) {
        let (first, shapes) = self.gangs.take_unit(job);
        if let Some(first) = first {
            self.leave_line(first);
        }
        shapes.into_iter().for_each(|shape| self.shapes.rest(shape));
        if let Some((first, rank, shape)) = self.gangs.make_unit(job) {
            self.line_up(first, rank, shape);
        }
    }

    /// The task has a lease, as its row says.
    pub fn hold(&mut self, row: &TaskRow) {
        let task = row.sequence;
        self.remove(task);
        self.let_go(task);
        let mut held = held_by(row);
        held.is_leased = true;
        self.keep(task, held);
        if let Some(gang) = row.gang.as_ref() {
            self.wait_for(row.job_sequence, gang.min_members, task);
        }
    }

    fn keep(&mut self, task: u64, held: Held) {
        self.lines.entry(&held.queue).held.add(held.taken);
        self.neighbours.add(&held.tags, &held.node_id);
        if held.preemptible {
            self.tenants.entry(held.node_id.clone()).or_default().insert(task);
        }
        self.held.insert(task, held);
    }

    /// The task holds nothing any more, or what was planned for it came to nothing.
    pub fn let_go(&mut self, task: u64) {
        let Some(held) = self.held.remove(&task) else { return };
        self.lines.entry(&held.queue).held.subtract(held.taken);
        self.neighbours.remove(&held.tags, &held.node_id);
        self.stale = true;
        if let Some(tenants) = self.tenants.get_mut(&held.node_id) {
            tenants.remove(&task);
            if tenants.is_empty() {
                self.tenants.remove(&held.node_id);
            }
        }
        if let (Some(host), false) = (self.hosts.find(&held.node_id), held.is_leased) {
            self.hosts.give_back(host, held.taken);
        }
    }

    /// Whether the task is on its way to a node.
    pub(crate) fn is_underway(&self, task: u64) -> bool {
        self.held.get(&task).is_some_and(|held| !held.is_leased)
    }

    /// Whether another call of `plan` could do something.
    pub fn has_work(&self) -> bool {
        (self.stale || self.sweeping) && !self.waiting.is_empty()
    }

    /// When a hold ends by itself, or a unit that is blocked may hold.
    pub(crate) fn next_wake(&self) -> Option<Millis> {
        let ends = self.holds.iter().filter_map(|hold| hold.until);
        let heads = self.lines.iter().filter_map(|(_, line)| line.heads.first());
        let blocked = heads.filter_map(|(_, shape)| {
            let holds = self.holds.iter().any(|hold| hold.shape == *shape);
            self.shapes.get(*shape).blocked_since.filter(|_| !holds).map(|since| since + HOLD_AFTER_MS)
        });
        // One that came before the last plan, and did not help, does not come again.
        ends.chain(blocked).filter(|at| *at > self.planned_at).min()
    }

    /// Time has passed: a hold is over, or is due.
    pub(crate) fn on_time(&mut self, now: Millis) {
        let over: Vec<ShapeId> = self
            .holds
            .iter()
            .filter(|hold| hold.until.is_some_and(|until| until <= now))
            .map(|hold| hold.shape)
            .collect();
        for shape in over {
            self.end_hold(shape);
        }
        if self.next_wake().is_some_and(|at| at <= now) {
            self.stale = true;
        }
    }

    /// Goes on with the sweep, or begins one: at most `most` placements, and about as many looks at nodes as take a millisecond.
    pub fn plan(&mut self, now: Millis, most: usize, gate: &mut dyn Gate) -> Plan {
        let mut plan = Plan::default();
        self.planned_at = now;
        let settled = self.hosts.settle(HOSTS_SETTLED_MAX);
        self.probes = 0;
        if !self.sweeping {
            self.begin_sweep();
        }
        // What is not taken in yet may fit something: another sweep follows.
        self.stale |= !settled;
        let capacity = self.hosts.capacity();
        let mut turns: BTreeSet<(Share, String)> = self
            .lines
            .iter()
            .filter(|(_, line)| line.next().is_some())
            .map(|(name, line)| (line.share(&capacity), name.to_owned()))
            .collect();
        let mut placed = 0;
        while let Some((_, name)) = turns.pop_first() {
            if placed >= most || self.probes >= PASS_PROBES_MAX {
                plan.more = true;
                return plan;
            }
            let Some((rank, shape)) = self.lines.known(&name).next() else { continue };
            match self.attempt(now, shape, gate, &mut plan) {
                Attempt::Placed(tasks) => placed += tasks,
                Attempt::KeptOut => {}
                Attempt::Unfinished => {
                    plan.more = true;
                    return plan;
                }
                Attempt::Blocked => self.lines.known(&name).at = Some((rank, shape)),
            }
            self.probes += 1;
            let line = self.lines.known(&name);
            if line.next().is_some() {
                // Alone it is its turn whatever it holds.
                let share = if turns.is_empty() { 0 } else { line.share(&capacity) };
                turns.insert((share, name));
            }
        }
        self.sweeping = false;
        plan.more = self.has_work();
        plan
    }

    fn begin_sweep(&mut self) {
        self.sweeping = true;
        self.stale = false;
        self.lines.iter_mut().for_each(|line| line.at = None);
    }

    /// The first unit of the shape.
    fn attempt(&mut self, now: Millis, shape: ShapeId, gate: &mut dyn Gate, plan: &mut Plan) -> Attempt {
        let entry = self.shapes.get(shape);
        let tasks = match (entry.gang, entry.waiting.first()) {
            (Some((job, _)), _) => self.gangs.members(job),
            (None, Some((_, task))) => return self.attempt_one(now, shape, *task, gate, plan),
            (None, None) => return Attempt::Blocked,
        };
        let entry = self.shapes.get(shape);
        let (gang, min) = entry.gang.map_or((None, 1), |(job, min)| (Some(job), min as usize));
        let chosen = self.choose_for(shape, tasks.len(), gate);
        if chosen.len() < min {
            chosen.into_iter().rev().for_each(|(_, undo)| self.hosts.undo(undo));
            self.blocked(now, shape, min, gate, plan);
            return Attempt::Blocked;
        }
        let kept_out: Vec<u64> = tasks.iter().copied().filter(|task| !gate.admits(*task)).collect();
        if !kept_out.is_empty() {
            chosen.into_iter().rev().for_each(|(_, undo)| self.hosts.undo(undo));
            // The search is begun anew: it may have passed what is given back here.
            self.shapes.get_mut(shape).search = Default::default();
            kept_out.iter().for_each(|task| self.remove(*task));
            plan.kept_out.extend(kept_out);
            return Attempt::KeptOut;
        }
        let mut placed = Vec::with_capacity(chosen.len());
        for (task, (host, _)) in tasks.iter().zip(chosen) {
            placed.push((*task, self.hosts.get(host).id.clone()));
        }
        self.commit(shape, gang, &placed);
        let count = placed.len();
        let tasks = placed.into_iter().map(|(task, node_id)| (task, node_id.to_string())).collect();
        plan.placements.push(Placement { gang, tasks });
        Attempt::Placed(count)
    }

    /// The same for a single task.
    fn attempt_one(&mut self, now: Millis, shape: ShapeId, task: u64, gate: &mut dyn Gate, plan: &mut Plan) -> Attempt {
        let entry = self.shapes.get(shape);
        let taken = Taken::task(&entry.demand);
        let admitted = self.lines.known(&entry.queue).admits(&entry.demand, 1).is_ok();
        let found = if admitted { self.choose_within(PASS_PROBES_MAX, shape, gate) } else { Found::Nowhere };
        let host = match found {
            Found::Host(host) => host,
            Found::Nowhere => {
                self.blocked(now, shape, 1, gate, plan);
                return Attempt::Blocked;
            }
            Found::Later => return Attempt::Unfinished,
        };
        if !gate.admits(task) {
            self.remove(task);
            plan.kept_out.push(task);
            return Attempt::KeptOut;
        }
        self.hosts.take(host, taken);
        let node_id = self.hosts.get(host).id.clone();
        plan.placements.push(Placement { gang: None, tasks: vec![(task, node_id.to_string())] });
        self.commit(shape, None, &[(task, node_id)]);
        Attempt::Placed(1)
    }

    /// Hosts for up to `most` tasks of the shape, taken already.
    fn choose_for(&mut self, shape: ShapeId, most: usize, gate: &mut dyn Gate) -> Vec<(HostId, Undo)> {
        let taken = Taken::task(&self.shapes.get(shape).demand);
        let mut chosen = Vec::new();
        let whole = self.shapes.get(shape).gang.map_or(1, |(_, min)| min as usize);
        let kept = (whole > 1).then(|| self.shapes.get(shape).search);
        while chosen.len() < most {
            let entry = self.shapes.get(shape);
            let line = self.lines.known(&entry.queue);
            if line.admits(&entry.demand, chosen.len() as u64 + 1).is_err() {
                break;
            }
            let Some(host) = self.choose(shape, gate) else { break };
            chosen.push((host, self.hosts.take(host, taken)));
        }
        if let Some(kept) = kept.filter(|_| chosen.len() < whole && !chosen.is_empty()) {
            // What is undone is as it was when the search began.
            self.shapes.get_mut(shape).search = kept;
        }
        chosen
    }

    /// What was chosen is planned.
    fn commit(&mut self, shape: ShapeId, gang: Option<u64>, placed: &[(u64, Arc<str>)]) {
        let entry = self.shapes.get_mut(shape);
        entry.blocked_since = None;
        let template = Held {
            node_id: Arc::default(),
            taken: Taken::task(&entry.demand),
            queue: entry.queue.clone(),
            priority: entry.priority,
            // Its row will say.
            preemptible: false,
            gang,
            is_leased: false,
            is_stopping: false,
            epoch: 0,
            tags: if entry.is_choosy { tags(&entry.task) } else { Vec::new() },
        };
        for (task, node_id) in placed {
            self.leave_line(*task);
            let held = Held {
                node_id: node_id.clone(),
                tags: template.tags.clone(),
                queue: template.queue.clone(),
                ..template
            };
            self.keep(*task, held);
        }
        if let Some(job) = gang {
            self.gangs.forget_unit(job);
            placed.iter().for_each(|(task, _)| {
                self.gangs.underway(job, *task);
            });
        }
        self.end_hold(shape);
    }

    /// Nothing fits the unit: it may hold nodes, or make room.
    fn blocked(&mut self, now: Millis, shape: ShapeId, min: usize, gate: &mut dyn Gate, plan: &mut Plan) {
        let entry = self.shapes.get_mut(shape);
        let since = *entry.blocked_since.get_or_insert(now);
        let quota_is_full = {
            let entry = self.shapes.get(shape);
            self.lines.entry(&entry.queue).admits(&entry.demand, min as u64).is_err()
        };
        if quota_is_full {
            self.end_hold(shape);
            return;
        }
        if self.holds.iter().any(|hold| hold.shape == shape && hold.until.is_some()) {
            return;
        }
        if self.make_room(now, shape, min, gate, plan) {
            return;
        }
        let entry = self.shapes.get(shape);
        if entry.gang.is_some() || now >= since + HOLD_AFTER_MS {
            self.hold_for(shape, min);
        }
    }
}

enum Attempt {
    /// As many tasks.
    Placed(usize),
    KeptOut,
    Blocked,
    /// The pass is over before its search is.
    Unfinished,
}

fn held_by(row: &TaskRow) -> Held {
    let task = row.get_task();
    let mut demand = task.get_spec().get_resources().clone();
    demand.slots = demand.slots.max(1);
    Held {
        node_id: task.assigned_node_id.as_str().into(),
        taken: Taken::task(&demand),
        queue: task.queue.as_str().into(),
        priority: task.get_spec().priority,
        preemptible: task.get_spec().preemptible,
        gang: row.gang.as_ref().map(|_| row.job_sequence),
        is_leased: true,
        is_stopping: task.phase == raftgrid_proto::v1::Phase::PHASE_STOPPING,
        epoch: row.open_epoch,
        tags: tags(task),
    }
}
