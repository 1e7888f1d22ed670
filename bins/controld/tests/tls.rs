//! Mutual TLS with real replicas: a group that has certificates works, whoever has none, or not the right one, does not get in and is
//! counted, and certificates are exchanged without a restart.

mod harness;

use std::path::Path;

use harness::certs::{cluster_id, connect, files, flags, hello, knock, make, pair, prepare, Shown, CLUSTER};
use harness::{checkout, wait_for, Cluster};
use raftgrid_proto::v1::{ListTasksRequest, SubmitTaskRequest};
use raftgrid_rpc::grpcio::{CallOption, Client, RpcStatusCode};
use raftgrid_rpc::methods::LIST_TASKS;
use raftgrid_rpc::tls::{node_name, LOOK_EVERY};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

const HANDSHAKES: &str = "raftgrid_peer_handshakes_failed_total";
const STREAMS: &str = "raftgrid_peer_streams_refused_total";

fn start(cluster: &mut Cluster) {
    for at in 0..cluster.replicas.len() {
        cluster.start_replica(at);
    }
    cluster.leader();
}

fn submit(cluster: &Cluster) {
    let mut request = SubmitTaskRequest::new();
    request.set_task_type("command".to_owned());
    request.set_task_data(br#"{"argv":["true"]}"#.to_vec());
    cluster.client().submit_task(request).expect("a majority runs");
}

/// It takes a write, and every running replica has it.
fn goes_on(cluster: &Cluster) {
    submit(cluster);
    for at in (0..cluster.replicas.len()).filter(|at| cluster.replicas[*at].process.is_some()) {
        cluster.caught_up(at);
    }
}

#[test]
fn three_replicas_with_certificates_elect_replicate_train_and_survive_their_leader() {
    let (mut cluster, dir) = prepare(3);
    start(&mut cluster);
    cluster.start_worker("worker-1");
    let script = checkout().join("bins/controld/tests/scripts/line.py").display().to_string();
    let more = ["--name", "line", "--shards", "2", "--workers", "1", "--rounds", "3"];
    let (code, _, errors) = cluster.gridctl(&[&["train", &script], &more[..]].concat());
    assert_eq!(code, 0, "{errors}");
    let (code, _, errors) = cluster.gridctl(&["job", "wait", "line", "--timeout", "120s"]);
    assert_eq!(code, 0, "{errors}");
    goes_on(&cluster);

    // A connection of another member's certificate would be as good: what agents call is not there at all.
    let env = raftgrid_rpc::environment("test");
    let channel = connect(&env, &cluster, 0, &dir.join("ca.pem"), pair(&files(&dir, 2)));
    let option = CallOption::default().timeout(harness::PATIENCE);
    let listed = Client::new(channel).unary_call(&LIST_TASKS.method, &ListTasksRequest::new(), option);
    match listed {
        Err(raftgrid_rpc::grpcio::Error::RpcFailure(status)) => assert_eq!(status.code(), RpcStatusCode::UNIMPLEMENTED),
        other => panic!("{other:?}"),
    }
    let seen = cluster.metrics(0);
    let left = seen.value("raftgrid_peer_certificate_left_seconds");
    assert!(left > 360.0 * 86_400.0 && left <= 365.0 * 86_400.0, "{left}");

    let leader = cluster.leader();
    cluster.kill_replica(leader);
    goes_on(&cluster);
    cluster.start_replica(leader);
    cluster.caught_up(leader);
}

/// A certificate of the cluster's own authority that has ended.
fn expired(dir: &Path, node: u64) -> Shown {
    let key = std::fs::read_to_string(dir.join("ca-key.pem")).expect("gridctl made it");
    let mut authority = CertificateParams::new(Vec::<String>::new()).expect("no names");
    authority.distinguished_name = rcgen::DistinguishedName::new();
    authority.distinguished_name.push(DnType::CommonName, format!("raftgrid replicas of {CLUSTER}"));
    let issuer = Issuer::new(authority, KeyPair::from_pem(&key).expect("a key"));
    let key = KeyPair::generate().expect("random numbers");
    let mut params = CertificateParams::new(vec![node_name(CLUSTER, node)]).expect("a name");
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::days(9), now - Duration::hours(2));
    Shown::Pair(params.signed_by(&key, &issuer).expect("it signs").pem(), key.serialize_pem())
}

