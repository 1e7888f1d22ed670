//! Bytes on their way in: spooled to this disk, checked, copied to the peers, committed. One file for the three purposes that end differently.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::bounded;
use raftgrid_blob::FragmentWriter;
use raftgrid_manifest::{views, Rows, Table};
use raftgrid_proto::v1::{
    Ack, AckOutcome, Command, CommandReply, Command_oneof_kind, CommitArtifact, CommitGradient, CommitModel, JobPhase,
    JobRow, Outcome, RejectGradient, RoundPhase, TaskRow,
};
use raftgrid_train::{check_contribution, check_model, effective_weight, GuardLimits};

use crate::artifacts::{blob_failed, Artifacts, Description, Placed};
use crate::limits::TENSOR_BYTES_MAX;
use crate::models::Models;
use crate::polls::rows_failed;
use crate::ports::{CallError, Callback, Caller, GradientMeta, InitModelMeta, Purpose, Upload, Uploaded};
use crate::proposals::Proposals;
use crate::ring::{Interest, Ring};

/// How long `InitModel` of a trainer that is not the init task waits for model 0.
const MODEL_WAIT_MS: u64 = 5_000;

/// How long an upload waits for a replica that is behind.
const CATCH_UP_MS: u64 = 5_000;

/// What uploads work with.
#[derive(Clone)]
pub(crate) struct Uploads {
    /// Bytes.
    pub artifacts: Arc<Artifacts>,
    /// Models to check against.
    pub models: Arc<Models>,
    /// Writes.
    pub proposals: Arc<Proposals>,
    /// Changes.
    pub ring: Ring,
}

impl Uploads {
    /// Starts an upload; see `ports::Bytes`.
    pub(crate) fn begin(
        &self,
        caller: &Caller,
        purpose: Purpose,
        total_bytes: Option<u64>,
        digest: Option<Vec<u8>>,
    ) -> Result<Box<dyn Upload>, CallError> {
        let tensors = !matches!(purpose, Purpose::Artifact { .. });
        if tensors && total_bytes.is_some_and(|total| total > TENSOR_BYTES_MAX) {
            return Err(CallError::Invalid(format!("total_bytes: the limit is {TENSOR_BYTES_MAX}")));
        }
        self.proposals.room.check()?;
        let writer = self.artifacts.files.create().map_err(blob_failed)?;
        Ok(Box::new(Incoming { uploads: self.clone(), caller: caller.clone(), purpose, total_bytes, digest, writer }))
    }
}

struct Incoming {
    uploads: Uploads,
    caller: Caller,
    purpose: Purpose,
    total_bytes: Option<u64>,
    digest: Option<Vec<u8>>,
    writer: FragmentWriter,
}

impl Upload for Incoming {
    fn write(&mut self, data: &[u8]) -> Result<(), CallError> {
        let tensors = !matches!(self.purpose, Purpose::Artifact { .. });
        if tensors && self.writer.total_bytes() + data.len() as u64 > TENSOR_BYTES_MAX {
            return Err(CallError::Invalid(format!("the stream is longer than {TENSOR_BYTES_MAX} bytes")));
        }
        self.writer.write(data).map_err(blob_failed)
    }

    fn finish(self: Box<Self>, digest: Option<Vec<u8>>, done: Callback<Uploaded>) {
        done(self.end(digest));
    }
}

impl Incoming {
    fn end(mut self, digest: Option<Vec<u8>>) -> Result<Uploaded, CallError> {
        let announced = digest.or(self.digest.take());
        let digest = self.writer.finish(self.total_bytes, announced.as_deref()).map_err(blob_failed)?;
        let (uploads, caller, writer) = (self.uploads, self.caller, self.writer);
        match self.purpose {
            Purpose::Artifact { name, kind } => {
                let description =
                    Description { name, kind, principal: caller.principal.clone(), job_id: String::new() };
                uploads.end_artifact(&description, writer, digest)
            }
            Purpose::Gradient(meta) => uploads.end_gradient(&caller, meta, writer, digest).map(Uploaded::Ack),
            Purpose::InitModel(meta) => uploads.end_model(&caller, &meta, writer, digest).map(Uploaded::Ack),
        }
    }
}

