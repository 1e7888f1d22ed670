//! Commands of nodes.

mod common;

use common::*;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn register(node: Node, boot_nonce: u64) -> Kind {
    let mut register = RegisterNode { boot_nonce, ..RegisterNode::default() };
    register.set_node(node);
    Kind::register_node(register)
}

fn node(slots: u32) -> Node {
    let mut node = Node { node_id: "n".into(), ..Node::default() };
    node.mut_capacity().slots = slots;
    node
}

#[test]
fn the_same_boot_is_the_same_incarnation_and_a_new_boot_ends_all_leases() {
    let mut world = World::with_nodes();
    let first = world.register("node-a", 1);
    assert_eq!(first.outcome, Outcome::EXISTING);
    let epoch = world.running("t", |_| ());
    world.running("stopping", |_| ());
    world.ok(cancel("stopping", false));
    assert_eq!(world.register("node-a", 1).number, first.number);
    assert_eq!(world.row("t").open_epoch, epoch, "the same process keeps its leases");
    let second = world.register("node-a", 2);
    assert_eq!(second.outcome, Outcome::OK);
    assert!(second.number > first.number);
    let row = world.row("t");
    assert_eq!((row.get_task().status, row.get_task().phase), (TaskStatus::PENDING, Phase::PHASE_BACKOFF));
    assert_eq!((row.infrastructure_failures, row.user_failures), (1, 0));
    assert_eq!(world.task("stopping").phase, Phase::PHASE_CANCELLED);
    assert_eq!(world.node("node-a").active_tasks, 0);
    world.must(report("t", epoch, TaskStatus::COMPLETED, |_| ()), Outcome::STALE_LEASE);
    world.assign("t", "node-a");
}

fn started(boot_nonce: u64, generation: u64) -> Kind {
    let register = RegisterNode { boot_nonce, generation, ..RegisterNode::default() };
    match self::register(node(4), boot_nonce) {
        Kind::register_node(known) => Kind::register_node(RegisterNode { node: known.node, ..register }),
        other => other,
    }
}

#[test]
fn a_process_that_was_started_before_does_not_take_the_newer_ones_place() {
    for (version, is_refused) in [(4, true), (3, false)] {
        let mut world = World::new();
        world.ok(Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() }));
        world.ok(started(2, 20));
        let node_id = node(4).node_id;
        world.submit("t");
        world.assign("t", &node_id);
        // Its first heartbeat was on its way all the time.
        let outcome = world.run(started(1, 19)).outcome;
        assert_eq!(outcome, if is_refused { Outcome::STALE } else { Outcome::OK });
        assert_eq!(world.task("t").status == TaskStatus::ASSIGNED, is_refused, "version {version}");
    }
}

#[test]
fn generations_order_nothing_else() {
    let mut world = World::new();
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 4, ..SetMachineVersion::default() }));
    world.ok(started(1, 20));
    // The same process; one of the same moment; agents without a number, before and after.
    world.must(started(1, 19), Outcome::EXISTING);
    world.ok(started(2, 19));
    world.ok(started(3, 20));
    world.ok(started(4, 20));
    world.ok(started(5, 0));
    world.ok(started(6, 3));
    // Another machine of that name, whose clock is behind, once the first is silent; not while it only has a problem.
    world.must(started(7, 2), Outcome::STALE);
    let incarnation = world.node("n").incarnation;
    let unhealthy = |problem: &str| {
        Kind::node_status_change(NodeStatusChange {
            node_id: "n".to_owned(),
            incarnation,
            status: NodeStatus::UNHEALTHY,
            problem: problem.to_owned(),
            ..NodeStatusChange::default()
        })
    };
    world.ok(unhealthy("its disk is full"));
    world.must(started(7, 2), Outcome::STALE);
    world.ok(unhealthy(""));
    world.ok(started(7, 2));
}

#[test]
fn a_registration_keeps_what_operators_and_leases_decided() {
    let mut world = World::new();
    world.ok(register(node(2), 1));
    world.ok(submit("t", |spec| spec.mut_resources().slots = 2));
    world.assign("t", "n");
    let draining =
        SetEligibility { node_id: "n".into(), eligibility: Eligibility::DRAINING, ..SetEligibility::default() };
    world.ok(Kind::set_eligibility(draining));
    let mut shrunk = node(1);
    shrunk.allocated = Default::default();
    shrunk.eligibility = Eligibility::ELIGIBLE;
    shrunk.region = "eu".into();
    world.must(register(shrunk.clone(), 1), Outcome::EXISTING);
    let after = world.node("n");
    assert_eq!((after.get_capacity().slots, after.get_allocated().slots), (2, 2), "not below what it runs");
    assert_eq!((after.eligibility, after.region.as_str()), (Eligibility::DRAINING, "eu"));
    world.ok(register(shrunk, 2));
    assert_eq!((world.node("n").get_capacity().slots, world.node("n").get_allocated().slots), (1, 0));
    assert_eq!(world.node("n").eligibility, Eligibility::DRAINING);
}

