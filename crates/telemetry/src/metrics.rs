//! A small registry of counters, gauges and histograms, and its text exposition (the Prometheus format, version 0.0.4).
//!
//! Handles are cheap clones around atomics: counting takes no lock. Names are `raftgrid_<thing>_<unit>`; a wrong name, or one name with two
//! kinds, is a defect of the program and panics where it is registered.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::SERIES_MAX;

/// Rises only.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Value so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The newest value of something.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds `step`, which may be negative.
    pub fn add(&self, step: f64) {
        let add = |bits: u64| Some((f64::from_bits(bits) + step).to_bits());
        let _always_some = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The newest value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Buckets {
    bounds: Vec<f64>,
    /// One more than bounds: the last one is +Inf.
    counts: Vec<AtomicU64>,
    sum_bits: AtomicU64,
}

/// How often a value fell below each bound, and the sum of all values.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "bounds of a histogram rise");
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds: bounds.to_vec(), counts, sum_bits: AtomicU64::new(0) }))
    }

    /// Counts one value, in the unit of the name.
    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits: u64| Some((f64::from_bits(bits) + value).to_bits());
        let _always_some = self.0.sum_bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Number of values so far.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

#[derive(Clone, Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Series {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

#[derive(Debug)]
struct Family {
    help: String,
    kind: &'static str,
    /// By rendered labels (`a="b",c="d"`), so that the text is the same for the same content.
    series: BTreeMap<String, Series>,
}

/// All metrics of one process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<String, Family>>>,
}

impl Registry {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of this name and these labels; the same one when asked again.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        match self.series(name, help, labels, || Series::Counter(Counter::default())) {
            Series::Counter(counter) => counter,
            other => panic!("metric {name} is a {}, not a counter", other.kind()),
        }
    }

    /// The gauge of this name and these labels; the same one when asked again.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        match self.series(name, help, labels, || Series::Gauge(Gauge::default())) {
            Series::Gauge(gauge) => gauge,
            other => panic!("metric {name} is a {}, not a gauge", other.kind()),
        }
    }

    /// The histogram of this name and these labels, with rising upper `bounds` (those of the first call count).
    pub fn histogram(&self, name: &str, help: &str, labels: &[(&str, &str)], bounds: &[f64]) -> Histogram {
        match self.series(name, help, labels, || Series::Histogram(Histogram::new(bounds))) {
            Series::Histogram(histogram) => histogram,
            other => panic!("metric {name} is a {}, not a histogram", other.kind()),
        }
    }

    fn series(&self, name: &str, help: &str, labels: &[(&str, &str)], make: impl FnOnce() -> Series) -> Series {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        assert!(name.starts_with("raftgrid_") && plain(name), "metric name {name} is not raftgrid_<thing>_<unit>");
        assert!(labels.iter().all(|(key, _)| plain(key)), "label names of {name} are lower case");
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let count: usize = families.values().map(|family| family.series.len()).sum();
        assert!(count < SERIES_MAX, "more than {SERIES_MAX} series: a label of {name} has no bound");
        let made = make();
        let family = families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.replace('\\', "\\\\").replace('\n', "\\n"),
            kind: made.kind(),
            series: BTreeMap::new(),
        });
        if family.kind != made.kind() {
            panic!("metric {name} is a {}, not a {}", family.kind, made.kind());
        }
        family.series.entry(render_labels(labels)).or_insert(made).clone()
    }

    /// Replaces a whole family of gauges by these (labels, value) pairs: for what is looked at when somebody asks, and may be gone the next
    /// time (a peer that was removed must not stay in the text for ever).
    pub fn sampled(&self, name: &str, help: &str, values: &[(&[(&str, &str)], f64)]) {
        {
            let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(family) = families.get_mut(name).filter(|family| family.kind == "gauge") {
                family.series.clear();
            }
        }
        for (labels, value) in values {
            self.gauge(name, help, labels).set(*value);
        }
    }

    /// Everything as text, for `/metrics`: families and series in the order of their names.
    pub fn exposition(&self) -> String {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, family) in families.iter() {
            line(&mut text, format_args!("# HELP {name} {}", family.help));
            line(&mut text, format_args!("# TYPE {name} {}", family.kind));
            for (labels, series) in &family.series {
                match series {
                    Series::Counter(counter) => {
                        line(&mut text, format_args!("{name}{} {}", braces(labels, ""), counter.get()));
                    }
                    Series::Gauge(gauge) => {
                        line(&mut text, format_args!("{name}{} {}", braces(labels, ""), gauge.get()));
                    }
                    Series::Histogram(histogram) => render_histogram(&mut text, name, labels, histogram),
                }
            }
        }
        text
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing into a string cannot fail");
    text.push('\n');
}

