//! Three real control-plane processes: fail-over, catching up by log and by snapshot, joining, and starts that must be refused.

mod harness;

use std::time::Duration;

use harness::{wait_for, Cluster, Process};
use raftgrid_client::{Client, ClientConfig};
use raftgrid_proto::v1::{ListTasksRequest, SnapshotRequest, SubmitTaskRequest};
use raftgrid_rpc::methods::CLUSTER_SNAPSHOT;

fn submit(cluster: &Cluster, count: usize) -> Vec<String> {
    let client = cluster.client();
    (0..count)
        .map(|number| {
            let data = format!(r#"{{"argv":["true"],"number":{number}}}"#);
            let mut request = SubmitTaskRequest::new();
            request.set_task_type("command".to_owned());
            request.set_task_data(data.into_bytes());
            client.submit_task(request).expect("a majority runs").task_id
        })
        .collect()
}

fn all_there(cluster: &Cluster, ids: &[String]) {
    let client = cluster.client();
    for id in ids {
        assert_eq!(client.get_task(id).expect("an acknowledged task is there").task_id, *id);
    }
}

#[test]
fn writes_and_reads_go_on_after_the_leader_is_killed_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3, &[]);
    let mut ids = submit(&cluster, 20);
    for _ in 0..3 {
        let leader = cluster.leader();
        cluster.kill_replica(leader);
        ids.extend(submit(&cluster, 10));
        let next = cluster.leader();
        assert_ne!(next, leader);
        all_there(&cluster, &ids);
        cluster.start_replica(leader);
        cluster.caught_up(leader);
    }
    all_there(&cluster, &ids);
}

/// Each of the hundred asks one replica first, and the others when that one cannot tell; the leader is killed under them.
#[test]
fn one_request_id_a_hundred_times_at_once_through_all_replicas_during_an_election_is_one_task() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let endpoints = cluster.endpoints();
    let mut request = SubmitTaskRequest::new();
    request.set_task_type("command".to_owned());
    request.set_task_data(br#"{"argv":["true"]}"#.to_vec());
    request.set_request_id(raftgrid_client::request_id());
    let begun = std::sync::Barrier::new(101);
    let ids: Vec<String> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..100)
            .map(|caller| {
                let (begun, request, mut endpoints) = (&begun, request.clone(), endpoints.clone());
                endpoints.rotate_left(caller % 3);
                scope.spawn(move || {
                    let client = Client::new(ClientConfig::new(endpoints)).expect("the endpoints are valid");
                    begun.wait();
                    client.submit_task(request).expect("a majority runs").task_id
                })
            })
            .collect();
        begun.wait();
        cluster.kill_replica(leader);
        callers.into_iter().map(|caller| caller.join().expect("no caller panics")).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    cluster.start_replica(leader);
    cluster.caught_up(leader);
    let listed = cluster.client().list_tasks(&ListTasksRequest::new()).expect("a majority runs");
    assert_eq!(listed.get_tasks().len(), 1);
}

#[test]
fn everything_acknowledged_is_there_after_all_replicas_are_killed_at_once() {
    let mut cluster = Cluster::start(3, &[]);
    let ids = submit(&cluster, 30);
    for at in 0..3 {
        cluster.kill_replica(at);
    }
    for at in 0..3 {
        cluster.start_replica(at);
    }
    cluster.leader();
    all_there(&cluster, &ids);
    for at in 0..3 {
        cluster.caught_up(at);
    }
}

