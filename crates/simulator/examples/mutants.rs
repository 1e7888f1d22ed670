//! `make sim-mutants`: plants each bug in turn and runs seeds until one shows it. Prints the table of docs/simulation.md.
//!
//! Arguments: names of mutants (none: all; `sound`: no bug is planted, and every failing seed is told), and `--seeds N` (seeds tried for each,
//! 2000 if not given) and `--first N` (the first of them).

use std::process::ExitCode;

use raftgrid_simulator::mutants::{hunt, MUTANTS};
use raftgrid_simulator::{run_many, Many};

/// Seeds tried for each bug if nobody says otherwise.
const SEEDS: u64 = 2_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)?.parse().ok()
    };
    let (first, seeds) = (number("--first").unwrap_or(1), number("--seeds").unwrap_or(SEEDS));
    let named = |name: &str| words.iter().any(|word| word == name);
    if named("sound") {
        return sound(first, seeds);
    }
    let all = !MUTANTS.iter().any(|mutant| named(mutant.name));
    let mut missed = 0;
    println!("| bug | what is planted | seed | seeds run | time | how it shows |");
    println!("|---|---|---|---|---|---|");
    for mutant in MUTANTS.iter().filter(|mutant| all || named(mutant.name)) {
        let found = hunt(mutant, first, seeds);
        missed += u32::from(found.seed.is_none());
        let seed = found.seed.map_or("not found".to_owned(), |seed| seed.to_string());
        let how: String = without_places(&found.how).chars().take(110).collect();
        println!(
            "| {} | {} | {seed} | {} | {:.1} s | {} |",
            mutant.name,
            mutant.what,
            found.seeds,
            found.took.as_secs_f64(),
            how.replace('|', "/"),
        );
    }
    if missed > 0 {
        eprintln!("{missed} planted bugs were not found");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A panic names its file, in a dependency by where this machine keeps it: that says nothing to others.
fn without_places(how: &str) -> String {
    let short = |word: &str| match word.find("/registry/src/") {
        Some(at) => word[at..].splitn(5, '/').last().unwrap_or_default().to_owned(),
        None => word.to_owned(),
    };
    how.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

fn sound(first: u64, seeds: u64) -> ExitCode {
    let summary = run_many(Many { first, count: seeds, nodes: None, tasks: 0, failures_max: 20 }, &|report| {
        println!("seed {}: {}", report.seed, report.violations.join("; "))
    });
    println!(
        "{} seeds, {} failed, {} s of virtual time, {:?}",
        summary.runs,
        summary.failed.len(),
        summary.virtual_us / 1_000_000,
        summary.counts
    );
    if summary.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
