//! Cancels, timeouts, jobs that are over, artifacts that may go, lost proposals.

use raftgrid_control::{Action, Config, Input};
use raftgrid_manifest::Table;
use raftgrid_proto::v1::{
    ArtifactRow, ArtifactState, CancelTask, Command_oneof_kind as Kind, DeleteArtifact, JobPhase, MetaRow, Phase,
    TaskRow, TaskStatus,
};

use crate::world::*;

fn cancels(actions: &[Action]) -> Vec<CancelTask> {
    let cancel = |kind| match kind {
        Kind::cancel_task(cancel) => Some(cancel),
        _ => None,
    };
    commands(actions).into_iter().filter_map(cancel).collect()
}

fn deletions(actions: &[Action]) -> Vec<DeleteArtifact> {
    let delete = |kind| match kind {
        Kind::delete_artifact(delete) => Some(delete),
        _ => None,
    };
    commands(actions).into_iter().filter_map(delete).collect()
}

/// Cluster time in the world now.
fn cluster(world: &World) -> u64 {
    CLUSTER_MS + (world.now - START)
}

/// Steps at `now` with a beat that renews the lease of task-1 on node-0.
fn renewed(world: &mut World, now: u64) -> Vec<Action> {
    world.now = now;
    let (ticket, mut inputs) = world.beat_input(beat_holding("node-0", &[("task-1", 1_000)]));
    inputs.push(Input::QuorumConfirmed { ticket });
    world.step(inputs)
}

#[test]
fn a_task_that_stops_beyond_its_grace_is_confirmed_by_the_leader() {
    let mut world = World::settled();
    world.live_node("node-0");
    let mut row = running(1, "node-0", 1_000);
    row.mut_task().phase = Phase::PHASE_STOPPING;
    row.stop_requested_ms = cluster(&world);
    world.task(row);
    let (begun, grace) = (world.now, Config::local().cancel_grace_ms);
    for at in (begun..begun + grace).step_by(250) {
        assert_eq!(cancels(&renewed(&mut world, at)), vec![]);
    }
    let [cancel] = &cancels(&renewed(&mut world, begun + grace))[..] else { panic!("one cancel") };
    assert!(cancel.confirmed && cancel.task_id == "task-1" && cancel.reason.is_empty(), "{cancel:?}");
}

fn with_times(row: TaskRow, change: impl FnOnce(&mut raftgrid_proto::v1::TaskSpec)) -> TaskRow {
    let mut row = row;
    change(row.mut_task().mut_spec());
    row
}

#[test]
fn tasks_end_by_deadline_queue_ttl_run_timeout_and_start_timeout() {
    let mut world = World::settled();
    let at = cluster(&world);
    world.task(with_times(pending(1), |spec| spec.deadline_unix_ms = at + 1_000));
    let mut queued = with_times(pending(2), |spec| spec.queue_ttl_ms = 1_000);
    queued.submitted_at_ms = at;
    world.task(queued);
    let mut ran = with_times(running(3, "node-0", 1_000), |spec| spec.run_timeout_ms = 1_000);
    ran.mut_task().started_at = (at / 1_000) as i64;
    world.task(ran);
    let mut starting = with_times(running(4, "node-0", 1_001), |spec| spec.start_timeout_ms = 1_000);
    starting.mut_task().status = TaskStatus::ASSIGNED;
    starting.mut_task().phase = Phase::PHASE_LEASED;
    world.task(starting);
    assert_eq!(decisions(&world.step(vec![])), vec![]);
    world.now += 1_000;
    let actions = world.step(vec![]);
    let ended: Vec<_> =
        cancels(&actions).into_iter().map(|cancel| (cancel.task_id, cancel.reason, cancel.confirmed)).collect();
    let expected = [
        ("task-1", "deadline passed", true),
        ("task-2", "queue_ttl passed", true),
        ("task-3", "run_timeout passed", false),
    ];
    assert_eq!(ended, expected.map(|(task, why, confirmed)| (task.to_owned(), why.to_owned(), confirmed)));
    assert_eq!(expired(&actions), vec![("task-4".to_owned(), 1_001)]);
}

#[test]
fn trainers_of_a_job_that_is_done_may_finish_until_the_grace_is_over() {
    let mut world = World::settled();
    world.trainers(1, 1);
    let mut job = train_job(0.0);
    job.mut_job().phase = JobPhase::JOB_DONE;
    job.mut_job().finished_at_ms = cluster(&world) as i64;
    job.open_tasks = 1;
    world.job(&job);
    let (begun, grace) = (world.now, 4 * Config::local().lease_ttl_ms);
    let task = trainer_id(0);
    for at in (begun..=begun + grace).step_by(250) {
        world.now = at;
        let (ticket, mut inputs) = world.beat_input(beat_holding("node-0", &[(&task, 1_001)]));
        inputs.push(Input::QuorumConfirmed { ticket });
        let ended = cancels(&world.step(inputs));
        assert_eq!(ended.len(), usize::from(at == begun + grace), "after {} ms", at - begun);
    }
}

#[test]
fn tasks_left_by_a_job_that_failed_are_cancelled_at_once() {
    for phase in [JobPhase::JOB_FAILED, JobPhase::JOB_CANCELLED, JobPhase::JOB_REJECTED] {
        let mut world = World::settled();
        world.trainers(2, 2);
        let mut job = train_job(0.0);
        job.mut_job().phase = phase;
        job.open_tasks = 2;
        world.job(&job);
        let ended = cancels(&world.step(vec![]));
        assert_eq!(
            ended.iter().map(|cancel| cancel.task_id.clone()).collect::<Vec<_>>(),
            [trainer_id(0), trainer_id(1)]
        );
    }
}

