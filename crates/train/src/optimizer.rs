//! What the leader does with a round's mean gradient: SGD with momentum, Nesterov's variant and weight decay.
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

use crate::frame::{f32s, f64s, Dtype, Frame, FrameError, Layout, TensorSpec};

/// The name that `Optimizer.algorithm` must have.
pub const SGD: &str = "sgd";
/// Stands before a tensor's name in the state.
pub const MOMENTUM_PREFIX: &str = "momentum/";

/// Why an optimiser cannot be used. A retry never helps.
#[derive(Debug, thiserror::Error)]
pub enum OptimizerError {
    /// Unknown algorithm.
    #[error("failed to set up the optimiser: algorithm `{0}` is unknown, there is `sgd`")]
    Algorithm(String),
    /// A hyper-parameter out of its range.
    #[error("failed to set up the optimiser: {name} is {value}, it must be {range}")]
    Parameter {
        /// Its field.
        name: &'static str,
        /// As given.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// Nesterov without momentum.
    #[error("failed to set up the optimiser: nesterov needs a momentum above 0")]
    Nesterov,
    /// The state belongs to another model or other hyper-parameters.
    #[error("failed to step the optimiser: its state has not the tensors that model and momentum ask for")]
    State,
    /// A frame could not be written.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Checked hyper-parameters, in f64 as the job gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    learning_rate: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
}

/// Model and state after a step, as canonical files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    /// Model r + 1.
    pub model: Vec<u8>,
    /// State r + 1.
    pub state: Vec<u8>,
}

impl Sgd {
    /// Checks the message. Learning rate above 0, momentum in [0, 1), weight decay at least 0, all finite also in f32.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        if message.get_algorithm() != SGD {
            return Err(OptimizerError::Algorithm(message.get_algorithm().to_owned()));
        }
        let check = |name, value: f64, allowed: bool, range| {
            // NaN fails every comparison, so `allowed` is false for it.
            if allowed && (value as f32).is_finite() {
                Ok(value)
            } else {
                Err(OptimizerError::Parameter { name, value, range })
            }
        };
        let (rate, momentum, decay) = (message.get_learning_rate(), message.get_momentum(), message.get_weight_decay());
        let sgd = Self {
            learning_rate: check("learning_rate", rate, rate > 0.0, "above 0 and finite")?,
            momentum: check("momentum", momentum, (0.0..1.0).contains(&momentum), "from 0 to below 1")?,
            nesterov: message.get_nesterov(),
            weight_decay: check("weight_decay", decay, decay >= 0.0, "at least 0 and finite")?,
        };
        if sgd.nesterov && sgd.momentum == 0.0 {
            return Err(OptimizerError::Nesterov);
        }
        Ok(sgd)
    }

    /// The layout of the state that belongs to a model: a velocity for each tensor, or nothing without momentum.
    pub fn state_layout(&self, model: &Layout) -> Result<Layout, FrameError> {
        if self.momentum == 0.0 {
            return Ok(Layout::default());
        }
        let velocity = |spec: &TensorSpec| TensorSpec {
            name: format!("{MOMENTUM_PREFIX}{}", spec.name),
            dtype: spec.dtype,
            shape: spec.shape.clone(),
        };
        Layout::new(model.tensors().iter().map(velocity).collect())
    }

    /// One step. `mean`: the mean gradient, all tensors of the model's layout concatenated in canonical order. `state` of None: the first step.
    /// Whether the result is finite is for the caller to check.
    pub fn step(&self, model: &Frame<'_>, mean: &[u8], state: Option<&Frame<'_>>) -> Result<Stepped, OptimizerError> {
        let state_layout = self.state_layout(model.layout())?;
        if state.is_some_and(|state| *state.layout() != state_layout) {
            return Err(OptimizerError::State);
        }
        // One prefix before all names keeps their order: velocity i belongs to tensor i.
        let velocities: Vec<&[u8]> =
            state.map(|state| state.tensors().map(|(_, data)| data).collect()).unwrap_or_default();
        let mut parameters = Vec::with_capacity(model.layout().data_bytes());
        let mut state_data = Vec::with_capacity(state_layout.data_bytes());
        let gradients = model.layout().split(mean);
        for (index, ((spec, data), (_, gradient))) in model.tensors().zip(gradients).enumerate() {
            let velocity = velocities.get(index).copied();
            match spec.dtype {
                Dtype::F32 => self.step_f32(data, gradient, velocity, &mut parameters, &mut state_data),
                Dtype::F64 => self.step_f64(data, gradient, velocity, &mut parameters, &mut state_data),
            }
        }
        Ok(Stepped {
            model: model.layout().write_concatenated(&parameters)?,
            state: state_layout.write_concatenated(&state_data)?,
        })
    }

    fn step_f32(&self, p: &[u8], g: &[u8], v: Option<&[u8]>, p_out: &mut Vec<u8>, v_out: &mut Vec<u8>) {
        let (rate, momentum, decay) = (self.learning_rate as f32, self.momentum as f32, self.weight_decay as f32);
        let mut velocities = v.map(f32s);
        for (parameter, gradient) in f32s(p).zip(f32s(g)) {
            let direction = if self.weight_decay == 0.0 { gradient } else { gradient + decay * parameter };
            let update = if self.momentum == 0.0 {
                direction
            } else {
                let before = velocities.as_mut().and_then(Iterator::next).unwrap_or(0.0);
                let velocity = momentum * before + direction;
                v_out.extend(velocity.to_le_bytes());
                if self.nesterov {
                    direction + momentum * velocity
                } else {
                    velocity
                }
            };
            p_out.extend((parameter - rate * update).to_le_bytes());
        }
    }

    fn step_f64(&self, p: &[u8], g: &[u8], v: Option<&[u8]>, p_out: &mut Vec<u8>, v_out: &mut Vec<u8>) {
        let mut velocities = v.map(f64s);
        for (parameter, gradient) in f64s(p).zip(f64s(g)) {
            let direction = if self.weight_decay == 0.0 { gradient } else { gradient + self.weight_decay * parameter };
            let update = if self.momentum == 0.0 {
                direction
            } else {
                let before = velocities.as_mut().and_then(Iterator::next).unwrap_or(0.0);
                let velocity = self.momentum * before + direction;
                v_out.extend(velocity.to_le_bytes());
                if self.nesterov {
                    direction + self.momentum * velocity
                } else {
                    velocity
                }
            };
            p_out.extend((parameter - self.learning_rate * update).to_le_bytes());
        }
    }
}
