//! Where time comes from: the only place of this crate that asks the system for it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Whether something has come that somebody waits for.
pub type IsThere = Box<dyn Fn() -> bool + Send>;

/// A replica's clocks; the simulator brings its own.
pub trait Clock: Send + Sync {
    /// Rises, never jumps; milliseconds since some start.
    fn monotonic_ms(&self) -> u64;
    /// Unix time in milliseconds; may jump.
    fn wall_ms(&self) -> u64;
    /// Like `monotonic_ms`, but it goes on while the machine is suspended: for leases, and for how old something is.
    fn boottime_ms(&self) -> u64 {
        self.monotonic_ms()
    }
    /// `monotonic_ms` in microseconds, for measurements; decides nothing.
    fn monotonic_us(&self) -> u64 {
        self.monotonic_ms() * 1_000
    }
    /// Where a replica is run by hand, nobody may block: others run until `is_there` says so or `most` is over, and this is true. On threads
    /// it is false at once, and the caller blocks as he would.
    fn stand_by(&self, is_there: IsThere, most: Duration) -> bool {
        let _ = (is_there, most);
        false
    }
    /// Blocks for so long.
    fn sleep(&self, time: Duration) {
        if !self.stand_by(Box::new(|| false), time) {
            std::thread::sleep(time);
        }
    }
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

    fn boottime_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