/// A gradient's place, resolved.
struct Target {
    job: JobRow,
    task: TaskRow,
    epoch: u64,
    round: u64,
    shard: u32,
}

impl Uploads {
    fn end_artifact(
        &self,
        description: &Description,
        writer: FragmentWriter,
        digest: [u8; 32],
    ) -> Result<Uploaded, CallError> {
        let placed = self.artifacts.place(description, writer, digest)?;
        let mut commit = CommitArtifact::new();
        commit.set_artifact_id(placed.artifact_id);
        commit.set_receipts(placed.receipts.into());
        let reply = self.propose(&description.principal, Command_oneof_kind::commit_artifact(commit))?;
        match reply.outcome {
            Outcome::OK | Outcome::EXISTING => Ok(Uploaded::Artifact { artifact_id: placed.artifact_id, digest }),
            _ => Err(CallError::Precondition(reply.message)),
        }
    }

    fn end_gradient(
        &self,
        caller: &Caller,
        meta: GradientMeta,
        mut writer: FragmentWriter,
        digest: [u8; 32],
    ) -> Result<Ack, CallError> {
        let rows = self.caught_up_with(&meta)?;
        let target = match resolve(rows.as_ref(), &meta)? {
            Ok(target) => target,
            Err(refused) => return Ok(*refused),
        };
        let known =
            views::contributions(rows.as_ref(), &target.job.get_job().job_id, target.round).map_err(rows_failed)?;
        let known = known.into_iter().find(|row| row.shard == target.shard);
        let model = views::round_of(rows.as_ref(), target.job.sequence, target.round).map_err(rows_failed)?;
        drop(rows);
        let in_ledger = known.is_some_and(|row| !row.digest.is_empty());
        let placed = if in_ledger {
            // Its bytes are not needed: the ledger only compares digests now.
            None
        } else {
            let Some(model) = model else {
                return Ok(refusal(AckOutcome::ACK_STALE, format!("round {} is not open", target.round)));
            };
            let model = self.models.bytes(model.model_artifact)?;
            let bytes = writer.read_back().map_err(blob_failed)?;
            if let Err(reason) = check_gradient(&model, &bytes, meta.weight) {
                return self.reject(&target, &reason, digest);
            }
            let description = Description {
                kind: "gradient".to_owned(),
                job_id: target.job.get_job().job_id.clone(),
                principal: caller.principal.clone(),
                name: String::new(),
            };
            Some(self.artifacts.place(&description, writer, digest)?)
        };
        let command = commit_gradient(&target, &meta, placed, digest)?;
        Ok(ack_of(self.propose(&caller.principal, Command_oneof_kind::commit_gradient(command))?))
    }

    /// Rows in which the sender's lease and round can be judged: a follower may have applied less than the sender has seen elsewhere, and
    /// a client without leases does not know that its shard is leased a moment after it was given the model.
    fn caught_up_with(&self, meta: &GradientMeta) -> Result<Arc<dyn Rows + Send + Sync>, CallError> {
        let old_client = meta.lease_epoch == 0;
        let deadline = self.now_ms() + CATCH_UP_MS;
        loop {
            let (rows, position) = self.artifacts.views.view();
            let behind = if old_client {
                awaits_lease(rows.as_ref(), meta)?
            } else {
                let job = views::job_row(rows.as_ref(), &meta.job_id).map_err(rows_failed)?;
                let committed = job.map_or(0, |row| row.get_job().rounds_committed);
                meta.lease_epoch > position || meta.round > committed
            };
            if !behind {
                return Ok(rows);
            }
            let interest = vec![(Table::Round, Vec::new()), (Table::Task, Vec::new())];
            if self.changed(position, interest, deadline) {
                continue;
            }
            if old_client {
                return Ok(rows);
            }
            return Err(CallError::Unavailable("this replica is behind the one that gave the lease".to_owned()));
        }
    }

