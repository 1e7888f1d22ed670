//! Reads of real processes: a follower answers linearizable reads itself and never with old rows; local reads say how old they are.

mod harness;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::{wait_for, Cluster};
use raftgrid_client::{Client, ClientConfig};
use raftgrid_proto::v1::{Consistency, GetTaskRequest, GetTaskResponse, SubmitTaskRequest};
use raftgrid_rpc::methods::GET_TASK;

const A_WHILE: Duration = Duration::from_secs(5);

fn client_of(cluster: &Cluster, at: usize) -> Client {
    Client::new(ClientConfig::new([cluster.replicas[at].client.clone()])).expect("endpoints are well-formed")
}

fn submit(client: &Client, name: &str) {
    let mut request = SubmitTaskRequest::new();
    request.set_task_id(name.to_owned());
    request.set_task_type("command".to_owned());
    request.set_task_data(br#"{"argv":["true"]}"#.to_vec());
    client.submit_task(request).expect("a majority runs");
}

/// One attempt at one replica.
fn get(cluster: &Cluster, client: &Client, at: usize, name: &str, how: Consistency) -> Result<GetTaskResponse, String> {
    let mut request = GetTaskRequest::new();
    request.set_task_id(name.to_owned());
    request.set_consistency(how);
    client.call_on(&cluster.replicas[at].client, &GET_TASK, &request, A_WHILE).map_err(|error| error.to_string())
}

#[test]
fn a_follower_answers_linearizable_reads_from_its_own_tables() {
    let cluster = Cluster::start(3, &[]);
    let writer = cluster.client();
    // On a busy machine another may come to lead, and a follower that is slow sends a read to the leader: neither is counted as served by it.
    for number in 0..300 {
        let follower = (cluster.leader() + 1) % 3;
        let reader = client_of(&cluster, follower);
        let name = format!("task-{number}");
        submit(&writer, &name);
        let read = wait_for("an answer of the follower", || {
            get(&cluster, &reader, follower, &name, Consistency::LINEARIZABLE).ok()
        });
        assert!(read.get_found(), "{name} was acknowledged and is not in a later read of a follower");
        assert_eq!(read.get_age_ms(), 0);
        let served = |at: usize| cluster.metrics(at).value("raftgrid_read_seconds_count{by=\"leader\"}");
        if (0..3).map(served).sum::<f64>() >= 30.0 {
            return;
        }
    }
    panic!("followers served no reads themselves");
}

/// Ends the threads also where an assertion fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whatever stops and goes on: a read that a replica answers as linearizable holds all that was acknowledged before it was asked for.
#[test]
fn no_replica_that_was_stopped_or_left_behind_serves_an_old_linearizable_read() {
    let cluster = Cluster::start(3, &[]);
    let writer = cluster.client();
    let acknowledged = AtomicU64::new(0);
    let (over, served) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 3]);
    submit(&writer, "task-0");
    std::thread::scope(|scope| {
        let end = End(&over);
        scope.spawn(|| {
            for number in 1.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                submit(&writer, &format!("task-{number}"));
                acknowledged.store(number, Ordering::SeqCst);
            }
        });
        let readers: Vec<_> = (0..3)
            .map(|at| {
                let (cluster, acknowledged, over, served) = (&cluster, &acknowledged, &over, &served[at]);
                scope.spawn(move || {
                    let client = client_of(cluster, at);
                    while !over.load(Ordering::SeqCst) {
                        let newest = acknowledged.load(Ordering::SeqCst);
                        let name = format!("task-{newest}");
                        if let Ok(read) = get(cluster, &client, at, &name, Consistency::LINEARIZABLE) {
                            assert!(read.get_found(), "replica {at} missed {name}, which was acknowledged before");
                            served.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            let leader = cluster.leader();
            // A follower falls behind; then the leader stands still until there is another, and goes on as if nothing had been.
            for at in [(leader + 1) % 3, leader] {
                let process = cluster.replicas[at].process.as_ref().expect("it runs");
                process.signal("STOP");
                let before = acknowledged.load(Ordering::SeqCst);
                wait_for("writes without it", || (acknowledged.load(Ordering::SeqCst) > before + 5).then_some(()));
                process.signal("CONT");
            }
        }
        // A reader that reads nothing proves nothing.
        wait_for("reads of each replica", || {
            served.iter().all(|count| count.load(Ordering::SeqCst) > 20).then_some(())
        });
        drop(end);
        readers.into_iter().for_each(|reader| reader.join().expect("no stale read"));
    });
}

#[test]
fn a_replica_without_a_majority_refuses_linearizable_reads_and_its_local_reads_grow_old() {
    let cluster = Cluster::start(3, &[]);
    submit(&cluster.client(), "task");
    let leader = cluster.leader();
    let (left, stopped) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.caught_up(left);
    let reader = client_of(&cluster, left);
    let young = get(&cluster, &reader, left, "task", Consistency::LOCAL).expect("local reads need nobody");
    assert!(young.get_found() && young.get_read_position() > 0);
    for at in [leader, stopped] {
        cluster.replicas[at].process.as_ref().expect("it runs").signal("STOP");
    }
    let mut last = 0;
    // Each look is later than the one before: the age grows with time, far beyond any heartbeat.
    while last < 2_000 {
        let old = get(&cluster, &reader, left, "task", Consistency::LOCAL).expect("local reads need nobody");
        assert!(old.get_found());
        assert!(old.get_age_ms() >= last, "it grew younger: {} after {last}", old.get_age_ms());
        last = old.get_age_ms();
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let refused = get(&cluster, &reader, left, "task", Consistency::LINEARIZABLE);
    assert!(refused.is_err(), "one of three answered for all");
    // It gives its leader up when its own clock says so, which may be a moment after this one's.
    wait_for("a replica that knows no leader", || {
        let not_ready = cluster.http(left, "/readyz");
        (not_ready.starts_with("HTTP/1.1 503 ") && not_ready.contains("no leader is known")).then_some(())
    });
    for at in [leader, stopped] {
        cluster.replicas[at].process.as_ref().expect("it runs").signal("CONT");
    }
    wait_for("a young local read", || {
        let read = get(&cluster, &reader, left, "task", Consistency::LOCAL).ok()?;
        (read.get_age_ms() < 1_000).then_some(())
    });
    wait_for("a linearizable read", || get(&cluster, &reader, left, "task", Consistency::LINEARIZABLE).ok());
    wait_for("readiness", || cluster.http(left, "/readyz").starts_with("HTTP/1.1 200 ").then_some(()));
}

#[test]
fn lease_reads_are_refused_unless_they_are_turned_on_and_then_need_no_question() {
    let cluster = Cluster::start(3, &[]);
    submit(&cluster.client(), "task");
    let leader = cluster.leader();
    let client = client_of(&cluster, leader);
    let refused = get(&cluster, &client, leader, "task", Consistency::LEASE).expect_err("leases are off");
    assert!(refused.contains("raft.lease_reads"), "{refused}");
    drop(cluster);

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("lease.toml");
    std::fs::write(&config, "[raft]\nlease_reads = true\n").unwrap();
    let cluster = Cluster::start(3, &["--config", config.to_str().unwrap()]);
    let writer = cluster.client();
    for number in 0..200 {
        let name = format!("task-{number}");
        submit(&writer, &name);
        for at in 0..3 {
            let client = client_of(&cluster, at);
            let read = wait_for("a lease read", || get(&cluster, &client, at, &name, Consistency::LEASE).ok());
            assert!(read.get_found(), "{name} was acknowledged and is not in a later lease read");
        }
        let by_lease: f64 = (0..3).map(|at| cluster.metrics(at).value("raftgrid_lease_reads_total")).sum();
        if by_lease >= 20.0 {
            return;
        }
    }
    panic!("no read was served by a lease");
}
