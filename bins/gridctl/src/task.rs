//! `gridctl task`: single tasks.

use std::fs;
use std::thread;
use std::time::Duration;

use raftgrid_client::Client;
use raftgrid_proto::v1::{
    ExplainTaskResponse, GangSpec, JobSpec, ListTasksRequest, RetryTaskRequest, SubmitJobRequest, SubmitTaskRequest,
    Task as TaskMessage, TaskStatus, TimelineEvent,
};
use raftgrid_rpc::methods::{RETRY_TASK, SUBMIT_JOB};
use serde_json::{json, Value};

use crate::cli::{Task, TaskSubmit};
use crate::context::{exit_on_interrupt, Context};
use crate::failure::{Failure, Result};
use crate::limits::TASK_DATA_BYTES_MAX;
use crate::output::{ago, raw, word};

/// Pause between two looks at a task that is waited for.
const LOOK: Duration = Duration::from_millis(100);
/// Tasks asked for at once.
const PAGE: i32 = 1_000;

pub(crate) const TASK_HEADERS: &[&str] = &["task", "type", "status", "phase", "node", "attempt", "created", "reason"];

pub(crate) fn run(context: &Context, command: Task) -> Result<()> {
    exit_on_interrupt();
    // Before anything is connected: what is wrong with the arguments can be told without a cluster.
    if let Task::Submit(args) = &command {
        let data = data(&args.data)?;
        return submit(context, &context.client()?, args, data);
    }
    let client = context.client()?;
    match command {
        Task::Submit(_) => unreachable!("it returned above"),
        Task::Get { id } => {
            show(context, &client.get_task(&id)?);
            Ok(())
        }
        Task::List { status, job, queue, limit } => list(context, &client, status.as_deref(), (job, queue), limit),
        Task::Cancel { id } => changed(context, &client.cancel_task(&id)?),
        Task::Suspend { id } => changed(context, &client.suspend_task(&id)?),
        Task::Resume { id } => changed(context, &client.resume_task(&id)?),
        Task::Requeue { id } => changed(context, &client.requeue_task(&id)?),
        Task::Priority { id, priority } => {
            let task = client.set_task_priority(&id, priority)?;
            let text = format!("task {id} has priority {}", task.get_spec().get_priority());
            context.output.done(text, &task_json(&task));
            Ok(())
        }
        Task::Retry { id } => {
            let mut request = RetryTaskRequest::new();
            request.set_task_id(id.clone());
            request.set_request_id(raftgrid_client::request_id());
            let task = client.call(&RETRY_TASK, &request, context.global.timeout())?.take_task();
            context.output.done(retried(&id, &task), &task_json(&task));
            Ok(())
        }
        Task::Why { id } => {
            let answer = client.explain_task(&id)?;
            why(context, &id, &answer);
            Ok(())
        }
        Task::Logs { id, follow } => logs(context, &client, &id, follow),
    }
}

/// What stands in its way, then what happened to it: times count from the submission.
fn why(context: &Context, id: &str, answer: &ExplainTaskResponse) {
    let mut text = vec![answer.get_summary().to_owned()];
    text.extend(answer.get_reasons().iter().map(|reason| format!("  {reason}")));
    let begin = answer.get_timeline().first().map_or(0, TimelineEvent::get_at_ms);
    let mut events = Vec::new();
    for event in answer.get_timeline() {
        let after_ms = event.get_at_ms().saturating_sub(begin);
        let mut line = format!("  {:>8}.{:03} s  {}", after_ms / 1_000, after_ms % 1_000, event.get_what());
        if event.get_attempt() > 0 {
            line.push_str(&format!(", attempt {} on {}", event.get_attempt(), event.get_node_id()));
        }
        if !event.get_detail().is_empty() {
            line.push_str(&format!(": {}", event.get_detail()));
        }
        text.push(line);
        events.push(json!({
            "at_ms": event.get_at_ms(), "what": event.get_what(), "attempt": event.get_attempt(),
            "node": event.get_node_id(), "detail": event.get_detail(),
        }));
    }
    let json = json!({
        "task": id, "summary": answer.get_summary(), "reasons": answer.get_reasons(), "timeline": events,
        "queue": answer.get_queue(), "position": answer.get_position(), "gang_members": answer.get_gang_members(),
        "gang_fit": answer.get_gang_fit(), "never": answer.get_never(),
    });
    context.output.done(text.join("\n"), &json);
}

