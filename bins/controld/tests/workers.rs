//! Workers that lack what tasks need, workers inside replicas, and the logs of what they ran.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{checkout, program, python, wait_for, Cluster, Process};
use serde_json::Value;

fn modules() -> String {
    checkout().join("ml-code/src").display().to_string()
}

fn train(cluster: &Cluster, name: &str, more: &[&str]) {
    let script = checkout().join("bins/controld/tests/scripts/line.py").display().to_string();
    let line = [&["train", script.as_str(), "--name", name][..], more].concat();
    let (code, _, errors) = cluster.gridctl(&line);
    assert_eq!(code, 0, "{errors}");
}

fn json(cluster: &Cluster, line: &[&str]) -> Value {
    let (code, out, errors) = cluster.gridctl(&[line, &["--output", "json"]].concat());
    assert_eq!(code, 0, "{errors}");
    serde_json::from_str(&out).expect("it prints JSON")
}

fn wait_done(cluster: &Cluster, name: &str) {
    let (code, out, errors) = cluster.gridctl(&["job", "wait", name, "--timeout", "120s"]);
    assert_eq!(code, 0, "{out}{errors}");
}

/// A program that stands for an interpreter.
fn interpreter(folder: &Path, name: &str, script: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, script).expect("writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    path
}

fn worker(cluster: &Cluster, name: &str, python: &str) -> Process {
    let mut command = Command::new(program("workerd"));
    command
        .args(["--node-id", name, "--endpoints", &cluster.endpoints().join(","), "--preset", "local", "--slots", "2"])
        .arg("--dir")
        .arg(cluster.dir.path().join(name))
        .args(["--python", python, "--python-path", &modules()]);
    Process::start(&mut command, &cluster.dir.path().join(format!("{name}.log")))
}

fn healthy(cluster: &Cluster, name: &str) -> Value {
    wait_for("the worker", || {
        let nodes = json(cluster, &["node", "list"]);
        let node = nodes.as_array()?.iter().find(|node| node["node"] == name && node["status"] == "healthy");
        node.cloned()
    })
}

#[test]
fn a_training_runs_through_workers_inside_the_replicas() {
    let (python, modules) = (python(), modules());
    let flags = ["--with-worker", "--worker-python", &python, "--worker-python-path", &modules, "--worker-slots", "2"];
    let cluster = Cluster::start(3, &flags);
    let node = healthy(&cluster, "controld-1");
    assert_eq!(node["slots"], 2, "{node}");
    train(&cluster, "inside", &["--shards", "3", "--workers", "3", "--rounds", "5"]);
    wait_done(&cluster, "inside");
    let audit = json(&cluster, &["job", "audit", "inside"]);
    assert_eq!((&audit["accepted"], &audit["lost"]), (&Value::from(15), &Value::from(0)), "{audit}");
}

#[test]
fn a_worker_or_replica_that_is_given_no_python_ends_with_one_line() {
    let cluster = Cluster::prepare(1, &["--with-worker", "--worker-python", "/nowhere/python"]);
    let mut replica = cluster.command(0);
    let mut alone = Command::new(program("workerd"));
    let dir = cluster.dir.path().join("w").display().to_string();
    alone.args(["--dir", dir.as_str(), "--python", "/nowhere/python"]);
    for (command, flag) in [(&mut replica, "--worker-python"), (&mut alone, "--python")] {
        let output = command.output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains("/nowhere/python: it does not exist; try: ") && text.contains(flag), "{text}");
    }
}

