use futures::executor::block_on;
use futures::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{RpcStatusCode, WriteFlags};
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::world::*;

type Call = SessionCall_oneof_call;

fn batch(batch_id: u64, calls: Vec<Call>) -> SessionBatch {
    let calls = calls.into_iter().map(|call| SessionCall { call: Some(call), ..SessionCall::default() });
    SessionBatch { batch_id, calls: calls.collect(), ..SessionBatch::default() }
}

/// Sends the batches and gives all answers, as they came.
fn converse(node: &Node1, batches: Vec<SessionBatch>) -> Vec<SessionAnswers> {
    let (mut sink, stream) = node.client.duplex_streaming(&methods::SESSION.method, option()).expect("started");
    block_on(async move {
        let send = async {
            for batch in batches {
                // A call that is over says why where its answers are read.
                if sink.send((batch, WriteFlags::default())).await.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        };
        let (_, answers) = futures::future::join(send, stream.try_collect::<Vec<_>>()).await;
        answers.expect("it ends when the client has closed its side")
    })
}

fn named(task_id: &str) -> Call {
    let mut request = submission(b"{}");
    request.set_task_id(task_id.to_owned());
    Call::submit(request)
}

#[test]
fn each_call_of_a_batch_has_its_own_answer_in_its_place() {
    let node = start(1, 1);
    let calls = vec![named("a"), Call::submit(submission(b"{no json")), named("b"), named("a/../b c")];
    let mut with_nothing = batch(7, calls);
    with_nothing.mut_calls().push(SessionCall::default());
    let answers = converse(&node, vec![with_nothing]);
    assert_eq!((answers.len(), answers[0].get_batch_id()), (1, 7));
    let codes: Vec<i32> = answers[0].get_answers().iter().map(SessionAnswer::get_status).collect();
    let wrong = i32::from(RpcStatusCode::INVALID_ARGUMENT);
    assert_eq!(codes, [0, wrong, 0, wrong, wrong]);
    assert_eq!(answers[0].get_answers()[2].get_submit().get_task_id(), "b");
    assert!(answers[0].get_answers()[1].get_message().contains("task_data"), "{:?}", answers[0]);
    let listed = node.call(&methods::LIST_TASKS, &ListTasksRequest::new()).expect("listed");
    let ids: Vec<&str> = listed.get_tasks().iter().map(Task::get_task_id).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[test]
fn a_task_lives_its_whole_life_in_a_session() {
    let node = start(1, 1);
    let mut described = Node::new();
    described.set_node_id("w".to_owned());
    let register = RegisterNode { node: Some(described).into(), boot_nonce: 1, ..RegisterNode::default() };
    node.world.apply(raftgrid_manifest::command(Command_oneof_kind::register_node(register)));
    converse(&node, vec![batch(1, vec![named("t")])]);
    let assignment = Assignment { task_id: "t".to_owned(), node_id: "w".to_owned(), ..Assignment::default() };
    let assign = Assign { assignments: vec![assignment].into(), ..Assign::default() };
    let epoch = node.world.apply(raftgrid_manifest::command(Command_oneof_kind::assign(assign))).get_number();

    let poll = PollTaskRequest { node_id: "w".to_owned(), ..PollTaskRequest::default() };
    let polled = converse(&node, vec![batch(2, vec![Call::poll(poll)])]);
    let task = polled[0].get_answers()[0].get_poll().get_task().clone();
    assert_eq!((task.get_task_id(), task.get_lease_epoch()), ("t", epoch));

    let started = StartTaskRequest { task_id: "t".to_owned(), lease_epoch: epoch, ..StartTaskRequest::default() };
    let report = |lease_epoch| {
        Call::report(ReportTaskResultRequest {
            task_id: "t".to_owned(),
            final_status: TaskStatus::COMPLETED,
            lease_epoch,
            ..ReportTaskResultRequest::default()
        })
    };
    // In one batch: in this order, or the start would be refused.
    let calls = vec![Call::start(started), report(epoch - 1), report(epoch), report(epoch)];
    let answers = converse(&node, vec![batch(3, calls)]).remove(0).take_answers();
    assert!(answers[0].get_start().get_acknowledged());
    assert_eq!(answers[1].get_status(), i32::from(RpcStatusCode::FAILED_PRECONDITION));
    assert!(answers[1].get_message().starts_with("STALE_LEASE"), "{}", answers[1].get_message());
    assert_eq!(answers[2].get_report().get_outcome(), ReportOutcome::REPORT_ACCEPTED);
    assert_eq!(answers[3].get_report().get_outcome(), ReportOutcome::REPORT_DUPLICATE);
}

#[test]
fn batches_are_answered_as_they_are_done_and_all_of_them() {
    let node = start(1, 1);
    let batches = (0..200).map(|id| batch(id, (0..20).map(|n| named(&format!("t-{id}-{n}"))).collect()));
    let answers = converse(&node, batches.collect());
    let mut ids: Vec<u64> = answers.iter().map(SessionAnswers::get_batch_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
    assert!(answers.iter().all(|answer| answer.get_answers().iter().all(|one| one.get_status() == 0)));
    assert_eq!(node.world.state().index, 4_000);
}

#[test]
fn without_a_leader_each_write_says_so_and_the_session_goes_on() {
    let node = start(1, 2);
    let poll = PollTaskRequest { node_id: "w".to_owned(), ..PollTaskRequest::default() };
    let calls = vec![named("t"), Call::poll(poll)];
    let answers = converse(&node, vec![batch(1, calls.clone()), batch(2, calls)]);
    assert_eq!(answers.len(), 2);
    for answer in answers.iter().flat_map(|answers| answers.get_answers()) {
        assert_eq!(answer.get_status(), i32::from(RpcStatusCode::UNAVAILABLE), "{answer:?}");
        assert!(answer.get_message().contains("127.0.0.1:2"), "the leader is named: {}", answer.get_message());
    }
}

#[test]
fn a_batch_beyond_its_bound_is_refused_whole_and_nothing_of_it_is_done() {
    let node = start(1, 1);
    let many = raftgrid_api::limits::SESSION_CALLS_MAX + 1;
    let answers = converse(&node, vec![batch(1, (0..many).map(|n| named(&format!("t-{n}"))).collect())]);
    assert_eq!(answers[0].get_answers().len(), many);
    assert!(answers[0].get_answers().iter().all(|answer| answer.get_message().starts_with("calls: at most")));
    assert_eq!(node.world.state().index, 0);
}

#[test]
fn a_client_that_leaves_midway_leaves_nothing_behind() {
    let node = start(1, 1);
    for round in 0..50 {
        let (mut sink, mut stream) = node.client.duplex_streaming(&methods::SESSION.method, option()).expect("started");
        block_on(async {
            sink.send((batch(1, vec![named(&format!("left-{round}"))]), WriteFlags::default())).await.expect("sent");
            if round % 2 == 0 {
                stream.next().await.expect("an answer").expect("answered");
            }
        });
        drop((sink, stream));
    }
    // More than may be open at once, one after another: each place was given back.
    let answers = converse(&node, vec![batch(1, vec![named("last")])]);
    assert_eq!(answers[0].get_answers()[0].get_submit().get_task_id(), "last");
}
