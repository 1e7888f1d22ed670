//! Who may run what. The guards of `Assign` and the scheduler in control call the same functions, so that plan and guard cannot drift.

use std::cmp::Ordering;
use std::fmt;

use raftgrid_proto::v1::{Eligibility, Node, NodeRow, NodeStatus, Resources, Task};

pub use crate::attributes::attribute;
use crate::attributes::{holds, wanted};
use crate::commands::MACHINE_VERSION;
use crate::mutant;

/// Why a node cannot take a task: the first predicate that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The node is not HEALTHY.
    Status(NodeStatus),
    /// An operator keeps new work away: cordoned or draining.
    Eligibility(Eligibility),
    /// A hard constraint of the task.
    Constraint {
        /// `cloud_provider`, `region`, a label's key or another attribute.
        key: String,
        /// What the task wants.
        wanted: String,
        /// What the node has; None: it has no such label.
        found: Option<String>,
    },
    /// The node said that it lacks what tasks of this type need.
    TaskType(String),
    /// Too little is free.
    Capacity {
        /// `slots`, `cpu_milli`, `memory_bytes` or `gpus`.
        resource: &'static str,
        /// What the task wants.
        wanted: u64,
        /// What is free.
        free: u64,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(NodeStatus::HEALTHY) => f.write_str("healthy"),
            Self::Status(NodeStatus::UNHEALTHY) => f.write_str("unhealthy"),
            Self::Status(NodeStatus::UNKNOWN) => f.write_str("not heard from"),
            Self::Eligibility(Eligibility::ELIGIBLE) => f.write_str("eligible"),
            Self::Eligibility(Eligibility::CORDONED) => f.write_str("cordoned"),
            Self::Eligibility(Eligibility::DRAINING) => f.write_str("draining"),
            Self::Constraint { key, wanted, found: Some(found) } => write!(f, "{key} is {found}, wanted {wanted}"),
            Self::Constraint { key, wanted, found: None } => write!(f, "has no {key}, wanted {wanted}"),
            Self::TaskType(task_type) => write!(f, "cannot run tasks of type {task_type}; see its log"),
            Self::Capacity { resource, wanted, free } => write!(f, "{resource}: {free} free, wanted {wanted}"),
        }
    }
}

/// Whether a process that says this of itself was started before the one that is registered, and may not take its place. Beside a node that
/// fell silent any process may: its machine may have been exchanged for one whose clock is behind. Generation 0 knows no order.
pub fn overtaken(row: &NodeRow, boot_nonce: u64, generation: u64) -> bool {
    let older = generation != 0 && generation < row.generation && boot_nonce != row.boot_nonce;
    older && !fell_silent(row) && !mutant::on("no_generations")
}

/// Whether nothing was heard of the node for longer than its leases live.
pub fn fell_silent(row: &NodeRow) -> bool {
    row.get_node().status == NodeStatus::UNHEALTHY && row.get_node().problem.is_empty()
}

/// Whether the node may take the task at all, free room aside: status, eligibility, hard constraints, in this order. As the newest machine
/// version has it.
pub fn eligible(task: &Task, node: &Node) -> Result<(), Unfit> {
    eligible_at(MACHINE_VERSION, task, node)
}

/// The same as of a machine version: what the guard of `Assign` asks.
pub(crate) fn eligible_at(version: u64, task: &Task, node: &Node) -> Result<(), Unfit> {
    match node.status {
        NodeStatus::HEALTHY => {}
        status @ (NodeStatus::UNHEALTHY | NodeStatus::UNKNOWN) => return Err(Unfit::Status(status)),
    }
    match node.eligibility {
        Eligibility::ELIGIBLE => {}
        kept @ (Eligibility::CORDONED | Eligibility::DRAINING) => return Err(Unfit::Eligibility(kept)),
    }
    constrained(version, task, node)
}

/// The first hard constraint that the node does not satisfy.
fn constrained(version: u64, task: &Task, node: &Node) -> Result<(), Unfit> {
    for constraint in task.get_spec().get_constraints() {
        holds(version, node, constraint).map_err(|found| Unfit::Constraint {
            key: constraint.key.clone(),
            wanted: wanted(constraint),
            found,
        })?;
    }
    Ok(())
}

