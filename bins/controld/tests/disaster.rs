//! The worst days: a cluster that is gone altogether comes back from its backup, and one replica of three goes on alone.

mod harness;

use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use harness::{checkout, program, wait_for, Cluster};
use raftgrid_client::Upload;
use serde_json::Value;

fn json(cluster: &Cluster, line: &[&str]) -> Value {
    let (code, out, errors) = cluster.gridctl(&[line, &["--output", "json"]].concat());
    assert_eq!(code, 0, "{line:?}: {errors}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{line:?}: {error}: {out}"))
}

fn content(number: usize) -> Vec<u8> {
    (0..300_000).map(|at| (at * 31 + number * 7) as u8).collect()
}

fn upload(cluster: &Cluster, many: usize) -> Vec<String> {
    let put = |number: usize| {
        let upload = Upload { name: format!("file-{number}"), kind: "file".to_owned(), ..Upload::default() };
        let put = cluster.client().put_artifact(&upload, &mut Cursor::new(content(number)), &mut |_, _| ());
        put.expect("a majority runs").artifact_id
    };
    (0..many).map(put).collect()
}

fn all_readable(cluster: &Cluster, artifacts: &[String]) {
    for (number, artifact) in artifacts.iter().enumerate() {
        for name in [artifact.clone(), format!("file-{number}")] {
            let mut bytes = Vec::new();
            let read = cluster.client().get_artifact(&name, &mut bytes, &mut |_, _| ());
            read.unwrap_or_else(|error| panic!("artifact {name} cannot be read: {error}"));
            assert!(bytes == content(number), "artifact {name} is another");
        }
    }
}

