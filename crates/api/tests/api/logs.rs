use futures::executor::block_on;
use futures::TryStreamExt;
use grpcio::RpcStatusCode;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::world::*;

fn append(node: &Node1, task_id: &str, epoch: u64, offset: u64, data: &[u8]) -> Result<u64, grpcio::RpcStatus> {
    let mut request = AppendLogRequest::new();
    request.set_task_id(task_id.to_owned());
    request.set_lease_epoch(epoch);
    request.set_offset(offset);
    request.set_data(data.to_vec());
    node.call(&methods::APPEND_LOG, &request).map(|response| response.get_next_offset())
}

fn stream(node: &Node1, task_id: &str, follow: bool) -> grpcio::ClientSStreamReceiver<LogChunk> {
    let mut request = StreamLogsRequest::new();
    request.set_task_id(task_id.to_owned());
    request.set_follow(follow);
    node.client.server_streaming(&methods::STREAM_LOGS.method, &request, option()).expect("started")
}

fn text(chunks: &[LogChunk]) -> String {
    chunks.iter().map(|chunk| String::from_utf8_lossy(chunk.get_data()).into_owned()).collect()
}

#[test]
fn a_log_is_appended_once_and_a_stale_attempt_is_refused() {
    let node = start(1, 1);
    let task_id = node.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect("taken").take_task_id();
    assert_eq!(append(&node, &task_id, 5, 0, b"epoch 1\n").expect("new"), 8);
    assert_eq!(append(&node, &task_id, 5, 0, b"epoch 1\n").expect("again"), 8);
    assert_eq!(append(&node, &task_id, 5, 8, b"epoch 2\n").expect("more"), 16);
    let stale = append(&node, &task_id, 4, 16, b"ghost\n").expect_err("an older attempt");
    assert_eq!(stale.code(), RpcStatusCode::FAILED_PRECONDITION);
    assert!(stale.message().contains("STALE_LEASE"), "{}", stale.message());
    let chunks: Vec<LogChunk> = block_on(stream(&node, &task_id, false).try_collect()).expect("streamed");
    assert_eq!(text(&chunks), "epoch 1\nepoch 2\n");
    let unknown = block_on(stream(&node, "no-such-task", false).try_collect::<Vec<_>>()).map_err(status_of);
    assert_eq!(unknown.expect_err("no such task").code(), RpcStatusCode::NOT_FOUND);
}

#[test]
fn a_follower_of_a_log_gets_what_comes_until_the_task_is_over() {
    let node = start(1, 1);
    let task_id = node.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect("taken").take_task_id();
    append(&node, &task_id, 5, 0, b"one ").expect("new");
    let mut following = stream(&node, &task_id, true);
    let mut chunks = vec![block_on(following.try_next()).expect("streamed").expect("what is there")];
    append(&node, &task_id, 5, 4, b"two ").expect("more");
    chunks.push(block_on(following.try_next()).expect("streamed").expect("what came"));
    append(&node, &task_id, 5, 8, b"three").expect("more");
    let mut cancel = CancelTaskRequest::new();
    cancel.set_task_id(task_id);
    node.call(&methods::CANCEL_TASK, &cancel).expect("cancelled");
    chunks.extend(block_on(following.try_collect::<Vec<_>>()).expect("it ends by itself"));
    assert_eq!(text(&chunks), "one two three");
}

#[test]
fn a_log_that_lies_on_another_replica_is_read_from_there() {
    let (here, there) = (start(1, 1), start(2, 1));
    here.world.state().others.insert(2, there.services.forwarded());
    let task_id = here.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect("taken").take_task_id();
    append(&here, &task_id, 5, 0, b"before the leader died, ").expect("new");
    append(&there, &task_id, 5, 24, b"and after").expect("the worker went on elsewhere");
    let chunks: Vec<LogChunk> = block_on(stream(&here, &task_id, false).try_collect()).expect("streamed");
    assert_eq!(text(&chunks), "before the leader died, and after");
    append(&there, &task_id, 9, 0, b"second attempt").expect("a newer attempt");
    let chunks: Vec<LogChunk> = block_on(stream(&here, &task_id, false).try_collect()).expect("streamed");
    assert_eq!(text(&chunks), "second attempt");
}
