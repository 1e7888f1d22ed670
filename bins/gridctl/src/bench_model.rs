//! `gridctl bench model` and `bench sum`: what a round costs when the arithmetic of the trainers is nothing. Every gradient is durable on its
//! peers before its Ack; the round is over when the next model is.

use std::path::{Path, PathBuf};

use serde_json::{json, Value};

use crate::bench::{folder, load, numbers};
use crate::bench_flower::{Flower, FlowerRound};
use crate::bench_spread::Spread;
use crate::bench_training::{Shape, TrainedRound, Training};
use crate::cli_bench::{BenchModel, BenchSum};
use crate::context::{Context, Interrupt};
use crate::failure::{Failure, Result};
use crate::launch;
use crate::limits::{BENCH_AT_ONCE_MAX, BENCH_MIB_MAX};

/// Rounds below strace.
const TRACED_ROUNDS: u64 = 2;

/// What the trainers import.
const MODULES: [&str; 2] = ["raftgrid", "numpy"];

fn python(given: Option<&Path>) -> Result<PathBuf> {
    let python = launch::python(given)?;
    let missing = launch::missing_modules(&python, &MODULES)?;
    if missing.is_empty() {
        return Ok(python);
    }
    let cause = format!("{} does not have {}", python.display(), missing.join(" and "));
    Err(Failure::new(cause, "--python FILE, or make deps"))
}

fn check(mib: u64, rounds: u64) -> Result<()> {
    if !(1..=BENCH_MIB_MAX).contains(&mib) || rounds == 0 {
        let cause = format!("{mib} MiB in {rounds} rounds cannot be measured");
        return Err(Failure::usage(cause, format!("--mib 1 to {BENCH_MIB_MAX}, --rounds 1 or more")));
    }
    Ok(())
}

/// Ours and Flower's rounds in turn.
pub(crate) fn model(context: &Context, args: &BenchModel) -> Result<()> {
    check(args.mib, args.rounds)?;
    if !(1..=BENCH_AT_ONCE_MAX).contains(&args.trainers) {
        return Err(Failure::usage(
            format!("{} trainers cannot be had", args.trainers),
            format!("--trainers 1 to {BENCH_AT_ONCE_MAX}"),
        ));
    }
    let interrupt = Interrupt::install()?;
    let python = python(args.python.as_deref())?;
    let folder = folder(context)?;
    let shape = Shape { mib: args.mib, shards: args.trainers, rounds: args.rounds + 1, loads: true };
    let mut training = Training::start(&folder.path().join("raftgrid"), &python, shape, false, &interrupt)?;
    let begin = |python: &PathBuf| Flower::start(python, folder.path(), args.mib, args.rounds + 1, args.trainers);
    let mut flower = args.flower.as_ref().map(begin).transpose()?;
    context.output.note(format_args!(
        "{} MiB, {} trainers, {} rounds in turn; load {}",
        args.mib,
        args.trainers,
        args.rounds,
        load()
    ));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for at in 0..=args.rounds {
        let (round, other) = (training.round(&interrupt)?, flower.as_mut().map(Flower::round).transpose()?);
        if at == 0 {
            // The first one has connections to make and files to begin.
            training.forget_peaks();
            flower.iter().for_each(Flower::forget_peaks);
            continue;
        }
        ours.push(round);
        theirs.extend(other);
    }
    let memory = (training.peak_bytes(), flower.as_ref().map_or(0, Flower::peak_bytes));
    let (version, other) = (training.version.clone(), flower.as_ref().map(|flower| flower.version.clone()));
    drop((training, flower));
    let fsyncs = match args.fsyncs {
        true => Some(fsyncs(&folder.path().join("traced"), &python, shape, &interrupt)?),
        false => None,
    };
    let shown = Shown { shape, version, other, memory, fsyncs };
    show_model(context, &shown, &ours, &theirs);
    Ok(())
}

/// Fsyncs of the three replicas for a round, below strace.
fn fsyncs(folder: &Path, python: &Path, shape: Shape, interrupt: &Interrupt) -> Result<f64> {
    let mut training = Training::start(folder, python, shape, true, interrupt)?;
    training.round(interrupt)?;
    let before = training.fsyncs();
    for _ in 0..TRACED_ROUNDS.min(shape.rounds) {
        training.round(interrupt)?;
    }
    Ok((training.fsyncs() - before) as f64 / TRACED_ROUNDS.min(shape.rounds) as f64)
}

struct Shown {
    shape: Shape,
    version: String,
    /// Flower's.
    other: Option<String>,
    memory: (u64, u64),
    fsyncs: Option<f64>,
}

fn seconds(rounds: &[TrainedRound]) -> Spread {
    Spread::of(rounds.iter().map(|round| round.took.as_secs_f64()))
}

/// The slowest trainer of each round.
fn slowest(rounds: &[TrainedRound], of: impl Fn(&crate::bench_gate::Spent) -> f64) -> Spread {
    Spread::of(rounds.iter().map(|round| round.spent.iter().map(&of).fold(0.0, f64::max)))
}

