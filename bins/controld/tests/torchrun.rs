//! torchrun's rendezvous on a real cluster: no change of its state is lost or counted twice, whoever dies meanwhile.

mod harness;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::{checkout, python, wait_for, Cluster, Process};

/// Entries that each node of the rendezvous adds.
const ENTRIES: usize = 60;

fn script(name: &str) -> PathBuf {
    checkout().join("ml-code/tests").join(name)
}

fn python_path() -> String {
    let folders = [checkout().join("ml-code/src"), checkout().join("ml-code/tests")];
    folders.map(|folder| folder.display().to_string()).join(":")
}

fn peer(cluster: &Cluster, name: &str) -> Process {
    let mut command = Command::new(python());
    command
        .arg(script("rendezvous_peer.py"))
        .args([&cluster.endpoints().join(","), "run", name, &ENTRIES.to_string()])
        .env("PYTHONPATH", python_path());
    Process::start(&mut command, &cluster.dir.path().join(format!("{name}.log")))
}

#[test]
fn the_state_of_a_rendezvous_outlives_two_leaders_and_loses_no_change() {
    let mut cluster = Cluster::start(3, &[]);
    // Keys need the newest machine version, which the first leader proposes.
    wait_for("the machine's version", || (cluster.gridctl(&["kv", "put", "ready", "yes"]).0 == 0).then_some(()));
    let names = ["a", "b", "c"];
    let mut peers = names.map(|name| peer(&cluster, name));
    let entries = |cluster: &Cluster| {
        let (code, out, _) = cluster.gridctl(&["kv", "get", "torchrun/run/state"]);
        if code == 0 {
            serde_json::from_str::<Vec<String>>(&out).expect("a list")
        } else {
            Vec::new()
        }
    };
    for wanted in [15, 60] {
        wait_for("some entries", || (entries(&cluster).len() >= wanted).then_some(()));
        let leader = cluster.leader();
        cluster.kill_replica(leader);
        cluster.leader();
        cluster.start_replica(leader);
    }
    for process in &mut peers {
        let status = wait_for("the end of a node", || process.exited());
        assert!(status.success(), "{status}");
    }
    let found = entries(&cluster);
    for name in names {
        let own: Vec<&String> = found.iter().filter(|entry| entry.starts_with(&format!("{name}-"))).collect();
        let wanted: Vec<String> = (0..ENTRIES).map(|number| format!("{name}-{number}")).collect();
        assert_eq!(own, wanted.iter().collect::<Vec<_>>(), "in order, none missing, none twice");
    }
    assert_eq!(found.len(), names.len() * ENTRIES);
}

/// With torch itself: `make test-torch RAFTGRID_TORCH_PYTHON=FILE`.
#[test]
#[ignore = "needs an interpreter with torch, named by RAFTGRID_TORCH_PYTHON"]
fn torchrun_meets_and_computes_while_the_leader_dies() {
    let torch = std::env::var("RAFTGRID_TORCH_PYTHON").expect("RAFTGRID_TORCH_PYTHON names an interpreter with torch");
    let mut cluster = Cluster::start(3, &[]);
    wait_for("the machine's version", || (cluster.gridctl(&["kv", "put", "ready", "yes"]).0 == 0).then_some(()));
    let start = |cluster: &Cluster, name: &str| {
        let log = std::fs::File::create(cluster.dir.path().join(format!("{name}.log"))).expect("writable");
        Command::new(&torch)
            .args(["-m", "raftgrid.torchrun", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=raftgrid"])
            .arg(format!("--rdzv-endpoint={}", cluster.endpoints().join(",")))
            .args(["--rdzv-id=run", "--rdzv-conf=last_call_timeout=2", "--local-addr=127.0.0.1"])
            .arg(checkout().join("bins/controld/tests/scripts/all_reduce.py"))
            .env("PYTHONPATH", python_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("the interpreter starts")
    };
    // The first waits for the second; the leader dies in between.
    let mut first = start(&cluster, "first");
    wait_for("the first node's state", || (cluster.gridctl(&["kv", "get", "torchrun/run/state"]).0 == 0).then_some(()));
    let leader = cluster.leader();
    cluster.kill_replica(leader);
    let mut second = start(&cluster, "second");
    for child in [&mut first, &mut second] {
        let status = wait_for("the end of torchrun", || child.try_wait().expect("ours"));
        assert!(status.success(), "{status}");
    }
    let said = |name: &str| std::fs::read_to_string(cluster.dir.path().join(format!("{name}.log"))).expect("there");
    let all = [said("first"), said("second")].concat();
    assert!(all.contains("rank 0 of 2: 3.0") && all.contains("rank 1 of 2: 3.0"), "{all}");
}

/// With torch itself, as above.
#[test]
#[ignore = "needs an interpreter with torch, named by RAFTGRID_TORCH_PYTHON"]
fn a_torchrun_task_runs_its_processes_on_a_worker() {
    let torch = std::env::var("RAFTGRID_TORCH_PYTHON").expect("RAFTGRID_TORCH_PYTHON names an interpreter with torch");
    let cluster = Cluster::start(1, &[]);
    let mut command = Command::new(harness::program("workerd"));
    command
        .args(["--node-id", "w1", "--endpoints", &cluster.endpoints().join(","), "--preset", "local", "--slots", "2"])
        .arg("--dir")
        .arg(cluster.dir.path().join("w1"))
        .args(["--python", &torch, "--python-path"])
        .arg(checkout().join("ml-code/src"));
    let _worker = Process::start(&mut command, &cluster.dir.path().join("w1.log"));
    let script = checkout().join("bins/controld/tests/scripts/all_reduce.py").canonicalize().expect("it is there");
    let data = serde_json::json!({"script": script, "nproc_per_node": 2, "local_addr": "127.0.0.1"}).to_string();
    let line = ["task", "submit", "--type", "torchrun", "--id", "meets", "--data", &data, "--wait", "--timeout", "60s"];
    let (code, out, errors) = cluster.gridctl(&line);
    let (_, log, _) = cluster.gridctl(&["task", "logs", "meets"]);
    assert_eq!(code, 0, "{out}{errors}{log}");
    assert!(log.contains("rank 0 of 2: 3.0") && log.contains("rank 1 of 2: 3.0"), "{log}");
}
