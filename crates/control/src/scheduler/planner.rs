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

use raftgrid_manifest::predicates;
use raftgrid_proto::v1::{Node, Queue, Resources, TaskRow};

use super::gangs::Gangs;
use super::hosts::{HostId, Hosts, Taken, Undo};
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

/// Who asks for a node: what decides between it and a hold.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) shape: ShapeId,
    queue: Arc<str>,
    priority: i32,
    rank: Rank,
}

impl Asker {
    pub(super) fn of(shape_id: ShapeId, shape: &Shape) -> Self {
        let rank = shape.waiting.first().copied().unwrap_or((i128::MAX, u64::MAX));
        Self { shape: shape_id, queue: shape.queue.clone(), priority: shape.priority, rank }
    }

    /// Whether it goes before the other: by rank in one queue, by priority between two.
    fn passes(&self, other: &Self) -> bool {
        if self.queue == other.queue {
            self.rank < other.rank
        } else {
            self.priority > other.priority
        }
    }
}

impl Hold {
    /// Whether the host is kept from whoever asks.
    pub(super) fn keeps(&self, host: HostId, asker: &Asker) -> bool {
        self.shape != asker.shape
            && self.hosts.contains(&host)
            && (self.until.is_some() || !asker.passes(&self.asker))
    }
}

/// Nodes kept for one unit.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) shape: ShapeId,
    pub(super) asker: Asker,
    pub(super) hosts: BTreeSet<HostId>,
    /// Made by a preemption: it ends then, whatever comes.
    pub(super) until: Option<Millis>,
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
    stale: bool,
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
        let line = self.lines.entry(&entry.queue);
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
        let over: Vec<ShapeId> =
            self.holds.iter().filter(|hold| hold.until.is_some_and(|until| until <= now)).map(|hold| hold.shape).collect();
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
            let line = self.lines.entry(&name);
            let Some((rank, shape)) = line.next() else { continue };
            match self.attempt(now, shape, gate, &mut plan) {
                Attempt::Placed(tasks) => placed += tasks,
                Attempt::KeptOut => {}
                Attempt::Blocked => self.lines.entry(&name).at = Some((rank, shape)),
            }
            self.probes += 1;
            let line = self.lines.entry(&name);
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
            (None, Some((_, task))) => vec![*task],
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

    /// Hosts for up to `most` tasks of the shape, taken already.
    fn choose_for(&mut self, shape: ShapeId, most: usize, gate: &mut dyn Gate) -> Vec<(HostId, Undo)> {
        let taken = Taken::task(&self.shapes.get(shape).demand);
        let mut chosen = Vec::new();
        let whole = self.shapes.get(shape).gang.map_or(1, |(_, min)| min as usize);
        let kept = (whole > 1).then(|| self.shapes.get(shape).search);
        while chosen.len() < most {
            let entry = self.shapes.get(shape);
            let line = self.lines.entry(&entry.queue);
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
            let held = Held { node_id: node_id.clone(), tags: template.tags.clone(), queue: template.queue.clone(), ..template };
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

    /// The best host for one task of the shape.
    pub(super) fn choose(&mut self, shape: ShapeId, gate: &mut dyn Gate) -> Option<HostId> {
        loop {
            let host = self.find(shape)?;
            if gate.in_reach(&self.hosts.get(host).node.node_id) {
                return Some(host);
            }
            self.hosts.silent(host);
        }
    }

    /// None: nothing is held, and it does not matter who asks.
    pub(super) fn asker(&self, shape: ShapeId) -> Option<Asker> {
        (!self.holds.is_empty()).then(|| Asker::of(shape, self.shapes.get(shape)))
    }

    fn find(&mut self, shape: ShapeId) -> Option<HostId> {
        if self.shapes.get(shape).is_choosy {
            return self.weigh(shape);
        }
        let entry = self.shapes.get(shape);
        let Shape { task, avoided, .. } = entry;
        let (holds, asker) = (&self.holds, self.asker(shape));
        let fits = |host: HostId, node: &Node| fits(holds, asker.as_ref(), host, task, node);
        let is_avoided = |node: &Node| avoided.iter().any(|avoided| avoided.node_id == node.node_id);
        let preferred = &task.get_spec().preferred_nodes;
        if !preferred.is_empty() {
            self.probes += preferred.len();
            let known = preferred.iter().filter_map(|node_id| self.hosts.find(node_id));
            let known = known.filter(|host| self.hosts.get(*host).present);
            let able = known.filter(|host| {
                let node = &self.hosts.get(*host).node;
                !is_avoided(node) && fits(*host, node)
            });
            let best = able.min_by(|a, b| {
                predicates::compare_load(task, &self.hosts.get(*a).node, &self.hosts.get(*b).node)
            });
            if best.is_some() {
                return best;
            }
        }
        let mut search = entry.search;
        let mut probes = 0;
        let found = self.hosts.search(&mut search, &mut probes, &|host, entry| {
            fits(host, &entry.node) && !is_avoided(&entry.node)
        });
        let found = found.or_else(|| self.second_best(entry, &fits));
        self.probes += probes;
        self.shapes.get_mut(shape).search = search;
        found
    }

    /// A node on which the task failed, the one where that was longest ago first. Where it failed twice it only goes if no other node could
    /// ever take it.
    fn second_best(&self, shape: &Shape, fits: &dyn Fn(HostId, &Node) -> bool) -> Option<HostId> {
        if shape.avoided.is_empty() {
            return None;
        }
        let other_could = || {
            let twice = |node: &Node| shape.avoided.iter().any(|avoided| avoided.times > 1 && avoided.node_id == node.node_id);
            self.hosts.ordered().any(|(_, host)| !twice(&host.node) && predicates::ever(&shape.task, &host.node).is_ok())
        };
        shape.avoided.iter().find_map(|avoided| {
            let host = self.hosts.find(&avoided.node_id)?;
            let entry = self.hosts.get(host);
            let may = entry.present && fits(host, &entry.node) && (avoided.times < 2 || !other_could());
            may.then_some(host)
        })
    }

    /// All hosts, by preferences, spread and affinities; load decides between equals.
    fn weigh(&mut self, shape: ShapeId) -> Option<HostId> {
        let entry = self.shapes.get(shape);
        let task = &entry.task;
        let weigher = self.neighbours.weigher(task, &|node_id| self.hosts.find(node_id).map(|host| &self.hosts.get(host).node));
        let avoided = |node: &Node| entry.avoided.iter().any(|avoided| avoided.node_id == node.node_id);
        let mut best: Option<((bool, i64), HostId)> = None;
        let asker = self.asker(shape);
        let mut probes = 0;
        for (host, candidate) in self.hosts.ordered() {
            probes += 1;
            let node = &candidate.node;
            if !fits(&self.holds, asker.as_ref(), host, task, node) || weigher.refuses(node).is_some() {
                continue;
            }
            let preferred = i64::from(task.get_spec().preferred_nodes.contains(&node.node_id)) << 32;
            let score = (!avoided(node), preferred + predicates::preference(task, node) + weigher.score(node));
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, host));
            }
        }
        self.probes += probes;
        best.map(|(_, host)| host)
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

    /// Keeps what gets free on enough nodes for the unit, if nobody else before it does.
    fn hold_for(&mut self, shape: ShapeId, min: usize) {
        let entry = self.shapes.get(shape);
        let (asker, task) = (Asker::of(shape, entry), entry.task.clone());
        let lasting = self.holds.iter().position(|hold| hold.until.is_none());
        if let Some(at) = lasting {
            let hold = &self.holds[at];
            let mine = hold.shape == shape;
            if mine && self.room_of(&hold.hosts, &task) >= min as u64 {
                return;
            }
            if !mine && !asker.passes(&hold.asker) {
                return;
            }
            let other = self.holds[at].shape;
            self.end_hold(other);
        }
        let mut able: Vec<(u64, u64, HostId)> = Vec::new();
        for (host, candidate) in self.hosts.ordered() {
            self.probes += 1;
            let whole = predicates::capable_of(&task, &candidate.node);
            if whole > 0 {
                able.push((free_members(&task, &candidate.node), whole, host));
            }
        }
        // Most of it free already, least of it in all: what is held is little, and soon enough.
        able.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let mut hosts = BTreeSet::new();
        let mut room = 0;
        for (_, whole, host) in able {
            if room >= min as u64 {
                break;
            }
            room += whole;
            hosts.insert(host);
        }
        if room >= min as u64 {
            self.holds.push(Hold { shape, asker, hosts, until: None });
        }
    }

    fn room_of(&self, hosts: &BTreeSet<HostId>, task: &raftgrid_proto::v1::Task) -> u64 {
        let open = self.hosts.ordered().filter(|(host, _)| hosts.contains(host));
        open.map(|(_, host)| predicates::capable_of(task, &host.node)).sum()
    }

    /// The shape holds nothing any more; what it held is there for others.
    fn end_hold(&mut self, shape: ShapeId) {
        let Some(at) = self.holds.iter().position(|hold| hold.shape == shape) else { return };
        let hold = self.holds.remove(at);
        for host in hold.hosts {
            self.hosts.improve(host);
        }
        self.stale = true;
    }
}

