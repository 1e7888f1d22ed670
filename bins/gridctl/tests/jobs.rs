//! `gridctl job` and `gridctl schedule` with the real binaries: a product by blocks under kills, graphs, arrays, schedules, and bad input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout")
}

/// A Python with ml-code's packages: the project's virtual environment, or the one that RAFTGRID_PYTHON names.
fn python() -> PathBuf {
    std::env::var_os("RAFTGRID_PYTHON").map_or_else(|| checkout().join(".venv/bin/python"), PathBuf::from)
}

/// A dev cluster that is taken down with its directory, whatever happened.
struct Dev {
    folder: tempfile::TempDir,
}

impl Dev {
    fn up(peers: u32, workers: u32) -> Self {
        let controld = Path::new(env!("CARGO_BIN_EXE_gridctl")).with_file_name("controld");
        assert!(controld.is_file(), "controld is not built; run `cargo build --release --bins` first");
        let dev = Self { folder: tempfile::tempdir().expect("a temporary directory") };
        let python = python().display().to_string();
        let (peers, workers) = (peers.to_string(), workers.to_string());
        dev.ok(&["dev", "up", "--detach", "--peers", &peers, "--workers", &workers, "--python", &python]);
        // Version 3 comes by itself once every replica has said that it runs it.
        wait_for("machine version 3", || {
            dev.write(
                "probe.toml",
                "name = \"probe\"\ntype = \"command\"\ncommand.argv = [\"true\"]\narray.count = 1\n",
            );
            dev.run(&["job", "submit", "probe.toml"]).status.success()
        });
        dev
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("writable");
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_gridctl"))
            .args(words)
            .current_dir(self.folder.path())
            .env_remove("RAFTGRID_ENDPOINTS")
            .env("PYTHONPATH", checkout().join("ml-code/src"))
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--output", "json"]).collect();
        serde_json::from_str(&self.ok(&words)).expect("it prints JSON")
    }

    /// One line on standard error, and nothing done.
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?}: {output:?}");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        text
    }

    fn job(&self, name: &str) -> Value {
        self.json(&["job", "get", name])
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may be down already.
        let _status = self.run(&["dev", "down"]);
    }
}

