//! What waits to be mirrored, in the memory of one leadership. Pure: time is an argument. A new leader begins with an empty one and asks the
//! destination what it has, so nothing of it is replicated or kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{BACKOFF_MS, BACKOFF_MS_MAX};
use crate::source::Seen;

/// The wait after so many failures in a row, in milliseconds.
pub(crate) fn backoff_ms(failures: u32) -> u64 {
    let doubled = BACKOFF_MS.checked_shl(failures.saturating_sub(1)).filter(|it| *it >= BACKOFF_MS);
    doubled.map_or(BACKOFF_MS_MAX, |it| it.min(BACKOFF_MS_MAX))
}

/// One that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    bytes: u64,
    failures: u32,
    not_before_ms: u64,
}

/// Ids of artifacts, by what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Rows below were looked at.
    next_id: u64,
    /// Looked at before their upload had ended.
    begun: BTreeSet<u64>,
    waiting: BTreeMap<u64, Waiting>,
    /// (failures, id) of all that wait: the order of their turns.
    order: BTreeSet<(u32, u64)>,
    bytes: u64,
}

impl Backlog {
    /// Where the next look at the rows begins.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Whose rows must be looked at again.
    pub(crate) fn begun(&self) -> Vec<u64> {
        self.begun.iter().copied().collect()
    }

    /// A row. `wanted`: artifacts of its kind are mirrored.
    pub(crate) fn saw(&mut self, artifact_id: u64, seen: &Seen, wanted: bool) {
        self.next_id = self.next_id.max(artifact_id.saturating_add(1));
        match seen {
            Seen::Begun => {
                self.begun.insert(artifact_id);
            }
            Seen::Gone => {
                self.begun.remove(&artifact_id);
            }
            Seen::Committed(artifact) => {
                self.begun.remove(&artifact_id);
                let waiting = Waiting { bytes: artifact.total_bytes, failures: 0, not_before_ms: 0 };
                if wanted && !self.waiting.contains_key(&artifact_id) {
                    self.bytes += waiting.bytes;
                    self.waiting.insert(artifact_id, waiting);
                    self.order.insert((0, artifact_id));
                }
            }
        }
    }

    /// Whose turn it is: one with the fewest failures, of these the oldest. So one that can never be sent keeps nobody waiting.
    pub(crate) fn next(&self, now_ms: u64) -> Option<u64> {
        let due = |id: &u64| self.waiting.get(id).is_some_and(|it| it.not_before_ms <= now_ms);
        self.order.iter().map(|(_, id)| *id).find(due)
    }

    /// It is there, or it is gone from the cluster.
    pub(crate) fn settled(&mut self, artifact_id: u64) {
        if let Some(waiting) = self.waiting.remove(&artifact_id) {
            self.bytes -= waiting.bytes;
            self.order.remove(&(waiting.failures, artifact_id));
        }
    }

    /// It could not be sent. Its size in bytes.
    pub(crate) fn failed(&mut self, artifact_id: u64, now_ms: u64) -> u64 {
        let Some(waiting) = self.waiting.get_mut(&artifact_id) else { return 0 };
        self.order.remove(&(waiting.failures, artifact_id));
        waiting.failures = waiting.failures.saturating_add(1);
        waiting.not_before_ms = now_ms.saturating_add(backoff_ms(waiting.failures));
        self.order.insert((waiting.failures, artifact_id));
        waiting.bytes
    }

    /// (artifacts, bytes) that wait.
    pub(crate) fn pending(&self) -> (usize, u64) {
        (self.waiting.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Artifact;

    fn committed(bytes: u64) -> Seen {
        let text = String::new;
        Seen::Committed(Artifact {
            artifact_id: 0,
            name: text(),
            kind: text(),
            job_id: text(),
            model_version: None,
            total_bytes: bytes,
            digest: [0; 32],
        })
    }

    #[test]
    fn an_upload_that_ends_after_later_ones_is_found_all_the_same() {
        let mut backlog = Backlog::default();
        backlog.saw(5, &Seen::Begun, false);
        backlog.saw(9, &committed(10), true);
        backlog.saw(11, &committed(10), false);
        assert_eq!((backlog.next_id(), backlog.begun(), backlog.pending()), (12, vec![5], (1, 10)));
        backlog.saw(5, &committed(7), true);
        assert_eq!((backlog.next_id(), backlog.begun(), backlog.pending()), (12, vec![], (2, 17)));
        assert_eq!(backlog.next(0), Some(5), "the oldest first");
        backlog.settled(5);
        backlog.settled(5);
        assert_eq!((backlog.next(0), backlog.pending()), (Some(9), (1, 10)));
    }

    #[test]
    fn one_that_always_fails_keeps_nobody_waiting() {
        let mut backlog = Backlog::default();
        backlog.saw(1, &committed(3), true);
        assert_eq!(backlog.failed(1, 100), 3);
        assert_eq!(backlog.next(100 + BACKOFF_MS - 1), None);
        assert_eq!(backlog.next(100 + BACKOFF_MS), Some(1));
        backlog.saw(2, &committed(4), true);
        assert_eq!(backlog.next(100 + BACKOFF_MS), Some(2), "one that did not fail goes first");
        assert_eq!(backlog.failed(7, 0), 0, "nobody knows it");
    }

    #[test]
    fn waits_double_up_to_a_bound() {
        assert_eq!((backoff_ms(1), backoff_ms(2), backoff_ms(3)), (BACKOFF_MS, 2 * BACKOFF_MS, 4 * BACKOFF_MS));
        for failures in [20, 63, 64, 65, u32::MAX] {
            assert_eq!(backoff_ms(failures), BACKOFF_MS_MAX);
        }
    }
}
