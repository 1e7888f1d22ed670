//! `gridctl job`: what was handed in, how far it is, how it ended.

use raftgrid_client::Client;
use raftgrid_proto::v1::{GetJobResponse, Job as JobMessage};
use serde_json::{json, Value};

use crate::audit;
use crate::cli::Job;
use crate::context::{exit_on_interrupt, Context};
use crate::failure::Result;
use crate::job_submit;
use crate::output::{ago, hex, line, word, Output};
use crate::plot;
use crate::round_rules;
use crate::rounds;
use crate::task::{task_json, task_row, TASK_HEADERS};

pub(crate) fn run(context: &Context, command: Job) -> Result<()> {
    exit_on_interrupt();
    if let Job::Submit(args) = &command {
        return job_submit::run(context, args);
    }
    let client = context.client()?;
    match command {
        Job::Submit(_) => unreachable!("it returned above"),
        Job::Retry { name } => {
            let job = client.retry_elements(&name)?;
            let waiting = job.get_elements().get_waiting();
            context.output.done(format!("job {name} runs {waiting} elements again"), &job_json(&job));
            Ok(())
        }
        Job::List => {
            let jobs = client.list_jobs()?;
            let rows = jobs.iter().map(row).collect();
            let json = Value::Array(jobs.iter().map(job_json).collect());
            context.output.show(&["job", "type", "phase", "rounds", "created", "reason"], rows, &json);
            Ok(())
        }
        Job::Get { name } => {
            show(context, &client.get_job(&name)?);
            Ok(())
        }
        Job::Watch { name } => rounds::verdict(&rounds::follow(context, &client, &name, true)?),
        Job::Wait { name } => wait(context, &client, &name),
        Job::Cancel { name } => {
            let job = client.cancel_job(&name)?;
            context.output.done(format!("job {name} is {}", word(job.get_phase(), "JOB_")), &job_json(&job));
            Ok(())
        }
        Job::Plot(args) => plot::run(context, &client, &args),
        Job::Resume { name } => {
            let job = client.resume_job(&name)?;
            context.output.done(format!("job {name} is {}", word(job.get_phase(), "JOB_")), &job_json(&job));
            Ok(())
        }
        Job::Audit(args) => audit::run(context, &client, &args),
    }
}

/// Until the job is over; fails if it did not end well.
pub(crate) fn wait(context: &Context, client: &Client, name: &str) -> Result<()> {
    let job = rounds::follow(context, client, name, false)?;
    let result = if job.get_result_json().is_empty() { String::new() } else { format!(": {}", job.get_result_json()) };
    context.output.done(format!("job {name} is {}{result}", word(job.get_phase(), "JOB_")), &job_json(&job));
    rounds::verdict(&job)
}

fn row(job: &JobMessage) -> Vec<String> {
    let train = job.get_spec().get_train();
    let rounds = match job.get_spec().has_train() {
        true => format!("{}/{}", job.get_rounds_committed(), train.get_rounds()),
        false => String::new(),
    };
    vec![
        job.get_job_id().to_owned(),
        job.get_spec().get_field_type().to_owned(),
        word(job.get_phase(), "JOB_"),
        rounds,
        ago(job.get_created_at_ms() / 1_000),
        job.get_reason().to_owned(),
    ]
}

/// JSON inside a message as JSON, or as text if it is none.
fn parsed(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

pub(crate) fn job_json(job: &JobMessage) -> Value {
    let train = job.get_spec().get_train();
    json!({
        "job": job.get_job_id(),
        "type": job.get_spec().get_field_type(),
        "phase": word(job.get_phase(), "JOB_"),
        "reason": job.get_reason(),
        "created_at_ms": job.get_created_at_ms(),
        "finished_at_ms": job.get_finished_at_ms(),
        "rounds": train.get_rounds(),
        "rounds_committed": job.get_rounds_committed(),
        "shards": train.get_shards(),
        "workers": train.get_workers(),
        "seed": train.get_seed(),
        "model_version": job.get_model_version(),
        "model_sha256": hex(job.get_model_digest()),
        "metrics": parsed(job.get_metrics_json()),
        "result": parsed(job.get_result_json()),
        "accepted": job.get_accepted(),
        "duplicates": job.get_duplicates(),
        "stale": job.get_stale(),
        "rejected": job.get_rejected(),
        "mismatches": job.get_mismatches(),
        "quarantined_nodes": job.get_quarantined_nodes(),
        "mode": if train.get_mode().is_empty() { "sync" } else { train.get_mode() },
        "rounds_by_deadline": job.get_rounds_by_deadline(),
        "extensions": job.get_extensions(),
        "stale_gradients": job.get_stale_gradients(),
        "stalest": job.get_stalest(),
        "elements": elements_json(job),
    })
}

/// How far an array is; null for other jobs.
fn elements_json(job: &JobMessage) -> Value {
    let Some(counts) = job.elements.as_ref() else { return Value::Null };
    json!({
        "count": counts.get_count(), "waiting": counts.get_waiting(), "running": counts.get_running(),
        "done": counts.get_done(), "failed": counts.get_failed(),
    })
}

/// How the committed rounds ended, where that may differ; empty otherwise.
fn ended_by(job: &JobMessage) -> String {
    if round_rules::text(job.get_spec().get_train()).is_empty() {
        return String::new();
    }
    rounds::ended_by(
        job.get_rounds_committed(),
        job.get_rounds_by_deadline(),
        job.get_extensions(),
        job.get_stale_gradients(),
        job.get_stalest(),
    )
}

fn show(context: &Context, response: &GetJobResponse) {
    let job = response.get_job();
    let mut json = job_json(job);
    json["tasks"] = Value::Array(response.get_tasks().iter().map(task_json).collect());
    let train = job.get_spec().get_train();
    let mut pairs = vec![
        ("job", job.get_job_id().to_owned()),
        ("type", job.get_spec().get_field_type().to_owned()),
        ("phase", word(job.get_phase(), "JOB_")),
        ("reason", job.get_reason().to_owned()),
        ("created", ago(job.get_created_at_ms() / 1_000)),
        ("finished", ago(job.get_finished_at_ms() / 1_000)),
    ];
    if job.get_spec().has_train() {
        pairs.extend([
            ("rounds", format!("{} of {}", job.get_rounds_committed(), train.get_rounds())),
            ("shards", train.get_shards().to_string()),
            ("rules", round_rules::text(train)),
            ("ended by", ended_by(job)),
            ("metrics", rounds::metrics_text(job.get_metrics_json())),
            ("quarantined", job.get_quarantined_nodes().join(", ")),
            ("model", format!("version {}, SHA-256 {}", job.get_model_version(), hex(job.get_model_digest()))),
        ]);
    }
    if let Some(counts) = job.elements.as_ref() {
        let (waiting, running) = (counts.get_waiting(), counts.get_running());
        let (done, failed) = (counts.get_done(), counts.get_failed());
        let text =
            format!("{}: {waiting} waiting, {running} running, {done} done, {failed} failed", counts.get_count());
        pairs.push(("elements", text));
    }
    pairs.push(("result", job.get_result_json().to_owned()));
    context.output.show_one(pairs, &json);
    if context.output == Output::Table && !response.get_tasks().is_empty() {
        line("");
        let rows = response.get_tasks().iter().map(task_row).collect();
        context.output.show(TASK_HEADERS, rows, &Value::Null);
    }
}
