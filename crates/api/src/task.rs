//! TaskService: submissions, queries, cancel, retry, suspend, resume, requeue, priority, why.

use std::sync::Arc;

use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::calls::{ask, propose, read, read_at, Surface};
use crate::context::{Context, Core};
use crate::encoded::{self, LIST_TASKS_RESPONSE_TASKS};
use crate::failure::{invalid, not_found, Answer};
use crate::{fail_fast, limits, logs, validate, views, watch};

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .unary(&methods::SUBMIT_TASK, submit)
        .unary(&methods::GET_TASK, get)
        .unary(&methods::LIST_TASKS, list)
        .unary(&methods::CANCEL_TASK, cancel)
        .unary(&methods::RETRY_TASK, retry)
        .unary(&methods::SUSPEND_TASK, suspend)
        .unary(&methods::RESUME_TASK, resume)
        .unary(&methods::REQUEUE_TASK, requeue)
        .unary(&methods::SET_TASK_PRIORITY, set_priority)
        .unary(&methods::EXPLAIN_TASK, explain)
        .server_streaming(&methods::WATCH_TASK, watch::task)
        .server_streaming(&methods::STREAM_LOGS, logs::stream)
}

async fn submit(core: Arc<Core>, context: Context, request: SubmitTaskRequest) -> Answer<SubmitTaskResponse> {
    let (request_id, kind) = submission(&core, request).await?;
    Ok(submitted(&propose(&core, &context, &request_id, kind).await?))
}

/// The request id and the command of a submission.
pub(crate) async fn submission(
    core: &Arc<Core>,
    mut request: SubmitTaskRequest,
) -> Answer<(String, Command_oneof_kind)> {
    validate::name("task_type", request.get_task_type())?;
    validate::json("task_data", request.get_task_data(), limits::TASK_DATA_BYTES_MAX)?;
    validate::optional_name("task_id", request.get_task_id())?;
    validate::optional_name("request_id", request.get_request_id())?;
    if request.get_fail_fast() {
        fail_fast::task(core, request.get_task_type(), request.get_spec()).await?;
    }
    // Without an id of the client's there is nothing by which a second try could be told from a second task.
    let request_id = request.take_request_id();
    let kind = Command_oneof_kind::submit_task(SubmitTask {
        task_id: request.take_task_id(),
        task_type: request.take_task_type(),
        task_data: request.take_task_data(),
        spec: request.spec,
        ..SubmitTask::default()
    });
    Ok((request_id, kind))
}

pub(crate) fn submitted(reply: &CommandReply) -> SubmitTaskResponse {
    let mut response = SubmitTaskResponse::new();
    response.set_task_id(reply.get_id().to_owned());
    response.set_success(true);
    response.set_position(reply.get_position());
    response.set_existing(reply.get_outcome() != Outcome::OK);
    response
}

async fn get(core: Arc<Core>, _: Context, request: GetTaskRequest) -> Answer<GetTaskResponse> {
    validate::name("task_id", request.get_task_id())?;
    let view = read(&core, request.get_consistency()).await?;
    let mut response = GetTaskResponse::new();
    if let Some(row) = views::task(&*view.rows, request.get_task_id())? {
        response.task = row.task;
        response.set_found(true);
    }
    response.set_read_position(view.position);
    response.set_age_ms(view.age_ms);
    Ok(response)
}

async fn list(core: Arc<Core>, _: Context, request: ListTasksRequest) -> Answer<ListTasksResponse> {
    validate::optional_name("job_id", request.get_job_id())?;
    let view = read(&core, request.get_consistency()).await?;
    let status = request.filter.as_ref().map(|ListTasksRequest_oneof_filter::status_filter(status)| *status);
    let page = views::TaskPage {
        status,
        job_id: request.get_job_id(),
        queue: request.get_queue(),
        limit: validate::page(request.get_limit()),
        token: request.get_page_token(),
    };
    let (tasks, next) = views::tasks(&*view.rows, page)?;
    let mut response = ListTasksResponse::new();
    for task in tasks {
        encoded::push(&mut response, LIST_TASKS_RESPONSE_TASKS, task.bytes);
    }
    response.set_next_page_token(next);
    response.set_read_position(view.position);
    response.set_age_ms(view.age_ms);
    Ok(response)
}

async fn cancel(core: Arc<Core>, context: Context, request: CancelTaskRequest) -> Answer<CancelTaskResponse> {
    let kind = Command_oneof_kind::cancel_task(CancelTask {
        task_id: request.get_task_id().to_owned(),
        reason: "cancelled by request".to_owned(),
        ..CancelTask::default()
    });
    let task = change(&core, &context, request.get_task_id(), request.get_request_id(), kind).await?;
    let mut response = CancelTaskResponse::new();
    response.set_task(task);
    Ok(response)
}

