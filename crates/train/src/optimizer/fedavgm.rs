//! FedAvgM: FedAvg with momentum at the server (Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
//! Visual Classification", 2019, section 4.3; with the server's learning rate of Reddi et al., "Adaptive Federated Optimization", ICLR 2021).
//!
//! Trainers push `delta = model − own model`. With Δ the weighted mean delta and velocity `v`, which starts at +0:
//!
//! ```text
//! v := μ·v + Δ
//! p := p − η·v
//! ```
//!
//! State: `momentum/NAME`.

use raftgrid_proto::v1::Optimizer;

use crate::frame::{Frame, FrameError, Layout};

use super::sgd::Sgd;
use super::{settings, OptimizerError, Stepped};

/// The name that `Optimizer.algorithm` must have.
pub const FEDAVGM: &str = "fedavgm";

/// FedAvgM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FedAvgM {
    sgd: Sgd,
}

impl FedAvgM {
    /// Checks the message: learning rate above 0, momentum in (0, 1), nothing else.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        settings::unused(message, &["weight_decay", "beta1", "beta2", "epsilon"])?;
        settings::no_nesterov(message, FEDAVGM)?;
        let (rate, momentum) = (settings::learning_rate(message)?, settings::momentum_above_0(message)?);
        Ok(Self { sgd: Sgd::over_deltas(rate, momentum, false) })
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

    /// The layout of the state that belongs to a model: a velocity for each tensor.
    pub fn state_layout(&self, model: &Layout) -> Result<Layout, FrameError> {
        self.sgd.state_layout(model)
    }

    /// One step with the mean delta; see [`super::ServerOptimizer::step`].
    pub fn step(&self, model: &Frame<'_>, delta: &[u8], state: Option<&Frame<'_>>) -> Result<Stepped, OptimizerError> {
        self.sgd.step(model, delta, state)
    }
}
