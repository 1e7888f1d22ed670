//! `gridctl demo`: one model trained three times, once while processes are killed, once undisturbed, once by fewer workers. The models must be equal.
//!
//! The cluster is taken down at the end whatever happened. Every condition is checked and printed; one that does not hold makes the exit status 1.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::cli::{Demo, DevUp, Global, Train};
use crate::context::{absolute, connect, Context, Interrupt};
use crate::demo_run::{run as train_once, Record, Stage};
use crate::dev;
use crate::dev_state::{DevState, Node};
use crate::failure::{Failure, Result};
use crate::launch;
use crate::limits::DEMO_DIRECTORY;
use crate::output::{line, thousands, Output};
use crate::process::family;
use crate::round_rules::RoundRules;
use crate::trouble::steps;

const SHARDS: u32 = 6;
const WORKERS: u32 = 3;
const ACCURACY_MIN: f64 = 0.95;
/// Longest time between two rounds, a change of the leader included, with the `local` preset.
const PAUSE_MS_MAX: u128 = 8_000;
/// From submit to the first committed round.
const FIRST_ROUND_MS_MAX: u128 = 10_000;

pub(crate) fn run(context: &Context, args: &Demo) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let begin = Instant::now();
    let directory = absolute(context.global.dir.as_deref().unwrap_or(Path::new(DEMO_DIRECTORY)))?;
    // Told before anything starts: a script that is not there is the likeliest slip.
    crate::bundle::pack(&args.script)?;
    let python = launch::python(args.python.as_deref())?;
    let missing = launch::missing_modules(&python, &["raftgrid", "numpy", "grpc", "safetensors", "sklearn"])?;
    if !missing.is_empty() {
        let cause = format!("{} does not find {}", python.display(), missing.join(", "));
        return Err(Failure::new(cause, "make deps, or --python FILE"));
    }
    clear(&directory)?;
    let outcome = act(&context.global, args, &directory, &interrupt);
    let taken_down = dev::down(&directory);
    let records = outcome?;
    let left = family(&directory, &[]).len();
    line(format_args!("\ndev down: {} processes ended, {left} left", taken_down?));
    conclude(&records, args.rounds, begin)
}

/// Makes room for a new demo. Only what a demo made is removed.
fn clear(directory: &Path) -> Result<()> {
    if let Some(state) = DevState::load(directory)? {
        if state.nodes.iter().any(Node::alive) {
            let cause = format!("a demo runs in {} already", directory.display());
            return Err(Failure::new(cause, format!("gridctl dev down --dir {}", directory.display())));
        }
        // Said, because a busy disk takes its time.
        line(format_args!("removing the last demo in {}", directory.display()));
        fs::remove_dir_all(directory).map_err(|error| {
            Failure::new(format!("failed to remove the last demo in {}: {error}", directory.display()), "another --dir")
        })?;
    } else if fs::read_dir(directory).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| e.file_name() != "lock")))
    {
        let cause = format!("{} is not empty and no demo made it", directory.display());
        return Err(Failure::new(cause, "another --dir"));
    }
    Ok(())
}

/// Brings the cluster up and trains three times.
fn act(global: &Global, args: &Demo, directory: &Path, interrupt: &Interrupt) -> Result<Vec<Record>> {
    let up = DevUp { peers: Some(3), workers: Some(WORKERS), detach: true, python: args.python.clone(), slots: 2 };
    line(format_args!("$ gridctl dev up --peers 3 --workers {WORKERS} --detach --dir {}", directory.display()));
    let started = dev::start(directory, &up, interrupt)?;
    let ready = dev::ready(&started, interrupt)?;
    dev::show(Output::Table, &started.0, &ready);
    let client = connect(started.0.endpoints(), global)?;
    let stage = Stage { directory, client: &client, interrupt };
    let mut records = Vec::new();
    for (name, workers, troubled) in
        [("digits", WORKERS, true), ("digits-calm", WORKERS, false), ("digits-two", 2, false)]
    {
        let train = training(args, name, workers);
        let steps = if troubled { steps(args.rounds) } else { Vec::new() };
        line(format_args!(
            "\n$ gridctl train {} --name {name} --shards {SHARDS} --workers {workers} --rounds {} --watch{}",
            args.script.display(),
            args.rounds,
            if troubled { "   # the leader is killed twice, a worker once" } else { "" }
        ));
        let record = train_once(&stage, &train, steps)?;
        line(format_args!("job {name} is done after {} ms", thousands(record.all_ms)));
        records.push(record);
    }
    Ok(records)
}

