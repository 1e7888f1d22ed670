//! Rounds that do not wait for all, with real processes: sealed by deadline, paused and resumed, bounded and asynchronous.

mod harness;

use std::path::Path;

use harness::{checkout, wait_for, Cluster};
use raftgrid_proto::v1::StateResponse;

/// Three replicas at the newest machine version, and workers.
fn with_workers(count: usize) -> Cluster {
    let mut cluster = Cluster::start(3, &[]);
    for number in 1..=count {
        cluster.start_worker(&format!("worker-{number}"));
    }
    let newest = |(_, state): &(String, Result<StateResponse, _>)| {
        state.as_ref().is_ok_and(|state| state.get_machine_version() >= raftgrid_manifest::MACHINE_VERSION)
    };
    let client = cluster.client();
    wait_for("the newest machine version", || client.cluster_states().iter().all(newest).then_some(()));
    cluster
}

fn train(cluster: &Cluster, name: &str, file: &str, rules: &[&str], args: &[&str]) {
    let script = checkout().join("bins/controld/tests/scripts").join(file).display().to_string();
    let endpoints = cluster.endpoints().join(",");
    let mut line = vec!["train", script.as_str(), "--name", name, "--shards", "4", "--endpoints", &endpoints];
    line.extend_from_slice(rules);
    line.push("--");
    line.extend_from_slice(args);
    let output = std::process::Command::new(harness::program("gridctl")).args(&line).output().expect("gridctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn json(cluster: &Cluster, args: &[&str]) -> serde_json::Value {
    let (code, out, errors) = cluster.gridctl(&[args, &["--output", "json"]].concat());
    assert_eq!(code, 0, "{out}{errors}");
    serde_json::from_str(&out).expect("gridctl prints JSON")
}

/// The job ends, and its audit is clean: the hash chain, what was acknowledged, and each round summed again on every replica. A round for which
/// this machine was too slow pauses it again.
fn done(cluster: &Cluster, name: &str) -> serde_json::Value {
    wait_for("the end of the job", || {
        let job = json(cluster, &["job", "get", name]);
        if job["phase"] == "paused" {
            let _raced = cluster.gridctl(&["job", "resume", name]);
        }
        assert_ne!(job["phase"], "failed", "{job}");
        (job["phase"] == "done").then_some(())
    });
    let mut args = vec!["job".to_owned(), "audit".to_owned(), name.to_owned(), "--recompute".to_owned()];
    for (worker, _) in &cluster.workers {
        let acks = cluster.dir.path().join(worker).join("acks.jsonl");
        assert!(acks.is_file(), "{}", acks.display());
        args.extend(["--acks".to_owned(), acks.display().to_string()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let audit = json(cluster, &args);
    assert_eq!((&audit["lost"], &audit["duplicated"], &audit["ledger_verified"]), (&0.into(), &0.into(), &true.into()));
    assert_eq!(audit["acks"]["acknowledged"], audit["acks"]["in_ledger"], "{audit}");
    audit
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

#[test]
fn a_shard_that_never_answers_is_left_out_at_the_deadline() {
    let cluster = with_workers(2);
    let never = cluster.dir.path().join("never");
    let rules = ["--workers", "2", "--rounds", "3", "--min-contributions", "3", "--round-deadline", "700ms"];
    let rules = [&rules[..], &["--extensions", "1000"]].concat();
    train(&cluster, "short", "patient.py", &rules, &[text(&never), "3"]);
    let audit = done(&cluster, "short");
    assert_eq!((&audit["rounds_by_deadline"], &audit["accepted"]), (&3.into(), &9.into()), "{audit}");
    assert_eq!(audit["reproducible"], "no");
    let reason = audit["reproducible_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("deadline with 3 of 4"), "{reason}");
    let (_, out, _) = cluster.gridctl(&["job", "get", "short"]);
    assert!(out.contains("0 by quorum, 3 by deadline"), "{out}");
}

#[test]
fn a_paused_job_keeps_its_trainers_and_goes_on_when_it_is_resumed() {
    let cluster = with_workers(2);
    let answers = cluster.dir.path().join("answers");
    let rules = ["--workers", "2", "--rounds", "3", "--round-deadline", "500ms", "--extensions", "1"];
    train(&cluster, "paused", "patient.py", &rules, &[text(&answers), "2"]);
    let paused = wait_for("the pause", || {
        let job = json(&cluster, &["job", "get", "paused"]);
        (job["phase"] == "paused").then_some(job)
    });
    let reason = paused["reason"].as_str().unwrap_or_default();
    // Two come at most; on a busy machine the pause may come before them.
    assert!(reason.contains("of at least 4 gradients after 1 extensions"), "{reason}");
    for task in paused["tasks"].as_array().expect("tasks") {
        assert_eq!((&task["status"], &task["attempt"]), (&"running".into(), &1.into()), "{task}");
    }
    std::fs::write(&answers, b"").expect("the file is written");
    let resumed = json(&cluster, &["job", "resume", "paused"]);
    assert_ne!(resumed["phase"], "paused", "{resumed}");
    let audit = done(&cluster, "paused");
    assert_eq!((&audit["accepted"], &audit["rounds_by_deadline"]), (&12.into(), &0.into()), "{audit}");
    let reproducible = audit["reproducible"].as_str().unwrap_or_default();
    assert!(["yes", "unverified"].contains(&reproducible), "a deadline for all shards only extends: {audit}");
    let (code, _, errors) = cluster.gridctl(&["job", "resume", "paused"]);
    assert_eq!(code, 1);
    assert!(errors.contains("is DONE already"), "{errors}");
}

#[test]
fn bounded_and_async_jobs_end_with_clean_audits() {
    let mut cluster = with_workers(3);
    let common = ["--workers", "3", "--rounds", "8", "--verify", "0.3"];
    let modes: [(&str, &[&str]); 2] =
        [("bounded", &["--mode", "bounded", "--staleness", "2"]), ("async", &["--mode", "async", "--quorum", "2"])];
    for (mode, rules) in modes {
        train(&cluster, mode, "uneven.py", &[&common[..], rules].concat(), &["3"]);
        if mode == "async" {
            // Whoever leads goes on with what is there.
            let led_by = cluster.leader();
            cluster.kill_replica(led_by);
            cluster.leader();
            cluster.start_replica(led_by);
            cluster.caught_up(led_by);
        }
        let audit = done(&cluster, mode);
        assert_eq!((&audit["mode"], &audit["reproducible"]), (&mode.into(), &"no".into()), "{audit}");
        let least = if mode == "bounded" { 32 } else { 16 };
        assert!(audit["accepted"].as_u64() >= Some(least) && audit["stalest"].as_u64() <= Some(8), "{audit}");
    }
}