/// Whether the node could ever take the task: its constraints, its type, and the node's whole size. What changes by itself (status, load,
/// whether it takes new work) is not asked.
pub fn ever(task: &Task, node: &Node) -> Result<(), Unfit> {
    constrained(MACHINE_VERSION, task, node)?;
    able(task, node)?;
    let mut empty = Node { capacity: node.capacity.clone(), ..Node::default() };
    empty.mut_allocated();
    fits(task.get_spec().get_resources(), &empty)
}

/// How many tasks like this one fit on the node when it is empty; 0 if it could never take one.
pub fn capable_of(task: &Task, node: &Node) -> u64 {
    if ever(task, node).is_err() {
        return 0;
    }
    let (capacity, wanted) = (node.get_capacity(), task.get_spec().get_resources());
    let counts = [
        (u64::from(capacity.slots), u64::from(wanted.slots.max(1)), true),
        (u64::from(capacity.gpus), u64::from(wanted.gpus), true),
        (capacity.cpu_milli, wanted.cpu_milli, capacity.cpu_milli != 0),
        (capacity.memory_bytes, wanted.memory_bytes, capacity.memory_bytes != 0),
    ];
    let counted = counts.iter().filter(|(_, wanted, counted)| *counted && *wanted > 0);
    counted.map(|(capacity, wanted, _)| capacity / wanted).min().unwrap_or(0)
}

/// What the node is worth to the task by its soft constraints: the sum of the weights that it earns.
pub fn preference(task: &Task, node: &Node) -> i64 {
    let worth = task.get_spec().get_preferences().iter();
    worth
        .filter(|preference| holds(MACHINE_VERSION, node, preference.get_wanted()).is_ok())
        .map(|preference| i64::from(preference.weight))
        .sum()
}

/// Whether the node has room for what is asked. A node that states no cpu or no memory (0) is not limited in it; slots and GPUs are always
/// counted. Asking for no slot asks for one.
pub fn fits(resources: &Resources, node: &Node) -> Result<(), Unfit> {
    let (capacity, allocated) = (node.get_capacity(), node.get_allocated());
    let checks = [
        ("slots", u64::from(resources.slots.max(1)), u64::from(capacity.slots), u64::from(allocated.slots), true),
        ("gpus", u64::from(resources.gpus), u64::from(capacity.gpus), u64::from(allocated.gpus), true),
        ("cpu_milli", resources.cpu_milli, capacity.cpu_milli, allocated.cpu_milli, capacity.cpu_milli != 0),
        (
            "memory_bytes",
            resources.memory_bytes,
            capacity.memory_bytes,
            allocated.memory_bytes,
            capacity.memory_bytes != 0,
        ),
    ];
    for (resource, wanted, capacity, allocated, counted) in checks {
        let free = capacity.saturating_sub(allocated);
        if counted && wanted > free {
            return Err(Unfit::Capacity { resource, wanted, free });
        }
    }
    Ok(())
}

/// The first resource of which more is allocated than there is (invariant 8).
pub fn over_capacity(node: &Node) -> Option<&'static str> {
    let (capacity, allocated) = (node.get_capacity(), node.get_allocated());
    let over = [
        ("slots", allocated.slots > capacity.slots),
        ("gpus", allocated.gpus > capacity.gpus),
        ("cpu_milli", capacity.cpu_milli != 0 && allocated.cpu_milli > capacity.cpu_milli),
        ("memory_bytes", capacity.memory_bytes != 0 && allocated.memory_bytes > capacity.memory_bytes),
    ];
    over.iter().find(|(_, over)| *over).map(|(resource, _)| *resource)
}