fn training(args: &Demo, name: &str, workers: u32) -> Train {
    Train {
        script: args.script.clone(),
        name: name.to_owned(),
        shards: SHARDS,
        workers,
        rounds: args.rounds,
        quorum: None,
        rules: RoundRules::default(),
        seed: 0,
        verify: 0.01,
        watch: true,
        args: Vec::new(),
    }
}

/// One condition of the demo: what must hold, and what was found if it does not.
struct Check {
    sentence: String,
    holds: bool,
}

/// Everything that must hold.
fn checks(records: &[Record], rounds: u64) -> Vec<Check> {
    let wanted = rounds * u64::from(SHARDS);
    let mut checks = Vec::new();
    let mut check = |sentence: String, holds: bool| checks.push(Check { sentence, holds });
    for record in records {
        let (name, answer) = (record.name.as_str(), &record.report.answer);
        let accuracy = record.test_accuracy;
        let shown = accuracy.map_or("unknown".to_owned(), |accuracy| format!("{:.1} %", accuracy * 100.0));
        check(
            format!("{name}: test accuracy {shown} (at least {:.0} %)", ACCURACY_MIN * 100.0),
            accuracy.is_some_and(|accuracy| accuracy >= ACCURACY_MIN),
        );
        let (accepted, lost, twice) = (answer.get_accepted(), answer.get_lost(), answer.get_duplicated());
        check(
            format!("{name}: {accepted} gradients accepted, {lost} lost, {twice} counted twice"),
            accepted == wanted && answer.get_expected() == wanted && lost == 0 && twice == 0,
        );
        let acks = record.report.acks.clone().unwrap_or_default();
        check(
            format!(
                "{name}: {} of {} acknowledgements of the workers are in the ledger",
                acks.in_ledger, acks.acknowledged
            ),
            // Each accepted gradient was acknowledged to somebody, unless its trainer died before it could write that down.
            acks.missing.is_empty() && acks.acknowledged > 0,
        );
        check(
            format!("{name}: ledger {}", if answer.get_ledger_hash_verified() { "verified" } else { "NOT verified" }),
            answer.get_ledger_hash_verified(),
        );
        let because = answer.get_reproducible_reason();
        let because = if because.is_empty() { String::new() } else { format!(" ({because})") };
        check(
            format!("{name}: reproducible: {}{because}", answer.get_reproducible()),
            answer.get_reproducible() == "yes",
        );
        check(
            format!("{name}: first round after {} ms", thousands(record.first_round_ms)),
            (1..=FIRST_ROUND_MS_MAX).contains(&record.first_round_ms),
        );
        let pause = thousands(record.longest_pause_ms);
        check(format!("{name}: longest pause between rounds {pause} ms"), record.longest_pause_ms <= PAUSE_MS_MAX);
    }
    let leaders = records.first().map_or(0, |record| record.leaderless_ms().len());
    check(format!("the leader was killed {leaders} times, and another one led"), leaders == 2);
    let digests: Vec<String> = records.iter().map(Record::model_sha256).collect();
    let equal = records.len() == 3 && digests.iter().all(|digest| digest.len() == 64 && *digest == digests[0]);
    let sentence = match equal {
        true => format!("the final model is equal in all runs: SHA-256 {}", digests[0]),
        false => format!("the final models DIFFER: {}", digests.join(", ")),
    };
    check(sentence, equal);
    checks
}

