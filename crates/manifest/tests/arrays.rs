//! Arrays and sweeps: elements become tasks a window at a time, the row stays small, failed elements run again.

mod common;

use common::*;
use protobuf::Message;
use raftgrid_manifest::limits::{ARRAY_WINDOW_DEFAULT, ELEMENTS_PER_COMMAND_MAX};
use raftgrid_manifest::{views, Rows, Table};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

use TaskStatus::{COMPLETED, FAILED};

fn array(count: u32, max_parallel: u32) -> JobSpec {
    let mut spec = JobSpec { name: "a".into(), field_type: "command".into(), ..JobSpec::default() };
    spec.task_data = b" { \"argv\": [\"true\"] } ".to_vec();
    spec.mut_array().count = count;
    spec.mut_array().max_parallel = max_parallel;
    spec.mut_task().retries_given = true;
    spec
}

fn materialize(from: u32, count: u32) -> Kind {
    Kind::materialize_elements(MaterializeElements {
        job_id: "a".into(),
        from,
        count,
        ..MaterializeElements::default()
    })
}

fn row(world: &World) -> JobRow {
    views::job_row(&world.rows, "a").expect("memory").expect("there is one")
}

fn counts(world: &World) -> (u64, u64, u64, u64) {
    let counts = views::element_counts(&world.rows, &row(world)).expect("memory").expect("an array");
    (counts.waiting, counts.running, counts.done, counts.failed)
}

/// What the leader would propose, once; false: nothing.
fn next(world: &mut World) -> bool {
    let Some((from, count, generation)) = views::next_elements(&row(world)) else { return false };
    let next = MaterializeElements { job_id: "a".into(), from, count, generation, ..MaterializeElements::default() };
    world.ok(Kind::materialize_elements(next));
    true
}

fn open(world: &World) -> Vec<String> {
    views::shown_tasks(&world.rows, &row(world)).expect("memory").into_iter().map(|task| task.task_id).collect()
}

#[test]
fn a_million_elements_are_one_row_and_then_a_window_of_tasks() {
    let mut world = World::newest();
    let before = world.rows.iter().count();
    world.ok(submit_job(array(1_000_000, 0)));
    assert_eq!(world.rows.iter().count(), before + 2, "its row and its name");
    assert!(row(&world).compute_size() < 1_024);
    assert_eq!(counts(&world), (1_000_000, 0, 0, 0));
    while next(&mut world) {}
    assert_eq!(open(&world).len() as u32, ARRAY_WINDOW_DEFAULT);
    assert_eq!(row(&world).next_element, ARRAY_WINDOW_DEFAULT);
    assert_eq!(counts(&world), (1_000_000, 0, 0, 0), "none of them has a node");
    let cancel = CancelJob { job_id: "a".into(), ..CancelJob::default() };
    let entries = world.log.len();
    world.ok(Kind::cancel_job(cancel));
    assert_eq!((world.log.len(), open(&world).len()), (entries + 1, 0), "in one command");
    assert!(!next(&mut world));
}

#[test]
fn elements_run_in_order_in_a_window_and_the_job_ends_with_the_last() {
    let mut world = World::newest();
    world.ok(submit_job(array(7, 3)));
    assert!(next(&mut world));
    assert_eq!(open(&world), ["a/0", "a/1", "a/2"]);
    assert!(!next(&mut world), "the window is full");
    let task = world.task("a/1");
    assert_eq!((task.array_index, task.array_count), (1, 7));
    assert_eq!(String::from_utf8_lossy(&task.task_data), "{\"array_index\":1,\"argv\": [\"true\"] } ".trim_end());
    world.end("a/1", COMPLETED);
    assert!(next(&mut world));
    assert_eq!(open(&world), ["a/0", "a/2", "a/3"]);
    world.assign("a/0", "node-b");
    assert_eq!(counts(&world), (5, 1, 1, 0));
    let epoch = world.row("a/0").open_epoch;
    world.ok(report("a/0", epoch, COMPLETED, |_| ()));
    while let Some(first) = open(&world).first().cloned() {
        world.end(&first, COMPLETED);
        next(&mut world);
    }
    assert_eq!((world.job("a").phase, counts(&world)), (JobPhase::JOB_DONE, (0, 0, 7, 0)));
}

