//! What a task's row remembers of its attempts, and the timeline that people are shown.

mod common;

use common::*;
use raftgrid_manifest::limits::ATTEMPTS_KEPT_MAX;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn world(version: u64) -> World {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() }));
    world
}

/// (milliseconds since the submission, what, attempt, node, detail)
fn timeline(world: &World, id: &str) -> Vec<(u64, String, u32, String, String)> {
    let answer = views::explain_task(&world.rows, id).expect("memory").expect("there");
    let begin = answer.timeline[0].at_ms;
    let told = answer
        .timeline
        .into_iter()
        .map(|event| (event.at_ms - begin, event.what.clone(), event.attempt, event.node_id.clone(), event.detail));
    told.collect()
}

fn event(at: u64, what: &str, attempt: u32, node: &str, detail: &str) -> (u64, String, u32, String, String) {
    (at, what.to_owned(), attempt, node.to_owned(), detail.to_owned())
}

#[test]
fn every_attempt_of_a_task_that_is_over_is_told_with_node_time_and_end() {
    let mut world = world(3);
    world.ok(submit("t", |_| ()));
    world.now_ms += 10;
    let first = world.assign("t", "node-a");
    world.now_ms += 10;
    world.ok(start("t", first));
    world.now_ms += 10;
    world.ok(report("t", first, TaskStatus::FAILED, |report| report.reason = "exit code 1".into()));
    world.now_ms += 1_000;
    let second = world.assign("t", "node-b");
    world.now_ms += 10;
    world.ok(expire("t", second));
    world.now_ms += 1_000;
    let third = world.assign("t", "node-c");
    world.now_ms += 10;
    world.ok(start("t", third));
    world.now_ms += 10;
    world.ok(report("t", third, TaskStatus::COMPLETED, |_| ()));
    assert_eq!(
        timeline(&world, "t"),
        [
            event(0, "submitted", 0, "", ""),
            event(10, "assigned", 1, "node-a", ""),
            event(20, "started", 1, "node-a", ""),
            event(30, "failed", 1, "node-a", "exit code 1"),
            event(1_030, "assigned", 2, "node-b", ""),
            event(1_040, "lost", 2, "node-b", "lease expired"),
            event(2_040, "assigned", 3, "node-c", ""),
            event(2_050, "started", 3, "node-c", ""),
            event(2_060, "completed", 3, "node-c", ""),
        ]
    );
}

#[test]
fn a_stop_says_what_it_is_for_and_an_end_without_an_attempt_is_told_too() {
    let mut world = world(3);
    let epoch = world.running("t", |_| ());
    world.ok(suspend("t"));
    let told = timeline(&world, "t");
    let (_, what, attempt, node, _) = told.last().expect("events");
    assert_eq!((what.as_str(), *attempt, node.as_str()), ("stopping", 1, "node-a"));
    world.ok(report("t", epoch, TaskStatus::FAILED, |_| ()));
    let (_, what, attempt, node, detail) = timeline(&world, "t").pop().expect("events");
    assert_eq!((what.as_str(), attempt, node.as_str(), detail.as_str()), ("suspended", 1, "node-a", "suspended"));
    world.now_ms += 2_000;
    world.ok(cancel("t", false));
    let (_, what, attempt, ..) = timeline(&world, "t").pop().expect("events");
    assert_eq!((what.as_str(), attempt), ("cancelled", 0));
}

#[test]
fn only_the_newest_attempts_are_kept_and_the_count_goes_on() {
    let mut world = world(3);
    world.ok(submit("t", |_| ()));
    for _ in 0..ATTEMPTS_KEPT_MAX + 3 {
        let epoch = world.assign("t", "node-a");
        world.ok(expire("t", epoch));
        world.now_ms += 1_000;
    }
    let row = world.row("t");
    let kept: Vec<u32> = row.attempts.iter().map(|record| record.attempt).collect();
    assert_eq!(kept, (4..=ATTEMPTS_KEPT_MAX as u32 + 3).collect::<Vec<_>>());
    assert_eq!(row.get_task().attempt as usize, ATTEMPTS_KEPT_MAX + 3);
}

#[test]
fn below_its_machine_version_rows_stay_as_an_older_replica_writes_them() {
    let mut world = world(2);
    let epoch = world.running("t", |_| ());
    world.ok(report("t", epoch, TaskStatus::COMPLETED, |_| ()));
    assert!(world.row("t").attempts.is_empty());
}
