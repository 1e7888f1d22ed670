use grpcio::RpcStatusCode;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::world::*;

#[test]
fn a_follower_forwards_a_call_once_and_whole() {
    let (leader, follower) = (start(1, 1), start(2, 1));
    follower.world.state().others.insert(1, leader.services.forwarded());
    let submitted = follower.call(&methods::SUBMIT_TASK, &submission(b"{\"n\":1}")).expect("through the leader");
    let mut get = GetTaskRequest::new();
    get.set_task_id(submitted.get_task_id().to_owned());
    let found = leader.call(&methods::GET_TASK, &get).expect("found");
    assert_eq!(found.get_task().get_task_data(), b"{\"n\":1}");
    let forwarded = follower.world.state().forwarded.clone();
    assert_eq!(forwarded, [(1, "/raftgrid.v1.TaskService/SubmitTask".to_owned())]);
}

#[test]
fn the_leaders_refusal_reaches_the_client_unchanged() {
    let (leader, follower) = (start(1, 1), start(2, 1));
    follower.world.state().others.insert(1, leader.services.forwarded());
    let mut named = submission(b"{\"n\":1}");
    named.set_task_id("mine".to_owned());
    leader.call(&methods::SUBMIT_TASK, &named).expect("new");
    named.set_task_data(b"{\"n\":2}".to_vec());
    let direct = leader.call(&methods::SUBMIT_TASK, &named).expect_err("another spec");
    let through = follower.call(&methods::SUBMIT_TASK, &named).expect_err("another spec");
    assert_eq!(direct.code(), RpcStatusCode::ALREADY_EXISTS);
    assert_eq!((through.code(), through.message()), (direct.code(), direct.message()));
}

#[test]
fn a_forwarded_call_that_meets_a_follower_is_not_forwarded_again() {
    let (first, second) = (start(1, 2), start(2, 1));
    first.world.state().others.insert(2, second.services.forwarded());
    second.world.state().others.insert(1, first.services.forwarded());
    let refused = first.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect_err("nobody leads");
    assert_eq!(refused.code(), RpcStatusCode::UNAVAILABLE);
    assert_eq!(first.world.state().forwarded.len(), 1);
    assert_eq!(second.world.state().forwarded.len(), 0);
}

#[test]
fn without_a_leader_the_answer_is_unavailable_and_with_one_out_of_reach_it_names_it() {
    let alone = start(1, 0);
    let refused = alone.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect_err("no leader");
    assert_eq!(refused.code(), RpcStatusCode::UNAVAILABLE);
    assert_eq!(alone.world.state().forwarded.len(), 0);
    let cut_off = start(2, 9);
    let refused = cut_off.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect_err("out of reach");
    assert_eq!(refused.code(), RpcStatusCode::UNAVAILABLE);
    assert!(refused.message().contains("leader: 127.0.0.1:9"), "{}", refused.message());
}

#[test]
fn a_local_read_is_served_by_a_follower_and_says_how_old_it_is() {
    let follower = start(2, 1);
    let mut get = GetTaskRequest::new();
    get.set_task_id("t".to_owned());
    get.set_consistency(Consistency::LOCAL);
    let answer = follower.call(&methods::GET_TASK, &get).expect("served here");
    assert!(!answer.get_found() && answer.get_read_position() != 0);
    assert_eq!(follower.world.state().forwarded.len(), 0);
}

#[test]
fn a_replica_that_catches_up_answers_with_what_its_leader_did_and_not_with_what_was_before() {
    let node = start(2, 2);
    let submitted = node.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect("accepted");
    // More entries come first than anyone would count wake-ups for.
    node.world.state().behind = 60;
    let mut cancel = CancelTaskRequest::new();
    cancel.set_task_id(submitted.get_task_id().to_owned());
    let cancelled = node.call(&methods::CANCEL_TASK, &cancel).expect("cancelled");
    assert_eq!(cancelled.get_task().get_status(), TaskStatus::FAILED);
    assert_eq!(cancelled.get_task().get_phase(), Phase::PHASE_CANCELLED);
}
