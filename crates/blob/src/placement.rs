//! On which replicas the copies of an artifact go. Pure.

/// Failures that a group of this many voters survives.
pub fn failures_survived(voters: usize) -> usize {
    voters.saturating_sub(1) / 2
}

/// Copies of an artifact: enough that `failures_survived` replicas may be lost.
pub fn copies(voters: usize) -> usize {
    failures_survived(voters) + 1
}

/// Replicas for the copies, best first: this one, then the others in an order that spreads by `salt`. More than `copies` are given, so that a
/// replica that does not answer is passed over at once.
pub fn candidates(this: u64, voters: &[u64], salt: u64) -> Vec<u64> {
    let mut others: Vec<u64> = voters.iter().copied().filter(|node| *node != this).collect();
    others.sort_unstable();
    if !others.is_empty() {
        let turn = usize::try_from(salt % others.len() as u64).unwrap_or(0);
        others.rotate_left(turn);
    }
    if voters.contains(&this) {
        others.insert(0, this);
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_survive_the_failures_that_the_group_survives() {
        for (voters, expected) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (7, 4)] {
            assert_eq!(copies(voters), expected, "{voters} voters");
        }
    }

    #[test]
    fn the_receiving_replica_keeps_a_copy_and_the_others_take_turns() {
        assert_eq!(candidates(2, &[1, 2, 3], 0), vec![2, 1, 3]);
        assert_eq!(candidates(2, &[1, 2, 3], 1), vec![2, 3, 1]);
        assert_eq!(candidates(9, &[1, 2, 3], 1), vec![2, 3, 1]);
    }
}
