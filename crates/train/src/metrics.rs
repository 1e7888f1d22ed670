//! The weighted mean of the metrics that come with contributions.
//!
//! Each contribution sends a JSON object; its finite numbers are averaged, everything else in it is left out, as is a text that is no object.
//! For each name over the contributions that have it, in shard order, all in f64: (((0 + w₀·x₀) + w₁·x₁) + …) / ((0 + w₀) + w₁ …).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::guard::effective_weight;
use crate::limits::{METRICS_BYTES_MAX, METRICS_MAX};

/// A JSON object with sorted names, no blanks, and each mean as the shortest decimal that reads back to it. `contributions`: (weight, JSON) in
/// shard order; weight 0 counts as 1, one that is not positive leaves its contribution out. A mean that is not finite is left out; at most
/// [`METRICS_MAX`] names are kept, the first in order.
pub fn mean_metrics(contributions: &[(f64, &str)]) -> String {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (weight, text) in contributions {
        let (Ok(weight), Some(metrics)) = (effective_weight(*weight), numbers(text)) else { continue };
        for (name, value) in metrics {
            let (sum, weight_sum) = sums.entry(name).or_insert((0.0, 0.0));
            *sum += weight * value;
            *weight_sum += weight;
        }
    }
    let means = sums.into_iter().map(|(name, (sum, weight_sum))| (name, sum / weight_sum));
    let kept: BTreeMap<String, f64> = means.filter(|(_, mean)| mean.is_finite()).take(METRICS_MAX).collect();
    serde_json::to_string(&kept).expect("a map of text to finite numbers is JSON")
}

fn numbers(text: &str) -> Option<BTreeMap<String, f64>> {
    if text.len() > METRICS_BYTES_MAX {
        return None;
    }
    let object: BTreeMap<String, Value> = serde_json::from_str(text).ok()?;
    let pairs = object.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?)));
    Some(pairs.filter(|(_, value)| value.is_finite()).collect())
}
