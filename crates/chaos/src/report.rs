//! The table at the end.

use comfy_table::{presets::UTF8_HORIZONTAL_ONLY, Table};

use crate::fire::Outcome;
use crate::limits::VIOLATIONS_SHOWN;
use crate::power::Boots;

/// The value below which this share of the values lies; None without values.
pub fn quantile(values: &[u64], share: f64) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64) * share).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied()
}

fn shown(value: Option<u64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

/// Runs of clusters.
pub fn clusters(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "run",
        "s",
        "faults",
        "killed",
        "acknowledged",
        "unknown",
        "reads",
        "keys",
        "accepted",
        "lost",
        "duplicated",
        "lives",
        "failover ms p50/p99/max (n)",
        "wrong",
    ]);
    for outcome in outcomes {
        let (verdict, times) = (&outcome.verdict, &outcome.failovers_ms);
        let failover = format!(
            "{}/{}/{} ({})",
            shown(quantile(times, 0.5)),
            shown(quantile(times, 0.99)),
            shown(quantile(times, 1.0)),
            times.len()
        );
        table.add_row([
            outcome.name.clone(),
            outcome.time.as_secs().to_string(),
            outcome.faults.values().sum::<u64>().to_string(),
            outcome.kills.to_string(),
            verdict.acknowledged.to_string(),
            verdict.unknown.to_string(),
            verdict.reads.to_string(),
            verdict.keys.to_string(),
            verdict.accepted.to_string(),
            verdict.lost.to_string(),
            verdict.duplicated.to_string(),
            verdict.lives.to_string(),
            failover,
            verdict.wrong.len().to_string(),
        ]);
    }
    let mut out = table.to_string();
    for outcome in outcomes {
        let faults: Vec<String> = outcome.faults.iter().map(|(fault, count)| format!("{fault} ×{count}")).collect();
        out.push_str(&format!("\n{}: {}", outcome.name, faults.join(", ")));
    }
    out
}

/// Boots after lost power and damage.
pub fn boots(all: &[Boots]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["what", "boots", "whole", "refused", "wrong"]);
    for boots in all {
        table.add_row([
            boots.name.clone(),
            boots.boots.to_string(),
            boots.recovered.to_string(),
            boots.refused.to_string(),
            boots.wrong.len().to_string(),
        ]);
    }
    let mut out = table.to_string();
    for boots in all.iter().filter(|boots| !boots.reasons.is_empty()) {
        out.push_str(&format!("\n{}:", boots.name));
        boots.reasons.iter().for_each(|(why, count)| out.push_str(&format!("\n  ×{count} {why}")));
    }
    for wrong in
        all.iter().flat_map(|boots| boots.wrong.iter().map(move |wrong| (&boots.name, wrong))).take(VIOLATIONS_SHOWN)
    {
        out.push_str(&format!("\nWRONG  {}: {}", wrong.0, wrong.1));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile(&[4, 1, 3, 2], 0.5), Some(2));
        assert_eq!(quantile(&[4, 1, 3, 2], 0.99), Some(4));
        assert_eq!(quantile(&(1..=100).collect::<Vec<_>>(), 0.99), Some(99));
    }
}
