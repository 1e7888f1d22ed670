//! One thread that calls back at a time. Callbacks must be short: they hand over, they do not work.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Callback = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    due: BTreeMap<(Instant, u64), Callback>,
    next: u64,
    stopped: bool,
}

/// The timer of a replica.
#[derive(Clone)]
pub(crate) struct Timer {
    shared: Arc<(Mutex<Queue>, Condvar)>,
}

/// Names a callback that may be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(Instant, u64);

impl Timer {
    /// Starts the thread.
    pub(crate) fn start() -> (Self, JoinHandle<()>) {
        let shared: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let timer = Self { shared: shared.clone() };
        let thread = std::thread::Builder::new()
            .name("timer".to_owned())
            .spawn(move || run(&shared))
            .expect("a thread can be started while the process boots");
        (timer, thread)
    }

    /// Calls `callback` after `delay`.
    pub(crate) fn after(&self, delay: Duration, callback: Callback) -> Ticket {
        let (queue, wake) = &*self.shared;
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = (Instant::now() + delay, queue.next);
        queue.next += 1;
        queue.due.insert(ticket, callback);
        wake.notify_one();
        Ticket(ticket.0, ticket.1)
    }

    /// Forgets a callback that has not been called.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let mut queue = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.due.remove(&(ticket.0, ticket.1));
    }

    /// Ends the thread; callbacks that are not due are dropped.
    pub(crate) fn stop(&self) {
        let (queue, wake) = &*self.shared;
        queue.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        wake.notify_one();
    }
}

fn run(shared: &(Mutex<Queue>, Condvar)) {
    let (queue, wake) = shared;
    let mut held = queue.lock().unwrap_or_else(PoisonError::into_inner);
    while !held.stopped {
        let now = Instant::now();
        let first = held.due.first_key_value().map(|(key, _)| *key);
        match first {
            Some(key) if key.0 <= now => {
                let callback = held.due.remove(&key);
                drop(held);
                if let Some(callback) = callback {
                    callback();
                }
                held = queue.lock().unwrap_or_else(PoisonError::into_inner);
            }
            Some(key) => {
                let wait = key.0 - now;
                held = wake.wait_timeout(held, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
            None => held = wake.wait(held).unwrap_or_else(PoisonError::into_inner),
        }
    }
    held.due.clear();
}
