//! A planner with the sentences that the tests speak.

use raftgrid_control::{Gate, Plan, Planner};
use raftgrid_proto::v1::{Constraint, GangMember, Label, Node, Phase, Queue, Task, TaskRow, TaskSpec, TaskStatus};

/// Every node is heard but the one named.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) silent: &'static str,
}

impl Gate for Heard {
    fn in_reach(&mut self, node_id: &str) -> bool {
        node_id != self.silent
    }

    fn admits(&mut self, _: u64) -> bool {
        true
    }
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) planner: Planner,
    pub(crate) now: u64,
    epoch: u64,
}

impl World {
    /// Nodes a, b, c, … with so many slots.
    pub(crate) fn with(slots: &[u32]) -> Self {
        let mut world = Self::default();
        for (n, slots) in slots.iter().enumerate() {
            world.node(&name(n), |node| node.mut_capacity().slots = *slots);
        }
        world
    }

    pub(crate) fn node(&mut self, node_id: &str, change: impl FnOnce(&mut Node)) {
        let mut node = Node { node_id: node_id.into(), ..Node::default() };
        node.mut_capacity().slots = 1;
        change(&mut node);
        self.planner.put_node(&node, true);
    }

    pub(crate) fn queue(&mut self, name: &str, change: impl FnOnce(&mut Queue)) {
        let mut queue = Queue { name: name.into(), weight: 1, ..Queue::default() };
        change(&mut queue);
        self.planner.put_queue(name, Some(queue));
    }

    pub(crate) fn waits(&mut self, sequence: u64, change: impl FnOnce(&mut TaskSpec)) {
        self.planner.add_task(&row(sequence, change));
    }

    /// Members of gang `job`, tasks `first`, `first` + 1, …
    pub(crate) fn gang(&mut self, job: u64, first: u64, (min, max): (u32, u32), change: impl Fn(&mut TaskSpec)) {
        for index in 0..max {
            self.planner.add_task(&member(job, first, index, (min, max), &change));
        }
    }

    /// The task runs on the node, and the node's row says so.
    pub(crate) fn runs(&mut self, sequence: u64, node: &mut Node, change: impl FnOnce(&mut TaskSpec)) {
        let mut row = row(sequence, change);
        self.lease(&mut row, node);
    }

    pub(crate) fn lease(&mut self, row: &mut TaskRow, node: &mut Node) {
        self.epoch += 1;
        row.open_epoch = self.epoch;
        let task = row.mut_task();
        (task.status, task.phase) = (TaskStatus::RUNNING, Phase::PHASE_ACTIVE);
        task.assigned_node_id = node.node_id.clone();
        let slots = task.get_spec().get_resources().slots.max(1);
        node.active_tasks += 1;
        node.mut_allocated().slots += slots;
        self.planner.hold(row);
        self.planner.put_node(node, true);
    }

    pub(crate) fn plan(&mut self) -> Plan {
        self.planner.plan(self.now, 256, &mut Heard::default())
    }

    /// What the plan places, in its order.
    pub(crate) fn placed(&mut self) -> Vec<(u64, String)> {
        self.plan().placements.into_iter().flat_map(|placement| placement.tasks).collect()
    }

    /// Only which tasks.
    pub(crate) fn tasks(&mut self) -> Vec<u64> {
        self.placed().into_iter().map(|(task, _)| task).collect()
    }
}

pub(crate) fn name(n: usize) -> String {
    char::from(b'a' + n as u8).to_string()
}

pub(crate) fn at(task: u64, node: &str) -> (u64, String) {
    (task, node.to_owned())
}

pub(crate) fn empty(node_id: &str, slots: u32) -> Node {
    let mut node = Node { node_id: node_id.into(), ..Node::default() };
    node.mut_capacity().slots = slots;
    node
}

pub(crate) fn row(sequence: u64, change: impl FnOnce(&mut TaskSpec)) -> TaskRow {
    let mut spec = TaskSpec::default();
    change(&mut spec);
    let mut task = Task { task_id: format!("task-{sequence}"), queue: spec.queue.clone(), ..Task::default() };
    task.set_spec(spec);
    let mut row = TaskRow { sequence, submitted_at_ms: sequence, ..TaskRow::default() };
    row.set_task(task);
    row
}

pub(crate) fn member(
    job: u64,
    first: u64,
    index: u32,
    (min_members, max_members): (u32, u32),
    change: &impl Fn(&mut TaskSpec),
) -> TaskRow {
    let mut row = row(first + u64::from(index), change);
    row.job_sequence = job;
    row.mut_task().job_id = format!("job-{job}");
    row.set_gang(GangMember { index, min_members, max_members, ..GangMember::default() });
    row
}

pub(crate) fn label(key: &str, value: &str) -> Label {
    Label { key: key.into(), value: value.into(), ..Label::default() }
}

pub(crate) fn equal(key: &str, value: &str) -> Constraint {
    Constraint { key: key.into(), value: value.into(), ..Constraint::default() }
}

pub(crate) fn slots(slots: u32) -> impl Fn(&mut TaskSpec) + Copy {
    move |spec| spec.mut_resources().slots = slots
}
