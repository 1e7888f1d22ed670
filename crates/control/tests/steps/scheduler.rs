//! Which task goes where, in which order, and when again.

use raftgrid_control::{Action, Beat, Input};
use raftgrid_manifest::Table;
use raftgrid_proto::v1::{CommandReply, Command_oneof_kind as Kind, NodeStatus, Outcome, Phase, TaskStatus};

use crate::world::*;

fn placed(actions: &[Action]) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for kind in commands(actions) {
        if let Kind::assign(assign) = kind {
            assert_eq!(assign.assignments.len(), 1, "one Assign a task: one that is refused holds nobody up");
            list.push((assign.assignments[0].task_id.clone(), assign.assignments[0].node_id.clone()));
        }
    }
    list
}

fn pair(task: &str, node: &str) -> (String, String) {
    (task.to_owned(), node.to_owned())
}

#[test]
fn tasks_go_to_the_least_loaded_node() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.live_node("node-1");
    let mut busy = node_row("node-0", NodeStatus::HEALTHY);
    busy.mut_node().active_tasks = 2;
    busy.mut_node().mut_allocated().slots = 2;
    busy.open_tasks = 2;
    world.put(Table::Node, b"node-0".to_vec(), &busy);
    for sequence in 1..=4 {
        world.task(pending(sequence));
    }
    let expected = [("task-1", "node-1"), ("task-2", "node-1"), ("task-3", "node-0"), ("task-4", "node-1")];
    let actions = world.step(vec![]);
    assert_eq!(placed(&actions), expected.map(|(task, node)| pair(task, node)));
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Propose { .. })).count(), 1, "one proposal");
}

#[test]
fn equal_nodes_are_told_apart_by_their_newest_load_then_by_id() {
    let mut world = World::settled();
    for (node, cpu) in [("node-0", 0.9), ("node-1", 0.1), ("node-2", 0.1)] {
        world.node(node);
        world.beat(Beat { cpu_usage: cpu, ..beat(node) });
    }
    for sequence in 1..=3 {
        world.task(pending(sequence));
    }
    let expected = vec![pair("task-1", "node-1"), pair("task-2", "node-2"), pair("task-3", "node-0")];
    assert_eq!(placed(&world.step(vec![])), expected);
}

#[test]
fn nothing_is_placed_beyond_capacity_and_proposals_under_way_count() {
    let mut world = World::settled();
    world.live_node("node-0");
    for sequence in 1..=10 {
        world.task(pending(sequence));
    }
    let first = world.step(vec![]);
    assert_eq!(placed(&first).len(), 8);
    world.task(pending(11));
    assert_eq!(placed(&world.step(vec![])), vec![], "8 are under way to 8 slots");
    // All refused: their room is free at once for others, and for themselves after the pause.
    let refusal = CommandReply { outcome: Outcome::PRECONDITION, ..CommandReply::default() };
    let others = world.step(vec![Input::Proposed { tag: tags(&first)[0], replies: Some(vec![refusal; 8]) }]);
    assert_eq!(placed(&others).len(), 3);
    world.now += 100;
    assert_eq!(placed(&world.step(vec![])).len(), 5);
}

#[test]
fn higher_priority_goes_first_until_waiting_outweighs_it() {
    let mut world = World::settled();
    let with = |sequence: u64, priority: i32, waited_s: u64| {
        let mut row = pending(sequence);
        row.mut_task().mut_spec().priority = priority;
        row.submitted_at_ms = CLUSTER_MS - waited_s * 1_000;
        row
    };
    world.node("node-0");
    world.task(with(1, 0, 0));
    world.task(with(2, 10, 0));
    world.task(with(3, 0, 10 * 30 + 1));
    world.task(with(4, 10, 0));
    let (_, inputs) = world.beat_input(beat("node-0"));
    let order: Vec<String> = placed(&world.step(inputs)).into_iter().map(|(task, _)| task).collect();
    assert_eq!(order, ["task-3", "task-2", "task-4", "task-1"]);
}

#[test]
fn a_silent_or_unhealthy_node_gets_nothing() {
    let mut world = World::settled();
    world.node("node-0");
    world.live_node("node-1");
    world.put(Table::Node, b"node-1".to_vec(), &node_row("node-1", NodeStatus::UNHEALTHY));
    world.task(pending(1));
    assert_eq!(placed(&world.step(vec![])), vec![], "node-0 was never heard, node-1 is unhealthy");
    let (_, inputs) = world.beat_input(beat("node-0"));
    assert_eq!(placed(&world.step(inputs)), vec![pair("task-1", "node-0")], "in reach again");
}

#[test]
fn a_task_in_backoff_waits_for_its_time_on_the_clusters_clock() {
    let mut world = World::settled();
    world.live_node("node-0");
    let mut row = pending(1);
    row.mut_task().phase = Phase::PHASE_BACKOFF;
    // Cluster time stood at CLUSTER_MS when the leader's clock showed START.
    row.not_before_ms = CLUSTER_MS + (world.now - START) + 400;
    world.task(row);
    let now = world.now;
    assert_eq!(placed(&world.at(now + 399)), vec![]);
    assert_eq!(placed(&world.at(now + 400)), vec![pair("task-1", "node-0")]);
}

