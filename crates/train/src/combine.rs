//! How the contributions of a round become one: the job's choice, and what carries it out.

use std::ops::Range;

use raftgrid_proto::v1::Combine as CombineMessage;

use crate::contribution::Contribution;
use crate::frame::Layout;
use crate::mean::{Accumulator, Mean, MeanError, Precision};
use crate::order_statistics::{OrderStatistic, OrderStatistics};

/// Names of `Combine.strategy`; an empty one is the first.
pub const STRATEGIES: [&str; 3] = ["mean", "trimmed_mean", "median"];

/// Why a message is refused. A retry never helps.
#[derive(Debug, thiserror::Error)]
pub enum CombineError {
    /// Unknown strategy.
    #[error("failed to set up the combination: strategy `{0}` is unknown, there are mean, trimmed_mean, median")]
    Strategy(String),
    /// A parameter out of its range.
    #[error("failed to set up the combination: {name} is {value}, it must be {range}")]
    Parameter {
        /// Its field.
        name: &'static str,
        /// As given.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
}

/// Strategy without its clipping.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Strategy {
    /// The weighted mean in shard order; see [`crate::mean`].
    #[default]
    Mean,
    /// Element by element, without weights; see [`crate::order_statistics`].
    Order(OrderStatistic),
}

/// A job's choice, checked.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Combine {
    /// What is done with all contributions.
    pub strategy: Strategy,
    /// What is done with each before: its Euclidean norm is brought down to this; see [`crate::contribution`].
    pub clip_norm: Option<f64>,
}

impl Combine {
    /// Checks the message; the default message is the weighted mean. Errors: an unknown strategy, a parameter out of its range or of another
    /// strategy.
    pub fn from_proto(message: &CombineMessage) -> Result<Self, CombineError> {
        let (fraction, clip) = (message.get_trim_fraction(), message.get_clip_norm());
        let [mean, trimmed_mean, median] = STRATEGIES;
        let strategy = match message.get_strategy() {
            "" => Strategy::Mean,
            name if name == mean => Strategy::Mean,
            name if name == median => Strategy::Order(OrderStatistic::Median),
            name if name == trimmed_mean => Strategy::Order(OrderStatistic::TrimmedMean { fraction }),
            other => return Err(CombineError::Strategy(other.to_owned())),
        };
        let trims = matches!(strategy, Strategy::Order(OrderStatistic::TrimmedMean { .. }));
        if trims && !(0.0..0.5).contains(&fraction) {
            let range = "from 0 to below 0.5";
            return Err(CombineError::Parameter { name: "trim_fraction", value: fraction, range });
        }
        if !trims && fraction != 0.0 {
            let range = "0: only trimmed_mean trims";
            return Err(CombineError::Parameter { name: "trim_fraction", value: fraction, range });
        }
        if !(clip >= 0.0 && clip.is_finite()) {
            let range = "at least 0 and finite";
            return Err(CombineError::Parameter { name: "clip_norm", value: clip, range });
        }
        Ok(Self { strategy, clip_norm: (clip > 0.0).then_some(clip) })
    }

    /// The contribution as the strategy takes it: clipped, if the job says so. A pass over all of it.
    pub fn prepare<'a>(&self, contribution: Contribution<'a>) -> Contribution<'a> {
        match self.clip_norm {
            Some(norm_max) => contribution.clipped(norm_max),
            None => contribution,
        }
    }
}

/// Takes a range of elements of each contribution, in shard order, and gives the range combined. Ranges are independent of each other.
#[derive(Debug)]
pub enum Combiner {
    /// Memory: one element of the accumulator for each of the range.
    Mean(Accumulator),
    /// Memory: one element for each of the range and each shard.
    Order(OrderStatistics),
}

impl Combiner {
    /// Over some elements, numbered through the model's tensors in canonical order. `shards`: the sealed list, strictly rising.
    pub fn with_range(
        range: Range<usize>,
        model: &Layout,
        shards: &[u32],
        strategy: Strategy,
    ) -> Result<Self, MeanError> {
        Ok(match strategy {
            Strategy::Mean => Self::Mean(Accumulator::with_range(range, model, shards, Precision::Tensor)?),
            Strategy::Order(statistic) => Self::Order(OrderStatistics::with_range(range, model, shards, statistic)?),
        })
    }

    /// The shard that [`Combiner::add`] takes next; None when all are there.
    pub fn next_shard(&self) -> Option<u32> {
        match self {
            Self::Mean(accumulator) => accumulator.next_shard(),
            Self::Order(statistics) => statistics.next_shard(),
        }
    }

    /// The next shard's contribution, prepared ([`Combine::prepare`]). Weight 0 counts as 1. On an error nothing has changed.
    pub fn add(&mut self, shard: u32, contribution: &Contribution<'_>, weight: f64) -> Result<(), MeanError> {
        match self {
            Self::Mean(accumulator) => accumulator.add_contribution(shard, contribution, weight),
            Self::Order(statistics) => statistics.add(shard, contribution, weight),
        }
    }

    /// The range combined, when every sealed shard was added.
    pub fn finish(self) -> Result<Mean, MeanError> {
        match self {
            Self::Mean(accumulator) => accumulator.finish(),
            Self::Order(statistics) => statistics.finish(),
        }
    }
}
