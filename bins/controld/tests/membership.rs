//! Real replicas that come and go: what they held stays, their ids do not come back, and leadership is handed over.

mod harness;

use std::io::Cursor;
use std::path::Path;

use harness::{wait_for, Cluster};
use raftgrid_client::Upload;

const ARTIFACTS: usize = 12;
const ARTIFACT_BYTES: usize = 300_000;

fn content(number: usize) -> Vec<u8> {
    (0..ARTIFACT_BYTES).map(|at| (at * 31 + number * 7) as u8).collect()
}

/// Uploads that begin at every replica in turn, so that each is a holder.
fn upload(cluster: &Cluster, running: &[usize]) -> Vec<String> {
    (0..ARTIFACTS)
        .map(|number| {
            let at = &cluster.replicas[running[number % running.len()]].client;
            let client = cluster.client();
            client.prefer(at);
            let bytes = content(number);
            let upload = Upload { name: String::new(), kind: "file".to_owned(), ..Upload::default() };
            let put = client.put_artifact(&upload, &mut Cursor::new(bytes), &mut |_, _| ()).expect("a majority runs");
            put.artifact_id
        })
        .collect()
}

fn all_readable(cluster: &Cluster, artifacts: &[String]) {
    for (number, artifact) in artifacts.iter().enumerate() {
        let mut bytes = Vec::new();
        let read = cluster.client().get_artifact(artifact, &mut bytes, &mut |_, _| ());
        read.unwrap_or_else(|error| panic!("artifact {artifact} cannot be read: {error}"));
        assert!(bytes == content(number), "artifact {artifact} is another");
    }
}

/// Removes all files below a folder.
fn remove_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder of fragments").flatten() {
        if entry.path().is_dir() {
            remove_files(&entry.path());
        } else {
            std::fs::remove_file(entry.path()).expect("removable");
        }
    }
}

/// Kills a replica and takes its disk away.
fn destroy(cluster: &mut Cluster, at: usize) {
    cluster.kill_replica(at);
    std::fs::remove_dir_all(cluster.data_dir(at)).expect("its directory can be removed");
}

fn joined(cluster: &mut Cluster) -> usize {
    let joiner = cluster.add_joiner();
    cluster.start_replica(joiner);
    joiner
}

#[test]
fn what_a_removed_replica_held_survives_the_next_loss_too() {
    let mut cluster = Cluster::start(3, &[]);
    let joiner = joined(&mut cluster);
    cluster.add_learner(joiner);
    cluster.voters_become(&[1, 2, 3, 4]);
    let artifacts = upload(&cluster, &[0, 1, 2, 3]);
    let leader = cluster.leader();
    let goes = (leader + 1) % 4;
    let node = cluster.replicas[goes].node.to_string();
    let (code, _, errors) = cluster.gridctl(&["cluster", "remove-server", &node]);
    assert_eq!(code, 0, "{errors}");
    destroy(&mut cluster, goes);
    all_readable(&cluster, &artifacts);
    // Three are left, which survive one loss: whatever the removed one held is on two of them.
    destroy(&mut cluster, (leader + 2) % 4);
    all_readable(&cluster, &artifacts);
    // Its id does not come back, and asking again is no error.
    let (code, _, errors) = cluster.gridctl(&["cluster", "remove-server", &node]);
    assert_eq!(code, 0, "{errors}");
    let addresses = ["--raft-address", "127.0.0.1:9", "--client-address", "127.0.0.1:10"];
    let (code, _, errors) = cluster.gridctl(&[&["cluster", "add-learner", &node], &addresses[..]].concat());
    assert!(code == 1 && errors.contains("never used again"), "{errors}");
}

#[test]
fn a_replica_whose_bytes_cannot_be_carried_away_stays_unless_it_is_forced() {
    let mut cluster = Cluster::start(3, &[]);
    let joiner = joined(&mut cluster);
    cluster.add_learner(joiner);
    cluster.voters_become(&[1, 2, 3, 4]);
    upload(&cluster, &[0, 1, 2, 3]);
    for at in 0..4 {
        remove_files(&cluster.data_dir(at).join("blobs"));
    }
    let goes = (cluster.leader() + 1) % 4;
    let node = cluster.replicas[goes].node.to_string();
    let (code, _, errors) = cluster.gridctl(&["cluster", "remove-server", &node]);
    assert!(code == 1 && errors.contains("--force-losing-data"), "{errors}");
    assert_eq!(cluster.members().len(), 4, "still a member");
    let (code, _, errors) = cluster.gridctl(&["cluster", "remove-server", &node, "--force-losing-data"]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(cluster.members().len(), 3);
}

#[test]
fn a_new_replica_takes_the_place_of_a_voter_with_all_that_it_held() {
    let mut cluster = Cluster::start(3, &[]);
    let artifacts = upload(&cluster, &[0, 1, 2]);
    let leader = cluster.leader();
    let old = (leader + 1) % 3;
    let new = joined(&mut cluster);
    let (old_node, new_node) = (cluster.replicas[old].node, cluster.replicas[new].node);
    let (raft, client) = (cluster.replicas[new].raft.clone(), cluster.replicas[new].client.clone());
    let (code, _, errors) = cluster.gridctl(&[
        "cluster",
        "replace-server",
        &old_node.to_string(),
        &new_node.to_string(),
        "--raft-address",
        &raft,
        "--client-address",
        &client,
    ]);
    assert_eq!(code, 0, "{errors}");
    let mut left: Vec<u64> = vec![1, 2, 3, new_node];
    left.retain(|node| *node != old_node);
    cluster.voters_become(&left);
    destroy(&mut cluster, old);
    destroy(&mut cluster, (leader + 2) % 3);
    all_readable(&cluster, &artifacts);
}

#[test]
fn a_newcomer_that_was_told_of_the_founders_only_answers_a_leader_that_is_none() {
    let mut cluster = Cluster::start(3, &[]);
    let fourth = joined(&mut cluster);
    cluster.add_learner(fourth);
    cluster.voters_become(&[1, 2, 3, 4]);
    let to = cluster.replicas[fourth].node.to_string();
    wait_for("the fourth to lead", || {
        // It may not be caught up at once.
        cluster.gridctl(&["cluster", "leadership-transfer", &to]);
        (cluster.leader() == fourth).then_some(())
    });
    let fifth = joined(&mut cluster);
    cluster.add_learner(fifth);
    cluster.voters_become(&[1, 2, 3, 4, 5]);
}

#[test]
fn a_leader_that_is_asked_to_end_hands_leadership_over_first() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let process = cluster.replicas[leader].process.as_mut().expect("it runs");
    process.signal("TERM");
    wait_for("its end", || process.exited());
    cluster.replicas[leader].process = None;
    let log = std::fs::read_to_string(cluster.log(leader)).expect("its log");
    assert!(log.contains("leadership handed over"), "{log}");
    let next = cluster.leader();
    assert_ne!(next, leader);
}

#[test]
fn cluster_time_moves_forward_when_it_is_told_to_and_never_back() {
    let cluster = Cluster::start(3, &[]);
    cluster.leader();
    let far = 4_000_000_000_000_u64.to_string();
    let (code, out, errors) = cluster.gridctl(&["cluster", "set-time", "--unix-ms", &far, "--output", "json"]);
    assert!(code == 0 && out.contains(&far), "{out}{errors}");
    let (code, _, errors) = cluster.gridctl(&["cluster", "set-time"]);
    assert!(code == 1 && errors.contains("never goes back"), "{errors}");
}
