//! Whole clusters in virtual time: many seeds, the ones that found something once, and the same seed twice.

use std::cell::RefCell;
use std::rc::Rc;

use raftgrid_simulator::{nodes_of, run, run_many, Many, Options};

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
    let summary = run_many(Many { first: 1, count: seeds(), nodes: None, tasks: 0, failures_max: 5 }, &told);
    println!("{} runs, {} s of virtual time, {:?}", summary.runs, summary.virtual_us / 1_000_000, summary.counts);
    let failed: Vec<String> = summary
        .failed
        .iter()
        .map(|report| format!("gridctl sim --seed {} --nodes {} --trace", report.seed, nodes_of(report.seed)))
        .collect();
    assert!(failed.is_empty(), "replay with:\n{}", failed.join("\n"));
    assert!(summary.entries > summary.runs * 20, "only {} entries were committed", summary.entries);
}

/// Tasks of `thousands_of_tasks_of_all_kinds_…`; `make sim-tasks` runs 100,000.
const TASKS: u64 = 4_000;

#[test]
fn thousands_of_tasks_of_all_kinds_end_once_each_while_leaders_workers_and_queues_get_no_rest() {
    for seed in [1, 2] {
        let report = run(Options { seed, nodes: 3, tasks: TASKS, sink: None });
        assert_eq!(
            report.violations,
            Vec::<String>::new(),
            "gridctl sim --seed {seed} --nodes 3 --tasks {TASKS} --trace"
        );
        println!("{:?}", report.counts);
        assert!(report.counts.get("task").is_some_and(|made| *made >= TASKS), "{:?}", report.counts);
        for what in ["attempt", "crash", "gang placed", "task cancelled", "task failed", "tick fired", "worker-leave"] {
            assert!(report.counts.get(what).is_some_and(|count| *count > 0), "no {what}: {:?}", report.counts);
        }
    }
}

fn trace(seed: u64) -> (u64, String) {
    let lines = Rc::new(RefCell::new(String::new()));
    let sink = Rc::clone(&lines);
    let sink = Box::new(move |line: &str| {
        sink.borrow_mut().push_str(line);
        sink.borrow_mut().push('\n');
    });
    let report = run(Options { seed, nodes: nodes_of(seed), tasks: 0, sink: Some(sink) });
    let text = lines.borrow().clone();
    (report.hash, text)
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [3, 7, 11] {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.1.lines().count() > 1_000, "seed {seed} has a trace");
        assert!(first == second, "seed {seed} took two ways");
        let silent = run(Options { seed, nodes: nodes_of(seed), tasks: 0, sink: None });
        assert_eq!(silent.hash, first.0, "watching changes nothing");
    }
    assert_ne!(trace(3).0, trace(4).0, "another seed is another world");
}
