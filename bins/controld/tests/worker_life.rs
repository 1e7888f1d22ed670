//! Workers of a real cluster: what is wrong with them is told, they drain by notice, logs outlive them, keys outlive replicas.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::{program, wait_for, Cluster, Process};
use serde_json::Value;

fn json(cluster: &Cluster, line: &[&str]) -> Value {
    let (code, out, errors) = cluster.gridctl(&[line, &["--output", "json"]].concat());
    assert_eq!(code, 0, "{errors}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn worker(cluster: &Cluster, name: &str, flags: &[&str]) -> Process {
    let mut command = Command::new(program("workerd"));
    command
        .args(["--node-id", name, "--endpoints", &cluster.endpoints().join(","), "--preset", "local", "--slots", "2"])
        .arg("--dir")
        .arg(cluster.dir.path().join(name))
        .args(flags);
    Process::start(&mut command, &cluster.dir.path().join(format!("{name}.log")))
}

fn node(cluster: &Cluster, name: &str) -> Option<Value> {
    json(cluster, &["node", "list"]).as_array()?.iter().find(|node| node["node"] == name).cloned()
}

fn node_with(cluster: &Cluster, name: &str, status: &str) -> Value {
    wait_for("the node's status", || node(cluster, name).filter(|node| node["status"] == status))
}

fn submit(cluster: &Cluster, id: &str, line: &str) {
    let data = serde_json::json!({"argv": ["sh", "-c", line]}).to_string();
    let (code, _, errors) = cluster.gridctl(&["task", "submit", "--type", "command", "--id", id, "--data", &data]);
    assert_eq!(code, 0, "{errors}");
}

fn task_with(cluster: &Cluster, id: &str, status: &str) -> Value {
    wait_for("the task's status", || Some(json(cluster, &["task", "get", id])).filter(|task| task["status"] == status))
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writable");
}

#[test]
fn a_log_is_read_after_its_worker_and_the_replica_that_had_it_are_gone() {
    let mut cluster = Cluster::start(3, &[]);
    let mut worker = worker(&cluster, "w1", &[]);
    node_with(&cluster, "w1", "healthy");
    submit(&cluster, "speaks", "echo first; echo second; echo third >&2");
    task_with(&cluster, "speaks", "completed");
    let read = |cluster: &Cluster| {
        let (code, out, errors) = cluster.gridctl(&["task", "logs", "speaks"]);
        assert_eq!(code, 0, "{errors}");
        out
    };
    let first = wait_for("the whole log", || Some(read(&cluster)).filter(|log| log.contains("third")));
    // Its live copy lies in files of some replicas: those that go lose it, and so does the one that stays and is started anew without it.
    let keeps = |cluster: &Cluster, at: usize| {
        let folder = cluster.data_dir(at).join("task-logs");
        std::fs::read_dir(folder).map_or(0, |entries| entries.count())
    };
    let holders = wait_for("the live copy", || {
        let holders: Vec<usize> = (0..3).filter(|at| keeps(&cluster, *at) > 0).collect();
        (!holders.is_empty()).then_some(holders)
    });
    worker.kill();
    let gone = holders[0];
    for at in holders {
        cluster.kill_replica(at);
        std::fs::remove_dir_all(cluster.data_dir(at).join("task-logs")).expect("there");
        if at != gone {
            cluster.start_replica(at);
        }
    }
    cluster.leader();
    let again = wait_for("the log from its artifact", || Some(read(&cluster)).filter(|log| !log.is_empty()));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&again), sorted(&first));
    // A reader that follows is given the same and its end.
    let (code, followed, errors) = cluster.gridctl(&["task", "logs", "speaks", "--follow"]);
    assert_eq!((code, followed.as_str()), (0, again.as_str()), "{errors}");
}

#[test]
fn what_is_wrong_with_a_machine_is_shown_and_keeps_tasks_away_until_it_is_right() {
    let cluster = Cluster::start(1, &[]);
    let _worker = worker(&cluster, "w1", &["--gpus-simulated", "2:H100:80GiB"]);
    let node = node_with(&cluster, "w1", "healthy");
    assert_eq!((&node["gpus"][1]["model"], &node["labels"]["os"]), (&Value::from("H100"), &Value::from("linux")));
    // A file where its folder was: nothing can be written there any more.
    let (dir, aside) = (cluster.dir.path().join("w1"), cluster.dir.path().join("w1-aside"));
    std::fs::rename(&dir, &aside).expect("ours");
    write(&dir, "in the way");
    let node = node_with(&cluster, "w1", "unhealthy");
    let problem = wait_for("the problem", || {
        self::node(&cluster, "w1")
            .and_then(|node| node["problem"].as_str().map(str::to_owned))
            .filter(|it| !it.is_empty())
    });
    assert!(problem.contains("its folder cannot be written"), "{problem} {node}");
    submit(&cluster, "waits", "true");
    let why = wait_for("the reason", || {
        let answer = json(&cluster, &["task", "why", "waits"]);
        answer["reasons"].as_array().filter(|reasons| !reasons.is_empty()).map(|_| answer.to_string())
    });
    assert!(why.contains("node w1: unhealthy"), "{why}");
    std::fs::remove_file(&dir).expect("ours");
    std::fs::rename(&aside, &dir).expect("ours");
    node_with(&cluster, "w1", "healthy");
    task_with(&cluster, "waits", "completed");
}

