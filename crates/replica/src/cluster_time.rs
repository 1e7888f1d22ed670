//! Cluster time: what the leader stamps into every batch. Pure.
//!
//! It is the last cluster time plus the monotonic time since, slewed towards the leader's wall clock by at most a tenth; it never falls and is
//! never set by a wall clock that jumped.

/// Difference between cluster time and wall clock above which a person must look.
pub(crate) const ALARM_MS: u64 = 60_000;

/// The leader's running estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterTime {
    now_ms: u64,
    seen_at_ms: u64,
}

impl ClusterTime {
    /// From the time in the state tables and the monotonic time at which it was seen there.
    pub fn new(cluster_ms: u64, monotonic_ms: u64) -> Self {
        Self { now_ms: cluster_ms, seen_at_ms: monotonic_ms }
    }

    /// A batch with this time was applied here.
    pub fn seen(&mut self, cluster_ms: u64, monotonic_ms: u64) {
        if cluster_ms > self.now_ms {
            *self = Self::new(cluster_ms, monotonic_ms);
        }
    }

    /// The stamp for a batch that is proposed now. A group that has no time yet starts with the wall clock.
    pub fn stamp(&mut self, monotonic_ms: u64, wall_ms: u64) -> u64 {
        if self.now_ms == 0 {
            *self = Self::new(wall_ms, monotonic_ms);
            return self.now_ms;
        }
        let elapsed = monotonic_ms.saturating_sub(self.seen_at_ms);
        let slew_max = elapsed / 10;
        let target = self.now_ms + elapsed;
        let step = if wall_ms >= target {
            elapsed + slew_max.min(wall_ms - target)
        } else {
            elapsed - slew_max.min(target - wall_ms)
        };
        *self = Self::new(self.now_ms + step, self.seen_at_ms.max(monotonic_ms));
        self.now_ms
    }

    /// Moves to `to_ms` at once, because a person said so. False: that would be back in time, and nothing changed.
    pub fn jump(&mut self, to_ms: u64, monotonic_ms: u64) -> bool {
        let now = self.now_ms + monotonic_ms.saturating_sub(self.seen_at_ms);
        if to_ms < now {
            return false;
        }
        *self = Self::new(to_ms, self.seen_at_ms.max(monotonic_ms));
        true
    }

    /// Whether the wall clock is so far off that `gridctl cluster set-time` must decide.
    pub fn alarm(&self, wall_ms: u64) -> bool {
        self.now_ms != 0 && self.now_ms.abs_diff(wall_ms) > ALARM_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_group_starts_with_the_wall_clock() {
        assert_eq!(ClusterTime::default().stamp(5, 1_000_000), 1_000_000);
    }

    #[test]
    fn a_wall_clock_that_jumps_moves_it_by_a_tenth_at_most() {
        let mut time = ClusterTime::new(1_000_000, 0);
        assert_eq!(time.stamp(1_000, 9_000_000), 1_001_100);
        assert_eq!(time.stamp(2_000, 0), 1_002_000);
        assert!(time.alarm(0));
    }

    #[test]
    fn it_jumps_forward_when_it_is_told_to_and_never_back() {
        let mut time = ClusterTime::new(1_000_000, 0);
        assert!(!time.jump(1_000_999, 1_000), "a second has gone by");
        assert!(time.jump(5_000_000, 1_000));
        assert_eq!(time.stamp(1_000, 5_000_000), 5_000_000);
        assert_eq!(time.stamp(2_000, 5_001_000), 5_001_000);
    }

    #[test]
    fn it_never_falls_even_if_the_same_instant_is_stamped_twice() {
        let mut time = ClusterTime::new(1_000_000, 500);
        let first = time.stamp(600, 1_000_050);
        assert!(time.stamp(600, 3) >= first);
        time.seen(999, 600);
        assert!(time.stamp(600, 3) >= first);
    }
}
