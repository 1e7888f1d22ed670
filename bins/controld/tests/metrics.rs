//! The HTTP port of real replicas: what Prometheus and a load balancer see.

mod harness;

use std::collections::BTreeSet;
use std::net::TcpListener;

use harness::{wait_for, Cluster, Process};
use raftgrid_proto::v1::{SnapshotRequest, SubmitTaskRequest};
use raftgrid_rpc::methods::CLUSTER_SNAPSHOT;

fn submit(cluster: &Cluster, count: usize) {
    let client = cluster.client();
    for _ in 0..count {
        let mut request = SubmitTaskRequest::new();
        request.set_task_type("command".to_owned());
        request.set_task_data(br#"{"argv":["true"]}"#.to_vec());
        client.submit_task(request).expect("a majority runs");
    }
}

#[test]
fn metrics_tell_what_a_group_of_three_does() {
    let mut cluster = Cluster::start(3, &[]);
    submit(&cluster, 25);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    cluster.caught_up(follower);
    let client = cluster.client();
    let endpoint = cluster.replicas[leader].client.clone();
    client.call_on(&endpoint, &CLUSTER_SNAPSHOT, &SnapshotRequest::new(), harness::PATIENCE).expect("it is made");

    let seen = cluster.metrics(leader);
    let state = cluster.state(leader).expect("it answers");
    assert_eq!(seen.value("raftgrid_role_state{role=\"leader\"}"), 1.0);
    assert_eq!(seen.value("raftgrid_term"), state.term as f64);
    assert_eq!(seen.value("raftgrid_leader_id"), cluster.replicas[leader].node as f64);
    assert!(seen.value("raftgrid_applied_index") >= 25.0 && seen.value("raftgrid_commit_index") >= 25.0);
    assert!(seen.value("raftgrid_propose_seconds_count") >= 25.0, "{}", seen.0);
    assert!(
        seen.value("raftgrid_log_fsync_seconds_count") >= 1.0 && seen.value("raftgrid_raft_turn_seconds_count") > 1.0
    );
    assert!(
        seen.value("raftgrid_apply_batch_entries_sum") >= 25.0
            && seen.value("raftgrid_leader_step_seconds_count") > 1.0
    );
    assert_eq!(seen.value("raftgrid_snapshots_made_total{outcome=\"ok\"}"), 1.0);
    assert_eq!(seen.value("raftgrid_tasks_count{state=\"pending\"}"), 25.0, "{}", seen.0);
    assert!(
        seen.value("raftgrid_process_resident_bytes") > 1e6 && seen.value("raftgrid_process_open_fds_count") > 10.0
    );
    assert_eq!(seen.value("raftgrid_voters_count"), 3.0);
    for other in (0..3).filter(|at| *at != leader) {
        let node = cluster.replicas[other].node;
        // It is reckoned anew each election timeout.
        let active = format!("raftgrid_peer_active_state{{peer=\"{node}\"}}");
        wait_for("word of a peer", || (cluster.metrics(leader).value(&active) == 1.0).then_some(()));
        assert!(seen.value(&format!("raftgrid_peer_messages_sent_total{{peer=\"{node}\"}}")) > 1.0);
    }

    let seen = cluster.metrics(follower);
    assert_eq!(seen.value("raftgrid_role_state{role=\"follower\"}"), 1.0);
    assert!(!seen.0.contains("raftgrid_peer_lag_entries{"), "a follower knows no lag");
    assert!(cluster.http(follower, "/healthz").starts_with("HTTP/1.1 200 "));

    // The lag of one that is away grows with what it misses.
    let node = cluster.replicas[follower].node;
    cluster.kill_replica(follower);
    submit(&cluster, 40);
    let lag = format!("raftgrid_peer_lag_entries{{peer=\"{node}\"}}");
    wait_for("the lag of the one that is away", || {
        (cluster.metrics(cluster.leader()).value(&lag) >= 1.0).then_some(())
    });
    cluster.start_replica(follower);
    wait_for("no lag any more", || (cluster.metrics(cluster.leader()).value(&lag) == 0.0).then_some(()));
}

#[test]
fn readiness_needs_a_leader_and_room() {
    let mut cluster = Cluster::prepare(3, &[]);
    cluster.start_replica(0);
    wait_for("a refusal that names the leader", || {
        let answer = cluster.try_http(0, "/readyz")?;
        (answer.starts_with("HTTP/1.1 503 ") && answer.contains("no leader is known")).then_some(())
    });
    assert!(cluster.http(0, "/healthz").starts_with("HTTP/1.1 200 "), "it lives, although it is not ready");
    cluster.start_replica(1);
    wait_for("readiness", || cluster.http(0, "/readyz").starts_with("HTTP/1.1 200 ").then_some(()));

    let config = cluster.dir.path().join("no-room.toml");
    // More than any disk has.
    std::fs::write(&config, "[disk]\nlow_water_bytes = 1125899906842624\n").unwrap();
    cluster.kill_replica(0);
    let mut command = cluster.command(0);
    command.arg("--config").arg(&config);
    cluster.replicas[0].process = Some(Process::start(&mut command, &cluster.log(0)));
    wait_for("a refusal that names the disk", || {
        let answer = cluster.try_http(0, "/readyz")?;
        (answer.starts_with("HTTP/1.1 503 ") && answer.contains("disk")).then_some(())
    });
    assert_eq!(cluster.metrics(0).value("raftgrid_disk_low_state"), 1.0);
}

#[test]
fn an_http_address_that_was_asked_for_must_be_free_and_none_is_needed() {
    let mut cluster = Cluster::prepare(1, &[]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let mut command = cluster.command(0);
    command.args(["--http-addr", &address]);
    let mut process = Process::start(&mut command, &cluster.log(0));
    let status = wait_for("the end of a process that must be refused", || process.exited());
    let log = std::fs::read_to_string(cluster.log(0)).expect("it wrote a log");
    assert!(!status.success() && log.contains(&address) && log.contains("HTTP"), "{log}");

    let mut command = cluster.command(0);
    command.args(["--http-addr", "off"]);
    cluster.replicas[0].process = Some(Process::start(&mut command, &cluster.log(0)));
    cluster.leader();
    assert!(cluster.try_http(0, "/healthz").is_none(), "the port was turned off");
}

/// Names of metrics in a text, without the endings of a histogram's lines.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    text.split(word).filter(|name| name.starts_with("raftgrid_")).map(str::to_owned).collect()
}

#[test]
fn the_table_of_metrics_in_the_manual_is_the_table_of_metrics() {
    // With certificates there is one more.
    let (mut cluster, _) = harness::certs::prepare(3);
    (0..3).for_each(|at| cluster.start_replica(at));
    cluster.leader();
    submit(&cluster, 1);
    let mut served = BTreeSet::new();
    for at in 0..3 {
        // The port counts its first answer when it has given it.
        cluster.metrics(at);
        let text = cluster.metrics(at).0;
        let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        served.extend(typed.map(str::to_owned));
    }
    let manual =
        std::fs::read_to_string(harness::checkout().join("docs/operations.md")).expect("it is in the checkout");
    let (_, section) = manual.split_once("## Metrics and health").expect("the manual has the section");
    let documented = names(section.split("\n## ").next().unwrap_or_default());
    let hidden: Vec<_> = served.difference(&documented).collect();
    assert!(hidden.is_empty(), "served and not in docs/operations.md: {hidden:?}");
    // Counted from the first refusal on.
    let invented: Vec<_> =
        documented.difference(&served).filter(|name| *name != "raftgrid_proposals_refused_total").collect();
    assert!(invented.is_empty(), "in docs/operations.md and not served: {invented:?}");
}
