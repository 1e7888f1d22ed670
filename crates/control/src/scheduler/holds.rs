//! Holds: nodes whose room is kept for a unit that waits. Owned by the planner.
//!
//! A lasting hold is that of the first unit that waited too long for room (a gang: at once). There is one at a time, so that two gangs cannot
//! take halves from each other; what goes before its unit passes it. The hold of a preemption ends with its time, and nobody passes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use raftgrid_manifest::predicates;
use raftgrid_proto::v1::{Node, Resources, Task};

use super::hosts::HostId;
use super::planner::Planner;
use super::shapes::{Rank, Shape, ShapeId};
use crate::types::Millis;

/// Nodes kept for one unit.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) shape: ShapeId,
    pub(super) asker: Asker,
    pub(super) hosts: BTreeSet<HostId>,
    /// Made by a preemption: it ends then, whatever comes.
    pub(super) until: Option<Millis>,
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
        self.shape != asker.shape && self.hosts.contains(&host) && (self.until.is_some() || !asker.passes(&self.asker))
    }
}

impl Planner {
    /// None: nothing is held, and it does not matter who asks.
    pub(super) fn asker(&self, shape: ShapeId) -> Option<Asker> {
        (!self.holds.is_empty()).then(|| Asker::of(shape, self.shapes.get(shape)))
    }

    /// Keeps what gets free on enough nodes for the unit, if nobody else before it does.
    pub(super) fn hold_for(&mut self, shape: ShapeId, min: usize) {
        let asker = Asker::of(shape, self.shapes.get(shape));
        let lasting = self.holds.iter().position(|hold| hold.until.is_none());
        if let Some(at) = lasting {
            let hold = &self.holds[at];
            let mine = hold.shape == shape;
            if mine && self.room_of(&hold.hosts, &self.shapes.get(shape).task) >= min as u64 {
                return;
            }
            if !mine && !asker.passes(&hold.asker) {
                return;
            }
            let other = self.holds[at].shape;
            self.end_hold(other);
        }
        let task = self.shapes.get(shape).task.clone();
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

    fn room_of(&self, hosts: &BTreeSet<HostId>, task: &Task) -> u64 {
        let open = self.hosts.ordered().filter(|(host, _)| hosts.contains(host));
        open.map(|(_, host)| predicates::capable_of(task, &host.node)).sum()
    }

    /// The shape holds nothing any more; what it held is there for others.
    pub(super) fn end_hold(&mut self, shape: ShapeId) {
        let Some(at) = self.holds.iter().position(|hold| hold.shape == shape) else { return };
        let hold = self.holds.remove(at);
        for host in hold.hosts {
            self.hosts.improve(host);
        }
        self.stale = true;
    }
}

/// Whether the task of the shape may go to the host now. Nodes that are held are kept for their unit, and for what goes before it.
pub(super) fn fits(holds: &[Hold], asker: Option<&Asker>, host: HostId, task: &Task, node: &Node) -> bool {
    let kept = |asker: &Asker| holds.iter().any(|hold| hold.keeps(host, asker));
    !asker.is_some_and(kept)
        && predicates::fits(task.get_spec().get_resources(), node).is_ok()
        && predicates::eligible(task, node).is_ok()
        && predicates::able(task, node).is_ok()
}

/// Members that would fit the node as it is now.
pub(super) fn free_members(task: &Task, node: &Node) -> u64 {
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
