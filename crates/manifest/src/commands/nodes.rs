//! Nodes: RegisterNode, NodeStatusChange, SetEligibility, Deregister, LoadReport. Heartbeats are the leader's memory and never come here.

use protobuf::SingularPtrField;
use raftgrid_proto::v1::{
    CommandReply, Deregister, LoadReport, Node, NodeRow, NodeStatus, NodeStatusChange, Outcome, RegisterNode,
    SetEligibility,
};

use crate::commands::lifecycle::{interrupt, Interruption};
use crate::error::{Fault, Handled};
use crate::keys;
use crate::limits::{GPUS_MAX, LABELS_MAX, LOADS_MAX, NOTE_BYTES_MAX, SLOTS_DEFAULT};
use crate::machine::Machine;
use crate::predicates::{over_capacity, overtaken};
use crate::read;
use crate::reply::{invalid, not_found, precondition, refuse};
use crate::rows::Table;
use crate::tables::NodeTable;
use crate::text::{check_bytes, check_id, check_resources, cut};

/// The machine version from which on a node's row says what its own checks found.
const PROBLEMS_SINCE: u64 = 3;
/// The machine version from which on it says which of the node's processes it is.
const GENERATIONS_SINCE: u64 = 4;

fn check_node(node: &Node) -> Result<(), Fault> {
    check_id("node.node_id", &node.node_id)?;
    let texts = [
        ("node.address", &node.address),
        ("node.cloud_provider", &node.cloud_provider),
        ("node.region", &node.region),
        ("node.version", &node.version),
        ("node.arch", &node.arch),
        ("node.os", &node.os),
    ];
    for (field, text) in texts {
        check_bytes(field, text.len(), NOTE_BYTES_MAX)?;
    }
    if node.labels.len() > LABELS_MAX {
        return Err(invalid("node.labels", format!("at most {LABELS_MAX}, is {}", node.labels.len())));
    }
    if node.unable.len() > LABELS_MAX {
        return Err(invalid("node.unable", format!("at most {LABELS_MAX}, is {}", node.unable.len())));
    }
    if node.gpus.len() > GPUS_MAX as usize {
        return Err(invalid("node.gpus", format!("at most {GPUS_MAX}, is {}", node.gpus.len())));
    }
    check_resources("node.capacity", node.get_capacity())
}

/// What the node says of itself, over what the machine knows of it.
fn described(machine: &Machine<'_>, said: &Node, known: Option<&NodeRow>) -> Node {
    let mut node = said.clone();
    node.status = NodeStatus::HEALTHY;
    if node.last_heartbeat == 0 {
        node.last_heartbeat = machine.now_s();
    }
    if !node.cpu_usage.is_finite() {
        node.cpu_usage = 0.0;
    }
    if !node.memory_usage.is_finite() {
        node.memory_usage = 0.0;
    }
    let gpus = node.gpus.len() as u32;
    let capacity = node.mut_capacity();
    if capacity.slots == 0 {
        capacity.slots = SLOTS_DEFAULT;
    }
    if capacity.gpus == 0 {
        capacity.gpus = gpus;
    }
    let known = known.map(|row| row.get_node()).unwrap_or_default();
    node.eligibility = known.eligibility;
    node.active_tasks = known.active_tasks;
    node.allocated = SingularPtrField::some(known.get_allocated().clone());
    node.incarnation = known.incarnation;
    if machine.meta.machine_version >= PROBLEMS_SINCE {
        // It is healthy until its beats say otherwise.
        node.problem.clear();
    }
    node.maintenance_until_ms = known.maintenance_until_ms;
    node
}

