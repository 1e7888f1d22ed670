//! Suspend, resume, requeue, priority: what people do to the place of a task.

mod common;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn world() -> World {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 3, ..SetMachineVersion::default() }));
    world
}

fn state(world: &World, id: &str) -> (TaskStatus, Phase) {
    let task = world.task(id);
    (task.status, task.phase)
}

#[test]
fn a_cluster_of_an_older_version_refuses_them() {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 2, ..SetMachineVersion::default() }));
    world.submit("t");
    for kind in [suspend("t"), resume("t"), requeue("t"), set_priority("t", 1)] {
        let reply = world.must(kind, Outcome::PRECONDITION);
        assert!(reply.message.contains("needs machine version 3"), "{}", reply.message);
    }
    assert_eq!(state(&world, "t"), (TaskStatus::PENDING, Phase::PHASE_QUEUED));
}

#[test]
fn a_waiting_task_is_suspended_at_once_and_resumed_into_the_queue() {
    let mut world = world();
    world.submit("t");
    world.ok(suspend("t"));
    assert_eq!(state(&world, "t"), (TaskStatus::PENDING, Phase::PHASE_SUSPENDED));
    world.must(suspend("t"), Outcome::EXISTING);
    world.must(requeue("t"), Outcome::PRECONDITION);
    let why = views::explain_task(&world.rows, "t").expect("memory").expect("there");
    assert!(why.summary.contains("waits to be resumed"), "{}", why.summary);
    world.must(assign(&[("t", "node-a")]), Outcome::PRECONDITION);
    world.ok(resume("t"));
    assert_eq!(state(&world, "t"), (TaskStatus::PENDING, Phase::PHASE_QUEUED));
    world.must(resume("t"), Outcome::EXISTING);
    world.assign("t", "node-a");
}

#[test]
fn a_running_task_is_stopped_first_and_whatever_ends_its_lease_suspends_it() {
    for how in ["reported", "expired", "given back", "the grace is over"] {
        let mut world = world();
        let epoch = world.running("t", |_| ());
        world.ok(suspend("t"));
        assert_eq!(state(&world, "t"), (TaskStatus::RUNNING, Phase::PHASE_STOPPING), "{how}");
        world.must(suspend("t"), Outcome::EXISTING);
        match how {
            "reported" => world.ok(report("t", epoch, TaskStatus::FAILED, |_| ())),
            "expired" => world.ok(expire("t", epoch)),
            "given back" => world.ok(report("t", epoch, TaskStatus::FAILED, |r| r.infrastructure = true)),
            _ => world.ok(cancel("t", true)),
        };
        assert_eq!(state(&world, "t"), (TaskStatus::PENDING, Phase::PHASE_SUSPENDED), "{how}");
        let row = world.row("t");
        assert_eq!((row.user_failures, row.infrastructure_failures, row.open_epoch), (0, 0, 0), "{how}");
        assert_eq!(world.node("node-a").active_tasks, 0, "{how}");
        world.ok(resume("t"));
        world.assign("t", "node-b");
        assert_eq!(world.task("t").attempt, 2, "{how}");
    }
}

#[test]
fn what_succeeds_while_it_is_stopped_has_succeeded() {
    let mut world = world();
    let epoch = world.running("t", |_| ());
    world.ok(suspend("t"));
    world.ok(report("t", epoch, TaskStatus::COMPLETED, |_| ()));
    assert_eq!(state(&world, "t"), (TaskStatus::COMPLETED, Phase::PHASE_SUCCEEDED));
    for kind in [suspend("t"), resume("t"), requeue("t"), set_priority("t", 5)] {
        world.must(kind, Outcome::PRECONDITION);
    }
}

#[test]
fn a_requeued_task_goes_back_to_the_queue_and_counts_no_failure() {
    let mut world = world();
    let epoch = world.running("t", |_| ());
    world.ok(requeue("t"));
    world.must(requeue("t"), Outcome::EXISTING);
    world.ok(expire("t", epoch));
    assert_eq!(state(&world, "t"), (TaskStatus::PENDING, Phase::PHASE_QUEUED));
    assert_eq!(world.row("t").infrastructure_failures, 0);
    // A task that rests after a failure need not wait.
    let epoch = world.assign("t", "node-a");
    world.ok(report("t", epoch, TaskStatus::FAILED, |_| ()));
    assert_eq!(world.task("t").phase, Phase::PHASE_BACKOFF);
    world.ok(requeue("t"));
    assert_eq!(state(&world, "t"), (TaskStatus::PENDING, Phase::PHASE_QUEUED));
    assert_eq!(world.row("t").user_failures, 1, "what was counted stays");
}

#[test]
fn a_task_resumed_before_it_has_stopped_is_queued_when_it_has() {
    let mut world = world();
    let epoch = world.running("t", |_| ());
    world.ok(suspend("t"));
    world.ok(resume("t"));
    world.ok(expire("t", epoch));
    assert_eq!(state(&world, "t"), (TaskStatus::PENDING, Phase::PHASE_QUEUED));
}

#[test]
fn a_cancel_wins_over_a_suspension_and_not_the_other_way_round() {
    let mut world = world();
    let epoch = world.running("t", |_| ());
    world.ok(suspend("t"));
    world.ok(cancel("t", false));
    for kind in [suspend("t"), resume("t"), requeue("t")] {
        world.must(kind, Outcome::PRECONDITION);
    }
    world.ok(expire("t", epoch));
    assert_eq!(state(&world, "t"), (TaskStatus::FAILED, Phase::PHASE_CANCELLED));
    // A suspended one has no process that would have to be waited for.
    world.submit("u");
    world.ok(suspend("u"));
    world.ok(cancel("u", false));
    assert_eq!(state(&world, "u"), (TaskStatus::FAILED, Phase::PHASE_CANCELLED));
}

#[test]
fn a_suspended_task_whose_deadline_passes_ends_by_it() {
    let mut world = world();
    let deadline = world.now_ms + 1_000;
    let epoch = world.running("t", |spec| spec.deadline_unix_ms = deadline);
    world.ok(suspend("t"));
    world.now_ms += 2_000;
    world.ok(expire("t", epoch));
    assert_eq!(state(&world, "t"), (TaskStatus::FAILED, Phase::PHASE_DEADLINE));
}

#[test]
fn a_priority_is_checked_and_changes_nothing_else() {
    let mut world = world();
    world.submit("t");
    for wrong in [-1, 101] {
        assert!(world.must(set_priority("t", wrong), Outcome::INVALID).message.starts_with("priority:"));
    }
    world.must(set_priority("u", 1), Outcome::NOT_FOUND);
    let before = world.task("t");
    world.ok(set_priority("t", 70));
    world.must(set_priority("t", 70), Outcome::EXISTING);
    let mut after = world.task("t");
    assert_eq!(after.get_spec().priority, 70);
    after.mut_spec().priority = before.get_spec().priority;
    assert_eq!((after.phase, after.attempt, after.task_data), (before.phase, before.attempt, before.task_data));
    // The same submission again is still the same one.
    world.must(submit("t", |_| ()), Outcome::EXISTING);
}
