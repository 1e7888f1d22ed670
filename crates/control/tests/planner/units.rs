//! Single tasks and gangs: what goes where, what waits for what, who holds.

use raftgrid_control::{Placement, Planner};
use raftgrid_proto::v1::{Affinity, Preference};

use crate::world::*;

#[test]
fn nothing_waits_behind_what_cannot_be_placed() {
    let mut world = World::with(&[2, 2]);
    // More shapes that fit nowhere than one pass looks at, all before the one that fits.
    let before = 3 * raftgrid_control::limits::PASS_PROBES_MAX as u64;
    for sequence in 1..=before {
        world.waits(sequence, |spec| {
            spec.priority = 100;
            spec.constraints.push(equal("rack", &format!("{sequence}")));
        });
    }
    world.waits(before + 1, |_| ());
    let mut placed = Vec::new();
    for _ in 0..before {
        let plan = world.plan();
        placed.extend(plan.placements);
        if !plan.more {
            break;
        }
    }
    assert_eq!(placed, [Placement { gang: None, tasks: vec![at(before + 1, "a")] }]);
    assert!(!world.planner.has_work(), "it has come to rest");
}

#[test]
fn a_search_that_failed_finds_the_node_that_improved() {
    let mut world = World::with(&[1, 1]);
    let (mut a, mut b) = (empty("a", 1), empty("b", 1));
    world.runs(1, &mut a, |_| ());
    world.runs(2, &mut b, |_| ());
    world.waits(3, |_| ());
    world.waits(4, slots(2));
    assert_eq!(world.placed(), []);
    world.planner.let_go(2);
    world.planner.put_node(&empty("b", 1), true);
    assert_eq!(world.placed(), [at(3, "b")]);
    // A larger node of the same name.
    world.planner.let_go(1);
    world.planner.put_node(&empty("a", 2), true);
    assert_eq!(world.placed(), [at(4, "a")]);
}

#[test]
fn a_silent_node_is_passed_over_until_it_is_heard() {
    let mut world = World::with(&[4, 1]);
    (1..=2).for_each(|task| world.waits(task, |_| ()));
    let plan = world.planner.plan(0, 256, &mut Heard { silent: "a" });
    let placed: Vec<_> = plan.placements.into_iter().flat_map(|one| one.tasks).collect();
    assert_eq!(placed, [at(1, "b")]);
    world.planner.put_node(&empty("a", 4), true);
    assert_eq!(world.placed(), [at(2, "a")]);
}

#[test]
fn a_gang_takes_as_many_members_as_fit_and_none_below_its_least() {
    let mut world = World::with(&[2, 1]);
    world.gang(1, 1, (4, 4), |_| ());
    assert_eq!(world.placed(), []);
    let mut world = World::with(&[2, 1]);
    world.gang(1, 1, (2, 4), |_| ());
    let plan = world.plan();
    assert_eq!(plan.placements.len(), 1, "one Assign");
    assert_eq!(plan.placements[0].gang, Some(1));
    assert_eq!(plan.placements[0].tasks.len(), 3);
    assert_eq!(world.placed(), [], "the fourth comes too late");
}

#[test]
fn a_gang_waits_for_members_that_still_stop_or_rest() {
    let mut world = World::with(&[4]);
    world.planner.add_task(&member(1, 1, 0, (2, 2), &|_| ()));
    assert_eq!(world.placed(), []);
    let mut node = empty("a", 4);
    world.lease(&mut member(1, 1, 1, (2, 2), &|_| ()), &mut node);
    assert_eq!(world.placed(), [], "the second runs yet");
    world.planner.let_go(2);
    world.planner.add_task(&member(1, 1, 1, (2, 2), &|_| ()));
    assert_eq!(world.tasks(), [1, 2]);
}

#[test]
fn slots_that_get_free_are_kept_for_the_gang_and_not_for_small_tasks_behind_it() {
    let mut world = World::with(&[]);
    let mut nodes = [empty("a", 2), empty("b", 2)];
    for (n, node) in nodes.iter_mut().enumerate() {
        for task in 0..2 {
            world.runs(100 + 10 * n as u64 + task, node, |_| ());
        }
    }
    world.gang(1, 1, (4, 4), |_| ());
    (50..60).for_each(|task| world.waits(task, |_| ()));
    assert_eq!(world.placed(), []);
    for (ended, left) in [(100, 1), (101, 0)] {
        world.planner.let_go(ended);
        nodes[0].mut_allocated().slots = left;
        nodes[0].active_tasks = left as i32;
        world.planner.put_node(&nodes[0], true);
        assert_eq!(world.placed(), [], "held");
    }
    for (ended, left) in [(110, 1), (111, 0)] {
        world.planner.let_go(ended);
        nodes[1].mut_allocated().slots = left;
        nodes[1].active_tasks = left as i32;
        world.planner.put_node(&nodes[1], true);
    }
    assert_eq!(world.tasks(), [1, 2, 3, 4]);
}

