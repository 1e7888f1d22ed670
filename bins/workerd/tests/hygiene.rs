//! Tasks that misbehave: what one attempt does reaches no other one, and nothing of it stays behind.

mod harness;

use std::sync::Arc;

use crossbeam::channel::{unbounded, Receiver};
use harness::*;
use raftgrid_proto::v1::Task;
use raftgrid_worker::executor::{Exit, StopSignal, Why};
use raftgrid_worker::host::{Exited, Host, ProcessHost};
use raftgrid_worker::limits::{LOG_BYTES_MAX, RESULT_BYTES_MAX};
use raftgrid_worker::{LeaseId, TaskTable, WorkerDir};

struct Bench {
    host: ProcessHost,
    exits: Receiver<Exited>,
    plane: Arc<Plane>,
    folder: tempfile::TempDir,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let (plane, table) = (plane(), TaskTable::new());
    let (exits_in, exits) = unbounded();
    let dir = WorkerDir::take(folder.path(), &silent()).expect("free");
    let config = config(folder.path().to_owned());
    let agent = "127.0.0.1:1".to_owned();
    let host = ProcessHost::new(config, dir, agent, plane.clone(), table, exits_in, &silent()).expect("a host");
    Bench { host, exits, plane, folder }
}

impl Bench {
    fn launch(&mut self, task: Task) -> LeaseId {
        let lease = LeaseId { task_id: task.task_id.clone(), epoch: task.lease_epoch };
        self.host.launch(&lease, task);
        lease
    }

    fn run(&mut self, task: Task) -> Exit {
        self.launch(task);
        self.exit()
    }

    fn exit(&self) -> Exit {
        self.exits.recv_timeout(PATIENCE).expect("it ends").exit
    }
}

fn shell(epoch: u64, script: &str) -> Task {
    task(epoch, "command", &serde_json::json!({"argv": ["sh", "-c", script]}).to_string())
}

fn python(epoch: u64, code: &str) -> Task {
    task(epoch, "python", &serde_json::json!({ "code": code }).to_string())
}

/// Makes a session of its own, as daemons do: no signal to the task's group reaches it.
fn daemon(pids: &std::path::Path) -> String {
    format!("setsid sh -c 'echo $$ > {}; exec sleep 600' >/dev/null 2>&1 </dev/null &", pids.display())
}

#[test]
fn a_daemon_that_a_task_started_ends_with_the_task() {
    let mut bench = bench();
    let pids = bench.folder.path().join("pids");
    let script = format!("{} while [ ! -s {} ]; do sleep 0.01; done", daemon(&pids), pids.display());
    assert_eq!(bench.run(shell(7, &script)).code, 0);
    let pid = numbers_in(&pids, 1)[0];
    assert!(!runs(pid), "it is gone when the end is told");
}

#[test]
fn a_daemon_of_a_task_that_is_killed_is_killed_too_even_if_it_holds_the_output_open() {
    let mut bench = bench();
    let pids = bench.folder.path().join("pids");
    // The second one keeps the task's pipes.
    let script =
        format!("{} setsid sh -c 'echo $$ >> {}.open; exec sleep 600' & sleep 600", daemon(&pids), pids.display());
    let lease = bench.launch(shell(7, &script));
    let found = [numbers_in(&pids, 1)[0], numbers_in(&pids.with_extension("open"), 1)[0]];
    assert!(found.iter().all(|pid| runs(*pid)));
    bench.host.stop(&lease, StopSignal::Kill, &Why::Fenced);
    assert_eq!(bench.exit().code, 137);
    assert!(!found.iter().any(|pid| runs(*pid)));
}

#[test]
fn a_task_that_is_stopped_is_killed_like_any_other() {
    let mut bench = bench();
    let pids = bench.folder.path().join("pids");
    let lease = bench.launch(shell(7, &format!("echo $$ > {}; kill -STOP $$; sleep 600", pids.display())));
    let pid = numbers_in(&pids, 1)[0];
    bench.host.stop(&lease, StopSignal::Terminate, &Why::Cancelled);
    bench.host.stop(&lease, StopSignal::Kill, &Why::Cancelled);
    assert_eq!(bench.exit().code, 137);
    assert!(!runs(pid));
}

