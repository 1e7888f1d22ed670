//! Whole clusters in virtual time: many seeds, the ones that found something once, and the same seed twice.

use std::cell::RefCell;
use std::rc::Rc;

use raftgrid_simulator::{nodes_of, run, run_many, Options};

/// Seeds of `make test`; `RAFTGRID_SEEDS` asks for another number.
const SEEDS: u64 = 500;

fn seeds() -> u64 {
    std::env::var("RAFTGRID_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn whatever_a_seed_brings_nothing_acknowledged_is_lost_and_all_converge() {
    let told = |report: &raftgrid_simulator::Report| {
        eprintln!("seed {}: {}", report.seed, report.violations.join("; "));
    };
    let summary = run_many(1, seeds(), None, 5, &told);
    println!("{} runs, {} s of virtual time, {:?}", summary.runs, summary.virtual_us / 1_000_000, summary.counts);
    let failed: Vec<String> = summary
        .failed
        .iter()
        .map(|report| format!("gridctl sim --seed {} --nodes {} --trace", report.seed, nodes_of(report.seed)))
        .collect();
    assert!(failed.is_empty(), "replay with:\n{}", failed.join("\n"));
    assert!(summary.entries > summary.runs * 20, "only {} entries were committed", summary.entries);
}

fn trace(seed: u64) -> (u64, String) {
    let lines = Rc::new(RefCell::new(String::new()));
    let sink = Rc::clone(&lines);
    let sink = Box::new(move |line: &str| {
        sink.borrow_mut().push_str(line);
        sink.borrow_mut().push('\n');
    });
    let report = run(Options { seed, nodes: nodes_of(seed), sink: Some(sink) });
    let text = lines.borrow().clone();
    (report.hash, text)
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [3, 7, 11] {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.1.lines().count() > 1_000, "seed {seed} has a trace");
        assert!(first == second, "seed {seed} took two ways");
        let silent = run(Options { seed, nodes: nodes_of(seed), sink: None });
        assert_eq!(silent.hash, first.0, "watching changes nothing");
    }
    assert_ne!(trace(3).0, trace(4).0, "another seed is another world");
}