#[test]
fn a_follower_that_was_away_returns_by_the_log_and_by_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("short-log.toml");
    std::fs::write(&config, "[raft]\nlog_tail_entries = 20\nsnapshot_threshold = 50\nsnapshot_interval = '200ms'\n")
        .unwrap();
    let mut cluster = Cluster::start(3, &["--config", config.to_str().unwrap()]);
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    let mut ids = submit(&cluster, 5);
    cluster.kill_replica(away);
    ids.extend(submit(&cluster, 5));
    cluster.start_replica(away);
    cluster.caught_up(away);

    cluster.kill_replica(away);
    // Whatever it had when it was killed was committed by then, or never will be.
    let last = wait_for("the leader's state", || cluster.state(cluster.leader())).last_index;
    ids.extend(submit(&cluster, 200));
    let client = cluster.client();
    // Of both that run: whoever leads when the third returns.
    for at in (0..3).filter(|at| *at != away) {
        wait_for("a log that no longer reaches back", || {
            let endpoint = &cluster.replicas[at].client;
            client.call_on(endpoint, &CLUSTER_SNAPSHOT, &SnapshotRequest::new(), Duration::from_secs(10)).ok()?;
            cluster.state(at).filter(|state| state.first_index > last + 1).map(|_| ())
        });
    }
    // What the leader had sent already may wait in its queue for the one that was away: it goes with the process.
    for at in (0..3).filter(|at| *at != away) {
        cluster.kill_replica(at);
        cluster.start_replica(at);
    }
    cluster.leader();
    cluster.start_replica(away);
    cluster.caught_up(away);
    let first = wait_for("its state", || cluster.state(away)).first_index;
    assert!(first > last + 1, "it came by the log: last {last}, first {first}, {:?}", cluster.states_seen());
    all_there(&cluster, &ids);
    // What it got is durable: it starts from it again.
    cluster.kill_replica(away);
    cluster.start_replica(away);
    cluster.caught_up(away);
}

#[test]
fn a_founder_that_lost_its_disk_is_refused_by_whoever_met_it_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3, &[]);
    let mut ids = submit(&cluster, 5);
    let leader = cluster.leader();
    let (away, wiped) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.caught_up(away);
    cluster.kill_replica(away);
    ids.extend(submit(&cluster, 5));
    cluster.kill_replica(leader);
    cluster.kill_replica(wiped);
    std::fs::remove_dir_all(cluster.data_dir(wiped)).expect("its directory can be removed");
    // Together these two would be a majority that never heard of the last five.
    cluster.start_replica(wiped);
    cluster.start_replica(away);
    wait_for("the refusal in the log of the one that was away", || {
        let log = std::fs::read_to_string(cluster.log(away)).ok()?;
        log.contains("speaks from another store than before").then_some(())
    });
    assert!([away, wiped].iter().all(|at| cluster.state(*at).is_some_and(|state| state.role != "leader")));
    cluster.start_replica(leader);
    all_there(&cluster, &ids);
    // Its place is taken by a new one, under a new id.
    cluster.kill_replica(wiped);
    let gone = cluster.replicas[wiped].node.to_string();
    let (code, _, errors) = cluster.gridctl(&["cluster", "remove", &gone]);
    assert_eq!(code, 0, "{errors}");
    let joiner = cluster.add_joiner();
    cluster.start_replica(joiner);
    cluster.add_learner(joiner);
    cluster.caught_up(joiner);
    all_there(&cluster, &ids);
}

#[test]
fn a_joiner_that_is_cut_off_after_its_promotion_never_leads() {
    let mut cluster = Cluster::start(3, &[]);
    submit(&cluster, 5);
    let joiner = cluster.add_joiner();
    cluster.start_replica(joiner);
    let client = cluster.client();
    cluster.add_learner(joiner);
    let node = cluster.replicas[joiner].node;
    wait_for("its promotion", || {
        client.members().ok()?.iter().find(|member| member.node_id == node && member.role == "voter").map(|_| ())
    });
    cluster.caught_up(joiner);
    // Cut off: the others are gone, and it starts again alone.
    for at in 0..3 {
        cluster.kill_replica(at);
    }
    cluster.kill_replica(joiner);
    cluster.start_replica(joiner);
    let before = wait_for("the joiner's state", || cluster.state(joiner));
    // Many election timeouts of the preset: it campaigns in vain.
    for _ in 0..200 {
        std::thread::park_timeout(Duration::from_millis(20));
        if let Some(state) = cluster.state(joiner) {
            assert_ne!(state.role, "leader", "one of four leads alone");
            assert_eq!(state.commit_index, before.commit_index);
        }
    }
    for at in 0..3 {
        cluster.start_replica(at);
    }
    cluster.leader();
    submit(&cluster, 3);
}

