//! Commands of tasks: each guard of the table in semantics.md.

mod common;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

#[test]
fn a_task_goes_from_submission_to_its_result() {
    let mut world = World::with_nodes();
    assert_eq!(world.submit("t").id, "t");
    assert_eq!((world.task("t").status, world.task("t").created_at), (TaskStatus::PENDING, 1_700_000_000));
    let epoch = world.assign("t", "node-b");
    let task = world.task("t");
    assert_eq!((task.status, task.phase, task.attempt), (TaskStatus::ASSIGNED, Phase::PHASE_LEASED, 1));
    assert_eq!((task.assigned_node_id.as_str(), task.lease_epoch), ("node-b", epoch));
    assert_eq!(world.node("node-b").active_tasks, 1);
    world.now_ms += 5_000;
    world.ok(start("t", epoch));
    world.must(start("t", epoch), Outcome::EXISTING);
    assert_eq!((world.task("t").phase, world.task("t").started_at), (Phase::PHASE_ACTIVE, 1_700_000_005));
    world.ok(report("t", epoch, TaskStatus::COMPLETED, |r| r.result_data = "{\"x\":1}".into()));
    let task = world.task("t");
    assert_eq!((task.status, task.phase), (TaskStatus::COMPLETED, Phase::PHASE_SUCCEEDED));
    assert_eq!((task.result_data.as_str(), task.completed_at), ("{\"x\":1}", 1_700_000_005));
    assert_eq!((world.node("node-b").active_tasks, world.node("node-b").get_allocated().slots), (0, 0));
}

#[test]
fn a_task_may_complete_without_ever_running() {
    let mut world = World::with_nodes();
    world.submit("t");
    let epoch = world.assign("t", "node-a");
    world.ok(report("t", epoch, TaskStatus::COMPLETED, |_| ()));
    assert_eq!(world.task("t").status, TaskStatus::COMPLETED);
}

#[test]
fn a_submission_that_is_wrong_is_refused_and_names_the_field() {
    let mut world = World::new();
    let kind = |change: &dyn Fn(&mut SubmitTask)| {
        let mut submit = SubmitTask { task_type: "command".into(), ..SubmitTask::default() };
        change(&mut submit);
        Kind::submit_task(submit)
    };
    let cases: Vec<(Kind, &str)> = vec![
        (kind(&|s| s.task_type.clear()), "task_type"),
        (kind(&|s| s.task_type = "a b".into()), "task_type"),
        (kind(&|s| s.task_id = "../x".into()), "task_id"),
        (kind(&|s| s.task_id = "x".repeat(129)), "task_id"),
        (kind(&|s| s.task_data = vec![b' '; (128 << 10) + 1]), "task_data"),
        (kind(&|s| s.mut_spec().priority = 101), "spec.priority"),
        (kind(&|s| s.mut_spec().on_disconnect = "wait".into()), "spec.on_disconnect"),
        (kind(&|s| s.mut_spec().mut_resources().cpu_milli = u64::MAX), "spec.resources.cpu_milli"),
        (kind(&|s| s.mut_spec().mut_resources().slots = 5_000), "spec.resources.slots"),
        (kind(&|s| s.mut_spec().env = vec![Label::default(); 65].into()), "spec.env"),
        (kind(&|s| s.mut_spec().constraints.push(Constraint::default())), "spec.constraints"),
    ];
    for (kind, field) in cases {
        let reply = world.must(kind, Outcome::INVALID);
        assert!(reply.message.starts_with(&format!("{field}:")), "{} names {field}", reply.message);
    }
    assert_eq!(views::meta(&world.rows).expect("memory").next_task_sequence, 1, "a refusal takes no sequence");
}

#[test]
fn an_id_that_is_used_gives_the_same_task_or_none() {
    let mut world = World::new();
    world.ok(submit("t", |_| ()));
    assert_eq!(world.must(submit("t", |_| ()), Outcome::EXISTING).id, "t");
    world.must(submit("t", |spec| spec.priority = 1), Outcome::ALREADY_EXISTS);
    assert_eq!(world.run_as("somebody", "", submit("t", |_| ())).outcome, Outcome::ALREADY_EXISTS);
}

