//! Which pairs are computed twice.

use raftgrid_proto::v1::TrainSpec;
use sha2::{Digest, Sha256};

use crate::view::JobView;

/// Is the pair computed twice? A share `verify` of all pairs, drawn by hash; and where any is asked for: the first pair of round 0, and
/// shard 0 of every round until one comparison was made, so that a job with `verify` never ends unverified for want of luck.
pub(crate) fn wants_verify(train: &TrainSpec, job: &JobView, round: u64, shard: u32) -> bool {
    if train.verify <= 0.0 {
        return false;
    }
    let first = shard == 0 && (round == 0 || job.row.get_job().compared == 0);
    first || drawn(train.seed, round, shard) < train.verify
}

/// Uniform in 0..1, by SHA-256 over (seed, round, shard).
fn drawn(seed: u64, round: u64, shard: u32) -> f64 {
    let mut hash = Sha256::new();
    hash.update(b"raftgrid/verify/v1");
    hash.update(seed.to_be_bytes());
    hash.update(round.to_be_bytes());
    hash.update(shard.to_be_bytes());
    let digest = hash.finalize();
    let head = digest.iter().take(8).fold(0u64, |head, byte| head << 8 | u64::from(*byte));
    head as f64 / 2f64.powi(64)
}

#[cfg(test)]
mod tests {
    use super::drawn;

    #[test]
    fn verification_draws_about_the_share_that_was_asked_for() {
        let drawn_below = |share: f64| (0..10_000u32).filter(|n| drawn(7, u64::from(n / 6), n % 6) < share).count();
        assert!((50..=150).contains(&drawn_below(0.01)), "{}", drawn_below(0.01));
        assert_eq!(drawn_below(1.0), 10_000);
        assert_ne!(drawn(7, 1, 0), drawn(8, 1, 0));
    }
}
