//! Watches: read here, send what is new, wait until one of the rows looked at has changed, read again. Rows are the source, so nothing can
//! fall out of a ring between two looks: rounds come in order, none missing, none twice, on whatever replica the watch goes on.
//!
//! Positions rise from message to message; a client that comes back with the last one gets exactly what it has not seen.

use std::sync::Arc;
use std::time::Instant;

use raftgrid_manifest::watched::{self, Watched};
use raftgrid_proto::v1::*;
use raftgrid_replica::ports::ReadView;

use crate::calls::{read, rows_changed_after, Outgoing};
use crate::context::{Context, Core};
use crate::encoded::{self, WATCH_TASK_RESPONSE_TASK};
use crate::failure::{not_found, Answer};
use crate::job::is_over;
use crate::task::is_final;
use crate::{limits, validate, views};

/// TaskService/WatchTask.
pub(crate) async fn task(
    core: Arc<Core>,
    _: Context,
    request: WatchTaskRequest,
    mut sink: Outgoing<WatchTaskResponse>,
) -> (Outgoing<WatchTaskResponse>, Answer<()>) {
    let answer = watch_task(&core, &request, &mut sink).await;
    (sink, answer)
}

async fn watch_task(
    core: &Arc<Core>,
    request: &WatchTaskRequest,
    sink: &mut Outgoing<WatchTaskResponse>,
) -> Answer<()> {
    let task_id = request.get_task_id();
    validate::name("task_id", task_id)?;
    let _permit = core.watches.admit()?;
    let mut sent = request.get_from_position();
    let mut absent = Absence::default();
    loop {
        let view = read(core, Consistency::LOCAL).await?;
        let found = views::encoded_task(&*view.rows, task_id)?;
        let watched = watched::task(task_id, found.as_ref().map(|(sequence, _)| *sequence));
        if let Some((_, task)) = found {
            let over = is_final(task.status);
            if task.revision > sent || sent == 0 {
                sent = task.revision;
                let mut message = WatchTaskResponse::new();
                message.set_position(sent);
                encoded::push(&mut message, WATCH_TASK_RESPONSE_TASK, task.bytes);
                sink.send(message).await?;
            }
            if over {
                return Ok(());
            }
        } else if absent.too_long() {
            return Err(not_found("task", task_id));
        }
        wait(core, &view, watched, sink, absent.looking()).await?;
    }
}

/// JobService/Watch.
pub(crate) async fn job(
    core: Arc<Core>,
    _: Context,
    request: WatchJobRequest,
    mut sink: Outgoing<WatchJobResponse>,
) -> (Outgoing<WatchJobResponse>, Answer<()>) {
    let answer = watch_job(&core, &request, &mut sink).await;
    (sink, answer)
}

async fn watch_job(core: &Arc<Core>, request: &WatchJobRequest, sink: &mut Outgoing<WatchJobResponse>) -> Answer<()> {
    let job_id = request.get_job_id();
    validate::name("job_id", job_id)?;
    let _permit = core.watches.admit()?;
    let mut sent = request.get_from_position();
    let mut next_round = None;
    let mut absent = Absence::default();
    loop {
        let view = read(core, Consistency::LOCAL).await?;
        let Some(row) = views::job(&*view.rows, job_id)? else {
            if absent.too_long() {
                return Err(not_found("job", job_id));
            }
            wait(core, &view, watched::job(job_id, None), sink, absent.looking()).await?;
            continue;
        };
        absent = Absence::default();
        let first = match next_round {
            Some(round) => Some(round),
            None => views::first_round_after(&*view.rows, &row, sent)?,
        };
        let rounds = match first {
            Some(first) => {
                views::committed_rounds(&*view.rows, &row, first, limits::WATCH_ROUNDS_MAX)?.map(|it| (first, it))
            }
            None => None,
        };
        let Some((first, rounds)) = rounds else {
            let mut message = WatchJobResponse::new();
            message.set_compacted(true);
            message.set_position(row.get_job().get_revision());
            return sink.send(message).await;
        };
        next_round = Some(first + rounds.len() as u64);
        let more = rounds.len() == limits::WATCH_ROUNDS_MAX;
        let messages = messages(row.get_job(), &rounds, sent, more);
        for message in messages {
            sent = message.get_position();
            sink.send(message).await?;
        }
        if more {
            continue;
        }
        if is_over(row.get_job().get_phase()) {
            return Ok(());
        }
        wait(core, &view, watched::job(job_id, Some(row.sequence)), sink, false).await?;
    }
}

