//! What a job may ask of the leader's step: its optimiser, its learning rate's schedule, how contributions are combined. Names and ranges are
//! those of `train`, which carries it out (a test of `replica` holds the two together): what is refused here never fails a round.

use raftgrid_proto::v1::{Combine, LearningRateSchedule, Optimizer};

use crate::error::Fault;
use crate::reply::invalid;

/// The machine version that knows more than SGD and the weighted mean. Below it an older replica decides as it always did.
pub(crate) const SINCE: u64 = 5;

/// What an algorithm takes; everything else must be 0.
struct Takes {
    name: &'static str,
    /// 1 and nothing else.
    fixed_rate: bool,
    momentum: bool,
    nesterov: bool,
    weight_decay: bool,
    moments: bool,
}

const NOTHING: Takes =
    Takes { name: "fedavg", fixed_rate: false, momentum: false, nesterov: false, weight_decay: false, moments: false };

/// `sgd` overlooks what it does not know and checks momentum in its own way: it is older than the others.
const ALGORITHMS: [Takes; 6] = [
    Takes { name: "adam", weight_decay: true, moments: true, ..NOTHING },
    Takes { name: "adamw", weight_decay: true, moments: true, ..NOTHING },
    Takes { name: "fedadam", moments: true, ..NOTHING },
    Takes { name: "fedavg", fixed_rate: true, ..NOTHING },
    Takes { name: "fedavgm", momentum: true, ..NOTHING },
    Takes { name: "diloco", momentum: true, nesterov: true, ..NOTHING },
];

/// Whether an older replica would read this as something else, or refuse it.
pub(crate) fn is_new(optimizer: &Optimizer, combine: Option<&Combine>) -> bool {
    let settings = [optimizer.beta1, optimizer.beta2, optimizer.epsilon];
    let known = optimizer.algorithm.is_empty() || optimizer.algorithm == "sgd";
    !known || settings != [0.0; 3] || optimizer.has_schedule() || combine.is_some()
}

/// Whether a job may ask for this at the newest machine version, as apply decides it. Error: the field and why.
pub fn check_training(optimizer: &Optimizer, combine: &Combine) -> Result<(), String> {
    let refused = |fault: Fault| match fault {
        Fault::Refused(reply) => reply.message,
        Fault::Stop(_) => unreachable!("these checks read no rows"),
    };
    check_optimizer(SINCE, "optimizer", optimizer).map_err(refused)?;
    check_combine(SINCE, "combine", combine).map_err(refused)
}

/// Checks the optimiser of a job. `version`: the machine's.
pub(crate) fn check_optimizer(version: u64, field: &str, optimizer: &Optimizer) -> Result<(), Fault> {
    if version < SINCE || optimizer.algorithm == "sgd" {
        check_sgd(field, optimizer)?;
    } else {
        check_other(field, optimizer)?;
    }
    if version < SINCE {
        return Ok(());
    }
    if optimizer.algorithm == "sgd" && optimizer.nesterov && optimizer.momentum == 0.0 {
        return Err(invalid(&format!("{field}.nesterov"), "needs a momentum above 0"));
    }
    let settings = [
        ("learning_rate", optimizer.learning_rate),
        ("momentum", optimizer.momentum),
        ("weight_decay", optimizer.weight_decay),
    ];
    for (name, value) in settings {
        // Tensors may be of f32.
        check(field, name, value, (value as f32).is_finite(), "finite in f32 as well")?;
    }
    match optimizer.schedule.as_ref() {
        Some(_) if optimizer.algorithm == "fedavg" => {
            Err(invalid(&format!("{field}.schedule"), "not for fedavg: its learning rate is 1"))
        }
        Some(schedule) => check_schedule(&format!("{field}.schedule"), schedule),
        None => Ok(()),
    }
}

fn check_sgd(field: &str, optimizer: &Optimizer) -> Result<(), Fault> {
    if optimizer.algorithm != "sgd" {
        return Err(invalid(&format!("{field}.algorithm"), format!("\"sgd\", is \"{}\"", optimizer.algorithm)));
    }
    if !(optimizer.learning_rate.is_finite() && optimizer.learning_rate > 0.0) {
        let why = format!("finite and above 0, is {}", optimizer.learning_rate);
        return Err(invalid(&format!("{field}.learning_rate"), why));
    }
    if !(0.0..1.0).contains(&optimizer.momentum) {
        return Err(invalid(&format!("{field}.momentum"), format!("0 up to 1, is {}", optimizer.momentum)));
    }
    if !(optimizer.weight_decay.is_finite() && optimizer.weight_decay >= 0.0) {
        let why = format!("finite and not below 0, is {}", optimizer.weight_decay);
        return Err(invalid(&format!("{field}.weight_decay"), why));
    }
    Ok(())
}

