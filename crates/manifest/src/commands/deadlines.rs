//! SealRound, ExtendRound, and what a resumption does to a round: a deadline has passed. Both commands carry the extension that their leader
//! reckoned by, and come too early before the deadline of cluster time: one that is in the log twice, or that a deposed leader sent, does
//! nothing.

use std::collections::BTreeSet;

use protobuf::RepeatedField;
use raftgrid_proto::v1::{ExtendRound, JobPhase, JobRow, Outcome, RoundPhase, RoundRow, SealRound};

use crate::commands::job_end::end_job;
use crate::commands::lifecycle::require_running;
use crate::commands::rounds::{self, train_job};
use crate::error::{Fault, Handled};
use crate::limits::MISSING_SHARDS_NAMED;
use crate::machine::Machine;
use crate::read;
use crate::reply::{precondition, refuse};
use crate::round_policy::{is_head, RoundPolicy, BY_DEADLINE};
use crate::tables::JobTable;
use crate::text::cut;

/// By deadline, with the minimum. Never below it; without a deadline, never below the quorum.
pub(crate) fn seal(machine: &mut Machine<'_>, command: &SealRound) -> Handled {
    let job_row = train_job(machine, &command.job_id)?;
    let mut round = kept_round(machine, &job_row, command.round)?;
    match round.phase {
        RoundPhase::ROUND_SEALED | RoundPhase::ROUND_COMMITTED => {
            return Ok(machine.existing(job_row.get_job().revision));
        }
        RoundPhase::ROUND_OPEN => require_running(job_row.get_job().phase, &command.job_id)?,
    }
    if !is_head(&round) {
        return Err(precondition(format!("round {} is collected ahead of its model", round.round)));
    }
    let policy = RoundPolicy::of(&job_row);
    let needed = if policy.deadline_ms == 0 { policy.quorum } else { policy.minimum };
    if policy.deadline_ms > 0 {
        check_due(machine, &policy, &round, command.extension)?;
    }
    if round.accepted < needed {
        let why = format!("round {} has {} of {needed} contributions", round.round, round.accepted);
        return Err(precondition(why));
    }
    rounds::close(machine, &job_row, &mut round, BY_DEADLINE);
    rounds::put(machine, job_row.sequence, &round);
    Ok(machine.ok())
}

/// By deadline, below the minimum: another one, with the missing shards free for others; or the end of the job's patience.
pub(crate) fn extend(machine: &mut Machine<'_>, command: &ExtendRound) -> Handled {
    let job_row = train_job(machine, &command.job_id)?;
    let mut round = kept_round(machine, &job_row, command.round)?;
    match round.phase {
        RoundPhase::ROUND_SEALED | RoundPhase::ROUND_COMMITTED => {
            return Err(refuse(Outcome::STALE, format!("round {} is sealed", command.round)));
        }
        RoundPhase::ROUND_OPEN => require_running(job_row.get_job().phase, &command.job_id)?,
    }
    let policy = RoundPolicy::of(&job_row);
    check_due(machine, &policy, &round, command.extension)?;
    if round.accepted >= policy.minimum {
        let why = format!("round {} has its minimum of {}: it is sealed, not extended", round.round, policy.minimum);
        return Err(precondition(why));
    }
    let given = given_shards(machine, &job_row, &round)?;
    if policy.may_extend(&round) {
        extend_row(machine, &mut round, &given);
        rounds::put(machine, job_row.sequence, &round);
        return Ok(machine.ok());
    }
    give_up(machine, job_row, &policy, &shortfall(&policy, &round, &given))?;
    Ok(machine.ok())
}

/// The job goes on: its round begins its deadline anew, with all of its extensions.
pub(crate) fn resumed(machine: &mut Machine<'_>, job_row: &JobRow) -> Result<(), Fault> {
    let policy = RoundPolicy::of(job_row);
    let Some(mut round) = read::round(&machine.rows, job_row.sequence, job_row.get_job().rounds_committed)? else {
        return Ok(());
    };
    if policy.deadline(&round).is_none() {
        return Ok(());
    }
    let given = given_shards(machine, job_row, &round)?;
    extend_row(machine, &mut round, &given);
    round.extensions_before = round.extensions;
    rounds::put(machine, job_row.sequence, &round);
    Ok(())
}

fn kept_round(machine: &Machine<'_>, job_row: &JobRow, number: u64) -> Result<RoundRow, Fault> {
    match read::round(&machine.rows, job_row.sequence, number)? {
        Some(round) => Ok(round),
        None if number < job_row.get_job().rounds_committed => {
            Err(refuse(Outcome::STALE, format!("round {number} is committed")))
        }
        None => Err(precondition(format!("round {number} is not open yet"))),
    }
}

fn check_due(machine: &Machine<'_>, policy: &RoundPolicy, round: &RoundRow, extension: u32) -> Result<(), Fault> {
    let number = round.round;
    let Some(deadline) = policy.deadline(round) else {
        return Err(precondition(format!("round {number} has no deadline")));
    };
    if extension != round.extensions {
        let why = format!("reckoned by extension {extension} of round {number}, which had {}", round.extensions);
        return Err(precondition(why));
    }
    let now = machine.now_ms();
    if now < deadline {
        return Err(precondition(format!("round {number} is open for another {} ms", deadline - now)));
    }
    Ok(())
}

fn given_shards(machine: &Machine<'_>, job_row: &JobRow, round: &RoundRow) -> Result<BTreeSet<u32>, Fault> {
    let rows = read::contributions(&machine.rows, job_row.sequence, round.round)?;
    Ok(rows.iter().filter(|row| !row.digest.is_empty()).map(|row| row.shard).collect())
}

/// Another deadline; whoever works on a missing shard does not keep others from it any more.
fn extend_row(machine: &Machine<'_>, round: &mut RoundRow, given: &BTreeSet<u32>) {
    round.extensions += 1;
    round.deadline_from_ms = machine.now_ms();
    // Of those that an earlier extension took nobody has to know any more: the list is bounded.
    let mut leases: Vec<_> = round.take_leases().into_iter().filter(|held| held.answered || !held.taken).collect();
    for held in &mut leases {
        held.taken = !held.answered && !given.contains(&held.get_lease().shard);
    }
    round.leases = RepeatedField::from_vec(leases);
}

fn shortfall(policy: &RoundPolicy, round: &RoundRow, given: &BTreeSet<u32>) -> String {
    let missing: Vec<u32> = (0..policy.shards).filter(|shard| !given.contains(shard)).collect();
    let named: Vec<String> = missing.iter().take(MISSING_SHARDS_NAMED).map(u32::to_string).collect();
    let more = if missing.len() > named.len() { ", …" } else { "" };
    format!(
        "round {} has {} of at least {} gradients after {} extensions; missing: shards {}{more}",
        round.round,
        round.accepted,
        policy.minimum,
        round.extensions - round.extensions_before,
        named.join(", "),
    )
}

fn give_up(machine: &mut Machine<'_>, mut job_row: JobRow, policy: &RoundPolicy, reason: &str) -> Result<(), Fault> {
    if policy.fails {
        return end_job(machine, job_row.sequence, JobPhase::JOB_FAILED, reason);
    }
    let job = job_row.mut_job();
    job.phase = JobPhase::JOB_PAUSED;
    job.reason = cut(reason);
    JobTable::put(machine, job_row);
    Ok(())
}
