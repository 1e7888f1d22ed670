use futures::executor::block_on;
use futures::TryStreamExt;
use grpcio::RpcStatusCode;
use protobuf::Message;
use raftgrid_manifest::{keys, Change, Table};
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::world::*;

fn row(table: Table, key: Vec<u8>, row: &impl Message) -> Change {
    Change { table, key, value: Some(row.write_to_bytes().expect("no required field")) }
}

/// The job after `committed` rounds, the last one committed at `position`.
fn job(committed: u64, phase: JobPhase, position: u64) -> Vec<Change> {
    let mut job = JobRow::new();
    job.set_sequence(1);
    job.mut_job().set_job_id("digits".to_owned());
    job.mut_job().set_phase(phase);
    job.mut_job().set_rounds_committed(committed);
    job.mut_job().set_revision(position);
    let by_id = Change { table: Table::JobById, key: b"digits".to_vec(), value: Some(keys::number(1)) };
    vec![row(Table::Job, keys::number(1), &job), by_id]
}

fn round(number: u64) -> Change {
    let mut round = RoundRow::new();
    round.set_round(number);
    round.set_phase(RoundPhase::ROUND_COMMITTED);
    round.set_accepted(6);
    round.set_metrics_json(format!("{{\"loss\":{number}}}"));
    round.set_committed_position(position(number));
    row(Table::Round, keys::pair(1, number), &round)
}

fn position(round: u64) -> u64 {
    (100 + round) << 16
}

fn commit(node: &Node1, number: u64, phase: JobPhase) {
    let mut changes = job(number + 1, phase, position(number));
    changes.push(round(number));
    node.world.write(&changes);
}

fn watch(node: &Node1, from: u64) -> grpcio::ClientSStreamReceiver<WatchJobResponse> {
    let mut request = WatchJobRequest::new();
    request.set_job_id("digits".to_owned());
    request.set_from_position(from);
    node.client.server_streaming(&methods::WATCH_JOB.method, &request, option()).expect("started")
}

fn rounds(messages: &[WatchJobResponse]) -> Vec<u64> {
    messages.iter().filter(|message| message.has_round()).map(|message| message.get_round().get_round()).collect()
}

#[test]
fn a_watch_gives_each_round_once_in_order_and_ends_with_the_job() {
    let node = start(1, 1);
    commit(&node, 0, JobPhase::JOB_RUNNING);
    let mut stream = watch(&node, 0);
    let mut messages = Vec::new();
    // Some rounds one by one, some many at a time, some while nobody reads.
    for number in 1..20 {
        if number % 5 == 0 {
            messages.extend(block_on(stream.try_next()).expect("streamed"));
        }
        commit(&node, number, JobPhase::JOB_RUNNING);
    }
    commit(&node, 20, JobPhase::JOB_DONE);
    messages.extend(block_on(stream.try_collect::<Vec<_>>()).expect("it ends by itself"));
    assert_eq!(rounds(&messages), (0..=20).collect::<Vec<u64>>());
    assert!(messages.windows(2).all(|pair| pair[0].get_position() < pair[1].get_position()), "positions rise");
    let done = |message: &WatchJobResponse| message.get_job().get_phase() == JobPhase::JOB_DONE;
    assert!(done(messages.last().expect("some")));
    assert_eq!(messages.iter().filter(|message| done(message)).count(), 1);
    let seven = messages.iter().find(|message| message.get_round().get_round() == 7).expect("round 7");
    assert_eq!((seven.get_round().get_contributions(), seven.get_round().get_metrics_json()), (6, "{\"loss\":7}"));

    for (at, message) in messages.iter().enumerate() {
        let rest: Vec<WatchJobResponse> =
            block_on(watch(&node, message.get_position()).try_collect()).expect("resumed");
        assert_eq!(rounds(&rest), rounds(&messages[at + 1..]), "after message {at}: what is left, nothing twice");
    }
}

#[test]
fn a_watcher_that_missed_rounds_which_are_gone_is_told_so() {
    let node = start(1, 1);
    let mut changes = job(10, JobPhase::JOB_RUNNING, position(9));
    changes.extend([round(8), round(9)]);
    node.world.write(&changes);
    let first = block_on(watch(&node, position(2)).try_next()).expect("streamed").expect("a message");
    assert!(first.get_compacted());
    let kept = block_on(watch(&node, position(8)).try_next()).expect("streamed").expect("a message");
    assert_eq!(kept.get_round().get_round(), 9);
    let all = block_on(watch(&node, 0).try_next()).expect("streamed").expect("a message");
    assert_eq!(all.get_round().get_round(), 8, "from the beginning: whatever is kept");
}

#[test]
fn a_watched_task_is_shown_as_it_changes_until_it_is_over() {
    let node = start(1, 1);
    let task_id = node.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect("taken").take_task_id();
    let mut request = WatchTaskRequest::new();
    request.set_task_id(task_id.clone());
    let mut stream = node.client.server_streaming(&methods::WATCH_TASK.method, &request, option()).expect("started");
    let first = block_on(stream.try_next()).expect("streamed").expect("the state");
    assert_eq!(first.get_task().get_status(), TaskStatus::PENDING);
    let mut cancel = CancelTaskRequest::new();
    cancel.set_task_id(task_id);
    node.call(&methods::CANCEL_TASK, &cancel).expect("cancelled");
    let rest: Vec<WatchTaskResponse> = block_on(stream.try_collect()).expect("it ends by itself");
    assert_eq!(rest.last().expect("the end").get_task().get_status(), TaskStatus::FAILED);
    assert!(rest[0].get_position() > first.get_position());
}

#[test]
fn watching_what_is_not_there_ends_with_not_found() {
    let node = start(1, 1);
    let status = block_on(watch(&node, 0).try_collect::<Vec<_>>()).map_err(status_of).expect_err("no such job");
    assert_eq!(status.code(), RpcStatusCode::NOT_FOUND);
}

#[test]
fn clients_that_go_away_in_the_middle_of_a_watch_leave_the_server_serving() {
    let node = start(1, 1);
    commit(&node, 0, JobPhase::JOB_RUNNING);
    // Each leaves while the server waits or sends; a completion thread that died of it would leave some later call unanswered.
    for number in 1..60 {
        let mut stream = watch(&node, 0);
        assert!(block_on(stream.try_next()).expect("streamed").is_some());
        drop(stream);
        commit(&node, number, JobPhase::JOB_RUNNING);
    }
    for _ in 0..60 {
        let client = node.other_client();
        let answer = call(&client, &methods::GET_TASK.method, &GetTaskRequest::new());
        assert_eq!(answer.expect_err("no id").code(), RpcStatusCode::INVALID_ARGUMENT);
    }
}
