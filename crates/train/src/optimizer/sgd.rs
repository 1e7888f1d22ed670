//! SGD with momentum, Nesterov's variant and weight decay.
//!
//! For each element, with parameter `p`, mean gradient `g`, velocity `v` (the definition that PyTorch's `SGD` uses, dampening 0; Sutskever
//! et al., "On the importance of initialization and momentum in deep learning", ICML 2013):
//!
//! ```text
//! d := g                          weight_decay = 0
//! d := g + λ·p                    else
//! u := d                          momentum = 0
//! v := μ·v + d;  u := v           momentum > 0           (v starts at +0)
//! v := μ·v + d;  u := d + μ·v     momentum > 0, Nesterov
//! p := p − η·u
//! ```
//!
//! η, μ and λ are rounded once from f64 to the tensor's dtype; every operation is done and rounded in that dtype, by itself. State: a frame
//! with the velocity of tensor `x` under `momentum/x`, and no tensors without momentum.

use raftgrid_proto::v1::Optimizer;

use crate::element::Element;
use crate::frame::{Frame, FrameError, Layout};

use super::elementwise::{self, Elementwise, Slot};
use super::{settings, OptimizerError, Stepped, Visit};

/// The name that `Optimizer.algorithm` must have.
pub const SGD: &str = "sgd";
/// Stands before a tensor's name in the state.
pub const MOMENTUM_PREFIX: &str = "momentum/";

/// Checked hyper-parameters, in f64 as the job gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    learning_rate: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
}

impl Sgd {
    /// Checks the message. Learning rate above 0, momentum in [0, 1), weight decay at least 0, all finite also in f32.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        if message.get_algorithm() != SGD {
            return Err(OptimizerError::Algorithm(message.get_algorithm().to_owned()));
        }
        let momentum = message.get_momentum();
        let sgd = Self {
            learning_rate: settings::learning_rate(message)?,
            momentum: settings::checked("momentum", momentum, (0.0..1.0).contains(&momentum), "from 0 to below 1")?,
            nesterov: message.get_nesterov(),
            weight_decay: settings::weight_decay(message)?,
        };
        if sgd.nesterov && sgd.momentum == 0.0 {
            return Err(OptimizerError::Nesterov);
        }
        Ok(sgd)
    }

    /// For the algorithms that are SGD over deltas; they check what they are given.
    pub(super) fn over_deltas(learning_rate: f64, momentum: f64, nesterov: bool) -> Self {
        Self { learning_rate, momentum, nesterov, weight_decay: 0.0 }
    }

    /// See [`super::ServerOptimizer::visit`].
    pub(super) fn visit<V: Visit>(&self, visit: V) -> V::Output {
        if self.momentum == 0.0 {
            visit.visit(&Plain(*self))
        } else {
            visit.visit(&WithVelocity(*self))
        }
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

    /// The layout of the state that belongs to a model: a velocity for each tensor, or nothing without momentum.
    pub fn state_layout(&self, model: &Layout) -> Result<Layout, FrameError> {
        if self.momentum == 0.0 {
            return Ok(Layout::default());
        }
        elementwise::state_layout(&WithVelocity(*self), model)
    }

    /// One step. `mean`: the mean gradient, all tensors of the model's layout concatenated in canonical order. `state` of None: the first step.
    /// Whether the result is finite is for the caller to check.
    pub fn step(&self, model: &Frame<'_>, mean: &[u8], state: Option<&Frame<'_>>) -> Result<Stepped, OptimizerError> {
        if self.momentum == 0.0 {
            elementwise::step(&Plain(*self), model, mean, state)
        } else {
            elementwise::step(&WithVelocity(*self), model, mean, state)
        }
    }

    /// `d` of the module's head.
    fn direction<E: Element>(&self) -> impl Fn(E, E) -> E {
        let (decays, decay) = (self.weight_decay != 0.0, E::from_f64(self.weight_decay));
        move |parameter, gradient| if decays { gradient + decay * parameter } else { gradient }
    }
}

/// Without momentum: no state.
struct Plain(Sgd);

impl Elementwise<0> for Plain {
    fn slots(&self) -> [Slot; 0] {
        []
    }

    fn counts_steps(&self) -> bool {
        false
    }

    fn rule<E: Element>(&self, _step: u64) -> impl Fn(E, E, [E; 0]) -> (E, [E; 0]) {
        let rate = E::from_f64(self.0.learning_rate);
        let direction = self.0.direction::<E>();
        move |parameter, gradient, []| (parameter - rate * direction(parameter, gradient), [])
    }
}

/// With momentum.
struct WithVelocity(Sgd);

impl Elementwise<1> for WithVelocity {
    fn slots(&self) -> [Slot; 1] {
        [Slot { prefix: MOMENTUM_PREFIX, start: 0.0 }]
    }

    fn counts_steps(&self) -> bool {
        false
    }

    fn rule<E: Element>(&self, _step: u64) -> impl Fn(E, E, [E; 1]) -> (E, [E; 1]) {
        let (rate, momentum) = (E::from_f64(self.0.learning_rate), E::from_f64(self.0.momentum));
        let nesterov = self.0.nesterov;
        let direction = self.0.direction::<E>();
        move |parameter, gradient, [before]| {
            let direction = direction(parameter, gradient);
            let velocity = momentum * before + direction;
            let update = if nesterov { direction + momentum * velocity } else { velocity };
            (parameter - rate * update, [velocity])
        }
    }
}
