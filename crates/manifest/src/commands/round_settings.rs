//! What a train job may ask of its rounds: minimum, deadline, extensions, mode, staleness. Each refusal names the field.

use raftgrid_proto::v1::TrainSpec;

use crate::error::Fault;
use crate::limits::{EXTENSIONS_MAX, ROUND_DEADLINE_MS_MAX, ROUND_DEADLINE_MS_MIN, STALENESS_MAX};
use crate::reply::invalid;
use crate::round_policy::{ASYNC, BOUNDED, FAIL, PAUSE, SYNC};

/// The machine version that knows more than rounds that wait for their quorum. Below it an older replica decides as it always did.
pub(crate) const SINCE: u64 = 6;

/// Whether an older replica would read this as something else.
pub(crate) fn is_new(train: &TrainSpec) -> bool {
    let numbers =
        [u64::from(train.min_contributions), train.round_deadline_ms, u64::from(train.extensions_max), train.staleness];
    numbers != [0; 4] || !train.on_shortfall.is_empty() || !train.mode.is_empty()
}

/// Checks what the spec says; its quorum was checked before.
pub(crate) fn check(train: &TrainSpec) -> Result<(), Fault> {
    check_deadline(train)?;
    check_mode(train)
}

fn check_deadline(train: &TrainSpec) -> Result<(), Fault> {
    let quorum = if train.quorum == 0 { train.shards } else { train.quorum };
    if train.min_contributions > quorum {
        let why = format!("0 (the quorum) or at most the quorum of {quorum}, is {}", train.min_contributions);
        return Err(invalid("spec.train.min_contributions", why));
    }
    if !["", PAUSE, FAIL].contains(&train.on_shortfall.as_str()) {
        let why = format!("{PAUSE} or {FAIL}, is \"{}\"", train.on_shortfall);
        return Err(invalid("spec.train.on_shortfall", why));
    }
    if train.extensions_max > EXTENSIONS_MAX {
        let why = format!("at most {EXTENSIONS_MAX}, is {}", train.extensions_max);
        return Err(invalid("spec.train.extensions_max", why));
    }
    if train.round_deadline_ms == 0 {
        let idle = [
            ("min_contributions", train.min_contributions != 0),
            ("extensions_max", train.extensions_max != 0),
            ("on_shortfall", !train.on_shortfall.is_empty()),
        ];
        return match idle.iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(invalid(&format!("spec.train.{field}"), "needs spec.train.round_deadline_ms")),
            None => Ok(()),
        };
    }
    if !(ROUND_DEADLINE_MS_MIN..=ROUND_DEADLINE_MS_MAX).contains(&train.round_deadline_ms) {
        let why = format!("0 or {ROUND_DEADLINE_MS_MIN}..={ROUND_DEADLINE_MS_MAX}, is {}", train.round_deadline_ms);
        return Err(invalid("spec.train.round_deadline_ms", why));
    }
    Ok(())
}

fn check_mode(train: &TrainSpec) -> Result<(), Fault> {
    let staleness = |why: &str| Err(invalid("spec.train.staleness", format!("{why}, is {}", train.staleness)));
    match train.mode.as_str() {
        "" | SYNC if train.staleness != 0 => staleness("only for modes bounded and async"),
        "" | SYNC => Ok(()),
        BOUNDED if !(1..=STALENESS_MAX).contains(&train.staleness) => {
            staleness(&format!("1..={STALENESS_MAX} in mode bounded"))
        }
        ASYNC if train.staleness > STALENESS_MAX => {
            staleness(&format!("0 (as far as the ledger goes back) or at most {STALENESS_MAX} in mode async"))
        }
        BOUNDED | ASYNC => Ok(()),
        other => Err(invalid("spec.train.mode", format!("{SYNC}, {BOUNDED} or {ASYNC}, is \"{other}\""))),
    }
}
