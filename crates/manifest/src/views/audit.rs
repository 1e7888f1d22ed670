//! The audit of a train job: what its ledger holds, whether it is whole, and whether the model is reproducible. Counts come from the rows
//! that are kept; what was pruned is vouched for by the hash chain and the counters.

use std::collections::BTreeSet;

use protobuf::RepeatedField;
use raftgrid_proto::v1::{
    ArtifactState, AuditJobResponse, Contribution, ContributionRow, JobRow, RefusedResult, RoundPhase, RoundRow,
};

use crate::keys;
use crate::ledger::{chain_hash, round_inputs_hash, RoundInputs};
use crate::read;
use crate::round_policy::{RoundMode, RoundPolicy, BY_DEADLINE};
use crate::rows::{Rows, RowsError, Table};
use crate::text::short_hex;

const MISMATCH: &str = "MISMATCH";

/// What a walk over the ledger found.
#[derive(Default)]
struct Walk {
    /// Committed rounds that are kept whole.
    rounds: u64,
    /// Contributions that they must hold.
    expected: u64,
    /// That they were sealed with, as their rows say.
    sealed: u64,
    accepted: u64,
    /// Accepted, but the bytes are gone that should still be kept.
    gone: u64,
    duplicated: u64,
    /// The first mismatch, in words.
    mismatch: Option<String>,
    verified: bool,
    verified_from_round: u64,
    contributions: Vec<Contribution>,
}

/// Audits a job; None if there is none of that id. For jobs of other types than train the ledger is empty.
pub fn audit(rows: &dyn Rows, job_id: &str, with_contributions: bool) -> Result<Option<AuditJobResponse>, RowsError> {
    let Some(job_row) = read::job_by_id(rows, job_id)? else { return Ok(None) };
    let job = job_row.get_job();
    let walk = walk(rows, &job_row, with_contributions)?;
    let pruned = pruned(&job_row, &walk);
    let (expected, accepted) = (walk.expected + pruned, walk.accepted + pruned);
    let (reproducible, reason) = reproducible(&job_row, &walk);
    let mode = if job.get_spec().has_train() { RoundPolicy::of(&job_row).mode_name() } else { "" };
    Ok(Some(AuditJobResponse {
        job_id: job_id.to_owned(),
        phase: job.phase,
        rounds_committed: job.rounds_committed,
        expected,
        accepted,
        lost: expected.saturating_sub(accepted) + walk.gone,
        duplicated: walk.duplicated,
        refused_duplicates: job.duplicates,
        stale: job.stale,
        rejected: job.rejected,
        mismatches: job.mismatches,
        compared: job.compared,
        reproducible: reproducible.to_owned(),
        reproducible_reason: reason,
        model_digest: job.model_digest.clone(),
        model_version: job.model_version,
        ledger_hash: job.ledger_hash.clone(),
        ledger_hash_verified: walk.verified,
        verified_from_round: walk.verified_from_round,
        contributions: RepeatedField::from_vec(walk.contributions),
        retained_from_round: job_row.retained_from_round,
        mode: mode.to_owned(),
        rounds_by_deadline: job.rounds_by_deadline,
        extensions: job.extensions,
        stale_gradients: job.stale_gradients,
        stalest: job.stalest,
        ..AuditJobResponse::default()
    }))
}

/// Contributions that a committed round must hold. One that waits for its quorum has just that many; another has what was sealed, which is at
/// least what sealed it.
fn must_hold(job_row: &JobRow, round: Option<&RoundRow>) -> u64 {
    let policy = RoundPolicy::of(job_row);
    let round = round.filter(|_| job_row.round_rules);
    let least = if round.is_some_and(|round| round.sealed_by == BY_DEADLINE) { policy.minimum } else { policy.quorum };
    u64::from(round.map_or(0, |round| round.accepted).max(least))
}

/// Contributions to the committed rounds whose rows are gone.
fn pruned(job_row: &JobRow, walk: &Walk) -> u64 {
    if job_row.round_rules {
        job_row.sealed_contributions.saturating_sub(walk.sealed)
    } else {
        (job_row.get_job().rounds_committed - walk.rounds) * must_hold(job_row, None)
    }
}

fn walk(rows: &dyn Rows, job_row: &JobRow, with_contributions: bool) -> Result<Walk, RowsError> {
    let job = job_row.get_job();
    let mut walk = Walk { verified: true, ..Walk::default() };
    let first = first_whole_round(rows, job_row)?;
    walk.verified_from_round = first;
    let mut chain = match first.checked_sub(1) {
        None => Vec::new(),
        Some(before) => read::round(rows, job_row.sequence, before)?.map(|row| row.chain_hash).unwrap_or_default(),
    };
    let mut artifacts = BTreeSet::new();
    for number in first..job.rounds_committed {
        let contributions = read::contributions(rows, job_row.sequence, number)?;
        walk.rounds += 1;
        let accepted = contributions.iter().filter(|row| !row.digest.is_empty());
        for row in accepted {
            walk.accepted += 1;
            // The key makes a second row for one shard impossible; the same bytes counted for two shards would show here.
            walk.duplicated += u64::from(!artifacts.insert(row.artifact_id));
            if number >= job_row.retained_from_round {
                let kept = read::artifact(rows, row.artifact_id)?;
                let kept = kept.is_some_and(|row| row.state == ArtifactState::ARTIFACT_COMMITTED);
                walk.gone += u64::from(!kept);
            }
        }
        let round = read::round(rows, job_row.sequence, number)?;
        walk.expected += must_hold(job_row, round.as_ref());
        walk.sealed += round.as_ref().map_or(0, |round| u64::from(round.accepted));
        match round {
            Some(round) => chain = link(job_row, &round, &contributions, chain, &mut walk.verified),
            None => walk.verified = false,
        }
    }
    walk.verified &= chain == job.ledger_hash;
    look_for_results(rows, job_row, with_contributions, &mut walk)?;
    Ok(walk)
}

