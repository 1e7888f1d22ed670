//! AdamW: Adam with weight decay that does not pass through the moments (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR
//! 2019, algorithm 2), in the form that PyTorch's `AdamW` computes.
//!
//! For each element, with the names of [`super::adam`]:
//!
//! ```text
//! p := p·(1 − η·λ)                      1 − η·λ in f64, rounded once to the tensor's dtype; with λ = 0 nothing is done
//! m := β₁·m + (1 − β₁)·g
//! v := β₂·v + (1 − β₂)·(g·g)
//! p := p − α·(m / (√v / s + ε))         α = η / (1 − β₁ᵗ),  s = √(1 − β₂ᵗ)
//! ```
//!
//! η is the round's: a schedule scales the decay too. State as Adam's.

use raftgrid_proto::v1::Optimizer;

use crate::element::Element;
use crate::frame::{Frame, FrameError, Layout};

use super::elementwise::{self, Elementwise, Slot};
use super::settings::{self, power, Moments};
use super::{OptimizerError, Stepped, FIRST_MOMENT_PREFIX, SECOND_MOMENT_PREFIX};

/// The name that `Optimizer.algorithm` must have.
pub const ADAMW: &str = "adamw";

/// Checked hyper-parameters, in f64 as the job gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    learning_rate: f64,
    moments: Moments,
    weight_decay: f64,
}

impl AdamW {
    /// Checks the message: learning rate above 0, β₁ in [0, 1), β₂ in (0, 1), ε above 0, weight decay at least 0; no momentum.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        settings::unused(message, &["momentum"])?;
        settings::no_nesterov(message, ADAMW)?;
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

impl Elementwise<2> for AdamW {
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
        let (decays, keep) = (self.weight_decay != 0.0, E::from_f64(1.0 - self.learning_rate * self.weight_decay));
        move |parameter, gradient, [first, second]| {
            let parameter = if decays { parameter * keep } else { parameter };
            let first = decay1 * first + gain1 * gradient;
            let second = decay2 * second + gain2 * (gradient * gradient);
            let root = second.sqrt() / correction + epsilon;
            (parameter - rate * (first / root), [first, second])
        }
    }
}
