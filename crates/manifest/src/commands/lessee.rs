//! Who may send for a (round, shard): whoever holds or held a lease of it. What another has, or has given, is not a trainer's to send.

use raftgrid_proto::v1::{ContributionRow, RoundRow, ShardLease};

use crate::commands::trainers::{is_same_attempt, works_on};
use crate::round_policy::RoundMode;

/// The machine version from which on a trainer cannot send for another's shard.
pub(crate) const SINCE: u64 = 6;

/// Why `attempt` may not send for its shard: another gave it or works on it, and this one never had it. None: it may.
///
/// In an async job a lease may be one of an earlier round, which is closed and keeps none: there the trainer is believed. A pair that nobody has
/// is nobody else's.
pub(crate) fn is_anothers(
    mode: &RoundMode,
    round: &RoundRow,
    contribution: &ContributionRow,
    attempt: &ShardLease,
) -> Option<String> {
    let had = || round.leases.iter().any(|held| is_same_attempt(held.get_lease(), attempt));
    if matches!(mode, RoundMode::Async { .. }) || had() {
        return None;
    }
    let (number, shard) = (round.round, attempt.shard);
    if !contribution.digest.is_empty() {
        return (contribution.task_id != attempt.task_id || contribution.epoch != attempt.epoch).then(|| {
            format!("round {number} shard {shard} was given by {}, and never leased to you", contribution.task_id)
        });
    }
    let held = round.leases.iter().find(|held| works_on(held, shard))?;
    Some(format!("round {number} shard {shard} is leased to {}, not to you", held.get_lease().task_id))
}
