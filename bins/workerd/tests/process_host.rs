//! The process host with real processes.

mod harness;

use std::process::{Command, Stdio};
use std::sync::Arc;

use crossbeam::channel::{unbounded, Receiver};
use harness::*;
use raftgrid_proto::v1::{Job, Task};
use raftgrid_worker::executor::{Exit, StopSignal, Why};
use raftgrid_worker::host::{Exited, Host, ProcessHost};
use raftgrid_worker::{HostError, LeaseId, TaskTable, WorkerDir};

struct Bench {
    host: ProcessHost,
    exits: Receiver<Exited>,
    plane: Arc<Plane>,
    table: Arc<TaskTable>,
    folder: tempfile::TempDir,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let (plane, table) = (plane(), TaskTable::new());
    let (exits_in, exits) = unbounded();
    let dir = WorkerDir::take(folder.path(), &silent()).expect("free");
    let config = config(folder.path().to_owned());
    let agent = "127.0.0.1:1".to_owned();
    let host = ProcessHost::new(config, dir, agent, plane.clone(), table.clone(), exits_in, &silent()).expect("a host");
    Bench { host, exits, plane, table, folder }
}

fn lease(task: &Task) -> LeaseId {
    LeaseId { task_id: task.task_id.clone(), epoch: task.lease_epoch }
}

impl Bench {
    fn launch(&mut self, task: Task) -> LeaseId {
        let lease = lease(&task);
        self.host.launch(&lease, task);
        lease
    }

    fn exit(&self) -> Exit {
        self.exits.recv_timeout(PATIENCE).expect("it ends").exit
    }

