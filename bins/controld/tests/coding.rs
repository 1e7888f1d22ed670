//! Coded artifacts on real disks: what they cost, what they survive, and how they come back.

mod harness;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;

use futures::executor::block_on;
use futures::TryStreamExt;
use harness::{wait_for, Cluster};
use raftgrid_client::Upload;
use raftgrid_proto::v1::GetArtifactRequest;
use raftgrid_rpc::grpcio::{CallOption, Client as Stub, Error, RpcStatusCode};
use raftgrid_rpc::methods::GET_ARTIFACT;

const ARTIFACT_BYTES: usize = 5 * 1024 * 1024 + 333;

fn content() -> Vec<u8> {
    (0..ARTIFACT_BYTES).map(|at| (at * 31 + at / 70_001) as u8).collect()
}

/// A cluster whose state is at the newest version.
fn started(count: u64) -> Cluster {
    let cluster = Cluster::start(count, &[]);
    wait_for("the newest machine version", || {
        let states: Vec<_> = (0..count as usize).filter_map(|at| cluster.state(at)).collect();
        let all = states.len() == count as usize && states.iter().all(|state| state.machine_version >= 5);
        all.then_some(())
    });
    cluster
}

/// Uploads the artifact through one replica.
fn push(cluster: &Cluster, at: usize) -> String {
    let client = cluster.client();
    client.prefer(&cluster.replicas[at].client);
    let upload = Upload { name: String::new(), kind: "file".to_owned() };
    let put = client.put_artifact(&upload, &mut Cursor::new(content()), &mut |_, _| ());
    put.expect("a majority runs").artifact_id
}

/// The same, once each of so many replicas took a fragment. While one of them does not answer, copies on the others are what is right.
fn push_coded(cluster: &Cluster, at: usize, replicas: usize) -> String {
    let all: Vec<usize> = (0..replicas).collect();
    wait_for("an upload in which all replicas took part", || {
        Some(push(cluster, at)).filter(|artifact| spread_over(cluster, artifact, &all))
    })
}

/// Reads it from one replica, and nobody else. A client would go on to the leader when this one cannot give it yet.
fn read_from(cluster: &Cluster, at: usize, artifact: &str) {
    let (node, stub) = (cluster.replicas[at].node, cluster.stub(at));
    let bytes = wait_for("an answer of the replica", || match streamed(&stub, artifact) {
        Ok(bytes) => Some(bytes),
        Err(Error::RpcFailure(status)) if status.code() == RpcStatusCode::UNAVAILABLE => None,
        Err(error) => panic!("replica {node} cannot give it: {error}"),
    });
    assert!(bytes == content(), "replica {node} gives other bytes");
}

fn streamed(stub: &Stub, artifact: &str) -> Result<Vec<u8>, Error> {
    let mut request = GetArtifactRequest::new();
    request.set_artifact(artifact.to_owned());
    let option = CallOption::default().timeout(harness::PATIENCE);
    let mut stream = stub.server_streaming(&GET_ARTIFACT.method, &request, option)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = block_on(stream.try_next())? {
        bytes.extend_from_slice(chunk.get_data());
    }
    Ok(bytes)
}

fn read_from_all_that_run(cluster: &Cluster, artifact: &str) {
    for at in 0..cluster.replicas.len() {
        if cluster.replicas[at].process.is_some() {
            // What was committed a moment ago is not applied everywhere yet.
            cluster.caught_up(at);
            read_from(cluster, at, artifact);
        }
    }
}

/// The fragments of the artifact on one disk: number → file.
fn fragments(cluster: &Cluster, at: usize, artifact: &str) -> BTreeMap<u32, PathBuf> {
    let folder = cluster.data_dir(at).join("blobs").join(artifact);
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeMap::new() };
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    entries.flatten().filter_map(|entry| Some((number(&entry.path())?, entry.path()))).collect()
}

/// Bytes of all fragments on all disks.
fn bytes_on_disks(cluster: &Cluster, artifact: &str) -> u64 {
    let files = (0..cluster.replicas.len()).flat_map(|at| fragments(cluster, at, artifact).into_values());
    files.map(|path| std::fs::metadata(path).expect("it is there").len()).sum()
}

/// (k + m) / k of the artifact and no hundredth more: the checksums.
fn costs(cluster: &Cluster, artifact: &str, k: u64, m: u64) {
    let bytes = bytes_on_disks(cluster, artifact);
    let coded = ARTIFACT_BYTES as u64 * (k + m) / k;
    assert!((coded..coded + coded / 100).contains(&bytes), "{bytes} on the disks, {coded} is {k}+{m}");
    assert!(bytes < ARTIFACT_BYTES as u64 * (m + 1), "less than copies");
}