fn changed(context: &Context, task: &TaskMessage) -> Result<()> {
    let text = format!("task {} is {}", task.get_task_id(), word(task.get_phase(), "PHASE_"));
    context.output.done(text, &task_json(task));
    Ok(())
}

/// The JSON of --data, read from a file if it is @FILE, checked here so that a slip is told at once.
fn data(given: &str) -> Result<Vec<u8>> {
    let text = match given.strip_prefix('@') {
        Some(file) => fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("failed to read {file}: {error}"), "--data '{…}' or --data @FILE"))?,
        None => given.to_owned(),
    };
    if text.len() > TASK_DATA_BYTES_MAX {
        let cause = format!("--data has {} bytes, more than {} KiB", text.len(), TASK_DATA_BYTES_MAX >> 10);
        return Err(Failure::usage(cause, "gridctl artifact push FILE, and name the artifact in --data"));
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(_) => Ok(text.into_bytes()),
        Err(error) => Err(Failure::usage(format!("--data is not JSON: {error}"), "--data '{\"n\": 256, \"seed\": 1}'")),
    }
}

/// A gang is a job: its members are tasks `<id>/member-<i>`.
fn submit_gang(context: &Context, client: &Client, args: &TaskSubmit, data: Vec<u8>, gang: GangSpec) -> Result<()> {
    let name = args.id.clone().ok_or_else(|| Failure::usage("--gang needs --id", "--gang 4 --id NAME"))?;
    let mut spec = JobSpec { name: name.clone(), task_data: data, ..JobSpec::default() };
    spec.set_field_type(args.task_type.clone());
    spec.set_gang(gang);
    spec.set_task(args.placement.spec()?.unwrap_or_default());
    let mut request = SubmitJobRequest::new();
    request.set_spec(spec);
    request.set_request_id(raftgrid_client::request_id());
    request.set_fail_fast(args.placement.fail_fast);
    let answer = client.call(&SUBMIT_JOB, &request, context.global.timeout())?;
    let json = json!({"job": name, "position": answer.get_position(), "existing": answer.get_existing()});
    context.output.done(format!("job {name} submitted; its tasks are {name}/member-0 and so on"), &json);
    Ok(())
}

fn submit(context: &Context, client: &Client, args: &TaskSubmit, data: Vec<u8>) -> Result<()> {
    if let Some(gang) = args.placement.gang()? {
        return submit_gang(context, client, args, data, gang);
    }
    let mut request = SubmitTaskRequest::new();
    request.spec = args.placement.spec()?.into();
    request.set_fail_fast(args.placement.fail_fast);
    request.set_task_type(args.task_type.clone());
    request.set_task_data(data);
    request.set_task_id(args.id.clone().unwrap_or_default());
    if args.gpus > 0 {
        request.mut_spec().mut_resources().set_gpus(args.gpus);
    }
    if args.memory_limit > 0 {
        request.mut_spec().mut_limits().set_memory_bytes(args.memory_limit);
    }
    if let Some(path) = &args.requirements {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let cause = format!("failed to read {}: {error}", path.display());
            Failure::usage(cause, "--requirements FILE, as pip takes it")
        })?;
        request.mut_spec().set_requirements(text);
    }
    let answer = client.submit_task(request)?;
    let id = answer.get_task_id();
    if !args.wait {
        let json = json!({"task": id, "position": answer.get_position(), "existing": answer.get_existing()});
        context.output.done(format!("task {id} submitted"), &json);
        return Ok(());
    }
    let task = loop {
        let task = client.get_task(id)?;
        if matches!(task.get_status(), TaskStatus::COMPLETED | TaskStatus::FAILED) {
            break task;
        }
        thread::sleep(LOOK);
    };
    show(context, &task);
    match task.get_status() {
        TaskStatus::FAILED => Err(Failure::new(
            format!("task {id} failed: {}", task.get_failure_reason()),
            format!("gridctl task logs {id}"),
        )),
        TaskStatus::PENDING | TaskStatus::ASSIGNED | TaskStatus::RUNNING | TaskStatus::COMPLETED => Ok(()),
    }
}

