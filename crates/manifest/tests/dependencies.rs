//! Tasks that wait for others: when they run, when they never will, and how far one command goes.

mod common;

use common::*;
use raftgrid_manifest::limits::{DEPENDENCIES_MAX, DEPENDENTS_PER_COMMAND};
use raftgrid_manifest::{keys, views, Rows, Table};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, Condition::*, *};

use TaskStatus::{COMPLETED, FAILED};

fn resolve(task_sequence: u64) -> Kind {
    Kind::resolve_dependents(ResolveDependents { task_sequence, ..ResolveDependents::default() })
}

/// Tasks that are over while some that wait for them were not told.
fn left(world: &World) -> Vec<u64> {
    let mut left = Vec::new();
    let (from, to) = (keys::number(0), keys::number(1));
    let seen = world.rows.scan(Table::Dependent, &from, &to, &mut |key, _| {
        left.extend(keys::last_number(key));
        true
    });
    seen.expect("memory does not fail");
    left
}

#[test]
fn each_condition_holds_or_can_no_longer_hold_as_the_other_task_ends() {
    for (condition, status, runs) in [
        (WHEN_SUCCEEDED, COMPLETED, true),
        (WHEN_SUCCEEDED, FAILED, false),
        (WHEN_FAILED, COMPLETED, false),
        (WHEN_FAILED, FAILED, true),
        (WHEN_ENDED, COMPLETED, true),
        (WHEN_ENDED, FAILED, true),
    ] {
        // Submitted before the other one ends, and after it.
        for early in [true, false] {
            let mut world = World::newest();
            world.submit("a");
            if early {
                world.ok(submit_after("b", &[("a", condition)]));
                assert_eq!((world.task("b").phase, world.row("b").unmet), (Phase::PHASE_BLOCKED, 1));
                world.must(assign(&[("b", "node-b")]), Outcome::PRECONDITION);
            }
            world.end("a", status);
            if !early {
                world.ok(submit_after("b", &[("a", condition)]));
            }
            let (b, what) = (world.task("b"), format!("{condition:?} of {status:?}, early: {early}"));
            if runs {
                assert_eq!((b.status, b.phase), (TaskStatus::PENDING, Phase::PHASE_QUEUED), "{what}");
                world.end("b", COMPLETED);
            } else {
                assert_eq!((b.status, b.phase), (FAILED, Phase::PHASE_DEPENDENCY_FAILED), "{what}");
                assert!(b.failure_reason.contains("task a"), "{}", b.failure_reason);
            }
        }
    }
}

#[test]
fn a_task_waits_for_all_that_it_names_and_its_time_in_the_queue_begins_then() {
    let mut world = World::newest();
    for id in ["a", "b", "c"] {
        world.submit(id);
    }
    world.ok(submit_after("d", &[("a", WHEN_SUCCEEDED), ("b", WHEN_ENDED), ("c", WHEN_FAILED)]));
    assert_eq!(world.task("d").pending_reason, "waits for 3 tasks");
    let why = views::explain_task(&world.rows, "d").expect("memory").expect("there is one");
    assert_eq!(why.summary, "blocked: it waits for 3 tasks");
    assert_eq!(why.reasons.len(), 3, "{why:?}");
    world.end("b", FAILED);
    world.end("c", FAILED);
    assert_eq!((world.task("d").phase, world.row("d").unmet), (Phase::PHASE_BLOCKED, 1));
    world.now_ms += 10_000;
    world.end("a", COMPLETED);
    assert_eq!((world.task("d").phase, world.row("d").submitted_at_ms), (Phase::PHASE_QUEUED, world.now_ms));
}

#[test]
fn a_failure_goes_down_a_chain_in_one_command() {
    let mut world = World::newest();
    world.submit("t0");
    for n in 1..100 {
        world.ok(submit_after(&format!("t{n}"), &[(&format!("t{}", n - 1), WHEN_SUCCEEDED)]));
    }
    world.ok(submit_after("notice", &[("t99", WHEN_FAILED)]));
    world.end("t0", FAILED);
    assert_eq!(world.task("t99").phase, Phase::PHASE_DEPENDENCY_FAILED);
    assert_eq!(world.task("notice").phase, Phase::PHASE_QUEUED);
}