fn conclude(records: &[Record], rounds: u64, begin: Instant) -> Result<()> {
    let rows = records.iter().map(|record| {
        let answer = &record.report.answer;
        let leaderless: Vec<String> = record.leaderless_ms().iter().map(|ms| thousands(*ms)).collect();
        vec![
            record.name.clone(),
            record.workers.to_string(),
            record.hits.len().to_string(),
            leaderless.join(" and "),
            answer.get_rounds_committed().to_string(),
            record.test_accuracy.map(|accuracy| format!("{:.1} %", accuracy * 100.0)).unwrap_or_default(),
            answer.get_accepted().to_string(),
            thousands(record.all_ms),
            record.model_sha256().chars().take(16).collect(),
        ]
    });
    let headers =
        ["job", "workers", "kills", "ms without leader", "rounds", "test accuracy", "gradients", "ms", "model sha-256"];
    line("");
    Output::Table.show(&headers, rows.collect(), &serde_json::Value::Null);
    line("");
    let checks = checks(records, rounds);
    for check in &checks {
        line(format_args!("{} {}", if check.holds { "ok  " } else { "FAIL" }, check.sentence));
    }
    let failed: Vec<&str> = checks.iter().filter(|check| !check.holds).map(|check| check.sentence.as_str()).collect();
    line(format_args!("\nall of it took {} ms", thousands(begin.elapsed().as_millis())));
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(
            format!("the demo failed in {} of {} points, the first: {first}", failed.len(), checks.len()),
            "the logs in its directory",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Acks, Report};
    use crate::trouble::Hit;
    use raftgrid_proto::v1::AuditJobResponse;

    fn good(name: &str, hits: usize) -> Record {
        let mut answer = AuditJobResponse::new();
        answer.set_rounds_committed(60);
        answer.set_expected(360);
        answer.set_accepted(360);
        answer.set_reproducible("yes".to_owned());
        answer.set_ledger_hash_verified(true);
        answer.set_model_digest(vec![7; 32]);
        Record {
            name: name.to_owned(),
            workers: 3,
            hits: vec![Hit { leaderless_ms: Some(400) }; hits],
            all_ms: 9_000,
            first_round_ms: 900,
            longest_pause_ms: 700,
            test_accuracy: Some(0.97),
            report: Report { answer, acks: Some(Acks { acknowledged: 360, in_ledger: 360, missing: Vec::new() }) },
        }
    }

    fn failing(spoil: impl Fn(&mut Vec<Record>)) -> Vec<String> {
        let mut records = vec![good("digits", 2), good("digits-calm", 0), good("digits-two", 0)];
        spoil(&mut records);
        checks(&records, 60).into_iter().filter(|check| !check.holds).map(|check| check.sentence).collect()
    }

    #[test]
    fn three_good_runs_pass_and_each_defect_fails_by_itself() {
        assert_eq!(failing(|_| {}), Vec::<String>::new());
        let one = |spoil: fn(&mut Record), word: &str| {
            let failed = failing(|records| spoil(&mut records[1]));
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert!(failed[0].contains(word), "{failed:?}");
        };
        one(|r| r.test_accuracy = Some(0.94), "94.0 %");
        one(|r| r.test_accuracy = None, "unknown");
        one(|r| r.report.answer.set_accepted(359), "359 gradients accepted");
        one(|r| r.report.answer.set_lost(1), "1 lost");
        one(|r| r.report.answer.set_duplicated(1), "1 counted twice");
        one(|r| r.report.answer.set_reproducible("unverified".to_owned()), "reproducible: unverified");
        one(|r| r.report.answer.set_ledger_hash_verified(false), "NOT verified");
        one(|r| r.report.acks = None, "0 of 0 acknowledgements");
        one(|r| r.longest_pause_ms = 8_001, "longest pause");
        one(|r| r.first_round_ms = 10_001, "first round");
        one(|r| r.report.answer.set_model_digest(vec![8; 32]), "DIFFER");
    }

    #[test]
    fn a_run_without_its_kills_or_without_a_model_fails() {
        assert!(failing(|records| records[0].hits.truncate(1))[0].contains("killed 1 times"));
        let failed = failing(|records| records.iter_mut().for_each(|r| r.report.answer.set_model_digest(Vec::new())));
        assert!(failed[0].contains("DIFFER"), "{failed:?}");
    }

    #[test]
    fn a_directory_that_is_not_a_demos_is_never_removed() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        clear(folder.path()).expect("an empty one may be used");
        fs::write(folder.path().join("thesis.tex"), "x").expect("written");
        let line = clear(folder.path()).unwrap_err().to_string();
        assert!(line.contains("no demo made it"), "{line}");
        assert!(folder.path().join("thesis.tex").exists());
    }
}
