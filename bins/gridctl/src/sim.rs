//! `gridctl sim`: whole clusters in virtual time, from a seed. A failing seed is printed with the command that replays it.

use std::time::Instant;

use raftgrid_simulator::{nodes_of, run, run_many, Many, Options, Report};

use crate::cli::Sim;
use crate::failure::{Failure, Result};
use crate::output;

/// Failing seeds after which the others are not tried.
const FAILURES_MAX: usize = 20;

pub(crate) fn run_sim(args: &Sim) -> Result<()> {
    if args.trace {
        return trace(args);
    }
    let started = Instant::now();
    let told = |report: &Report| output::line(failed(report, args));
    let (first, count, nodes, tasks) = (args.seed, args.seeds, args.nodes, args.tasks);
    let summary = run_many(Many { first, count, nodes, tasks, failures_max: FAILURES_MAX }, &told);
    let real = started.elapsed().as_secs_f64();
    let virtual_s = summary.virtual_us as f64 / 1e6;
    let counts: Vec<String> = summary.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    output::line(format!("happened: {}", counts.join(", ")));
    output::line(format!(
        "{} seeds, {} failed; {virtual_s:.0} s of virtual time in {real:.1} s ({:.0} times as fast), {} events, {} entries",
        summary.runs,
        summary.failed.len(),
        virtual_s / real.max(1e-9),
        summary.events,
        summary.entries,
    ));
    if summary.failed.is_empty() {
        return Ok(());
    }
    Err(refused(summary.failed.len() as u64))
}

/// One line for a failing seed: what was wrong first, and how to see it again.
fn failed(report: &Report, args: &Sim) -> String {
    let nodes = args.nodes.unwrap_or(nodes_of(report.seed));
    let tasks = if args.tasks == 0 { String::new() } else { format!(" --tasks {}", args.tasks) };
    let first = report.violations.first().map_or("", String::as_str);
    format!(
        "seed {} failed: {first}; replay: gridctl sim --seed {} --nodes {nodes}{tasks} --trace",
        report.seed, report.seed
    )
}

/// Every event of each seed, as a line.
fn trace(args: &Sim) -> Result<()> {
    let mut wrong = 0;
    for seed in args.seed..args.seed + args.seeds {
        let nodes = args.nodes.unwrap_or(nodes_of(seed));
        let tasks = args.tasks;
        let report = run(Options { seed, nodes, tasks, sink: Some(Box::new(|line| output::line(line))) });
        output::line(format!("seed {seed} nodes {nodes}: hash {:016x}, {} events", report.hash, report.events));
        for violation in &report.violations {
            output::line(format!("violation: {violation}"));
        }
        wrong += u64::from(!report.violations.is_empty());
    }
    if wrong == 0 {
        return Ok(());
    }
    Err(refused(wrong))
}

fn refused(seeds: u64) -> Failure {
    let hint = "replay a failing seed with --trace and read its end; docs/simulation.md says how";
    Failure::new(format!("{seeds} seeds failed"), hint)
}