#[test]
fn a_task_that_came_back_before_the_reply_to_its_assignment_is_placed_when_that_comes() {
    // Found by the simulator: in a cluster in which nothing else happened, it waited for ever.
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(pending(1));
    let actions = world.step(vec![]);
    let tag = tags(&actions)[0];
    world.task(running(1, "node-0", 1_000));
    world.step(vec![]);
    let mut given_back = pending(1);
    given_back.mut_task().phase = Phase::PHASE_BACKOFF;
    given_back.mut_task().lease_epoch = 1_000;
    given_back.not_before_ms = 1;
    world.task(given_back);
    assert_eq!(placed(&world.step(vec![])), vec![], "its proposal is under way");
    assert_eq!(placed(&world.step(vec![accepted(tag, 1)])), vec![pair("task-1", "node-0")]);
}

#[test]
fn blocked_suspended_and_finished_tasks_are_left_alone() {
    let mut world = World::settled();
    world.live_node("node-0");
    for (sequence, phase) in [(1, Phase::PHASE_BLOCKED), (2, Phase::PHASE_SUSPENDED)] {
        let mut row = pending(sequence);
        row.mut_task().phase = phase;
        world.task(row);
    }
    let mut done = pending(3);
    done.mut_task().status = TaskStatus::COMPLETED;
    done.mut_task().phase = Phase::PHASE_SUCCEEDED;
    world.task(done);
    assert_eq!(placed(&world.step(vec![])), vec![]);
}

/// An attempt of task `sequence` under `epoch` ends on the node, and the task waits again.
fn fails_on(world: &mut World, sequence: u64, node_id: &str, epoch: u64) {
    world.task(running(sequence, node_id, epoch));
    world.step(vec![]);
    world.task(pending(sequence));
}

fn loaded(world: &mut World, node_id: &str, active: i32) {
    let mut row = node_row(node_id, NodeStatus::HEALTHY);
    row.mut_node().active_tasks = active;
    row.mut_node().mut_allocated().slots = active as u32;
    row.open_tasks = active as u32;
    world.put(Table::Node, node_id.as_bytes().to_vec(), &row);
}

#[test]
fn a_task_is_kept_away_from_every_node_that_failed_it_while_another_is_free() {
    let mut world = World::settled();
    for node in ["node-0", "node-1", "node-2"] {
        world.live_node(node);
    }
    // The busiest is the only one that did not fail it.
    loaded(&mut world, "node-2", 7);
    fails_on(&mut world, 1, "node-0", 11);
    fails_on(&mut world, 1, "node-1", 12);
    assert_eq!(placed(&world.step(vec![])), vec![pair("task-1", "node-2")]);
}

#[test]
fn nodes_that_failed_a_task_are_better_than_none_and_the_oldest_failure_comes_first() {
    let mut world = World::settled();
    for node in ["node-0", "node-1", "node-2"] {
        world.live_node(node);
    }
    loaded(&mut world, "node-2", 8);
    fails_on(&mut world, 1, "node-1", 11);
    fails_on(&mut world, 1, "node-0", 12);
    // node-2 is full: node-1 failed it earlier than node-0 did.
    assert_eq!(placed(&world.step(vec![])), vec![pair("task-1", "node-1")]);
    let mut alone = World::settled();
    alone.live_node("node-0");
    fails_on(&mut alone, 1, "node-0", 11);
    assert_eq!(placed(&alone.step(vec![])), vec![pair("task-1", "node-0")]);
}

#[test]
fn a_failure_of_one_task_says_nothing_about_another() {
    let mut world = World::settled();
    for node in ["node-0", "node-1"] {
        world.live_node(node);
    }
    loaded(&mut world, "node-1", 3);
    fails_on(&mut world, 1, "node-0", 11);
    world.task(pending(2));
    assert_eq!(placed(&world.step(vec![])), vec![pair("task-1", "node-1"), pair("task-2", "node-0")]);
}

#[test]
fn a_task_waits_for_a_node_that_has_what_its_type_needs() {
    let mut world = World::settled();
    for node in ["node-0", "node-1"] {
        world.live_node(node);
    }
    loaded(&mut world, "node-1", 8);
    let mut row = node_row("node-0", NodeStatus::HEALTHY);
    row.mut_node().unable.push("train".into());
    world.put(Table::Node, b"node-0".to_vec(), &row);
    let mut train = pending(1);
    train.mut_task().task_type = "train".into();
    world.task(train);
    world.task(pending(2));
    assert_eq!(placed(&world.step(vec![])), vec![pair("task-2", "node-0")]);
    loaded(&mut world, "node-1", 7);
    assert_eq!(placed(&world.step(vec![])), vec![pair("task-1", "node-1")]);
}
