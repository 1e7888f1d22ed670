//! grpc.health.v1: SERVING while this replica knows a leader. The answer is worked out when it is asked for; nothing is kept.

use std::sync::Arc;

use futures::SinkExt;
use grpcio::{RpcContext, RpcStatusCode, ServerStreamingSink, UnarySink, WriteFlags};
use grpcio_health::proto::{Health, HealthCheckRequest, HealthCheckResponse};
use grpcio_health::ServingStatus;
use raftgrid_rpc::methods::PATHS;
use raftgrid_rpc::status::status;

use crate::calls::pause;
use crate::context::Core;
use crate::limits;

#[derive(Clone)]
pub(crate) struct ReplicaHealth {
    core: Arc<Core>,
}

impl ReplicaHealth {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn now(&self, service: &str) -> ServingStatus {
        if !known(service) {
            ServingStatus::ServiceUnknown
        } else if self.core.ports.cluster.leader().get_node_id() == 0 {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        }
    }
}

/// "" is the replica as a whole.
fn known(service: &str) -> bool {
    let has = |path: &str| path.trim_start_matches('/').split('/').next() == Some(service);
    service.is_empty() || PATHS.iter().any(|(path, aliases)| has(path) || aliases.iter().any(|alias| has(alias)))
}

fn response(serving: ServingStatus) -> HealthCheckResponse {
    let mut response = HealthCheckResponse::new();
    response.set_status(serving);
    response
}

impl Health for ReplicaHealth {
    fn check(&mut self, ctx: RpcContext<'_>, request: HealthCheckRequest, sink: UnarySink<HealthCheckResponse>) {
        let serving = self.now(request.get_service());
        ctx.spawn(async move {
            // A client that has gone needs no answer.
            let _ = match serving {
                ServingStatus::ServiceUnknown => {
                    sink.fail(status(RpcStatusCode::NOT_FOUND, "service is not known")).await
                }
                ServingStatus::Unknown | ServingStatus::Serving | ServingStatus::NotServing => {
                    sink.success(response(serving)).await
                }
            };
        });
    }

    fn watch(
        &mut self,
        ctx: RpcContext<'_>,
        request: HealthCheckRequest,
        mut sink: ServerStreamingSink<HealthCheckResponse>,
    ) {
        let health = self.clone();
        ctx.spawn(async move {
            let Ok(_permit) = health.core.watches.admit() else {
                let _ = sink.fail(status(RpcStatusCode::RESOURCE_EXHAUSTED, "too many watches")).await;
                return;
            };
            let mut last = None;
            loop {
                let serving = health.now(request.get_service());
                let sent = if last == Some(serving) {
                    sink.flush().await
                } else {
                    sink.send((response(serving), WriteFlags::default())).await
                };
                if sent.is_err() {
                    return;
                }
                last = Some(serving);
                pause(&health.core, limits::LOG_FOLLOW_PAUSE).await;
            }
        });
    }
}