    fn run(&mut self, task: Task) -> Exit {
        self.launch(task);
        self.exit()
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_command_gives_its_exit_code_and_output_and_reads_its_stdin() {
    let mut bench = bench();
    let data =
        r#"{"argv":["sh","-c","read x; echo \"$x $GREETING\"; pwd"],"env":{"GREETING":"there"},"stdin":"hello\n"}"#;
    let exit = bench.run(task(7, "command", data));
    let result = json(&exit.result_data);
    assert_eq!((exit.code, result["exit_code"].as_i64()), (0, Some(0)), "{exit:?}");
    let output = result["stdout_tail"].as_str().expect("text");
    let folder = attempt_folder(bench.folder.path(), 7);
    let name = folder.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(output.starts_with("hello there\n") && output.trim_end().ends_with(name), "{output}");
    let log = std::fs::read_to_string(folder.join("log")).expect("a log");
    assert!(log.starts_with("hello there"));
}

#[test]
fn a_script_that_raises_gives_its_last_line_as_the_reason() {
    let mut bench = bench();
    let exit = bench.run(task(7, "python", r#"{"code":"print('so far')\nraise ValueError('bad')"}"#));
    assert_eq!((exit.code, exit.reason.as_str()), (1, "ValueError: bad"));
    assert_eq!(json(&exit.result_data)["stdout_tail"], "so far\n");
}

#[test]
fn what_cannot_be_started_fails_with_one_line() {
    let mut bench = bench();
    bench.plane.change(|script| script.artifact = tar_of(&[("train.py", "")]));
    let mut missing_script = task(4, "python", r#"{"script":"tain.py"}"#);
    missing_script.mut_spec().set_bundle_artifact("9".to_owned());
    let cases = [
        (task(1, "quantum", "{}"), 64, "unknown task type `quantum`"),
        (task(2, "command", "{not json"), 65, "task_data is not the JSON"),
        (task(3, "command", r#"{"argv":["no-such-program"]}"#), 127, "program `no-such-program` does not exist"),
        (missing_script, 66, "script `tain.py` is not in the bundle, which has train.py"),
    ];
    for (task, code, part) in cases {
        let exit = bench.run(task);
        assert!(exit.code == code && exit.reason.contains(part) && !exit.reason.contains('\n'), "{exit:?}");
    }
}

#[test]
fn a_matmul_task_computes_the_golden_checksum_in_a_child() {
    let mut bench = bench();
    let exit = bench.run(task(7, "matmul", r#"{"n":64,"seed":7}"#));
    let result = json(&exit.result_data);
    assert_eq!(result["checksum"].as_f64().map(f64::to_bits), Some(0xc040_40b6_ac1c_49cc), "{exit:?}");
    assert!(result["n"] == 64 && result["gflops"].as_f64().is_some() && result["seconds"].as_f64().is_some());
}

#[test]
fn killing_a_task_kills_its_grandchildren() {
    let mut bench = bench();
    let pids = bench.folder.path().join("pids");
    let script = format!("sleep 600 & echo $! >> {0}; sh -c 'echo $$ >> {0}; exec sleep 600' & wait", pids.display());
    let data = serde_json::json!({"argv": ["sh", "-c", script]}).to_string();
    let lease = bench.launch(task(7, "command", &data));
    let grandchildren = numbers_in(&pids, 2);
    assert!(grandchildren.iter().all(|pid| runs(*pid)));
    bench.host.stop(&lease, StopSignal::Kill, &Why::Fenced);
    assert_eq!(bench.exit().code, 137);
    grandchildren.into_iter().for_each(gone);
}

#[test]
fn a_task_that_ends_takes_what_it_left_in_the_background_with_it() {
    let mut bench = bench();
    let pids = bench.folder.path().join("pids");
    let script = format!("sleep 600 >/dev/null 2>&1 & echo $! > {}", pids.display());
    let data = serde_json::json!({"argv": ["sh", "-c", script]}).to_string();
    assert_eq!(bench.run(task(7, "command", &data)).code, 0);
    gone(numbers_in(&pids, 1)[0]);
}

#[test]
fn a_task_may_end_in_its_own_way_when_it_is_asked_to() {
    let mut bench = bench();
    let ready = bench.folder.path().join("ready");
    let script = format!("trap 'echo saved; exit 5' TERM; echo 1 > {}; while :; do sleep 0.01; done", ready.display());
    let data = serde_json::json!({"argv": ["sh", "-c", script]}).to_string();
    let lease = bench.launch(task(7, "command", &data));
    numbers_in(&ready, 1);
    bench.host.stop(&lease, StopSignal::Terminate, &Why::Cancelled);
    let exit = bench.exit();
    assert_eq!((exit.code, json(&exit.result_data)["stdout_tail"].as_str()), (5, Some("saved\n")), "{exit:?}");
}

#[test]
fn a_task_dies_with_its_worker() {
    // The shell stands for the worker: it starts run-task with itself as the parent and is killed.
    let shim = env!("CARGO_BIN_EXE_workerd");
    let script = format!("{shim} run-task --parent $$ exec -- sh -c 'echo $$; exec sleep 600' & wait");
    let mut worker = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut line = String::new();
    let output = worker.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("a line");
    let pid: i32 = line.trim().parse().expect("a pid");
    assert!(runs(pid));
    worker.kill().expect("ours");
    worker.wait().expect("ours");
    gone(pid);
}

#[test]
fn nothing_is_run_for_a_worker_that_is_gone_already() {
    let output = Command::new(env!("CARGO_BIN_EXE_workerd"))
        .args(["run-task", "--parent", "1", "exec", "--", "echo", "ran"])
        .output()
        .expect("it starts");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(75), &b""[..]));
}

#[test]
fn a_train_task_gets_the_reproducible_environment_and_its_job_s_numbers() {
    let mut bench = bench();
    let script =
        "import json, os, sys, helper\nprint(json.dumps([dict(os.environ), sys.argv, helper.X, os.listdir('.')]))";
    let mut job = Job::new();
    job.mut_task_ids().push("task-7".to_owned());
    job.mut_spec().mut_train().set_shards(6);
    job.mut_spec().mut_train().set_openblas_coretype("Haswell".to_owned());
    bench.plane.change(|plan| {
        plan.artifact = tar_of(&[("train.py", script), ("helper.py", "X = 5")]);
        plan.job = job;
    });
    let trainer = |epoch| {
        let mut trainer = task(epoch, "train", r#"{"job":"digits","script":"train.py","args":["--fast"]}"#);
        trainer.set_job_id("digits".to_owned());
        trainer.mut_spec().set_bundle_artifact("9".to_owned());
        trainer
    };
    let exit = bench.run(trainer(7));
    assert_eq!(exit.code, 0, "{exit:?}");
    let result = json(&exit.result_data);
    let seen = json(result["stdout_tail"].as_str().expect("text"));
    let expected = [
        ("OMP_NUM_THREADS", "1"),
        ("OPENBLAS_NUM_THREADS", "1"),
        ("PYTHONHASHSEED", "0"),
        ("OPENBLAS_CORETYPE", "Haswell"),
        ("RAFTGRID_AGENT", "127.0.0.1:1"),
        ("RAFTGRID_JOB", "digits"),
        ("RAFTGRID_TASK", "task-7"),
        ("RAFTGRID_ATTEMPT", "1"),
        ("RAFTGRID_NUM_SHARDS", "6"),
        ("RAFTGRID_CONFIG", "{}"),
    ];
    for (name, value) in expected {
        assert_eq!(seen[0][name], value, "{name}");
    }
    assert_eq!(seen[0]["RAFTGRID_BUNDLE"].as_str().map(str::len), Some(64), "the digest, the same on every worker");
    assert_eq!((&seen[1][1], &seen[2]), (&"--fast".into(), &5.into()));
    assert!(seen[3].as_array().expect("a list").contains(&"helper.py".into()), "it starts in the bundle's folder");
    let token = seen[0]["RAFTGRID_TOKEN"].as_str().expect("a token");
    let context = bench.table.by_token(token).expect("known until it is forgotten");
    assert!(context.init_task && context.num_shards == 6);
    // The second trainer on this machine finds the bundle here.
    assert_eq!(bench.run(trainer(8)).code, 0);
    assert_eq!(bench.plane.change(|script| script.artifact_fetches), 1);
    bench.host.forget(&LeaseId { task_id: "task-7".to_owned(), epoch: 7 });
    assert!(bench.table.by_token(token).is_none() && context.is_fenced());
}

#[test]
fn a_result_that_the_process_set_wins_over_its_output() {
    let mut bench = bench();
    let ready = bench.folder.path().join("ready");
    let code = format!("print(1, file=open({:?}, 'w'), flush=True)\ninput()", ready);
    // Standard input stays open until the test has set the result for it.
    let fifo = bench.folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo exists").success());
    let script = format!("python3 -c \"$CODE\" < {}", fifo.display());
    let data = serde_json::json!({"argv": ["sh", "-c", script], "env": {"CODE": code}}).to_string();
    let lease = bench.launch(task(7, "command", &data));
    let mut gate = std::fs::OpenOptions::new().write(true).open(&fifo).expect("the reader comes");
    numbers_in(&ready, 1);
    bench.table.find(&lease).expect("it runs").set_result(r#"{"accuracy":0.97}"#.to_owned());
    std::io::Write::write_all(&mut gate, b"go\n").expect("the reader is there");
    drop(gate);
    assert_eq!(bench.exit().result_data, r#"{"accuracy":0.97}"#);
}

#[test]
fn a_task_that_is_stopped_before_it_has_a_process_never_gets_one() {
    let mut bench = bench();
    // A job that never comes holds the staging; the stop ends it.
    let lease = bench.launch(task(7, "command", r#"{"argv":["sleep","600"]}"#));
    bench.host.stop(&lease, StopSignal::Kill, &Why::Revoked);
    let exit = bench.exit();
    assert!([137, 143].contains(&exit.code), "{exit:?}");
}

#[test]
fn two_workers_cannot_share_a_directory() {
    let bench = bench();
    assert!(matches!(WorkerDir::take(bench.folder.path(), &silent()), Err(HostError::Busy(_))));
}
