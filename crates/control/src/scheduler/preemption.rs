//! Preemption: preemptible work that makes room for a unit that fits nowhere. Whole victims only: a task, or the gang that a task is of.
//!
//! Who may be a victim: in the unit's own queue, work of lower priority; of another queue, work whose queue still has at least the share
//! that the unit's queue will have. Priorities are strict and shares only come closer to each other, so no two units preempt one another in
//! turn. Which: those of the node where the highest priority among the victims is lowest, then where they are fewest; on a node the lowest
//! priority first, of equals the one that ran the shortest. One that turns out not to be needed is spared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raftgrid_manifest::predicates;
use raftgrid_proto::v1::Node;

use super::holds::{fits, Asker, Hold};
use super::hosts::{HostId, Taken, Undo};
use super::planner::{Gate, Plan, Planner};
use super::shapes::ShapeId;
use crate::limits::{PREEMPTION_HOLD_MS, VICTIMS_PER_PLAN_MAX};
use crate::types::Millis;

/// A task or a whole gang.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Victim {
    priority: i32,
    tasks: Vec<u64>,
    /// Epochs rise: the newest lost least.
    age: std::cmp::Reverse<u64>,
}

impl Victim {
    fn harm(&self) -> (i32, usize, std::cmp::Reverse<u64>, u64) {
        (self.priority, self.tasks.len(), self.age, self.tasks.first().copied().unwrap_or_default())
    }
}

/// Of emptying a host: highest priority among its victims, tasks that stop, id.
type Cost = (i32, usize, Arc<str>);

/// What was imagined, to be taken back in reverse order.
enum Step {
    Took(Undo),
    Emptied(HostId, Taken),
}

/// The room that is being made.
#[derive(Default)]
struct Room {
    victims: Vec<Victim>,
    doomed: BTreeSet<u64>,
    hosts: BTreeSet<HostId>,
    /// By queue.
    freed: BTreeMap<Arc<str>, Taken>,
    steps: Vec<Step>,
}

impl Planner {
    /// Orders victims to leave if that makes room for `min` tasks of the shape. True: it does, and the nodes are held for them.
    pub(super) fn make_room(
        &mut self,
        now: Millis,
        shape: ShapeId,
        min: usize,
        gate: &mut dyn Gate,
        plan: &mut Plan,
    ) -> bool {
        if self.tenants.is_empty() || plan.victims.len() >= VICTIMS_PER_PLAN_MAX {
            return false;
        }
        let search = self.shapes.get(shape).search;
        let taken = Taken::task(&self.shapes.get(shape).demand);
        let mut room = Room::default();
        let mut made = 0;
        while made < min {
            let host = match self.choose(shape, gate) {
                Some(host) => host,
                None => match self.cheapest(shape, min, &room, gate) {
                    Some((host, victims)) => {
                        self.imagine(host, victims, &mut room);
                        host
                    }
                    None => break,
                },
            };
            room.hosts.insert(host);
            room.steps.push(Step::Took(self.hosts.take(host, taken)));
            made += 1;
        }
        for step in room.steps.drain(..).rev() {
            match step {
                Step::Took(undo) => self.hosts.undo(undo),
                Step::Emptied(host, base) => self.hosts.restore(host, base),
            }
        }
        self.shapes.get_mut(shape).search = search;
        if made < min || room.victims.is_empty() {
            return false;
        }
        self.order(now, shape, room, plan);
        true
    }

    /// One order for each victim; a gang follows its member.
    fn order(&mut self, now: Millis, shape: ShapeId, room: Room, plan: &mut Plan) {
        for task in &room.doomed {
            if let Some(held) = self.held.get_mut(task) {
                held.is_stopping = true;
            }
        }
        plan.victims.extend(room.victims.iter().filter_map(|victim| victim.tasks.first().copied()));
        let asker = Asker::of(shape, self.shapes.get(shape));
        self.holds.retain(|hold| hold.shape != shape);
        self.holds.push(Hold { shape, asker, hosts: room.hosts, until: Some(now + PREEMPTION_HOLD_MS) });
    }

