//! Queues, gangs, constraints, preemption, maintenance: the guards of the machine and what its commands leave behind.

mod common;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn phase(world: &World, id: &str) -> Phase {
    world.task(id).phase
}

fn queue(world: &World, name: &str) -> Queue {
    views::get_queue(&world.rows, name).expect("memory").unwrap_or_else(|| panic!("no queue {name}"))
}

fn constraint(key: &str, operator: Operator, value: &str) -> Constraint {
    Constraint { key: key.into(), operator, value: value.into(), ..Constraint::default() }
}

/// A gang of `members` on node-a, node-b, node-c in turn; gives the epoch.
fn placed(world: &mut World, name: &str, min: u32, members: u32) -> u64 {
    world.ok(submit_job(gang_spec(name, min, members)));
    place(world, name, 0..members)
}

fn place(world: &mut World, name: &str, members: impl Iterator<Item = u32>) -> u64 {
    let pairs: Vec<(String, &str)> = members.map(|i| (member(name, i), NODES[i as usize % 3])).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(id, node)| (id.as_str(), *node)).collect();
    world.ok(assign(&pairs)).number
}

/// The worker says that the process is gone.
fn gone(world: &mut World, id: &str) {
    world.ok(cancel(id, true));
}

#[test]
fn below_machine_version_3_nothing_of_it_is_taken() {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version: 2, ..SetMachineVersion::default() }));
    for kind in [
        put_queue("q", |_| ()),
        delete_queue("q"),
        preempt("t", 1),
        Kind::set_maintenance(SetMaintenance::default()),
        submit("t", |spec| spec.queue = "q".into()),
        submit("t", |spec| spec.preemptible = true),
        submit("t", |spec| spec.spread_over = "region".into()),
        submit("t", |spec| spec.constraints.push(constraint("region", Operator::OP_EXISTS, ""))),
        submit_job(gang_spec("g", 2, 2)),
    ] {
        let reply = world.must(kind, Outcome::PRECONDITION);
        assert!(reply.message.contains("machine version 3"), "{}", reply.message);
    }
    world.ok(submit("t", |spec| spec.constraints.push(constraint("region", Operator::OP_EQUAL, "eu"))));
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_name_of_the_field() {
    let mut world = world_3();
    let cases: Vec<(Kind, &str)> = vec![
        (put_queue("", |_| ()), "queue.name"),
        (put_queue("../q", |_| ()), "queue.name"),
        (put_queue("q", |queue| queue.weight = 0), "queue.weight"),
        (put_queue("q", |queue| queue.default_priority = 101), "queue.default_priority"),
        (submit("t", |spec| spec.queue = "none".into()), "spec.queue: there is no queue none"),
        (submit("t", |spec| spec.constraints.push(constraint("", Operator::OP_EXISTS, ""))), "spec.constraints"),
        (submit("t", |spec| spec.constraints.push(constraint("a", Operator::OP_AT_LEAST, "x"))), "a number is needed"),
        (submit("t", |spec| spec.constraints.push(constraint("a", Operator::OP_EXISTS, "x"))), "take no value"),
        (submit("t", |spec| spec.constraints.push(constraint("a", Operator::OP_IN, ""))), "IN needs 1"),
        (submit("t", |spec| spec.affinities.push(Affinity { weight: 1, ..Affinity::default() })), "a job or a label"),
        (
            submit("t", |spec| spec.affinities.push(Affinity { job_id: "j".into(), ..Affinity::default() })),
            "spec.affinities.weight",
        ),
        (submit_job(gang_spec("g", 0, 2)), "spec.gang.min_members"),
        (submit_job(gang_spec("g", 3, 2)), "spec.gang.min_members"),
        (submit_job(gang_spec("g", 1, 100_000)), "spec.gang.max_members"),
    ];
    for (kind, field) in cases {
        let reply = world.must(kind, Outcome::INVALID);
        assert!(reply.message.contains(field), "{field}: {}", reply.message);
    }
    let mut train = train_spec("x");
    train.set_gang(GangSpec { min_members: 1, max_members: 1, ..GangSpec::default() });
    world.must(submit_job(train), Outcome::INVALID);
}

