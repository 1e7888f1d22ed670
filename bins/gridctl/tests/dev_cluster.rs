//! `gridctl dev` with the real binaries: up, status, kill, restart, down.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A dev cluster that is taken down with its directory, whatever happened.
struct Dev {
    folder: tempfile::TempDir,
}

impl Dev {
    fn new() -> Self {
        let controld = Path::new(env!("CARGO_BIN_EXE_gridctl")).with_file_name("controld");
        assert!(controld.is_file(), "controld is not built; run `cargo build --release --bins` first");
        Self { folder: tempfile::tempdir().expect("a temporary directory") }
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join(".raftgrid-dev")
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_gridctl"))
            .args(line.split(' '))
            .current_dir(self.folder.path())
            .env_remove("RAFTGRID_ENDPOINTS")
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    }

    /// The JSON of a command that must succeed.
    fn json(&self, line: &str) -> Value {
        let output = self.run(&format!("{line} --output json"));
        assert!(output.status.success(), "{line}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("it prints JSON")
    }

    fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    /// Ids of all processes that carry the mark of this cluster and run, children of workers too.
    fn processes(&self) -> Vec<i32> {
        let mark = format!("GRIDCTL_DEV_DIR={}", self.directory().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("Linux").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may be down already.
        let _status = self.run("dev down");
    }
}

/// Bounds a hang; no verdict depends on how fast something came.
fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !look() {
        assert!(begin.elapsed() < std::time::Duration::from_secs(60), "never came: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_dev_cluster_survives_the_kill_of_its_leader_and_goes_down_without_a_trace() {
    let dev = Dev::new();
    let up = dev.json("dev up --peers 3 --workers 1 --detach");
    assert_eq!(up["endpoints"].as_array().map(Vec::len), Some(3));
    assert!(dev.processes().len() >= 4);
    assert_eq!(dev.json("job list"), Value::Array(Vec::new()), "endpoints come from dev.json");
    let line = dev.fails("dev up --detach");
    assert!(line.contains("is up already") && line.contains("gridctl dev down"), "{line}");

    let killed = dev.json("dev kill leader");
    let name = killed["killed"].as_str().expect("a name").to_owned();
    let pid = i32::try_from(killed["pid"].as_i64().expect("a process id")).expect("a process id");
    assert!(!dev.processes().contains(&pid));
    assert!(killed["leader"].is_string() && killed["leader"] != killed["killed"], "{killed}");
    let status = dev.json("dev status");
    let node =
        |name: &str| status["nodes"].as_array().expect("nodes").iter().find(|node| node["name"] == name).cloned();
    assert_eq!(node(&name).expect("listed")["state"], "down");
    assert!(dev.fails(&format!("dev kill {name}")).contains("does not run"));

    assert_eq!(dev.json(&format!("dev restart {name}"))["started"], Value::String(name));
    assert_eq!(dev.json("cluster status").as_array().map(Vec::len), Some(3));

    // Children of workers are part of the cluster: of one that runs, and of one that was killed at once.
    let sleep = "task submit --type command --data {\"argv\":[\"sleep\",\"1000\"]} --id";
    dev.json(&format!("{sleep} first"));
    wait_for("the first task runs", || dev.json("task get first")["status"] == "running");
    dev.json("dev kill worker-1");
    dev.json("dev restart worker-1");
    dev.json(&format!("{sleep} second"));
    wait_for("the second task runs", || dev.json("task get second")["status"] == "running");
    assert!(dev.processes().len() >= 5, "three replicas, a worker, a task");
    dev.json("dev down");
    assert_eq!(dev.processes(), Vec::<i32>::new());
    let line = dev.fails("job list --timeout 300ms");
    assert!(line.contains("no replica at"), "{line}");
}

#[test]
fn a_running_task_is_suspended_and_resumed_and_its_process_ends_in_between() {
    let dev = Dev::new();
    dev.json("dev up --peers 1 --workers 1 --detach");
    let idle = dev.processes().len();
    dev.json("task submit --type command --data {\"argv\":[\"sleep\",\"1000\"]} --id long");
    wait_for("the task runs", || dev.json("task get long")["status"] == "running" && dev.processes().len() > idle);
    // The leader raises the machine version by itself, a moment after the start.
    wait_for("the suspension is taken", || dev.run("task suspend long").status.success());
    wait_for("it is suspended", || dev.json("task get long")["phase"] == "suspended");
    wait_for("its process has ended", || dev.processes().len() == idle);
    assert!(dev.run("task why long").stdout.windows(9).any(|word| word == b"suspended"));
    assert!(dev.fails("task requeue long").contains("suspended"), "a suspended task is resumed");
    dev.json("task priority long 70");
    dev.json("task resume long");
    wait_for("it runs again", || dev.json("task get long")["status"] == "running");
    dev.json("task requeue long");
    wait_for("the third attempt", || dev.json("task get long")["attempt"].as_u64() == Some(3));
    dev.json("task cancel long");
    wait_for("it is cancelled", || dev.json("task get long")["phase"] == "cancelled");
    assert!(dev.fails("task resume long").contains("already"));
}

#[test]
fn an_interrupt_at_any_moment_of_the_start_leaves_no_process() {
    for after_ms in [20, 60, 120, 250, 400, 900] {
        let dev = Dev::new();
        // A test that runs in the background inherits an ignored SIGINT: what comes before gridctl takes the signal over would be lost.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_gridctl")]);
        command.args(["dev", "up", "--workers", "1"]).current_dir(dev.folder.path()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(std::time::Duration::from_millis(after_ms));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        let status = child.wait().expect("it ends");
        // The earliest interrupt may come before the signals are taken over: then the signal itself ends it.
        assert!(matches!(status.code(), Some(130) | None), "{after_ms} ms: {status:?}");
        assert_eq!(dev.processes(), Vec::<i32>::new(), "after {after_ms} ms");
    }
}

#[test]
fn data_outlives_down_and_another_size_is_refused() {
    let dev = Dev::new();
    dev.json("dev up --peers 1 --workers 0 --detach");
    let task = dev.json("task submit --type matmul --data {\"n\":8,\"seed\":1} --id kept");
    assert_eq!(task["task"], "kept");
    dev.json("dev down");
    let line = dev.fails("dev up --peers 3 --detach");
    assert!(line.contains("holds a cluster of 1 replicas"), "{line}");
    dev.json("dev up --detach");
    assert_eq!(dev.json("task get kept")["status"], "pending");
}