    /// The host on which making room for one task does least harm, with the victims; none where there is room already.
    fn cheapest(
        &mut self,
        shape: ShapeId,
        min: usize,
        room: &Room,
        gate: &mut dyn Gate,
    ) -> Option<(HostId, Vec<Victim>)> {
        let mut best: Option<(Cost, HostId, Vec<Victim>)> = None;
        let nodes: Vec<Arc<str>> = self.tenants.keys().cloned().collect();
        for node_id in nodes {
            self.probes += 1;
            let Some(host) = self.hosts.find(&node_id) else { continue };
            let Some(victims) = self.victims_on(host, shape, min, room) else { continue };
            let priority = victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
            let cost = (priority, victims.iter().map(|victim| victim.tasks.len()).sum(), node_id);
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) && gate.in_reach(&cost.2) {
                best = Some((cost, host, victims));
            }
        }
        best.map(|(_, host, victims)| (host, victims))
    }

    /// The victims on the host that one more task of the shape needs gone; None: all of them would not do.
    fn victims_on(&self, host: HostId, shape: ShapeId, min: usize, room: &Room) -> Option<Vec<Victim>> {
        let entry = self.hosts.get(host);
        let mut empty = entry.node.clone();
        empty.set_allocated(Default::default());
        let task = &self.shapes.get(shape).task;
        if !entry.present || !fits(&self.holds, self.asker(shape).as_ref(), host, task, &empty) {
            return None;
        }
        let tenants = self.tenants.get(&entry.id)?;
        let mut candidates: Vec<Victim> = Vec::new();
        let mut seen = BTreeSet::new();
        for task in tenants.iter().filter(|task| !room.doomed.contains(task)) {
            let Some(victim) = self.victim(*task) else { continue };
            if victim.tasks.first().is_some_and(|first| seen.insert(*first)) && self.may_take(shape, min, &victim, room)
            {
                candidates.push(victim);
            }
        }
        candidates.sort_by_key(Victim::harm);
        let fits_without = |victims: &[Victim]| {
            let mut freed = Taken::default();
            victims
                .iter()
                .flat_map(|victim| &victim.tasks)
                .for_each(|task| freed.add(self.taken_on(*task, &entry.node)));
            fits_with(task, &entry.node, freed)
        };
        let mut chosen: Vec<Victim> = Vec::new();
        for victim in candidates {
            if fits_without(&chosen) {
                break;
            }
            chosen.push(victim);
        }
        if !fits_without(&chosen) {
            return None;
        }
        for at in (0..chosen.len()).rev() {
            let spared = chosen.remove(at);
            if !fits_without(&chosen) {
                chosen.insert(at, spared);
            }
        }
        Some(chosen)
    }

    /// The task, or its gang; None: it is going already.
    fn victim(&self, task: u64) -> Option<Victim> {
        let held = self.held.get(&task)?;
        let mut tasks = match held.gang {
            Some(job) => self.gangs.busy(job),
            None => vec![task],
        };
        tasks.retain(|task| self.held.contains_key(task));
        let held: Vec<_> = tasks.iter().filter_map(|task| self.held.get(task)).collect();
        if held.iter().any(|held| held.is_stopping || !held.is_leased || !held.preemptible) {
            return None;
        }
        let priority = held.iter().map(|held| held.priority).max()?;
        let age = std::cmp::Reverse(held.iter().map(|held| held.epoch).min()?);
        Some(Victim { priority, tasks, age })
    }

    fn may_take(&self, shape: ShapeId, min: usize, victim: &Victim, room: &Room) -> bool {
        let entry = self.shapes.get(shape);
        let Some(held) = victim.tasks.first().and_then(|task| self.held.get(task)) else { return false };
        if held.queue == entry.queue {
            return victim.priority < entry.priority;
        }
        let (Some(mine), Some(theirs)) = (self.lines.get(&entry.queue), self.lines.get(&held.queue)) else {
            return false;
        };
        let mut more = Taken::default();
        (0..min).for_each(|_| more.add(Taken::task(&entry.demand)));
        let mut less = room.freed.get(&held.queue).copied().unwrap_or_default();
        victim.tasks.iter().filter_map(|task| self.held.get(task)).for_each(|held| less.add(held.taken));
        let capacity = self.hosts.capacity();
        mine.share_with(&capacity, more, Taken::default()) <= theirs.share_with(&capacity, Taken::default(), less)
    }

    fn taken_on(&self, task: u64, node: &Node) -> Taken {
        let held = self.held.get(&task).filter(|held| *held.node_id == *node.node_id);
        held.map(|held| held.taken).unwrap_or_default()
    }

    fn imagine(&mut self, _host: HostId, victims: Vec<Victim>, room: &mut Room) {
        for victim in victims {
            for task in &victim.tasks {
                let Some(held) = self.held.get(task) else { continue };
                room.freed.entry(held.queue.clone()).or_default().add(held.taken);
                room.doomed.insert(*task);
                if let Some(host) = self.hosts.find(&held.node_id) {
                    let base = self.hosts.imagine_without(host, held.taken);
                    room.steps.push(Step::Emptied(host, base));
                }
            }
            room.victims.push(victim);
        }
    }

    /// The order to a victim came to nothing: it may be one again.
    pub(crate) fn spare(&mut self, task: u64) {
        let gang = self.held.get(&task).and_then(|held| held.gang);
        let tasks = gang.map_or_else(|| vec![task], |job| self.gangs.busy(job));
        for task in tasks {
            if let Some(held) = self.held.get_mut(&task) {
                held.is_stopping = false;
            }
        }
    }

    /// The open epoch of a task with a lease.
    pub(crate) fn epoch_of(&self, task: u64) -> Option<u64> {
        self.held.get(&task).filter(|held| held.is_leased).map(|held| held.epoch)
    }
}

/// Whether one more task fits the node with `freed` of it given back.
fn fits_with(task: &raftgrid_proto::v1::Task, node: &Node, freed: Taken) -> bool {
    let mut node = node.clone();
    let allocated = node.get_allocated().clone();
    let mut left = Taken {
        tasks: 0,
        slots: u64::from(allocated.slots),
        gpus: u64::from(allocated.gpus),
        cpu_milli: allocated.cpu_milli,
        memory_bytes: allocated.memory_bytes,
    };
    left.subtract(freed);
    node.set_allocated(left.resources());
    predicates::fits(task.get_spec().get_resources(), &node).is_ok()
}