fn check_other(field: &str, optimizer: &Optimizer) -> Result<(), Fault> {
    let Some(takes) = ALGORITHMS.iter().find(|takes| takes.name == optimizer.algorithm) else {
        let names: Vec<&str> = ALGORITHMS.iter().map(|takes| takes.name).collect();
        let why = format!("sgd, {}, is \"{}\"", names.join(", "), optimizer.algorithm);
        return Err(invalid(&format!("{field}.algorithm"), why));
    };
    let (rate, momentum, decay) = (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay);
    if takes.fixed_rate {
        check(field, "learning_rate", rate, rate == 1.0, "1: the mean of models has no other")?;
    } else {
        check(field, "learning_rate", rate, rate > 0.0, "above 0 and finite")?;
    }
    if takes.momentum {
        check(field, "momentum", momentum, momentum > 0.0 && momentum < 1.0, "above 0 and below 1")?;
    } else {
        check(field, "momentum", momentum, momentum == 0.0, UNUSED)?;
    }
    if takes.weight_decay {
        check(field, "weight_decay", decay, decay >= 0.0, "at least 0 and finite")?;
    } else {
        check(field, "weight_decay", decay, decay == 0.0, UNUSED)?;
    }
    if optimizer.nesterov && !takes.nesterov {
        return Err(invalid(&format!("{field}.nesterov"), format!("not for {}", takes.name)));
    }
    check_moments(field, optimizer, takes.moments)
}

const UNUSED: &str = "0: the algorithm does not have it";

fn check_moments(field: &str, optimizer: &Optimizer, taken: bool) -> Result<(), Fault> {
    let (beta1, beta2, epsilon) = (optimizer.beta1, optimizer.beta2, optimizer.epsilon);
    if !taken {
        check(field, "beta1", beta1, beta1 == 0.0, UNUSED)?;
        check(field, "beta2", beta2, beta2 == 0.0, UNUSED)?;
        return check(field, "epsilon", epsilon, epsilon == 0.0, UNUSED);
    }
    // A decay that becomes 1 in f32 would never forget; an epsilon that becomes 0 there would divide by it.
    check(field, "beta1", beta1, beta1 >= 0.0 && (beta1 as f32) < 1.0, "from 0 to below 1")?;
    check(field, "beta2", beta2, beta2 > 0.0 && (beta2 as f32) < 1.0, "above 0 and below 1")?;
    let usable = (epsilon as f32) > 0.0 && (epsilon as f32).is_finite();
    check(field, "epsilon", epsilon, usable, "above 0 and finite")
}

fn check_schedule(field: &str, schedule: &LearningRateSchedule) -> Result<(), Fault> {
    let (cosine, step) = (schedule.kind == "cosine", schedule.kind == "step");
    if !cosine && !step && !matches!(schedule.kind.as_str(), "" | "constant") {
        let why = format!("constant, cosine or step, is \"{}\"", schedule.kind);
        return Err(invalid(&format!("{field}.kind"), why));
    }
    let (last, factor) = (schedule.final_factor, schedule.step_factor);
    let unused = "0: its kind does not have it";
    if cosine {
        check(field, "decay_rounds", schedule.decay_rounds as f64, schedule.decay_rounds > 0, "above 0")?;
        check(field, "final_factor", last, (0.0..=1.0).contains(&last), "from 0 to 1")?;
    } else {
        check(field, "decay_rounds", schedule.decay_rounds as f64, schedule.decay_rounds == 0, unused)?;
        check(field, "final_factor", last, last == 0.0, unused)?;
    }
    if step {
        check(field, "step_rounds", schedule.step_rounds as f64, schedule.step_rounds > 0, "above 0")?;
        return check(field, "step_factor", factor, factor > 0.0 && factor <= 1.0, "above 0 and at most 1");
    }
    check(field, "step_rounds", schedule.step_rounds as f64, schedule.step_rounds == 0, unused)?;
    check(field, "step_factor", factor, factor == 0.0, unused)
}

/// Checks how contributions become one. `version`: the machine's; below [`SINCE`] it is not looked at, and not kept.
pub(crate) fn check_combine(version: u64, field: &str, combine: &Combine) -> Result<(), Fault> {
    if version < SINCE {
        return Ok(());
    }
    let (fraction, clip) = (combine.trim_fraction, combine.clip_norm);
    match combine.strategy.as_str() {
        "trimmed_mean" => {
            check(field, "trim_fraction", fraction, (0.0..0.5).contains(&fraction), "from 0 to below 0.5")?
        }
        "" | "mean" | "median" => {
            check(field, "trim_fraction", fraction, fraction == 0.0, "0: only trimmed_mean trims")?
        }
        other => {
            let why = format!("mean, trimmed_mean or median, is \"{other}\"");
            return Err(invalid(&format!("{field}.strategy"), why));
        }
    }
    check(field, "clip_norm", clip, clip >= 0.0 && clip.is_finite(), "at least 0 and finite")
}

/// NaN fails every comparison, so `allowed` is false for it.
fn check(field: &str, name: &str, value: f64, allowed: bool, range: &str) -> Result<(), Fault> {
    if allowed {
        return Ok(());
    }
    Err(invalid(&format!("{field}.{name}"), format!("{range}, is {value}")))
}