    fn reject(&self, target: &Target, reason: &str, digest: [u8; 32]) -> Result<Ack, CallError> {
        let mut reject = RejectGradient::new();
        reject.set_job_id(target.job.get_job().job_id.clone());
        reject.set_round(target.round);
        reject.set_shard(target.shard);
        reject.set_task_id(target.task.get_task().task_id.clone());
        reject.set_epoch(target.epoch);
        reject.set_reason(reason.to_owned());
        reject.set_digest(digest.to_vec());
        let reply = self.propose("", Command_oneof_kind::reject_gradient(reject))?;
        if reply.outcome == Outcome::STALE_LEASE {
            return Err(CallError::Precondition(format!("STALE_LEASE: {}", reply.message)));
        }
        Ok(refusal(AckOutcome::ACK_REJECTED, reason.to_owned()))
    }

    fn end_model(
        &self,
        caller: &Caller,
        meta: &InitModelMeta,
        mut writer: FragmentWriter,
        digest: [u8; 32],
    ) -> Result<Ack, CallError> {
        let job = self.job_for_model(meta)?;
        if job.get_job().has_model {
            let (rows, _) = self.artifacts.views.view();
            return first_model_compared(rows.as_ref(), &job, digest);
        }
        let bytes = writer.read_back().map_err(blob_failed)?;
        if let Err(error) = check_model(&bytes, &GuardLimits::default()) {
            return Ok(refusal(AckOutcome::ACK_REJECTED, error.to_string()));
        }
        let description = Description {
            kind: "model".to_owned(),
            job_id: job.get_job().job_id.clone(),
            principal: caller.principal.clone(),
            name: String::new(),
        };
        let placed = self.artifacts.place(&description, writer, digest)?;
        let mut commit = CommitModel::new();
        commit.set_job_id(job.get_job().job_id.clone());
        commit.set_version(0);
        commit.set_model_artifact(placed.artifact_id);
        commit.set_model_receipts(placed.receipts.into());
        commit.set_model_digest(digest.to_vec());
        commit.set_task_id(meta.task_id.clone());
        commit.set_epoch(meta.lease_epoch);
        commit.set_optimizer(meta.optimizer.clone());
        commit.set_numeric_class(meta.numeric_class.clone());
        Ok(ack_of(self.propose(&caller.principal, Command_oneof_kind::commit_model(commit))?))
    }

    fn now_ms(&self) -> u64 {
        self.artifacts.clock.monotonic_ms()
    }

    /// Waits for a change after `position`; false when none came before `deadline_ms`. Blocks.
    fn changed(&self, position: u64, interest: Interest, deadline_ms: u64) -> bool {
        let (sender, changed) = bounded(1);
        let woken = Box::new(move |at| {
            // Whoever waited too long is gone.
            let _ = sender.send(at);
        });
        let left = Duration::from_millis(deadline_ms.saturating_sub(self.now_ms()));
        self.ring.changed_after(position, Some(interest), left, woken);
        changed.recv().is_ok_and(|at| at > position) && self.now_ms() < deadline_ms
    }

    /// The job, once it has a model or this task is the one to make it.
    /// It gives up in time, since it holds a thread.
    fn job_for_model(&self, meta: &InitModelMeta) -> Result<JobRow, CallError> {
        let deadline = self.now_ms() + MODEL_WAIT_MS;
        loop {
            let (rows, position) = self.artifacts.views.view();
            let job = views::job_row(rows.as_ref(), &meta.job_id).map_err(rows_failed)?;
            let behind = job.is_none() && meta.lease_epoch > position;
            if let Some(job) = job {
                if job.get_job().has_model || job.init_task == meta.task_id {
                    return Ok(job);
                }
                if !matches!(job.get_job().phase, JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED) {
                    return Err(CallError::Precondition(format!("STALE_LEASE: job {} is over", meta.job_id)));
                }
            } else if !behind {
                return Err(CallError::NotFound(format!("job {} does not exist", meta.job_id)));
            }
            drop(rows);
            if !self.changed(position, vec![(Table::Job, Vec::new())], deadline) {
                return Err(CallError::Unavailable(format!("job {} has no model 0 yet", meta.job_id)));
            }
        }
    }

