//! JobService: submit, get, list, cancel, resume, watch, audit.

use std::sync::Arc;

use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::calls::{propose, read, read_at, Surface};
use crate::context::{Context, Core};
use crate::failure::{not_found, Answer};
use crate::{fail_fast, validate, views, watch};

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .unary(&methods::SUBMIT_JOB, submit)
        .unary(&methods::GET_JOB, get)
        .unary(&methods::LIST_JOBS, list)
        .unary(&methods::CANCEL_JOB, cancel)
        .unary(&methods::RETRY_ELEMENTS, retry_elements)
        .unary(&methods::JOB_HISTORY, history)
        .unary(&methods::RESUME_JOB, resume)
        .unary(&methods::AUDIT_JOB, audit)
        .unary(&methods::RECOMPUTE_ROUND, recompute_round)
        .server_streaming(&methods::WATCH_JOB, watch::job)
}

async fn submit(core: Arc<Core>, context: Context, mut request: SubmitJobRequest) -> Answer<SubmitJobResponse> {
    validate::job(request.get_spec())?;
    validate::optional_name("request_id", request.get_request_id())?;
    if request.get_fail_fast() {
        fail_fast::job(&core, request.get_spec()).await?;
    }
    let request_id = request.take_request_id();
    let name = request.get_spec().get_name().to_owned();
    let kind = Command_oneof_kind::submit_job(SubmitJob { spec: request.spec.take().into(), ..SubmitJob::default() });
    let reply = propose(&core, &context, &request_id, kind).await?;
    let mut response = SubmitJobResponse::new();
    response.set_job_id(if reply.get_id().is_empty() { name } else { reply.get_id().to_owned() });
    response.set_position(reply.get_position());
    response.set_existing(reply.get_outcome() != Outcome::OK);
    Ok(response)
}

async fn get(core: Arc<Core>, _: Context, request: GetJobRequest) -> Answer<GetJobResponse> {
    validate::name("job_id", request.get_job_id())?;
    let view = read(&core, request.get_consistency()).await?;
    let mut response = GetJobResponse::new();
    if let Some(row) = views::job(&*view.rows, request.get_job_id())? {
        response.set_tasks(views::tasks_of_job(&*view.rows, &row)?.into());
        let elements = views::element_counts(&*view.rows, &row)?;
        response.job = row.job;
        response.mut_job().elements = elements.into();
        response.set_found(true);
    }
    response.set_read_position(view.position);
    response.set_age_ms(view.age_ms);
    Ok(response)
}

async fn list(core: Arc<Core>, _: Context, request: ListJobsRequest) -> Answer<ListJobsResponse> {
    let view = read(&core, request.get_consistency()).await?;
    let (jobs, next) = views::jobs(&*view.rows, validate::page(request.get_limit()), request.get_page_token())?;
    let mut response = ListJobsResponse::new();
    response.set_jobs(jobs.into());
    response.set_next_page_token(next);
    response.set_read_position(view.position);
    response.set_age_ms(view.age_ms);
    Ok(response)
}

async fn cancel(core: Arc<Core>, context: Context, request: CancelJobRequest) -> Answer<CancelJobResponse> {
    validate::name("job_id", request.get_job_id())?;
    validate::optional_name("request_id", request.get_request_id())?;
    let kind = Command_oneof_kind::cancel_job(CancelJob {
        job_id: request.get_job_id().to_owned(),
        reason: "cancelled by request".to_owned(),
        ..CancelJob::default()
    });
    let reply = propose(&core, &context, request.get_request_id(), kind).await?;
    let view = read_at(&core, reply.get_position()).await?;
    let row = views::job(&*view.rows, request.get_job_id())?.ok_or_else(|| not_found("job", request.get_job_id()))?;
    let mut response = CancelJobResponse::new();
    response.job = row.job;
    Ok(response)
}

