//! Waiting without a thread: who waits for a change of some rows stands in the ring, and goes on in a pool's queue.

use std::sync::Arc;
use std::time::Duration;

use raftgrid_manifest::watched::Watched;

use crate::clock::Clock;
use crate::pool::{Pool, Slot};
use crate::ports::CallError;
use crate::ring::Ring;

/// Where it is waited, and where it goes on.
#[derive(Clone)]
pub(crate) struct Waits {
    /// Changes.
    pub ring: Ring,
    /// Threads for what comes after the wait.
    pub pool: Pool,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Waits {
    /// Milliseconds of the replica's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    /// A place in the pool's queue.
    pub(crate) fn place(&self) -> Result<Slot, CallError> {
        self.pool.slot().ok_or_else(|| CallError::Exhausted("too many calls are waiting on this replica".to_owned()))
    }

    /// Runs `again` on the pool after the next change behind `position` that touches `interest`, or at `deadline_ms`. It keeps a place in
    /// the queue meanwhile; when there is none, `again` is dropped, and with it its call's answer: the outcome is unknown, and it comes again.
    pub(crate) fn after_change(
        &self,
        position: u64,
        interest: Watched,
        deadline_ms: u64,
        again: impl FnOnce() + Send + 'static,
    ) {
        let Ok(place) = self.place() else { return };
        let left = Duration::from_millis(deadline_ms.saturating_sub(self.now_ms()));
        self.ring.changed_after(position, Some(interest), left, Box::new(move |_| place.run(Box::new(again))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::Timer;
    use crossbeam::channel::unbounded;
    use raftgrid_manifest::{Change, Table};
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct ByHand(AtomicU64);

    impl Clock for ByHand {
        fn monotonic_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
        fn wall_ms(&self) -> u64 {
            0
        }
    }

    fn job_changed() -> Vec<Change> {
        vec![Change { table: Table::Job, key: Vec::new(), value: None }]
    }

    #[test]
    fn many_wait_and_the_only_thread_of_the_pool_is_free() {
        const WAITING: usize = 100;
        let clock = Arc::new(ByHand::default());
        let timer = Timer::new(clock.clone());
        let pool = Pool::start("test", 1, WAITING + 1);
        let waits = Waits { ring: Ring::new(0, timer.clone()), pool, clock: clock.clone() };
        let interest: Watched = vec![(Table::Job, Vec::new())];
        let (sender, gone_on) = unbounded();
        for number in 0..WAITING {
            let sender = sender.clone();
            waits.after_change(0, interest.clone(), 5_000, move || sender.send(number).expect("the test listens"));
        }
        let (answer, answered) = unbounded();
        waits.place().expect("there is room").run(Box::new(move || answer.send(()).expect("the test listens")));
        answered.recv().expect("it ran while the others wait");
        assert!(gone_on.is_empty());
        waits.ring.publish(1, job_changed());
        let mut all: Vec<usize> = (0..WAITING).map(|_| gone_on.recv().expect("it goes on")).collect();
        all.sort_unstable();
        assert_eq!(all, (0..WAITING).collect::<Vec<_>>());
        // Without a change, the deadline ends the wait.
        waits.after_change(1, interest, 5_000, move || sender.send(7).expect("the test listens"));
        timer.run_due();
        assert!(gone_on.is_empty());
        clock.0.store(5_000, Ordering::SeqCst);
        timer.run_due();
        assert_eq!(gone_on.recv(), Ok(7));
    }

    #[test]
    fn who_waits_keeps_a_place_and_gives_it_back() {
        let clock = Arc::new(ByHand::default());
        let timer = Timer::new(clock.clone());
        let waits = Waits { ring: Ring::new(0, timer), pool: Pool::start("test", 1, 1), clock };
        let (sender, gone_on) = unbounded();
        waits.after_change(0, vec![(Table::Job, Vec::new())], 9, move || sender.send(()).expect("the test listens"));
        assert!(matches!(waits.place(), Err(CallError::Exhausted(_))));
        waits.ring.publish(1, job_changed());
        gone_on.recv().expect("it goes on");
        assert!(waits.place().is_ok());
    }
}
