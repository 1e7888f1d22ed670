//! Adam (Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1), in the form that PyTorch's `Adam` computes.
//!
//! For each element, with parameter `p`, combined contribution `g`, moments `m` and `v`, which start at +0, in step t (1 is the first):
//!
//! ```text
//! g := g + λ·p                          weight_decay > 0 (added to the gradient: L2 regularisation)
//! m := β₁·m + (1 − β₁)·g
//! v := β₂·v + (1 − β₂)·(g·g)
//! p := p − α·(m / (√v / s + ε))         α = η / (1 − β₁ᵗ),  s = √(1 − β₂ᵗ)
//! ```
//!
//! 1 − β, α and s are computed in f64, powers as [`power`] says, and rounded once to the tensor's dtype, as are β₁, β₂, ε and λ. Every
//! operation on elements is done and rounded in that dtype. State: `first_moment/NAME`, `second_moment/NAME`, and `step` (F64, shape []), the
//! number of steps done: a round whose model was committed is a step, so t does not depend on how often a sum was tried.

use raftgrid_proto::v1::Optimizer;

use crate::element::Element;
use crate::frame::{Frame, FrameError, Layout};

use super::elementwise::{self, Elementwise, Slot};
use super::settings::{self, power, Moments};
use super::{OptimizerError, Stepped, FIRST_MOMENT_PREFIX, SECOND_MOMENT_PREFIX};

/// The name that `Optimizer.algorithm` must have.
pub const ADAM: &str = "adam";

/// Checked hyper-parameters, in f64 as the job gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    learning_rate: f64,
    moments: Moments,
    weight_decay: f64,
}

impl Adam {
    /// Checks the message: learning rate above 0, β₁ in [0, 1), β₂ in (0, 1), ε above 0, weight decay at least 0; no momentum.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        settings::unused(message, &["momentum"])?;
        settings::no_nesterov(message, ADAM)?;
        Ok(Self {
            learning_rate: settings::learning_rate(message)?,
            moments: Moments::from_proto(message)?,
            weight_decay: settings::weight_decay(message)?,
        })
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

    /// The layout of the state that belongs to a model: two moments for each tensor and the number of steps.
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

impl Elementwise<2> for Adam {
    fn slots(&self) -> [Slot; 2] {
        [Slot { prefix: FIRST_MOMENT_PREFIX, start: 0.0 }, Slot { prefix: SECOND_MOMENT_PREFIX, start: 0.0 }]
    }

    fn counts_steps(&self) -> bool {
        true
    }

    fn rule<E: Element>(&self, step: u64) -> impl Fn(E, E, [E; 2]) -> (E, [E; 2]) {
        let Moments { beta1, beta2, epsilon } = self.moments;
        let (decay1, gain1) = (E::from_f64(beta1), E::from_f64(1.0 - beta1));
        let (decay2, gain2) = (E::from_f64(beta2), E::from_f64(1.0 - beta2));
        let rate = E::from_f64(self.learning_rate / (1.0 - power(beta1, step)));
        let correction = E::from_f64((1.0 - power(beta2, step)).sqrt());
        let epsilon = E::from_f64(epsilon);
        let (decays, decay) = (self.weight_decay != 0.0, E::from_f64(self.weight_decay));
        move |parameter, gradient, [first, second]| {
            let gradient = if decays { gradient + decay * parameter } else { gradient };
            let first = decay1 * first + gain1 * gradient;
            let second = decay2 * second + gain2 * (gradient * gradient);
            let root = second.sqrt() / correction + epsilon;
            (parameter - rate * (first / root), [first, second])
        }
    }
}