async fn retry(core: Arc<Core>, context: Context, request: RetryTaskRequest) -> Answer<RetryTaskResponse> {
    let kind =
        Command_oneof_kind::retry_task(RetryTask { task_id: request.get_task_id().to_owned(), ..RetryTask::default() });
    let task = change(&core, &context, request.get_task_id(), request.get_request_id(), kind).await?;
    let mut response = RetryTaskResponse::new();
    response.set_task(task);
    Ok(response)
}

async fn suspend(core: Arc<Core>, context: Context, request: SuspendTaskRequest) -> Answer<SuspendTaskResponse> {
    let kind = Command_oneof_kind::suspend_task(SuspendTask {
        task_id: request.get_task_id().to_owned(),
        reason: "suspended by request".to_owned(),
        ..SuspendTask::default()
    });
    let task = change(&core, &context, request.get_task_id(), request.get_request_id(), kind).await?;
    let mut response = SuspendTaskResponse::new();
    response.set_task(task);
    Ok(response)
}

async fn resume(core: Arc<Core>, context: Context, request: ResumeTaskRequest) -> Answer<ResumeTaskResponse> {
    let kind = Command_oneof_kind::resume_task(ResumeTask {
        task_id: request.get_task_id().to_owned(),
        ..ResumeTask::default()
    });
    let task = change(&core, &context, request.get_task_id(), request.get_request_id(), kind).await?;
    let mut response = ResumeTaskResponse::new();
    response.set_task(task);
    Ok(response)
}

async fn requeue(core: Arc<Core>, context: Context, request: RequeueTaskRequest) -> Answer<RequeueTaskResponse> {
    let kind = Command_oneof_kind::requeue_task(RequeueTask {
        task_id: request.get_task_id().to_owned(),
        reason: "requeued by request".to_owned(),
        ..RequeueTask::default()
    });
    let task = change(&core, &context, request.get_task_id(), request.get_request_id(), kind).await?;
    let mut response = RequeueTaskResponse::new();
    response.set_task(task);
    Ok(response)
}

async fn set_priority(
    core: Arc<Core>,
    context: Context,
    request: SetTaskPriorityRequest,
) -> Answer<SetTaskPriorityResponse> {
    let kind = Command_oneof_kind::set_priority(SetPriority {
        task_id: request.get_task_id().to_owned(),
        priority: request.get_priority(),
        ..SetPriority::default()
    });
    let task = change(&core, &context, request.get_task_id(), request.get_request_id(), kind).await?;
    let mut response = SetTaskPriorityResponse::new();
    response.set_task(task);
    Ok(response)
}

/// Proposes a change of one task and reads the task that it changed, or made, as it is after it.
async fn change(
    core: &Arc<Core>,
    context: &Context,
    task_id: &str,
    request_id: &str,
    kind: Command_oneof_kind,
) -> Answer<Task> {
    validate::name("task_id", task_id)?;
    validate::optional_name("request_id", request_id)?;
    let reply = propose(core, context, request_id, kind).await?;
    let view = read_at(core, reply.get_position()).await?;
    // A failed task never changes: trying it again makes another one, and the reply says which.
    let changed = if reply.get_id().is_empty() { task_id } else { reply.get_id() };
    match views::task(&*view.rows, changed)?.and_then(|row| row.task.into_option()) {
        Some(task) => Ok(task),
        None => Err(not_found("task", changed)),
    }
}

async fn explain(core: Arc<Core>, _: Context, request: ExplainTaskRequest) -> Answer<ExplainTaskResponse> {
    validate::name("task_id", request.get_task_id())?;
    let view = read(&core, Consistency::LINEARIZABLE).await?;
    let task_id = request.get_task_id();
    let told = views::explain(&*view.rows, task_id)?.ok_or_else(|| not_found("task", task_id))?;
    let row = views::task(&*view.rows, task_id)?.unwrap_or_default();
    if row.get_task().get_status() != TaskStatus::PENDING {
        return Ok(told);
    }
    // What keeps a waiting task from its node is the leader's to tell: its plan, its reach, its holds.
    let known = ask(|done| core.ports.leader.explain(task_id.to_owned(), done)).await?;
    Ok(known.unwrap_or(told))
}

/// COMPLETED or FAILED.
pub(crate) fn is_final(status: TaskStatus) -> bool {
    match status {
        TaskStatus::COMPLETED | TaskStatus::FAILED => true,
        TaskStatus::PENDING | TaskStatus::ASSIGNED | TaskStatus::RUNNING => false,
    }
}

/// Refuses a status that ends nothing.
pub(crate) fn final_status(field: &str, status: TaskStatus) -> Answer<()> {
    if is_final(status) {
        return Ok(());
    }
    Err(invalid(field, "must be COMPLETED or FAILED"))
}
