//! Checks of an `Optimizer` message's settings, and powers for bias corrections.

use raftgrid_proto::v1::Optimizer;

use super::OptimizerError;

/// `value` if `allowed` and finite in f32 as well (a model's tensors may be of either dtype).
pub(crate) fn checked(
    name: &'static str,
    value: f64,
    allowed: bool,
    range: &'static str,
) -> Result<f64, OptimizerError> {
    // NaN fails every comparison, so `allowed` is false for it.
    if allowed && (value as f32).is_finite() {
        Ok(value)
    } else {
        Err(OptimizerError::Parameter { name, value, range })
    }
}

/// η above 0.
pub(crate) fn learning_rate(message: &Optimizer) -> Result<f64, OptimizerError> {
    let rate = message.get_learning_rate();
    checked("learning_rate", rate, rate > 0.0, "above 0 and finite")
}

/// λ of at least 0.
pub(crate) fn weight_decay(message: &Optimizer) -> Result<f64, OptimizerError> {
    let decay = message.get_weight_decay();
    checked("weight_decay", decay, decay >= 0.0, "at least 0 and finite")
}

/// μ above 0: for algorithms that are nothing without it.
pub(crate) fn momentum_above_0(message: &Optimizer) -> Result<f64, OptimizerError> {
    let momentum = message.get_momentum();
    checked("momentum", momentum, momentum > 0.0 && momentum < 1.0, "above 0 and below 1")
}

/// The settings named must be 0: the algorithm does not have them, and one that was set by mistake would be hashed but not used.
pub(crate) fn unused(message: &Optimizer, names: &[&'static str]) -> Result<(), OptimizerError> {
    for name in names {
        let value = match *name {
            "momentum" => message.get_momentum(),
            "weight_decay" => message.get_weight_decay(),
            "beta1" => message.get_beta1(),
            "beta2" => message.get_beta2(),
            "epsilon" => message.get_epsilon(),
            other => unreachable!("{other} is no setting"),
        };
        checked(name, value, value == 0.0, "0: the algorithm does not have it")?;
    }
    Ok(())
}

/// Nesterov's variant must not be asked for.
pub(crate) fn no_nesterov(message: &Optimizer, algorithm: &'static str) -> Result<(), OptimizerError> {
    if message.get_nesterov() {
        return Err(OptimizerError::NesterovUnused(algorithm));
    }
    Ok(())
}

/// The settings of Adam's family, in f64 as the job gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in (0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment, above 0, in f32 as well.
    pub epsilon: f64,
}

impl Moments {
    /// Checks β₁, β₂ and ε. A decay that becomes 1 in f32 is refused: such a moment would never forget.
    pub(crate) fn from_proto(message: &Optimizer) -> Result<Self, OptimizerError> {
        let (beta1, beta2, epsilon) = (message.get_beta1(), message.get_beta2(), message.get_epsilon());
        let below_1 = |value: f64| (value as f32) < 1.0;
        Ok(Self {
            beta1: checked("beta1", beta1, beta1 >= 0.0 && below_1(beta1), "from 0 to below 1")?,
            beta2: checked("beta2", beta2, beta2 > 0.0 && below_1(beta2), "above 0 and below 1")?,
            epsilon: checked("epsilon", epsilon, (epsilon as f32) > 0.0, "above 0 and finite")?,
        })
    }
}

/// `base` to the power of `exponent` in f64, by squaring, bits of the exponent from the lowest on:
/// `result := 1;  for each bit: if it is set, result := result·base;  base := base·base`.
/// Only products, each rounded by itself, so every machine (and NumPy) has the same bits; no library's `pow` promises that.
pub fn power(base: f64, exponent: u64) -> f64 {
    let (mut result, mut base, mut rest) = (1.0_f64, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result *= base;
        }
        base *= base;
        rest >>= 1;
    }
    result
}
