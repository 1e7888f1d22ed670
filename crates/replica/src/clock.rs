//! Where time comes from: the only place of this crate that asks the system for it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A replica's clocks; the simulator brings its own.
pub trait Clock: Send + Sync {
    /// Rises, never jumps; milliseconds since some start.
    fn monotonic_ms(&self) -> u64;
    /// Unix time in milliseconds; may jump.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