/// Committed rounds are whole from here on. Before it only the row of the last pruned round stands, as the chain's anchor, and perhaps the
/// first mismatch.
fn first_whole_round(rows: &dyn Rows, job_row: &JobRow) -> Result<u64, RowsError> {
    let prefix = keys::number(job_row.sequence);
    let mut first = None;
    read::each(rows, Table::Round, &prefix, &keys::after_prefix(&prefix), |row: RoundRow| {
        first = Some(row.round);
        false
    })?;
    Ok(match first {
        None | Some(0) => {
            let pruned = job_row.get_job().rounds_committed > crate::limits::LEDGER_ROUNDS;
            u64::from(pruned)
        }
        Some(anchor) => anchor + 1,
    })
}

/// The next link, recomputed: the round was committed, and its inputs hash follows from its rows.
fn link(
    job_row: &JobRow,
    round: &RoundRow,
    contributions: &[ContributionRow],
    chain: Vec<u8>,
    verified: &mut bool,
) -> Vec<u8> {
    let hash = round_inputs_hash(&RoundInputs::of_rows(job_row, round, contributions));
    let next = chain_hash(&chain, &hash, &round.model_digest).to_vec();
    *verified &= round.phase == RoundPhase::ROUND_COMMITTED && round.inputs_hash == hash && round.chain_hash == next;
    next
}

/// Looks at every row of the ledger that is kept: mismatches count wherever they stand, also in rounds that are not committed.
fn look_for_results(
    rows: &dyn Rows,
    job_row: &JobRow,
    with_contributions: bool,
    walk: &mut Walk,
) -> Result<(), RowsError> {
    let names_models = RoundPolicy::of(job_row).mode != RoundMode::Sync;
    let prefix = keys::number(job_row.sequence);
    read::each(rows, Table::Contribution, &prefix, &keys::after_prefix(&prefix), |row: ContributionRow| {
        if walk.mismatch.is_none() {
            walk.mismatch = describe_mismatch(&row);
        }
        if with_contributions {
            if !row.digest.is_empty() {
                walk.contributions.push(accepted(&row, names_models));
            }
            walk.contributions.extend(row.refused.iter().map(|result| refused(&row, result)));
        }
        true
    })
}

fn describe_mismatch(row: &ContributionRow) -> Option<String> {
    let differing: Vec<String> = row
        .refused
        .iter()
        .filter(|refused| refused.outcome == MISMATCH)
        .map(|r| format!("attempt {} of {} on node {} gave {}", r.attempt, r.task_id, r.node_id, short_hex(&r.digest)))
        .collect();
    if differing.is_empty() {
        return None;
    }
    Some(format!(
        "round {} shard {}: attempt {} of {} on node {} gave {}, {}",
        row.round,
        row.shard,
        row.attempt,
        row.task_id,
        row.node_id,
        short_hex(&row.digest),
        differing.join(", "),
    ))
}

/// yes | no | unverified, and why.
fn reproducible(job_row: &JobRow, walk: &Walk) -> (&'static str, String) {
    let job = job_row.get_job();
    if job.get_spec().train.is_none() {
        return ("unverified", "not a train job".to_owned());
    }
    if let Some(mismatch) = &walk.mismatch {
        return ("no", mismatch.clone());
    }
    if job.mismatches > 0 {
        return ("no", format!("{} results differed; their rows are no longer kept", job.mismatches));
    }
    if !job_row.numeric_class_note.is_empty() {
        return ("no", format!("numeric classes differ: {}", job_row.numeric_class_note));
    }
    if let Err(why) = RoundPolicy::of(job_row).whole_rounds() {
        return ("no", why);
    }
    let train = job.get_spec().get_train();
    if train.native_environment {
        return ("unverified", "the job opted out of the reproducible environment".to_owned());
    }
    if job.compared == 0 {
        return ("unverified", "no (round, shard) was computed twice; see the job's `verify`".to_owned());
    }
    ("yes", format!("{} results were computed twice, with equal bytes; none differed", job.compared))
}

fn accepted(row: &ContributionRow, names_models: bool) -> Contribution {
    Contribution {
        round: row.round,
        shard: row.shard,
        node_id: row.node_id.clone(),
        task_id: row.task_id.clone(),
        attempt: row.attempt,
        digest: row.digest.clone(),
        weight: f64::from_bits(row.weight_bits),
        artifact: row.artifact_id.to_string(),
        outcome: "ACCEPTED".to_owned(),
        numeric_class: row.numeric_class.clone(),
        model_version: if names_models { row.model_version } else { row.round },
        ..Contribution::default()
    }
}

fn refused(row: &ContributionRow, result: &RefusedResult) -> Contribution {
    Contribution {
        round: row.round,
        shard: row.shard,
        node_id: result.node_id.clone(),
        task_id: result.task_id.clone(),
        attempt: result.attempt,
        digest: result.digest.clone(),
        outcome: result.outcome.clone(),
        reason: result.reason.clone(),
        ..Contribution::default()
    }
}