#[test]
fn the_guard_of_assign_knows_every_operator() {
    let mut world = world_3();
    world.ok(submit("t", |spec| spec.constraints.push(constraint("node", Operator::OP_NOT_EQUAL, "node-a"))));
    let reply = world.must(assign(&[("t", "node-a")]), Outcome::PRECONDITION);
    assert!(reply.message.contains("node is node-a, wanted anything but node-a"), "{}", reply.message);
    world.assign("t", "node-b");
}

#[test]
fn a_task_that_must_stay_away_from_a_label_is_kept_off_its_nodes() {
    let mut world = world_3();
    let label = || Label { key: "app".into(), value: "db".into(), ..Label::default() };
    world.ok(submit("db", |spec| spec.labels.push(label())));
    world.assign("db", "node-a");
    world.ok(submit("t", |spec| {
        let mut away = Affinity { anti: true, hard: true, ..Affinity::default() };
        away.set_label(label());
        spec.affinities.push(away);
    }));
    let reply = world.must(assign(&[("t", "node-a")]), Outcome::PRECONDITION);
    assert!(reply.message.contains("stay away from db"), "{}", reply.message);
    world.assign("t", "node-b");
}

#[test]
fn a_quota_is_held_by_the_guard_and_given_back_whatever_ends_the_lease() {
    let mut world = world_3();
    world.ok(put_queue("q", |queue| {
        queue.max_running = 1;
        queue.default_priority = 7;
    }));
    for id in ["a", "b"] {
        world.ok(submit(id, |spec| spec.queue = "q".into()));
        assert_eq!(world.task(id).get_spec().priority, 7, "the queue's");
    }
    assert_eq!(queue(&world, "q").open_tasks, 2);
    for how in ["report", "expire", "requeue", "preempt", "suspend"] {
        let epoch = world.assign("a", "node-a");
        assert_eq!(queue(&world, "q").running_tasks, 1, "{how}");
        let reply = world.must(assign(&[("b", "node-b")]), Outcome::PRECONDITION);
        assert!(reply.message.contains("quota of queue q: running tasks: 1 of 1"), "{}", reply.message);
        match how {
            "report" => {
                world.ok(report("a", epoch, TaskStatus::FAILED, |_| ()));
                world.ok(requeue("a"));
            }
            "expire" => {
                world.ok(expire("a", epoch));
                world.ok(requeue("a"));
            }
            "preempt" => {
                world.ok(preempt("a", epoch));
                gone(&mut world, "a");
            }
            "requeue" => {
                world.ok(requeue("a"));
                gone(&mut world, "a");
            }
            _ => {
                world.ok(suspend("a"));
                gone(&mut world, "a");
                world.ok(resume("a"));
            }
        }
        assert_eq!((queue(&world, "q").running_tasks, queue(&world, "q").get_usage().slots), (0, 0), "{how}");
    }
    world.must(delete_queue("q"), Outcome::PRECONDITION);
    world.ok(cancel("a", false));
    world.ok(cancel("b", false));
    world.ok(delete_queue("q"));
    world.must(delete_queue("q"), Outcome::NOT_FOUND);
}

#[test]
fn a_queue_that_is_put_again_keeps_what_it_counts() {
    let mut world = world_3();
    world.ok(put_queue("q", |_| ()));
    world.ok(submit("a", |spec| spec.queue = "q".into()));
    world.assign("a", "node-a");
    world.must(put_queue("q", |_| ()), Outcome::EXISTING);
    world.ok(put_queue("q", |queue| {
        queue.weight = 5;
        queue.running_tasks = 99;
    }));
    let found = queue(&world, "q");
    assert_eq!((found.weight, found.running_tasks, found.open_tasks), (5, 1, 1));
    let filter = views::TaskFilter { queue: Some("q".into()), ..views::TaskFilter::default() };
    let page = views::list_tasks(&world.rows, &filter, &[], 10).expect("memory");
    assert_eq!(page.tasks.len(), 1);
}

