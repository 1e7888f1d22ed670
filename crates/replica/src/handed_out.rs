//! Which attempts a poll has given to a worker of late: until it has started them, they are not given out again at once.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::HAND_OUT_AGAIN_MS;

/// A task and the epoch of its lease.
pub(crate) type Attempt = (String, u64);

/// The leader's memory: a new one gives out again what was not started.
#[derive(Debug, Default)]
pub(crate) struct HandedOut {
    at: BTreeMap<Attempt, u64>,
    /// In order of time; an attempt that was given out again is in it twice.
    order: VecDeque<(u64, Attempt)>,
}

impl HandedOut {
    /// Forgets what may be given out again at `now`.
    pub(crate) fn forget_until(&mut self, now: u64) {
        while let Some((at, attempt)) = self.order.front() {
            if now.saturating_sub(*at) < HAND_OUT_AGAIN_MS {
                return;
            }
            if self.at.get(attempt) == Some(at) {
                self.at.remove(attempt);
            }
            self.order.pop_front();
        }
    }

    pub(crate) fn contains(&self, attempt: &Attempt) -> bool {
        self.at.contains_key(attempt)
    }

    pub(crate) fn insert(&mut self, attempt: Attempt, now: u64) {
        if self.at.insert(attempt.clone(), now) != Some(now) {
            self.order.push_back((now, attempt));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(task: &str) -> Attempt {
        (task.to_owned(), 7)
    }

    #[test]
    fn an_attempt_is_remembered_from_the_last_time_that_it_was_given_out() {
        let mut handed_out = HandedOut::default();
        handed_out.insert(attempt("a"), 0);
        handed_out.insert(attempt("b"), 10);
        // An agent without leases asked again.
        handed_out.insert(attempt("a"), 500);
        handed_out.forget_until(HAND_OUT_AGAIN_MS);
        assert!(handed_out.contains(&attempt("a")) && handed_out.contains(&attempt("b")));
        handed_out.forget_until(HAND_OUT_AGAIN_MS + 10);
        assert!(handed_out.contains(&attempt("a")) && !handed_out.contains(&attempt("b")));
        handed_out.forget_until(HAND_OUT_AGAIN_MS + 500);
        assert!(!handed_out.contains(&attempt("a")));
        assert!(handed_out.order.is_empty() && handed_out.at.is_empty());
    }
}