#[test]
fn a_command_that_was_proposed_twice_makes_each_element_once() {
    let mut world = World::newest();
    world.ok(submit_job(array(100, 50)));
    world.ok(materialize(0, 10));
    world.must(materialize(0, 10), Outcome::STALE);
    world.must(materialize(11, 10), Outcome::STALE);
    world.must(materialize(10, 0), Outcome::INVALID);
    world.must(materialize(10, ELEMENTS_PER_COMMAND_MAX + 1), Outcome::INVALID);
    world.ok(materialize(10, 50));
    assert_eq!(row(&world).next_element, 50, "no more than the window");
    world.must(materialize(50, 10), Outcome::PRECONDITION);
    let other = MaterializeElements { job_id: "a".into(), from: 50, count: 1, generation: 1, ..Default::default() };
    world.must(Kind::materialize_elements(other), Outcome::STALE);
    world.ok(submit_job(JobSpec { name: "one".into(), field_type: "command".into(), ..JobSpec::default() }));
    let none = MaterializeElements { job_id: "one".into(), count: 1, ..MaterializeElements::default() };
    world.must(Kind::materialize_elements(none), Outcome::PRECONDITION);
}

#[test]
fn failed_elements_run_again_as_tasks_of_their_own() {
    let mut world = World::newest();
    let retry = || Kind::retry_elements(RetryElements { job_id: "a".into(), ..RetryElements::default() });
    world.ok(submit_job(array(9, 4)));
    next(&mut world);
    world.must(retry(), Outcome::PRECONDITION);
    while let Some(first) = open(&world).first().cloned() {
        let fails = matches!(first.as_str(), "a/2" | "a/7");
        world.end(&first, if fails { FAILED } else { COMPLETED });
        next(&mut world);
    }
    let job = world.job("a");
    assert_eq!((job.phase, counts(&world)), (JobPhase::JOB_FAILED, (0, 0, 7, 2)));
    assert_eq!(job.reason, "2 of 9 elements failed; the first: task a/2: it broke");
    world.ok(retry());
    assert_eq!((world.job("a").phase, counts(&world)), (JobPhase::JOB_RUNNING, (2, 0, 7, 0)));
    next(&mut world);
    assert_eq!(open(&world), ["a/2/retry-1", "a/7/retry-1"]);
    assert_eq!(world.task("a/7/retry-1").array_index, 7);
    world.end("a/2/retry-1", COMPLETED);
    world.end("a/7/retry-1", FAILED);
    assert_eq!((world.job("a").phase, counts(&world)), (JobPhase::JOB_FAILED, (0, 0, 8, 1)));
    world.ok(retry());
    next(&mut world);
    world.end("a/7/retry-2", COMPLETED);
    assert_eq!((world.job("a").phase, counts(&world)), (JobPhase::JOB_DONE, (0, 0, 9, 0)));
    world.must(retry(), Outcome::PRECONDITION);
}

#[test]
fn an_element_costs_the_same_rows_wherever_in_the_array_it_is() {
    let mut world = World::newest();
    world.ok(submit_job(array(20_000, 64)));
    world.unchecked = true;
    let mut last = Vec::new();
    while next(&mut world) {
        for id in open(&world) {
            let epoch = world.assign(&id, "node-a");
            let before = world.log.len();
            world.ok(report(&id, epoch, COMPLETED, |_| ()));
            assert_eq!(world.log.len(), before + 1);
            last.push(id);
        }
    }
    world.unchecked = false;
    world.register("node-z", 1);
    assert_eq!((last.len(), world.job("a").phase), (20_000, JobPhase::JOB_DONE));
    let mut chunks = Vec::new();
    let seen = world.rows.scan(Table::ArrayChunk, &[], &[], &mut |_, value| {
        chunks.push(value.len());
        true
    });
    seen.expect("memory");
    assert_eq!(chunks.len(), 3);
    assert!(chunks.iter().all(|bytes| *bytes < 1_100), "{chunks:?}");
}

