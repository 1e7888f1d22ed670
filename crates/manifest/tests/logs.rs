//! Logs of attempts as artifacts: a task keeps the one of the attempt that reported last.

mod common;

use common::*;
use raftgrid_manifest::views;
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

fn world(version: u64) -> World {
    let mut world = World::with_nodes();
    world.ok(Kind::set_machine_version(SetMachineVersion { version, ..SetMachineVersion::default() }));
    world
}

fn log(world: &mut World, kind: &str, text: &str) -> String {
    let artifact_id = world.begin("", kind, text);
    let receipts = receipts(text);
    world.ok(Kind::commit_artifact(CommitArtifact { artifact_id, receipts, ..CommitArtifact::default() }));
    artifact_id.to_string()
}

fn state(world: &World, id: &str) -> ArtifactState {
    views::find_artifact(&world.rows, id).expect("memory").map_or(ArtifactState::ARTIFACT_DELETING, |row| row.state)
}

#[test]
fn the_log_of_an_older_attempt_goes_when_the_next_one_reports() {
    let mut world = world(3);
    let first = log(&mut world, "log", "first");
    let epoch = world.running("t", |_| ());
    world.ok(report("t", epoch, TaskStatus::FAILED, |report| report.log_artifact = first.clone()));
    assert_eq!(world.task("t").log_artifact, first);
    assert_eq!(state(&world, &first), ArtifactState::ARTIFACT_COMMITTED);
    world.now_ms += 3_600_000;
    let second = log(&mut world, "log", "second");
    let epoch = world.assign("t", "node-a");
    world.ok(report("t", epoch, TaskStatus::COMPLETED, |report| report.log_artifact = second.clone()));
    assert_eq!(world.task("t").log_artifact, second);
    assert_eq!(
        (state(&world, &first), state(&world, &second)),
        (ArtifactState::ARTIFACT_DELETING, ArtifactState::ARTIFACT_COMMITTED)
    );
}

#[test]
fn a_worker_cannot_delete_what_is_no_log_by_naming_it() {
    let mut world = world(3);
    let bundle = log(&mut world, "bundle", "code");
    let epoch = world.running("t", |_| ());
    world.ok(report("t", epoch, TaskStatus::FAILED, |report| report.log_artifact = bundle.clone()));
    world.now_ms += 3_600_000;
    let epoch = world.assign("t", "node-a");
    world.ok(report("t", epoch, TaskStatus::COMPLETED, |_| ()));
    assert_eq!(state(&world, &bundle), ArtifactState::ARTIFACT_COMMITTED);
}

#[test]
fn a_cluster_of_an_older_version_keeps_no_log_and_no_problem() {
    for (version, log_artifact, problem) in [(2, "", ""), (3, "7", "the disk is full")] {
        let mut world = world(version);
        let epoch = world.running("t", |_| ());
        world.ok(report("t", epoch, TaskStatus::COMPLETED, |report| report.log_artifact = "7".to_owned()));
        assert_eq!(world.task("t").log_artifact, log_artifact);
        let incarnation = world.node("node-a").incarnation;
        let mut change = NodeStatusChange { node_id: "node-a".into(), incarnation, ..NodeStatusChange::default() };
        change.status = NodeStatus::UNHEALTHY;
        change.problem = "the disk is full".into();
        world.ok(Kind::node_status_change(change.clone()));
        assert_eq!(world.node("node-a").problem, problem);
        change.status = NodeStatus::HEALTHY;
        world.ok(Kind::node_status_change(change));
        assert_eq!(world.node("node-a").problem, "");
    }
}