/// The same boot nonce gets the same incarnation again. A new one is a new process: every lease of the old incarnation ends at once. One that
/// was started before the one that is known is refused: its first heartbeat may have been on its way for long.
pub(crate) fn register(machine: &mut Machine<'_>, command: &RegisterNode) -> Handled {
    let said = command.get_node();
    check_node(said)?;
    let mut known = read::node(&machine.rows, &said.node_id)?;
    let same = known.as_ref().is_some_and(|row| row.boot_nonce == command.boot_nonce);
    if known.as_ref().is_some_and(|row| overtaken(row, command.boot_nonce, command.generation)) {
        let why = format!("node {} was started anew; this is an older process of it", said.node_id);
        return Err(refuse(Outcome::STALE, why));
    }
    if !same && known.is_some() {
        end_leases(machine, &said.node_id, "the node was started anew")?;
        known = read::node(&machine.rows, &said.node_id)?;
    }
    let mut node = described(machine, said, known.as_ref());
    if !same {
        node.incarnation = machine.position.get();
    } else if over_capacity(&node).is_some() {
        // A node that shrank below what it runs keeps its old size until it is started anew.
        node.capacity = known.as_ref().map(|row| row.get_node().capacity.clone()).unwrap_or_default();
    }
    let mut row = NodeRow {
        boot_nonce: command.boot_nonce,
        open_tasks: known.as_ref().map_or(0, |row| row.open_tasks),
        node: SingularPtrField::some(node),
        ..NodeRow::default()
    };
    if machine.meta.machine_version >= GENERATIONS_SINCE {
        row.generation = command.generation;
    }
    NodeTable::put(machine, &row);
    let incarnation = row.get_node().incarnation;
    let reply = if same { machine.existing(incarnation) } else { machine.ok() };
    Ok(CommandReply { id: said.node_id.clone(), number: incarnation, ..reply })
}

fn end_leases(machine: &mut Machine<'_>, node_id: &str, reason: &str) -> Result<(), Fault> {
    for row in read::tasks_of_node(&machine.rows, node_id)? {
        // A task that ends may end its job, and that touches the job's other tasks: each is read as it stands now.
        if let Some(row) = read::task(&machine.rows, row.sequence)?.filter(|row| row.open_epoch != 0) {
            interrupt(machine, row, Interruption::Lost, 0, reason)?;
        }
    }
    Ok(())
}

fn known_node(machine: &Machine<'_>, node_id: &str) -> Result<NodeRow, Fault> {
    read::node(&machine.rows, node_id)?.ok_or_else(|| not_found("node", node_id))
}

pub(crate) fn change_status(machine: &mut Machine<'_>, command: &NodeStatusChange) -> Handled {
    let mut row = known_node(machine, &command.node_id)?;
    let current = row.get_node().incarnation;
    if command.incarnation < current {
        let why =
            format!("incarnation {} of node {} is over; {current} is current", command.incarnation, command.node_id);
        return Err(precondition(why));
    }
    row.mut_node().status = command.status;
    if machine.meta.machine_version >= PROBLEMS_SINCE {
        let told = command.status == NodeStatus::UNHEALTHY;
        row.mut_node().problem = if told { cut(&command.problem) } else { String::new() };
    }
    NodeTable::put(machine, &row);
    Ok(CommandReply { number: current, ..machine.ok() })
}

pub(crate) fn set_eligibility(machine: &mut Machine<'_>, command: &SetEligibility) -> Handled {
    let mut row = known_node(machine, &command.node_id)?;
    row.mut_node().eligibility = command.eligibility;
    // What a person says takes the place of a maintenance.
    row.mut_node().maintenance_until_ms = 0;
    NodeTable::put(machine, &row);
    Ok(machine.ok())
}

/// The node leaves: its leases end, its row goes.
pub(crate) fn deregister(machine: &mut Machine<'_>, command: &Deregister) -> Handled {
    let row = known_node(machine, &command.node_id)?;
    let current = row.get_node().incarnation;
    if command.incarnation != current {
        let why = format!("node {} is at incarnation {current}, not {}", command.node_id, command.incarnation);
        return Err(precondition(why));
    }
    end_leases(machine, &command.node_id, "the node was deregistered")?;
    machine.delete(Table::Node, keys::node(&command.node_id));
    Ok(machine.ok())
}

/// The leader's coalesced view of usage; nodes that are gone meanwhile are passed over.
pub(crate) fn report_load(machine: &mut Machine<'_>, command: &LoadReport) -> Handled {
    if command.loads.len() > LOADS_MAX {
        return Err(invalid("loads", format!("at most {LOADS_MAX}, is {}", command.loads.len())));
    }
    for load in command.get_loads() {
        let Some(mut row) = read::node(&machine.rows, &load.node_id)? else { continue };
        let node = row.mut_node();
        if load.cpu_usage.is_finite() {
            node.cpu_usage = load.cpu_usage;
        }
        if load.memory_usage.is_finite() {
            node.memory_usage = load.memory_usage;
        }
        node.last_heartbeat = node.last_heartbeat.max(load.last_heartbeat);
        NodeTable::put(machine, &row);
    }
    Ok(machine.ok())
}
