//! What a benchmark's rounds come to: the middle and its edges.

use serde_json::{json, Value};

use crate::output::thousands;

/// Median with p10 and p90.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread([f64; 3]);

impl Spread {
    /// Of figures in any order.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let at = |share: f64| figures.get(((figures.len().max(1) - 1) as f64 * share).round() as usize).copied();
        Self([0.5, 0.1, 0.9].map(|share| at(share).unwrap_or(f64::NAN)))
    }

    /// As whole numbers.
    pub(crate) fn whole(&self) -> String {
        let [median, p10, p90] = self.0.map(|figure| thousands(figure.max(0.0).round() as u128));
        format!("{median} ({p10}–{p90})")
    }

    /// With so many digits behind the point.
    pub(crate) fn digits(&self, digits: usize) -> String {
        let [median, p10, p90] = self.0;
        format!("{median:.digits$} ({p10:.digits$}–{p90:.digits$})")
    }

    /// For --output json.
    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.0[0], "p10": self.0[1], "p90": self.0[2] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_its_edges() {
        let spread = Spread::of((1..=11).map(f64::from));
        assert_eq!(spread.whole(), "6 (2–10)");
        assert_eq!(spread.digits(1), "6.0 (2.0–10.0)");
    }
}
