//! Jobs of type dag, and matmul by blocks: what becomes of them, what is refused, how they end.

mod common;

use std::collections::BTreeSet;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Condition::*, *};

use TaskStatus::{COMPLETED, FAILED};

fn task(name: &str, after: &[(&str, Condition)]) -> DagTask {
    let edge = |(name, condition): &(&str, Condition)| DagEdge {
        name: (*name).into(),
        condition: *condition,
        ..DagEdge::default()
    };
    let mut task = DagTask {
        name: name.into(),
        field_type: "command".into(),
        task_data: b"{\"argv\":[\"true\"]}".to_vec(),
        depends_on: after.iter().map(edge).collect(),
        ..DagTask::default()
    };
    task.mut_spec().retries_given = true;
    task
}

fn dag(name: &str, tasks: Vec<DagTask>) -> JobSpec {
    JobSpec { name: name.into(), field_type: "dag".into(), dag: tasks.into(), ..JobSpec::default() }
}

fn diamond() -> JobSpec {
    // Not in the order in which they can be made.
    let tasks = vec![
        task("end", &[("left", WHEN_SUCCEEDED), ("right", WHEN_SUCCEEDED)]),
        task("left", &[("begin", WHEN_SUCCEEDED)]),
        task("right", &[("begin", WHEN_SUCCEEDED)]),
        task("begin", &[]),
    ];
    dag("d", tasks)
}

#[test]
fn a_dag_runs_in_its_order_and_gives_the_result_of_its_last_task() {
    let mut world = World::newest();
    assert_eq!(world.ok(submit_job(diamond())).id, "d");
    let phases = |world: &World| ["begin", "left", "right", "end"].map(|name| world.task(&format!("d/{name}")).phase);
    let (blocked, queued, done) = (Phase::PHASE_BLOCKED, Phase::PHASE_QUEUED, Phase::PHASE_SUCCEEDED);
    assert_eq!(phases(&world), [queued, blocked, blocked, blocked]);
    world.end("d/begin", COMPLETED);
    assert_eq!(phases(&world), [done, queued, queued, blocked]);
    world.end("d/right", COMPLETED);
    world.end("d/left", COMPLETED);
    assert_eq!(phases(&world), [done, done, done, queued]);
    assert_eq!(world.job("d").phase, JobPhase::JOB_RUNNING);
    world.end("d/end", COMPLETED);
    let job = world.job("d");
    assert_eq!((job.phase, job.result_json.as_str()), (JobPhase::JOB_DONE, "{\"by\":\"d/end\"}"));
    assert!(job.get_spec().dag.is_empty() && job.task_ids.is_empty(), "its row stays small");
}

#[test]
fn a_submission_that_is_repeated_is_the_same_job_and_another_graph_is_not() {
    let mut world = World::newest();
    world.ok(submit_job(diamond()));
    world.must(submit_job(diamond()), Outcome::EXISTING);
    let mut other = diamond();
    other.dag[3].task_data = b"{\"argv\":[\"false\"]}".to_vec();
    world.must(submit_job(other), Outcome::ALREADY_EXISTS);
}

#[test]
fn several_last_tasks_give_an_object_of_their_results() {
    let mut world = World::newest();
    world.ok(submit_job(dag("d", vec![task("a", &[]), task("b", &[]), task("c", &[("a", WHEN_ENDED)])])));
    for name in ["d/a", "d/b", "d/c"] {
        world.end(name, COMPLETED);
    }
    assert_eq!(world.job("d").result_json, "{\"b\":{\"by\":\"d/b\"},\"c\":{\"by\":\"d/c\"}}");
}

#[test]
fn a_failure_fails_the_job_when_all_is_over_and_names_the_task() {
    let mut world = World::newest();
    world.ok(submit_job(diamond()));
    world.end("d/begin", COMPLETED);
    world.end("d/left", FAILED);
    assert_eq!(world.task("d/end").phase, Phase::PHASE_DEPENDENCY_FAILED);
    assert_eq!(world.job("d").phase, JobPhase::JOB_RUNNING, "what does not depend on it goes on");
    world.end("d/right", COMPLETED);
    let job = world.job("d");
    assert_eq!(job.phase, JobPhase::JOB_FAILED);
    assert!(job.reason.contains("task d/left failed: it broke"), "{}", job.reason);
}

