//! `python -m raftgrid.serve`: tasks that are calls of Python functions, on a real cluster.

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use harness::{checkout, python, wait_for, Cluster, Process};
use raftgrid_proto::v1::*;

/// Each call of `note` leaves a line.
const FUNCTIONS: &str = r#"
import os, time
import raftgrid.serve

def double(data):
    return {"doubled": 2 * data["value"]}

def note(data):
    with open(os.environ["NOTES"], "a") as file:
        file.write(data["name"] + "\n")
    return data["name"]

def polite(data):
    note(data)
    while not raftgrid.serve.should_stop():
        time.sleep(0.01)

def stubborn(data):
    note(data)
    while not os.path.exists(os.environ["NOTES"] + ".go"):
        time.sleep(0.01)
    return "went on"

def greedy(data):
    import re
    re.match("(a*)*b", "a" * 60)

def odd(data):
    return float("nan")
"#;

struct Calls {
    cluster: Cluster,
}

impl Calls {
    fn start(replicas: u64) -> Self {
        let cluster = Cluster::start(replicas, &[]);
        fs::write(cluster.dir.path().join("calls.py"), FUNCTIONS).expect("writable");
        Self { cluster }
    }

    fn server(&self, name: &str, slots: u32) -> Process {
        let (dir, cluster) = (self.cluster.dir.path(), &self.cluster);
        let mut command = Command::new(python());
        command
            .args(["-m", "raftgrid.serve", "--node-id", name, "--endpoints", &cluster.endpoints().join(",")])
            .args(["--slots", &slots.to_string(), "--stop-grace", "0.5", "--dir"])
            .arg(dir.join(name))
            .args(
                ["double", "note", "polite", "stubborn", "odd", "greedy"]
                    .map(|it| format!("--function={it}=calls:{it}")),
            )
            .current_dir(dir)
            .env("NOTES", dir.join("notes"))
            .env("PYTHONPATH", checkout().join("ml-code/src"));
        Process::start(&mut command, &dir.join(format!("{name}.log")))
    }

    fn submit(&self, id: &str, task_type: &str, data: &str) {
        let mut request = SubmitTaskRequest::new();
        request.set_task_id(id.to_owned());
        request.set_task_type(task_type.to_owned());
        request.set_task_data(data.as_bytes().to_vec());
        self.cluster.client().submit_task(request).expect("it is accepted");
    }

    fn task(&self, id: &str, wanted: impl Fn(&Task) -> bool) -> Task {
        wait_for("the task's state", || self.cluster.client().get_task(id).ok().filter(&wanted))
    }

    fn over(&self, id: &str) -> Task {
        self.task(id, |task| matches!(task.status, TaskStatus::COMPLETED | TaskStatus::FAILED))
    }

