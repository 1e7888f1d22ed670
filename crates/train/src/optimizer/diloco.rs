//! DiLoCo's outer optimiser: Nesterov's momentum over mean deltas of many local steps (Douillard et al., "DiLoCo: Distributed
//! Low-Communication Training of Language Models", 2023, algorithm 1; they use η = 0.7 and μ = 0.9).
//!
//! Trainers push `delta = model − own model`, which is the paper's outer gradient. With Δ its weighted mean and velocity `v`, which starts at +0:
//!
//! ```text
//! v := μ·v + Δ
//! p := p − η·(Δ + μ·v)
//! ```
//!
//! State: `momentum/NAME`.

use raftgrid_proto::v1::Optimizer;

use crate::frame::{Frame, FrameError, Layout};

use super::sgd::Sgd;
use super::{settings, OptimizerError, Stepped};

/// The name that `Optimizer.algorithm` must have.
pub const DILOCO: &str = "diloco";

/// DiLoCo's outer optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiLoCo {
    sgd: Sgd,
}

impl DiLoCo {
    /// Checks the message: learning rate above 0, momentum in (0, 1), nothing else. `nesterov` may be set or not: there is no other way.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        settings::unused(message, &["weight_decay", "beta1", "beta2", "epsilon"])?;
        let (rate, momentum) = (settings::learning_rate(message)?, settings::momentum_above_0(message)?);
        Ok(Self { sgd: Sgd::over_deltas(rate, momentum, true) })
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