fn submit(cluster: &Cluster, id: &str) {
    let line = ["task", "submit", "--type", "command", "--data", r#"{"argv":["true"]}"#, "--id", id];
    let (code, _, errors) = cluster.gridctl(&line);
    assert_eq!(code, 0, "{errors}");
}

fn train(cluster: &Cluster, name: &str, file: &str, more: &[&str], args: &[&str]) {
    let script = checkout().join("bins/controld/tests/scripts").join(file);
    let mut command = Command::new(program("gridctl"));
    command.arg("train").arg(script).args(["--name", name]).args(more);
    command.args(["--endpoints", &cluster.endpoints().join(",")]);
    if !args.is_empty() {
        command.arg("--").args(args);
    }
    let output = command.output().expect("gridctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn wait_job(cluster: &Cluster, name: &str) {
    let (code, out, errors) = cluster.gridctl(&["job", "wait", name, "--timeout", "120s"]);
    assert_eq!(code, 0, "{out}{errors}");
}

/// (id, status) of every task that is done, in order.
fn settled_tasks(cluster: &Cluster) -> Vec<(String, String)> {
    let list = json(cluster, &["task", "list"]);
    let text = |task: &Value, key: &str| task[key].as_str().unwrap_or_default().to_owned();
    let rows = list.as_array().cloned().unwrap_or_default();
    let mut all: Vec<_> = rows
        .iter()
        .map(|task| (text(task, "task"), text(task, "status")))
        .filter(|(_, status)| status == "completed")
        .collect();
    all.sort();
    all
}

fn restored(backup: &Path, flags: &[&str]) -> (Cluster, Value) {
    let cluster = Cluster::prepare(3, flags);
    let (backup, into) = (backup.display().to_string(), cluster.dir.path().display().to_string());
    let line = ["cluster", "restore", &backup, "--into", &into, "--cluster-name", "test", "--peers", &cluster.peers];
    let done = json(&cluster, &line);
    (cluster, done)
}

fn start_all(cluster: &mut Cluster) {
    for at in 0..cluster.replicas.len() {
        cluster.start_replica(at);
    }
    cluster.leader();
}

#[test]
fn a_cluster_that_is_gone_comes_back_from_its_backup_with_all_it_had_and_goes_on() {
    let marks = tempfile::tempdir().expect("a directory");
    let backups = tempfile::tempdir().expect("a directory");
    let backup = backups.path().join("all.tar");
    let mut old = Cluster::start(3, &[]);
    for worker in ["worker-1", "worker-2"] {
        old.start_worker(worker);
    }
    let artifacts = upload(&old, 5);
    (0..10).for_each(|number| submit(&old, &format!("task-{number}")));
    train(&old, "whole", "line.py", &["--shards", "4", "--workers", "2", "--rounds", "6"], &[]);
    wait_job(&old, "whole");
    wait_for("the tasks", || (settled_tasks(&old).len() >= 10).then_some(()));
    // A job in the middle of a round: leases are open while the backup is made.
    let half = ["--shards", "2", "--workers", "1", "--rounds", "4"];
    train(&old, "half", "slow.py", &half, &[marks.path().to_str().expect("UTF-8")]);
    wait_for("a shard under way", || marks.path().join("began-1-0").exists().then_some(()));
    let made = json(&old, &["cluster", "backup", backup.to_str().expect("UTF-8")]);
    let (audit, tasks) = (json(&old, &["job", "audit", "whole"]), settled_tasks(&old));
    assert!((0..10).all(|number| tasks.iter().any(|(id, _)| *id == format!("task-{number}"))), "{tasks:?}");
    drop(old);

    let (mut new, done) = restored(&backup, &[]);
    assert!(done["from_index"] == made["index"] && done["leases_ended"].as_u64() >= Some(1), "{done}");
    start_all(&mut new);
    all_readable(&new, &artifacts);
    assert_eq!(json(&new, &["job", "audit", "whole"]), audit, "the ledger is the same");
    let there = settled_tasks(&new);
    assert!(tasks.iter().all(|task| there.contains(task)), "{tasks:?} {there:?}");
    // The job goes on, and so does everybody else.
    new.start_worker("worker-1");
    wait_job(&new, "half");
    let half = json(&new, &["job", "audit", "half"]);
    assert!(half["lost"] == 0 && half["duplicated"] == 0 && half["accepted"] == 8, "{half}");
    submit(&new, "after");
    wait_for("new work", || settled_tasks(&new).iter().any(|(id, _)| id == "after").then_some(()));
    all_readable(&new, &upload_more(&new, &artifacts));
    for at in 0..3 {
        new.caught_up(at);
    }
    // Its bytes survive the loss that three replicas promise to survive.
    let leader = new.leader();
    let goes = (leader + 1) % 3;
    new.kill_replica(goes);
    std::fs::remove_dir_all(new.data_dir(goes)).expect("its directory can be removed");
    all_readable(&new, &artifacts);
}

fn upload_more(cluster: &Cluster, have: &[String]) -> Vec<String> {
    let number = have.len();
    let upload = Upload { name: format!("file-{number}"), kind: "file".to_owned(), ..Upload::default() };
    let put = cluster.client().put_artifact(&upload, &mut Cursor::new(content(number)), &mut |_, _| ());
    let mut all = have.to_vec();
    all.push(put.expect("a majority runs").artifact_id);
    all
}

/// Retention deletes the gradients of old rounds all the time: what the snapshot names may be gone before it is fetched.
#[test]
fn a_backup_made_beside_a_job_in_full_swing_is_whole_and_the_job_goes_on_from_it() {
    let backups = tempfile::tempdir().expect("a directory");
    let backup = backups.path().join("b");
    let mut old = Cluster::start(3, &[]);
    for worker in ["worker-1", "worker-2"] {
        old.start_worker(worker);
    }
    train(&old, "swing", "line.py", &["--shards", "4", "--workers", "2", "--rounds", "150"], &[]);
    let round = |cluster: &Cluster| json(cluster, &["job", "get", "swing"]);
    wait_for("some rounds", || {
        let audit = json(&old, &["job", "audit", "swing"]);
        (audit["rounds"].as_u64() >= Some(10)).then_some(())
    });
    json(&old, &["cluster", "backup", backup.to_str().expect("UTF-8")]);
    let after = round(&old);
    drop(old);
    let (mut new, done) = restored(&backup, &[]);
    assert!(done["artifacts"].as_u64() >= Some(1), "{done}");
    start_all(&mut new);
    let list = json(&new, &["artifact", "ls"]);
    let committed: Vec<&Value> =
        list.as_array().expect("a list").iter().filter(|it| it["state"] == "committed").collect();
    // A round that was sealed in the backup is summed by the new leader at once: its model and state come on top.
    assert!(Some(committed.len() as u64) >= done["artifacts"].as_u64(), "before: {after}");
    for artifact in committed {
        let mut bytes = Vec::new();
        let id = artifact["artifact"].as_str().expect("an id");
        new.client().get_artifact(id, &mut bytes, &mut |_, _| ()).expect("every one has its bytes");
    }
    new.start_worker("worker-1");
    new.start_worker("worker-2");
    wait_job(&new, "swing");
    let audit = json(&new, &["job", "audit", "swing"]);
    assert!(audit["lost"] == 0 && audit["duplicated"] == 0 && audit["accepted"] == 600, "{audit}");
}

#[test]
fn a_backup_that_is_damaged_or_half_made_is_refused_and_nothing_is_made_of_it() {
    let cluster = Cluster::start(1, &[]);
    upload(&cluster, 1);
    let backups = tempfile::tempdir().expect("a directory");
    let backup = backups.path().join("b");
    let path = backup.to_str().expect("UTF-8");
    json(&cluster, &["cluster", "backup", path]);
    let (code, _, errors) = cluster.gridctl(&["cluster", "backup", path]);
    assert!(code == 1 && errors.contains("exists already"), "{errors}");
    let refused = |expected: &str| {
        let target = Cluster::prepare(1, &[]);
        let into = target.dir.path().display().to_string();
        let line = ["cluster", "restore", path, "--into", &into, "--peers", &target.peers];
        let (code, _, errors) = target.gridctl(&line);
        assert!(code == 1 && errors.contains(expected), "{errors}");
        assert!(!target.data_dir(0).exists(), "something was made of it");
    };
    let first = |folder: &str| {
        let mut entries = std::fs::read_dir(backup.join(folder)).expect("a folder").flatten();
        entries.find(|entry| entry.metadata().is_ok_and(|about| about.len() > 0)).expect("a file").path()
    };
    for file in [first("artifacts"), first("state")] {
        let good = std::fs::read(&file).expect("readable");
        let mut bad = good.clone();
        bad[0] ^= 1;
        std::fs::write(&file, bad).expect("writable");
        refused("damaged");
        std::fs::write(&file, good).expect("writable");
    }
    std::fs::remove_file(backup.join("manifest.json")).expect("removable");
    refused("no whole backup");
}

#[test]
fn one_replica_that_is_left_goes_on_alone_with_all_it_had_and_the_old_ones_are_refused() {
    let mut cluster = Cluster::start(3, &[]);
    let artifacts = upload(&cluster, 3);
    (0..20).for_each(|number| submit(&cluster, &format!("task-{number}")));
    let left = (cluster.leader() + 1) % 3;
    let (returns, gone) = ((left + 1) % 3, (left + 2) % 3);
    cluster.caught_up(left);
    let node = cluster.replicas[left].node.to_string();
    let dir = cluster.data_dir(left).display().to_string();
    let recover = |cluster: &Cluster, more: &[&str]| {
        cluster.gridctl(&[&["cluster", "recover", "--data-dir", &dir, "--node-id", &node], more].concat())
    };
    let (code, _, errors) = recover(&cluster, &["--yes"]);
    assert!(code == 1 && errors.contains("another process has it open"), "{errors}");
    for at in 0..3 {
        cluster.kill_replica(at);
    }
    std::fs::remove_dir_all(cluster.data_dir(gone)).expect("its directory can be removed");
    let (code, _, errors) = recover(&cluster, &[]);
    assert!(code == 1 && errors.contains("nothing was changed") && errors.contains("lost: whatever"), "{errors}");
    let (code, out, errors) = recover(&cluster, &["--yes", "--output", "json"]);
    assert_eq!(code, 0, "{errors}");
    let done: Value = serde_json::from_str(&out).expect("JSON");
    let cluster_id = done["cluster_id"].as_str().expect("an id").to_owned();

    cluster.start_replica(left);
    assert_eq!(cluster.leader(), left);
    cluster.voters_become(&[cluster.replicas[left].node]);
    let tasks = json(&cluster, &["task", "list"]);
    assert_eq!(tasks.as_array().map(Vec::len), Some(20), "{tasks}");
    submit(&cluster, "alone");
    // One that is still there with its old disk is not listened to.
    cluster.start_replica(returns);
    let old_id = done["old_cluster_id"].as_str().expect("an id").to_owned();
    let refused = |line: &str| line.contains("peer stream refused") && line.contains(&old_id);
    wait_for("the refusal", || {
        let log = std::fs::read_to_string(cluster.log(left)).unwrap_or_default();
        log.lines().any(refused).then_some(())
    });
    assert_ne!(cluster.state(returns).map(|state| state.role), Some("leader".to_owned()));
    cluster.kill_replica(returns);
    // Its id is closed, too.
    let old = cluster.replicas[returns].node.to_string();
    let addresses = ["--raft-address", "127.0.0.1:9", "--client-address", "127.0.0.1:10"];
    let (code, _, errors) = cluster.gridctl(&[&["cluster", "add-learner", &old], &addresses[..]].concat());
    assert!(code == 1 && errors.contains("never used again"), "{errors}");
    // Two new ones come, and then it is three again.
    let mut voters = vec![cluster.replicas[left].node];
    for _ in 0..2 {
        let joiner = cluster.add_joiner();
        cluster.replicas[joiner].extra.extend(["--cluster-id".to_owned(), cluster_id.clone()]);
        cluster.start_replica(joiner);
        cluster.add_learner(joiner);
        voters.push(cluster.replicas[joiner].node);
        cluster.voters_become(&voters);
    }
    all_here(&cluster, &artifacts, &done);
    cluster.caught_up(3);
    cluster.caught_up(4);
    cluster.kill_replica(left);
    let leader = cluster.leader();
    assert!(leader >= 3, "a new one leads");
    let tasks = json(&cluster, &["task", "list"]);
    assert_eq!(tasks.as_array().map(Vec::len), Some(21), "{tasks}");
    // It has been through a restart with the usual settings, and still is what it became.
    cluster.start_replica(left);
    cluster.caught_up(left);
}

/// What recover did not report as lost can be read.
fn all_here(cluster: &Cluster, artifacts: &[String], done: &Value) {
    let lost: Vec<u64> = done["artifacts_lost"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    for (number, artifact) in artifacts.iter().enumerate() {
        let mut bytes = Vec::new();
        if lost.contains(&artifact.parse().expect("a number")) {
            continue;
        }
        cluster.client().get_artifact(artifact, &mut bytes, &mut |_, _| ()).expect("it has a copy here");
        assert!(bytes == content(number), "artifact {artifact} is another");
    }
}