fn render_labels(labels: &[(&str, &str)]) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
    pairs.join(",")
}

fn braces(labels: &str, more: &str) -> String {
    match (labels.is_empty(), more.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("{{{labels}}}"),
        (true, false) => format!("{{{more}}}"),
        (false, false) => format!("{{{labels},{more}}}"),
    }
}

fn render_histogram(text: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let buckets = &histogram.0;
    let mut cumulative = 0;
    for (number, count) in buckets.counts.iter().enumerate() {
        cumulative += count.load(Ordering::Relaxed);
        let bound = buckets.bounds.get(number).map_or_else(|| "+Inf".to_owned(), f64::to_string);
        let labels = braces(labels, &format!("le=\"{bound}\""));
        line(text, format_args!("{name}_bucket{labels} {cumulative}"));
    }
    let sum = f64::from_bits(buckets.sum_bits.load(Ordering::Relaxed));
    line(text, format_args!("{name}_sum{} {sum}", braces(labels, "")));
    line(text, format_args!("{name}_count{} {cumulative}", braces(labels, "")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposition_is_sorted_and_escaped() {
        let registry = Registry::new();
        registry.gauge("raftgrid_queue_bytes", "bytes queued", &[]).set(1.5);
        registry.counter("raftgrid_commands_total", "commands", &[("kind", "b\"c")]).add(3);
        registry.counter("raftgrid_commands_total", "commands", &[("kind", "a")]).inc();
        let expected = "# HELP raftgrid_commands_total commands\n# TYPE raftgrid_commands_total counter\n\
                        raftgrid_commands_total{kind=\"a\"} 1\nraftgrid_commands_total{kind=\"b\\\"c\"} 3\n\
                        # HELP raftgrid_queue_bytes bytes queued\n# TYPE raftgrid_queue_bytes gauge\n\
                        raftgrid_queue_bytes 1.5\n";
        assert_eq!(registry.exposition(), expected);
    }

    #[test]
    fn a_value_on_a_bound_counts_below_it_and_buckets_accumulate() {
        let registry = Registry::new();
        let histogram = registry.histogram("raftgrid_fsync_seconds", "fsync", &[("db", "log")], &[0.5, 1.0]);
        for value in [0.25, 0.5, 0.75, 4.0] {
            histogram.observe(value);
        }
        let text = registry.exposition();
        for expected in [
            "raftgrid_fsync_seconds_bucket{db=\"log\",le=\"0.5\"} 2\n",
            "raftgrid_fsync_seconds_bucket{db=\"log\",le=\"1\"} 3\n",
            "raftgrid_fsync_seconds_bucket{db=\"log\",le=\"+Inf\"} 4\n",
            "raftgrid_fsync_seconds_sum{db=\"log\"} 5.5\n",
            "raftgrid_fsync_seconds_count{db=\"log\"} 4\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert_eq!(histogram.count(), 4);
    }

    #[test]
    fn a_sampled_family_forgets_what_is_gone() {
        let registry = Registry::new();
        registry.sampled("raftgrid_lag_entries", "lag", &[(&[("peer", "2")], 5.0), (&[("peer", "3")], 6.0)]);
        registry.sampled("raftgrid_lag_entries", "lag", &[(&[("peer", "3")], 7.0)]);
        let text = registry.exposition();
        assert!(text.contains("raftgrid_lag_entries{peer=\"3\"} 7\n") && !text.contains("peer=\"2\""), "{text}");
    }

    #[test]
    fn the_same_name_and_labels_are_the_same_series() {
        let registry = Registry::new();
        registry.counter("raftgrid_turns_total", "turns", &[]).inc();
        registry.clone().counter("raftgrid_turns_total", "turns", &[]).inc();
        assert_eq!(registry.counter("raftgrid_turns_total", "turns", &[]).get(), 2);
    }

    #[test]
    #[should_panic(expected = "is a counter, not a gauge")]
    fn one_name_has_one_kind() {
        let registry = Registry::new();
        registry.counter("raftgrid_turns_total", "turns", &[]);
        registry.gauge("raftgrid_turns_total", "turns", &[]);
    }

    #[test]
    #[should_panic(expected = "raftgrid_<thing>_<unit>")]
    fn names_carry_the_prefix() {
        Registry::new().counter("turns", "turns", &[]);
    }
}
