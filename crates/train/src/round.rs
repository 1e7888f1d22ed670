//! A round being summed: the model it began with, its state, its rule; what callers combine window by window, and the step at the end.

use std::ops::Range;

use crate::aggregate::{next_model, Aggregated, TrainError};
use crate::combine::{Combiner, Strategy};
use crate::contribution::Contribution;
use crate::frame::Frame;
use crate::guard::{check_model, GuardLimits};
use crate::mean::Mean;
use crate::rule::RoundRule;

/// What does not depend on a window of elements. The same windows or others: the result has the same bytes.
pub struct Round<'a> {
    model: Frame<'a>,
    state: Option<Frame<'a>>,
    rule: RoundRule,
}

impl<'a> Round<'a> {
    /// `state` of None: no step was done yet. Errors: a model or state that is none.
    pub fn new(model: &'a [u8], state: Option<&'a [u8]>, rule: RoundRule) -> Result<Self, TrainError> {
        let model = check_model(model, &GuardLimits::default()).map_err(TrainError::Model)?;
        let state = state.map(Frame::parse).transpose().map_err(TrainError::State)?;
        Ok(Self { model, state, rule })
    }

    /// Elements of the model.
    pub fn elements(&self) -> usize {
        self.model.layout().elements()
    }

    /// Ranges of elements, in order, that cover the model. The mean takes all of it at once: its memory does not grow with the shards. Order
    /// statistics hold every contribution, decoded: at most `bytes_max` of them in one window, but one element at least.
    pub fn windows(&self, shards: usize, bytes_max: usize) -> Vec<Range<usize>> {
        let elements = self.model.layout().elements();
        let window = match self.rule.combine.strategy {
            Strategy::Mean => elements,
            Strategy::Order(_) => bytes_max / (shards.max(1) * size_of::<f64>()),
        };
        let window = window.max(1);
        (0..elements).step_by(window).map(|from| from..elements.min(from + window)).collect()
    }

    /// What takes the contributions of a window. `shards`: the sealed list, strictly rising.
    pub fn combiner(&self, window: Range<usize>, shards: &[u32]) -> Result<Combiner, TrainError> {
        let strategy = self.rule.combine.strategy;
        Ok(Combiner::with_range(window, self.model.layout(), shards, strategy)?)
    }

    /// The next shard's contribution, encoded or not. Weight 0 counts as 1. On an error nothing has changed.
    pub fn add(&self, combiner: &mut Combiner, shard: u32, weight: f64, bytes: &[u8]) -> Result<(), TrainError> {
        let contribution = Contribution::parse(self.model.layout(), bytes, &GuardLimits::default())
            .map_err(|cause| TrainError::Contribution { shard, cause })?;
        combiner.add(shard, &self.rule.combine.prepare(contribution), weight)?;
        Ok(())
    }

    /// The next model and state from all windows, in order.
    pub fn finish(&self, windows: Vec<Mean>) -> Result<Aggregated, TrainError> {
        let mut windows = windows.into_iter();
        let mut combined = windows.next().unwrap_or(Mean { data: Vec::new(), weight_sum: 0.0 });
        for window in windows {
            combined.data.extend_from_slice(&window.data);
        }
        next_model(&self.model, self.state.as_ref(), &combined, &self.rule.optimizer)
    }
}