/// (what the first task does, how the job ends): `handle` runs if it fails, `go` if it succeeds.
#[test]
fn a_failure_that_a_task_is_for_does_not_fail_the_job_but_what_could_not_run_for_it_does() {
    for (status, with_go, phase) in [
        (COMPLETED, false, JobPhase::JOB_DONE),
        (FAILED, false, JobPhase::JOB_DONE),
        (COMPLETED, true, JobPhase::JOB_DONE),
        (FAILED, true, JobPhase::JOB_FAILED),
    ] {
        let mut world = World::newest();
        let mut tasks = vec![task("first", &[]), task("handle", &[("first", WHEN_FAILED)])];
        if with_go {
            tasks.push(task("go", &[("first", WHEN_SUCCEEDED)]));
        }
        // What follows the handling is not needed either where nothing is handled.
        tasks.push(task("tell", &[("handle", WHEN_SUCCEEDED)]));
        world.ok(submit_job(dag("d", tasks)));
        world.end("d/first", status);
        for name in ["d/handle", "d/go", "d/tell"] {
            let queued = views::get_task(&world.rows, name).expect("memory");
            if queued.is_some_and(|task| task.phase == Phase::PHASE_QUEUED) {
                world.end(name, COMPLETED);
            }
        }
        assert_eq!(world.job("d").phase, phase, "{status:?}, with what needs it: {with_go}: {}", world.job("d").reason);
    }
}

#[test]
fn a_cancelled_dag_ends_all_its_tasks_and_those_elsewhere_that_waited_for_them() {
    let mut world = World::newest();
    world.ok(submit_job(diamond()));
    world.ok(submit_after("elsewhere", &[("d/end", WHEN_ENDED)]));
    let cancel = CancelJob { job_id: "d".into(), ..CancelJob::default() };
    world.ok(Command_oneof_kind::cancel_job(cancel));
    assert_eq!(world.job("d").phase, JobPhase::JOB_CANCELLED);
    for name in ["d/begin", "d/left", "d/right", "d/end"] {
        assert_eq!(world.task(name).phase, Phase::PHASE_CANCELLED, "{name}");
    }
    assert_eq!(world.task("elsewhere").phase, Phase::PHASE_QUEUED);
}

#[test]
fn graphs_that_cannot_be_are_refused_with_the_names_and_leave_nothing() {
    let mut world = World::newest();
    let ok = WHEN_SUCCEEDED;
    let mut typed = task("a", &[]);
    typed.field_type = "train".into();
    let mut tied = task("a", &[]);
    tied.mut_spec().depends_on.push(Dependency::default());
    let mut greedy = task("a", &[]);
    greedy.mut_spec().mut_resources().gpus = 100_000;
    let mut heavy = task("a", &[]);
    heavy.task_data = vec![b' '; 200 << 10];
    let cases = vec![
        (vec![], "spec.dag: 1 to 1024 tasks, is 0"),
        (vec![task("a", &[]), task("a", &[])], "two tasks are called a"),
        (vec![task("a", &[("b", ok)])], "spec.dag.a.depends_on: there is no task b"),
        (vec![task("a", &[("a", ok)])], "wait for each other: a -> a"),
        (
            vec![task("z", &[]), task("a", &[("c", ok), ("z", ok)]), task("b", &[("a", ok)]), task("c", &[("b", ok)])],
            "wait for each other: a -> c -> b -> a",
        ),
        (vec![task("a", &[]), task("b", &[("a", ok), ("a", WHEN_ENDED)])], "spec.dag.b.depends_on: names a twice"),
        (vec![task("../a", &[])], "spec.dag.name: letters"),
        (vec![typed], "spec.dag.a.type: command, python, matmul, eval, torchrun, is \"train\""),
        (vec![tied], "spec.dag.a.spec.depends_on"),
        (vec![greedy], "spec.dag.a.spec.resources.gpus"),
        (vec![heavy], "spec.dag.a.task_data: at most"),
        ((0..1_025).map(|n| task(&format!("t{n}"), &[])).collect(), "1 to 1024 tasks, is 1025"),
    ];
    for (tasks, part) in cases {
        let reply = world.must(submit_job(dag("d", tasks)), Outcome::INVALID);
        assert!(reply.message.contains(part), "{} is not about {part}", reply.message);
    }
    assert!(views::get_job(&world.rows, "d").expect("memory").is_none());
    let mut gang = diamond();
    gang.mut_gang().set_min_members(2);
    gang.mut_gang().set_max_members(2);
    assert!(world
        .must(submit_job(gang), Outcome::INVALID)
        .message
        .contains("spec.gang: a gang's members are equal tasks"));
    let mut wrong = diamond();
    wrong.field_type = "command".into();
    assert!(world.must(submit_job(wrong), Outcome::INVALID).message.starts_with("spec.dag: only for"));
    world.submit("d/left");
    assert!(world.must(submit_job(diamond()), Outcome::ALREADY_EXISTS).message.contains("d/left"));
    assert!(views::get_task(&world.rows, "d/begin").expect("memory").is_none(), "nothing is half-done");
    let mut old = World::with_nodes();
    old.must(submit_job(diamond()), Outcome::PRECONDITION);
}