#[test]
fn an_id_that_the_machine_gives_follows_from_the_request_or_the_sequence() {
    let mut world = World::new();
    assert_eq!(world.submit("").id, "task-000000000001");
    world.ok(submit("task-000000000003", |_| ()));
    let taken = world.submit("");
    assert!(taken.id.starts_with("task-000000000003-"), "{} avoids a task that has the id", taken.id);
    let id = uuid(world.now_ms, 1);
    let first = world.run_as("ann", &id, submit("", |_| ())).id;
    let other = world.run_as("bob", &id, submit("", |_| ())).id;
    assert_ne!(first, other, "two principals may draw the same request id");
    assert!(first.starts_with(&format!("task-{:012x}-", world.now_ms)), "{first}");
}

#[test]
fn assign_refuses_what_cannot_be_placed() {
    let mut world = World::with_nodes();
    for id in ["t", "gpu", "done", "far"] {
        world.ok(submit(id, |spec| match id {
            "gpu" => spec.mut_resources().gpus = 1,
            "far" => {
                spec.constraints.push(Constraint { key: "region".into(), value: "mars".into(), ..Default::default() })
            }
            _ => (),
        }));
    }
    let epoch = world.assign("done", "node-a");
    world.ok(report("done", epoch, TaskStatus::COMPLETED, |_| ()));
    let status = |status| {
        Kind::node_status_change(NodeStatusChange {
            node_id: "node-b".into(),
            incarnation: u64::MAX,
            status,
            ..Default::default()
        })
    };
    world.ok(status(NodeStatus::UNKNOWN));
    let eligibility = |eligibility| {
        Kind::set_eligibility(SetEligibility { node_id: "node-c".into(), eligibility, ..Default::default() })
    };
    world.ok(eligibility(Eligibility::CORDONED));
    type Case<'a> = (&'a [(&'a str, &'a str)], Outcome, &'a str);
    let cases: [Case<'_>; 9] = [
        (&[], Outcome::INVALID, "assignments"),
        (&[("none", "node-a")], Outcome::NOT_FOUND, "task none"),
        (&[("t", "none")], Outcome::NOT_FOUND, "node none"),
        (&[("done", "node-a")], Outcome::PRECONDITION, "COMPLETED"),
        (&[("t", "node-b")], Outcome::PRECONDITION, "not heard from"),
        (&[("t", "node-c")], Outcome::PRECONDITION, "cordoned"),
        (&[("gpu", "node-a")], Outcome::PRECONDITION, "gpus: 0 free, wanted 1"),
        (&[("far", "node-a")], Outcome::PRECONDITION, "region is , wanted mars"),
        (&[("t", "node-a"), ("t", "node-a")], Outcome::PRECONDITION, "ASSIGNED"),
    ];
    for (pairs, outcome, why) in cases {
        let reply = world.must(assign(pairs), outcome);
        assert!(reply.message.contains(why), "\"{}\" says {why}", reply.message);
        assert_eq!(world.task("t").status, TaskStatus::PENDING, "all or nothing");
    }
    world.ok(status(NodeStatus::HEALTHY));
    world.ok(eligibility(Eligibility::ELIGIBLE));
    world.ok(assign(&[("t", "node-b")]));
}

#[test]
fn assign_is_all_or_nothing_when_the_last_slot_is_missing() {
    let mut world = World::with_nodes();
    let ids: Vec<String> = (0..5).map(|i| format!("t{i}")).collect();
    ids.iter().for_each(|id| drop(world.submit(id)));
    let all: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "node-a")).collect();
    let reply = world.must(assign(&all), Outcome::PRECONDITION);
    assert!(reply.message.contains("slots: 0 free, wanted 1"), "{}", reply.message);
    assert_eq!(world.node("node-a").active_tasks, 0, "nothing of the refused command stays");
    world.ok(assign(&all[..4]));
    assert_eq!(world.node("node-a").get_allocated().slots, 4);
}

