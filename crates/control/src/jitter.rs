//! Backoff with jitter, without a random number: the jitter is drawn from a seed and a counter, so that a step can be replayed.

use crate::types::{Config, Millis};

/// Draws pauses. One per leader; the seed differs by replica (it comes with the configuration).
#[derive(Debug)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The pause after `failures` earlier failures: doubled for each, capped, then between its half and its whole.
    pub fn backoff(&mut self, config: &Config, failures: u32) -> Millis {
        let doubled = config.backoff_ms.saturating_mul(1u64 << failures.min(32));
        let whole = doubled.min(config.backoff_ms_max);
        let half = whole / 2;
        half + self.draw() % (whole - half + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap_and_stays_between_half_and_whole() {
        let config = Config::local();
        let mut jitter = Jitter::new(7);
        for (failures, whole) in [(0, 250), (1, 500), (3, 2_000), (5, 5_000), (60, 5_000)] {
            for _ in 0..100 {
                let pause = jitter.backoff(&config, failures);
                assert!((whole / 2..=whole).contains(&pause), "{failures} failures: {pause}");
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_pauses() {
        let config = Config::lan();
        let pauses = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..20).map(|n| jitter.backoff(&config, n)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }
}
