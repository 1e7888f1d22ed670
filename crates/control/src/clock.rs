//! Cluster time as the leader guesses it between two entries: the newest Meta row's time plus what passed here since it was seen.

use crate::types::Millis;

#[derive(Debug, Default)]
pub(crate) struct ClusterClock {
    row_ms: u64,
    seen_at: Millis,
}

impl ClusterClock {
    /// The Meta row says `row_ms`; it is `now` here. An estimate that is ahead of the row stays: cluster time never falls.
    pub(crate) fn observe(&mut self, now: Millis, row_ms: u64) {
        if row_ms > self.at(now) || self.row_ms == 0 {
            self.row_ms = row_ms;
            self.seen_at = now;
        }
    }

    /// Cluster time at `now`.
    pub(crate) fn at(&self, now: Millis) -> u64 {
        self.row_ms + now.saturating_sub(self.seen_at)
    }

    /// When it will be `cluster_ms` here; `now` if that is past.
    pub(crate) fn local(&self, now: Millis, cluster_ms: u64) -> Millis {
        now + cluster_ms.saturating_sub(self.at(now))
    }
}

#[cfg(test)]
mod tests {
    use super::ClusterClock;

    #[test]
    fn cluster_time_advances_between_rows_and_never_falls() {
        let mut clock = ClusterClock::default();
        clock.observe(100, 5_000);
        assert_eq!(clock.at(150), 5_050);
        clock.observe(160, 5_040);
        assert_eq!(clock.at(160), 5_060);
        clock.observe(160, 7_000);
        assert_eq!(clock.local(160, 7_010), 170);
        assert_eq!(clock.local(160, 6_000), 160);
    }
}
