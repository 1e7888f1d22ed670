//! Sums a sealed round: reads model, state and gradients a window at a time, runs `train`, makes the next model and state durable, and hands
//! back the command that commits them. Whoever leads may do it again: the bytes are the same. Memory is that of a few windows; what is not on
//! this disk is fetched to it, and both results are files from their first byte on.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raftgrid_blob::FragmentWriter;
use raftgrid_control::Input;
use raftgrid_crashpoint::{reach, Point};
use raftgrid_driver::Role;
use raftgrid_manifest::{round_inputs_hash, views, RoundInputs, RoundMode, RoundPolicy, Rows};
use raftgrid_proto::v1::{Combine, CommitModel, ContributionRow, JobRow, RoundPhase, RoundRow};
use raftgrid_train::{sum_streamed, Inputs, Outputs, RoundRule, Sink, Source, SourceError, TrainError, WindowSizes};
use slog::{warn, Logger};

use crate::artifacts::{Artifacts, Description};
use crate::leader::LeaderInbox;
use crate::limits::{SORT_WINDOW_BYTES, SUM_FILES_HELD_MAX, SUM_WINDOW_BYTES, SUM_WINDOW_WIDE_BYTES};
use crate::polls::rows_failed;
use crate::pool::Pool;
use crate::ports::{CallError, Recomputed};
use crate::sources::{source_failed, Spool, Stored};

/// How often a sum is tried before the step hears of the trouble.
const SUM_TRIES_MAX: usize = 100;
/// Between two tries.
const SUM_PAUSE: Duration = Duration::from_millis(500);

/// Sums rounds on threads of its own.
pub(crate) struct Aggregator {
    /// Bytes.
    pub artifacts: Arc<Artifacts>,
    /// (job, round) that are being summed, or wait for a thread.
    pub under_way: Mutex<BTreeSet<(String, u64)>>,
    /// Threads.
    pub pool: Pool,
    /// Log.
    pub logger: Logger,
}

/// What a round makes, as files that are finished and not yet placed. Dropped, they are deleted.
struct Next {
    model: Made,
    state: Made,
    metrics: String,
}

struct Made {
    writer: FragmentWriter,
    digest: [u8; 32],
}

/// The gradients of a round while it is summed. Open ones are read to the end, whatever the cache lets go meanwhile.
struct Contributions<'a> {
    artifacts: &'a Arc<Artifacts>,
    ledger: &'a [ContributionRow],
    held: Vec<Option<Rc<Stored>>>,
}

impl<'a> Contributions<'a> {
    fn new(artifacts: &'a Arc<Artifacts>, ledger: &'a [ContributionRow]) -> Self {
        Self { artifacts, ledger, held: vec![None; ledger.len().min(SUM_FILES_HELD_MAX)] }
    }

    fn open(&mut self, number: usize) -> Result<Rc<Stored>, SourceError> {
        if let Some(Some(found)) = self.held.get(number) {
            return Ok(found.clone());
        }
        let stored = Stored::open(self.artifacts, self.ledger[number].artifact_id).map_err(SourceError::new)?;
        let stored = Rc::new(stored);
        if let Some(place) = self.held.get_mut(number) {
            *place = Some(stored.clone());
        }
        Ok(stored)
    }

    fn window_sizes(&self) -> WindowSizes {
        let all_held = self.held.len() == self.ledger.len();
        let sum_bytes = if all_held { SUM_WINDOW_BYTES } else { SUM_WINDOW_WIDE_BYTES };
        WindowSizes { sum_bytes, sorted_bytes: SORT_WINDOW_BYTES }
    }
}

