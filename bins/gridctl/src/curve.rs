//! The curves of a job: one for each metric, by round. Owns no terminal and no file; `plot` and `rounds` draw.

use serde_json::Value;

/// One metric of a job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    pub(crate) metric: String,
    /// (rounds committed, value), in the order of the rounds; finite values only.
    pub(crate) points: Vec<(u64, f64)>,
}

/// All metrics of a job, in the order of [`by_rank`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Curves {
    curves: Vec<Curve>,
}

impl Curves {
    /// Takes the metrics of a round; `number` is the number of rounds that were committed with it. One that is not the newest is left out.
    pub(crate) fn add(&mut self, number: u64, metrics_json: &str) {
        for (metric, value) in numbers(metrics_json) {
            let found = self.curves.binary_search_by(|curve| by_rank(&curve.metric, &metric));
            let at = found.unwrap_or_else(|at| {
                self.curves.insert(at, Curve { metric, points: Vec::new() });
                at
            });
            let points = &mut self.curves[at].points;
            if points.last().is_none_or(|(newest, _)| *newest < number) {
                points.push((number, value));
            }
        }
    }

    pub(crate) fn all(&self) -> &[Curve] {
        &self.curves
    }

    /// Those that are named, in that order; `Err`: the first name that there is none of.
    pub(crate) fn named(&self, names: &[String]) -> Result<Vec<Curve>, String> {
        let find = |name: &String| self.curves.iter().find(|curve| curve.metric == *name).cloned();
        names.iter().map(|name| find(name).ok_or_else(|| name.clone())).collect()
    }
}

/// The finite numbers of a round's metrics: loss and accuracy first, the others by name.
pub(crate) fn numbers(metrics_json: &str) -> Vec<(String, f64)> {
    let metrics = serde_json::from_str::<Value>(metrics_json).unwrap_or(Value::Null);
    let Some(map) = metrics.as_object() else { return Vec::new() };
    let finite = |value: &Value| value.as_f64().filter(|number| number.is_finite());
    let mut pairs: Vec<(String, f64)> = map.iter().filter_map(|(name, v)| Some((name.clone(), finite(v)?))).collect();
    pairs.sort_by(|a, b| by_rank(&a.0, &b.0));
    pairs
}

/// Loss and accuracy first, the others by name.
fn by_rank(one: &str, other: &str) -> std::cmp::Ordering {
    let rank = |name: &str| match name {
        "loss" => 0,
        "accuracy" => 1,
        _ => 2,
    };
    rank(one).cmp(&rank(other)).then(one.cmp(other))
}

/// Eighths of a line, the lowest first.
const BARS: [char; 8] =
    ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];

/// The curve in one line of at most `width` characters: from its least to its greatest value, each character the mean of as many points.
pub(crate) fn sparkline(points: &[(u64, f64)], width: usize) -> String {
    let columns = width.min(points.len());
    let mean = |column: usize| {
        let part = &points[column * points.len() / columns..(column + 1) * points.len() / columns];
        part.iter().map(|(_, value)| value / part.len() as f64).sum::<f64>()
    };
    let values: Vec<f64> = (0..columns).map(mean).collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Halved, so that the difference of two numbers of any size is one.
    let span = most / 2.0 - least / 2.0;
    let share = |value: f64| if span > 0.0 { (value / 2.0 - least / 2.0) / span } else { 0.5 };
    let bar = |value: f64| BARS[((share(value) * BARS.len() as f64) as usize).min(BARS.len() - 1)];
    values.into_iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_its_curve_with_loss_and_accuracy_first() {
        let mut curves = Curves::default();
        curves.add(1, "{\"a\":1,\"loss\":2.5,\"note\":\"x\"}");
        curves.add(2, "{\"accuracy\":0.5,\"loss\":1.5}");
        curves.add(2, "{\"loss\":9}");
        curves.add(3, "no JSON");
        let names: Vec<&str> = curves.all().iter().map(|curve| curve.metric.as_str()).collect();
        assert_eq!(names, ["loss", "accuracy", "a"]);
        assert_eq!(curves.all()[0].points, [(1, 2.5), (2, 1.5)]);
        assert_eq!(curves.all()[1].points, [(2, 0.5)]);
        assert_eq!(curves.named(&["a".to_owned()]).map(|found| found.len()), Ok(1));
        assert_eq!(curves.named(&["a".to_owned(), "b".to_owned()]), Err("b".to_owned()));
    }

    #[test]
    fn a_sparkline_goes_from_the_least_to_the_greatest() {
        let points = |values: &[f64]| values.iter().enumerate().map(|(i, v)| (i as u64, *v)).collect::<Vec<_>>();
        let line = |values: &[f64], width| sparkline(&points(values), width);
        assert_eq!(line(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8), BARS.iter().collect::<String>());
        assert_eq!(line(&[3.0, 1.0], 8), "\u{2588}\u{2581}");
        assert_eq!(line(&[0.0, 0.0, 4.0, 4.0], 2), "\u{2581}\u{2588}", "each is the mean of two");
        assert_eq!(line(&[5.0, 5.0], 8), "\u{2585}\u{2585}");
        assert_eq!(line(&[-f64::MAX, f64::MAX], 8), "\u{2581}\u{2588}");
        assert_eq!(line(&[], 8), "");
    }
}
