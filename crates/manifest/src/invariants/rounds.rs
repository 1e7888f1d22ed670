//! What the rules of a job's rounds say of its rows: 5 and 6 for rounds that deadlines seal and that may hold gradients of older models.

use std::collections::BTreeSet;

use raftgrid_proto::v1::{ContributionRow, JobRow, RoundPhase, RoundRow};

use crate::limits::LEDGER_ROUNDS;
use crate::read;
use crate::round_policy::{is_head, RoundMode, RoundPolicy, BY_DEADLINE};
use crate::rows::{Rows, RowsError};

pub(super) fn check_rules(
    rows: &dyn Rows,
    job_row: &JobRow,
    rounds: &[RoundRow],
    broken: &mut Vec<String>,
) -> Result<(), RowsError> {
    let (policy, job) = (RoundPolicy::of(job_row), job_row.get_job());
    let mut over_models = BTreeSet::new();
    for round in rounds {
        let name = format!("job {} round {}", job.job_id, round.round);
        check_seal(&policy, round, &name, broken);
        if is_head(round) != (round.round <= job.rounds_committed) {
            broken.push(format!("6: {name} has model {} after {} commits", round.model_artifact, job.rounds_committed));
        }
        if round.round + LEDGER_ROUNDS < job.rounds_committed || policy.mode == RoundMode::Sync {
            continue;
        }
        for row in read::contributions(rows, job_row.sequence, round.round)? {
            check_model(&policy, round, &row, &name, broken);
            let once = row.digest.is_empty() || over_models.insert((row.shard, row.model_version));
            if matches!(policy.mode, RoundMode::Async { .. }) && !once {
                broken.push(format!("5: {name} counts shard {} over model {} again", row.shard, row.model_version));
            }
        }
    }
    Ok(())
}

/// Sealed with what seals it, and never extended beyond what the job allows.
fn check_seal(policy: &RoundPolicy, round: &RoundRow, name: &str, broken: &mut Vec<String>) {
    let least = if round.sealed_by == BY_DEADLINE { policy.minimum } else { policy.quorum };
    if round.phase != RoundPhase::ROUND_OPEN && round.accepted < least {
        broken.push(format!("6: {name} was sealed with {} of {least} contributions", round.accepted));
    }
    let extensions = round.extensions.checked_sub(round.extensions_before);
    if extensions.is_none_or(|extensions| extensions > policy.extensions_max) {
        broken.push(format!("6: {name} was extended {} times, {} before", round.extensions, round.extensions_before));
    }
}

fn check_model(policy: &RoundPolicy, round: &RoundRow, row: &ContributionRow, name: &str, broken: &mut Vec<String>) {
    let fits = (policy.oldest_model(round.round)..=round.round).contains(&row.model_version);
    if !row.digest.is_empty() && !fits {
        broken.push(format!("5: {name} holds shard {} over model {}", row.shard, row.model_version));
    }
}