#[test]
fn one_command_tells_so_many_and_the_leader_goes_on_with_the_rest() {
    let mut world = World::newest();
    world.submit("root");
    let all = 2 * DEPENDENTS_PER_COMMAND + 10;
    for n in 0..all {
        world.unchecked = n % 100 != 0;
        world.ok(submit_after(&format!("t{n}"), &[("root", WHEN_SUCCEEDED)]));
    }
    world.unchecked = false;
    world.end("root", COMPLETED);
    let queued = |world: &World| (0..all).filter(|n| world.row(&format!("t{n}")).unmet == 0).count();
    let root = world.row("root").sequence;
    assert_eq!((queued(&world), left(&world)), (DEPENDENTS_PER_COMMAND, vec![root]));
    world.ok(resolve(root));
    assert_eq!((queued(&world), left(&world)), (2 * DEPENDENTS_PER_COMMAND, vec![root]));
    world.ok(resolve(root));
    assert_eq!((queued(&world), left(&world)), (all, vec![]));
    world.must(resolve(root), Outcome::EXISTING);
}

#[test]
fn a_failure_that_is_too_wide_for_one_command_reaches_every_task_at_last() {
    let mut world = World::newest();
    world.submit("root");
    let wide = DEPENDENTS_PER_COMMAND + 20;
    world.unchecked = true;
    for n in 0..wide {
        world.ok(submit_after(&format!("a{n}"), &[("root", WHEN_SUCCEEDED)]));
        world.ok(submit_after(&format!("b{n}"), &[(&format!("a{n}"), WHEN_SUCCEEDED)]));
    }
    world.unchecked = false;
    world.end("root", FAILED);
    let mut commands = 0;
    while let Some(first) = left(&world).first().copied() {
        world.ok(resolve(first));
        commands += 1;
        assert!(commands < 2_000, "it ends");
    }
    for n in 0..wide {
        assert_eq!(world.task(&format!("b{n}")).phase, Phase::PHASE_DEPENDENCY_FAILED);
    }
}

#[test]
fn a_blocked_task_is_suspended_resumed_cancelled_and_retried_like_others() {
    let mut world = World::newest();
    world.submit("a");
    for id in ["b", "c", "d"] {
        world.ok(submit_after(id, &[("a", WHEN_SUCCEEDED)]));
    }
    world.must(requeue("b"), Outcome::PRECONDITION);
    world.must(retry("b"), Outcome::PRECONDITION);
    world.ok(suspend("b"));
    world.ok(resume("b"));
    assert_eq!((world.task("b").phase, world.row("b").unmet), (Phase::PHASE_BLOCKED, 1), "it still waits");
    world.ok(suspend("c"));
    world.ok(cancel("d", false));
    world.end("a", COMPLETED);
    assert_eq!(world.task("b").phase, Phase::PHASE_QUEUED);
    assert_eq!((world.task("c").phase, world.row("c").unmet), (Phase::PHASE_SUSPENDED, 0), "a person holds it");
    world.ok(resume("c"));
    assert_eq!(world.task("c").phase, Phase::PHASE_QUEUED);
    assert_eq!(world.task("d").phase, Phase::PHASE_CANCELLED);
}

#[test]
fn a_suspended_task_whose_condition_can_no_longer_hold_is_over() {
    let mut world = World::newest();
    world.submit("a");
    world.ok(submit_after("b", &[("a", WHEN_SUCCEEDED)]));
    world.ok(suspend("b"));
    world.ok(cancel("a", false));
    assert_eq!(world.task("b").phase, Phase::PHASE_DEPENDENCY_FAILED);
    world.must(resume("b"), Outcome::PRECONDITION);
    // A person may run it all the same.
    assert_eq!(world.ok(retry("b")).id, "b/retry-1");
    assert_eq!(world.task("b/retry-1").phase, Phase::PHASE_QUEUED);
}

#[test]
fn tasks_that_do_not_exist_stand_twice_or_are_too_many_are_refused() {
    let mut world = World::newest();
    world.submit("a");
    let many: Vec<String> = (0..=DEPENDENCIES_MAX).map(|n| format!("t{n}")).collect();
    let many: Vec<(&str, Condition)> = many.iter().map(|id| (id.as_str(), WHEN_ENDED)).collect();
    for (others, part) in [
        (&[("b", WHEN_ENDED)][..], "task b does not exist"),
        (&[("x", WHEN_ENDED)][..], "task x does not exist"),
        (&[("a", WHEN_ENDED), ("a", WHEN_FAILED)][..], "names task a twice"),
        (&[("../a", WHEN_ENDED)][..], "letters, digits"),
        (&many[..], "at most 256 tasks"),
    ] {
        let reply = world.must(submit_after("b", others), Outcome::INVALID);
        assert!(reply.message.starts_with("spec.depends_on: ") && reply.message.contains(part), "{}", reply.message);
    }
    assert!(views::get_task(&world.rows, "b").expect("memory").is_none());
}

#[test]
fn below_machine_version_3_nobody_waits() {
    let mut world = World::with_nodes();
    world.submit("a");
    let reply = world.must(submit_after("b", &[("a", WHEN_ENDED)]), Outcome::PRECONDITION);
    assert!(reply.message.contains("machine version 3"), "{}", reply.message);
}