#[test]
fn a_back_off_holds_until_its_time() {
    let mut world = World::with_nodes();
    let epoch = world.running("t", |_| ());
    world.ok(report("t", epoch, TaskStatus::FAILED, |r| r.backoff_ms = 3_000));
    let task = world.task("t");
    assert_eq!((task.status, task.phase), (TaskStatus::PENDING, Phase::PHASE_BACKOFF));
    assert!(task.assigned_node_id.is_empty());
    world.now_ms += 2_999;
    world.must(assign(&[("t", "node-a")]), Outcome::PRECONDITION);
    world.now_ms += 1;
    let next = world.assign("t", "node-a");
    assert!(next > epoch);
    assert_eq!(world.task("t").attempt, 2);
}

#[test]
fn only_the_open_epoch_may_speak() {
    let mut world = World::with_nodes();
    let old = world.running("t", |_| ());
    world.ok(expire("t", old));
    let open = world.assign("t", "node-b");
    let row = world.row("t");
    for epoch in [0, old, open + 1] {
        world.must(start("t", epoch), Outcome::STALE_LEASE);
        world.must(expire("t", epoch), Outcome::STALE_LEASE);
        world.must(report("t", epoch, TaskStatus::COMPLETED, |_| ()), Outcome::STALE_LEASE);
    }
    assert_eq!(world.row("t"), row, "a stale word changes nothing");
    for kind in
        [start("x", 1), expire("x", 1), report("x", 1, TaskStatus::FAILED, |_| ()), cancel("x", true), retry("x")]
    {
        world.must(kind, Outcome::NOT_FOUND);
    }
}

#[test]
fn a_report_and_an_expiry_never_both_take_effect() {
    for report_first in [true, false] {
        let mut world = World::with_nodes();
        let epoch = world.running("t", |_| ());
        let both = [report("t", epoch, TaskStatus::COMPLETED, |_| ()), expire("t", epoch)];
        let (first, second) = if report_first { (0, 1) } else { (1, 0) };
        world.ok(both[first].clone());
        world.must(both[second].clone(), Outcome::STALE_LEASE);
        let status = if report_first { TaskStatus::COMPLETED } else { TaskStatus::PENDING };
        assert_eq!(world.task("t").status, status);
    }
}

#[test]
fn an_equal_report_gets_the_same_reply_in_any_state() {
    let mut world = World::with_nodes();
    let epoch = world.running("t", |_| ());
    let failed = || report("t", epoch, TaskStatus::FAILED, |r| r.result_data = "{}".into());
    let first = world.ok(failed());
    assert_eq!(world.must(failed(), Outcome::EXISTING).position, first.position, "while it waits");
    let next = world.assign("t", "node-a");
    assert_eq!(world.must(failed(), Outcome::EXISTING).position, first.position, "while another attempt runs");
    assert_eq!(world.row("t").user_failures, 1, "and it counts once");
    world.must(report("t", epoch, TaskStatus::COMPLETED, |_| ()), Outcome::STALE_LEASE);
    let done = || report("t", next, TaskStatus::COMPLETED, |r| r.digest = vec![7; 32]);
    let first = world.ok(done());
    assert_eq!(world.must(done(), Outcome::EXISTING).position, first.position, "when it is over");
}

#[test]
fn an_agent_without_epochs_is_believed_only_on_the_assigned_node() {
    let mut world = World::with_nodes();
    world.submit("t");
    world.must(report("t", 0, TaskStatus::COMPLETED, |r| r.node_id = "node-a".into()), Outcome::STALE_LEASE);
    world.assign("t", "node-a");
    world.must(report("t", 0, TaskStatus::COMPLETED, |_| ()), Outcome::STALE_LEASE);
    world.must(report("t", 0, TaskStatus::COMPLETED, |r| r.node_id = "node-b".into()), Outcome::STALE_LEASE);
    let done = || report("t", 0, TaskStatus::COMPLETED, |r| r.node_id = "node-a".into());
    world.ok(done());
    world.must(done(), Outcome::EXISTING);
}

