//! Training with real processes: clients that speak only the old messages, scripts that are not reproducible or raise, stopped workers.

mod harness;

use std::io::Cursor;
use std::process::Command;

use harness::{checkout, python, wait_for, Cluster};
use raftgrid_client::{Client, ClientConfig, Upload};
use raftgrid_proto::v1::{Combine, JobSpec, Optimizer, StateResponse, TrainSpec};

fn script(name: &str) -> String {
    checkout().join("bins/controld/tests/scripts").join(name).display().to_string()
}

fn train(cluster: &Cluster, name: &str, file: &str, more: &[&str], args: &[&str]) {
    let script = script(file);
    let mut line = vec!["train", script.as_str(), "--name", name];
    line.extend_from_slice(more);
    let endpoints = cluster.endpoints().join(",");
    line.extend_from_slice(&["--endpoints", &endpoints]);
    if !args.is_empty() {
        line.push("--");
        line.extend_from_slice(args);
    }
    let output = Command::new(harness::program("gridctl")).args(&line).output().expect("gridctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn audit(cluster: &Cluster, name: &str) -> serde_json::Value {
    let (code, out, errors) = cluster.gridctl(&["job", "audit", name, "--output", "json"]);
    assert_eq!(code, 0, "{errors}");
    serde_json::from_str(&out).expect("an audit is JSON")
}

fn wait_done(cluster: &Cluster, name: &str) {
    let (code, out, errors) = cluster.gridctl(&["job", "wait", name, "--timeout", "120s"]);
    assert_eq!(code, 0, "{out}{errors}");
}

fn with_workers(count: usize) -> Cluster {
    let mut cluster = Cluster::start(3, &[]);
    for number in 1..=count {
        cluster.start_worker(&format!("worker-{number}"));
    }
    cluster
}

#[test]
fn the_model_is_the_same_to_the_last_bit_with_one_and_three_workers() {
    let cluster = with_workers(3);
    for (name, workers) in [("three", "3"), ("one", "1")] {
        train(
            &cluster,
            name,
            "line.py",
            &["--shards", "4", "--workers", workers, "--rounds", "12", "--verify", "0.1"],
            &[],
        );
        wait_done(&cluster, name);
    }
    let (three, one) = (audit(&cluster, "three"), audit(&cluster, "one"));
    assert_eq!(three["accepted"], 48);
    assert_eq!(three["lost"], 0);
    assert_eq!(three["duplicated"], 0);
    assert_eq!(three["reproducible"], "yes", "{three}");
    assert_eq!(three["model_sha256"], one["model_sha256"]);
    the_loss_of_each_round_is_drawn(&cluster, "three");
}

fn the_loss_of_each_round_is_drawn(cluster: &Cluster, name: &str) {
    let history = cluster.client().job_history(name).expect("its history");
    let rounds: Vec<u64> = history.iter().map(|round| round.round).collect();
    assert_eq!(rounds, (0..12).collect::<Vec<_>>());
    assert!(history.iter().all(|round| round.contributions == 4 && round.metrics_json.contains("loss")));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("loss.svg");
    let (code, out, errors) = cluster.gridctl(&["job", "plot", name, "-o", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{errors}");
    let picture = std::fs::read_to_string(&file).expect("a picture");
    // A point for each round.
    assert_eq!(picture.matches("<circle").count(), 12, "{picture}");
    assert!(picture.contains("three, 12 of 12 rounds: loss"));
}

#[test]
fn a_gradient_that_depends_on_the_attempt_ends_with_reproducible_no_and_names_the_shard() {
    let cluster = with_workers(2);
    train(
        &cluster,
        "attempt",
        "attempt.py",
        &["--shards", "3", "--workers", "2", "--rounds", "4", "--verify", "1.0"],
        &[],
    );
    wait_done(&cluster, "attempt");
    let audit = audit(&cluster, "attempt");
    assert_eq!(audit["reproducible"], "no", "{audit}");
    let reason = audit["reproducible_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("shard 1"), "{reason}");
    assert_eq!(audit["accepted"], 12);
}

#[test]
fn a_script_that_raises_fails_the_job_with_one_line_that_names_the_error() {
    let cluster = with_workers(1);
    train(&cluster, "raises", "raises.py", &["--shards", "2", "--workers", "1", "--rounds", "3"], &[]);
    let (code, out, errors) = cluster.gridctl(&["job", "wait", "raises", "--timeout", "120s"]);
    assert_eq!(code, 1, "{out}");
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.contains("ValueError: the data are not there"), "{errors:?}");
}

#[test]
fn a_worker_stopped_beyond_its_lease_finds_its_results_refused_and_the_model_unchanged() {
    let marks = tempfile::tempdir().unwrap();
    let mut cluster = with_workers(1);
    let args = [marks.path().to_str().unwrap()];
    train(&cluster, "stopped", "slow.py", &["--shards", "2", "--workers", "1", "--rounds", "4"], &args);
    wait_for("a shard under way", || marks.path().join("began-1-0").exists().then_some(()));
    cluster.worker("worker-1").signal("STOP");
    // Nobody else is there: when the lease is over, the task waits.
    wait_for("the end of the lease", || {
        let (_, out, _) = cluster.gridctl(&["task", "get", "stopped/trainer-0", "--output", "json"]);
        let task: serde_json::Value = serde_json::from_str(&out).ok()?;
        (task["status"] == "pending").then_some(())
    });
    cluster.start_worker("worker-2");
    wait_done(&cluster, "stopped");
    let before = audit(&cluster, "stopped");
    cluster.worker("worker-1").signal("CONT");
    // It comes back, is told that its lease is gone, and registers for new work.
    wait_for("the stopped worker among the healthy nodes", || {
        let (_, out, _) = cluster.gridctl(&["node", "list", "--output", "json"]);
        let nodes: serde_json::Value = serde_json::from_str(&out).ok()?;
        let nodes = nodes.as_array().cloned().or_else(|| nodes["nodes"].as_array().cloned())?;
        nodes.iter().find(|node| node["node"] == "worker-1" && node["status"] == "healthy").map(|_| ())
    });
    let after = audit(&cluster, "stopped");
    assert_eq!(before["model_sha256"], after["model_sha256"]);
    assert_eq!(after["accepted"], 8);
    assert_eq!(after["duplicated"], 0);
}

/// What `rules.py RULE` comes to without a cluster, in NumPy.
fn alone(rule: &str) -> String {
    let output = Command::new(python())
        .args([script("rules.py").as_str(), rule])
        .env("PYTHONPATH", checkout().join("ml-code/src"))
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find_map(|line| line.strip_prefix("model "));
    found.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

/// Waits until every replica runs at the newest machine version.
fn wait_for_the_newest_version(client: &Client) {
    let newest = |(_, state): &(String, Result<StateResponse, _>)| {
        state.as_ref().is_ok_and(|state| state.get_machine_version() >= raftgrid_manifest::MACHINE_VERSION)
    };
    wait_for("the newest machine version", || client.cluster_states().iter().all(newest).then_some(()));
}

#[test]
fn every_rule_makes_the_model_on_a_cluster_that_numpy_makes_alone() {
    let cluster = with_workers(2);
    wait_for_the_newest_version(&cluster.client());
    for rule in ["adam", "adamw", "fedadam", "fedavgm", "diloco", "fedavg"] {
        train(&cluster, rule, "rules.py", &["--shards", "3", "--workers", "2", "--rounds", "6"], &[rule]);
        wait_done(&cluster, rule);
        let (code, out, errors) = cluster.gridctl(&["job", "audit", rule, "--recompute", "--output", "json"]);
        assert_eq!(code, 0, "{rule}: {errors}");
        let audit: serde_json::Value = serde_json::from_str(&out).expect("an audit is JSON");
        assert_eq!(audit["model_sha256"], alone(rule), "{rule}: {audit}");
        assert_eq!((&audit["accepted"], &audit["lost"], &audit["duplicated"]), (&18.into(), &0.into(), &0.into()));
    }
}

/// A safetensors file with one vector of two zeros.
fn small_model() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let padded = header.len().div_ceil(8) * 8;
    let mut file = (padded as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(8 + padded, b' ');
    file.extend_from_slice(&[0; 8]);
    file
}

/// A job that starts from `small_model`, for trainers that no worker runs.
fn submit_for_old_clients(client: &Client, name: &str, shards: u32, rounds: u64) {
    submit_with(client, name, shards, rounds, |_| ());
}

/// The same with other settings.
fn submit_with(client: &Client, name: &str, shards: u32, rounds: u64, change: impl FnOnce(&mut TrainSpec)) {
    let upload = Upload { name: String::new(), kind: "model".to_owned(), ..Upload::default() };
    let model =
        client.put_artifact(&upload, &mut Cursor::new(small_model()), &mut |_, _| ()).expect("a model is stored");
    let mut optimizer = Optimizer::new();
    optimizer.set_algorithm("sgd".to_owned());
    optimizer.set_learning_rate(0.5);
    let mut train = TrainSpec::new();
    train.set_shards(shards);
    train.set_workers(1);
    train.set_rounds(rounds);
    train.set_initial_model(model.artifact_id);
    train.set_optimizer(optimizer);
    change(&mut train);
    let mut spec = JobSpec::new();
    spec.set_name(name.to_owned());
    spec.set_field_type("train".to_owned());
    spec.set_train(train);
    spec.set_task_data(br#"{"script":"none.py","args":[]}"#.to_vec());
    client.submit_job(spec).expect("the job is accepted");
}

/// Runs the old client to its end; what it printed.
fn old_client(cluster: &Cluster, args: &[&str]) -> String {
    let output = Command::new(python())
        .arg(checkout().join("ml-code/tests/old_client/old_client.py"))
        .args(["--endpoint", &cluster.replicas[cluster.leader()].client])
        .args(args)
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

/// The two numbers of the model at the end.
fn final_model(client: &Client, name: &str) -> [f32; 2] {
    let mut out = Vec::new();
    client.get_artifact(&format!("{name}/model@latest"), &mut out, &mut |_, _| ()).expect("the model can be read");
    let number = |from_end: usize| {
        let at = out.len() - from_end;
        f32::from_le_bytes(out[at..at + 4].try_into().expect("four bytes"))
    };
    [number(8), number(4)]
}

#[test]
fn a_client_that_speaks_only_the_old_messages_completes_a_task_and_a_round() {
    let cluster = Cluster::start(3, &[]);
    let client = cluster.client();
    submit_for_old_clients(&client, "old", 1, 2);
    let text = old_client(&cluster, &["--job", "old"]);
    assert!(text.contains("sent again: True"), "{text}");
    assert!(text.contains("task COMPLETED"), "{text}");
    wait_done(&cluster, "old");
    let audit = audit(&cluster, "old");
    assert_eq!(audit["accepted"], 2, "{audit}");
    assert_eq!(audit["duplicated"], 0);
    // Two steps of -0.5 from zero.
    assert_eq!(final_model(&client, "old"), [-1.0, -1.0]);
}

#[test]
fn an_old_client_that_sends_a_shard_again_does_not_give_its_bytes_to_the_next_one() {
    let cluster = Cluster::start(3, &[]);
    let client = cluster.client();
    submit_for_old_clients(&client, "shards", 3, 1);
    let text = old_client(&cluster, &["--job", "shards", "--shards", "3", "--rounds", "1"]);
    assert_eq!(text.matches("sent again: True").count(), 3, "{text}");
    wait_done(&cluster, "shards");
    let audit = audit(&cluster, "shards");
    assert_eq!(audit["accepted"], 3, "{audit}");
    assert_eq!(audit["mismatches"], 0, "nothing differs from what was sent: {audit}");
    // One step of -0.5 by the mean of 1, 2 and 3. A retry that is taken for the next shard makes another mean.
    assert_eq!(final_model(&client, "shards"), [-1.0, -1.0]);
}

#[test]
fn contributions_are_clipped_and_their_median_is_stepped_and_every_replica_recomputes_the_same() {
    let cluster = Cluster::start(3, &[]);
    let client = cluster.client();
    wait_for_the_newest_version(&client);
    submit_with(&client, "robust", 3, 2, |train| {
        let mut combine = Combine::new();
        combine.set_strategy("median".to_owned());
        combine.set_clip_norm(2.0);
        train.set_combine(combine);
        train.mut_optimizer().mut_schedule().set_kind("step".to_owned());
        train.mut_optimizer().mut_schedule().set_step_rounds(1);
        train.mut_optimizer().mut_schedule().set_step_factor(0.5);
    });
    old_client(&cluster, &["--job", "robust", "--shards", "3", "--rounds", "2"]);
    wait_done(&cluster, "robust");
    // (1, 1), (2, 2) and (3, 3), brought down to a norm of 2: the median is 2/√2; the second step is half as long.
    let factor = 2.0_f64 / 8.0_f64.sqrt();
    let clipped = (factor * 2.0) as f32;
    let first = -0.5 * clipped;
    let expected = first + -0.25 * clipped;
    assert_eq!(final_model(&client, "robust"), [expected; 2]);

    let (code, out, errors) = cluster.gridctl(&["job", "audit", "robust", "--recompute", "--output", "json"]);
    assert_eq!(code, 0, "{errors}");
    let audit: serde_json::Value = serde_json::from_str(&out).expect("an audit is JSON");
    let replicas = audit["recomputed"].as_array().expect("one for each replica").clone();
    assert_eq!(replicas.len(), 3, "{audit}");
    let mut nodes: Vec<u64> = replicas.iter().filter_map(|one| one["replica"].as_u64()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [1, 2, 3], "each did it by itself: {audit}");
    for one in &replicas {
        assert_eq!(one["model_sha256"], audit["model_sha256"], "{audit}");
        assert_eq!((&one["from_round"], &one["to_round"]), (&0.into(), &2.into()));
    }
}

/// Of 8 rounds with two gradients, a model and a state each; on the leader, all of them were decoded once.
#[test]
fn what_earlier_rounds_were_made_of_is_not_kept_decoded_and_recomputed_all_the_same() {
    // Who leads for a while only keeps what came to it meanwhile: all rounds are to be one leader's.
    let (cluster, leader) = wait_for("a job under one leader", || {
        let mut cluster = Cluster::start(3, &[]);
        wait_for_the_newest_version(&cluster.client());
        cluster.start_worker("worker-1");
        let term = |cluster: &Cluster, at| cluster.state(at).map(|state| state.term);
        let leader = cluster.leader();
        let before = term(&cluster, leader);
        train(&cluster, "wide", "wide.py", &["--shards", "2", "--workers", "1", "--rounds", "8"], &[]);
        wait_done(&cluster, "wide");
        (term(&cluster, leader) == before).then_some((cluster, leader))
    });
    let cache = cluster.data_dir(leader).join("blobs").join("cache");
    let decoded = std::fs::read_dir(cache).expect("the folder of what is decoded").count();
    // The last round's, what it was made into, and what a trainer has asked for meanwhile.
    assert!((1..=8).contains(&decoded), "{decoded} decoded artifacts");
    let (code, out, errors) = cluster.gridctl(&["job", "audit", "wide", "--recompute", "--output", "json"]);
    assert_eq!(code, 0, "{errors}");
    let audit: serde_json::Value = serde_json::from_str(&out).expect("an audit is JSON");
    let replicas = audit["recomputed"].as_array().expect("one for each replica");
    assert_eq!(replicas.len(), 3, "{audit}");
    for one in replicas {
        assert_eq!(one["model_sha256"], audit["model_sha256"], "{audit}");
        assert_eq!((&one["from_round"], &one["to_round"]), (&0.into(), &8.into()), "{audit}");
    }
}

#[test]
fn a_damaged_copy_is_read_through_another_replica_from_the_same_byte_on() {
    const TOTAL: usize = 3 * 1024 * 1024 + 17;
    // Before version 5 everything is plain copies.
    let settings = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(settings.path(), "[raft]\nmachine_version_max = 4\n").expect("writable");
    let mut cluster = Cluster::start(3, &["--config", &settings.path().display().to_string()]);
    let body: Vec<u8> = (0..TOTAL as u32).map(|at| (at % 249) as u8).collect();
    let upload = Upload { name: String::new(), kind: "file".to_owned(), ..Upload::default() };
    let stored = cluster.client().put_artifact(&upload, &mut Cursor::new(body.clone()), &mut |_, _| ());
    let id = stored.expect("it is stored").artifact_id;
    let copy = |cluster: &Cluster, at: usize| cluster.data_dir(at).join("blobs").join(&id).join("0");
    let holders: Vec<usize> = (0..3).filter(|at| copy(&cluster, *at).is_file()).collect();
    assert_eq!(holders.len(), 2, "as many copies as one failure needs");
    let only = |cluster: &Cluster, at: usize| {
        let config =
            ClientConfig { timeout: harness::PATIENCE, ..ClientConfig::new([cluster.replicas[at].client.clone()]) };
        Client::new(config).expect("an endpoint")
    };
    let damage = |path: &std::path::Path| {
        let mut bytes = std::fs::read(path).expect("the copy");
        // In the third chunk: two have gone out when it is met.
        bytes[2 * 1024 * 1024 + 100_000] ^= 1;
        std::fs::write(path, &bytes).expect("the copy can be damaged");
    };
    let good = std::fs::read(copy(&cluster, holders[0])).expect("the copy");
    damage(&copy(&cluster, holders[0]));
    let mut out = Vec::new();
    only(&cluster, holders[0]).get_artifact(&id, &mut out, &mut |_, _| ()).expect("the other copy is good");
    assert!(out == body, "not one wrong byte");
    // By the reader, or by the replica itself, if the other one could not be reached at once and the reader went on to it.
    wait_for("the good copy in the place of the damaged one", || {
        (std::fs::read(copy(&cluster, holders[0])).ok()? == good).then_some(())
    });

    // With the only good copy away there is an error, and nothing wrong was given out before it.
    let third = (0..3).find(|at| !holders.contains(at)).expect("of three");
    assert!(!copy(&cluster, third).is_file());
    cluster.kill_replica(holders[1]);
    damage(&copy(&cluster, holders[0]));
    let quick = ClientConfig {
        timeout: std::time::Duration::from_secs(3),
        transfer_timeout: std::time::Duration::from_secs(3),
        ..ClientConfig::new([cluster.replicas[holders[0]].client.clone()])
    };
    let mut out = Vec::new();
    let failed = Client::new(quick).expect("an endpoint").get_artifact(&id, &mut out, &mut |_, _| ());
    assert!(failed.is_err());
    assert!(body.starts_with(&out), "what came before the damage is right, and nothing came after it");
}
