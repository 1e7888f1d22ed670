//! Request ids: what is proposed twice takes effect once, within stated bounds.

mod common;

use common::*;
use raftgrid_manifest::{limits, views};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

#[test]
fn a_request_again_gets_the_first_answer_and_another_command_is_refused() {
    let mut world = World::new();
    let id = uuid(world.now_ms, 1);
    let first = world.run_as("ann", &id, submit("", |_| ()));
    assert_eq!(first.outcome, Outcome::OK);
    let again = world.run_as("ann", &id, submit("", |_| ()));
    assert_eq!((again.outcome, again.position, again.id), (Outcome::EXISTING, first.position, first.id.clone()));
    assert_eq!(world.run_as("ann", &id, submit("", |s| s.priority = 1)).outcome, Outcome::ALREADY_EXISTS);
    let other = world.run_as("bob", &id, submit("", |_| ()));
    assert_eq!(other.outcome, Outcome::OK, "a principal has its own ids");
    assert_eq!(views::request_answer(&world.rows, "ann", &id).expect("memory").expect("kept").id, first.id);
}

#[test]
fn a_refusal_is_an_answer_too() {
    let mut world = World::new();
    let id = uuid(world.now_ms, 1);
    assert_eq!(world.run_as("ann", &id, cancel("t", false)).outcome, Outcome::NOT_FOUND);
    world.submit("t");
    assert_eq!(world.run_as("ann", &id, cancel("t", false)).outcome, Outcome::NOT_FOUND, "the first answer again");
    assert_eq!(world.task("t").status, TaskStatus::PENDING);
}

#[test]
fn what_the_server_draws_anew_does_not_make_another_request() {
    let mut world = World::new();
    let id = uuid(world.now_ms, 1);
    let Kind::begin_artifact(mut upload) = begin("", "file", "", "x") else { unreachable!() };
    let first = world.run_as("ann", &id, Kind::begin_artifact(upload.clone()));
    (upload.placement, upload.expires_ms) = (vec![2, 3], 99);
    let again = world.run_as("ann", &id, Kind::begin_artifact(upload.clone()));
    assert_eq!((again.outcome, again.number), (Outcome::EXISTING, first.number));
    upload.total_bytes += 1;
    assert_eq!(world.run_as("ann", &id, Kind::begin_artifact(upload)).outcome, Outcome::ALREADY_EXISTS);
}

#[test]
fn an_id_that_tells_no_time_is_refused_and_one_that_is_far_ahead_of_cluster_time_is_taken() {
    let mut world = World::new();
    let reply = world.run_as("ann", "retry-1", submit("", |_| ()));
    assert_eq!(reply.outcome, Outcome::INVALID);
    assert!(reply.message.starts_with("request_id:"), "{}", reply.message);
    // A cluster that was down for a day: its time stood still.
    let ahead = uuid(world.now_ms + 24 * 3_600_000, 1);
    assert_eq!(world.run_as("ann", &ahead, submit("", |_| ())).outcome, Outcome::OK);
    assert_eq!(world.run_as("ann", &ahead, submit("", |_| ())).outcome, Outcome::EXISTING);
    // It does not make the requests of others look old.
    let now = uuid(world.now_ms, 2);
    assert_eq!(world.run_as("bob", &now, submit("", |_| ())).outcome, Outcome::OK);
}

#[test]
fn what_was_forgotten_is_never_executed_again() {
    let mut world = World::new();
    let old = uuid(world.now_ms, 1);
    world.run_as("ann", &old, submit("", |_| ()));
    world.now_ms += limits::REQUEST_AGE_MS_MAX;
    let id = uuid(world.now_ms, 2);
    world.run_as("ann", &id, submit("", |_| ()));
    assert_eq!(world.run_as("ann", &old, submit("", |_| ())).outcome, Outcome::EXISTING, "kept for its whole day");
    world.now_ms += 1;
    let id = uuid(world.now_ms, 3);
    world.run_as("ann", &id, submit("", |_| ()));
    let before = views::meta(&world.rows).expect("memory").next_task_sequence;
    assert_eq!(world.run_as("ann", &old, submit("", |_| ())).outcome, Outcome::OUTCOME_UNKNOWN);
    assert_eq!(views::meta(&world.rows).expect("memory").next_task_sequence, before);
    assert_eq!(views::meta(&world.rows).expect("memory").request_rows, 2);
}
