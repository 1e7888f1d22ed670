//! The clock of leases: it goes on while a machine is suspended, unlike `Instant`.

use rustix::time::{clock_gettime, ClockId};

/// Milliseconds since the machine booted, suspension included (CLOCK_BOOTTIME). Only differences mean anything.
pub fn boottime_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("boot time is not negative");
    let nanoseconds = u64::try_from(time.tv_nsec).expect("nanoseconds are not negative");
    seconds * 1_000 + nanoseconds / 1_000_000
}

/// Wall clock, Unix milliseconds; for comparing clocks only.
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