impl Aggregator {
    /// Starts; the outcome goes to `inbox`. A sum that is under way is not begun again: it will answer, however long it takes.
    pub(crate) fn start(self: &Arc<Self>, job_id: String, round: u64, inbox: LeaderInbox) {
        let Some(slot) = self.pool.slot() else {
            return inbox.input_from_inside(Input::Aggregated {
                job_id,
                round,
                result: Err("too many sums are waiting".to_owned()),
            });
        };
        if !self.under_way().insert((job_id.clone(), round)) {
            return;
        }
        let this = self.clone();
        slot.run(Box::new(move || {
            let result = this.sum_patiently(&job_id, round).map(Box::new).map_err(|error| error.to_string());
            this.under_way().remove(&(job_id.clone(), round));
            if let Err(cause) = &result {
                warn!(this.logger, "round not summed"; "job" => &job_id, "round" => round, "cause" => cause);
            }
            inbox.input(Input::Aggregated { job_id, round, result });
        }));
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, u64)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trouble that passes (a peer that is away, an outcome that was not learnt) is no failure of the job: it is tried again while this replica
    /// leads.
    fn sum_patiently(&self, job_id: &str, round: u64) -> Result<CommitModel, CallError> {
        for _ in 0..SUM_TRIES_MAX {
            match self.sum(job_id, round) {
                Err(error) if !matches!(error, CallError::Invalid(_)) && self.leads() => {
                    warn!(self.logger, "round not summed yet"; "job" => job_id, "round" => round, "cause" => %error);
                    self.artifacts.clock.sleep(SUM_PAUSE);
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
        let (job, sealed, ledger) = inputs(rows.as_ref(), job_id, round)?;
        // Round 0 and the first ones of a ledger have none before them.
        let before = round.checked_sub(1).and_then(|before| inputs(rows.as_ref(), job_id, before).ok());
        drop(rows);
        if let Some((job, before, ledger)) = before {
            self.forget_decoded(&job, &before, &ledger);
        }
        reach(Point::RoundBeforeSum);
        let next = self.step(&job, &sealed, &ledger)?;
        reach(Point::RoundSummed);
        self.commit(&job, &sealed, &ledger, next)
    }

    /// What a committed round was made of, decoded: its files are written over with what comes now. Whoever still wants it (a recomputation, a
    /// trainer that is late, a mirror that is behind) has it decoded anew.
    fn forget_decoded(&self, job: &JobRow, round: &RoundRow, ledger: &[ContributionRow]) {
        let cache = self.artifacts.files.cache();
        ledger.iter().for_each(|row| cache.forget(row.artifact_id));
        cache.forget(round.state_artifact);
        // In a job that is not sync, trainers may still work on older models.
        if RoundPolicy::of(job).mode == RoundMode::Sync {
            cache.forget(round.model_artifact);
        }
    }

    /// Sums a committed round again and says what came out, beside what the ledger has. Nothing of it is kept. Errors: a round that is not
    /// committed, or whose gradients the job has let go.
    pub(crate) fn recompute(&self, job_id: &str, round: u64) -> Result<Recomputed, CallError> {
        let (rows, _) = self.artifacts.views.view();
        let (job, row, ledger) = inputs(rows.as_ref(), job_id, round)?;
        if row.phase != RoundPhase::ROUND_COMMITTED {
            return Err(CallError::Precondition(format!("round {round} of job {job_id} is not committed")));
        }
        if round < job.retained_from_round {
            let from = job.retained_from_round;
            return Err(CallError::Precondition(format!("job {job_id} has kept gradients from round {from} on only")));
        }
        let next = views::round_of(rows.as_ref(), job.sequence, round + 1).map_err(rows_failed)?;
        drop(rows);
        // The next round begins with what this one made; after the last one the job's row has it.
        let ledger_state_digest = next.map_or_else(|| job.state_digest.clone(), |next| next.input_state_digest);
        let made = self.step(&job, &row, &ledger)?;
        Ok(Recomputed {
            node_id: self.artifacts.node,
            contributions: u32::try_from(ledger.len()).unwrap_or(u32::MAX),
            model_digest: made.model.digest,
            state_digest: made.state.digest,
            ledger_model_digest: row.model_digest,
            ledger_state_digest,
        })
    }

    fn step(&self, job: &JobRow, sealed: &RoundRow, ledger: &[ContributionRow]) -> Result<Next, CallError> {
        let failed = |error: TrainError| match error.source_error() {
            Some(error) => source_failed(error),
            None => CallError::Invalid(error.to_string()),
        };
        let rule = rule_of(job, sealed.round).map_err(failed)?;
        let model = Stored::open(&self.artifacts, sealed.model_artifact)?;
        let state = match sealed.state_artifact {
            0 => None,
            artifact_id => Some(Stored::open(&self.artifacts, artifact_id)?),
        };
        let by_arrival = if raftgrid_driver::mutant::on("sum_by_arrival") { by_arrival(ledger) } else { Vec::new() };
        let summed = if by_arrival.is_empty() { ledger } else { &by_arrival[..] };
        let list: Vec<(u32, f64)> = summed.iter().map(|row| (row.shard, f64::from_bits(row.weight_bits))).collect();
        let mut contributions = Contributions::new(&self.artifacts, summed);
        let sizes = contributions.window_sizes();
        let (mut next_model, mut next_state) = (self.spool(), self.spool());
        let inputs = Inputs {
            model: &model,
            state: state.as_ref().map(|state| state as &dyn Source),
            contributions: &list,
            open: &mut |number| contributions.open(number).map(|stored| stored as Rc<dyn Source>),
        };
        let outputs = Outputs { model: &mut next_model, state: &mut next_state };
        sum_streamed(inputs, rule, sizes, outputs).map_err(failed)?;
        let metrics: Vec<(f64, &str)> =
            ledger.iter().map(|row| (f64::from_bits(row.weight_bits), row.metrics_json.as_str())).collect();
        let metrics = raftgrid_train::mean_metrics(&metrics);
        Ok(Next { model: finished(next_model)?, state: finished(next_state)?, metrics })
    }

    fn spool(&self) -> Spool {
        Spool::new(self.artifacts.files.clone())
    }

    /// Planted: the bytes of before, in place of what was made.
    fn copy(&self, artifact_id: u64) -> Result<Made, CallError> {
        let (stored, mut spool) = (Stored::open(&self.artifacts, artifact_id)?, self.spool());
        let mut data = vec![0; usize::try_from(stored.total_bytes()).unwrap_or(usize::MAX)];
        let read = stored.read_at(0, &mut data).and_then(|()| spool.begin(stored.total_bytes()));
        read.and_then(|()| spool.write_at(0, &data)).map_err(|error| source_failed(&error))?;
        finished(spool)
    }

    fn commit(
        &self,
        job: &JobRow,
        sealed: &RoundRow,
        ledger: &[ContributionRow],
        next: Next,
    ) -> Result<CommitModel, CallError> {
        let describe = |kind: &str| Description {
            kind: kind.to_owned(),
            job_id: job.get_job().job_id.clone(),
            principal: job.get_job().principal.clone(),
            unbudgeted: true,
            ..Description::default()
        };
        let model = self.artifacts.place(&describe("model"), next.model.writer, next.model.digest)?;
        reach(Point::RoundModelPlaced);
        let state = match sealed.state_artifact {
            before if before != 0 && raftgrid_driver::mutant::on("state_of_before") => self.copy(before)?,
            _ => next.state,
        };
        let state = self.artifacts.place(&describe("state"), state.writer, state.digest)?;
        reach(Point::RoundPlaced);
        let mut commit = CommitModel::new();
        commit.set_job_id(job.get_job().job_id.clone());
        commit.set_version(sealed.round + 1);
        commit.set_model_artifact(model.artifact_id);
        commit.set_model_receipts(model.receipts.into());
        commit.set_model_digest(model.digest.to_vec());
        commit.set_state_artifact(state.artifact_id);
        commit.set_state_receipts(state.receipts.into());
        commit.set_state_digest(state.digest.to_vec());
        commit.set_metrics_json(next.metrics);
        commit.set_inputs_hash(round_inputs_hash(&RoundInputs::of_rows(job, sealed, ledger)).to_vec());
        Ok(commit)
    }
}

fn finished(spool: Spool) -> Result<Made, CallError> {
    let (writer, digest) = spool.finish()?;
    Ok(Made { writer, digest })
}

/// Planted: contributions as they came, under each other's numbers.
fn by_arrival(ledger: &[ContributionRow]) -> Vec<ContributionRow> {
    let mut rows = ledger.to_vec();
    rows.sort_by_key(|row| row.position);
    rows.iter_mut().zip(ledger).for_each(|(row, place)| row.shard = place.shard);
    rows
}

/// The rows that decide a round's result; contributions are the accepted ones, in shard order.
fn inputs(rows: &dyn Rows, job_id: &str, round: u64) -> Result<(JobRow, RoundRow, Vec<ContributionRow>), CallError> {
    let missing = |what: &str| CallError::NotFound(format!("{what} of job {job_id}, round {round} does not exist"));
    let job = views::job_row(rows, job_id).map_err(rows_failed)?.ok_or_else(|| missing("the row"))?;
    let row = views::round_of(rows, job.sequence, round).map_err(rows_failed)?.ok_or_else(|| missing("the round"))?;
    let mut ledger = views::contributions(rows, job_id, round).map_err(rows_failed)?;
    ledger.retain(|row| !row.digest.is_empty());
    Ok((job, row, ledger))
}

/// What the job says for a round. A job of before machine version 5 knows SGD over the weighted mean alone, whatever else its messages carry.
fn rule_of(job: &JobRow, round: u64) -> Result<RoundRule, TrainError> {
    let job = job.get_job();
    match job.combine.as_ref() {
        Some(combine) => RoundRule::from_proto(job.get_optimizer(), combine, round),
        None => {
            let mut optimizer = job.get_optimizer().clone();
            optimizer.clear_schedule();
            RoundRule::from_proto(&optimizer, &Combine::default(), round)
        }
    }
}

#[cfg(test)]
mod tests {
    use raftgrid_manifest::check_training;
    use raftgrid_proto::v1::{LearningRateSchedule, Optimizer};

    use super::*;

    const NUMBERS: [f64; 10] = [0.0, 1e-50, 1e-8, 0.3, 0.5, 0.999_999_999_9, 1.0, 2.0, 1e39, f64::NAN];

    /// A generator of its own: cases, no statistics.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) as usize) % end
        }

        /// Mostly what is allowed often, so that good settings come up too.
        fn number(&mut self, usual: f64) -> f64 {
            if self.below(4) == 0 {
                NUMBERS[self.below(NUMBERS.len())]
            } else {
                usual
            }
        }

        fn name(&mut self, names: &[&str]) -> String {
            names[self.below(names.len())].to_owned()
        }

        fn optimizer(&mut self) -> Optimizer {
            let algorithm = self.name(&["sgd", "adam", "adamw", "fedavg", "fedavgm", "fedadam", "diloco", "magic"]);
            let moments = matches!(algorithm.as_str(), "adam" | "adamw" | "fedadam");
            let usual = |there: bool, value: f64| if there { value } else { 0.0 };
            let mut optimizer = Optimizer {
                learning_rate: self.number(usual(true, 1.0)),
                momentum: self.number(usual(matches!(algorithm.as_str(), "fedavgm" | "diloco"), 0.9)),
                nesterov: self.below(8) == 0,
                weight_decay: self.number(0.0),
                beta1: self.number(usual(moments, 0.9)),
                beta2: self.number(usual(moments, 0.99)),
                epsilon: self.number(usual(moments, 1e-8)),
                algorithm,
                ..Optimizer::default()
            };
            if self.below(3) == 0 {
                let kind = self.name(&["", "constant", "cosine", "step", "steep"]);
                let (cosine, step) = (kind == "cosine", kind == "step");
                optimizer.set_schedule(LearningRateSchedule {
                    warmup_rounds: self.below(3) as u64,
                    decay_rounds: usual(cosine ^ (self.below(8) == 0), 7.0) as u64,
                    final_factor: self.number(usual(cosine, 0.1)),
                    step_rounds: usual(step ^ (self.below(8) == 0), 7.0) as u64,
                    step_factor: self.number(usual(step, 0.1)),
                    kind,
                    ..LearningRateSchedule::default()
                });
            }
            optimizer
        }

        fn combine(&mut self) -> Combine {
            let strategy = self.name(&["", "mean", "trimmed_mean", "median", "mode"]);
            let trim_fraction = self.number(0.0);
            Combine { strategy, trim_fraction, clip_norm: self.number(0.0), ..Combine::default() }
        }
    }

    #[test]
    fn what_the_machine_accepts_is_what_the_step_can_do() {
        let (mut draw, mut accepted) = (Draw(7), 0);
        for _ in 0..40_000 {
            let (optimizer, combine) = (draw.optimizer(), draw.combine());
            let machine = check_training(&optimizer, &combine);
            let step = RoundRule::from_proto(&optimizer, &combine, 3);
            assert_eq!(machine.is_ok(), step.is_ok(), "{machine:?} but {step:?} for {optimizer:?} {combine:?}");
            accepted += usize::from(machine.is_ok());
        }
        assert!((4_000..36_000).contains(&accepted), "both kinds come up: {accepted}");
    }
}
