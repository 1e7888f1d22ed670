//! Calls back at a time, by the replica's clock: one thread, or whoever runs the replica by hand. Callbacks must be short: they hand over, they do not work.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;

type Callback = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    due: BTreeMap<Ticket, Callback>,
    next: u64,
    stopped: bool,
}

/// The timer of a replica.
#[derive(Clone)]
pub(crate) struct Timer {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    clock: Arc<dyn Clock>,
}

/// Names a callback that may be cancelled: when it is due, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64, u64);

impl Timer {
    /// A timer that nobody watches yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::default(), clock }
    }

    /// Starts the thread.
    pub(crate) fn start(&self) -> JoinHandle<()> {
        let timer = self.clone();
        std::thread::Builder::new()
            .name("timer".to_owned())
            .spawn(move || timer.run())
            .expect("a thread can be started while the process boots")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `callback` after `delay`.
    pub(crate) fn after(&self, delay: Duration, callback: Callback) -> Ticket {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let mut queue = self.lock();
        let ticket = Ticket(self.clock.monotonic_ms().saturating_add(delay_ms), queue.next);
        queue.next += 1;
        queue.due.insert(ticket, callback);
        self.shared.1.notify_one();
        ticket
    }

    /// Forgets a callback that has not been called.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let callback = self.lock().due.remove(&ticket);
        // Whatever it holds is dropped without the lock.
        drop(callback);
    }

    /// Ends the thread; callbacks that are not due are dropped.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.shared.1.notify_one();
    }

    /// When the next callback is due, in milliseconds of the monotonic clock.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.lock().due.first_key_value().map(|(ticket, _)| ticket.0)
    }

    /// Calls everything that is due by now; what the callbacks add is for the next call.
    pub(crate) fn run_due(&self) {
        let now = self.clock.monotonic_ms();
        let end = self.lock().next;
        while let Some(callback) = self.take_due(now, end) {
            callback();
        }
    }

    fn take_due(&self, now: u64, end: u64) -> Option<Callback> {
        let mut queue = self.lock();
        let key = queue.due.keys().take_while(|ticket| ticket.0 <= now).find(|ticket| ticket.1 < end).copied()?;
        queue.due.remove(&key)
    }

    /// Drops every callback.
    pub(crate) fn clear(&self) {
        let due = std::mem::take(&mut self.lock().due);
        drop(due);
    }

    fn run(&self) {
        loop {
            self.run_due();
            let held = self.lock();
            if held.stopped {
                break;
            }
            let wake = &self.shared.1;
            match held.due.first_key_value().map(|(ticket, _)| ticket.0) {
                Some(at) => {
                    let wait = Duration::from_millis(at.saturating_sub(self.clock.monotonic_ms()));
                    drop(wake.wait_timeout(held, wait).unwrap_or_else(PoisonError::into_inner));
                }
                None => drop(wake.wait(held).unwrap_or_else(PoisonError::into_inner)),
            }
        }
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crossbeam::channel::unbounded;
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

    #[test]
    fn callbacks_come_in_order_of_time_and_not_before_it() {
        let clock = Arc::new(ByHand::default());
        let timer = Timer::new(clock.clone());
        let (sender, called) = unbounded();
        let mut tickets = Vec::new();
        for (delay_ms, name) in [(20, 'c'), (10, 'a'), (10, 'b'), (10, 'x')] {
            let sender = sender.clone();
            tickets.push(timer.after(Duration::from_millis(delay_ms), Box::new(move || sender.send(name).unwrap())));
        }
        timer.cancel(tickets[3]);
        timer.run_due();
        assert!(called.is_empty());
        clock.0.store(10, Ordering::SeqCst);
        timer.run_due();
        assert_eq!(called.try_iter().collect::<Vec<_>>(), ['a', 'b']);
        assert_eq!(timer.next_due_ms(), Some(20));
        clock.0.store(25, Ordering::SeqCst);
        timer.run_due();
        assert_eq!(called.try_iter().collect::<Vec<_>>(), ['c']);
    }

    #[test]
    fn the_thread_calls_what_is_due_and_ends_when_it_is_told() {
        let timer = Timer::new(Arc::new(SystemClock::default()));
        let thread = timer.start();
        let (sender, called) = unbounded();
        timer.after(Duration::from_millis(3), Box::new(move || sender.send(()).unwrap()));
        called.recv().unwrap();
        timer.stop();
        thread.join().unwrap();
    }
}
