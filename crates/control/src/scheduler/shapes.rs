//! Shapes: waiting tasks that ask for the same placement, so that one failing search answers for all of them. Owned by the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protobuf::Message;
use raftgrid_proto::v1::{Resources, Task, TaskRow, TaskSpec};

use super::hosts::Search;
use crate::limits::{AGEING_MS, IDLE_SHAPES_MAX};
use crate::types::Millis;
use crate::view::Avoided;

pub(super) type ShapeId = u64;

/// Place in the queue: (submitted, moved earlier by priority; sequence). Waiting `AGEING_MS` is worth one step of priority; since all tasks age
/// alike, the order of two tasks never changes and the key is fixed when a task enters.
pub(crate) type Rank = (i128, u64);

pub(crate) fn rank(row: &TaskRow) -> Rank {
    let credit = i128::from(row.get_task().get_spec().priority) * i128::from(AGEING_MS);
    (i128::from(row.submitted_at_ms) - credit, row.sequence)
}

/// What placement depends on.
#[derive(Debug)]
pub(super) struct Shape {
    /// Its spec holds only what placement asks; the id is empty.
    pub(super) task: Task,
    pub(super) demand: Resources,
    pub(super) queue: Arc<str>,
    pub(super) priority: i32,
    /// Job sequence and least number of members of a gang; its only waiting unit is the gang.
    pub(super) gang: Option<(u64, u32)>,
    /// Nodes on which attempts of the task ended.
    pub(super) avoided: Vec<Avoided>,
    /// Preferences, spread, affinities: every node has to be weighed.
    pub(super) is_choosy: bool,
    pub(super) waiting: BTreeSet<Rank>,
    pub(super) search: Search,
    /// Since when its first unit finds no place.
    pub(super) blocked_since: Option<Millis>,
    /// Under which it is known.
    key: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Shapes {
    by_id: BTreeMap<ShapeId, Shape>,
    ids: BTreeMap<Vec<u8>, ShapeId>,
    /// Without waiting tasks, the longest idle first: what their searches know may be of use again.
    idle: BTreeSet<(u64, ShapeId)>,
    idle_since: BTreeMap<ShapeId, u64>,
    last: u64,
}

impl Shapes {
    pub(super) fn get(&self, shape: ShapeId) -> &Shape {
        self.by_id.get(&shape).expect("a shape lives as long as it has waiting tasks")
    }

    pub(super) fn get_mut(&mut self, shape: ShapeId) -> &mut Shape {
        self.by_id.get_mut(&shape).expect("a shape lives as long as it has waiting tasks")
    }

    pub(super) fn known(&self, shape: ShapeId) -> Option<&Shape> {
        self.by_id.get(&shape)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Shape> {
        self.by_id.values()
    }

    /// The shape of a task.
    pub(super) fn of(&mut self, row: &TaskRow, avoided: &[Avoided]) -> ShapeId {
        let key = key_of(row, avoided);
        if let Some(shape) = self.ids.get(&key) {
            return *shape;
        }
        self.last += 1;
        let shape = self.last;
        self.ids.insert(key.clone(), shape);
        self.by_id.insert(shape, make(row, avoided, key));
        if row.gang.is_none() {
            self.rest(shape);
        }
        shape
    }

    /// A shape has waiting tasks.
    pub(super) fn wake(&mut self, shape: ShapeId) {
        if let Some(since) = self.idle_since.remove(&shape) {
            self.idle.remove(&(since, shape));
        }
    }

    /// A shape has none; the longest idle one goes if there are too many.
    pub(super) fn rest(&mut self, shape: ShapeId) {
        self.last += 1;
        self.wake(shape);
        self.idle.insert((self.last, shape));
        self.idle_since.insert(shape, self.last);
        while self.idle.len() > IDLE_SHAPES_MAX {
            let Some((_, oldest)) = self.idle.pop_first() else { return };
            self.idle_since.remove(&oldest);
            if let Some(gone) = self.by_id.remove(&oldest) {
                self.ids.remove(&gone.key);
            }
        }
    }
}

fn is_choosy(spec: &TaskSpec) -> bool {
    !spec.preferences.is_empty() || !spec.spread_over.is_empty() || !spec.affinities.is_empty()
}

/// Only what placement asks.
fn essence(row: &TaskRow) -> Task {
    let task = row.get_task();
    let spec = task.get_spec();
    let choosy = is_choosy(spec);
    let kept = TaskSpec {
        resources: spec.resources.clone(),
        constraints: spec.constraints.clone(),
        preferred_nodes: spec.preferred_nodes.clone(),
        priority: spec.priority,
        preferences: spec.preferences.clone(),
        spread_over: spec.spread_over.clone(),
        affinities: spec.affinities.clone(),
        labels: if choosy { spec.labels.clone() } else { Default::default() },
        ..TaskSpec::default()
    };
    let mut essence = Task { task_type: task.task_type.clone(), queue: task.queue.clone(), ..Task::default() };
    if choosy || row.gang.is_some() {
        essence.job_id = task.job_id.clone();
    }
    essence.set_spec(kept);
    essence
}

fn key_of(row: &TaskRow, avoided: &[Avoided]) -> Vec<u8> {
    let mut key = essence(row).write_to_bytes().expect("a message without required fields always encodes");
    if row.gang.is_some() {
        key.extend_from_slice(&row.job_sequence.to_be_bytes());
    }
    for node in avoided {
        key.push(0xff);
        key.push(node.times.min(2) as u8);
        key.extend_from_slice(node.node_id.as_bytes());
    }
    key
}

fn make(row: &TaskRow, avoided: &[Avoided], key: Vec<u8>) -> Shape {
    let task = essence(row);
    let mut demand = task.get_spec().get_resources().clone();
    demand.slots = demand.slots.max(1);
    Shape {
        demand,
        queue: task.queue.as_str().into(),
        priority: task.get_spec().priority,
        gang: row.gang.as_ref().map(|gang| (row.job_sequence, gang.min_members)),
        avoided: avoided.to_vec(),
        is_choosy: is_choosy(task.get_spec()),
        waiting: BTreeSet::new(),
        search: Search::default(),
        blocked_since: None,
        task,
        key,
    }
}