    fn notes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.cluster.dir.path().join("notes")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn functions_answer_fail_and_are_asked_to_stop() {
    let calls = Calls::start(1);
    let mut server = calls.server("py", 4);
    calls.submit("d", "double", r#"{"value": 21}"#);
    let done = calls.over("d");
    assert_eq!((done.status, &*done.result_data), (TaskStatus::COMPLETED, r#"{"doubled":42}"#));
    for (id, task_type, data, why) in [
        ("raises", "double", r#"{"other": 1}"#, "KeyError: 'value'"),
        ("nan", "odd", "", "the result is not JSON"),
        (
            "nobody",
            "triple",
            "",
            "no function 'triple' is served here, only double, greedy, note, odd, polite, stubborn",
        ),
    ] {
        calls.submit(id, task_type, data);
        let failed = calls.over(id);
        assert!(failed.status == TaskStatus::FAILED && failed.failure_reason.contains(why), "{failed:?}");
    }
    let (_, nodes, _) = calls.cluster.gridctl(&["node", "list", "--output", "json"]);
    assert!(
        nodes.contains(r#""function.double":"python""#) || nodes.contains(r#""function.double": "python""#),
        "{nodes}"
    );
    calls.submit("p", "polite", r#"{"name": "p"}"#);
    calls.task("p", |task| task.status == TaskStatus::RUNNING);
    calls.cluster.client().cancel_task("p").expect("it can be cancelled");
    assert!(calls.over("p").failure_reason.contains("cancelled"));
    // One that does not listen takes its process with it; what waited behind it runs on the next one.
    calls.submit("s", "stubborn", r#"{"name": "s"}"#);
    calls.task("s", |task| task.status == TaskStatus::RUNNING);
    calls.submit("behind", "double", r#"{"value": 1}"#);
    calls.cluster.client().cancel_task("s").expect("it can be cancelled");
    let status = wait_for("the end of the server", || server.exited());
    assert_eq!(status.code(), Some(75), "{status}");
    assert!(calls.over("s").failure_reason.contains("cancelled"));
    let mut next = calls.server("py", 4);
    assert_eq!(calls.over("behind").status, TaskStatus::COMPLETED);
    next.signal("TERM");
    let status = wait_for("the end of the server", || next.exited());
    assert!(status.success(), "{status}");
    let (_, nodes, _) = calls.cluster.gridctl(&["node", "list", "--output", "json"]);
    assert_eq!(nodes.trim(), "[]", "it has deregistered");
}

#[test]
fn a_killed_leader_and_a_killed_server_cost_no_call_its_end() {
    let mut calls = Calls::start(3);
    let mut first = calls.server("py-1", 8);
    let _second = calls.server("py-2", 8);
    let ids: Vec<String> = (0..60).map(|n| format!("n{n}")).collect();
    for (number, id) in ids.iter().enumerate() {
        calls.submit(id, "note", &format!(r#"{{"name": "{id}"}}"#));
        if number == 20 {
            first.kill();
        }
        if number == 40 {
            let leader = calls.cluster.leader();
            calls.cluster.kill_replica(leader);
        }
    }
    for id in &ids {
        let done = calls.over(id);
        assert_eq!((done.status, done.result_data), (TaskStatus::COMPLETED, format!("\"{id}\"")), "{id}");
    }
    let called: BTreeSet<String> = calls.notes().into_iter().collect();
    assert_eq!(called, ids.into_iter().collect());
}

#[test]
fn a_server_without_a_control_plane_ends_by_itself_and_its_call_runs_again() {
    let mut calls = Calls::start(1);
    let mut server = calls.server("py", 1);
    calls.submit("s", "stubborn", r#"{"name": "s"}"#);
    calls.task("s", |task| task.status == TaskStatus::RUNNING);
    calls.cluster.kill_replica(0);
    let status = wait_for("the fence", || server.exited());
    assert_eq!(status.code(), Some(75), "{status}");
    calls.cluster.start_replica(0);
    let _next = calls.server("py", 1);
    // Only now may the second attempt run, and it does.
    wait_for("the second attempt", || (calls.notes().len() == 2).then_some(()));
    fs::write(calls.cluster.dir.path().join("notes.go"), "").expect("writable");
    let done = calls.over("s");
    assert_eq!((done.status, done.attempt), (TaskStatus::COMPLETED, 2), "{done:?}");
}

#[test]
fn calls_that_waited_in_a_process_that_stood_still_run_elsewhere_only() {
    let calls = Calls::start(1);
    let mut first = calls.server("py-1", 4);
    calls.submit("s", "stubborn", r#"{"name": "s"}"#);
    calls.task("s", |task| task.status == TaskStatus::RUNNING);
    // They are handed out and wait behind it.
    for id in ["w1", "w2", "w3"] {
        calls.submit(id, "note", &format!(r#"{{"name": "{id}"}}"#));
        calls.task(id, |task| task.status == TaskStatus::ASSIGNED && task.assigned_node_id == "py-1");
    }
    first.signal("STOP");
    let _second = calls.server("py-2", 4);
    wait_for("the second attempt", || (calls.notes().iter().filter(|note| *note == "s").count() == 2).then_some(()));
    fs::write(calls.cluster.dir.path().join("notes.go"), "").expect("writable");
    for id in ["s", "w1", "w2", "w3"] {
        assert_eq!(calls.over(id).status, TaskStatus::COMPLETED, "{id}");
    }
    // The stubborn call may see that it may go on, but what waited behind it has gone.
    first.signal("CONT");
    wait_for("the end of the first", || first.exited());
    let waited: Vec<String> = calls.notes().into_iter().filter(|note| note != "s").collect();
    assert_eq!(waited.len(), 3, "{waited:?}");
}

#[test]
fn a_function_that_holds_the_interpreter_does_not_outlive_its_lease() {
    let calls = Calls::start(1);
    let mut server = calls.server("py", 1);
    calls.submit("g", "greedy", r#"{"name": "g"}"#);
    let status = wait_for("the end of the server", || server.exited());
    assert_eq!(status.code(), Some(1), "{status}");
}

#[test]
fn a_call_that_takes_too_long_is_told_by_name_when_nothing_of_it_runs_any_more() {
    let calls = Calls::start(1);
    let mut server = calls.server("py", 2);
    let mut request = SubmitTaskRequest::new();
    request.set_task_id("late".to_owned());
    request.set_task_type("stubborn".to_owned());
    request.set_task_data(br#"{"name": "late"}"#.to_vec());
    request.mut_spec().run_timeout_ms = 300;
    calls.cluster.client().submit_task(request).expect("it is accepted");
    let status = wait_for("the end of the server", || server.exited());
    assert_eq!(status.code(), Some(75), "{status}");
    let late = calls.task("late", |task| task.failure_reason.contains("run_timeout"));
    assert_eq!(late.attempt, 1, "{late:?}");
}
