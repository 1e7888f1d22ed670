//! Model r, state r and the sealed contributions in shard order become model r + 1 and state r + 1.

use raftgrid_proto::v1::{Combine as CombineMessage, Optimizer};

use crate::combine::{CombineError, Combiner};
use crate::frame::{Frame, FrameError};
use crate::guard::GuardError;
use crate::mean::{Mean, MeanError};
use crate::norm::l2_norm;
use crate::optimizer::{OptimizerError, ServerOptimizer};
use crate::round::Round;
use crate::rule::RoundRule;
use crate::schedule::ScheduleError;
use crate::source::SourceError;

/// Why there is no next model. The same inputs fail always, but where bytes could not be read or written ([`TrainError::source_error`]).
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model that the round began with.
    #[error("failed to aggregate: the model: {0}")]
    Model(GuardError),
    /// The state that belongs to it.
    #[error("failed to aggregate: the optimiser's state: {0}")]
    State(FrameError),
    /// A contribution.
    #[error("failed to aggregate: shard {shard}: {cause}")]
    Contribution {
        /// Which.
        shard: u32,
        /// Why.
        cause: GuardError,
    },
    /// The mean.
    #[error(transparent)]
    Mean(#[from] MeanError),
    /// The optimiser.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// How contributions are combined.
    #[error(transparent)]
    Combine(#[from] CombineError),
    /// The learning rate's schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A schedule for an algorithm whose learning rate is fixed.
    #[error("failed to aggregate: {0} does not take a schedule")]
    ScheduleUnused(&'static str),
    /// A schedule where no round is known.
    #[error("failed to aggregate: the optimiser has a schedule, which needs the number of the round")]
    RoundNeeded,
    /// The result has NaN or infinity in it: training diverged.
    #[error("failed to aggregate: the next {what}: {cause}; a smaller learning rate may help")]
    NotFinite {
        /// "model" or "state".
        what: &'static str,
        /// Which tensor.
        cause: GuardError,
    },
    /// Bytes could not be read or written.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl TrainError {
    /// The trouble with the bytes, if it is that: then a retry may help.
    pub fn source_error(&self) -> Option<&SourceError> {
        match self {
            Self::Source(error) | Self::State(FrameError::Source(error)) => Some(error),
            Self::Model(cause) | Self::Contribution { cause, .. } => cause.source_error(),
            Self::State(_)
            | Self::Mean(_)
            | Self::Optimizer(_)
            | Self::Combine(_)
            | Self::Schedule(_)
            | Self::ScheduleUnused(_)
            | Self::RoundNeeded
            | Self::NotFinite { .. } => None,
        }
    }
}

/// Result of a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregated {
    /// Model r + 1, canonical file.
    pub model: Vec<u8>,
    /// State r + 1, canonical file; no tensors where the optimiser keeps none.
    pub state: Vec<u8>,
    /// Σw.
    pub weight_sum: f64,
    /// Euclidean norm of the combined contribution over all elements.
    pub gradient_norm: f64,
}

/// A round's aggregation, contribution by contribution. Memory: for the mean one accumulator, whatever the number of shards; for trimmed mean
/// and median every contribution, so that callers with large models go over the windows of a [`Round`].
pub struct Aggregator<'a> {
    round: Round<'a>,
    combiner: Combiner,
}

impl<'a> Aggregator<'a> {
    /// The weighted mean, then the optimiser. `state` of None: no step was done yet. `shards`: the sealed list, strictly rising. Errors: also an
    /// optimiser with a schedule, since its learning rate depends on the round: [`Aggregator::with_rule`].
    pub fn new(
        model: &'a [u8],
        state: Option<&'a [u8]>,
        shards: &[u32],
        optimizer: &Optimizer,
    ) -> Result<Self, TrainError> {
        if optimizer.has_schedule() {
            return Err(TrainError::RoundNeeded);
        }
        let rule = RoundRule::from_proto(optimizer, &CombineMessage::default(), 0)?;
        Self::with_rule(model, state, shards, rule)
    }

    /// The same by the rule of a round.
    pub fn with_rule(
        model: &'a [u8],
        state: Option<&'a [u8]>,
        shards: &[u32],
        rule: RoundRule,
    ) -> Result<Self, TrainError> {
        let round = Round::new(model, state, rule)?;
        let combiner = round.combiner(0..round.elements(), shards)?;
        Ok(Self { round, combiner })
    }

    /// The shard that [`Aggregator::add`] takes next; None when all are there.
    pub fn next_shard(&self) -> Option<u32> {
        self.combiner.next_shard()
    }

    /// The next shard's contribution, encoded or not. Weight 0 counts as 1. On an error nothing has changed.
    pub fn add(&mut self, shard: u32, weight: f64, bytes: &[u8]) -> Result<(), TrainError> {
        self.round.add(&mut self.combiner, shard, weight, bytes)
    }

    /// The next model and state, when every sealed shard was added.
    pub fn finish(self) -> Result<Aggregated, TrainError> {
        let combined = self.combiner.finish()?;
        self.round.finish(vec![combined])
    }
}

/// The optimiser's step with what the round's contributions were combined to: all elements of the model, from one [`Combiner`] or the windows of
/// several put together. Errors: a state that belongs to another model; a result that is not finite.
pub fn next_model(
    model: &Frame<'_>,
    state: Option<&Frame<'_>>,
    combined: &Mean,
    optimizer: &ServerOptimizer,
) -> Result<Aggregated, TrainError> {
    let gradient_norm = l2_norm(model.layout().split(&combined.data));
    let stepped = optimizer.step(model, &combined.data, state)?;
    check_next("model", &stepped.model)?;
    check_next("state", &stepped.state)?;
    Ok(Aggregated { model: stepped.model, state: stepped.state, weight_sum: combined.weight_sum, gradient_norm })
}

/// One call for a whole round: `contributions` in shard order, as the ledger lists them.
pub fn aggregate<B: AsRef<[u8]>>(
    model: &[u8],
    state: Option<&[u8]>,
    contributions: impl IntoIterator<Item = (f64, B)>,
    optimizer: &Optimizer,
) -> Result<Aggregated, TrainError> {
    let contributions: Vec<(f64, B)> = contributions.into_iter().collect();
    let shards: Vec<u32> = (0..contributions.len()).map(|shard| u32::try_from(shard).unwrap_or(u32::MAX)).collect();
    let mut aggregator = Aggregator::new(model, state, &shards, optimizer)?;
    for (shard, (weight, bytes)) in shards.iter().zip(&contributions) {
        aggregator.add(*shard, *weight, bytes.as_ref())?;
    }
    aggregator.finish()
}

fn check_next(what: &'static str, bytes: &[u8]) -> Result<(), TrainError> {
    let frame = Frame::parse(bytes).map_err(OptimizerError::Frame)?;
    crate::guard::check_finite(&frame).map_err(|cause| TrainError::NotFinite { what, cause })
}