/// What one look gives: a message for each round, and one for the job's state if it changed after the last of them. Only the last message
/// says that the job is over: clients stop there.
fn messages(job: &Job, rounds: &[RoundRow], sent: u64, more: bool) -> Vec<WatchJobResponse> {
    let mut messages = Vec::new();
    let mut position = sent;
    for round in rounds {
        position = round.get_committed_position().max(position + 1);
        let mut message = WatchJobResponse::new();
        message.set_position(position);
        let summary = message.mut_round();
        summary.set_round(round.get_round());
        summary.set_contributions(round.get_accepted());
        summary.set_sealed_by(round.get_sealed_by().to_owned());
        summary.set_extensions(round.get_extensions());
        summary.set_stalest(round.get_stalest());
        summary.set_metrics_json(round.get_metrics_json().to_owned());
        summary.set_committed_at_ms(i64::try_from(round.get_committed_at_ms()).unwrap_or(i64::MAX));
        messages.push(message);
    }
    let first_look = sent == 0 && messages.is_empty();
    if !more && (job.get_revision() > position || first_look) {
        let mut message = WatchJobResponse::new();
        message.set_position(job.get_revision());
        messages.push(message);
    }
    let last = messages.len().wrapping_sub(1);
    for (number, message) in messages.iter_mut().enumerate() {
        let mut state = job.clone();
        if is_over(state.get_phase()) && (number != last || more) {
            state.set_phase(JobPhase::JOB_RUNNING);
        }
        message.set_job(state);
    }
    messages
}

/// Until one of the rows changed, or for `WATCH_IDLE`; fails if the client has gone.
async fn wait<T>(core: &Core, view: &ReadView, watched: Watched, sink: &mut Outgoing<T>, briefly: bool) -> Answer<()> {
    let timeout = if briefly { limits::CATCH_UP_WAIT } else { limits::WATCH_IDLE };
    rows_changed_after(core, view.position, Some(watched), timeout).await;
    sink.still_there().await
}

/// A replica that is behind may not know yet what its leader has answered: it is given a while. Time counts, not looks: one that catches
/// up looks again with every entry.
#[derive(Default)]
struct Absence {
    since: Option<Instant>,
}

impl Absence {
    fn too_long(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= limits::CATCH_UP_TIMEOUT
    }

    fn looking(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(number: u64, position: u64) -> RoundRow {
        RoundRow {
            round: number,
            committed_position: position,
            phase: RoundPhase::ROUND_COMMITTED,
            ..RoundRow::default()
        }
    }

    fn job(phase: JobPhase, revision: u64) -> Job {
        Job { phase, revision, ..Job::default() }
    }

    fn facts(messages: &[WatchJobResponse]) -> Vec<(u64, Option<u64>, JobPhase)> {
        let round = |message: &WatchJobResponse| message.round.as_ref().map(|round| round.round);
        messages.iter().map(|message| (message.position, round(message), message.get_job().phase)).collect()
    }

    #[test]
    fn only_the_last_message_of_a_finished_job_says_so() {
        let done = job(JobPhase::JOB_DONE, 30);
        let all = messages(&done, &[round(0, 10), round(1, 20), round(2, 30)], 5, false);
        let running = JobPhase::JOB_RUNNING;
        assert_eq!(facts(&all), [(10, Some(0), running), (20, Some(1), running), (30, Some(2), JobPhase::JOB_DONE)]);
        let later = job(JobPhase::JOB_DONE, 40);
        let all = messages(&later, &[round(2, 30)], 20, false);
        assert_eq!(facts(&all), [(30, Some(2), running), (40, None, JobPhase::JOB_DONE)]);
    }

    #[test]
    fn positions_rise_and_an_unchanged_job_is_silent() {
        let running = job(JobPhase::JOB_RUNNING, 20);
        assert_eq!(facts(&messages(&running, &[], 20, false)), []);
        assert_eq!(facts(&messages(&running, &[], 0, false)), [(20, None, JobPhase::JOB_RUNNING)]);
        assert_eq!(facts(&messages(&running, &[], 19, false)), [(20, None, JobPhase::JOB_RUNNING)]);
    }

    #[test]
    fn a_page_of_rounds_that_is_not_the_last_never_ends_the_watch() {
        let done = job(JobPhase::JOB_DONE, 90);
        let all = messages(&done, &[round(0, 10), round(1, 20)], 0, true);
        assert!(facts(&all).iter().all(|(_, round, phase)| round.is_some() && *phase == JobPhase::JOB_RUNNING));
    }
}