#[test]
fn what_an_attempt_writes_beside_its_code_is_seen_by_no_other_attempt() {
    let mut bench = bench();
    let script = "import os\nimport helper\nprint(helper.X, os.path.exists('mark'))\n\
                  open('mark', 'w').write('1')\nopen('helper.py', 'w').write('X = 666')\n";
    bench.plane.change(|plan| plan.artifact = tar_of(&[("train.py", script), ("helper.py", "X = 5")]));
    for epoch in [7, 8, 9] {
        let mut attempt = task(epoch, "python", r#"{"script":"train.py"}"#);
        attempt.mut_spec().set_bundle_artifact("9".to_owned());
        let exit = bench.run(attempt);
        let result: serde_json::Value = serde_json::from_str(&exit.result_data).expect("JSON");
        assert_eq!(result["stdout_tail"], "5 False\n", "attempt {epoch}: {exit:?}");
    }
    assert_eq!(bench.plane.change(|plan| plan.artifact_fetches), 1, "fetched once for the machine");
    // Its copy goes with it.
    let folder = attempt_folder(bench.folder.path(), 9);
    let code = folder.join("code");
    let deadline = std::time::Instant::now() + PATIENCE;
    while code.exists() {
        assert!(std::time::Instant::now() < deadline, "{} stays", code.display());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(folder.join("log").exists());
}

#[test]
fn an_attempt_finds_nothing_of_another_cluster_s_attempt_with_the_same_epoch() {
    let mut bench = bench();
    let folder = attempt_folder(bench.folder.path(), 7);
    std::fs::create_dir_all(&folder).expect("writable");
    std::fs::write(folder.join("checkpoint"), "old").expect("writable");
    let exit = bench.run(shell(7, "ls"));
    assert!(!exit.result_data.contains("checkpoint"), "{exit:?}");
}

#[test]
fn members_of_a_gang_on_one_machine_share_an_epoch_and_no_folder() {
    let mut bench = bench();
    let (begun, over) = (bench.folder.path().join("begun"), bench.folder.path().join("over"));
    let first = format!("touch mine {}; while [ ! -e {} ]; do sleep 0.01; done; ls", begun.display(), over.display());
    bench.launch(shell(7, &first));
    let deadline = std::time::Instant::now() + PATIENCE;
    while !begun.exists() {
        assert!(std::time::Instant::now() < deadline, "it begins");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut second = shell(7, "ls");
    second.set_task_id("another".to_owned());
    let exit = bench.run(second);
    assert!(exit.code == 0 && !exit.result_data.contains("mine"), "{exit:?}");
    std::fs::write(&over, "").expect("writable");
    let exit = bench.exit();
    assert!(exit.code == 0 && exit.result_data.contains("mine"), "{exit:?}");
}

#[test]
fn huge_output_is_bounded_on_disk_and_in_the_result_and_the_task_ends_well() {
    let mut bench = bench();
    let exit = bench.run(shell(7, "yes 0123456789abcdef | head -c 150000000; yes x | head -c 5000000 >&2; echo last"));
    assert_eq!(exit.code, 0, "{}", exit.reason);
    assert!(exit.result_data.len() <= RESULT_BYTES_MAX && exit.result_data.contains("last"));
    let log = std::fs::metadata(attempt_folder(bench.folder.path(), 7).join("log")).expect("a log").len();
    assert!(log > LOG_BYTES_MAX && log < LOG_BYTES_MAX + 1_000, "{log}");
}

#[test]
fn a_disk_that_takes_nothing_is_the_node_s_fault() {
    let mut bench = bench();
    let tasks = bench.folder.path().join("tasks");
    std::fs::remove_dir_all(&tasks).expect("there");
    std::fs::write(&tasks, "").expect("writable");
    let exit = bench.run(shell(7, "true"));
    assert!(exit.node_failed && exit.reason.contains("failed to make a folder on this worker"), "{exit:?}");
    std::fs::remove_file(&tasks).expect("there");
    std::fs::create_dir(&tasks).expect("writable");
    assert_eq!(bench.run(shell(8, "true")).code, 0, "it goes on");
}

#[test]
fn what_the_node_lacks_is_told_apart_from_what_the_script_did() {
    let mut bench = bench();
    let missing = |module: &str| format!("raise ModuleNotFoundError(\"No module named '{module}'\")");
    let cases = [
        (shell(1, "exit 1"), 1, false),
        (shell(2, "exit 127"), 127, true),
        (shell(3, "exit 126"), 126, true),
        (task(4, "command", r#"{"argv":["/etc/passwd"]}"#), 126, true),
        (python(5, &missing("raftgrid")), 1, true),
        (python(6, &missing("my_helper")), 1, false),
        (python(7, "raise SystemExit(3)"), 3, false),
        (shell(8, "kill -9 $$"), 137, false),
        (task(9, "quantum", "{}"), 64, false),
    ];
    for (task, code, node_failed) in cases {
        let name = task.task_id.clone();
        let exit = bench.run(task);
        assert_eq!((exit.code, exit.node_failed), (code, node_failed), "{name}: {exit:?}");
    }
}

#[test]
fn an_exception_of_many_lines_gives_its_first() {
    let mut bench = bench();
    let exit = bench.run(python(7, "raise ValueError('the shapes differ:\\nwant (3, 4)\\n' + 'got\\n' * 100000)"));
    assert_eq!(exit.reason, "ValueError: the shapes differ: … got");
}
