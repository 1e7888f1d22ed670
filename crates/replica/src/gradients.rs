//! A gradient whose bytes are here: whose it is, whether it can be one, and its way into the ledger.

use std::sync::Arc;

use raftgrid_crashpoint::{reach, Point};
use raftgrid_manifest::{views, RoundMode, RoundPolicy, Rows, RowsError, Table};
use raftgrid_proto::v1::{
    Ack, AckOutcome, Command, Command_oneof_kind, CommitGradient, JobRow, Outcome, RejectGradient, TaskRow,
};
use raftgrid_train::limits::NORM_LIMIT_DEFAULT;
use raftgrid_train::{check_contribution_source, effective_weight, GuardLimits, Layout};

use crate::acks::{ack_of, refusal};
use crate::artifacts::{blob_failed, Description, Placed};
use crate::limits::CATCH_UP_MS;
use crate::old_clients;
use crate::polls::rows_failed;
use crate::ports::{CallError, Callback, Caller, Commands, GradientMeta, Uploaded};
use crate::sources::{refused, Spooled};
use crate::uploads::{Body, Uploads};

/// The machine version from which on every replica can sum encoded gradients.
const ENCODED_SINCE: u64 = 5;

/// One `SendGradients` whose bytes are here.
pub(crate) struct Gradient {
    uploads: Uploads,
    caller: Caller,
    meta: GradientMeta,
    body: Body,
    deadline_ms: u64,
    done: Callback<Uploaded>,
}

/// A gradient's place, resolved.
pub(crate) struct Target {
    /// Of this job.
    pub job: JobRow,
    /// Computed by this trainer.
    pub task: TaskRow,
    /// Under this lease.
    pub epoch: u64,
    /// For this round.
    pub round: u64,
    /// Of this shard.
    pub shard: u32,
    /// Over this model.
    pub model_version: u64,
}

/// The inner error is an answer: refused without harm.
pub(crate) type Resolved = Result<Target, Box<Ack>>;

type SharedRows = Arc<dyn Rows + Send + Sync>;

/// What the rows say of it.
enum Look {
    /// They are new enough to judge it.
    Now(SharedRows),
    /// Not yet; the position of the rows. A client without leases is judged by these after the wait.
    Later(u64, SharedRows),
}

impl Gradient {
    /// It waits for at most `CATCH_UP_MS` from now on.
    pub(crate) fn new(
        uploads: Uploads,
        caller: Caller,
        meta: GradientMeta,
        body: Body,
        done: Callback<Uploaded>,
    ) -> Self {
        let deadline_ms = uploads.waits.now_ms() + CATCH_UP_MS;
        Self { uploads, caller, meta, body, deadline_ms, done }
    }

    /// Answers, or waits in the ring and looks again. Blocks for copies and for the command, not for the wait.
    pub(crate) fn end(self) {
        let rows = match self.look() {
            Err(error) => return (self.done)(Err(error)),
            Ok(Look::Now(rows)) => rows,
            Ok(Look::Later(position, _)) if self.uploads.waits.now_ms() < self.deadline_ms => {
                let (waits, deadline_ms) = (self.uploads.waits.clone(), self.deadline_ms);
                let interest = vec![(Table::Round, Vec::new()), (Table::Task, Vec::new())];
                return waits.after_change(position, interest, deadline_ms, move || self.end());
            }
            Ok(Look::Later(_, rows)) if self.is_old_client() => rows,
            Ok(Look::Later(..)) => {
                let why = "this replica is behind the one that gave the lease";
                return (self.done)(Err(CallError::Unavailable(why.to_owned())));
            }
        };
        let outcome = enter(&self.uploads, &self.caller, &self.meta, &rows, self.body);
        (self.done)(outcome.map(Uploaded::Ack));
    }

    fn is_old_client(&self) -> bool {
        self.meta.lease_epoch == 0
    }