#[test]
fn a_train_job_without_tasks_fails() {
    let mut world = World::settled();
    let mut job = train_job(0.0);
    job.open_tasks = 0;
    world.job(&job);
    let kinds = decisions(&world.step(vec![]));
    assert!(matches!(&kinds[..], [Kind::fail_job(fail)] if fail.phase == JobPhase::JOB_FAILED), "{kinds:?}");
}

fn artifact(world: &mut World, id: u64, state: ArtifactState, expires_ms: u64) {
    let row = ArtifactRow { artifact_id: id, state, expires_ms, kind: "gradient".into(), ..ArtifactRow::default() };
    world.put(Table::Artifact, id.to_be_bytes().to_vec(), &row);
}

#[test]
fn an_upload_that_was_not_committed_is_deleted_when_it_expires() {
    let mut world = World::settled();
    let expires = cluster(&world) + 1_000;
    artifact(&mut world, 1, ArtifactState::ARTIFACT_BEGUN, expires);
    artifact(&mut world, 2, ArtifactState::ARTIFACT_COMMITTED, expires);
    artifact(&mut world, 3, ArtifactState::ARTIFACT_BEGUN, expires);
    artifact(&mut world, 4, ArtifactState::ARTIFACT_BEGUN, 0);
    let begun = world.now;
    assert_eq!(deletions(&world.at(begun + 999)), vec![]);
    artifact(&mut world, 3, ArtifactState::ARTIFACT_COMMITTED, expires);
    let gone = deletions(&world.at(begun + 1_000));
    assert_eq!(gone.iter().map(|delete| (delete.artifact_id, delete.confirmed)).collect::<Vec<_>>(), [(1, false)]);
}

#[test]
fn a_log_is_deleted_when_it_has_been_kept_for_long_enough() {
    let mut world = World::settled();
    let (begun, expires_ms) = (world.now, cluster(&world) + 1_000);
    let state = ArtifactState::ARTIFACT_COMMITTED;
    let row = ArtifactRow { artifact_id: 1, state, expires_ms, kind: "log".into(), ..ArtifactRow::default() };
    world.put(Table::Artifact, 1_u64.to_be_bytes().to_vec(), &row);
    artifact(&mut world, 2, state, expires_ms);
    let week = 7 * 24 * 60 * 60 * 1_000;
    assert_eq!(deletions(&world.at(begun + 1_000 + week - 1)), vec![]);
    let gone = deletions(&world.at(begun + 1_000 + week));
    assert_eq!(gone.iter().map(|delete| (delete.artifact_id, delete.confirmed)).collect::<Vec<_>>(), [(1, false)]);
}

#[test]
fn a_state_that_no_contribution_named_is_deleted_after_a_day_and_one_of_a_job_never() {
    let mut world = World::settled();
    let meta = MetaRow { machine_version: 6, ..MetaRow::default() };
    world.put(Table::Meta, vec![0], &meta);
    let (begun, expires_ms) = (world.now, cluster(&world) + 1_000);
    let state = ArtifactState::ARTIFACT_COMMITTED;
    for (id, expires_ms) in [(1, expires_ms), (2, 0)] {
        let row =
            ArtifactRow { artifact_id: id, state, expires_ms, kind: "shard-state".into(), ..ArtifactRow::default() };
        world.put(Table::Artifact, id.to_be_bytes().to_vec(), &row);
    }
    let day = 24 * 60 * 60 * 1_000;
    assert_eq!(deletions(&world.at(begun + 1_000 + day - 1)), vec![]);
    let gone = deletions(&world.at(begun + 1_000 + day));
    assert_eq!(gone.iter().map(|delete| (delete.artifact_id, delete.confirmed)).collect::<Vec<_>>(), [(1, false)]);
}

#[test]
fn the_second_phase_of_a_deletion_follows_the_first() {
    let mut world = World::settled();
    artifact(&mut world, 1, ArtifactState::ARTIFACT_DELETING, 0);
    let begun = world.now;
    world.step(vec![]);
    assert_eq!(deletions(&world.at(begun + 29_999)), vec![]);
    let gone = deletions(&world.at(begun + 30_000));
    assert_eq!(gone.iter().map(|delete| (delete.artifact_id, delete.confirmed)).collect::<Vec<_>>(), [(1, true)]);
}

#[test]
fn a_lost_proposal_is_made_again_after_its_pause_if_the_rows_still_want_it() {
    let mut world = World::settled();
    world.live_node("node-0");
    world.task(pending(1));
    world.task(pending(2));
    let actions = world.step(vec![]);
    assert_eq!(decisions(&actions).len(), 2);
    let actions = world.step(vec![Input::Proposed { tag: tags(&actions)[0], replies: None }]);
    assert_eq!(decisions(&actions), vec![]);
    // Task 1 was placed after all.
    world.task(running(1, "node-0", 1_000));
    world.now += 100;
    let kinds = decisions(&world.step(vec![]));
    assert!(matches!(&kinds[..], [Kind::assign(assign)] if assign.assignments[0].task_id == "task-2"), "{kinds:?}");
}

#[test]
fn wake_at_names_the_earliest_timer() {
    let mut world = World::settled();
    assert_eq!(wake(&world.step(vec![])), None, "nothing waits");
    let expires = cluster(&world) + 7_000;
    artifact(&mut world, 1, ArtifactState::ARTIFACT_BEGUN, expires);
    assert_eq!(wake(&world.step(vec![])), Some(world.now + 7_000));
    world.task(running(1, "node-0", 1_000));
    assert_eq!(wake(&world.step(vec![])), Some(world.now + Config::local().lease_ttl_ms));
}
