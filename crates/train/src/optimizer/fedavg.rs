//! FedAvg: the next model is the weighted mean of the trainers' models (McMahan et al., "Communication-Efficient Learning of Deep Networks
//! from Decentralized Data", AISTATS 2017, algorithm 1).
//!
//! Trainers push `delta = model − own model`, so with Δ the weighted mean delta the mean of their models is
//!
//! ```text
//! p := p − Δ          SGD with learning rate 1
//! ```
//!
//! Its learning rate must be 1 and it takes no schedule: with another rate it is `sgd` over deltas, and should be called so. No state.

use raftgrid_proto::v1::Optimizer;

use crate::frame::{Frame, FrameError, Layout};

use super::sgd::Sgd;
use super::{settings, OptimizerError, Stepped};

/// The name that `Optimizer.algorithm` must have.
pub const FEDAVG: &str = "fedavg";

/// FedAvg.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FedAvg {
    sgd: Sgd,
}

impl FedAvg {
    /// Checks the message: a learning rate of 1 and nothing else.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        let rate = message.get_learning_rate();
        settings::checked("learning_rate", rate, rate == 1.0, "1: the mean of models has no other")?;
        settings::unused(message, &["momentum", "weight_decay", "beta1", "beta2", "epsilon"])?;
        settings::no_nesterov(message, FEDAVG)?;
        Ok(Self { sgd: Sgd::over_deltas(rate, 0.0, false) })
    }

    /// What it is in terms of deltas.
    pub(super) fn sgd(&self) -> &Sgd {
        &self.sgd
    }

    /// η.
    pub fn learning_rate(&self) -> f64 {
        self.sgd.learning_rate()
    }

    /// The same with another η.
    #[must_use]
    pub fn with_learning_rate(self, learning_rate: f64) -> Self {
        Self { sgd: self.sgd.with_learning_rate(learning_rate) }
    }

    /// The layout of the state that belongs to a model: no tensors.
    pub fn state_layout(&self, model: &Layout) -> Result<Layout, FrameError> {
        self.sgd.state_layout(model)
    }

    /// One step with the mean delta; see [`super::ServerOptimizer::step`].
    pub fn step(&self, model: &Frame<'_>, delta: &[u8], state: Option<&Frame<'_>>) -> Result<Stepped, OptimizerError> {
        self.sgd.step(model, delta, state)
    }
}