#[test]
fn whoever_has_no_certificate_or_not_the_right_one_is_refused_and_counted_and_the_group_goes_on() {
    let (mut cluster, dir) = prepare(3);
    start(&mut cluster);
    let foreign = cluster.dir.path().join("foreign");
    make(&foreign, "1,2,3");
    let env = raftgrid_rpc::environment("test");
    let id = cluster_id(&cluster);
    let ca = dir.join("ca.pem");
    let ask = |shown: Shown, from: u64| knock(connect(&env, &cluster, 0, &ca, shown), hello(&id, from, 1, 9));
    for (who, shown) in [
        ("plain", Shown::Plain),
        ("without a certificate", Shown::Nothing),
        ("of another authority", pair(&files(&foreign, 2))),
        ("expired", expired(&dir, 2)),
    ] {
        let before = cluster.metrics(0).value(HANDSHAKES);
        let refused = ask(shown, 2).expect_err(who);
        assert_eq!(refused.code(), RpcStatusCode::UNAVAILABLE, "{who}: {}", refused.message());
        wait_for(who, || (cluster.metrics(0).value(HANDSHAKES) > before).then_some(()));
    }
    let before = cluster.metrics(0).value(STREAMS);
    let refused = ask(pair(&files(&dir, 3)), 2).expect_err("another member's");
    assert_eq!(refused.code(), RpcStatusCode::FAILED_PRECONDITION, "{}", refused.message());
    assert!(refused.message().contains("node 2 speaks with the certificate of \"node-3.test\""), "{refused:?}");
    assert_eq!(cluster.metrics(0).value(STREAMS), before + 1.0);
    goes_on(&cluster);

    let log = std::fs::read_to_string(cluster.log(0)).expect("it logs");
    for words in [
        "the other end has no certificate",
        "one end speaks TLS, the other does not",
        "has expired, or is of an authority",
    ] {
        assert!(log.contains(words), "`{words}` is not in\n{log}");
    }
}

/// Puts the files of `from` in the place of those that the replicas have, believing `authorities`.
fn exchange(dir: &Path, from: &Path, authorities: &str) {
    for node in 1..=3 {
        let (old, new) = (files(dir, node), files(from, node));
        for (to, from) in [(&old.certificate, &new.certificate), (&old.key, &new.key)] {
            std::fs::copy(from, to).expect("writable");
        }
    }
    std::fs::write(dir.join("ca.pem"), authorities).expect("writable");
}

/// Past the next look at the files, whoever connects then. No verdict depends on how far.
fn look() {
    let start = std::time::Instant::now();
    while start.elapsed() <= LOOK_EVERY {
        std::thread::park_timeout(LOOK_EVERY);
    }
}

#[test]
fn the_authority_and_all_certificates_are_exchanged_without_a_restart() {
    let (mut cluster, dir) = prepare(3);
    start(&mut cluster);
    let (first, second) = (cluster.dir.path().join("first"), cluster.dir.path().join("second"));
    std::fs::create_dir(&first).expect("writable");
    for node in 1..=3 {
        let (from, to) = (files(&dir, node), files(&first, node));
        std::fs::copy(&from.certificate, &to.certificate).expect("writable");
        std::fs::copy(&from.key, &to.key).expect("writable");
    }
    make(&second, "1,2,3");
    let ca = |dir: &Path| std::fs::read_to_string(dir.join("ca.pem")).expect("gridctl made it");
    let (old, new) = (ca(&dir), ca(&second));
    let both = format!("{old}{new}");
    exchange(&dir, &first, &both);
    look();
    goes_on(&cluster);
    exchange(&dir, &second, &both);
    look();
    goes_on(&cluster);
    exchange(&dir, &second, &new);
    look();
    goes_on(&cluster);

    // One that starts now believes the new authority only. It reaches the two that were never restarted, and they reach it.
    cluster.kill_replica(0);
    submit(&cluster);
    cluster.start_replica(0);
    cluster.caught_up(0);
    // And they do not take the old one any more.
    let env = raftgrid_rpc::environment("test");
    let id = cluster_id(&cluster);
    for at in [1, 2] {
        let node = cluster.replicas[at].node;
        let knock = |of: &Path| {
            let other = if node == 2 { 3 } else { 2 };
            let channel = connect(&env, &cluster, at, &dir.join("ca.pem"), pair(&files(of, other)));
            knock(channel, hello(&id, 9, node, 9)).expect_err("9 is nobody").code()
        };
        assert_eq!(knock(&first), RpcStatusCode::UNAVAILABLE, "of the old authority");
        assert_eq!(knock(&second), RpcStatusCode::FAILED_PRECONDITION, "of the new one, but not node 9's");
    }
    for at in 0..3 {
        let log = std::fs::read_to_string(cluster.log(at)).expect("it logs");
        assert!(at == 0 || log.contains("certificate replaced"), "{log}");
        assert!(!log.contains("certificate not replaced"), "{log}");
    }
}

#[test]
fn a_plain_replica_among_those_with_certificates_is_told_apart_in_the_logs_of_both() {
    let (mut cluster, dir) = prepare(3);
    cluster.replicas[2].extra.clear();
    start(&mut cluster);
    submit(&cluster);
    let told = |at: usize, words: &str| {
        wait_for(&format!("`{words}` in the log of replica {at}"), || {
            let log = std::fs::read_to_string(cluster.log(at)).expect("it logs");
            log.lines().any(|line| line.contains(words)).then_some(())
        });
    };
    for at in 0..2 {
        told(at, "connection refused at the handshake, reason: one end speaks TLS, the other does not");
    }
    // It is the leader that calls the others; a follower may have nothing to say to the plain one.
    let leader = cluster.leader();
    told(leader, "peer is not reachable, reason: one end speaks TLS, the other does not");
    told(2, "peer is not reachable, reason: the other end closes new connections; has one of the two tls.peer_cert");
    // With its certificate it is one of them.
    cluster.kill_replica(2);
    cluster.replicas[2].extra = flags(&files(&dir, 3));
    cluster.start_replica(2);
    cluster.caught_up(2);
}