#[test]
fn a_gang_is_placed_whole_or_not_at_all() {
    let mut world = world_3();
    world.ok(submit_job(gang_spec("g", 2, 3)));
    let reply = world.must(assign(&[("g/member-1", "node-a")]), Outcome::PRECONDITION);
    assert!(reply.message.contains("placed whole"), "{}", reply.message);
    // A member that does not fit refuses the others, too.
    world.must(assign(&[("g/member-0", "node-a"), ("g/member-2", "nowhere")]), Outcome::NOT_FOUND);
    assert_eq!(phase(&world, "g/member-0"), Phase::PHASE_QUEUED);
    let epoch = place(&mut world, "g", [2, 0].into_iter());
    for (id, rank) in [("g/member-0", 0), ("g/member-2", 1)] {
        let task = world.task(id);
        let place = task.get_gang_place();
        assert_eq!((place.rank, place.world_size, place.generation, task.lease_epoch), (rank, 2, 1, epoch));
        assert_eq!(place.master_node_id, "node-a");
    }
    // The third comes too late for this generation.
    world.must(assign(&[("g/member-1", "node-a")]), Outcome::PRECONDITION);
}

#[test]
fn a_member_that_fails_takes_the_gang_down_and_one_failure_is_counted() {
    for infrastructure in [false, true] {
        let mut world = world_3();
        let epoch = placed(&mut world, "g", 3, 3);
        world.ok(start("g/member-1", epoch));
        world.ok(report("g/member-0", epoch, TaskStatus::FAILED, |r| r.infrastructure = infrastructure));
        assert_eq!(phase(&world, "g/member-0"), Phase::PHASE_BACKOFF);
        for id in ["g/member-1", "g/member-2"] {
            assert_eq!(phase(&world, id), Phase::PHASE_STOPPING, "{id}");
        }
        gone(&mut world, "g/member-1");
        // A second failure on the way down is not counted.
        world.ok(expire("g/member-2", epoch));
        for id in ["g/member-1", "g/member-2"] {
            assert_eq!((phase(&world, id), world.row(id).infrastructure_failures), (Phase::PHASE_QUEUED, 0), "{id}");
        }
        let job = world.job("g");
        let counted = (job.gang_user_failures, job.gang_infrastructure_failures);
        assert_eq!(counted, if infrastructure { (0, 1) } else { (1, 0) });
        world.now_ms += 1;
        place(&mut world, "g", 0..3);
        assert_eq!(world.task("g/member-2").get_gang_place().generation, 2);
    }
}

#[test]
fn a_gangs_failures_are_counted_together_up_to_its_retries() {
    let mut world = world_3();
    let mut spec = gang_spec("g", 2, 2);
    spec.mut_task().retries_given = true;
    spec.mut_task().max_retries = 1;
    world.ok(submit_job(spec));
    let epoch = place(&mut world, "g", 0..2);
    world.ok(report("g/member-0", epoch, TaskStatus::FAILED, |_| ()));
    gone(&mut world, "g/member-1");
    world.now_ms += 1;
    let epoch = place(&mut world, "g", 0..2);
    // Another member's failure is the gang's second.
    world.ok(report("g/member-1", epoch, TaskStatus::FAILED, |_| ()));
    assert_eq!(world.job("g").phase, JobPhase::JOB_FAILED);
    assert_eq!(phase(&world, "g/member-0"), Phase::PHASE_STOPPING);
    gone(&mut world, "g/member-0");
    assert_eq!(phase(&world, "g/member-0"), Phase::PHASE_CANCELLED);
}

#[test]
fn a_gang_is_done_with_its_last_placed_member_and_gives_the_result_of_rank_0() {
    let mut world = world_3();
    world.ok(submit_job(gang_spec("g", 2, 3)));
    let epoch = place(&mut world, "g", 0..2);
    for i in [1, 0] {
        assert_eq!(world.job("g").phase, JobPhase::JOB_RUNNING);
        world.ok(report(&member("g", i), epoch, TaskStatus::COMPLETED, |r| r.result_data = format!("{i}")));
    }
    let job = world.job("g");
    assert_eq!((job.phase, job.result_json.as_str()), (JobPhase::JOB_DONE, "0"));
    assert_eq!(phase(&world, "g/member-2"), Phase::PHASE_CANCELLED, "it was never needed");
}

#[test]
fn a_gang_that_can_never_be_whole_again_fails() {
    let mut world = world_3();
    let epoch = placed(&mut world, "g", 2, 2);
    world.ok(report("g/member-0", epoch, TaskStatus::COMPLETED, |_| ()));
    world.ok(expire("g/member-1", epoch));
    let job = world.job("g");
    assert_eq!(job.phase, JobPhase::JOB_FAILED);
    assert!(job.reason.contains("1 are left, 2 are needed"), "{}", job.reason);
}