/// The process ends by itself, unsuccessfully, with one line that says all of `expected`.
fn refused(cluster: &Cluster, name: &str, command: &mut std::process::Command, expected: &[&str]) {
    let log = cluster.dir.path().join(format!("{name}.log"));
    let mut process = Process::start(command, &log);
    let status = wait_for("the end of a process that must be refused", || process.exited());
    assert!(!status.success(), "{name} ended with success");
    let text = std::fs::read_to_string(&log).unwrap();
    let line = text.lines().last().unwrap_or_default();
    for part in expected {
        assert!(line.contains(part), "{name}: {part:?} is not in the last line of {text:?}");
    }
}

#[test]
fn a_start_that_cannot_work_ends_with_one_line_that_names_the_cause_and_loses_nothing() {
    let mut cluster = Cluster::start(3, &[]);
    let ids = submit(&cluster, 5);
    let busy = cluster.replicas[1].client.clone();

    let mut port = cluster.command(0);
    port.args(["--data-dir"]).arg(cluster.dir.path().join("other")).args([
        "--raft-addr",
        "127.0.0.1:0",
        "--client-addr",
        &busy,
    ]);
    refused(&cluster, "busy-port", &mut port, &[&busy, "in use"]);

    let mut locked = cluster.command(0);
    locked.args(["--client-addr", "127.0.0.1:0", "--raft-addr", "127.0.0.1:0"]);
    refused(&cluster, "locked", &mut locked, &["controld-1"]);

    cluster.kill_replica(0);
    let mut other_node = cluster.command(1);
    other_node.arg("--data-dir").arg(cluster.data_dir(0)).args([
        "--client-addr",
        "127.0.0.1:0",
        "--raft-addr",
        "127.0.0.1:0",
    ]);
    refused(&cluster, "other-node", &mut other_node, &["controld-1", "node"]);

    let mut other_cluster = cluster.command(0);
    other_cluster.args(["--cluster-name", "another"]);
    refused(&cluster, "other-cluster", &mut other_cluster, &["controld-1", "cluster"]);

    let config = cluster.dir.path().join("wrong.toml");
    std::fs::write(&config, "node_idd = 1\n").unwrap();
    let mut unknown_key = cluster.command(0);
    unknown_key.arg("--config").arg(&config);
    refused(&cluster, "unknown-key", &mut unknown_key, &["node_idd", "did you mean `node_id`"]);

    let mut flag = cluster.command(0);
    flag.arg("--no-such-flag");
    let log = cluster.dir.path().join("flag.log");
    let mut process = Process::start(&mut flag, &log);
    let status = wait_for("the end of a process with a wrong flag", || process.exited());
    assert_eq!(status.code(), Some(2));
    assert!(std::fs::read_to_string(&log).unwrap().contains("--no-such-flag"));

    cluster.start_replica(0);
    cluster.caught_up(0);
    all_there(&cluster, &ids);
}

#[test]
fn replicas_without_room_refuse_new_work_say_so_and_go_on_when_there_is_room() {
    let mut cluster = Cluster::start(3, &[]);
    let ids = submit(&cluster, 3);
    let config = cluster.dir.path().join("no-room.toml");
    // More than any disk has: every replica is below the mark.
    std::fs::write(&config, "[disk]\nlow_water_bytes = 1125899906842624\n").unwrap();
    for at in 0..3 {
        cluster.kill_replica(at);
    }
    for at in 0..3 {
        let mut command = cluster.command(at);
        command.arg("--config").arg(&config);
        cluster.replicas[at].process = Some(Process::start(&mut command, &cluster.log(at)));
    }
    wait_for("a refusal that names the disk", || {
        let args = ["task", "submit", "--type", "command", "--data", r#"{"argv":["true"]}"#, "--timeout", "2s"];
        let (code, _, errors) = cluster.gridctl(&args);
        (code != 0 && errors.contains("disk of this replica is almost full")).then_some(())
    });
    for at in 0..3 {
        cluster.kill_replica(at);
        cluster.start_replica(at);
    }
    cluster.leader();
    all_there(&cluster, &ids);
    submit(&cluster, 1);
}