/// Which of two nodes a task goes to: `Less` is better. Preferred nodes first, then (active/slots, gpu fit, cpu, memory, node id): a total
/// order, so that every replica of the scheduler decides alike. Fit of GPUs: the fewest left over, so that a task without GPUs stays off
/// GPU nodes.
pub fn compare_load(task: &Task, a: &Node, b: &Node) -> Ordering {
    let preferred = |node: &Node| !task.get_spec().preferred_nodes.contains(&node.node_id);
    let active = |node: &Node| node.active_tasks.max(0) as u64;
    let slots = |node: &Node| u64::from(node.get_capacity().slots.max(1));
    let gpus_left = |node: &Node| {
        let free = node.get_capacity().gpus.saturating_sub(node.get_allocated().gpus);
        free.saturating_sub(task.get_spec().get_resources().gpus)
    };
    preferred(a)
        .cmp(&preferred(b))
        .then_with(|| (active(a) * slots(b)).cmp(&(active(b) * slots(a))))
        .then_with(|| gpus_left(a).cmp(&gpus_left(b)))
        .then_with(|| a.cpu_usage.total_cmp(&b.cpu_usage))
        .then_with(|| a.memory_usage.total_cmp(&b.memory_usage))
        .then_with(|| a.node_id.cmp(&b.node_id))
}

/// Whether the node has what tasks of this type need, as far as it said. The plan asks this; the guard of `Assign` does not, so that what
/// a log says of old does not change its meaning.
pub fn able(task: &Task, node: &Node) -> Result<(), Unfit> {
    if node.unable.contains(&task.task_type) {
        return Err(Unfit::TaskType(task.task_type.clone()));
    }
    Ok(())
}

/// The node that this task goes to: the least loaded of those that are eligible, able and have room.
pub fn select_least_loaded<'a>(task: &Task, nodes: impl IntoIterator<Item = &'a Node>) -> Option<&'a Node> {
    nodes
        .into_iter()
        .filter(|node| eligible(task, node).is_ok() && able(task, node).is_ok())
        .filter(|node| fits(task.get_spec().get_resources(), node).is_ok())
        .min_by(|a, b| compare_load(task, a, b))
}

#[cfg(test)]
mod tests {
    use protobuf::RepeatedField;
    use raftgrid_proto::v1::{Constraint, Label};

    use super::*;

    fn node(node_id: &str, slots: u32, active: i32) -> Node {
        let mut node = Node { node_id: node_id.into(), active_tasks: active, region: "eu".into(), ..Node::default() };
        node.mut_capacity().slots = slots;
        node.mut_allocated().slots = active as u32;
        node
    }

    fn picked(task: &Task, nodes: &[Node]) -> Option<String> {
        let forward = select_least_loaded(task, nodes).map(|node| node.node_id.clone());
        let backward = select_least_loaded(task, nodes.iter().rev()).map(|node| node.node_id.clone());
        assert_eq!(forward, backward, "the order of the nodes must not matter");
        forward
    }

    #[test]
    fn the_order_is_load_then_gpus_then_cpu_then_memory_then_id() {
        let task = Task::default();
        assert_eq!(picked(&task, &[node("a", 2, 1), node("b", 8, 2)]).as_deref(), Some("b"), "a quarter beats a half");
        let mut gpu = node("a", 4, 1);
        gpu.mut_capacity().gpus = 2;
        assert_eq!(picked(&task, &[gpu.clone(), node("b", 4, 1)]).as_deref(), Some("b"), "off the GPU node");
        let mut wants_gpu = Task::default();
        wants_gpu.mut_spec().mut_resources().gpus = 1;
        let mut bigger = node("0", 4, 1);
        bigger.mut_capacity().gpus = 8;
        assert_eq!(picked(&wants_gpu, &[gpu, node("b", 4, 0), bigger]).as_deref(), Some("a"), "fewest GPUs left over");
        let (mut busy, mut idle) = (node("a", 4, 1), node("b", 4, 1));
        (busy.cpu_usage, idle.cpu_usage) = (80.0, 20.0);
        assert_eq!(picked(&task, &[busy.clone(), idle.clone()]).as_deref(), Some("b"), "less cpu");
        idle.cpu_usage = 80.0;
        (busy.memory_usage, idle.memory_usage) = (2.0, 1.0);
        assert_eq!(picked(&task, &[busy, idle]).as_deref(), Some("b"), "less memory");
        assert_eq!(picked(&task, &[node("b", 4, 1), node("a", 4, 1)]).as_deref(), Some("a"), "the id breaks the tie");
        let mut prefers = Task::default();
        prefers.mut_spec().preferred_nodes.push("b".into());
        assert_eq!(picked(&prefers, &[node("a", 4, 0), node("b", 4, 3)]).as_deref(), Some("b"), "preferred, with room");
        assert_eq!(picked(&prefers, &[node("a", 4, 0), node("b", 4, 4)]).as_deref(), Some("a"), "preferred, but full");
    }

