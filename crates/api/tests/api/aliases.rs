use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use grpcio::{MethodType, RpcStatusCode, WriteFlags};
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{self, at};

use crate::world::*;

#[test]
fn old_clients_of_tasks_are_served_under_their_names() {
    let node = start(1, 1);
    let submitted: SubmitTaskResponse =
        call(&node.client, &unary("/raftpb.TaskService/SubmitTask"), &submission(b"{\"argv\":[\"true\"]}"))
            .expect("taken");
    assert!(submitted.get_success() && submitted.get_error_message().is_empty());
    let mut get = GetTaskRequest::new();
    get.set_task_id(submitted.get_task_id().to_owned());
    let found: GetTaskResponse = call(&node.client, &unary("/raftpb.TaskService/GetTask"), &get).expect("found");
    assert!(found.get_found());
    assert_eq!(found.get_task().get_status(), TaskStatus::PENDING);
    let listed: ListTasksResponse =
        call(&node.client, &unary("/raftpb.TaskService/ListTasks"), &ListTasksRequest::new()).expect("listed");
    assert_eq!(listed.get_tasks().len(), 1);
}

#[test]
fn an_old_agent_completes_a_task_without_a_lease_and_only_from_its_own_connection() {
    let node = start(1, 1);
    let task_id = node.call(&methods::SUBMIT_TASK, &submission(b"{}")).expect("taken").take_task_id();
    for name in ["w1", "w2"] {
        let mut described = Node::new();
        described.set_node_id(name.to_owned());
        described.mut_capacity().set_slots(4);
        let register = RegisterNode { node: Some(described).into(), boot_nonce: 1, ..RegisterNode::default() };
        let reply = node.world.apply(raftgrid_manifest::command(Command_oneof_kind::register_node(register)));
        assert_eq!(reply.get_outcome(), Outcome::OK, "{}", reply.get_message());
    }
    let mut assign = Assign::new();
    let mut assignment = Assignment::new();
    assignment.set_task_id(task_id.clone());
    assignment.set_node_id("w1".to_owned());
    assign.mut_assignments().push(assignment);
    let reply = node.world.apply(raftgrid_manifest::command(Command_oneof_kind::assign(assign)));
    assert_eq!(reply.get_outcome(), Outcome::OK, "{}", reply.get_message());

    let (first, second) = (node.other_client(), node.other_client());
    for (client, name) in [(&first, "w1"), (&second, "w2")] {
        let mut beat = HeartbeatRequest::new();
        beat.set_node_id(name.to_owned());
        let answer: HeartbeatResponse = call(client, &unary("/raftpb.NodeService/Heartbeat"), &beat).expect("beat");
        assert!(answer.get_acknowledged());
        assert_eq!(answer.get_leader_address(), "127.0.0.1:1");
    }
    let mut report = ReportTaskResultRequest::new();
    report.set_task_id(task_id.clone());
    report.set_final_status(TaskStatus::COMPLETED);
    report.set_result_data("{\"ok\":true}".to_owned());
    let path = "/raftpb.NodeService/ReportTaskResult";
    let stale = call::<_, ReportTaskResultResponse>(&second, &unary(path), &report).expect_err("not its task");
    assert_eq!(stale.code(), RpcStatusCode::FAILED_PRECONDITION);
    assert!(stale.message().contains("STALE_LEASE"), "{}", stale.message());
    let taken: ReportTaskResultResponse = call(&first, &unary(path), &report).expect("its task");
    assert!(taken.get_acknowledged());
    let again: ReportTaskResultResponse = call(&first, &unary(path), &report).expect("the same report");
    assert_eq!(again.get_outcome(), ReportOutcome::REPORT_DUPLICATE);
    let mut get = GetTaskRequest::new();
    get.set_task_id(task_id);
    let found = node.call(&methods::GET_TASK, &get).expect("found");
    assert_eq!(found.get_task().get_status(), TaskStatus::COMPLETED);
    assert_eq!(found.get_task().get_result_data(), "{\"ok\":true}");
}

