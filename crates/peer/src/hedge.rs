//! The same attempt at several peers: the next one is begun beside a silent one instead of after it. Owns the threads of the attempts.
//!
//! An attempt that nobody waits for any more ends at its own next step, or by the deadline that its chunks have.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::Duration;

use raftgrid_replica::ports::{Attempt, Attempted, CallError, Steps};

use crate::limits::ATTEMPTS_MAX;

/// Makes attempts; counts those that are under way.
#[derive(Clone, Default)]
pub(crate) struct Hedge {
    under_way: Arc<AtomicUsize>,
}

/// An attempt that has not ended.
struct Running {
    node: u64,
    steps: Arc<Steps>,
    /// Steps at the last look.
    seen: u64,
    silent: bool,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hedge {
    /// See `Peers::first_of`. Blocks until enough succeeded or all have ended.
    pub(crate) fn first_of(
        &self,
        nodes: &[u64],
        wanted: usize,
        patience: Duration,
        attempt: &Attempt,
    ) -> Vec<Attempted> {
        let (sender, ended) = channel();
        let mut waiting = nodes.iter();
        let (mut running, mut outcomes, mut good) = (Vec::<Running>::new(), Vec::new(), 0);
        while good < wanted {
            let hopeful = good + running.iter().filter(|it| !it.silent).count();
            if hopeful < wanted {
                if let Some(node) = waiting.next() {
                    running.push(self.begin(*node, attempt, &sender));
                    continue;
                }
            }
            if running.is_empty() {
                break;
            }
            match ended.recv_timeout(patience) {
                Ok((node, outcome)) => {
                    running.retain(|it| it.node != node);
                    good += usize::from(Result::is_ok(&outcome));
                    outcomes.push((node, outcome));
                }
                Err(RecvTimeoutError::Timeout) => running.iter_mut().for_each(Running::look),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        for rest in running {
            rest.steps.give_up();
            // The last word may have come while the one before it was taken.
            let outcome = Err(CallError::Unavailable(format!("replica {} did not answer so far", rest.node)));
            outcomes.push((rest.node, outcome));
        }
        outcomes
    }

    fn begin(&self, node: u64, attempt: &Attempt, sender: &Sender<Attempted>) -> Running {
        let steps = Arc::new(Steps::default());
        let counted = Counted(self.under_way.clone());
        let many = self.under_way.fetch_add(1, Ordering::AcqRel) >= ATTEMPTS_MAX;
        let (made, told, noted) = (attempt.clone(), sender.clone(), steps.clone());
        let body = move || {
            let outcome = made(node, &noted);
            drop(counted);
            // Whoever began it may have had enough.
            let _ = told.send((node, outcome));
        };
        let thread = std::thread::Builder::new().name("peer-attempt".to_owned());
        if many {
            body();
        } else if let Err(error) = thread.spawn(body) {
            let _ = sender.send((node, Err(CallError::Exhausted(format!("failed to start a thread: {error}")))));
        }
        Running { node, steps, seen: 0, silent: false }
    }
}

impl Running {
    fn look(&mut self) {
        let made = self.steps.made();
        self.silent = made == self.seen;
        self.seen = made;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Receiver;
    use std::sync::Mutex;

    const HOUR: Duration = Duration::from_secs(3600);
    /// No verdict depends on it: whoever is silent in these tests stays so.
    const SOON: Duration = Duration::from_millis(5);

    fn names(outcomes: &[Attempted]) -> Vec<(u64, bool)> {
        outcomes.iter().map(|(node, outcome)| (*node, outcome.is_ok())).collect()
    }

    /// Node 1 says nothing until the sender is dropped; the others succeed.
    fn one_is_silent() -> (Sender<()>, Attempt) {
        let (keep, gate): (_, Receiver<()>) = channel();
        let gate = Mutex::new(gate);
        let attempt: Attempt = Arc::new(move |node, _| {
            if node == 1 {
                let _ = gate.lock().expect("no panic under the lock").recv();
            }
            Ok(())
        });
        (keep, attempt)
    }

    #[test]
    fn the_next_peer_is_tried_beside_a_silent_one_which_is_named() {
        let (keep, attempt) = one_is_silent();
        let outcomes = Hedge::default().first_of(&[1, 2, 3], 1, SOON, &attempt);
        assert_eq!(names(&outcomes), [(2, true), (1, false)], "nobody waited for 1, and 3 was not needed");
        let outcomes = Hedge::default().first_of(&[2, 1, 3], 2, SOON, &attempt);
        assert_eq!(names(&outcomes), [(2, true), (3, true), (1, false)]);
        drop(keep);
    }

    #[test]
    fn a_failure_is_followed_at_once_and_no_more_is_begun_than_is_wanted() {
        let attempt: Attempt = Arc::new(|node, _| match node {
            1 => Err(CallError::Internal("broken".to_owned())),
            _ => Ok(()),
        });
        let outcomes = Hedge::default().first_of(&[1, 2, 3], 1, HOUR, &attempt);
        assert_eq!(names(&outcomes), [(1, false), (2, true)]);
        let outcomes = Hedge::default().first_of(&[1], 1, HOUR, &attempt);
        assert_eq!(names(&outcomes), [(1, false)]);
        assert_eq!(names(&Hedge::default().first_of(&[1, 2], 0, HOUR, &attempt)), []);
    }

    #[test]
    fn a_peer_is_silent_while_it_makes_no_step_and_only_then() {
        let steps = Arc::new(Steps::default());
        let mut running = Running { node: 1, steps: steps.clone(), seen: 0, silent: false };
        running.look();
        assert!(running.silent);
        steps.step().expect("wanted");
        running.look();
        assert!(!running.silent, "it goes on again");
        running.look();
        assert!(running.silent);
    }

    #[test]
    fn whoever_lost_is_told_at_its_next_step() {
        let (keep, gate) = channel::<()>();
        let (told, heard) = channel();
        let ends = Mutex::new((gate, told));
        let attempt: Attempt = Arc::new(move |node, steps| {
            if node == 1 {
                let ends = ends.lock().expect("no panic under the lock");
                let _ = ends.0.recv();
                ends.1.send(steps.step()).expect("the test listens");
            }
            Ok(())
        });
        let outcomes = Hedge::default().first_of(&[1, 2], 1, SOON, &attempt);
        assert_eq!(names(&outcomes), [(2, true), (1, false)]);
        drop(keep);
        assert!(heard.recv().expect("it went on").is_err());
    }
}