fn list(
    context: &Context,
    client: &Client,
    status: Option<&str>,
    (job, queue): (Option<String>, Option<String>),
    limit: i32,
) -> Result<()> {
    let wanted = usize::try_from(limit).ok().filter(|limit| *limit > 0);
    let wanted = wanted.ok_or_else(|| Failure::usage("--limit must be at least 1", "--limit 100"))?;
    let mut request = ListTasksRequest::new();
    match status {
        Some("pending") => request.set_status_filter(TaskStatus::PENDING),
        Some("assigned") => request.set_status_filter(TaskStatus::ASSIGNED),
        Some("running") => request.set_status_filter(TaskStatus::RUNNING),
        Some("completed") => request.set_status_filter(TaskStatus::COMPLETED),
        Some("failed") => request.set_status_filter(TaskStatus::FAILED),
        Some(_) | None => {}
    }
    request.set_job_id(job.unwrap_or_default());
    request.set_queue(queue.unwrap_or_default());
    request.set_limit(limit.min(PAGE));
    let mut tasks = Vec::new();
    let more = loop {
        let mut page = client.list_tasks(&request)?;
        tasks.extend(page.take_tasks());
        let token = page.take_next_page_token();
        let last = token.is_empty() || token == request.get_page_token();
        if last || tasks.len() >= wanted {
            break !last || tasks.len() > wanted;
        }
        request.set_page_token(token);
    };
    tasks.truncate(wanted);
    let json = Value::Array(tasks.iter().map(task_json).collect());
    context.output.show(TASK_HEADERS, tasks.iter().map(task_row).collect(), &json);
    if more {
        context.output.note("there are more; try: --limit");
    }
    Ok(())
}

/// A task that is over never changes: what runs is another one, which has to be named.
fn retried(id: &str, task: &TaskMessage) -> String {
    let phase = word(task.get_phase(), "PHASE_");
    match task.get_task_id() {
        same if same == id => format!("task {id} is {phase}"),
        copy => format!("task {id} is over and stays as it is; it runs again as {copy}, which is {phase}"),
    }
}

fn logs(context: &Context, client: &Client, id: &str, follow: bool) -> Result<()> {
    let mut end = 0;
    client.stream_logs(id, 0, follow, &mut |chunk| {
        if chunk.get_truncated() || chunk.get_offset() > end {
            raw(format!("[bytes {end} to {} are on no replica that answers]\n", chunk.get_offset()).as_bytes());
        }
        end = chunk.get_offset() + chunk.get_data().len() as u64;
        raw(chunk.get_data());
    })?;
    if end == 0 {
        without_log(context, client, id)?;
    }
    Ok(())
}

/// Says why there is nothing. The replica that was asked has asked the others; one that does not answer may have what is missing.
fn without_log(context: &Context, client: &Client, id: &str) -> Result<()> {
    let task = client.get_task(id)?;
    let members = client.members()?;
    let addresses = members.iter().map(|member| member.get_client_address()).filter(|address| !address.is_empty());
    let silent: Vec<&str> = addresses.filter(|address| client.cluster_state(address).is_err()).collect();
    if !silent.is_empty() {
        return Err(Failure::new(
            format!("no log of task {id} was found, but {} does not answer and may have it", silent.join(", ")),
            "gridctl cluster status, and again when it is back",
        ));
    }
    context.output.note(match task.get_attempt() {
        0 => format!("task {id} has no log: it has not run yet (gridctl task why {id})"),
        _ => format!("task {id} has no log: it printed nothing, or its log is no longer kept"),
    });
    Ok(())
}

