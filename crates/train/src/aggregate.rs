//! Model r, state r and the sealed contributions in shard order become model r + 1 and state r + 1.

use raftgrid_proto::v1::Optimizer;

use crate::frame::{Frame, FrameError};
use crate::guard::{check_contribution, check_model, GuardError, GuardLimits};
use crate::mean::{Accumulator, MeanError, Precision};
use crate::norm::l2_norm;
use crate::optimizer::{OptimizerError, ServerOptimizer};

/// Why there is no next model. The same inputs fail always; a retry never helps.
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
    /// The result has NaN or infinity in it: training diverged.
    #[error("failed to aggregate: the next {what}: {cause}; a smaller learning rate may help")]
    NotFinite {
        /// "model" or "state".
        what: &'static str,
        /// Which tensor.
        cause: GuardError,
    },
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
    /// Euclidean norm of the mean gradient over all elements.
    pub gradient_norm: f64,
}

/// A round's aggregation, contribution by contribution: one accumulator in memory, whatever the number of shards.
pub struct Aggregator<'a> {
    model: Frame<'a>,
    state: Option<Frame<'a>>,
    optimizer: ServerOptimizer,
    accumulator: Accumulator,
}

impl<'a> Aggregator<'a> {
    /// `state` of None: no step was done yet. `shards`: the sealed list, strictly rising.
    pub fn new(
        model: &'a [u8],
        state: Option<&'a [u8]>,
        shards: &[u32],
        optimizer: &Optimizer,
    ) -> Result<Self, TrainError> {
        let optimizer = ServerOptimizer::from_proto(optimizer)?;
        let model = check_model(model, &GuardLimits::default()).map_err(TrainError::Model)?;
        let state = state.map(Frame::parse).transpose().map_err(TrainError::State)?;
        let accumulator = Accumulator::new(model.layout(), shards, Precision::Tensor)?;
        Ok(Self { model, state, optimizer, accumulator })
    }

    /// The shard that [`Aggregator::add`] takes next; None when all are there.
    pub fn next_shard(&self) -> Option<u32> {
        self.accumulator.next_shard()
    }

    /// The next shard's contribution. Weight 0 counts as 1. On an error nothing has changed.
    pub fn add(&mut self, shard: u32, weight: f64, bytes: &[u8]) -> Result<(), TrainError> {
        let frame = check_contribution(self.model.layout(), bytes, &GuardLimits::default())
            .map_err(|cause| TrainError::Contribution { shard, cause })?;
        self.accumulator.add(shard, &frame, weight)?;
        Ok(())
    }

    /// The next model and state, when every sealed shard was added.
    pub fn finish(self) -> Result<Aggregated, TrainError> {
        let mean = self.accumulator.finish()?;
        let gradient_norm = l2_norm(self.model.layout().split(&mean.data));
        let stepped = self.optimizer.step(&self.model, &mean.data, self.state.as_ref())?;
        check_next("model", &stepped.model)?;
        check_next("state", &stepped.state)?;
        Ok(Aggregated { model: stepped.model, state: stepped.state, weight_sum: mean.weight_sum, gradient_norm })
    }
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
