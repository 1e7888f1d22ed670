//! FedAdam (Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2).
//!
//! Trainers push `delta = model − own model`; the paper's Δ has the other sign, hence the minus below. With Δ the combined delta, moments `m`,
//! which starts at +0, and `v`, which starts at τ² (the paper asks for at least that):
//!
//! ```text
//! m := β₁·m + (1 − β₁)·Δ
//! v := β₂·v + (1 − β₂)·(Δ·Δ)
//! p := p − η·(m / (√v + τ))
//! ```
//!
//! No bias correction: the paper has none. τ is `Optimizer.epsilon`, the adaptivity (1e-3 in the paper; Adam's 1e-8 would be far too small).
//! τ² and 1 − β are computed in f64 and rounded once to the tensor's dtype, as are β₁, β₂, η and τ. State: `first_moment/NAME`,
//! `second_moment/NAME`.

use raftgrid_proto::v1::Optimizer;

use crate::element::Element;
use crate::frame::{Frame, FrameError, Layout};

use super::elementwise::{self, Elementwise, Slot};
use super::settings::{self, Moments};
use super::{OptimizerError, Stepped, FIRST_MOMENT_PREFIX, SECOND_MOMENT_PREFIX};

/// The name that `Optimizer.algorithm` must have.
pub const FEDADAM: &str = "fedadam";

/// Checked hyper-parameters, in f64 as the job gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FedAdam {
    learning_rate: f64,
    moments: Moments,
}

impl FedAdam {
    /// Checks the message: learning rate above 0, β₁ in [0, 1), β₂ in (0, 1), ε above 0, no weight decay; no momentum.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        settings::unused(message, &["momentum", "weight_decay"])?;
        settings::no_nesterov(message, FEDADAM)?;
        Ok(Self { learning_rate: settings::learning_rate(message)?, moments: Moments::from_proto(message)? })
    }

    /// η.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// The same with another η.
    #[must_use]
    pub fn with_learning_rate(self, learning_rate: f64) -> Self {
        Self { learning_rate, ..self }
    }

    /// The layout of the state that belongs to a model: two moments for each tensor.
    pub fn state_layout(&self, model: &Layout) -> Result<Layout, FrameError> {
        elementwise::state_layout(self, model)
    }

    /// One step; see [`super::ServerOptimizer::step`].
    pub fn step(
        &self,
        model: &Frame<'_>,
        combined: &[u8],
        state: Option<&Frame<'_>>,
    ) -> Result<Stepped, OptimizerError> {
        elementwise::step(self, model, combined, state)
    }
}

impl Elementwise<2> for FedAdam {
    fn slots(&self) -> [Slot; 2] {
        [
            Slot { prefix: FIRST_MOMENT_PREFIX, start: 0.0 },
            Slot { prefix: SECOND_MOMENT_PREFIX, start: self.moments.epsilon * self.moments.epsilon },
        ]
    }

    fn counts_steps(&self) -> bool {
        false
    }

    fn rule<E: Element>(&self, _step: u64) -> impl Fn(E, E, [E; 2]) -> (E, [E; 2]) {
        let Moments { beta1, beta2, epsilon } = self.moments;
        let (decay1, gain1) = (E::from_f64(beta1), E::from_f64(1.0 - beta1));
        let (decay2, gain2) = (E::from_f64(beta2), E::from_f64(1.0 - beta2));
        let (rate, adaptivity) = (E::from_f64(self.learning_rate), E::from_f64(epsilon));
        move |parameter, delta, [first, second]| {
            let first = decay1 * first + gain1 * delta;
            let second = decay2 * second + gain2 * (delta * delta);
            (parameter - rate * (first / (second.sqrt() + adaptivity)), [first, second])
        }
    }
}
