//! A job as it goes: one line per committed round, with who leads and how long it took.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use raftgrid_client::Client;
use raftgrid_proto::v1::{Job, JobPhase, RoundSummary, Task, TaskStatus, WatchJobResponse};
use serde_json::{json, Value};

use crate::context::Context;
use crate::curve::numbers;
use crate::drawing::Drawing;
use crate::failure::{Failure, Result};
use crate::output::{line, thousands, word};

/// Pause between two looks at who leads.
const LEADER_LOOK: Duration = Duration::from_millis(150);
/// How long the trainers of a job that is done may take to end: longer than a lease and its retry.
const RESULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Who leads, as a thread of its own keeps finding out: the line of a round must not wait for a replica that is dead.
pub(crate) struct LeaderView {
    newest: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
}

impl LeaderView {
    pub(crate) fn start(client: Client) -> Self {
        let (newest, stop) = (Arc::new(Mutex::new("?".to_owned())), Arc::new(AtomicBool::new(false)));
        let (slot, ended) = (newest.clone(), stop.clone());
        let look = move || {
            while !ended.load(Ordering::Relaxed) {
                let states = client.cluster_states();
                let answers = states.iter().filter_map(|(_, state)| state.as_ref().ok());
                let leader = answers.filter(|state| state.get_role() == "leader").max_by_key(|state| state.get_term());
                let name = leader.map_or("none".to_owned(), |state| {
                    format!("controld-{} (term {})", state.get_node_id(), state.get_term())
                });
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = name;
                thread::sleep(LEADER_LOOK);
            }
        };
        // Without it the lines say "?", which is what is known then.
        let _thread = thread::Builder::new().name("leader-view".to_owned()).spawn(look);
        Self { newest, stop }
    }

