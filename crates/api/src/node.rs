//! NodeService: heartbeats, polls, reports of workers; drain and deregistration.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use raftgrid_manifest::report_digest;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::calls::{ask, propose, read, read_at, Surface};
use crate::context::{Context, Core};
use crate::failure::{not_found, Answer};
use crate::{limits, logs, task, validate, views};

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .unary(&methods::HEARTBEAT, heartbeat)
        .unary_shortened(
            &methods::POLL_TASK,
            |request| request.wait_ms = request.wait_ms.min(limits::FORWARDED_POLL_WAIT_MS_MAX),
            poll,
        )
        .unary(&methods::REPORT_TASK_RESULT, report)
        .unary(&methods::START_TASK, start)
        .unary(&methods::APPEND_LOG, logs::append)
        .unary(&methods::LIST_NODES, list)
        .unary(&methods::DRAIN_NODE, drain)
        .unary(&methods::DEREGISTER, deregister)
        .unary(&methods::SET_MAINTENANCE, set_maintenance)
}

async fn heartbeat(core: Arc<Core>, context: Context, request: HeartbeatRequest) -> Answer<HeartbeatResponse> {
    validate::name("node_id", request.get_node_id())?;
    if request.get_boot_nonce() == 0 {
        core.callers.note(&context, request.get_node_id());
    }
    let mut response = ask(|done| core.ports.leader.heartbeat(request, done)).await?;
    // Only the leader gets here: a follower's call fails above and is forwarded.
    response.set_leader_time_ms(unix_ms());
    if response.get_leader_address().is_empty() {
        response.set_leader_address(core.ports.cluster.leader().get_address().to_owned());
    }
    if response.get_endpoints().is_empty() {
        let addresses =
            core.ports.cluster.members().take_members().into_iter().map(|mut member| member.take_client_address());
        response.set_endpoints(addresses.filter(|address| !address.is_empty()).collect());
    }
    Ok(response)
}

/// This machine's wall clock, which the worker holds against its own.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) async fn poll(core: Arc<Core>, context: Context, mut request: PollTaskRequest) -> Answer<PollTaskResponse> {
    validate::name("node_id", request.get_node_id())?;
    if request.get_incarnation() == 0 {
        core.callers.note(&context, request.get_node_id());
    }
    request.wait_ms = request.wait_ms.min(limits::POLL_WAIT_MS_MAX);
    request.max_tasks = request.max_tasks.clamp(1, limits::POLL_TASKS_MAX);
    ask(|done| core.ports.leader.poll_task(request, done)).await
}

async fn report(
    core: Arc<Core>,
    context: Context,
    request: ReportTaskResultRequest,
) -> Answer<ReportTaskResultResponse> {
    let kind = result(&core, &context, request).await?;
    Ok(reported(&propose(&core, &context, "", kind).await?))
}

/// The command of a report.
pub(crate) async fn result(
    core: &Arc<Core>,
    context: &Context,
    mut request: ReportTaskResultRequest,
) -> Answer<Command_oneof_kind> {
    validate::name("task_id", request.get_task_id())?;
    task::final_status("final_status", request.get_final_status())?;
    validate::size("result_data", request.get_result_data().len(), limits::RESULT_DATA_BYTES_MAX)?;
    validate::size("reason", request.get_reason().len(), limits::REASON_BYTES_MAX)?;
    validate::optional_name("log_artifact", request.get_log_artifact())?;
    if request.get_digest().is_empty() {
        request.set_digest(report_digest(request.get_final_status(), request.get_result_data()));
    }
    let node_id = reporter(core, context, &request).await?;
    // backoff_ms stays 0 here: the leader draws it when it proposes.
    Ok(Command_oneof_kind::report_result(ReportResult {
        task_id: request.take_task_id(),
        epoch: request.get_lease_epoch(),
        node_id,
        final_status: request.get_final_status(),
        result_data: request.take_result_data(),
        exit_code: request.get_exit_code(),
        reason: request.take_reason(),
        digest: request.take_digest(),
        result_artifact: request.take_result_artifact(),
        infrastructure: request.get_infrastructure(),
        log_artifact: request.take_log_artifact(),
        ..ReportResult::default()
    }))
}

pub(crate) fn reported(reply: &CommandReply) -> ReportTaskResultResponse {
    let mut response = ReportTaskResultResponse::new();
    response.set_acknowledged(true);
    response.set_outcome(match reply.get_outcome() {
        Outcome::EXISTING | Outcome::DUPLICATE => ReportOutcome::REPORT_DUPLICATE,
        _ => ReportOutcome::REPORT_ACCEPTED,
    });
    response
}

