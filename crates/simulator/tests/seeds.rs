//! Whole clusters in virtual time: many seeds, the ones that found something once, and the same seed twice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use raftgrid_simulator::{nodes_of, run, run_many, run_plan, Focus, Many, Options, Plan, Report, Rng};

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

/// Seeds beyond those above that found something once. What they play changes with the code; what they found has a test of its own as well.
const FOUND: [u64; 2] = [
    // A power cut took the mark of the log back, and the loss of its end after that went unnoticed (store/tests/boot.rs).
    10_031,
    // Three trainers, two slots: the init task lost its lease, and the others held the slots while they waited for its model (manifest/tests/rounds.rs).
    20_088,
];

#[test]
fn what_found_something_once_finds_nothing() {
    for seed in FOUND {
        let report = run(Options { seed, nodes: nodes_of(seed), tasks: 0, sink: None });
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
    }
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

/// Seeds of `train_jobs_…`; any seed of `make sim-long` may have some, too.
const TRAINING_SEEDS: u64 = 8;

fn training(seed: u64) -> Report {
    let mut rng = Rng::new(seed);
    let mut plan = Plan::calm(&mut rng);
    plan.look_at(Focus::Training, &mut rng);
    let nodes = if seed.is_multiple_of(2) { 3 } else { 5 };
    run_plan(Options { seed, nodes, tasks: 0, sink: None }, plan)
}

#[test]
fn train_jobs_end_with_the_bytes_of_an_undisturbed_run_while_replicas_machines_and_trainers_die() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 1..=TRAINING_SEEDS {
        let report = training(seed);
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}\n{}", report.tail);
        // Its jobs that block are threads of their own: nothing depends on who is scheduled when.
        let again = training(seed);
        assert_eq!((report.hash, report.events), (again.hash, again.events), "seed {seed} took two ways");
        report.counts.iter().for_each(|(what, count)| *counts.entry(*what).or_default() += count);
    }
    println!("{counts:?}");
    let happened = [
        "train job done",
        "round committed",
        "gradient acknowledged under fire",
        "gradient again",
        "gradient compared",
        "gradient refused",
        "fragment asked",
        "crash",
        "crash-all",
        "partition",
        "worker-death",
    ];
    for what in happened {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "no {what}: {counts:?}");
    }
    assert!(counts["gradient accepted"] > 100, "{counts:?}");
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
