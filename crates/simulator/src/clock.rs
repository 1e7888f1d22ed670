//! A node's clocks in virtual time: each runs at its own rate, and the wall clock stands where somebody set it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use raftgrid_replica::clock::{Clock, IsThere};

use crate::hands;
use crate::limits::EPOCH_MS;

/// Parts in a million.
const MILLION: u64 = 1_000_000;

/// The clocks of one machine.
#[derive(Debug)]
pub struct SimClock {
    now_us: AtomicU64,
    /// Microseconds that pass here while a million pass in the world.
    rate: u64,
    wall_offset_ms: AtomicI64,
}

impl SimClock {
    /// Clocks that gain `drift_ppm` and whose wall clock is off by `wall_offset_ms`.
    pub fn new(drift_ppm: i64, wall_offset_ms: i64) -> Arc<Self> {
        let rate = MILLION.saturating_add_signed(drift_ppm);
        Arc::new(Self { now_us: AtomicU64::new(0), rate, wall_offset_ms: AtomicI64::new(wall_offset_ms) })
    }

    /// The world's time is `now_us`.
    pub fn set(&self, now_us: u64) {
        self.now_us.store(now_us, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock by so much.
    pub fn jump(&self, by_ms: i64) {
        self.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// The world's time when this machine's monotonic clock shows `local_ms`.
    pub fn world_us(&self, local_ms: u64) -> u64 {
        let local_us = u128::from(local_ms) * 1_000;
        u64::try_from((local_us * u128::from(MILLION)).div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX)
    }

    /// How long `local_us` of this machine take in the world.
    pub fn span_us(&self, local_us: u64) -> u64 {
        local_us * MILLION / self.rate
    }
}

impl Clock for SimClock {
    fn monotonic_ms(&self) -> u64 {
        let local_us = u128::from(self.now_us.load(Ordering::Relaxed)) * u128::from(self.rate) / u128::from(MILLION);
        u64::try_from(local_us / 1_000).unwrap_or(u64::MAX)
    }

    fn wall_ms(&self) -> u64 {
        (EPOCH_MS + self.monotonic_ms()).saturating_add_signed(self.wall_offset_ms.load(Ordering::Relaxed))
    }

    fn stand_by(&self, is_there: IsThere, most: Duration) -> bool {
        assert!(hands::stand_by(is_there, most), "only jobs wait: the world itself would stand still");
        true
    }
}
