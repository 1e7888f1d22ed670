//! Deadlines by key, the earliest first. It knows no clock: times are whatever the caller counts in (leader's or cluster
//! milliseconds), one unit per instance.

use std::collections::{BTreeMap, BTreeSet};

/// At most one deadline a key.
#[derive(Debug)]
pub(crate) struct Timers<K: Ord + Clone> {
    at: BTreeMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Self { at: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets or moves the deadline of `key`.
    pub(crate) fn set(&mut self, key: K, at: u64) {
        if let Some(old) = self.at.insert(key.clone(), at) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((at, key));
    }

    pub(crate) fn clear(&mut self, key: &K) {
        if let Some(old) = self.at.remove(key) {
            self.order.remove(&(old, key.clone()));
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<u64> {
        self.at.get(key).copied()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out every key whose deadline is at or before `now`, earliest first.
    pub(crate) fn pop_due(&mut self, now: u64) -> Vec<K> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            if let Some((_, key)) = self.order.pop_first() {
                self.at.remove(&key);
                due.push(key);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::Timers;

    #[test]
    fn a_moved_deadline_fires_once_at_its_new_time() {
        let mut timers = Timers::default();
        timers.set("a", 10);
        timers.set("b", 5);
        timers.set("a", 20);
        assert_eq!(timers.pop_due(10), vec!["b"]);
        assert_eq!(timers.next(), Some(20));
        assert_eq!(timers.pop_due(20), vec!["a"]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_cleared_deadline_never_fires() {
        let mut timers = Timers::default();
        timers.set(1, 10);
        timers.clear(&1);
        assert_eq!(timers.get(&1), None);
        assert!(timers.pop_due(u64::MAX).is_empty());
    }
}