/// Bounds a hang; no verdict depends on how fast something came.
fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !look() {
        assert!(begin.elapsed() < Duration::from_secs(120), "never came: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ended(job: &Value, prefix: &str) -> usize {
    let tasks = job["tasks"].as_array().expect("a list");
    let ended =
        |task: &&Value| task["status"] == "completed" && task["task"].as_str().is_some_and(|id| id.starts_with(prefix));
    tasks.iter().filter(ended).count()
}

#[test]
fn a_product_by_blocks_is_numpys_although_a_worker_and_the_leader_are_killed() {
    let dev = Dev::up(3, 3);
    let example = checkout().join("ml-code/examples/matmul.toml").display().to_string();
    let set: Vec<String> = [("rows", 320), ("inner", 192), ("columns", 256), ("block", 64)]
        .iter()
        .map(|(key, value)| format!("matmul.{key}={value}"))
        .collect();
    let mut words = vec!["job", "submit", example.as_str()];
    set.iter().for_each(|setting| words.extend(["--set", setting.as_str()]));
    dev.ok(&words);
    wait_for("blocks", || ended(&dev.job("matmul"), "matmul/map-") >= 6);
    // Both stay dead: the blocks that the worker made must be found elsewhere.
    dev.ok(&["dev", "kill", "worker-1"]);
    dev.ok(&["dev", "kill", "leader"]);
    dev.ok(&["job", "wait", "matmul", "--timeout", "60s"]);
    let job = dev.job("matmul");
    assert_eq!(job["phase"], "done", "{job}");
    assert_eq!(job["result"]["equal"], true, "{job}");
    assert_eq!(job["result"]["checksum"], job["result"]["numpy"]);
    // 5 x 4 blocks of C, 3 along the inner side, the product and its check.
    assert_eq!((ended(&job, "matmul/map-"), ended(&job, "matmul/")), (60, 82));
}

#[test]
fn graphs_arrays_and_schedules_run_to_their_ends() {
    let dev = Dev::up(1, 1);
    let example = |name: &str| checkout().join("ml-code/examples").join(name).display().to_string();
    dev.ok(&["job", "submit", &example("dag.toml"), "--wait"]);
    let release = dev.job("release");
    let phase = |job: &Value, id: &str| {
        let tasks = job["tasks"].as_array().expect("a list");
        tasks.iter().find(|task| task["task"] == id).map(|task| task["phase"].clone()).unwrap_or_default()
    };
    assert_eq!(release["phase"], "done", "{release}");
    assert_eq!(phase(&release, "release/undo"), "dependency_failed");
    assert_eq!(phase(&release, "release/clean"), "succeeded");

    // The n-th element sees its place; the third fails until it is told not to.
    dev.write(
        "array.toml",
        "name = \"array\"\ntype = \"command\"\ntask.max_retries = 0\n\
         command.argv = [\"sh\", \"-c\", \"echo $RAFTGRID_ARRAY_INDEX/$RAFTGRID_ARRAY_COUNT; test $RAFTGRID_ARRAY_INDEX != 3 -o -e flag\"]\n\
         array = { count = 9, max_parallel = 4 }\n",
    );
    let flag = dev.folder.path().join("flag").display().to_string();
    let text = std::fs::read_to_string(dev.folder.path().join("array.toml")).expect("it was written");
    dev.write("array.toml", &text.replace("-e flag", &format!("-e {flag}")));
    let output = dev.run(&["job", "submit", "array.toml", "--wait"]);
    let failure = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{failure}");
    assert!(failure.contains("1 of 9 elements failed; the first: task array/3"), "{failure}");
    let elements = dev.job("array")["elements"].clone();
    assert_eq!((&elements["done"], &elements["failed"], &elements["count"]), (&8.into(), &1.into(), &9.into()));
    assert_eq!(dev.json(&["task", "get", "array/8"])["result"]["stdout_tail"], "8/9\n");
    dev.write("flag", "");
    dev.ok(&["job", "retry", "array"]);
    dev.ok(&["job", "wait", "array"]);
    assert_eq!(dev.job("array")["elements"]["done"], 9);

    // A sweep's values are in the environment and in a script's configuration.
    dev.write(
        "sweep.toml",
        "name = \"sweep\"\ntype = \"python\"\n[python]\nconfig = { base = 1 }\n\
         code = \"import os, raftgrid; job = raftgrid.init(); job.result({'c': job.config, 'e': os.environ['RAFTGRID_PARAM_LR']})\"\n\
         [sweep]\nlr = [0.5, 0.25]\n",
    );
    dev.ok(&["job", "submit", "sweep.toml", "--wait"]);
    let second = dev.json(&["task", "get", "sweep/1"]);
    assert_eq!(second["result"]["c"], serde_json::json!({"base": 1, "lr": 0.25}), "{second}");
    assert_eq!(second["result"]["e"], "0.25");
    dev.ok(&["job", "submit", &example("sweep_digits.toml"), "--wait"]);
    // The last name changes fastest.
    let last = dev.json(&["task", "get", "sweep-digits/11"])["result"].clone();
    assert_eq!((&last["decay"], &last["learning_rate"]), (&0.01.into(), &2.0.into()), "{last}");
    assert!(last["held_out_accuracy"].as_f64().is_some_and(|share| share > 0.8), "{last}");

    dev.ok(&["schedule", "put", &example("schedule.toml")]);
    assert!(dev.json(&["schedule", "get", "nightly"])["next_tick_ms"].as_u64().is_some_and(|at| at > 0));
    let run = dev.json(&["schedule", "trigger", "nightly"])["run"].as_str().expect("a name").to_owned();
    dev.ok(&["job", "wait", &run]);
    assert_eq!(dev.json(&["schedule", "pause", "nightly"])["paused"], true);
    assert_eq!(dev.json(&["schedule", "resume", "nightly"])["paused"], false);
    // One that ticks all the time does so by itself.
    dev.ok(&["schedule", "put", &example("schedule.toml"), "--name", "minutely", "--set", "schedule.cron='* * * * *'"]);
    wait_for("a tick", || dev.json(&["schedule", "get", "minutely"])["fired"].as_u64().is_some_and(|fired| fired > 0));
    dev.ok(&["schedule", "rm", "minutely"]);
    assert_eq!(dev.json(&["schedule", "list"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn a_million_elements_are_one_submission_and_bad_input_is_one_line() {
    let dev = Dev::up(1, 1);
    let words = ["job", "submit", "--name", "million", "--type", "command", "--array", "1000000", "--", "true"];
    dev.ok(&words);
    wait_for("a window of tasks", || dev.job("million")["elements"]["done"].as_u64().is_some_and(|done| done > 3));
    dev.ok(&["job", "cancel", "million"]);
    let million = dev.job("million");
    assert_eq!((&million["phase"], &million["elements"]["count"]), (&"cancelled".into(), &1_000_000.into()));

    let cases = [
        ("name = \"b\"\ntype = \"command\"\ncommand.argv = [\"true\"]\nprioritty = 3\n", "no key `prioritty`"),
        ("name = \"../b\"\ntype = \"command\"\ncommand.argv = [\"true\"]\n", "spec.name"),
        ("name = \"b\"\ntype = \"command\"\ncommand.argv = [\"true\"]\ntask.gpus = -1\n", "task.gpus is -1"),
        (
            "name = \"b\"\ntype = \"command\"\ncommand.argv = [\"true\"]\ntask.gpus = 4000000000\n",
            "spec.task.resources.gpus",
        ),
        (
            "name = \"b\"\ntype = \"command\"\ncommand.argv = [\"true\"]\narray.count = 1000001\n",
            "1 to 1000000 elements",
        ),
        (
            "name = \"b\"\ntype = \"command\"\ncommand.argv = [\"true\"]\ntask.depends_on = [\"nobody\"]\n",
            "task nobody does not exist",
        ),
        (
            "name = \"b\"\ntype = \"dag\"\n[dag.x]\ntype = \"command\"\ncommand.argv = [\"a\"]\ndepends_on = [\"y\"]\n\
             [dag.y]\ntype = \"command\"\ncommand.argv = [\"a\"]\ndepends_on = [\"x\"]\n",
            "x -> y -> x",
        ),
        ("name = \"b\"\ntype = \"python\"\npython.script = \"../../nowhere.py\"\n", "does not exist"),
    ];
    for (text, part) in cases {
        dev.write("bad.toml", text);
        let line = dev.refused(&["job", "submit", "bad.toml"]);
        assert!(line.contains(part), "{line} is not about {part}");
        assert!(!dev.run(&["job", "get", "b"]).status.success(), "something is half-done: {part}");
    }
    let large = format!("name = \"b\"\ntype = \"python\"\npython.code = \"{}\"\n", "#".repeat(10 << 20));
    dev.write("bad.toml", &large);
    assert!(dev.refused(&["job", "submit", "bad.toml"]).contains("more than 128 KiB"));
    for (line, zone, part) in [
        ("soon", "UTC", "is no cron line"),
        ("0 0 31 2 *", "UTC", "never comes"),
        ("* * * * *", "Europe/Wien", "is no IANA time zone"),
    ] {
        let text = format!(
            "name = \"s\"\ntype = \"command\"\ncommand.argv = [\"true\"]\n[schedule]\ncron = \"{line}\"\ntime_zone = \"{zone}\"\n"
        );
        dev.write("bad.toml", &text);
        assert!(dev.refused(&["schedule", "put", "bad.toml"]).contains(part));
    }
    assert_eq!(dev.json(&["schedule", "list"]).as_array().map(Vec::len), Some(0));
}