/// Each of these replicas holds another fragment, and all of them one each.
fn spread_over(cluster: &Cluster, artifact: &str, replicas: &[usize]) -> bool {
    let held: Vec<Vec<u32>> = replicas
        .iter()
        .map(|at| fragments(cluster, *at, artifact).into_keys().map(|number| number & 255).collect())
        .collect();
    let mut numbers: Vec<u32> = held.iter().flatten().copied().collect();
    numbers.sort_unstable();
    held.iter().all(|held| held.len() == 1) && numbers.into_iter().eq(0..replicas.len() as u32)
}

/// A new replica takes the place of one that is lost.
fn replaced(cluster: &mut Cluster, old: usize) -> usize {
    let new = cluster.add_joiner();
    cluster.start_replica(new);
    let (old_node, new_node) = (cluster.replicas[old].node.to_string(), cluster.replicas[new].node.to_string());
    let (raft, client) = (cluster.replicas[new].raft.clone(), cluster.replicas[new].client.clone());
    let place = ["--raft-address", &raft, "--client-address", &client];
    let (code, _, errors) =
        cluster.gridctl(&[&["cluster", "replace-server", &old_node, &new_node], &place[..]].concat());
    assert_eq!(code, 0, "{errors}");
    new
}

/// F of the replicas are lost, all of it is read from each that is left, others take their places, and F more may be lost.
fn survives_failures_again_and_again(voters: usize, failures: usize) {
    let mut cluster = started(voters as u64);
    let leader = cluster.leader();
    let artifact = push_coded(&cluster, (leader + 1) % voters, voters);
    costs(&cluster, &artifact, (voters - failures) as u64, failures as u64);
    assert!(spread_over(&cluster, &artifact, &(0..voters).collect::<Vec<_>>()));
    // The first of them took the upload, and may have all of it beside its fragment.
    let lost: Vec<usize> = (1..=failures).map(|step| (leader + step) % voters).collect();
    for at in &lost {
        cluster.kill_replica(*at);
    }
    read_from_all_that_run(&cluster, &artifact);
    // What nobody waits for is plain again where too few are left, and readable as well.
    let beside = push(&cluster, leader);
    read_from_all_that_run(&cluster, &beside);
    let mut voting: Vec<usize> = (0..voters).filter(|at| !lost.contains(at)).collect();
    for at in &lost {
        std::fs::remove_dir_all(cluster.data_dir(*at)).expect("its directory can be removed");
        voting.push(replaced(&mut cluster, *at));
    }
    wait_for("its redundancy", || spread_over(&cluster, &artifact, &voting).then_some(()));
    costs(&cluster, &artifact, (voters - failures) as u64, failures as u64);
    let stay = cluster.leader();
    let next: Vec<usize> = voting.iter().copied().filter(|at| *at != stay && *at < voters).take(failures).collect();
    assert_eq!(next.len(), failures, "of those that were there from the start");
    for at in next {
        cluster.kill_replica(at);
    }
    read_from_all_that_run(&cluster, &artifact);
    read_from_all_that_run(&cluster, &beside);
}

#[test]
fn three_replicas_survive_the_loss_of_one_again_and_again_at_one_and_a_half_times_the_bytes() {
    survives_failures_again_and_again(3, 1);
}

#[test]
fn five_replicas_survive_the_loss_of_two_again_and_again_at_five_thirds_of_the_bytes() {
    survives_failures_again_and_again(5, 2);
}

#[test]
fn a_fragment_that_has_changed_or_is_gone_is_not_given_out_and_comes_back() {
    let mut cluster = started(3);
    let at = (cluster.leader() + 1) % 3;
    let artifact = push_coded(&cluster, (at + 1) % 3, 3);
    let (_, file) = fragments(&cluster, at, &artifact).pop_first().expect("it holds one");
    let whole = std::fs::read(&file).expect("readable");
    let restored = |what: &str| wait_for(what, || (std::fs::read(&file).ok()? == whole).then_some(()));
    for flipped in [1_000, whole.len() / 2, whole.len() - 3] {
        cluster.kill_replica(at);
        let mut bytes = whole.clone();
        bytes[flipped] ^= 0x20;
        std::fs::write(&file, bytes).expect("writable");
        cluster.start_replica(at);
        read_from(&cluster, at, &artifact);
        restored("the fragment as it was");
    }
    // Nobody reads it; it is missed all the same.
    cluster.kill_replica(at);
    std::fs::remove_dir_all(file.parent().expect("its folder")).expect("removable");
    cluster.start_replica(at);
    restored("the fragment that was lost");
}

