//! Learning-rate schedules: the factor that a job's learning rate has in a round. Functions of the round alone.
//!
//! With w = `warmup_rounds`, round r (0 is the first) and t = r − w, everything in f64 and rounded operation by operation:
//!
//! ```text
//! r < w:      (r + 1) / w                                              (linear warm-up; Goyal et al. 2017)
//! constant:   1
//! cosine:     t < T:  f + (1 − f)·(½·(1 + cos(π·(t / T))));  else f    (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts)
//! step:       γ to the power of ⌊t / s⌋                                (by squaring: `optimizer::settings::power`)
//! ```
//!
//! T is `decay_rounds`, f `final_factor`, s `step_rounds`, γ `step_factor`. cos is the `libm` crate's, which is the same on every machine; π
//! the nearest f64.

use raftgrid_proto::v1::LearningRateSchedule;

use crate::optimizer::settings::power;

/// Why a message is refused. A retry never helps.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// Unknown kind.
    #[error("failed to set up the schedule: kind `{0}` is unknown, there are constant, cosine, step")]
    Kind(String),
    /// A parameter out of its range.
    #[error("failed to set up the schedule: {name} is {value}, it must be {range}")]
    Parameter {
        /// Its field.
        name: &'static str,
        /// As given.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
}

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Decay {
    Constant,
    Cosine { rounds: u64, final_factor: f64 },
    Step { rounds: u64, factor: f64 },
}

/// A schedule, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    warmup_rounds: u64,
    decay: Decay,
}

impl Schedule {
    /// Checks the message; the default message is the constant 1. Errors: an unknown kind, a parameter out of its range or of another kind.
    pub fn from_proto(message: &LearningRateSchedule) -> Result<Self, ScheduleError> {
        let (decay_rounds, final_factor) = (message.get_decay_rounds(), message.get_final_factor());
        let (step_rounds, step_factor) = (message.get_step_rounds(), message.get_step_factor());
        let check = |name, value: f64, allowed: bool, range| {
            if allowed {
                Ok(())
            } else {
                Err(ScheduleError::Parameter { name, value, range })
            }
        };
        let unused = "0: its kind does not have it";
        let kind = message.get_kind();
        let (cosine, step) = (kind == "cosine", kind == "step");
        if !cosine {
            check("decay_rounds", decay_rounds as f64, decay_rounds == 0, unused)?;
            check("final_factor", final_factor, final_factor == 0.0, unused)?;
        }
        if !step {
            check("step_rounds", step_rounds as f64, step_rounds == 0, unused)?;
            check("step_factor", step_factor, step_factor == 0.0, unused)?;
        }
        let decay = match kind {
            "" | "constant" => Decay::Constant,
            "cosine" => {
                check("decay_rounds", 0.0, decay_rounds > 0, "above 0")?;
                check("final_factor", final_factor, (0.0..=1.0).contains(&final_factor), "from 0 to 1")?;
                Decay::Cosine { rounds: decay_rounds, final_factor }
            }
            "step" => {
                check("step_rounds", 0.0, step_rounds > 0, "above 0")?;
                check("step_factor", step_factor, step_factor > 0.0 && step_factor <= 1.0, "above 0 and at most 1")?;
                Decay::Step { rounds: step_rounds, factor: step_factor }
            }
            other => return Err(ScheduleError::Kind(other.to_owned())),
        };
        Ok(Self { warmup_rounds: message.get_warmup_rounds(), decay })
    }

    /// From 0 to 1.
    pub fn factor(&self, round: u64) -> f64 {
        if round < self.warmup_rounds {
            return (round + 1) as f64 / self.warmup_rounds as f64;
        }
        let after = round - self.warmup_rounds;
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine { rounds, final_factor } if after >= rounds => final_factor,
            Decay::Cosine { rounds, final_factor } => {
                let progress = after as f64 / rounds as f64;
                let half_wave = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress));
                final_factor + (1.0 - final_factor) * half_wave
            }
            Decay::Step { rounds, factor } => power(factor, after / rounds),
        }
    }
}