/// Whether the task of the shape may go to the host now. Nodes that are held are kept for their unit, and for what goes before it.
pub(super) fn fits(
    holds: &[Hold],
    asker: Option<&Asker>,
    host: HostId,
    task: &raftgrid_proto::v1::Task,
    node: &Node,
) -> bool {
    let kept = |asker: &Asker| holds.iter().any(|hold| hold.keeps(host, asker));
    !asker.is_some_and(kept)
        && predicates::fits(task.get_spec().get_resources(), node).is_ok()
        && predicates::eligible(task, node).is_ok()
        && predicates::able(task, node).is_ok()
}

/// Members that would fit the node as it is now.
pub(super) fn free_members(task: &raftgrid_proto::v1::Task, node: &Node) -> u64 {
    let (capacity, allocated) = (node.get_capacity(), node.get_allocated());
    let mut free = node.clone();
    free.set_capacity(Resources {
        slots: capacity.slots.saturating_sub(allocated.slots),
        gpus: capacity.gpus.saturating_sub(allocated.gpus),
        cpu_milli: remaining(capacity.cpu_milli, allocated.cpu_milli),
        memory_bytes: remaining(capacity.memory_bytes, allocated.memory_bytes),
        ..Resources::default()
    });
    predicates::capable_of(task, &free)
}

/// What is free of what is counted; 0 stays "not counted", so nothing free is the least that counts.
fn remaining(capacity: u64, allocated: u64) -> u64 {
    if capacity == 0 {
        0
    } else {
        capacity.saturating_sub(allocated).max(1)
    }
}

enum Attempt {
    /// As many tasks.
    Placed(usize),
    KeptOut,
    Blocked,
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