#[test]
fn a_worker_whose_python_lacks_the_package_takes_other_tasks_and_no_trainers() {
    let cluster = Cluster::start(1, &[]);
    let bare = interpreter(cluster.dir.path(), "bare-python", "#!/bin/sh\necho missing raftgrid\n");
    let _worker = worker(&cluster, "bare", &bare.display().to_string());
    assert_eq!(healthy(&cluster, "bare")["unable"], serde_json::json!(["train"]));
    train(&cluster, "waits", &["--shards", "1", "--workers", "1", "--rounds", "2"]);
    let why = wait_for("the reason", || {
        let answer = json(&cluster, &["task", "why", "waits/trainer-0"]);
        answer["reasons"].as_array().filter(|reasons| !reasons.is_empty()).map(|_| answer.to_string())
    });
    assert!(why.contains("node bare: cannot run tasks of type train"), "{why}");
    let done = json(&cluster, &["task", "submit", "--type", "command", "--data", r#"{"argv":["true"]}"#, "--wait"]);
    assert_eq!(done["status"], "completed", "{done}");
    let _able = worker(&cluster, "able", &python());
    wait_done(&cluster, "waits");
}

#[test]
fn a_python_that_breaks_after_the_start_costs_the_job_nothing_while_another_worker_is_there() {
    let cluster = Cluster::start(1, &[]);
    // It has everything when it is asked; when a task comes it is gone.
    let script = "#!/bin/sh\n[ \"$1\" = -c ] && { echo missing; exit 0; }\necho tried >> \"$0.tried\"\nexit 127\n";
    let broken = interpreter(cluster.dir.path(), "broken-python", script);
    let _broken = worker(&cluster, "broken", &broken.display().to_string());
    healthy(&cluster, "broken");
    train(&cluster, "moves", &["--shards", "2", "--workers", "2", "--rounds", "4"]);
    wait_for("a trainer on the broken worker", || broken.with_extension("tried").exists().then_some(()));
    let _able = worker(&cluster, "able", &python());
    wait_done(&cluster, "moves");
    let audit = json(&cluster, &["job", "audit", "moves"]);
    assert_eq!((&audit["accepted"], &audit["lost"]), (&Value::from(8), &Value::from(0)), "{audit}");
}

#[test]
fn a_program_that_is_nowhere_fails_its_task_after_a_bounded_number_of_attempts() {
    let cluster = Cluster::start(1, &[]);
    let _one = worker(&cluster, "one", &python());
    let data = r#"{"argv":["no-such-program"]}"#;
    let (code, _, errors) =
        cluster.gridctl(&["task", "submit", "--type", "command", "--data", data, "--wait", "--id", "x"]);
    assert_eq!(code, 1);
    assert!(errors.contains("program `no-such-program` does not exist"), "{errors}");
    let attempts = json(&cluster, &["task", "get", "x"])["attempt"].as_u64().expect("a number");
    // Five for which the node takes the blame, then one and its three retries.
    assert_eq!(attempts, 9);
}

#[test]
fn a_cancelled_task_that_is_retried_runs_again_under_a_name_that_is_told() {
    let mut cluster = Cluster::start(1, &[]);
    let submit = ["task", "submit", "--type", "command", "--data", r#"{"argv":["echo","again"]}"#, "--id", "x"];
    assert_eq!(cluster.gridctl(&submit).0, 0);
    assert_eq!(cluster.gridctl(&["task", "cancel", "x"]).0, 0);
    let (code, out, errors) = cluster.gridctl(&["task", "retry", "x"]);
    assert_eq!(code, 0, "{errors}");
    assert!(out.contains("runs again as x/retry-1"), "{out}");
    cluster.start_worker("worker-1");
    wait_for("the second life", || {
        (json(&cluster, &["task", "get", "x/retry-1"])["status"] == "completed").then_some(())
    });
    assert_eq!(json(&cluster, &["task", "get", "x"])["phase"], "cancelled", "what is over does not change");
}

#[test]
fn the_log_of_a_task_is_found_through_every_replica_and_what_is_missing_is_said() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.start_worker("worker-1");
    let submit = |id: &str, script: &str| {
        let data = serde_json::json!({"argv": ["sh", "-c", script]}).to_string();
        json(&cluster, &["task", "submit", "--type", "command", "--data", &data, "--id", id, "--wait"]);
    };
    submit("speaks", "echo hello; echo there >&2");
    submit("silent", "true");
    let logs_through = |endpoint: &str, id: &str| {
        let output = Command::new(program("gridctl"))
            .args(["task", "logs", id, "--endpoints", endpoint])
            .output()
            .expect("gridctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    };
    for endpoint in cluster.endpoints() {
        let lines = wait_for("the log, which is sent behind the result", || {
            let (code, out, _) = logs_through(&endpoint, "speaks");
            (code == 0 && out.lines().count() == 2).then_some(out)
        });
        assert!(lines.contains("hello\n") && lines.contains("there\n"), "{lines}");
        let (code, out, errors) = logs_through(&endpoint, "silent");
        assert_eq!((code, out.as_str()), (0, ""));
        assert!(errors.contains("task silent has no log: it printed nothing"), "{errors}");
    }
    let leader = cluster.leader();
    let (away, asked) = ((leader + 1) % 3, cluster.replicas[(leader + 2) % 3].client.clone());
    let gone = cluster.replicas[away].client.clone();
    cluster.kill_replica(away);
    let (code, _, errors) = logs_through(&asked, "silent");
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains(&gone) && errors.contains("may have it"), "{errors}");
}