#[test]
fn more_voters_make_a_code_that_survives_more_and_fewer_one_that_fits_them() {
    let mut cluster = started(3);
    let artifact = push_coded(&cluster, 0, 3);
    costs(&cluster, &artifact, 2, 1);
    for _ in 0..2 {
        let joiner = cluster.add_joiner();
        cluster.start_replica(joiner);
        cluster.add_learner(joiner);
        let all: Vec<u64> = cluster.replicas.iter().map(|it| it.node).collect();
        cluster.voters_become(&all);
    }
    wait_for("the code of five", || spread_over(&cluster, &artifact, &[0, 1, 2, 3, 4]).then_some(()));
    costs(&cluster, &artifact, 3, 2);
    read_from_all_that_run(&cluster, &artifact);
    let leader = cluster.leader();
    let (one, other) = ((leader + 1) % 5, (leader + 2) % 5);
    for at in [one, other] {
        cluster.kill_replica(at);
    }
    read_from_all_that_run(&cluster, &artifact);
    for at in [one, other] {
        let node = cluster.replicas[at].node.to_string();
        // With all three needed for a majority, leadership may be lost for a moment; asking again takes up what was begun.
        wait_for("the removal", || (cluster.gridctl(&["cluster", "remove-server", &node]).0 == 0).then_some(()));
        std::fs::remove_dir_all(cluster.data_dir(at)).expect("its directory can be removed");
    }
    let left: Vec<usize> = (0..5).filter(|at| ![one, other].contains(at)).collect();
    wait_for("the code of three", || spread_over(&cluster, &artifact, &left).then_some(()));
    costs(&cluster, &artifact, 2, 1);
    let at = left.iter().copied().find(|at| *at != cluster.leader()).expect("two follow");
    cluster.kill_replica(at);
    read_from_all_that_run(&cluster, &artifact);
}

#[test]
fn what_an_older_version_stored_are_copies_and_stays_readable_after_the_upgrade() {
    let settings = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(settings.path(), "[raft]\nmachine_version_max = 4\n").expect("writable");
    let mut cluster = Cluster::start(3, &["--config", &settings.path().display().to_string()]);
    wait_for("version 4", || cluster.state(cluster.leader()).filter(|state| state.machine_version == 4).map(drop));
    let artifact = push(&cluster, 0);
    let copies = |cluster: &Cluster| (0..3).filter(|at| fragments(cluster, *at, &artifact).len() == 1).count();
    assert_eq!((copies(&cluster), bytes_on_disks(&cluster, &artifact) > 2 * ARTIFACT_BYTES as u64), (2, true));
    for at in 0..3 {
        cluster.kill_replica(at);
        cluster.replicas[at].extra.clear();
        cluster.start_replica(at);
        cluster.caught_up(at);
    }
    wait_for("version 5", || cluster.state(cluster.leader()).filter(|state| state.machine_version >= 5).map(drop));
    read_from_all_that_run(&cluster, &artifact);
    let coded = push_coded(&cluster, 0, 3);
    costs(&cluster, &coded, 2, 1);
    read_from_all_that_run(&cluster, &coded);
}

#[test]
fn an_artifact_is_verified_on_each_replica_written_where_asked_and_deleted_by_its_name() {
    let cluster = started(3);
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::write(&source, content()).expect("room for it");
    let path = |path: &PathBuf| path.display().to_string();
    let run = |args: &[&str]| cluster.gridctl(args);
    let (code, _, errors) = run(&["artifact", "push", &path(&source), "--name", "data/set"]);
    assert_eq!(code, 0, "{errors}");
    let (code, out, errors) = run(&["artifact", "verify", "data/set"]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(out.matches("SHA-256").count(), 3, "once for each replica: {out}");
    let (code, _, errors) = run(&["artifact", "get", "data/set", "-o", &path(&target)]);
    assert_eq!(code, 0, "{errors}");
    assert!(std::fs::read(&target).expect("it is there") == content());
    let (code, _, errors) = run(&["artifact", "get", "data/set"]);
    assert_eq!(code, 2, "{errors}");

    let (_, out, _) = run(&["artifact", "ls", "--output", "json"]);
    let all: serde_json::Value = serde_json::from_str(&out).expect("a list is JSON");
    let id = all[0]["artifact"].as_str().expect("the only one").to_owned();
    assert!(bytes_on_disks(&cluster, &id) > 0, "{all}");
    assert_eq!(run(&["artifact", "rm", "data/set"]).0, 0);
    let (code, _, errors) = run(&["artifact", "verify", "data/set"]);
    assert_eq!(code, 1, "{errors}");
    assert_eq!(run(&["artifact", "rm", "data/set"]).0, 1, "it is gone");
    wait_for("empty disks", || (bytes_on_disks(&cluster, &id) == 0).then_some(()));
    let (code, _, errors) = run(&["artifact", "push", &path(&source), "--name", "data/set"]);
    assert_eq!(code, 0, "the name is free: {errors}");
}