#[test]
fn an_old_trainer_gets_a_model_and_sends_a_gradient_with_the_fields_it_knows() {
    let node = start(1, 1);
    node.world.state().models.insert(String::new(), b"weights".to_vec());
    let get = at::<ModelRequest, ModelChunk>(MethodType::ServerStreaming, "/api.MLWorkerService/GetModel");
    let metadata = {
        let mut builder = grpcio::MetadataBuilder::new();
        builder.add_str("raftgrid-task", "task-9").expect("a plain key");
        builder.build()
    };
    let stream = node.client.server_streaming(&get, &ModelRequest::new(), option().headers(metadata)).expect("started");
    let chunks: Vec<ModelChunk> = block_on(stream.try_collect()).expect("streamed");
    assert_eq!(chunks.iter().flat_map(|chunk| chunk.get_data().to_vec()).collect::<Vec<u8>>(), b"weights");
    assert_eq!(node.world.state().queries[0].task_id, "task-9");

    let send = at::<GradientChunk, Ack>(MethodType::ClientStreaming, "/api.MLWorkerService/SendGradients");
    let (mut sender, receiver) = node.client.client_streaming(&send, option()).expect("started");
    for data in [b"grad".to_vec(), b"ient".to_vec()] {
        let mut chunk = GradientChunk::new();
        chunk.set_worker_id("w1".to_owned());
        chunk.set_data(data);
        block_on(sender.send((chunk, WriteFlags::default()))).expect("sent");
    }
    let _ = block_on(sender.close());
    assert!(block_on(receiver).expect("acknowledged").get_success());
    let state = node.world.state();
    assert_eq!(state.finished[0].1, b"gradient");
    assert_eq!((state.gradients[0].worker_id.as_str(), state.gradients[0].weight), ("w1", 1.0));
}

#[test]
fn old_clients_of_keys_add_get_watch_and_stat() {
    let node = start(1, 1);
    let mut set = Command::new();
    let version = SetMachineVersion { version: 3, ..SetMachineVersion::default() };
    set.kind = Some(Command_oneof_kind::set_machine_version(version));
    node.world.apply(set);
    let mut add = AddRequest::new();
    add.set_key("greeting".to_owned());
    add.set_val("hello".to_owned());
    let added = call::<_, AddResponse>(&node.client, &unary("/Example/Add"), &add).expect("added");
    let mut get = GetRequest::new();
    get.set_key("greeting".to_owned());
    get.set_linearizable(true);
    let got = call::<_, GetResponse>(&node.client, &unary("/Example/Get"), &get).expect("got");
    assert_eq!((got.get_value(), got.get_found()), ("hello", true));
    assert!(added.get_commit_index() > 0 && got.get_read_at_index() >= added.get_commit_index());
    let stats = call::<_, StatResponse>(&node.client, &unary("/Example/Stat"), &StatRequest::new()).expect("stats");
    assert!(stats.get_stats().contains("\"keys\":1"), "{}", stats.get_stats());
    let mut watch = WatchRequest::new();
    watch.set_key("greeting".to_owned());
    watch.set_timeout_seconds(1);
    let path = at::<WatchRequest, WatchResponse>(MethodType::ServerStreaming, "/Example/Watch");
    let stream = node.client.server_streaming(&path, &watch, option()).expect("started");
    let seen: Vec<WatchResponse> = block_on(stream.try_collect()).expect("streamed");
    assert_eq!(seen.iter().map(|one| one.get_value()).collect::<Vec<_>>(), ["hello"]);
    assert_eq!(seen[0].get_current_index(), added.get_commit_index());
    // What no client knew: compare and set, and a refusal with what stands in the way.
    let mut swap = CompareAndSetRequest::new();
    swap.set_key("greeting".to_owned());
    swap.set_data(b"bye".to_vec());
    let refused = node.call(&methods::KV_COMPARE_AND_SET, &swap).expect("answered");
    assert_eq!((refused.get_swapped(), refused.get_data()), (false, &b"hello"[..]));
    swap.set_expected(refused.get_revision());
    assert!(node.call(&methods::KV_COMPARE_AND_SET, &swap).expect("answered").get_swapped());
    add.set_key(String::new());
    let nameless = call::<_, AddResponse>(&node.client, &unary("/raftgrid.v1.KvService/Add"), &add);
    assert_eq!(nameless.expect_err("no key").code(), RpcStatusCode::INVALID_ARGUMENT);
}