#[test]
fn a_sweep_is_every_combination_and_the_last_name_changes_fastest() {
    let mut world = World::newest();
    let mut spec = array(0, 10);
    for (name, values) in [("lr", vec!["0.1", "0.01"]), ("optimizer", vec!["\"sgd\"", "\"adam\"", "null"])] {
        let values = values.into_iter().map(str::to_owned).collect();
        spec.sweep.push(SweepParameter { name: name.into(), values, ..SweepParameter::default() });
    }
    world.ok(submit_job(spec));
    next(&mut world);
    assert_eq!(open(&world).len(), 6);
    let parameters = |index: u32| {
        let task = world.task(&format!("a/{index}"));
        let data: serde_json::Value = serde_json::from_slice(&task.task_data).expect("JSON");
        let list: Vec<String> = task.parameters.iter().map(|one| format!("{}={}", one.key, one.value)).collect();
        (list.join(" "), data["parameters"].to_string(), data["array_index"].clone())
    };
    assert_eq!(parameters(0).0, "lr=0.1 optimizer=\"sgd\"");
    assert_eq!(parameters(4).0, "lr=0.01 optimizer=\"adam\"");
    assert_eq!(parameters(5).1, "{\"lr\":0.01,\"optimizer\":null}");
    assert_eq!(parameters(5).2, 5);
}

#[test]
fn arrays_that_make_no_sense_are_refused() {
    let mut world = World::newest();
    let parameter = |name: &str, values: &[&str]| SweepParameter {
        name: name.into(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        ..SweepParameter::default()
    };
    let sweep = |list: Vec<SweepParameter>| {
        let mut spec = array(0, 0);
        spec.sweep = list.into();
        spec
    };
    let with = |change: &dyn Fn(&mut JobSpec)| {
        let mut spec = array(3, 0);
        change(&mut spec);
        spec
    };
    let ten: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
    let cases: Vec<(JobSpec, &str)> = vec![
        (array(0, 0), "spec.array.count: 1 to 1000000 elements, is 0"),
        (array(1_000_001, 0), "is 1000001"),
        (array(5, 2_000), "spec.array.max_parallel: at most 1024"),
        (sweep((0..7).map(|n| parameter(&format!("p{n}"), &ten)).collect()), "is 10000000"),
        (sweep(vec![parameter("a", &["1"]), parameter("A", &["1"])]), "two parameters are called A"),
        (sweep(vec![parameter("a-b", &["1"])]), "spec.sweep.name"),
        (sweep(vec![parameter("a", &[])]), "spec.sweep.a: needs a value"),
        (sweep(vec![parameter("a", &["x"])]), "spec.sweep.a: a value is not JSON"),
        (with(&|spec| spec.sweep.push(parameter("a", &["1"]))), "leave it out"),
        (with(&|spec| spec.task_data = b"[]".to_vec()), "must be a JSON object"),
        (with(&|spec| spec.task_data = b"{\"parameters\":1}".to_vec()), "\"parameters\" is set for each element"),
        (with(&|spec| spec.mut_task().depends_on.push(Dependency::default())), "spec.task.depends_on"),
        (with(&|spec| spec.field_type = "dag".into()), "no elements"),
    ];
    for (spec, part) in cases {
        let reply = world.must(submit_job(spec), Outcome::INVALID);
        assert!(reply.message.contains(part), "{} is not about {part}", reply.message);
    }
    World::with_nodes().must(submit_job(array(3, 0)), Outcome::PRECONDITION);
}

#[test]
fn a_task_with_an_element_s_name_ends_the_array_with_a_reason() {
    let mut world = World::newest();
    world.ok(submit_job(array(5, 2)));
    world.submit("a/3");
    next(&mut world);
    world.end("a/0", COMPLETED);
    next(&mut world);
    world.end("a/1", COMPLETED);
    next(&mut world);
    assert_eq!(world.job("a").phase, JobPhase::JOB_FAILED);
    assert!(world.job("a").reason.contains("a/3"), "{}", world.job("a").reason);
}
