use futures::executor::block_on;
use futures::{SinkExt, TryStreamExt};
use grpcio::{MethodType, RpcStatusCode, WriteFlags};
use grpcio_health::proto::{HealthCheckRequest, HealthCheckResponse};
use grpcio_health::ServingStatus;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{self, at};

use crate::world::*;

#[test]
fn health_is_serving_only_while_a_leader_is_known() {
    let node = start(1, 1);
    let check = |service: &str| {
        let mut request = HealthCheckRequest::new();
        request.set_service(service.to_owned());
        let method = unary::<HealthCheckRequest, HealthCheckResponse>("/grpc.health.v1.Health/Check");
        call(&node.client, &method, &request).map(|response| response.get_status())
    };
    assert_eq!(check("").expect("known"), ServingStatus::Serving);
    assert_eq!(check("raftpb.TaskService").expect("an alias is known"), ServingStatus::Serving);
    assert_eq!(check("no.such.Service").expect_err("unknown").code(), RpcStatusCode::NOT_FOUND);
    node.world.state().leader = 0;
    assert_eq!(check("").expect("known"), ServingStatus::NotServing);
}

#[test]
fn health_can_be_watched_through_a_change_of_leadership() {
    let node = start(1, 0);
    let method =
        at::<HealthCheckRequest, HealthCheckResponse>(MethodType::ServerStreaming, "/grpc.health.v1.Health/Watch");
    let mut stream = node.client.server_streaming(&method, &HealthCheckRequest::new(), option()).expect("started");
    let mut next = || block_on(stream.try_next()).expect("streamed").expect("a status").get_status();
    assert_eq!(next(), ServingStatus::NotServing);
    node.world.state().leader = 1;
    assert_eq!(next(), ServingStatus::Serving);
}

#[test]
fn reflection_lists_the_services_over_the_wire() {
    let node = start(1, 1);
    let path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
    let method = at::<ServerReflectionRequest, ServerReflectionResponse>(MethodType::Duplex, path);
    let (mut sender, mut receiver) = node.client.duplex_streaming(&method, option()).expect("started");
    let mut request = ServerReflectionRequest::new();
    request.set_list_services(String::new());
    block_on(sender.send((request, WriteFlags::default()))).expect("sent");
    let answer = block_on(receiver.try_next()).expect("streamed").expect("an answer");
    let names: Vec<&str> = answer.get_list_services_response().get_service().iter().map(|it| it.get_name()).collect();
    assert!(names.contains(&"raftgrid.v1.TaskService") && names.contains(&"raftpb.NodeService"), "{names:?}");
    // The server's end may overtake the client's.
    let _ = block_on(sender.close());
    assert!(block_on(receiver.try_next()).expect("ended").is_none());
}

#[test]
fn cluster_calls_reach_the_cluster_and_need_a_node() {
    let node = start(1, 1);
    assert_eq!(node.call(&methods::CLUSTER_STATE, &StateRequest::new()).expect("state").get_node_id(), 1);
    assert_eq!(node.call(&methods::CLUSTER_SNAPSHOT, &SnapshotRequest::new()).expect("made").get_index(), 9);
    let mut change = ChangeMemberRequest::new();
    let refused = node.call(&methods::CLUSTER_ADD_LEARNER, &change).expect_err("which node?");
    assert!(refused.message().starts_with("node_id: "), "{}", refused.message());
    change.set_node_id(4);
    change.set_raft_address("127.0.0.1:9".to_owned());
    assert_eq!(node.call(&methods::CLUSTER_ADD_LEARNER, &change).expect("changed").get_index(), 4);
}