    /// A follower may have applied less than the sender has seen elsewhere, and a client without leases does not know that its shard is
    /// leased a moment after it was given the model.
    fn look(&self) -> Result<Look, CallError> {
        let (rows, position) = self.uploads.artifacts.views.view();
        let behind = if self.is_old_client() {
            old_clients::awaits_lease(rows.as_ref(), &self.meta)?
        } else {
            self.meta.lease_epoch > position || is_ahead(rows.as_ref(), &self.meta)?
        };
        Ok(if behind { Look::Later(position, rows) } else { Look::Now(rows) })
    }
}

/// Into the ledger, or to be compared with what is there.
fn enter(
    uploads: &Uploads,
    caller: &Caller,
    meta: &GradientMeta,
    rows: &SharedRows,
    body: Body,
) -> Result<Ack, CallError> {
    let Body { writer, digest } = body;
    let target = match resolve(rows.as_ref(), meta, digest)? {
        Ok(target) => target,
        Err(refused) => return Ok(*refused),
    };
    let model = views::round_of(rows.as_ref(), target.job.sequence, target.model_version).map_err(rows_failed)?;
    let in_ledger = is_given(rows.as_ref(), &target).map_err(rows_failed)?;
    if !in_ledger && target.task.open_epoch != target.epoch {
        // The rows are as new as the epoch, so it never opens again: its bytes need not be placed first. A retry of what is in the ledger is
        // told so, whatever became of its lease.
        return Err(stale(meta));
    }
    let placed = if in_ledger {
        // Its bytes are not needed: the ledger only compares digests now.
        None
    } else {
        let Some(model) = model else {
            return Ok(refusal(AckOutcome::ACK_STALE, format!("model {} is no longer kept", target.model_version)));
        };
        let layout = uploads.models.layout(model.model_artifact)?;
        let spooled = Spooled(writer.reader().map_err(blob_failed)?);
        let encoded = views::meta(rows.as_ref()).map_err(rows_failed)?.machine_version >= ENCODED_SINCE;
        if let Some(reason) = wrong_with(&layout, &spooled, meta.weight, encoded, &limits_of(&target.job))? {
            return reject(uploads, &target, &reason, digest);
        }
        let description = Description {
            kind: "gradient".to_owned(),
            job_id: target.job.get_job().job_id.clone(),
            principal: caller.principal.clone(),
            ..Description::default()
        };
        Some(uploads.artifacts.place(&description, writer, digest)?)
    };
    let command = commit_gradient(&target, meta, placed, digest)?;
    if raftgrid_driver::mutant::on("ack_before_ledger") {
        return Ok(acked_too_soon(uploads, caller, command));
    }
    reach(Point::GradientPlaced);
    let reply = uploads.propose(&caller.principal, Command_oneof_kind::commit_gradient(command))?;
    reach(Point::GradientCommitted);
    Ok(ack_of(reply))
}

/// Planted: the command is on its way, and may be lost with this replica or its leader.
fn acked_too_soon(uploads: &Uploads, caller: &Caller, commit: CommitGradient) -> Ack {
    let mut command = Command::new();
    command.set_principal(caller.principal.clone());
    command.kind = Some(Command_oneof_kind::commit_gradient(commit));
    uploads.proposals.propose(vec![command], Box::new(|_| ()));
    let mut ack = refusal(AckOutcome::ACK_ACCEPTED, String::new());
    ack.set_success(true);
    ack
}

fn reject(uploads: &Uploads, target: &Target, reason: &str, digest: [u8; 32]) -> Result<Ack, CallError> {
    let mut reject = RejectGradient::new();
    reject.set_job_id(target.job.get_job().job_id.clone());
    reject.set_round(target.round);
    reject.set_shard(target.shard);
    reject.set_task_id(target.task.get_task().task_id.clone());
    reject.set_epoch(target.epoch);
    reject.set_reason(reason.to_owned());
    reject.set_digest(digest.to_vec());
    let reply = uploads.propose("", Command_oneof_kind::reject_gradient(reject))?;
    match reply.outcome {
        Outcome::STALE_LEASE => return Err(CallError::Precondition(format!("STALE_LEASE: {}", reply.message))),
        // Closed meanwhile, or another's.
        Outcome::STALE => return Ok(refusal(AckOutcome::ACK_STALE, reply.message)),
        _ => {}
    }
    Ok(refusal(AckOutcome::ACK_REJECTED, reason.to_owned()))
}