#[test]
fn a_report_that_is_wrong_is_refused() {
    let mut world = World::with_nodes();
    let epoch = world.running("t", |_| ());
    for status in [TaskStatus::PENDING, TaskStatus::ASSIGNED, TaskStatus::RUNNING] {
        assert!(world.must(report("t", epoch, status, |_| ()), Outcome::INVALID).message.starts_with("final_status"));
    }
    let large = report("t", epoch, TaskStatus::COMPLETED, |r| r.result_data = " ".repeat((64 << 10) + 1));
    assert!(world.must(large, Outcome::INVALID).message.starts_with("result_data"));
    assert_eq!(world.task("t").status, TaskStatus::RUNNING);
}

/// One attempt after the other fails as `how` says; gives the task after `attempts` of them.
fn after_failures(spec: impl Fn(&mut TaskSpec), attempts: u32, how: impl Fn(&mut ReportResult)) -> TaskRow {
    let mut world = World::with_nodes();
    world.ok(submit("t", |s| spec(s)));
    for _ in 0..attempts {
        let epoch = world.assign("t", "node-a");
        world.ok(report("t", epoch, TaskStatus::FAILED, |r| how(r)));
    }
    world.row("t")
}

#[test]
fn user_failures_are_bounded_and_infrastructure_failures_are_not() {
    let retries = |n| move |spec: &mut TaskSpec| (spec.max_retries, spec.retries_given) = (n, true);
    let cases = [
        (after_failures(|_| (), 3, |r| r.exit_code = 1), Phase::PHASE_BACKOFF, 3, 0),
        (after_failures(|_| (), 4, |r| r.exit_code = 1), Phase::PHASE_RETRIES_EXHAUSTED, 4, 0),
        (after_failures(retries(1), 2, |r| r.exit_code = 1), Phase::PHASE_RETRIES_EXHAUSTED, 2, 0),
        (after_failures(retries(0), 1, |r| r.exit_code = 1), Phase::PHASE_ERROR, 1, 0),
        (after_failures(retries(0), 9, |r| r.exit_code = 75), Phase::PHASE_BACKOFF, 0, 9),
        (after_failures(retries(3), 1, |r| r.exit_code = 64), Phase::PHASE_ERROR, 1, 0),
        (after_failures(retries(3), 1, |r| r.exit_code = 66), Phase::PHASE_ERROR, 1, 0),
        (after_failures(retries(0), 9, |r| r.infrastructure = true), Phase::PHASE_BACKOFF, 0, 9),
    ];
    for (row, phase, user, infrastructure) in cases {
        assert_eq!(row.get_task().phase, phase);
        assert_eq!((row.user_failures, row.infrastructure_failures), (user, infrastructure));
    }
    assert_eq!(after_failures(retries(0), 1, |r| r.exit_code = 3).get_task().failure_reason, "exit code 3");
}

#[test]
fn an_expiry_for_want_of_a_start_has_no_effect_once_it_was_started() {
    let expiry = |epoch| {
        let before_start = true;
        Kind::expire_lease(ExpireLease { task_id: "t".into(), epoch, before_start, ..ExpireLease::default() })
    };
    for (version, started, effect) in [(3, false, true), (3, true, false), (2, true, true)] {
        let mut world = World::with_nodes();
        world.ok(Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() }));
        world.submit("t");
        let epoch = world.assign("t", "node-a");
        if started {
            world.ok(start("t", epoch));
        }
        let reply = world.run(expiry(epoch));
        assert_eq!(reply.outcome == Outcome::OK, effect, "version {version}: {reply:?}");
        assert_eq!(world.task("t").status == TaskStatus::PENDING, effect);
    }
}

