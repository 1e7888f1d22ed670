//! How long ago this replica last heard of the leader (or, leading, of a quorum): the age of what it can say by itself.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;

/// The time of the last contact. Clones share it. Times are milliseconds of `Clock::boottime_ms`, which may be before its zero.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    at_ms: Arc<AtomicI64>,
}

impl Contact {
    /// At the start: nothing was heard since `away_ms` ago at least, if that is known (by the wall clock and the time in the tables).
    pub(crate) fn new(now_ms: u64, away_ms: u64) -> Self {
        Self { at_ms: Arc::new(AtomicI64::new(signed(now_ms).saturating_sub(signed(away_ms)))) }
    }

    /// There was contact `ago_ms` before now.
    pub(crate) fn note(&self, now_ms: u64, ago_ms: u64) {
        self.at_ms.fetch_max(signed(now_ms).saturating_sub(signed(ago_ms)), Ordering::Relaxed);
    }

    /// Milliseconds since the last contact.
    pub(crate) fn age_ms(&self, now_ms: u64) -> u64 {
        u64::try_from(signed(now_ms).saturating_sub(self.at_ms.load(Ordering::Relaxed))).unwrap_or(0)
    }
}

fn signed(time_ms: u64) -> i64 {
    i64::try_from(time_ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_from_the_newest_contact_and_from_before_the_start() {
        let contact = Contact::new(1_000, 90_000);
        assert_eq!(contact.age_ms(1_500), 90_500, "it was away for a while when it started");
        contact.note(2_000, 300);
        assert_eq!(contact.age_ms(2_000), 300);
        contact.note(2_000, 900);
        assert_eq!(contact.age_ms(2_100), 400, "an older contact does not take back a newer one");
    }
}
