//! Model 0 from the trainers of a job: the init task's is committed, the others' are compared with it once it is there. While the init task has
//! no lease, another trainer's is.

use raftgrid_crashpoint::{reach, Point};
use raftgrid_manifest::watched::{self, Watched};
use raftgrid_manifest::{views, Rows};
use raftgrid_proto::v1::{Ack, AckOutcome, Command_oneof_kind, CommitModel, JobPhase, JobRow, Outcome};
use raftgrid_train::{check_model_source, GuardLimits};

use crate::acks::{ack_of, refusal};
use crate::artifacts::{blob_failed, Description};
use crate::limits::MODEL_WAIT_MS;
use crate::polls::rows_failed;
use crate::ports::{CallError, Callback, Caller, InitModelMeta, Uploaded};
use crate::sources::{refused, Spooled};
use crate::uploads::{Body, Uploads};

/// One `InitModel` whose bytes are here.
pub(crate) struct FirstModel {
    uploads: Uploads,
    caller: Caller,
    meta: InitModelMeta,
    body: Body,
    deadline_ms: u64,
    done: Callback<Uploaded>,
}

/// What the rows say of it.
enum Look {
    /// The job has a model, or this task is the one to send it.
    Now(Box<JobRow>),
    /// Not yet; the position of the rows, and those whose change may alter it.
    Later(u64, Watched),
}

impl FirstModel {
    /// It waits for at most `MODEL_WAIT_MS` from now on.
    pub(crate) fn new(
        uploads: Uploads,
        caller: Caller,
        meta: InitModelMeta,
        body: Body,
        done: Callback<Uploaded>,
    ) -> Self {
        let deadline_ms = uploads.waits.now_ms() + MODEL_WAIT_MS;
        Self { uploads, caller, meta, body, deadline_ms, done }
    }

    /// Answers, or waits in the ring and looks again. Blocks for copies and for the command, not for the wait.
    pub(crate) fn end(self) {
        match self.look() {
            Err(error) => (self.done)(Err(error)),
            Ok(Look::Now(job)) => {
                let outcome = commit(&self.uploads, &self.caller, &self.meta, &job, self.body);
                (self.done)(outcome.map(Uploaded::Ack));
            }
            Ok(Look::Later(..)) if self.uploads.waits.now_ms() >= self.deadline_ms => {
                let why = format!("job {} has no model 0 yet", self.meta.job_id);
                (self.done)(Err(CallError::Unavailable(why)));
            }
            Ok(Look::Later(position, interest)) => {
                let (waits, deadline_ms) = (self.uploads.waits.clone(), self.deadline_ms);
                waits.after_change(position, interest, deadline_ms, move || self.end());
            }
        }
    }

    fn look(&self) -> Result<Look, CallError> {
        let (rows, position) = self.uploads.artifacts.views.view();
        let (rows, meta) = (rows.as_ref(), &self.meta);
        let Some(row) = views::job_row(rows, &meta.job_id).map_err(rows_failed)? else {
            if meta.lease_epoch > position {
                return Ok(Look::Later(position, watched::job(&meta.job_id, None)));
            }
            return Err(CallError::NotFound(format!("job {} does not exist", meta.job_id)));
        };
        if row.get_job().has_model {
            return Ok(Look::Now(Box::new(row)));
        }
        let mut interest = watched::job(&meta.job_id, Some(row.sequence));
        match row.get_job().phase {
            JobPhase::JOB_INIT => {}
            JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED => return Ok(Look::Later(position, interest)),
            _ => return Err(CallError::Precondition(format!("STALE_LEASE: job {} is over", meta.job_id))),
        }
        if views::first_model_maker(rows, &row).map_err(rows_failed)?.as_ref() == Some(&meta.task_id) {
            return Ok(Look::Now(Box::new(row)));
        }
        for trainer in views::tasks_of_job(rows, row.sequence).map_err(rows_failed)? {
            interest.extend(watched::task(&trainer.get_task().task_id, Some(trainer.sequence)));
        }
        Ok(Look::Later(position, interest))
    }
}

fn commit(
    uploads: &Uploads,
    caller: &Caller,
    meta: &InitModelMeta,
    job: &JobRow,
    body: Body,
) -> Result<Ack, CallError> {
    let Body { writer, digest } = body;
    if job.get_job().has_model {
        let (rows, _) = uploads.artifacts.views.view();
        return first_model_compared(rows.as_ref(), job, digest);
    }
    let spooled = Spooled(writer.reader().map_err(blob_failed)?);
    if let Err(error) = check_model_source(&spooled, &GuardLimits::default()) {
        return Ok(refusal(AckOutcome::ACK_REJECTED, refused(&error)?));
    }
    let description = Description {
        kind: "model".to_owned(),
        job_id: job.get_job().job_id.clone(),
        principal: caller.principal.clone(),
        ..Description::default()
    };
    let placed = uploads.artifacts.place(&description, writer, digest)?;
    let mut commit = CommitModel::new();
    commit.set_job_id(job.get_job().job_id.clone());
    commit.set_version(0);
    commit.set_model_artifact(placed.artifact_id);
    commit.set_model_receipts(placed.receipts.into());
    commit.set_model_digest(digest.to_vec());
    commit.set_task_id(meta.task_id.clone());
    commit.set_epoch(meta.lease_epoch);
    commit.set_optimizer(meta.optimizer.clone());
    commit.combine = meta.combine.clone().into();
    commit.set_numeric_class(meta.numeric_class.clone());
    reach(Point::FirstModelPlaced);
    let reply = uploads.propose(&caller.principal, Command_oneof_kind::commit_model(commit))?;
    reach(Point::FirstModelCommitted);
    match reply.outcome {
        // It was this trainer's to send when it began: whether it still is, the next try finds out.
        Outcome::PRECONDITION => Err(CallError::Unavailable(reply.message)),
        _ => Ok(ack_of(reply)),
    }
}

fn first_model_compared(rows: &dyn Rows, job: &JobRow, digest: [u8; 32]) -> Result<Ack, CallError> {
    let first = match views::round_of(rows, job.sequence, 0).map_err(rows_failed)? {
        Some(round) => round.input_model_digest,
        None if job.get_job().model_version == 0 => job.get_job().model_digest.clone(),
        // Round 0 is no longer kept: there is nothing to compare with.
        None => digest.to_vec(),
    };
    if first == digest {
        let mut ack = refusal(AckOutcome::ACK_DUPLICATE, String::new());
        ack.set_success(true);
        return Ok(ack);
    }
    let reason = "model 0 of this process differs from the job's: its initial values depend on more than job.seed";
    Ok(refusal(AckOutcome::ACK_MISMATCH, reason.to_owned()))
}