async fn resume(core: Arc<Core>, context: Context, request: ResumeJobRequest) -> Answer<ResumeJobResponse> {
    validate::name("job_id", request.get_job_id())?;
    validate::optional_name("request_id", request.get_request_id())?;
    let resume = ResumeJob { job_id: request.get_job_id().to_owned(), ..ResumeJob::default() };
    let kind = Command_oneof_kind::resume_job(resume);
    let reply = propose(&core, &context, request.get_request_id(), kind).await?;
    let view = read_at(&core, reply.get_position()).await?;
    let row = views::job(&*view.rows, request.get_job_id())?.ok_or_else(|| not_found("job", request.get_job_id()))?;
    let mut response = ResumeJobResponse::new();
    response.job = row.job;
    Ok(response)
}

async fn retry_elements(
    core: Arc<Core>,
    context: Context,
    request: RetryElementsRequest,
) -> Answer<RetryElementsResponse> {
    validate::name("job_id", request.get_job_id())?;
    validate::optional_name("request_id", request.get_request_id())?;
    let retry = RetryElements { job_id: request.get_job_id().to_owned(), ..RetryElements::default() };
    let kind = Command_oneof_kind::retry_elements(retry);
    let reply = propose(&core, &context, request.get_request_id(), kind).await?;
    let view = read_at(&core, reply.get_position()).await?;
    let row = views::job(&*view.rows, request.get_job_id())?.ok_or_else(|| not_found("job", request.get_job_id()))?;
    let elements = views::element_counts(&*view.rows, &row)?;
    let mut response = RetryElementsResponse::new();
    response.job = row.job;
    response.mut_job().elements = elements.into();
    Ok(response)
}

async fn history(core: Arc<Core>, _: Context, request: JobHistoryRequest) -> Answer<JobHistoryResponse> {
    validate::name("job_id", request.get_job_id())?;
    let view = read(&core, Consistency::LINEARIZABLE).await?;
    let (job_id, from) = (request.get_job_id(), request.get_from_round());
    views::round_history(&*view.rows, job_id, from, validate::page(request.get_limit()))?
        .ok_or_else(|| not_found("job", job_id))
}

async fn audit(core: Arc<Core>, _: Context, request: AuditJobRequest) -> Answer<AuditJobResponse> {
    validate::name("job_id", request.get_job_id())?;
    let view = read(&core, Consistency::LINEARIZABLE).await?;
    views::audit(&*view.rows, request.get_job_id(), request.get_with_contributions())?
        .ok_or_else(|| not_found("job", request.get_job_id()))
}

/// Here, whoever leads: any replica comes to the same bytes.
async fn recompute_round(
    core: Arc<Core>,
    _: Context,
    request: RecomputeRoundRequest,
) -> Answer<RecomputeRoundResponse> {
    validate::name("job_id", request.get_job_id())?;
    // What the caller was told of the job's rounds elsewhere is known here before it is looked up.
    read(&core, Consistency::LINEARIZABLE).await?;
    let (bytes, job_id, round) = (core.ports.bytes.clone(), request.get_job_id().to_owned(), request.get_round());
    let recomputed = core.data.run(move || bytes.recompute(&job_id, round)).await??;
    let mut response = RecomputeRoundResponse::new();
    response.set_round(round);
    response.set_node_id(recomputed.node_id);
    response.set_contributions(recomputed.contributions);
    response.set_model_digest(recomputed.model_digest.to_vec());
    response.set_state_digest(recomputed.state_digest.to_vec());
    response.set_ledger_model_digest(recomputed.ledger_model_digest);
    response.set_ledger_state_digest(recomputed.ledger_state_digest);
    Ok(response)
}

/// Whether nothing more can happen to a job.
pub(crate) fn is_over(phase: JobPhase) -> bool {
    match phase {
        JobPhase::JOB_DONE | JobPhase::JOB_FAILED | JobPhase::JOB_CANCELLED | JobPhase::JOB_REJECTED => true,
        JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED => false,
    }
}