/// Who reports. A client with leases need not say; one without is the node that spoke on this connection before. If none has (it
/// reconnected, or reports through a tool), it is taken for the node that has the task: then only the task's state stands in its way.
async fn reporter(core: &Arc<Core>, context: &Context, request: &ReportTaskResultRequest) -> Answer<String> {
    if request.get_lease_epoch() != 0 || !context.node_id.is_empty() {
        return Ok(context.node_id.clone());
    }
    let view = read(core, Consistency::LOCAL).await?;
    let row = views::task(&*view.rows, request.get_task_id())?;
    Ok(row.map(|row| row.get_task().get_assigned_node_id().to_owned()).unwrap_or_default())
}

async fn start(core: Arc<Core>, context: Context, request: StartTaskRequest) -> Answer<StartTaskResponse> {
    propose(&core, &context, "", started(request)?).await?;
    Ok(acknowledged())
}

/// The command that says that a task runs.
pub(crate) fn started(mut request: StartTaskRequest) -> Answer<Command_oneof_kind> {
    validate::name("task_id", request.get_task_id())?;
    let epoch = request.get_lease_epoch();
    Ok(Command_oneof_kind::start(Start { task_id: request.take_task_id(), epoch, ..Start::default() }))
}

pub(crate) fn acknowledged() -> StartTaskResponse {
    let mut response = StartTaskResponse::new();
    response.set_acknowledged(true);
    response
}

async fn list(core: Arc<Core>, _: Context, request: ListNodesRequest) -> Answer<ListNodesResponse> {
    let mut response = ListNodesResponse::new();
    let view = read(&core, request.get_consistency()).await?;
    response.set_read_position(view.position);
    response.set_age_ms(view.age_ms);
    let nodes = match request.get_consistency() {
        Consistency::LINEARIZABLE => ask(|done| core.ports.leader.nodes(done)).await?,
        Consistency::LEASE | Consistency::LOCAL => views::nodes(&*view.rows)?,
    };
    response.set_nodes(nodes.into());
    Ok(response)
}

async fn drain(core: Arc<Core>, context: Context, request: DrainNodeRequest) -> Answer<DrainNodeResponse> {
    validate::name("node_id", request.get_node_id())?;
    let kind = Command_oneof_kind::set_eligibility(SetEligibility {
        node_id: request.get_node_id().to_owned(),
        eligibility: request.get_eligibility(),
        ..SetEligibility::default()
    });
    let reply = propose(&core, &context, "", kind).await?;
    let view = read_at(&core, reply.get_position()).await?;
    let node =
        views::node(&*view.rows, request.get_node_id())?.ok_or_else(|| not_found("node", request.get_node_id()))?;
    let mut response = DrainNodeResponse::new();
    response.set_node(node);
    Ok(response)
}

async fn set_maintenance(
    core: Arc<Core>,
    context: Context,
    request: SetMaintenanceRequest,
) -> Answer<SetMaintenanceResponse> {
    validate::name("node_id", request.get_node_id())?;
    let now = raftgrid_manifest::views::meta(&*read(&core, Consistency::LINEARIZABLE).await?.rows)?.cluster_time_ms;
    let until_ms = if request.get_for_ms() == 0 { 0 } else { now.saturating_add(request.get_for_ms()) };
    let kind = Command_oneof_kind::set_maintenance(SetMaintenance {
        node_id: request.get_node_id().to_owned(),
        until_ms: if request.get_off() { 0 } else { until_ms },
        off: request.get_off(),
        ..SetMaintenance::default()
    });
    let reply = propose(&core, &context, "", kind).await?;
    let view = read_at(&core, reply.get_position()).await?;
    let node =
        views::node(&*view.rows, request.get_node_id())?.ok_or_else(|| not_found("node", request.get_node_id()))?;
    let mut response = SetMaintenanceResponse::new();
    response.set_node(node);
    Ok(response)
}

async fn deregister(core: Arc<Core>, context: Context, request: DeregisterRequest) -> Answer<DeregisterResponse> {
    validate::name("node_id", request.get_node_id())?;
    let kind = Command_oneof_kind::deregister(Deregister {
        node_id: request.get_node_id().to_owned(),
        incarnation: request.get_incarnation(),
        ..Deregister::default()
    });
    propose(&core, &context, "", kind).await?;
    let mut response = DeregisterResponse::new();
    response.set_acknowledged(true);
    Ok(response)
}
