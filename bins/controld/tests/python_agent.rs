//! The pure-Python agent as a node of a real cluster.

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{checkout, program, python, wait_for, Cluster, Process};
use serde_json::Value;

fn json(cluster: &Cluster, line: &[&str]) -> Value {
    let (code, out, errors) = cluster.gridctl(&[line, &["--output", "json"]].concat());
    assert_eq!(code, 0, "{errors}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn agent(cluster: &Cluster, name: &str) -> Process {
    let mut command = Command::new(python());
    command
        .args(["-m", "raftgrid.agent", "--node-id", name, "--endpoints", &cluster.endpoints().join(",")])
        .args(["--slots", "2", "--stop-grace", "0.5"])
        .arg("--dir")
        .arg(cluster.dir.path().join(name))
        .env("PYTHONPATH", checkout().join("ml-code/src"));
    Process::start(&mut command, &cluster.dir.path().join(format!("{name}.log")))
}

fn healthy(cluster: &Cluster, name: &str) -> Value {
    wait_for("the node", || {
        let nodes = json(cluster, &["node", "list"]);
        let node = nodes.as_array()?.iter().find(|node| node["node"] == name && node["status"] == "healthy");
        node.cloned()
    })
}

fn submit(cluster: &Cluster, task_type: &str, id: &str, data: &Value) {
    let (code, _, errors) =
        cluster.gridctl(&["task", "submit", "--type", task_type, "--id", id, "--data", &data.to_string()]);
    assert_eq!(code, 0, "{errors}");
}

fn shell(cluster: &Cluster, id: &str, line: &str) {
    submit(cluster, "command", id, &serde_json::json!({"argv": ["sh", "-c", line]}));
}

fn task_with(cluster: &Cluster, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for("the task's state", || Some(json(cluster, &["task", "get", id])).filter(&wanted))
}

/// A process id that a task has written.
fn pid_in(path: &Path) -> i32 {
    wait_for("a process id", || std::fs::read_to_string(path).ok()?.trim().parse().ok())
}

fn gone(pid: i32) {
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    wait_for("the end of a process", || {
        let text = std::fs::read_to_string(&stat).unwrap_or_default();
        let dead = text.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
        dead.then_some(())
    });
}

#[test]
fn tasks_run_on_it_with_their_output_their_log_and_their_failures() {
    let cluster = Cluster::start(1, &[]);
    let mut process = agent(&cluster, "py");
    let node = healthy(&cluster, "py");
    assert_eq!((&node["slots"], &node["labels"]["os"]), (&Value::from(2), &Value::from("linux")));
    assert!(node["unable"].as_array().expect("a list").contains(&Value::from("train")), "{node}");
    submit(
        &cluster,
        "python",
        "code",
        &serde_json::json!({"code": "import sys; print('hi', sys.argv[1])", "args": ["you"]}),
    );
    let done = task_with(&cluster, "code", |task| task["status"] == "completed");
    assert!(done.to_string().contains("hi you"), "{done}");
    let log = wait_for("the log", || {
        let (_, out, _) = cluster.gridctl(&["task", "logs", "code"]);
        (!out.is_empty()).then_some(out)
    });
    assert_eq!(log, "hi you\n");
    shell(&cluster, "wrong", "echo no such thing >&2; exit 65");
    let failed = task_with(&cluster, "wrong", |task| task["status"] == "failed");
    assert!(failed.to_string().contains("no such thing"), "{failed}");
    shell(&cluster, "long", "sleep 600");
    task_with(&cluster, "long", |task| task["status"] == "running");
    let (code, _, errors) = cluster.gridctl(&["task", "cancel", "long"]);
    assert_eq!(code, 0, "{errors}");
    task_with(&cluster, "long", |task| task["status"] == "failed" && task.to_string().contains("cancelled"));
    process.signal("TERM");
    let status = wait_for("the end of the agent", || process.exited());
    assert!(status.success(), "{status}");
    assert_eq!(json(&cluster, &["node", "list"]), serde_json::json!([]), "it has deregistered");
}

#[test]
fn one_that_is_killed_takes_its_tasks_with_it_and_they_run_elsewhere() {
    let cluster = Cluster::start(1, &[]);
    let mut first = agent(&cluster, "py-1");
    healthy(&cluster, "py-1");
    let (note, go) = (cluster.dir.path().join("pid"), cluster.dir.path().join("go"));
    shell(
        &cluster,
        "moves",
        &format!("echo $$ > {}; until [ -e {} ]; do sleep 0.05; done", note.display(), go.display()),
    );
    let pid = pid_in(&note);
    first.kill();
    gone(pid);
    let _second = agent(&cluster, "py-2");
    task_with(&cluster, "moves", |task| task["status"] == "running" && task["node"] == "py-2");
    std::fs::write(&go, "").expect("writable");
    let done = task_with(&cluster, "moves", |task| task["status"] == "completed");
    assert_eq!(done["attempt"], 2, "{done}");
}

#[test]
fn one_without_a_control_plane_kills_its_tasks_before_their_leases_are_given_away() {
    let mut cluster = Cluster::start(1, &[]);
    let _agent = agent(&cluster, "py");
    healthy(&cluster, "py");
    let note = cluster.dir.path().join("pid");
    shell(&cluster, "fenced", &format!("echo $$ > {}; exec sleep 600", note.display()));
    let pid = pid_in(&note);
    task_with(&cluster, "fenced", |task| task["status"] == "running");
    cluster.kill_replica(0);
    // Nobody but the agent's own fence can end it now.
    gone(pid);
    std::fs::remove_file(&note).expect("there");
    cluster.start_replica(0);
    cluster.leader();
    assert!(pid_in(&note) != pid, "it runs again when the control plane is back");
}

#[test]
fn another_under_the_same_name_ends_the_first_and_its_tasks() {
    let cluster = Cluster::start(1, &[]);
    let mut first = agent(&cluster, "py");
    healthy(&cluster, "py");
    let note = cluster.dir.path().join("pid");
    shell(&cluster, "taken", &format!("echo $$ > {}; exec sleep 600", note.display()));
    let pid = pid_in(&note);
    let mut command = Command::new(program("workerd"));
    command
        .args(["--node-id", "py", "--endpoints", &cluster.endpoints().join(","), "--preset", "local", "--slots", "1"])
        .arg("--dir")
        .arg(cluster.dir.path().join("other"));
    let _other = Process::start(&mut command, &cluster.dir.path().join("other.log"));
    let status = wait_for("the end of the first", || first.exited());
    assert!(!status.success());
    gone(pid);
    task_with(&cluster, "taken", |task| task["status"] == "running" && task["attempt"] == 2);
}
