//! Many seeds, on as many threads as there are cores. Each run is one thread's alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use crate::world::{run, Options, Report};

/// What came out of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Virtual time of all of them, in microseconds.
    pub virtual_us: u64,
    /// Events.
    pub events: u64,
    /// Entries that were committed.
    pub entries: u64,
    /// What happened how often.
    pub counts: BTreeMap<String, u64>,
    /// Runs in which something was wrong, by seed.
    pub failed: Vec<Report>,
}

/// Which runs.
#[derive(Clone, Copy, Debug)]
pub struct Many {
    /// The first seed.
    pub first: u64,
    /// How many seeds from there on.
    pub count: u64,
    /// Founders; None: by the seed.
    pub nodes: Option<u64>,
    /// `Options::tasks`.
    pub tasks: u64,
    /// Failures after which the others are not tried.
    pub failures_max: usize,
}

/// Runs many seeds. `told` gets each failure when it is found.
pub fn run_many(many: Many, told: &(dyn Fn(&Report) + Sync)) -> Summary {
    let Many { first, count, nodes, tasks, failures_max } = many;
    let next = AtomicU64::new(first);
    let summary = Mutex::new(Summary::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let enough = summary.lock().is_ok_and(|summary| summary.failed.len() >= failures_max);
                if seed >= first + count || enough {
                    break;
                }
                let report = run(Options { seed, nodes: nodes.unwrap_or(nodes_of(seed)), tasks, sink: None });
                if !report.violations.is_empty() {
                    told(&report);
                }
                if let Ok(mut summary) = summary.lock() {
                    add(&mut summary, report);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.failed.sort_by_key(|report| report.seed);
    summary
}

/// Founders of a seed's group if nobody says how many.
pub fn nodes_of(seed: u64) -> u64 {
    match seed % 8 {
        3 | 7 => 5,
        // It grows by changes of the membership, if the plan has them.
        5 => 1,
        _ => 3,
    }
}

fn add(summary: &mut Summary, report: Report) {
    summary.runs += 1;
    summary.virtual_us += report.virtual_us;
    summary.events += report.events;
    summary.entries += report.entries;
    for (what, count) in &report.counts {
        *summary.counts.entry((*what).to_owned()).or_default() += count;
    }
    if !report.violations.is_empty() {
        summary.failed.push(report);
    }
}
