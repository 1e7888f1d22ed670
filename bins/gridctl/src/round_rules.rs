//! The flags of `gridctl train` that say how rounds end which do not wait for all.

use raftgrid_proto::v1::TrainSpec;
use structopt::StructOpt;

use crate::failure::{Failure, Result};

#[derive(Clone, Debug, Default, StructOpt)]
pub(crate) struct RoundRules {
    /// Gradients that close a round when its deadline is over [default: the quorum]
    #[structopt(long, value_name = "K")]
    pub(crate) min_contributions: Option<u32>,
    /// How long a round waits for its quorum: 90s, 10m [default: for ever]
    #[structopt(long, value_name = "TIME")]
    pub(crate) round_deadline: Option<String>,
    /// How often a round below its minimum is given another deadline, and its missing shards other trainers [default: 0]
    #[structopt(long, value_name = "N")]
    pub(crate) extensions: Option<u32>,
    /// After them: pause the job (gridctl job resume) or fail it [default: pause]
    #[structopt(long, possible_values = &["pause", "fail"], value_name = "WHAT")]
    pub(crate) on_shortfall: Option<String>,
    /// sync: gradients of the round's model only; bounded: shards run ahead by --staleness rounds; async: the first --quorum of whatever model [default: sync]
    #[structopt(long, possible_values = &["sync", "bounded", "async"], value_name = "MODE")]
    pub(crate) mode: Option<String>,
    /// Rounds that a gradient's model may be behind, in modes bounded and async
    #[structopt(long, value_name = "ROUNDS")]
    pub(crate) staleness: Option<u64>,
}

/// Writes the flags into a job's settings. Wrong usage: what the cluster would refuse, as far as it can be known here.
pub(crate) fn put_rules(rules: &RoundRules, quorum: u32, train: &mut TrainSpec) -> Result<()> {
    let wrong = |what: String, hint: &str| Err(Failure::usage(what, hint.to_owned()));
    if rules.min_contributions.is_some_and(|least| least == 0 || least > quorum) {
        return wrong(
            format!("--min-contributions must be between 1 and the quorum of {quorum}"),
            "--min-contributions K",
        );
    }
    let deadline_ms = match &rules.round_deadline {
        None => 0,
        Some(text) => match raftgrid_settings::parse_duration_ms(text).filter(|ms| *ms > 0) {
            Some(ms) => ms,
            None => return wrong(format!("--round-deadline `{text}` is no time"), "--round-deadline 90s"),
        },
    };
    let needs_deadline = [
        ("--min-contributions", rules.min_contributions.is_some()),
        ("--extensions", rules.extensions.is_some()),
        ("--on-shortfall", rules.on_shortfall.is_some()),
    ];
    if let Some((flag, _)) = needs_deadline.iter().find(|(_, given)| *given && deadline_ms == 0) {
        return wrong(format!("{flag} needs --round-deadline"), "--round-deadline 90s");
    }
    match (rules.mode.as_deref(), rules.staleness) {
        (Some("bounded"), None | Some(0)) => {
            return wrong("--mode bounded needs --staleness".to_owned(), "--staleness 2")
        }
        (None | Some("sync"), Some(_)) => {
            return wrong("--staleness needs --mode bounded or --mode async".to_owned(), "--mode bounded")
        }
        _ => {}
    }
    train.set_min_contributions(rules.min_contributions.unwrap_or(0));
    train.set_round_deadline_ms(deadline_ms);
    train.set_extensions_max(rules.extensions.unwrap_or(0));
    train.set_on_shortfall(rules.on_shortfall.clone().unwrap_or_default());
    train.set_mode(rules.mode.clone().unwrap_or_default());
    train.set_staleness(rules.staleness.unwrap_or(0));
    Ok(())
}

/// The rules of a job in a line; empty if it waits for all of its shards.
pub(crate) fn text(train: &TrainSpec) -> String {
    let mut parts = Vec::new();
    if !train.get_mode().is_empty() && train.get_mode() != "sync" {
        let staleness = match train.get_staleness() {
            0 => "any".to_owned(),
            rounds => rounds.to_string(),
        };
        parts.push(format!("{}, staleness {staleness}", train.get_mode()));
    }
    if train.get_quorum() != 0 {
        parts.push(format!("quorum {} of {}", train.get_quorum(), train.get_shards()));
    }
    if train.get_round_deadline_ms() > 0 {
        let least = [train.get_min_contributions(), train.get_quorum(), train.get_shards()];
        let least = least.into_iter().find(|least| *least > 0).unwrap_or(0);
        let then = if train.get_on_shortfall() == "fail" { "fails" } else { "is paused" };
        parts.push(format!(
            "deadline {} ms with at least {least}, {} extensions, then it {then}",
            train.get_round_deadline_ms(),
            train.get_extensions_max()
        ));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_a_line_and_a_job_that_waits_for_all_has_none() {
        let mut train = TrainSpec::new();
        train.set_shards(4);
        assert_eq!(text(&train), "");
        let rules = RoundRules {
            min_contributions: Some(3),
            round_deadline: Some("1.5s".to_owned()),
            extensions: Some(2),
            mode: Some("bounded".to_owned()),
            staleness: Some(2),
            ..RoundRules::default()
        };
        put_rules(&rules, 4, &mut train).expect("good rules");
        assert_eq!(
            text(&train),
            "bounded, staleness 2; deadline 1500 ms with at least 3, 2 extensions, then it is paused"
        );
    }
}
