//! Sums a sealed round: reads model, state and gradients, runs `train`, makes the next model and state durable, and hands back the command
//! that commits them. Whoever leads may do it again: the bytes are the same.

use std::sync::Arc;
use std::time::Duration;

use raftgrid_control::Input;
use raftgrid_driver::Role;
use raftgrid_manifest::{round_inputs_hash, views, RoundInputs};
use raftgrid_proto::v1::{CommitModel, ContributionRow, JobRow, RoundRow};
use slog::{warn, Logger};

use crate::artifacts::{Artifacts, Description};
use crate::leader::LeaderInbox;
use crate::models::Models;
use crate::polls::rows_failed;
use crate::pool::Pool;
use crate::ports::CallError;

/// How often a sum is tried before the step hears of the trouble.
const SUM_TRIES_MAX: usize = 100;
/// Between two tries.
const SUM_PAUSE: Duration = Duration::from_millis(500);

/// Sums rounds on threads of its own.
pub(crate) struct Aggregator {
    /// Bytes.
    pub artifacts: Arc<Artifacts>,
    /// Models that are in memory.
    pub models: Arc<Models>,
    /// Threads.
    pub pool: Pool,
    /// Log.
    pub logger: Logger,
}

impl Aggregator {
    /// Starts; the outcome goes to `inbox`.
    pub(crate) fn start(self: &Arc<Self>, job_id: String, round: u64, inbox: LeaderInbox) {
        let Some(slot) = self.pool.slot() else {
            return inbox.input_from_inside(Input::Aggregated {
                job_id,
                round,
                result: Err("too many sums are waiting".to_owned()),
            });
        };
        let this = self.clone();
        slot.run(Box::new(move || {
            let result = this.sum_patiently(&job_id, round).map(Box::new).map_err(|error| error.to_string());
            if let Err(cause) = &result {
                warn!(this.logger, "round not summed"; "job" => &job_id, "round" => round, "cause" => cause);
            }
            inbox.input(Input::Aggregated { job_id, round, result });
        }));
    }

    /// Trouble that passes (a peer that is away, an outcome that was not learnt) is no failure of the job: it is tried again while this replica
    /// leads.
    fn sum_patiently(&self, job_id: &str, round: u64) -> Result<CommitModel, CallError> {
        for _ in 0..SUM_TRIES_MAX {
            match self.sum(job_id, round) {
                Err(error) if !matches!(error, CallError::Invalid(_)) && self.leads() => {
                    warn!(self.logger, "round not summed yet"; "job" => job_id, "round" => round, "cause" => %error);
                    std::thread::sleep(SUM_PAUSE);
                }
                outcome => return outcome,
            }
        }
        self.sum(job_id, round)
    }

    fn leads(&self) -> bool {
        self.artifacts.handle.status().role == Role::Leader
    }

    fn sum(&self, job_id: &str, round: u64) -> Result<CommitModel, CallError> {
        let (rows, _) = self.artifacts.views.view();
        let missing = |what: &str| CallError::NotFound(format!("{what} of job {job_id}, round {round} does not exist"));
        let job = views::job_row(rows.as_ref(), job_id).map_err(rows_failed)?.ok_or_else(|| missing("the row"))?;
        let sealed = views::round_of(rows.as_ref(), job.sequence, round)
            .map_err(rows_failed)?
            .ok_or_else(|| missing("the round"))?;
        let ledger: Vec<ContributionRow> = views::contributions(rows.as_ref(), job_id, round)
            .map_err(rows_failed)?
            .into_iter()
            .filter(|row| !row.digest.is_empty())
            .collect();
        drop(rows);
        let next = self.step(&job, &sealed, &ledger)?;
        let (model, state, metrics) = next;
        self.commit(&job, &sealed, &ledger, &model, &state, metrics)
    }

    fn step(
        &self,
        job: &JobRow,
        sealed: &RoundRow,
        ledger: &[ContributionRow],
    ) -> Result<(Vec<u8>, Vec<u8>, String), CallError> {
        let failed = |error: raftgrid_train::TrainError| CallError::Invalid(error.to_string());
        let model = self.models.bytes(sealed.model_artifact)?;
        let state = match sealed.state_artifact {
            0 => None,
            artifact_id => Some(self.artifacts.read(artifact_id)?),
        };
        let shards: Vec<u32> = ledger.iter().map(|row| row.shard).collect();
        let optimizer = job.get_job().get_optimizer();
        let mut sum = raftgrid_train::Aggregator::new(&model, state.as_deref(), &shards, optimizer).map_err(failed)?;
        for row in ledger {
            let bytes = self.artifacts.read(row.artifact_id)?;
            sum.add(row.shard, f64::from_bits(row.weight_bits), &bytes).map_err(failed)?;
        }
        let next = sum.finish().map_err(failed)?;
        let metrics: Vec<(f64, &str)> =
            ledger.iter().map(|row| (f64::from_bits(row.weight_bits), row.metrics_json.as_str())).collect();
        Ok((next.model, next.state, raftgrid_train::mean_metrics(&metrics)))
    }

    fn commit(
        &self,
        job: &JobRow,
        sealed: &RoundRow,
        ledger: &[ContributionRow],
        model: &[u8],
        state: &[u8],
        metrics: String,
    ) -> Result<CommitModel, CallError> {
        let describe = |kind: &str| Description {
            kind: kind.to_owned(),
            job_id: job.get_job().job_id.clone(),
            principal: job.get_job().principal.clone(),
            name: String::new(),
        };
        let model = self.artifacts.place_bytes(&describe("model"), model)?;
        let state = self.artifacts.place_bytes(&describe("state"), state)?;
        let mut commit = CommitModel::new();
        commit.set_job_id(job.get_job().job_id.clone());
        commit.set_version(sealed.round + 1);
        commit.set_model_artifact(model.artifact_id);
        commit.set_model_receipts(model.receipts.into());
        commit.set_model_digest(model.digest.to_vec());
        commit.set_state_artifact(state.artifact_id);
        commit.set_state_receipts(state.receipts.into());
        commit.set_state_digest(state.digest.to_vec());
        commit.set_metrics_json(metrics);
        commit.set_inputs_hash(round_inputs_hash(&RoundInputs::of_rows(job, sealed, ledger)).to_vec());
        Ok(commit)
    }
}
