//! Jobs.

use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{
    AUDIT_JOB, CANCEL_JOB, GET_JOB, JOB_HISTORY, LIST_JOBS, RECOMPUTE_ROUND, RESUME_JOB, RETRY_ELEMENTS, SUBMIT_JOB,
};

use crate::call::{request_id, Client};
use crate::error::ClientError;
use crate::limits::PAGE_ROWS_MAX;
use crate::task::all_pages;
use crate::watch::JobWatch;

impl Client {
    /// Submits a job under a new request id.
    pub fn submit_job(&self, spec: JobSpec) -> Result<SubmitJobResponse, ClientError> {
        let mut request = SubmitJobRequest::new();
        request.set_spec(spec);
        request.set_request_id(request_id());
        self.call(&SUBMIT_JOB, &request, self.config().timeout)
    }

    /// A job and its tasks.
    pub fn get_job(&self, job_id: &str) -> Result<GetJobResponse, ClientError> {
        let mut request = GetJobRequest::new();
        request.set_job_id(job_id.to_owned());
        let response = self.call(&GET_JOB, &request, self.config().timeout)?;
        if response.get_found() {
            Ok(response)
        } else {
            Err(ClientError::NotFound(format!("job {job_id}")))
        }
    }

    /// All jobs, page by page.
    pub fn list_jobs(&self) -> Result<Vec<Job>, ClientError> {
        all_pages(
            |token| {
                let mut request = ListJobsRequest::new();
                request.set_limit(PAGE_ROWS_MAX);
                request.set_page_token(token);
                self.call(&LIST_JOBS, &request, self.config().timeout)
            },
            |mut response| (response.take_jobs().into_vec(), response.take_next_page_token()),
        )
    }

    /// Cancels a job; its tasks may still be stopping when this returns.
    pub fn cancel_job(&self, job_id: &str) -> Result<Job, ClientError> {
        let mut request = CancelJobRequest::new();
        request.set_job_id(job_id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&CANCEL_JOB, &request, self.config().timeout)?.take_job())
    }

    /// Runs the failed elements of an array or sweep again; the job as of then.
    pub fn retry_elements(&self, job_id: &str) -> Result<Job, ClientError> {
        let mut request = RetryElementsRequest::new();
        request.set_job_id(job_id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&RETRY_ELEMENTS, &request, self.config().timeout)?.take_job())
    }

    /// A paused job goes on; the job as of then.
    pub fn resume_job(&self, job_id: &str) -> Result<Job, ClientError> {
        let mut request = ResumeJobRequest::new();
        request.set_job_id(job_id.to_owned());
        request.set_request_id(request_id());
        Ok(self.call(&RESUME_JOB, &request, self.config().timeout)?.take_job())
    }

    /// Committed rounds of a job, oldest first: all of the newest, ever fewer of those long before (`JobHistoryRequest`).
    pub fn job_history(&self, job_id: &str) -> Result<Vec<RoundSummary>, ClientError> {
        let (mut rounds, mut from_round) = (Vec::new(), 0);
        loop {
            let mut request = JobHistoryRequest::new();
            request.set_job_id(job_id.to_owned());
            request.set_from_round(from_round);
            request.set_limit(PAGE_ROWS_MAX);
            let mut response = self.call(&JOB_HISTORY, &request, self.config().timeout)?;
            rounds.extend(response.take_rounds().into_vec());
            match response.get_next_round() {
                next if next > from_round => from_round = next,
                _ => return Ok(rounds),
            }
        }
    }

    /// What the ledger says about a job; with every contribution if asked.
    pub fn audit_job(&self, job_id: &str, with_contributions: bool) -> Result<AuditJobResponse, ClientError> {
        let mut request = AuditJobRequest::new();
        request.set_job_id(job_id.to_owned());
        request.set_with_contributions(with_contributions);
        self.call(&AUDIT_JOB, &request, self.config().timeout)
    }

    /// Sums a committed round again on the replica that answers. Takes as long as the sum took, so the limit is that of transfers.
    pub fn recompute_round(&self, job_id: &str, round: u64) -> Result<RecomputeRoundResponse, ClientError> {
        let mut request = RecomputeRoundRequest::new();
        request.set_job_id(job_id.to_owned());
        request.set_round(round);
        // One attempt: the sum of a large round takes minutes, and one that is given up goes on at the replica, beside the next.
        let timeout = self.config().transfer_timeout;
        self.call_patient(&RECOMPUTE_ROUND, &request, timeout, timeout)
    }

    /// Changes of a job after `from_position` (0: from now on, its present state first), across lost connections and leaders. The
    /// iterator ends when the job is over. Each silence of more than the client's timeout with nobody answering is one `Err`.
    pub fn watch_job(&self, job_id: &str, from_position: u64) -> JobWatch {
        JobWatch::new(self.clone(), job_id.to_owned(), from_position)
    }
}
