//! Queues: whose turn it is, and what each may hold.

use crate::world::*;

fn count(world: &mut World, per_queue: u64) -> (usize, usize) {
    for task in 1..=per_queue {
        world.waits(task, |spec| spec.queue = "one".into());
        world.waits(1_000 + task, |spec| spec.queue = "two".into());
    }
    let placed = world.tasks();
    let one = placed.iter().filter(|task| **task < 1_000).count();
    (one, placed.len() - one)
}

#[test]
fn queues_share_by_their_weights() {
    let mut world = World::with(&[12]);
    world.queue("one", |queue| queue.weight = 2);
    world.queue("two", |queue| queue.weight = 1);
    assert_eq!(count(&mut world, 20), (8, 4));
}

#[test]
fn a_queue_without_work_leaves_its_share_to_others() {
    let mut world = World::with(&[12]);
    world.queue("one", |queue| queue.weight = 100);
    for task in 1..=20 {
        world.waits(task, |spec| spec.queue = "two".into());
    }
    assert_eq!(world.tasks().len(), 12);
}

#[test]
fn the_dominant_resource_counts() {
    let mut world = World::default();
    world.node("a", |node| {
        node.mut_capacity().slots = 100;
        node.mut_capacity().cpu_milli = 9_000;
        node.mut_capacity().memory_bytes = 18;
    });
    // The example of the DRF paper: 9 CPUs and 18 GB; tasks of (1 CPU, 4 GB) and of (3 CPUs, 1 GB) end at 3 and 2.
    for task in 1..=10 {
        world.waits(task, |spec| {
            spec.queue = "one".into();
            (spec.mut_resources().cpu_milli, spec.mut_resources().memory_bytes) = (1_000, 4);
        });
        world.waits(1_000 + task, |spec| {
            spec.queue = "two".into();
            (spec.mut_resources().cpu_milli, spec.mut_resources().memory_bytes) = (3_000, 1);
        });
    }
    let placed = world.tasks();
    let one = placed.iter().filter(|task| **task < 1_000).count();
    assert_eq!((one, placed.len() - one), (3, 2));
}

#[test]
fn a_quota_stops_its_queue_and_nobody_else() {
    let mut world = World::with(&[12]);
    world.queue("one", |queue| queue.max_running = 3);
    world.queue("two", |queue| queue.mut_quota().slots = 4);
    assert_eq!(count(&mut world, 10), (3, 4));
    world.waits(5_000, |_| ());
    assert_eq!(world.placed(), [at(5_000, "a")]);
    // What ends makes room, and a larger quota does.
    world.planner.let_go(1);
    assert_eq!(world.tasks(), [4]);
    world.queue("two", |queue| queue.mut_quota().slots = 6);
    assert_eq!(world.tasks().len(), 2);
}

#[test]
fn a_task_that_fits_the_quota_passes_one_that_does_not() {
    let mut world = World::with(&[12]);
    world.queue("one", |queue| queue.mut_quota().slots = 4);
    let of = |slots: u32| {
        move |spec: &mut raftgrid_proto::v1::TaskSpec| {
            spec.queue = "one".into();
            spec.mut_resources().slots = slots;
        }
    };
    world.waits(1, of(5));
    world.waits(2, of(3));
    world.waits(3, of(2));
    world.waits(4, of(1));
    assert_eq!(world.tasks(), [2, 4]);
}
