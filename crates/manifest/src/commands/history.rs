//! The history of a job's rounds: what a curve is drawn from long after the ledger let the rounds go. One row is written and at most one deleted
//! for each commit, so a job of R rounds has about 4,096 + 2,048 log2(R / 4,096) of them.

use raftgrid_proto::v1::{RoundHistoryRow, RoundRow};

use crate::keys;
use crate::limits::HISTORY_ROUNDS;
use crate::machine::Machine;
use crate::rows::Table;

/// The machine version from which on rounds have a history.
const SINCE: u64 = 6;

/// Called for each committed round.
pub(crate) fn note(machine: &mut Machine<'_>, job_sequence: u64, round: &RoundRow) {
    if machine.meta.machine_version < SINCE {
        return;
    }
    let row = RoundHistoryRow {
        round: round.round,
        contributions: round.accepted,
        metrics_json: round.metrics_json.clone(),
        committed_at_ms: round.committed_at_ms,
        ..RoundHistoryRow::default()
    };
    machine.put(Table::RoundHistory, keys::pair(job_sequence, round.round), &row);
    if let Some(gone) = thinned(round.round) {
        machine.delete(Table::RoundHistory, keys::pair(job_sequence, gone));
    }
}

/// The round that goes when `round` comes. A round that 2^k divides, and no higher power, stays for `HISTORY_ROUNDS` * 2^k others.
fn thinned(round: u64) -> Option<u64> {
    // The round that far back is divided by the same power, since the distance is by a higher one.
    let distance = HISTORY_ROUNDS.checked_mul(1_u64.checked_shl(round.trailing_zeros())?)?;
    round.checked_sub(distance)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_newest_rounds_are_all_kept_and_the_older_ones_ever_thinner() {
        let mut kept = BTreeSet::new();
        let rounds = 10 * HISTORY_ROUNDS;
        for round in 0..rounds {
            kept.insert(round);
            if let Some(gone) = thinned(round) {
                assert!(kept.remove(&gone), "{gone} went twice");
            }
            assert!(kept.len() as u64 <= HISTORY_ROUNDS * 5);
        }
        assert!((rounds - HISTORY_ROUNDS..rounds).all(|round| kept.contains(&round)));
        let age = |round: u64| rounds - 1 - round;
        for round in 1..rounds {
            let span = HISTORY_ROUNDS << round.trailing_zeros();
            assert_eq!(kept.contains(&round), age(round) < span, "round {round}");
        }
        assert!(kept.contains(&0), "the first one stays");
    }
}