#[test]
fn a_node_that_is_started_anew_takes_its_gang_down_once() {
    let mut world = world_3();
    world.ok(submit_job(gang_spec("g", 3, 3)));
    world.ok(assign(&[("g/member-0", "node-a"), ("g/member-1", "node-a"), ("g/member-2", "node-b")]));
    assert_eq!(world.register("node-a", 2).outcome, Outcome::OK);
    assert_eq!(world.job("g").gang_infrastructure_failures, 1);
    assert_eq!(phase(&world, "g/member-2"), Phase::PHASE_STOPPING);
    assert_eq!(world.task("g/member-1").status, TaskStatus::PENDING);
}

#[test]
fn a_preempted_task_stops_with_grace_and_counts_no_failure() {
    let mut world = world_3();
    let epoch = world.running("t", |_| ());
    world.must(preempt("t", epoch + 1), Outcome::STALE_LEASE);
    world.ok(preempt("t", epoch));
    world.must(preempt("t", epoch), Outcome::EXISTING);
    assert_eq!(phase(&world, "t"), Phase::PHASE_STOPPING);
    world.ok(report("t", epoch, TaskStatus::FAILED, |_| ()));
    let row = world.row("t");
    assert_eq!((phase(&world, "t"), row.user_failures, row.infrastructure_failures), (Phase::PHASE_QUEUED, 0, 0));
    world.must(preempt("t", epoch), Outcome::STALE_LEASE);
}

#[test]
fn a_member_that_is_preempted_or_suspended_takes_its_gang_along() {
    let mut world = world_3();
    let epoch = placed(&mut world, "g", 2, 2);
    world.ok(preempt("g/member-1", epoch));
    for i in 0..2 {
        assert_eq!(phase(&world, &member("g", i)), Phase::PHASE_STOPPING);
        gone(&mut world, &member("g", i));
        assert_eq!(phase(&world, &member("g", i)), Phase::PHASE_QUEUED);
    }
    assert_eq!(world.job("g").gang_infrastructure_failures, 0);
    place(&mut world, "g", 0..2);
    world.ok(suspend("g/member-0"));
    gone(&mut world, "g/member-0");
    gone(&mut world, "g/member-1");
    assert_eq!(phase(&world, "g/member-0"), Phase::PHASE_SUSPENDED);
    assert_eq!(phase(&world, "g/member-1"), Phase::PHASE_QUEUED);
}

#[test]
fn a_maintenance_drains_until_its_time_and_an_older_end_does_not_end_a_newer_one() {
    let mut world = world_3();
    let maintain = |until_ms, off| {
        Kind::set_maintenance(SetMaintenance { node_id: "node-a".into(), until_ms, off, ..SetMaintenance::default() })
    };
    let end = world.now_ms + 1_000;
    world.must(maintain(1, false), Outcome::INVALID);
    world.ok(maintain(end, false));
    assert_eq!(world.node("node-a").eligibility, Eligibility::DRAINING);
    world.ok(maintain(end + 5, false));
    world.must(maintain(end, true), Outcome::PRECONDITION);
    // A restart of the node does not end it.
    assert_eq!(world.register("node-a", 2).outcome, Outcome::OK);
    assert_eq!(world.node("node-a").maintenance_until_ms, end + 5);
    world.ok(maintain(end + 5, true));
    let node = world.node("node-a");
    assert_eq!((node.eligibility, node.maintenance_until_ms), (Eligibility::ELIGIBLE, 0));
}

#[test]
fn what_no_node_could_ever_run_is_told_from_what_has_to_wait() {
    let mut world = world_3();
    let mut task = Task::default();
    task.mut_spec().mut_resources().slots = 4;
    assert_eq!(views::never(&world.rows, &task, 3).expect("memory"), None, "one on each node");
    let why = views::never(&world.rows, &task, 4).expect("memory").expect("four do not fit");
    assert!(why[0].contains("node-a: has room for 1 of 4 members"), "{why:?}");
    for node in NODES {
        world.ok(submit(node, |spec| spec.mut_resources().slots = 4));
        world.assign(node, node);
    }
    assert_eq!(views::never(&world.rows, &task, 1).expect("memory"), None, "full nodes are not too small");
    task.mut_spec().mut_resources().slots = 5;
    let why = views::never(&world.rows, &task, 1).expect("memory").expect("too large");
    assert_eq!(why[2], "node node-c: slots: 4 free, wanted 5");
}