    fn propose(&self, principal: &str, kind: Command_oneof_kind) -> Result<CommandReply, CallError> {
        let mut command = Command::new();
        command.set_principal(principal.to_owned());
        command.kind = Some(kind);
        self.proposals.propose_one(command)
    }
}

fn check_gradient(model: &[u8], bytes: &[u8], weight: f64) -> Result<(), String> {
    let limits = GuardLimits::default();
    let model = check_model(model, &limits).map_err(|error| error.to_string())?;
    check_contribution(model.layout(), bytes, &limits).map_err(|error| error.to_string())?;
    effective_weight(weight).map_err(|error| error.to_string())?;
    Ok(())
}

fn commit_gradient(
    target: &Target,
    meta: &GradientMeta,
    placed: Option<Placed>,
    digest: [u8; 32],
) -> Result<CommitGradient, CallError> {
    let mut commit = CommitGradient::new();
    commit.set_job_id(target.job.get_job().job_id.clone());
    commit.set_round(target.round);
    commit.set_shard(target.shard);
    commit.set_task_id(target.task.get_task().task_id.clone());
    commit.set_epoch(target.epoch);
    commit.set_digest(digest.to_vec());
    let weight = if meta.weight == 0.0 { 1.0 } else { meta.weight };
    commit.set_weight_bits(weight.to_bits());
    commit.set_state_artifact(meta.state_artifact.clone());
    commit.set_numeric_class(meta.numeric_class.clone());
    let metrics = String::from_utf8(meta.metrics_json.clone())
        .map_err(|_| CallError::Invalid("metrics_json: not UTF-8".to_owned()))?;
    commit.set_metrics_json(metrics);
    if let Some(placed) = placed {
        commit.set_artifact_id(placed.artifact_id);
        commit.set_total_bytes(placed.total_bytes);
        commit.set_receipts(placed.receipts.into());
    }
    Ok(commit)
}

/// Whose gradient it is. The inner error is an answer: refused without harm.
fn resolve(rows: &dyn Rows, meta: &GradientMeta) -> Result<Result<Target, Box<Ack>>, CallError> {
    if meta.lease_epoch == 0 {
        return resolve_old_client(rows, meta);
    }
    let stale = || {
        CallError::Precondition(format!(
            "STALE_LEASE: task {} is not leased with epoch {}",
            meta.task_id, meta.lease_epoch
        ))
    };
    let task = views::task_row(rows, &meta.task_id).map_err(rows_failed)?.ok_or_else(stale)?;
    let job_id = task.get_task().job_id.clone();
    let job = views::job_row(rows, &job_id).map_err(rows_failed)?.ok_or_else(stale)?;
    // Whether the epoch is still open is decided where the command is applied.
    Ok(Ok(Target { epoch: meta.lease_epoch, round: meta.round, shard: meta.shard, job, task }))
}

