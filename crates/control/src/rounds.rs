//! Rounds: a sealed round is summed and its model committed. Owns what is under way for each job; orders Aggregate, proposes CommitModel
//! together with the shard leases of the next round, and FailJob when a sum fails again and again.

use std::collections::BTreeMap;

use raftgrid_manifest::{RoundMode, RoundPolicy};
use raftgrid_proto::v1::{Command_oneof_kind, CommitModel, JobPhase, RoundPhase};

use crate::jobs::fail;
use crate::limits::{AGGREGATE_ANSWER_MS, AGGREGATE_FAILURES_MAX, AGGREGATE_PAUSE_MS};
use crate::liveness::Liveness;
use crate::moment::Moment;
use crate::outbox::{Outbox, Subject, Verdict};
use crate::shards;
use crate::types::{Action, Millis};
use crate::view::{JobView, View};

#[derive(Debug)]
enum Stage {
    /// Aggregate was ordered; its result is to come until then.
    Ordered(Millis),
    /// It failed, or its result never came; ordered again at this time.
    Resting(Millis),
    /// The sum is durable; its command is proposed until the row shows the commit.
    Committing { commit: Box<CommitModel>, proposed: bool },
}

#[derive(Debug)]
struct Sum {
    round: u64,
    stage: Stage,
    failures: u32,
    reason: String,
}

#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// By job sequence.
    sums: BTreeMap<u64, Sum>,
}

impl Rounds {
    /// The result of an Aggregate.
    pub(crate) fn on_aggregated(
        &mut self,
        now: Millis,
        view: &View,
        job_id: &str,
        round: u64,
        result: Result<Box<CommitModel>, String>,
    ) {
        let Some((sequence, _)) = view.job_by_id(job_id) else { return };
        let Some(sum) = self.sums.get_mut(&sequence) else { return };
        if sum.round != round || !matches!(sum.stage, Stage::Ordered(_)) {
            return;
        }
        match result {
            Ok(commit) => sum.stage = Stage::Committing { commit, proposed: false },
            Err(reason) => sum.fail(now, reason),
        }
    }

    /// What became of a proposal about the job.
    pub(crate) fn on_reply(&mut self, now: Millis, job: u64, verdict: &Verdict) {
        let Some(sum) = self.sums.get_mut(&job) else { return };
        let Stage::Committing { proposed, .. } = &mut sum.stage else { return };
        if !std::mem::take(proposed) {
            return;
        }
        if let Verdict::Refused(reason) = verdict {
            sum.fail(now, reason.clone());
        }
    }

    pub(crate) fn step(
        &mut self,
        moment: &Moment<'_>,
        liveness: &Liveness,
        outbox: &mut Outbox,
        actions: &mut Vec<Action>,
    ) {
        let (now, view) = (moment.now, moment.view);
        self.sums.retain(|job, sum| view.jobs.get(job).is_some_and(|view| sealed_round(view) == Some(sum.round)));
        for (sequence, job) in &view.jobs {
            let Some(round) = sealed_round(job) else { continue };
            let sum = self.sums.entry(*sequence).or_insert_with(|| Sum::new(now, round));
            sum.step(now, job, actions);
            let subject = Subject::Job(*sequence);
            if !outbox.free(&subject) {
                continue;
            }
            if sum.failures >= AGGREGATE_FAILURES_MAX {
                let reason = format!("round {round} cannot be committed: {}", sum.reason);
                outbox.put(subject, fail(&job.row.get_job().job_id, JobPhase::JOB_FAILED, &reason));
            } else if let Stage::Committing { commit, proposed } = &mut sum.stage {
                *proposed = true;
                let mut commands = vec![Command_oneof_kind::commit_model(commit.as_ref().clone())];
                // Rounds that collect ahead have leases already; what is missing of them is seen with the commit.
                let policy = RoundPolicy::of(&job.row);
                if round + 1 < policy.rounds && policy.mode == RoundMode::Sync {
                    commands.extend(shards::plan_next(moment, liveness, *sequence, job, round + 1));
                }
                outbox.put_together(subject, commands);
            }
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Millis> {
        let resting = self.sums.values().filter_map(|sum| match sum.stage {
            Stage::Resting(until) if sum.failures < AGGREGATE_FAILURES_MAX => Some(until),
            Stage::Ordered(until) => Some(until),
            Stage::Resting(_) | Stage::Committing { .. } => None,
        });
        resting.min()
    }
}

impl Sum {
    /// Not yet ordered: due at once.
    fn new(now: Millis, round: u64) -> Self {
        Self { round, stage: Stage::Resting(now), failures: 0, reason: String::new() }
    }

    fn fail(&mut self, now: Millis, reason: String) {
        self.failures += 1;
        self.reason = reason;
        self.stage = Stage::Resting(now + AGGREGATE_PAUSE_MS * u64::from(self.failures));
    }

    fn step(&mut self, now: Millis, job: &JobView, actions: &mut Vec<Action>) {
        match self.stage {
            Stage::Resting(due) | Stage::Ordered(due) if due <= now && self.failures < AGGREGATE_FAILURES_MAX => {
                self.stage = Stage::Ordered(now + AGGREGATE_ANSWER_MS);
                actions.push(Action::Aggregate { job_id: job.row.get_job().job_id.clone(), round: self.round });
            }
            Stage::Resting(_) | Stage::Ordered(_) | Stage::Committing { .. } => {}
        }
    }
}

/// The round of a running job that waits for its sum.
fn sealed_round(job: &JobView) -> Option<u64> {
    let round = &job.head()?.row;
    let running = job.row.get_job().phase == JobPhase::JOB_RUNNING;
    (running && round.phase == RoundPhase::ROUND_SEALED).then_some(round.round)
}