#[test]
fn gpus_of_nvidia_smi_are_the_node_s_and_one_that_is_gone_is_a_problem() {
    let cluster = Cluster::start(1, &[]);
    let folder = cluster.dir.path().join("bin");
    std::fs::create_dir(&folder).expect("writable");
    let (program_path, lines) = (folder.join("nvidia-smi"), folder.join("lines"));
    write(&lines, "0, NVIDIA H100, 81559\n1, NVIDIA H100, 81559\n");
    // What it prints is a file's business, so that it can change at once.
    write(&program_path, &format!("#!/bin/sh\ncat {}\n", lines.display()));
    std::fs::set_permissions(&program_path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let mut command = Command::new(program("workerd"));
    command
        .args(["--node-id", "w1", "--endpoints", &cluster.endpoints().join(","), "--preset", "local", "--slots", "2"])
        .arg("--dir")
        .arg(cluster.dir.path().join("w1"))
        .env("PATH", format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default()));
    let _worker = Process::start(&mut command, &cluster.dir.path().join("w1.log"));
    let node = node_with(&cluster, "w1", "healthy");
    assert_eq!(node["gpus"][1], serde_json::json!({"model": "NVIDIA H100", "memory_bytes": 81_559_u64 << 20}));
    let data = r#"{"argv":["sh","-c","echo $CUDA_VISIBLE_DEVICES"]}"#;
    let done =
        json(&cluster, &["task", "submit", "--type", "command", "--gpus", "2", "--data", data, "--wait"]).to_string();
    assert!(done.contains("0,1"), "{done}");
    write(&lines, "0, NVIDIA H100, 81559\n");
    node_with(&cluster, "w1", "unhealthy");
    let problem = wait_for("the problem", || {
        self::node(&cluster, "w1")
            .and_then(|node| node["problem"].as_str().map(str::to_owned))
            .filter(|it| !it.is_empty())
    });
    assert_eq!(problem, "GPU 1 is gone");
}

#[test]
fn a_notice_drains_the_worker_and_its_task_goes_to_another() {
    let cluster = Cluster::start(1, &[]);
    let notice = cluster.dir.path().join("notice");
    let mut first = worker(&cluster, "w1", &["--notice-file", &notice.display().to_string(), "--stop-grace", "500ms"]);
    node_with(&cluster, "w1", "healthy");
    let go = cluster.dir.path().join("go");
    submit(&cluster, "moves", &format!("until [ -e {} ]; do sleep 0.05; done", go.display()));
    task_with(&cluster, "moves", "running");
    let _second = worker(&cluster, "w2", &[]);
    node_with(&cluster, "w2", "healthy");
    write(&notice, "");
    let status = wait_for("the end of the first worker", || first.exited());
    assert!(status.success(), "{status}");
    let moved = wait_for("the task on the other", || {
        Some(json(&cluster, &["task", "get", "moves"]))
            .filter(|task| task["node"] == "w2" && task["status"] == "running")
    });
    assert!(node(&cluster, "w1").is_none(), "it has deregistered: {moved}");
    write(&go, "");
    task_with(&cluster, "moves", "completed");
}

#[test]
fn keys_are_compared_and_set_through_the_death_of_the_leader() {
    let mut cluster = Cluster::start(3, &[]);
    let first = wait_for("the machine's version", || {
        let (code, out, _) = cluster.gridctl(&["kv", "put", "a/one", "hello", "--output", "json"]);
        (code == 0).then(|| serde_json::from_str::<Value>(&out).expect("JSON")["revision"].as_u64().expect("a number"))
    });
    let (code, out, _) = cluster.gridctl(&["kv", "get", "a/one"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"));
    let leader = cluster.leader();
    cluster.kill_replica(leader);
    let (code, _, errors) = cluster.gridctl(&["kv", "cas", "a/one", "0", "mine"]);
    assert!(code == 1 && errors.contains(&format!("it has revision {first}")), "{code} {errors}");
    let swapped = json(&cluster, &["kv", "cas", "a/one", &first.to_string(), "mine"]);
    let (code, ..) = cluster.gridctl(&["kv", "cas", "a/one", &first.to_string(), "theirs"]);
    assert_eq!(code, 1, "somebody wrote meanwhile");
    cluster.start_replica(leader);
    cluster.caught_up(leader);
    let got = json(&cluster, &["kv", "get", "a/one"]);
    assert_eq!((&got["value"], &got["revision"]), (&Value::from("mine"), &swapped["revision"]));
    let (code, ..) = cluster.gridctl(&["kv", "del", "a/one"]);
    let (absent, _, errors) = cluster.gridctl(&["kv", "get", "a/one"]);
    assert!(code == 0 && absent == 1 && errors.contains("does not exist"), "{errors}");
    assert_eq!(json(&cluster, &["kv", "ls", "a/"]), serde_json::json!([]));
}
