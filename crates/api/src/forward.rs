//! One forwarding of a unary call from a follower to the leader, whole. The answer or its status is passed on as it is; a forwarded call
//! that meets a follower again is UNAVAILABLE, so no call goes in circles.

use std::collections::BTreeMap;
use std::sync::Arc;

use grpcio::{RpcStatus, RpcStatusCode};
use protobuf::Message;
use raftgrid_proto::v1::ForwardResponse;
use raftgrid_replica::ports::CallError;
use raftgrid_rpc::status::status;

use crate::calls::{BoxFuture, Dispatch};
use crate::context::{Context, Core};
use crate::failure::{Answer, Failure};
use crate::limits;

/// Sends the call to `leader` and decodes its answer.
pub(crate) async fn to_leader<Req: Message, Resp: Message>(
    core: &Arc<Core>,
    leader: u64,
    path: &'static str,
    request: &Req,
) -> Answer<Resp> {
    let encoded = request.write_to_bytes().map_err(internal)?;
    let answer = to_node(core, leader, path, encoded).await?;
    Resp::parse_from_bytes(&answer).map_err(internal)
}

/// Sends a call to a replica that serves `Forwarded`; the encoded answer.
pub(crate) async fn to_node(core: &Arc<Core>, node: u64, path: &'static str, request: Vec<u8>) -> Answer<Vec<u8>> {
    if node == 0 || node == core.node_id {
        return Err(Failure::Unavailable("there is no leader at present; try again".to_owned()));
    }
    let _permit = core.forwarding.admit()?;
    core.metrics.forwarded.inc();
    let peers = core.ports.peers.clone();
    let answer = core.forwards.run(move || peers.forward(node, path, request, limits::FORWARD_TIMEOUT)).await?;
    let envelope = answer.map_err(|error| match error {
        CallError::NotLeader { .. } => Failure::Unavailable("leadership is moving; try again".to_owned()),
        // What the call itself is refused for stands in the envelope: this replica is refused at the other's door.
        CallError::Precondition(why) => Failure::Unavailable(why),
        other => other.into(),
    })?;
    let mut envelope = ForwardResponse::parse_from_bytes(&envelope).map_err(internal)?;
    match envelope.get_status() {
        0 => Ok(envelope.take_response()),
        code => Err(Failure::Status(status(RpcStatusCode::from(code), envelope.take_message()))),
    }
}

fn internal(error: protobuf::ProtobufError) -> Failure {
    Failure::Status(status(RpcStatusCode::INTERNAL, format!("failed to forward the call: {error}")))
}

/// The leader's side: serves calls that followers forward. `peer` calls it.
#[derive(Clone)]
pub struct Forwarded {
    table: Arc<BTreeMap<&'static str, Dispatch>>,
}

impl Forwarded {
    pub(crate) fn new(table: BTreeMap<&'static str, Dispatch>) -> Self {
        Self { table: Arc::new(table) }
    }

    /// Serves the unary method with this full path. The future is an encoded `ForwardResponse`: the answer's bytes, or the status that the
    /// client is to see. It never blocks the thread that polls it.
    pub fn call(&self, method: &str, principal: &str, request: Vec<u8>) -> BoxFuture<Vec<u8>> {
        let answer = self.table.get(method).map(|dispatch| {
            let context = Context::from_follower(principal.to_owned());
            dispatch(context, request)
        });
        let unknown =
            || RpcStatus::with_message(RpcStatusCode::UNIMPLEMENTED, "not a method that is forwarded".to_owned());
        Box::pin(async move {
            let answer = match answer {
                Some(answer) => answer.await,
                None => Err(unknown()),
            };
            let mut envelope = ForwardResponse::new();
            match answer {
                Ok(response) => envelope.set_response(response),
                Err(status) => {
                    envelope.set_status(i32::from(status.code()));
                    envelope.set_message(status.message().to_owned());
                }
            }
            envelope.write_to_bytes().expect("the envelope has no required field")
        })
    }

    /// The paths that it serves.
    pub fn methods(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.table.keys().copied()
    }
}