    pub(crate) fn name(&self) -> String {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for LeaderView {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One committed round as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Rounds committed with this one: 1 after the first.
    pub(crate) number: u64,
    pub(crate) rounds: u64,
    pub(crate) metrics_json: String,
    pub(crate) seen: Instant,
    /// How it ended, where not all rounds of the job end alike: `by deadline with 3, extended once, 2 rounds stale`.
    pub(crate) ended: String,
}

/// Takes the changes of a job and tells its rounds, each once.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    told: u64,
}

impl Rounds {
    /// The round that this change brought, if any. Rounds that went by in between (while nobody led, or before the watch began) are
    /// counted with it.
    pub(crate) fn of(&mut self, change: &WatchJobResponse) -> Option<Round> {
        let job = change.get_job();
        let number = if change.has_round() { change.get_round().get_round() + 1 } else { job.get_rounds_committed() };
        if number <= self.told {
            return None;
        }
        self.told = number;
        let metrics = if change.has_round() { change.get_round().get_metrics_json() } else { job.get_metrics_json() };
        Some(Round {
            number,
            rounds: job.get_spec().get_train().get_rounds(),
            metrics_json: metrics.to_owned(),
            seen: Instant::now(),
            ended: how_it_ended(change.get_round()),
        })
    }
}

fn how_it_ended(round: &RoundSummary) -> String {
    let mut parts = Vec::new();
    if !round.get_sealed_by().is_empty() {
        parts.push(format!("by {} with {}", round.get_sealed_by(), round.get_contributions()));
    }
    if round.get_extensions() > 0 {
        let times = match round.get_extensions() {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        parts.push(format!("extended {times}"));
    }
    if round.get_stalest() > 0 {
        parts.push(format!("{} rounds stale", round.get_stalest()));
    }
    parts.join(", ")
}

/// The same of all rounds of a job.
pub(crate) fn ended_by(rounds: u64, by_deadline: u64, extensions: u64, stale: u64, stalest: u64) -> String {
    let by_quorum = rounds.saturating_sub(by_deadline);
    let mut text = format!("{by_quorum} by quorum, {by_deadline} by deadline, {extensions} extensions");
    if stale > 0 {
        text += &format!("; {stale} gradients of older models, at most {stalest} rounds");
    }
    text
}

/// `loss 0.4312  accuracy 0.912` out of a round's metrics: those two first, then other numbers in the order of their names.
pub(crate) fn metrics_text(metrics_json: &str) -> String {
    let pairs = numbers(metrics_json);
    let words: Vec<String> = pairs.into_iter().take(6).map(|(name, value)| format!("{name} {value:.4}")).collect();
    words.join("  ")
}

/// The line of a round. `before` is the round (or the start) before it.
pub(crate) fn round_line(round: &Round, before: Instant, leader: &str) -> String {
    let width = round.rounds.to_string().len();
    let metrics = metrics_text(&round.metrics_json);
    let ms = thousands(round.seen.saturating_duration_since(before).as_millis());
    let ended = if round.ended.is_empty() { String::new() } else { format!("  {}", round.ended) };
    format!("round {:>width$}/{}  {metrics}  leader {leader}  +{ms} ms{ended}", round.number, round.rounds)
}

/// Whether the job ended well; else the failure that says how it ended.
pub(crate) fn verdict(job: &Job) -> Result<()> {
    let name = job.get_job_id();
    let how = match job.get_phase() {
        JobPhase::JOB_DONE => return Ok(()),
        JobPhase::JOB_FAILED => "failed",
        JobPhase::JOB_CANCELLED => "was cancelled",
        JobPhase::JOB_REJECTED => "was stopped: two nodes had their gradient rejected",
        JobPhase::JOB_PAUSED => "is paused",
        JobPhase::JOB_INIT | JobPhase::JOB_RUNNING => "is not over",
    };
    let reason = if job.get_reason().is_empty() { "no reason is recorded" } else { job.get_reason() };
    Err(Failure::new(
        format!("job {name} {how}: {reason}"),
        format!("gridctl job get {name}, and gridctl task logs ID of its tasks"),
    ))
}

/// Prints the rounds of a job until it is over, quietly if `lines` is false. The last state of the job.
pub(crate) fn follow(context: &Context, client: &Client, name: &str, lines: bool) -> Result<Job> {
    // First, so that a name that does not exist is told at once and in plain words.
    let mut job = client.get_job(name)?.take_job();
    let leader = lines.then(|| LeaderView::start(client.clone()));
    let mut drawing = Drawing::new(lines && !context.output.is_json());
    if lines && job.get_rounds_committed() > 0 {
        for round in client.job_history(name)? {
            drawing.earlier(round.get_round() + 1, round.get_metrics_json());
        }
    }
    let (mut rounds, mut before, mut paused) = (Rounds::default(), Instant::now(), false);
    for change in client.watch_job(name, 0) {
        let mut change = change?;
        if let (Some(round), Some(leader)) = (rounds.of(&change), &leader) {
            let leader = leader.name();
            if context.output.is_json() {
                line(round_json(&round, before, &leader));
            } else {
                let text = round_line(&round, before, &leader);
                drawing.round(round.number, &round.metrics_json, || line(text));
            }
            before = round.seen;
        }
        let was_paused = std::mem::replace(&mut paused, change.get_job().get_phase() == JobPhase::JOB_PAUSED);
        if lines && paused && !was_paused && !context.output.is_json() {
            let reason = change.get_job().get_reason();
            let text = format!("job {name} is paused: {reason}; go on with: gridctl job resume {name}");
            drawing.beside(|| line(text));
        }
        job = change.take_job();
    }
    let job = settled(client, &job)?;
    if lines && !context.output.is_json() {
        drawing.end(|| line(format_args!("job {name} is {}", word(job.get_phase(), "JOB_"))));
    }
    Ok(job)
}

fn round_json(round: &Round, before: Instant, leader: &str) -> Value {
    let metrics = serde_json::from_str::<Value>(&round.metrics_json).unwrap_or(Value::Null);
    let ms = u64::try_from(round.seen.saturating_duration_since(before).as_millis()).unwrap_or(u64::MAX);
    json!({"round": round.number, "rounds": round.rounds, "metrics": metrics, "leader": leader, "ms": ms, "ended": round.ended})
}

/// The job with its result: a job is over with its last round, its trainers report what they made of it a moment later.
pub(crate) fn settled(client: &Client, job: &Job) -> Result<Job> {
    let begin = Instant::now();
    loop {
        let mut answer = client.get_job(job.get_job_id())?;
        let over = |task: &Task| matches!(task.get_status(), TaskStatus::COMPLETED | TaskStatus::FAILED);
        let all_over = answer.get_tasks().iter().all(over);
        let done = answer.get_job().get_phase() == JobPhase::JOB_DONE;
        // A job that did not end well has no result to wait for.
        if all_over || !done || begin.elapsed() > RESULT_TIMEOUT {
            return Ok(answer.take_job());
        }
        thread::sleep(LEADER_LOOK / 3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(committed: u64, round: Option<u64>) -> WatchJobResponse {
        let mut change = WatchJobResponse::new();
        change.mut_job().set_rounds_committed(committed);
        change.mut_job().mut_spec().mut_train().set_rounds(60);
        if let Some(round) = round {
            let mut summary = RoundSummary::new();
            summary.set_round(round);
            summary.set_metrics_json("{\"accuracy\":0.5,\"loss\":1.25}".to_owned());
            change.set_round(summary);
        }
        change
    }

    #[test]
    fn each_round_is_told_once_and_gaps_are_counted_with_the_next_one() {
        let mut rounds = Rounds::default();
        let mut number = |change| rounds.of(&change).map(|round| round.number);
        assert_eq!(number(change(0, None)), None, "the job was made, no round yet");
        assert_eq!(number(change(1, Some(0))), Some(1));
        assert_eq!(number(change(1, None)), None, "the job changed, not its rounds");
        assert_eq!(number(change(1, Some(0))), None, "told again after a reconnect");
        assert_eq!(number(change(4, None)), Some(4), "two went by while nobody watched");
        assert_eq!(number(change(4, Some(3))), None);
    }

    #[test]
    fn a_line_names_round_metrics_leader_and_time() {
        let round = Rounds::default().of(&change(1, Some(0))).expect("the first");
        let before = round.seen - Duration::from_millis(1_250);
        assert_eq!(
            round_line(&round, before, "controld-2 (term 3)"),
            "round  1/60  loss 1.2500  accuracy 0.5000  leader controld-2 (term 3)  +1,250 ms"
        );
        assert_eq!(metrics_text("not json"), "");
        let mut short = change(1, Some(0));
        short.mut_round().set_sealed_by("deadline".to_owned());
        short.mut_round().set_contributions(3);
        short.mut_round().set_extensions(1);
        let round = Rounds::default().of(&short).expect("the first");
        let line = round_line(&round, before, "controld-2 (term 3)");
        assert!(line.ends_with(" ms  by deadline with 3, extended once"), "{line}");
    }

    #[test]
    fn only_a_job_that_is_done_ended_well() {
        let mut job = Job::new();
        job.set_job_id("digits".to_owned());
        job.set_phase(JobPhase::JOB_DONE);
        assert!(verdict(&job).is_ok());
        job.set_phase(JobPhase::JOB_FAILED);
        job.set_reason("the script raised ValueError".to_owned());
        let line = verdict(&job).unwrap_err().to_string();
        assert!(line.starts_with("job digits failed: the script raised ValueError; try: "), "{line}");
    }
}
