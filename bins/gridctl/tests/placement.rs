//! Queues, gangs, explanations and maintenance with the real binaries on a dev cluster.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A dev cluster that is taken down with its directory, whatever happened.
struct Dev {
    folder: tempfile::TempDir,
}

impl Dev {
    fn up(line: &str) -> Self {
        let controld = Path::new(env!("CARGO_BIN_EXE_gridctl")).with_file_name("controld");
        assert!(controld.is_file(), "controld is not built; run `cargo build --release --bins` first");
        let dev = Self { folder: tempfile::tempdir().expect("a temporary directory") };
        dev.json(line);
        // The leader raises the machine version by itself, a moment after the start.
        wait_for("queues are taken", || dev.run("queue put batch --weight 2 --max-running 1").status.success());
        dev
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

    fn text(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    fn submit(&self, id: &str, seconds: u32, flags: &str) {
        let data = format!("{{\"argv\":[\"sleep\",\"{seconds}\"]}}");
        self.json(&format!("task submit --type command --data {data} --id {id}{flags}"));
    }

    fn phase(&self, id: &str) -> String {
        self.json(&format!("task get {id}"))["phase"].as_str().expect("a phase").to_owned()
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
fn why_explains_a_pending_gang_which_runs_whole_when_there_is_room() {
    let dev = Dev::up("dev up --peers 3 --workers 2 --slots 2 --detach");
    wait_for("both workers", || dev.json("node list").as_array().map(Vec::len) == Some(2));
    dev.submit("long", 1000, "");
    wait_for("the task runs", || dev.phase("long") == "active");
    dev.submit("gang", 0, " --gang 4");
    let why = dev.json("task why gang/member-2");
    assert_eq!((why["gang_members"].as_u64(), why["gang_fit"].as_u64()), (Some(4), Some(3)), "{why}");
    assert_eq!(why["position"].as_u64(), Some(1), "{why}");
    let text = dev.text("task why gang/member-2");
    assert!(text.starts_with("its gang is placed whole: 3 of at least 4 members would fit now"), "{text}");
    // What is behind it does not take its slots.
    dev.submit("small", 0, "");
    let text = dev.text("task why small");
    assert!(text.contains("held for a gang that waits longer"), "{text}");
    assert_eq!(dev.phase("gang/member-0"), "queued");
    dev.json("task cancel long");
    wait_for("the gang's job is done", || dev.json("job get gang")["phase"] == "done");
    wait_for("what was behind it", || dev.phase("small") == "succeeded");
    for member in 0..4 {
        assert_eq!(dev.json(&format!("task get gang/member-{member}"))["attempt"].as_u64(), Some(1));
    }
}

#[test]
fn quotas_constraints_preemption_and_maintenance_are_told_and_held() {
    let dev = Dev::up("dev up --peers 1 --workers 1 --slots 2 --detach");
    wait_for("the worker", || dev.json("node list").as_array().map(Vec::len) == Some(1));
    // Never: said at once, or by `why`.
    let line = dev.fails("task submit --type command --data {\"argv\":[\"true\"]} --task-slots 9 --fail-fast");
    assert!(line.contains("no node of this cluster can ever run it: node worker-1: slots: 2 free, wanted 9"), "{line}");
    dev.submit("wide", 0, " --task-slots 9");
    assert_eq!(dev.json("task why wide")["never"], Value::Bool(true));
    dev.submit("elsewhere", 0, " --require region=mars|moon");
    let text = dev.text("task why elsewhere");
    assert!(text.contains("node worker-1: region is") && text.contains("wanted one of mars, moon"), "{text}");

    dev.submit("first", 1000, " --queue batch --preemptible");
    dev.submit("second", 1000, " --queue batch --preemptible");
    wait_for("one of the queue runs", || dev.phase("first") == "active");
    let text = dev.text("task why second");
    assert!(text.contains("quota of queue batch: running tasks: 1 of 1 in use"), "{text}");
    let queues = dev.json("queue list");
    assert_eq!((queues[0]["running"].as_u64(), queues[0]["tasks"].as_u64()), (Some(1), Some(2)), "{queues}");
    assert_eq!(dev.json("task list --queue batch").as_array().map(Vec::len), Some(2));
    assert!(dev.fails("queue rm batch").contains("2 tasks that are not over"));

    // Work of higher priority of the same queue takes the place of what may be taken.
    dev.json("queue put batch --weight 2 --max-running 2");
    wait_for("both run", || dev.phase("second") == "active");
    dev.json("queue put batch --weight 2");
    dev.submit("urgent", 0, " --queue batch --priority 90");
    wait_for("it ran", || dev.phase("urgent") == "succeeded");
    let attempts: u64 = ["first", "second"]
        .iter()
        .map(|id| {
            wait_for("the victim runs again", || dev.phase(id) == "active");
            dev.json(&format!("task get {id}"))["attempt"].as_u64().expect("a number")
        })
        .sum();
    assert_eq!(attempts, 3, "one of them ran twice");

    // A maintenance gives back what runs and ends by itself.
    dev.json("node maintenance worker-1 --for 3s");
    wait_for("it is given back", || dev.phase("first") == "queued" && dev.phase("second") == "queued");
    wait_for("it is over", || dev.json("node list")[0]["eligibility"] == "eligible");
    wait_for("they run again", || dev.phase("first") == "active" && dev.phase("second") == "active");
}