pub(crate) fn task_row(task: &TaskMessage) -> Vec<String> {
    let reason =
        if task.get_failure_reason().is_empty() { task.get_pending_reason() } else { task.get_failure_reason() };
    vec![
        task.get_task_id().to_owned(),
        task.get_task_type().to_owned(),
        word(task.get_status(), ""),
        word(task.get_phase(), "PHASE_"),
        task.get_assigned_node_id().to_owned(),
        task.get_attempt().to_string(),
        ago(task.get_created_at()),
        reason.to_owned(),
    ]
}

/// JSON inside a message as JSON, or as text if it is none.
fn parsed(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

fn gang_place(task: &TaskMessage) -> Value {
    let Some(place) = task.gang_place.as_ref() else { return Value::Null };
    json!({
        "rank": place.get_rank(),
        "world_size": place.get_world_size(),
        "master_node": place.get_master_node_id(),
        "master_address": place.get_master_address(),
        "generation": place.get_generation(),
    })
}

pub(crate) fn task_json(task: &TaskMessage) -> Value {
    json!({
        "task": task.get_task_id(),
        "type": task.get_task_type(),
        "status": word(task.get_status(), ""),
        "phase": word(task.get_phase(), "PHASE_"),
        "node": task.get_assigned_node_id(),
        "attempt": task.get_attempt(),
        "lease_epoch": task.get_lease_epoch(),
        "job": task.get_job_id(),
        "queue": task.get_queue(),
        "priority": task.get_spec().get_priority(),
        "gang_place": gang_place(task),
        "created_at": task.get_created_at(),
        "started_at": task.get_started_at(),
        "completed_at": task.get_completed_at(),
        "data": parsed(task.get_task_data()),
        "result": parsed(task.get_result_data().as_bytes()),
        "failure_reason": task.get_failure_reason(),
        "pending_reason": task.get_pending_reason(),
        "progress": task.get_progress(),
    })
}

fn show(context: &Context, task: &TaskMessage) {
    let pairs = vec![
        ("task", task.get_task_id().to_owned()),
        ("type", task.get_task_type().to_owned()),
        ("status", word(task.get_status(), "")),
        ("phase", word(task.get_phase(), "PHASE_")),
        ("job", task.get_job_id().to_owned()),
        ("node", task.get_assigned_node_id().to_owned()),
        ("attempt", task.get_attempt().to_string()),
        ("created", ago(task.get_created_at())),
        ("started", ago(task.get_started_at())),
        ("completed", ago(task.get_completed_at())),
        ("data", String::from_utf8_lossy(task.get_task_data()).into_owned()),
        ("result", task.get_result_data().to_owned()),
        ("failed", task.get_failure_reason().to_owned()),
        ("pending", task.get_pending_reason().to_owned()),
    ];
    context.output.show_one(pairs, &task_json(task));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_must_be_json_of_a_size_that_a_command_can_hold() {
        assert_eq!(data("{\"n\": 2}").expect("JSON"), b"{\"n\": 2}");
        let failure = data("{n: 2}").unwrap_err();
        assert_eq!(failure.status() as i32, 2);
        assert!(failure.to_string().starts_with("--data is not JSON: "), "{failure}");
        let long = format!("\"{}\"", "x".repeat(TASK_DATA_BYTES_MAX));
        assert!(data(&long).unwrap_err().to_string().contains("192 KiB"));
    }

    #[test]
    fn a_retry_names_the_task_that_runs() {
        let mut task = TaskMessage::new();
        task.set_phase(raftgrid_proto::v1::Phase::PHASE_QUEUED);
        task.set_task_id("a".to_owned());
        assert_eq!(retried("a", &task), "task a is queued");
        task.set_task_id("a/retry-1".to_owned());
        assert!(retried("a", &task).contains("runs again as a/retry-1"), "{}", retried("a", &task));
    }

    #[test]
    fn data_of_a_file_is_read_and_a_missing_file_is_named() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("a.json");
        fs::write(&file, "[1]").expect("written");
        assert_eq!(data(&format!("@{}", file.display())).expect("JSON"), b"[1]");
        assert!(data("@/nowhere.json").unwrap_err().to_string().contains("/nowhere.json"));
    }
}
