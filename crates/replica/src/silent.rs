//! Peers that did not answer a moment ago, as far as bytes go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::SILENT_PEER_MS;

/// Peers that did not take a copy a moment ago: they are asked last, so that a dead replica does not slow every upload down.
#[derive(Debug, Default)]
pub(crate) struct SilentPeers {
    since_ms: Mutex<BTreeMap<u64, u64>>,
}

impl SilentPeers {
    /// The peer said nothing, or nothing good.
    pub(crate) fn note(&self, node: u64, now_ms: u64) {
        self.lock().insert(node, now_ms);
    }

    /// It did what it was asked.
    pub(crate) fn heard(&self, node: u64) {
        self.lock().remove(&node);
    }

    /// Moves those that were silent within `SILENT_PEER_MS` behind the others.
    pub(crate) fn last(&self, candidates: &mut [u64], now_ms: u64) {
        let silent = self.silent(now_ms);
        candidates.sort_by_key(|node| silent.contains(node));
    }

    /// Those that were silent within `SILENT_PEER_MS`.
    pub(crate) fn silent(&self, now_ms: u64) -> BTreeSet<u64> {
        let since = self.lock();
        let fresh = since.iter().filter(|(_, at)| now_ms.saturating_sub(**at) < SILENT_PEER_MS);
        fresh.map(|(node, _)| *node).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.since_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_silent_a_moment_ago_is_asked_last_and_later_as_before() {
        let silent = SilentPeers::default();
        silent.note(2, 1_000);
        let mut candidates = [1, 2, 3];
        silent.last(&mut candidates, 1_000 + SILENT_PEER_MS - 1);
        assert_eq!(candidates, [1, 3, 2]);
        let mut candidates = [1, 2, 3];
        silent.last(&mut candidates, 1_000 + SILENT_PEER_MS);
        assert_eq!(candidates, [1, 2, 3]);
        silent.note(2, 5_000);
        silent.heard(2);
        silent.last(&mut candidates, 5_000);
        assert_eq!(candidates, [1, 2, 3]);
    }
}
