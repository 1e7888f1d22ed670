//! One training of the demo, watched from submit to audit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use raftgrid_client::Client;
use raftgrid_proto::v1::{Job, WatchJobResponse};
use serde_json::Value;

use crate::audit::Report;
use crate::cli::Train;
use crate::context::Interrupt;
use crate::failure::{Failure, Result};
use crate::output::{hex, line, Output};
use crate::rounds::{round_line, settled, verdict, LeaderView, Rounds};
use crate::train;
use crate::trouble::{self, Hit, Step};

/// A training that takes longer hangs.
const TRAINING_TIMEOUT: Duration = Duration::from_secs(180);
/// How often the watching thread is asked whether it has news.
const LOOK: Duration = Duration::from_millis(100);

/// What a training is done with.
pub(crate) struct Stage<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) client: &'a Client,
    pub(crate) interrupt: &'a Interrupt,
}

/// What came of one training.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) workers: u32,
    pub(crate) hits: Vec<Hit>,
    pub(crate) all_ms: u128,
    pub(crate) first_round_ms: u128,
    pub(crate) longest_pause_ms: u128,
    pub(crate) test_accuracy: Option<f64>,
    pub(crate) report: Report,
}

impl Record {
    pub(crate) fn model_sha256(&self) -> String {
        hex(self.report.answer.get_model_digest())
    }

    pub(crate) fn leaderless_ms(&self) -> Vec<u128> {
        self.hits.iter().filter_map(|hit| hit.leaderless_ms).collect()
    }
}

/// Submits, watches, troubles, waits, audits.
pub(crate) fn run(stage: &Stage<'_>, args: &Train, steps: Vec<Step>) -> Result<Record> {
    let submitted = train::submit(stage.client, args, Output::Table)?;
    if submitted.existing {
        return Err(Failure::new(format!("job {} was there already", args.name), "gridctl demo in another --dir"));
    }
    let committed = Arc::new(AtomicU64::new(0));
    let trouble = match steps.is_empty() {
        true => None,
        false => Some(trouble::start(stage.directory.to_owned(), steps, committed.clone(), stage.interrupt.clone())?),
    };
    let changes = watch(stage.client, &submitted.job_id)?;
    let seen = see(stage, &changes, &committed, submitted.at)?;
    verdict(&seen.job)?;
    let hits = match trouble.map(|thread| thread.join()) {
        None => Vec::new(),
        Some(Ok(hits)) => hits?,
        Some(Err(_)) => return Err(Failure::new("the thread that kills processes panicked", "again, and report it")),
    };
    let report = Report::get(stage.client, &args.name, &acks_files(stage.directory), false)?;
    Ok(Record {
        name: args.name.clone(),
        workers: args.workers,
        hits,
        all_ms: seen.all_ms,
        first_round_ms: seen.first_round_ms,
        longest_pause_ms: seen.longest_pause_ms,
        test_accuracy: test_accuracy(seen.job.get_result_json()),
        report,
    })
}

/// The watch runs in a thread: it blocks while nobody leads, and Ctrl-C must not wait for that.
fn watch(client: &Client, job: &str) -> Result<Receiver<Result<WatchJobResponse>>> {
    let (sender, receiver) = mpsc::channel();
    let (client, job) = (client.clone(), job.to_owned());
    let body = move || {
        for change in client.watch_job(&job, 0) {
            // The receiver is gone once the demo is over or interrupted.
            if sender.send(change.map_err(Failure::from)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(body)
        .map(|_detached| receiver)
        .map_err(|error| Failure::new(format!("failed to start a thread: {error}"), "again with more memory"))
}

struct Seen {
    job: Job,
    all_ms: u128,
    first_round_ms: u128,
    longest_pause_ms: u128,
}

fn see(
    stage: &Stage<'_>,
    changes: &Receiver<Result<WatchJobResponse>>,
    committed: &AtomicU64,
    submitted: Instant,
) -> Result<Seen> {
    let leader = LeaderView::start(stage.client.clone());
    let mut rounds = Rounds::default();
    let mut seen = Seen { job: Job::new(), all_ms: 0, first_round_ms: 0, longest_pause_ms: 0 };
    let mut before = submitted;
    loop {
        stage.interrupt.check()?;
        if submitted.elapsed() > TRAINING_TIMEOUT {
            let cause = format!("the training is not over after {} s", TRAINING_TIMEOUT.as_secs());
            return Err(Failure::new(cause, format!("the logs in {}", stage.directory.display())));
        }
        let mut change = match changes.recv_timeout(LOOK) {
            Ok(change) => change?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if let Some(round) = rounds.of(&change) {
            line(round_line(&round, before, &leader.name()));
            let pause_ms = round.seen.saturating_duration_since(before).as_millis();
            if before == submitted {
                seen.first_round_ms = pause_ms;
            } else {
                seen.longest_pause_ms = seen.longest_pause_ms.max(pause_ms);
            }
            before = round.seen;
            committed.store(round.number, Ordering::SeqCst);
        }
        seen.job = change.take_job();
    }
    seen.job = settled(stage.client, &seen.job)?;
    seen.all_ms = submitted.elapsed().as_millis();
    Ok(seen)
}

/// `test_accuracy` of a job's result.
fn test_accuracy(result_json: &str) -> Option<f64> {
    serde_json::from_str::<Value>(result_json).ok()?.get("test_accuracy")?.as_f64()
}

/// Every `acks.jsonl` in the directories of the workers.
fn acks_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<(PathBuf, u32)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("worker-") && entry.path().is_dir())
        .map(|entry| (entry.path(), 0))
        .collect();
    while let Some((folder, depth)) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name() == "acks.jsonl" {
                found.push(entry.path());
            } else if depth < 2 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push((entry.path(), depth + 1));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_is_read_from_the_result_and_nothing_else() {
        assert_eq!(test_accuracy("{\"test_accuracy\": 0.97, \"loss\": 0.1}"), Some(0.97));
        assert_eq!(test_accuracy("{\"accuracy\": 0.97}"), None);
        assert_eq!(test_accuracy("not json"), None);
    }

    #[test]
    fn acks_of_all_workers_are_found() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for path in ["worker-1/acks.jsonl", "worker-2/state/acks.jsonl", "controld-1/acks.jsonl", "acks.jsonl"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, "").expect("written");
        }
        let found = acks_files(folder.path());
        assert_eq!(found, [folder.path().join("worker-1/acks.jsonl"), folder.path().join("worker-2/state/acks.jsonl")]);
    }
}