    #[test]
    fn a_task_stays_off_a_node_that_lacks_what_its_type_needs() {
        let train = Task { task_type: "train".into(), ..Task::default() };
        let mut without = node("a", 4, 0);
        without.unable.push("train".into());
        assert_eq!(picked(&train, &[without.clone(), node("b", 4, 3)]).as_deref(), Some("b"));
        assert_eq!(picked(&train, &[without.clone()]), None);
        let command = Task { task_type: "command".into(), ..Task::default() };
        assert_eq!(
            picked(&command, &[without.clone(), node("b", 4, 3)]).as_deref(),
            Some("a"),
            "other types are welcome"
        );
        let why = able(&train, &without).expect_err("it said so").to_string();
        assert_eq!(why, "cannot run tasks of type train; see its log");
    }

    #[test]
    fn a_node_is_refused_by_the_first_predicate_that_fails() {
        let constrained = |key: &str, value: &str| {
            let mut task = Task::default();
            let constraint = Constraint { key: key.into(), value: value.into(), ..Constraint::default() };
            task.mut_spec().constraints.push(constraint);
            task
        };
        let mut labelled = node("a", 1, 0);
        let label = Label { key: "disk".into(), value: "ssd".into(), ..Label::default() };
        labelled.labels = RepeatedField::from_vec(vec![label]);
        assert_eq!(eligible(&constrained("disk", "ssd"), &labelled), Ok(()));
        assert_eq!(eligible(&constrained("region", "eu"), &labelled), Ok(()));
        let cases = [
            (constrained("disk", "hdd"), "disk is ssd, wanted hdd"),
            (constrained("zone", "1"), "has no zone, wanted 1"),
            (constrained("cloud_provider", "aws"), "cloud_provider is , wanted aws"),
        ];
        for (task, why) in cases {
            assert_eq!(eligible(&task, &labelled).expect_err("must be refused").to_string(), why);
        }
        labelled.eligibility = Eligibility::CORDONED;
        assert_eq!(eligible(&Task::default(), &labelled), Err(Unfit::Eligibility(Eligibility::CORDONED)));
        labelled.status = NodeStatus::UNKNOWN;
        assert_eq!(eligible(&Task::default(), &labelled), Err(Unfit::Status(NodeStatus::UNKNOWN)));
    }

    #[test]
    fn room_is_counted_per_resource_and_unstated_cpu_is_not_limited() {
        let want = |cpu_milli, memory_bytes, gpus, slots| Resources {
            cpu_milli,
            memory_bytes,
            gpus,
            slots,
            ..Resources::default()
        };
        let mut node = node("a", 2, 1);
        assert_eq!(fits(&want(9_000, 1 << 40, 0, 0), &node), Ok(()));
        assert_eq!(fits(&want(0, 0, 1, 0), &node), Err(Unfit::Capacity { resource: "gpus", wanted: 1, free: 0 }));
        assert_eq!(fits(&want(0, 0, 0, 2), &node), Err(Unfit::Capacity { resource: "slots", wanted: 2, free: 1 }));
        node.mut_capacity().cpu_milli = 1_000;
        node.mut_allocated().cpu_milli = 600;
        assert_eq!(fits(&want(400, 0, 0, 1), &node), Ok(()));
        assert_eq!(
            fits(&want(401, 0, 0, 1), &node),
            Err(Unfit::Capacity { resource: "cpu_milli", wanted: 401, free: 400 })
        );
        node.mut_allocated().slots = 2;
        assert_eq!(fits(&want(0, 0, 0, 0), &node), Err(Unfit::Capacity { resource: "slots", wanted: 1, free: 0 }));
        assert_eq!(over_capacity(&node), None);
        node.mut_allocated().cpu_milli = 1_001;
        assert_eq!(over_capacity(&node), Some("cpu_milli"));
    }
}
