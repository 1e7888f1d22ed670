//! Who calls, and what every handler reaches for.

use std::sync::Arc;

use grpcio::RpcContext;
use raftgrid_replica::ports::Caller;
use raftgrid_telemetry::Registry;
use slog::Logger;

use crate::callers::Callers;
use crate::limits;
use crate::log_book::LogBook;
use crate::metrics::Metrics;
use crate::parked::Parked;
use crate::pool::{Gate, Pool};
use crate::ports::Ports;

/// Metadata by which an old client, or workerd's loopback agent, names the caller's task.
const TASK_KEY: &str = "raftgrid-task";
/// Metadata by which a worker without leases names its node.
const NODE_KEY: &str = "raftgrid-node";

/// Of one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) caller: Caller,
    /// From the metadata, "" if not given.
    pub(crate) task_id: String,
    /// From the metadata, or the node that spoke on this connection before; "" if neither is known.
    pub(crate) node_id: String,
    /// The other end of the connection; "" for a forwarded call.
    pub(crate) connection: String,
}

impl Context {
    pub(crate) fn of(core: &Core, ctx: &RpcContext<'_>) -> Self {
        let mut context = Self { connection: ctx.peer(), ..Self::default() };
        for (key, value) in ctx.request_headers().iter() {
            let field = match key {
                TASK_KEY => &mut context.task_id,
                NODE_KEY => &mut context.node_id,
                _ => continue,
            };
            if value.len() <= limits::NAME_BYTES_MAX {
                *field = String::from_utf8_lossy(value).into_owned();
            }
        }
        if context.node_id.is_empty() {
            context.node_id = core.callers.node_of(&context.connection);
        }
        context
    }

    pub(crate) fn from_follower(principal: String) -> Self {
        Self { caller: Caller { principal }, ..Self::default() }
    }
}

/// Shared by all handlers.
pub(crate) struct Core {
    pub(crate) ports: Arc<Ports>,
    pub(crate) node_id: u64,
    pub(crate) logger: Logger,
    pub(crate) logs: Arc<LogBook>,
    pub(crate) data: Pool,
    pub(crate) forwards: Pool,
    pub(crate) uploads: Gate,
    pub(crate) parked: Arc<Parked>,
    pub(crate) downloads: Gate,
    pub(crate) log_calls: Gate,
    pub(crate) forwarding: Gate,
    pub(crate) watches: Gate,
    pub(crate) sessions: Gate,
    pub(crate) callers: Callers,
    pub(crate) metrics: Metrics,
}

impl Core {
    pub(crate) fn new(ports: Arc<Ports>, node_id: u64, logs: LogBook, logger: Logger, metrics: &Registry) -> Self {
        Self {
            ports,
            node_id,
            logger,
            logs: Arc::new(logs),
            data: Pool::new("api-data", limits::DATA_THREADS, limits::DATA_QUEUE_MAX),
            forwards: Pool::new("api-forward", limits::FORWARD_THREADS, limits::FORWARDS_MAX),
            uploads: Gate::new("uploads", limits::UPLOADS_MAX),
            parked: Arc::default(),
            downloads: Gate::new("downloads", limits::DOWNLOADS_MAX),
            log_calls: Gate::new("log calls", limits::LOG_CALLS_MAX),
            forwarding: Gate::new("forwarded calls", limits::FORWARDS_MAX),
            watches: Gate::new("watches", limits::WATCHES_MAX),
            sessions: Gate::new("sessions", limits::SESSIONS_MAX),
            callers: Callers::default(),
            metrics: Metrics::new(metrics),
        }
    }
}