/// What the job takes: its own limit of the norm, or the one that keeps a diverged gradient out of everybody's model.
fn limits_of(job: &JobRow) -> GuardLimits {
    let asked = job.get_job().get_spec().get_train().norm_limit;
    GuardLimits { norm_max: Some(if asked > 0.0 { asked } else { NORM_LIMIT_DEFAULT }), ..GuardLimits::default() }
}

/// Why it is refused. It is read a window at a time. `encoded`: whoever leads can read one that is smaller than the model.
fn wrong_with(
    model: &Layout,
    spooled: &Spooled,
    weight: f64,
    encoded: bool,
    limits: &GuardLimits,
) -> Result<Option<String>, CallError> {
    let checked = check_contribution_source(model, spooled, limits, encoded);
    match checked.and_then(|()| effective_weight(weight)) {
        Ok(_) => Ok(None),
        Err(error) => refused(&error).map(Some),
    }
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
    if RoundPolicy::of(&target.job).mode != RoundMode::Sync {
        commit.set_model_version(target.model_version);
    }
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

fn stale(meta: &GradientMeta) -> CallError {
    CallError::Precondition(format!("STALE_LEASE: task {} is not leased with epoch {}", meta.task_id, meta.lease_epoch))
}

/// Whose gradient it is.
fn resolve(rows: &dyn Rows, meta: &GradientMeta, digest: [u8; 32]) -> Result<Resolved, CallError> {
    if meta.lease_epoch == 0 {
        return old_clients::resolve(rows, meta, digest);
    }
    let task = views::task_row(rows, &meta.task_id).map_err(rows_failed)?.ok_or_else(|| stale(meta))?;
    let job_id = task.get_task().job_id.clone();
    let job = views::job_row(rows, &job_id).map_err(rows_failed)?.ok_or_else(|| stale(meta))?;
    let shards = job.get_job().get_spec().get_train().shards;
    if meta.shard >= shards {
        return Err(CallError::Invalid(format!("shard: below {shards}, is {}", meta.shard)));
    }
    // Whether the epoch is still open then is decided where the command is applied.
    let model_version = model_version(&job, meta)?;
    Ok(Ok(Target { epoch: meta.lease_epoch, round: meta.round, shard: meta.shard, job, task, model_version }))
}

/// Over which model it was computed. In bounded mode only its sender knows.
fn model_version(job: &JobRow, meta: &GradientMeta) -> Result<u64, CallError> {
    match (RoundPolicy::of(job).mode, meta.model_version) {
        (RoundMode::Sync, _) | (RoundMode::Async { .. }, None) => Ok(meta.round),
        (RoundMode::Bounded { .. } | RoundMode::Async { .. }, Some(version)) => Ok(version),
        (RoundMode::Bounded { .. }, None) => {
            let why = "a gradient of a bounded job names the model that it was computed over: a newer SDK does";
            Err(CallError::Invalid(format!("model_version: {why}")))
        }
    }
}

/// Whether its sender has seen more of the job than this replica.
fn is_ahead(rows: &dyn Rows, meta: &GradientMeta) -> Result<bool, CallError> {
    let Some(job) = views::job_row(rows, &meta.job_id).map_err(rows_failed)? else { return Ok(meta.round > 0) };
    let committed = job.get_job().rounds_committed;
    let opened =
        meta.round <= committed || views::round_of(rows, job.sequence, meta.round).map_err(rows_failed)?.is_some();
    Ok(!opened || meta.model_version.is_some_and(|version| version > committed))
}

/// Whether the ledger has this pair: its bytes are compared then, and not kept.
fn is_given(rows: &dyn Rows, target: &Target) -> Result<bool, RowsError> {
    let row = match RoundPolicy::of(&target.job).mode {
        RoundMode::Sync | RoundMode::Bounded { .. } => {
            views::contribution_of(rows, target.job.sequence, target.round, target.shard)?
        }
        RoundMode::Async { .. } => views::given_over(rows, &target.job, target.model_version, target.shard)?,
    };
    Ok(row.is_some_and(|row| !row.digest.is_empty()))
}