fn matmul(change: impl FnOnce(&mut MatmulSpec)) -> JobSpec {
    let mut spec = JobSpec { name: "m".into(), field_type: "matmul".into(), ..JobSpec::default() };
    let product = spec.mut_matmul();
    (product.rows, product.inner, product.columns, product.block, product.seed) = (5, 6, 4, 2, 9);
    change(product);
    spec
}

#[test]
fn a_product_by_blocks_becomes_maps_reductions_and_one_that_puts_together() {
    let mut world = World::newest();
    world.ok(submit_job(matmul(|_| ())));
    let tasks = views::job_tasks(&world.rows, "m").expect("memory");
    // 3 x 2 blocks of C, 3 along the inner side.
    let count = |part: &str| tasks.iter().filter(|task| task.task_id.starts_with(part)).count();
    assert_eq!((count("m/map-"), count("m/reduce-"), count("m/product"), tasks.len()), (18, 6, 1, 25));
    let reduce = world.task("m/reduce-2-1");
    let waits: BTreeSet<&str> = reduce.get_spec().depends_on.iter().map(|one| one.task_id.as_str()).collect();
    assert_eq!(waits, BTreeSet::from(["m/map-2-1-0", "m/map-2-1-1", "m/map-2-1-2"]));
    assert_eq!(world.task("m/product").get_spec().depends_on.len(), 6);
    let data: serde_json::Value = serde_json::from_slice(&world.task("m/map-2-1-0").task_data).expect("JSON");
    assert_eq!(
        (&data["step"], &data["i"], &data["j"], &data["seed"]),
        (&"map".into(), &2.into(), &1.into(), &9.into())
    );
    for task in tasks.iter().map(|task| task.task_id.clone()) {
        world.end(&task, COMPLETED);
    }
    let job = world.job("m");
    assert_eq!((job.phase, job.result_json.as_str()), (JobPhase::JOB_DONE, "{\"by\":\"m/product\"}"));
}

#[test]
fn products_that_are_empty_or_too_fine_are_refused() {
    let mut world = World::newest();
    let cases: Vec<(JobSpec, &str)> = vec![
        (matmul(|m| m.rows = 0), "spec.matmul.rows: 1 to 65536, is 0"),
        (matmul(|m| m.columns = 70_000), "spec.matmul.columns"),
        (matmul(|m| m.block = 0), "spec.matmul.block: 1 to 4096, is 0"),
        (matmul(|m| m.block = 5_000), "spec.matmul.block"),
        (matmul(|m| (m.rows, m.columns, m.block) = (65_536, 65_536, 1)), "take larger blocks"),
        (matmul(|m| m.check = "check.py".into()), "spec.matmul.check: needs a bundle"),
    ];
    for (spec, part) in cases {
        let reply = world.must(submit_job(spec), Outcome::INVALID);
        assert!(reply.message.contains(part), "{}", reply.message);
    }
}

#[test]
fn a_product_in_one_task_is_as_it_was() {
    let mut world = World::with_nodes();
    let spec = JobSpec {
        name: "m".into(),
        field_type: "matmul".into(),
        task_data: b"{\"n\":64,\"seed\":7}".to_vec(),
        ..JobSpec::default()
    };
    world.ok(submit_job(spec));
    world.end("m", COMPLETED);
    assert_eq!(world.job("m").phase, JobPhase::JOB_DONE);
}

#[test]
fn the_result_of_an_evaluation_is_its_job_s_metrics() {
    let mut world = World::newest();
    let mut spec = JobSpec { name: "e".into(), field_type: "eval".into(), ..JobSpec::default() };
    spec.task_data = b"{\"script\":\"e.py\",\"model\":\"digits/model@latest\"}".to_vec();
    world.ok(submit_job(spec));
    world.end("e", COMPLETED);
    assert_eq!(world.job("e").metrics_json, "{\"by\":\"e\"}");
}