#[test]
fn the_deadline_ends_what_would_be_tried_again() {
    let deadline = 1_700_000_010_000;
    for (interrupted, phase) in [(true, Phase::PHASE_LOST), (false, Phase::PHASE_DEADLINE)] {
        let mut world = World::with_nodes();
        let epoch = world.running("t", |spec| spec.deadline_unix_ms = deadline);
        world.now_ms = deadline - 1_000;
        let end = if interrupted {
            Kind::expire_lease(ExpireLease { task_id: "t".into(), epoch, backoff_ms: 1_000, ..Default::default() })
        } else {
            report("t", epoch, TaskStatus::FAILED, |r| r.backoff_ms = 1_000)
        };
        world.ok(end);
        assert_eq!((world.task("t").status, world.task("t").phase), (TaskStatus::FAILED, phase));
    }
    let mut world = World::with_nodes();
    world.ok(submit("t", |spec| spec.deadline_unix_ms = deadline));
    world.now_ms = deadline;
    world.ok(cancel("t", false));
    assert_eq!(world.task("t").phase, Phase::PHASE_DEADLINE, "cancelled because it was too late");
}

#[test]
fn cancel_stops_first_where_a_process_may_exist() {
    let mut world = World::with_nodes();
    world.submit("waiting");
    world.ok(cancel("waiting", false));
    assert_eq!(
        (world.task("waiting").status, world.task("waiting").phase),
        (TaskStatus::FAILED, Phase::PHASE_CANCELLED)
    );
    assert_eq!(world.task("waiting").failure_reason, "by hand");
    world.must(cancel("waiting", false), Outcome::EXISTING);

    world.submit("assigned");
    let epoch = world.assign("assigned", "node-a");
    world.ok(cancel("assigned", false));
    assert_eq!(
        (world.task("assigned").status, world.task("assigned").phase),
        (TaskStatus::RUNNING, Phase::PHASE_STOPPING)
    );
    assert_eq!(world.row("assigned").open_epoch, epoch, "the lease stays open until the process is gone");
    world.must(cancel("assigned", false), Outcome::EXISTING);
    world.ok(cancel("assigned", true));
    assert_eq!(
        (world.task("assigned").status, world.task("assigned").phase),
        (TaskStatus::FAILED, Phase::PHASE_CANCELLED)
    );

    let epoch = world.running("reports", |_| ());
    world.ok(cancel("reports", false));
    world.ok(report("reports", epoch, TaskStatus::FAILED, |r| r.exit_code = 143));
    assert_eq!(world.task("reports").phase, Phase::PHASE_CANCELLED, "the worker's report confirms");
    assert_eq!(world.task("reports").failure_reason, "by hand");
    let epoch = world.running("lost", |_| ());
    world.ok(cancel("lost", false));
    world.ok(expire("lost", epoch));
    assert_eq!(world.task("lost").phase, Phase::PHASE_CANCELLED, "so does the end of the lease");
    let epoch = world.running("faster", |_| ());
    world.ok(cancel("faster", false));
    world.ok(report("faster", epoch, TaskStatus::COMPLETED, |_| ()));
    world.must(cancel("faster", false), Outcome::PRECONDITION);
    assert_eq!(world.node("node-a").active_tasks, 0);
}

#[test]
fn retry_skips_a_back_off_and_copies_a_failed_task() {
    let mut world = World::with_nodes();
    let epoch = world.running("t", |spec| spec.retries_given = true);
    world.must(retry("t"), Outcome::PRECONDITION);
    world.ok(report("t", epoch, TaskStatus::FAILED, |r| (r.exit_code, r.backoff_ms) = (75, 60_000)));
    world.ok(retry("t"));
    world.must(retry("t"), Outcome::EXISTING);
    let epoch = world.assign("t", "node-a");
    world.ok(report("t", epoch, TaskStatus::FAILED, |_| ()));
    let before = world.row("t");
    assert_eq!(world.ok(retry("t")).id, "t/retry-1");
    assert_eq!(world.ok(retry("t")).id, "t/retry-2");
    assert_eq!(world.row("t"), before, "a terminal state never changes");
    let copy = world.task("t/retry-1");
    assert_eq!((copy.parent_task_id.as_str(), copy.status), ("t", TaskStatus::PENDING));
    assert_eq!((copy.task_data, copy.spec), (before.get_task().task_data.clone(), before.get_task().spec.clone()));
    let epoch = world.assign("t/retry-1", "node-a");
    world.ok(report("t/retry-1", epoch, TaskStatus::COMPLETED, |_| ()));
    world.must(retry("t/retry-1"), Outcome::PRECONDITION);
}