fn show_model(context: &Context, shown: &Shown, ours: &[TrainedRound], theirs: &[FlowerRound]) {
    let took = seconds(ours);
    let cpu = Spread::of(ours.iter().map(|round| round.cpu_seconds));
    let times = |round: (&TrainedRound, &FlowerRound)| round.1.took.as_secs_f64() / round.0.took.as_secs_f64();
    let ratio = Spread::of(ours.iter().zip(theirs).map(times));
    let (load, push) = (slowest(ours, |spent| spent.load), slowest(ours, |spent| spent.push));
    let mut rows = vec![vec![
        shown.version.clone(),
        took.digits(3),
        if theirs.is_empty() { String::new() } else { ratio.digits(1) },
        cpu.digits(2),
        (shown.memory.0 >> 20).to_string(),
        shown.fsyncs.map(|count| format!("{count:.0}")).unwrap_or_default(),
        format!("{}, {}", load.digits(3), push.digits(3)),
    ]];
    let mut json = json!({
        "mib": shown.shape.mib, "trainers": shown.shape.shards, "version": shown.version, "seconds": took.json(),
        "cpu_seconds": cpu.json(), "peak_bytes": shown.memory.0, "fsyncs": shown.fsyncs,
        "load_seconds": load.json(), "push_seconds": push.json(), "load_average": crate::bench::load(),
    });
    if let Some(version) = &shown.other {
        let took = Spread::of(theirs.iter().map(|round| round.took.as_secs_f64()));
        let cpu = Spread::of(theirs.iter().map(|round| round.cpu_seconds));
        let memory = (shown.memory.1 >> 20).to_string();
        let words = [version.clone(), took.digits(3), String::new(), cpu.digits(2), memory, "0".to_owned()];
        rows.push(words.into_iter().chain([String::new()]).collect());
        json["flower"] = json!({ "version": version, "seconds": took.json(), "cpu_seconds": cpu.json(), "peak_bytes": shown.memory.1 });
        json["times_flower"] = ratio.json();
    }
    let headers = [
        "side",
        "s a round",
        "× as fast as Flower, same round",
        "CPU s a round",
        "peak MiB, all processes",
        "fsyncs a round",
        "slowest trainer: load, push, s",
    ];
    context.output.show(&headers, rows, &json);
}

/// N gradients, each from a trainer of its own, into the ledger and summed; each N on a cluster of its own.
pub(crate) fn sum(context: &Context, args: &BenchSum) -> Result<()> {
    check(args.mib, args.rounds)?;
    let counts = numbers(&args.gradients, BENCH_AT_ONCE_MAX, "--gradients 2,4,8")?;
    let interrupt = Interrupt::install()?;
    let python = python(args.python.as_deref())?;
    let folder = folder(context)?;
    context.output.note(format_args!(
        "{} MiB a gradient, {} rounds of each number, the first not counted; load {}",
        args.mib,
        args.rounds,
        load()
    ));
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for count in counts {
        let shape = Shape { mib: args.mib, shards: count, rounds: args.rounds + 1, loads: false };
        let directory = folder.path().join(format!("sum-{count}"));
        let mut training = Training::start(&directory, &python, shape, false, &interrupt)?;
        training.round(&interrupt)?;
        training.forget_peaks();
        let rounds = (0..args.rounds).map(|_| training.round(&interrupt)).collect::<Result<Vec<_>>>()?;
        let peaks: Vec<u64> = training.replica_peaks().into_iter().map(|bytes| bytes >> 20).collect();
        let version = training.version.clone();
        drop(training);
        // The next number starts with the disk as this one found it.
        let _kept_until_the_end = std::fs::remove_dir_all(&directory);
        let bytes = (args.mib << 20) as f64 * count as f64;
        let speed = Spread::of(rounds.iter().map(|round| bytes / 1e9 / round.took.as_secs_f64()));
        let pushed =
            Spread::of(rounds.iter().map(|round| {
                bytes / 1e9 / round.spent.iter().map(|spent| spent.push).fold(f64::MIN_POSITIVE, f64::max)
            }));
        let cpu = Spread::of(rounds.iter().map(|round| round.cpu_seconds / (bytes / 1e9)));
        let shown: Vec<String> = peaks.iter().map(u64::to_string).collect();
        rows.push(vec![
            version.clone(),
            count.to_string(),
            speed.digits(2),
            pushed.digits(2),
            cpu.digits(1),
            shown.join(", "),
        ]);
        json.push(json!({
            "version": version, "gradients": count, "mib": args.mib, "gb_per_second": speed.json(),
            "acknowledged_gb_per_second": pushed.json(), "cpu_seconds_per_gb": cpu.json(), "replica_peak_mib": peaks,
        }));
    }
    let headers = [
        "side",
        "gradients",
        "GB/s, pushed to summed",
        "GB/s, pushed to acknowledged",
        "CPU s per GB, trainers too",
        "peak MiB of each replica",
    ];
    context.output.show(&headers, rows, &Value::Array(json));
    Ok(())
}
