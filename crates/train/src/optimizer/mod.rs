//! What the leader does with a round's combined contribution: one file for each algorithm.
//!
//! **Sign.** An optimiser subtracts: `p := p − η·u(g)`. So what trainers push points uphill. A gradient does; a *delta* (pseudo-gradient) of
//! local steps is therefore `delta = model of the round − the trainer's own model after its steps`, and not the other way round. FedAvg with
//! that sign gives the mean of the trainers' models.
//!
//! | `Optimizer.algorithm` | what is pushed | source |
//! |---|---|---|
//! | `sgd` | gradients | Sutskever et al., ICML 2013 |
//! | `adam` | gradients | Kingma and Ba, ICLR 2015 |
//! | `adamw` | gradients | Loshchilov and Hutter, ICLR 2019 |
//! | `fedavg` | deltas | McMahan et al., AISTATS 2017 |
//! | `fedavgm` | deltas | Hsu, Qi and Brown 2019 |
//! | `fedadam` | deltas | Reddi et al., ICLR 2021 |
//! | `diloco` | deltas | Douillard et al. 2023 |
//!
//! Settings are given in f64. A setting is rounded once to the tensor's dtype; then every operation is done and rounded in that dtype, by
//! itself. There are no defaults, and a setting that an algorithm does not have must be 0 (`sgd`, which is older, overlooks those that it
//! does not know): what the ledger hashes is what was done.

pub(crate) mod elementwise;

pub mod adam;
pub mod adamw;
pub mod diloco;
pub mod fedadam;
pub mod fedavg;
pub mod fedavgm;
pub mod settings;
pub mod sgd;

use raftgrid_proto::v1::Optimizer;

use crate::frame::{Frame, FrameError, Layout};
use elementwise::Elementwise;

pub use adam::{Adam, ADAM};
pub use adamw::{AdamW, ADAMW};
pub use diloco::{DiLoCo, DILOCO};
pub use fedadam::{FedAdam, FEDADAM};
pub use fedavg::{FedAvg, FEDAVG};
pub use fedavgm::{FedAvgM, FEDAVGM};
pub use sgd::{Sgd, MOMENTUM_PREFIX, SGD};

/// Stands before a tensor's name in the state: the decayed mean of gradients.
pub const FIRST_MOMENT_PREFIX: &str = "first_moment/";
/// Stands before a tensor's name in the state: the decayed mean of squared gradients.
pub const SECOND_MOMENT_PREFIX: &str = "second_moment/";
/// The tensor of the state with the number of steps done: F64, shape [].
pub const STEP_NAME: &str = "step";

/// Why an optimiser cannot be used. A retry never helps.
#[derive(Debug, thiserror::Error)]
pub enum OptimizerError {
    /// Unknown algorithm.
    #[error(
        "failed to set up the optimiser: algorithm `{0}` is unknown, there are sgd, adam, adamw, fedavg, fedavgm, fedadam, diloco"
    )]
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
    /// Nesterov is no choice of this algorithm.
    #[error("failed to set up the optimiser: {0} does not take nesterov")]
    NesterovUnused(&'static str),
    /// The state belongs to another model or other hyper-parameters.
    #[error("failed to step the optimiser: its state has not the tensors that model and algorithm ask for")]
    State,
    /// A frame could not be written.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Model and state after a step, as canonical files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    /// Model r + 1.
    pub model: Vec<u8>,
    /// State r + 1.
    pub state: Vec<u8>,
}

/// The optimiser that a job named, its settings checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ServerOptimizer {
    /// SGD with momentum.
    Sgd(Sgd),
    /// Adam.
    Adam(Adam),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
    /// The mean of the trainers' models.
    FedAvg(FedAvg),
    /// FedAvg with momentum at the server.
    FedAvgM(FedAvgM),
    /// Adam over mean deltas.
    FedAdam(FedAdam),
    /// Nesterov's momentum over mean deltas.
    DiLoCo(DiLoCo),
}

/// What is done with an algorithm, however many slots it has.
pub(crate) trait Visit {
    /// What comes of it.
    type Output;
    /// Does it.
    fn visit<const N: usize>(self, algorithm: &impl Elementwise<N>) -> Self::Output;
}