/// A client without leases: its node's trainer, the round of the model that it was given, its first shard there without an answer.
fn resolve_old_client(rows: &dyn Rows, meta: &GradientMeta) -> Result<Result<Target, Box<Ack>>, CallError> {
    let refused = |outcome, reason: String| Ok(Err(Box::new(refusal(outcome, reason))));
    let trainers: Vec<TaskRow> = views::tasks_of_node(rows, &meta.worker_id)
        .map_err(rows_failed)?
        .into_iter()
        .filter(|row| row.open_epoch != 0 && !row.get_task().job_id.is_empty())
        .filter(|row| meta.job_id.is_empty() || row.get_task().job_id == meta.job_id)
        .collect();
    let Ok([task]) = <[TaskRow; 1]>::try_from(trainers) else {
        return refused(AckOutcome::ACK_STALE, format!("worker {} has not exactly one trainer task", meta.worker_id));
    };
    if !task.model_given {
        return refused(AckOutcome::ACK_STALE, "this worker was given no model".to_owned());
    }
    let job_id = task.get_task().job_id.clone();
    let Some(job) = views::job_row(rows, &job_id).map_err(rows_failed)? else {
        return refused(AckOutcome::ACK_STALE, format!("job {job_id} does not exist"));
    };
    let round = task.model_given_version;
    let Some(row) = views::round_of(rows, job.sequence, round).map_err(rows_failed)? else {
        return refused(AckOutcome::ACK_STALE, format!("round {round} is no longer kept"));
    };
    let mine: Vec<(u32, bool)> = row
        .leases
        .iter()
        .filter(|lease| lease.get_lease().epoch == task.open_epoch)
        .map(|lease| (lease.get_lease().shard, lease.answered))
        .collect();
    // A retry after a lost Ack comes when every shard has its answer: it is compared with the last one.
    let shard = mine.iter().find(|(_, answered)| !answered).or(mine.last()).map(|(shard, _)| *shard);
    let Some(shard) = shard else {
        return refused(AckOutcome::ACK_STALE, format!("no shard of round {round} is leased to {}", meta.worker_id));
    };
    Ok(Ok(Target { epoch: task.open_epoch, round, shard, job, task }))
}

/// Whether a client without leases was given a model of the open round and has no shard of it yet.
fn awaits_lease(rows: &dyn Rows, meta: &GradientMeta) -> Result<bool, CallError> {
    for task in views::tasks_of_node(rows, &meta.worker_id).map_err(rows_failed)? {
        if !task.model_given || task.open_epoch == 0 {
            continue;
        }
        let Some(job) = views::job_row_by_sequence(rows, task.job_sequence).map_err(rows_failed)? else { continue };
        let round = views::round_of(rows, job.sequence, task.model_given_version).map_err(rows_failed)?;
        let open = round.filter(|row| row.phase == RoundPhase::ROUND_OPEN);
        if open.is_some_and(|row| row.leases.iter().all(|lease| lease.get_lease().epoch != task.open_epoch)) {
            return Ok(true);
        }
    }
    Ok(false)
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

fn refusal(outcome: AckOutcome, reason: String) -> Ack {
    let mut ack = Ack::new();
    ack.set_outcome(outcome);
    ack.set_reason(reason);
    ack
}

fn ack_of(reply: CommandReply) -> Ack {
    let (success, outcome) = match reply.outcome {
        Outcome::OK => (true, AckOutcome::ACK_ACCEPTED),
        Outcome::DUPLICATE | Outcome::EXISTING => (true, AckOutcome::ACK_DUPLICATE),
        Outcome::MISMATCH => (false, AckOutcome::ACK_MISMATCH),
        Outcome::INVALID | Outcome::EXHAUSTED => (false, AckOutcome::ACK_REJECTED),
        Outcome::STALE
        | Outcome::STALE_LEASE
        | Outcome::PRECONDITION
        | Outcome::NOT_FOUND
        | Outcome::ALREADY_EXISTS
        | Outcome::OUTCOME_UNKNOWN => (false, AckOutcome::ACK_STALE),
    };
    let mut ack = Ack::new();
    ack.set_success(success);
    ack.set_outcome(outcome);
    ack.set_position(reply.position);
    let stale = reply.outcome == Outcome::STALE_LEASE;
    ack.set_reason(if stale { format!("STALE_LEASE: {}", reply.message) } else { reply.message });
    ack
}
