use grpcio::RpcStatusCode;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::world::*;

#[test]
fn an_oversized_or_broken_payload_is_refused_by_the_name_of_its_field() {
    let node = start(1, 1);
    let large = vec![b' '; 200 * 1024 + 1];
    let refused = node.call(&methods::SUBMIT_TASK, &submission(&large)).expect_err("too large");
    assert_eq!(refused.code(), RpcStatusCode::INVALID_ARGUMENT);
    assert!(refused.message().starts_with("task_data: "), "{}", refused.message());
    let refused = node.call(&methods::SUBMIT_TASK, &submission(b"{\"n\":")).expect_err("no JSON");
    assert!(refused.message().starts_with("task_data: is not JSON"), "{}", refused.message());
    let mut nameless = submission(b"{}");
    nameless.set_task_type(String::new());
    let refused = node.call(&methods::SUBMIT_TASK, &nameless).expect_err("no type");
    assert!(refused.message().starts_with("task_type: "), "{}", refused.message());
    let listed = node.call(&methods::LIST_TASKS, &ListTasksRequest::new()).expect("listed");
    assert_eq!(listed.get_tasks().len(), 0, "nothing was recorded");
}

#[test]
fn outcomes_become_statuses() {
    let node = start(1, 1);
    let mut named = submission(b"{\"n\":1}");
    named.set_task_id("task-of-mine".to_owned());
    named.set_request_id(uuid::Uuid::now_v7().to_string());
    let first = node.call(&methods::SUBMIT_TASK, &named).expect("new");
    assert!(!first.get_existing());
    let again = node.call(&methods::SUBMIT_TASK, &named).expect("the same again");
    assert!(again.get_existing());
    assert_eq!(again.get_task_id(), first.get_task_id());
    let mut other = named.clone();
    other.set_task_data(b"{\"n\":2}".to_vec());
    other.set_request_id(uuid::Uuid::now_v7().to_string());
    let refused = node.call(&methods::SUBMIT_TASK, &other).expect_err("another spec");
    assert_eq!(refused.code(), RpcStatusCode::ALREADY_EXISTS);

    let mut start = StartTaskRequest::new();
    start.set_task_id("task-of-mine".to_owned());
    start.set_lease_epoch(5);
    let refused = node.call(&methods::START_TASK, &start).expect_err("no lease");
    assert_eq!(refused.code(), RpcStatusCode::FAILED_PRECONDITION);
    assert!(refused.message().contains("STALE_LEASE"), "{}", refused.message());

    let mut cancel = CancelTaskRequest::new();
    cancel.set_task_id("no-such-task".to_owned());
    let refused = node.call(&methods::CANCEL_TASK, &cancel).expect_err("unknown");
    assert_eq!(refused.code(), RpcStatusCode::NOT_FOUND);
    cancel.set_task_id("task-of-mine".to_owned());
    let cancelled = node.call(&methods::CANCEL_TASK, &cancel).expect("cancelled");
    assert_eq!(cancelled.get_task().get_phase(), Phase::PHASE_CANCELLED);

    let mut token = ListTasksRequest::new();
    token.set_page_token(b"x".to_vec());
    let refused = node.call(&methods::LIST_TASKS, &token).expect_err("no token of ours");
    assert!(refused.message().starts_with("page_token: "), "{}", refused.message());
}