impl ServerOptimizer {
    /// Does something with the algorithm that stands behind the name.
    pub(crate) fn visit<V: Visit>(&self, visit: V) -> V::Output {
        match self {
            Self::Sgd(sgd) => sgd.visit(visit),
            Self::Adam(adam) => visit.visit(adam),
            Self::AdamW(adamw) => visit.visit(adamw),
            Self::FedAvg(fedavg) => fedavg.sgd().visit(visit),
            Self::FedAvgM(fedavgm) => fedavgm.sgd().visit(visit),
            Self::FedAdam(fedadam) => visit.visit(fedadam),
            Self::DiLoCo(diloco) => diloco.sgd().visit(visit),
        }
    }

    /// Checks the message. Errors: an unknown algorithm, a setting out of its range.
    pub fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        Ok(match message.get_algorithm() {
            SGD => Self::Sgd(Sgd::from_proto(message)?),
            ADAM => Self::Adam(Adam::from_proto(message)?),
            ADAMW => Self::AdamW(AdamW::from_proto(message)?),
            FEDAVG => Self::FedAvg(FedAvg::from_proto(message)?),
            FEDAVGM => Self::FedAvgM(FedAvgM::from_proto(message)?),
            FEDADAM => Self::FedAdam(FedAdam::from_proto(message)?),
            DILOCO => Self::DiLoCo(DiLoCo::from_proto(message)?),
            other => return Err(OptimizerError::Algorithm(other.to_owned())),
        })
    }

    /// The same with another learning rate: what a schedule gives for a round. 0 is allowed here: nothing moves but the state.
    #[must_use]
    pub fn with_learning_rate(self, learning_rate: f64) -> Self {
        match self {
            Self::Sgd(sgd) => Self::Sgd(sgd.with_learning_rate(learning_rate)),
            Self::Adam(adam) => Self::Adam(adam.with_learning_rate(learning_rate)),
            Self::AdamW(adamw) => Self::AdamW(adamw.with_learning_rate(learning_rate)),
            Self::FedAvg(fedavg) => Self::FedAvg(fedavg.with_learning_rate(learning_rate)),
            Self::FedAvgM(fedavgm) => Self::FedAvgM(fedavgm.with_learning_rate(learning_rate)),
            Self::FedAdam(fedadam) => Self::FedAdam(fedadam.with_learning_rate(learning_rate)),
            Self::DiLoCo(diloco) => Self::DiLoCo(diloco.with_learning_rate(learning_rate)),
        }
    }

    /// The learning rate of the message, before any schedule.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Sgd(sgd) => sgd.learning_rate(),
            Self::Adam(adam) => adam.learning_rate(),
            Self::AdamW(adamw) => adamw.learning_rate(),
            Self::FedAvg(fedavg) => fedavg.learning_rate(),
            Self::FedAvgM(fedavgm) => fedavgm.learning_rate(),
            Self::FedAdam(fedadam) => fedadam.learning_rate(),
            Self::DiLoCo(diloco) => diloco.learning_rate(),
        }
    }

    /// The layout of the state that belongs to a model.
    pub fn state_layout(&self, model: &Layout) -> Result<Layout, FrameError> {
        match self {
            Self::Sgd(sgd) => sgd.state_layout(model),
            Self::Adam(adam) => adam.state_layout(model),
            Self::AdamW(adamw) => adamw.state_layout(model),
            Self::FedAvg(fedavg) => fedavg.state_layout(model),
            Self::FedAvgM(fedavgm) => fedavgm.state_layout(model),
            Self::FedAdam(fedadam) => fedadam.state_layout(model),
            Self::DiLoCo(diloco) => diloco.state_layout(model),
        }
    }

    /// One step. `combined`: the mean (or median …) of the contributions, all tensors of the model's layout concatenated in canonical order.
    /// `state` of None: the first step. Whether the result is finite is for the caller to check.
    pub fn step(
        &self,
        model: &Frame<'_>,
        combined: &[u8],
        state: Option<&Frame<'_>>,
    ) -> Result<Stepped, OptimizerError> {
        match self {
            Self::Sgd(sgd) => sgd.step(model, combined, state),
            Self::Adam(adam) => adam.step(model, combined, state),
            Self::AdamW(adamw) => adamw.step(model, combined, state),
            Self::FedAvg(fedavg) => fedavg.step(model, combined, state),
            Self::FedAvgM(fedavgm) => fedavgm.step(model, combined, state),
            Self::FedAdam(fedadam) => fedadam.step(model, combined, state),
            Self::DiLoCo(diloco) => diloco.step(model, combined, state),
        }
    }
}