#[test]
fn two_gangs_never_hold_halves_and_small_tasks_use_what_is_not_held() {
    let mut world = World::with(&[2, 2, 2]);
    let mut a = empty("a", 2);
    world.runs(900, &mut a, |_| ());
    world.gang(1, 1, (6, 6), |_| ());
    world.gang(2, 11, (6, 6), |_| ());
    assert_eq!(world.placed(), []);
    world.planner.let_go(900);
    world.planner.put_node(&empty("a", 2), true);
    assert_eq!(world.tasks(), [1, 2, 3, 4, 5, 6], "the first, whole");
    // One node is enough for the next; the others are for whoever comes.
    let mut world = World::with(&[4, 2]);
    let mut a = empty("a", 4);
    world.runs(900, &mut a, |_| ());
    world.gang(1, 1, (4, 4), slots(1));
    world.gang(2, 11, (6, 6), slots(1));
    world.waits(50, |_| ());
    let placed = world.placed();
    assert!(placed.len() == 4 && placed.iter().all(|(task, _)| *task < 5), "five slots are free: {placed:?}");
    assert_eq!(world.placed(), [], "and the last is held for the second gang");
}

#[test]
fn work_that_goes_before_a_gang_passes_its_hold() {
    let mut world = World::with(&[2]);
    let mut a = empty("a", 2);
    world.runs(900, &mut a, |_| ());
    world.gang(1, 1, (2, 2), |_| ());
    world.waits(50, |_| ());
    assert_eq!(world.placed(), [], "behind it");
    world.waits(51, |spec| spec.priority = 10);
    assert_eq!(world.placed(), [at(51, "a")]);
}

#[test]
fn a_large_task_that_waited_long_holds_a_node_and_small_ones_do_not_starve_it() {
    let mut world = World::with(&[2]);
    let mut a = empty("a", 2);
    world.runs(900, &mut a, |_| ());
    world.waits(1, slots(2));
    world.waits(2, |_| ());
    assert_eq!(world.placed(), [at(2, "a")], "it has not waited long");
    world.planner.let_go(2);
    world.now = 30_000;
    world.waits(3, |_| ());
    assert_eq!(world.placed(), [], "held");
    world.planner.let_go(900);
    world.planner.put_node(&empty("a", 2), true);
    assert_eq!(world.placed(), [at(1, "a")]);
}

#[test]
fn preferences_weigh_and_load_decides_between_equals() {
    let mut world = World::default();
    for (node, region) in [("a", "us"), ("b", "eu"), ("c", "eu")] {
        world.node(node, |node| {
            node.region = region.into();
            node.mut_capacity().slots = 4;
        });
    }
    let eu = |spec: &mut raftgrid_proto::v1::TaskSpec| {
        let mut preference = Preference { weight: 1, ..Preference::default() };
        preference.set_wanted(equal("region", "eu"));
        spec.preferences.push(preference);
    };
    (1..=3).for_each(|task| world.waits(task, eu));
    assert_eq!(world.placed(), [at(1, "b"), at(2, "c"), at(3, "b")]);
    // Soft: when the preferred are full, another will do.
    (4..=9).for_each(|task| world.waits(task, eu));
    assert_eq!(world.placed().last(), Some(&at(9, "a")));
}

#[test]
fn tasks_are_spread_over_the_values_of_an_attribute() {
    let mut world = World::default();
    for (node, region) in [("a", "eu"), ("b", "eu"), ("c", "us")] {
        world.node(node, |node| {
            node.region = region.into();
            node.mut_capacity().slots = 8;
        });
    }
    for task in 1..=6 {
        world.waits(task, |spec| {
            spec.spread_over = "region".into();
            spec.labels.push(label("app", "web"));
        });
    }
    let in_us = world.placed().iter().filter(|(_, node)| node == "c").count();
    assert_eq!(in_us, 3);
}

#[test]
fn affinities_bring_tasks_together_or_keep_them_apart() {
    let with = |anti: bool| {
        move |spec: &mut raftgrid_proto::v1::TaskSpec| {
            spec.labels.push(label("app", "db"));
            let mut affinity = Affinity { anti, hard: true, ..Affinity::default() };
            affinity.set_label(label("app", "db"));
            spec.affinities.push(affinity);
        }
    };
    let mut world = World::with(&[4, 4, 4]);
    (1..=4).for_each(|task| world.waits(task, with(true)));
    let placed = world.placed();
    assert_eq!(placed, [at(1, "a"), at(2, "b"), at(3, "c")], "the fourth has no node of its own");
    let mut world = World::with(&[2, 2, 2]);
    (1..=4).for_each(|task| world.waits(task, with(false)));
    assert_eq!(world.placed(), [at(1, "a"), at(2, "a")], "the others wait for room beside them");
}

#[test]
fn the_same_calls_give_the_same_plan() {
    let plan = || {
        let mut world = World::with(&[3, 5, 2, 4]);
        world.queue("q", |queue| queue.weight = 3);
        world.gang(1, 500, (3, 5), |_| ());
        for task in 1..40 {
            world.waits(task, |spec| {
                spec.priority = (task % 7) as i32;
                spec.mut_resources().slots = 1 + (task % 2) as u32;
                spec.queue = ["", "q"][(task % 3 == 0) as usize].into();
            });
        }
        world.placed()
    };
    assert_eq!(plan(), plan());
    let _: Planner = Planner::default();
}