#[test]
fn an_agent_that_names_no_capacity_gets_the_default() {
    let mut world = World::new();
    let mut bare = Node { node_id: "n".into(), cpu_usage: f64::NAN, ..Node::default() };
    bare.gpus = vec![Gpu::default(), Gpu::default()].into();
    world.ok(register(bare, 0));
    let node = world.node("n");
    assert_eq!((node.get_capacity().slots, node.get_capacity().gpus), (8, 2));
    assert_eq!((node.last_heartbeat, node.cpu_usage), (1_700_000_000, 0.0));
}

#[test]
fn a_registration_that_is_wrong_names_the_field() {
    let mut world = World::new();
    let with = |change: &dyn Fn(&mut Node)| {
        let mut node = node(1);
        change(&mut node);
        register(node, 1)
    };
    let cases = [
        (with(&|n| n.node_id.clear()), "node.node_id"),
        (with(&|n| n.node_id = "a\nb".into()), "node.node_id"),
        (with(&|n| n.address = "x".repeat(5_000)), "node.address"),
        (with(&|n| n.labels = vec![Label::default(); 65].into()), "node.labels"),
        (with(&|n| n.mut_capacity().slots = 5_000), "node.capacity.slots"),
    ];
    for (kind, field) in cases {
        let reply = world.must(kind, Outcome::INVALID);
        assert!(reply.message.starts_with(&format!("{field}:")), "{}", reply.message);
    }
}

#[test]
fn a_word_of_an_older_incarnation_is_refused() {
    let mut world = World::with_nodes();
    let old = world.node("node-a").incarnation;
    let current = world.register("node-a", 9).number;
    let change = |incarnation| {
        Kind::node_status_change(NodeStatusChange {
            node_id: "node-a".into(),
            incarnation,
            status: NodeStatus::UNHEALTHY,
            ..Default::default()
        })
    };
    let leave =
        |incarnation| Kind::deregister(Deregister { node_id: "node-a".into(), incarnation, ..Deregister::default() });
    world.must(change(old), Outcome::PRECONDITION);
    world.must(leave(old), Outcome::PRECONDITION);
    assert_eq!(world.node("node-a").status, NodeStatus::HEALTHY);
    world.ok(change(current));
    assert_eq!(world.node("node-a").status, NodeStatus::UNHEALTHY);
    world.ok(leave(current));
    world.must(leave(current), Outcome::NOT_FOUND);
    world.must(change(current), Outcome::NOT_FOUND);
}

#[test]
fn a_node_that_leaves_gives_its_tasks_back() {
    let mut world = World::with_nodes();
    world.running("t", |_| ());
    let incarnation = world.node("node-a").incarnation;
    world.ok(Kind::deregister(Deregister { node_id: "node-a".into(), incarnation, ..Deregister::default() }));
    assert_eq!((world.task("t").status, world.row("t").infrastructure_failures), (TaskStatus::PENDING, 1));
    assert!(world.register("node-a", 1).number > incarnation, "a node that comes back is a new incarnation");
}

#[test]
fn a_load_report_touches_known_nodes_only_and_time_never_falls() {
    let mut world = World::with_nodes();
    let load = |node_id: &str, cpu_usage, last_heartbeat| NodeLoad {
        node_id: node_id.into(),
        cpu_usage,
        memory_usage: 1.0,
        last_heartbeat,
        ..NodeLoad::default()
    };
    let loads = vec![load("node-a", 50.0, 1_800_000_000), load("nobody", 1.0, 1), load("node-b", f64::INFINITY, 5)];
    world.ok(Kind::load_report(LoadReport { loads: loads.into(), ..LoadReport::default() }));
    assert_eq!((world.node("node-a").cpu_usage, world.node("node-a").last_heartbeat), (50.0, 1_800_000_000));
    assert_eq!((world.node("node-b").cpu_usage, world.node("node-b").last_heartbeat), (0.0, 1_700_000_000));
    let many = vec![NodeLoad::default(); 5_000];
    world.must(Kind::load_report(LoadReport { loads: many.into(), ..LoadReport::default() }), Outcome::INVALID);
}
