//! Who has to leave, and who never does.

use raftgrid_proto::v1::{Node, TaskSpec};

use crate::world::*;

fn preemptible(priority: i32) -> impl Fn(&mut TaskSpec) + Copy {
    move |spec| {
        spec.preemptible = true;
        spec.priority = priority;
    }
}

fn urgent(slots: u32) -> impl Fn(&mut TaskSpec) + Copy {
    move |spec| {
        spec.priority = 50;
        spec.mut_resources().slots = slots;
    }
}

#[test]
fn the_least_harm_is_chosen_by_a_total_order() {
    let mut world = World::default();
    let mut nodes = [empty("a", 2), empty("b", 2), empty("c", 1)];
    world.runs(1, &mut nodes[0], preemptible(5));
    world.runs(2, &mut nodes[0], preemptible(1));
    world.runs(3, &mut nodes[1], preemptible(1));
    world.runs(4, &mut nodes[1], preemptible(1));
    world.runs(5, &mut nodes[2], |_| ());
    world.waits(10, urgent(1));
    // Of equals on node a and b, the node's id; on a node the lowest priority.
    assert_eq!(world.plan().victims, [2]);
    assert!(world.plan().victims.is_empty(), "once");
}

#[test]
fn never_more_victims_than_needed() {
    let mut world = World::default();
    let mut a = empty("a", 6);
    for (task, size) in [(1, 1), (2, 1), (3, 3), (4, 1)] {
        world.runs(task, &mut a, |spec| {
            preemptible(1)(spec);
            spec.mut_resources().slots = size;
        });
    }
    // The newest first: 4, then 3. With 3 gone 4 may stay.
    world.waits(10, urgent(3));
    assert_eq!(world.plan().victims, [3]);
}

#[test]
fn equal_or_higher_priority_and_work_that_is_not_preemptible_are_left_alone() {
    let mut world = World::default();
    let mut a = empty("a", 3);
    world.runs(1, &mut a, preemptible(50));
    world.runs(2, &mut a, preemptible(60));
    world.runs(3, &mut a, |_| ());
    world.waits(10, urgent(1));
    assert!(world.plan().victims.is_empty());
}

#[test]
fn nobody_leaves_if_that_would_not_be_enough() {
    let mut world = World::default();
    let mut a = empty("a", 3);
    world.runs(1, &mut a, preemptible(1));
    world.runs(2, &mut a, |_| ());
    world.waits(10, urgent(3));
    assert!(world.plan().victims.is_empty());
}

#[test]
fn a_gang_leaves_as_a_whole_and_counts_as_more_harm() {
    let mut world = World::default();
    let mut nodes = [empty("a", 1), empty("b", 1), empty("c", 1)];
    for index in 0..2 {
        let mut row = member(7, 1, index, (2, 2), &preemptible(1));
        world.lease(&mut row, &mut nodes[index as usize]);
    }
    world.runs(5, &mut nodes[2], preemptible(1));
    world.waits(10, urgent(1));
    assert_eq!(world.plan().victims, [5], "one task rather than two");
    world.waits(11, |spec| {
        urgent(1)(spec);
        spec.constraints.push(equal("node", "a"));
    });
    assert_eq!(world.plan().victims, [1], "one order; the machine takes the gang");
}

#[test]
fn a_gang_makes_room_for_all_its_members_or_for_none() {
    let mut world = World::default();
    let mut nodes = [empty("a", 2), empty("b", 2)];
    let mut task = 100;
    for node in &mut nodes {
        for _ in 0..2 {
            world.runs(task, node, preemptible(1));
            task += 1;
        }
    }
    world.gang(1, 1, (3, 3), urgent(1));
    let victims = world.plan().victims;
    assert_eq!(victims.len(), 3, "{victims:?}");
    let mut world = World::default();
    let mut nodes = [empty("a", 2), empty("b", 2)];
    world.runs(100, &mut nodes[0], preemptible(1));
    world.runs(101, &mut nodes[0], preemptible(1));
    world.runs(102, &mut nodes[1], |_| ());
    world.runs(103, &mut nodes[1], |_| ());
    world.gang(1, 1, (3, 3), urgent(1));
    assert!(world.plan().victims.is_empty());
}

#[test]
fn what_a_victim_leaves_goes_to_whom_it_left_for() {
    let mut world = World::default();
    let mut a = empty("a", 1);
    world.runs(1, &mut a, preemptible(1));
    world.waits(10, urgent(1));
    assert_eq!(world.plan().victims, [1]);
    world.waits(5, |spec| spec.priority = 100);
    // It has left, and waits again.
    world.planner.let_go(1);
    world.waits(1, preemptible(1));
    world.planner.put_node(&empty("a", 1), true);
    assert_eq!(world.placed(), [at(10, "a")], "the node was emptied for this one");
    assert!(world.plan().victims.is_empty());
}

#[test]
fn a_queue_below_its_share_takes_from_one_above_and_they_never_take_turns() {
    let mut world = World::default();
    let mut a: Node = empty("a", 4);
    for task in 1..=4 {
        world.runs(task, &mut a, |spec| {
            preemptible(90)(spec);
            spec.queue = "rich".into();
        });
    }
    for task in 10..20 {
        world.waits(task, |spec| {
            preemptible(0)(spec);
            spec.queue = "poor".into();
        });
    }
    let mut moves = 0;
    for _ in 0..20 {
        let plan = world.plan();
        for victim in plan.victims {
            moves += 1;
            world.planner.let_go(victim);
            a.active_tasks -= 1;
            a.mut_allocated().slots -= 1;
            world.planner.put_node(&a, true);
            world.waits(victim, |spec| {
                preemptible(90)(spec);
                spec.queue = "rich".into();
            });
        }
        for (task, _) in plan.placements.into_iter().flat_map(|placement| placement.tasks) {
            let queue = if task < 10 { "rich" } else { "poor" };
            world.runs(task, &mut a, |spec| {
                preemptible(if task < 10 { 90 } else { 0 })(spec);
                spec.queue = queue.into();
            });
        }
    }
    assert_eq!(moves, 2, "two of four slots change hands, once");
}
