//! Threads for work that blocks, so that none of it runs on a gRPC thread. Bounded in threads, in queued jobs and in admitted callers.
//!
//! A caller is admitted once (`admit`) and then has at most one job in the queue, so what was admitted is never refused in the middle.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;
use grpcio::RpcStatusCode;
use raftgrid_rpc::status::status;

use crate::failure::{exhausted, Answer, Failure};

type Job = Box<dyn FnOnce() + Send>;

struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct Shared {
    name: &'static str,
    threads_max: usize,
    queue_max: usize,
    state: Mutex<State>,
    wake: Condvar,
}

/// A pool. Its threads are started when they are needed, and end when it is dropped.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    pub(crate) fn new(name: &'static str, threads_max: usize, queue_max: usize) -> Self {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0, closed: false };
        Self {
            shared: Arc::new(Shared { name, threads_max, queue_max, state: Mutex::new(state), wake: Condvar::new() }),
        }
    }

    /// Runs `job` on a thread of the pool. RESOURCE_EXHAUSTED when the queue is full.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
        let (sender, receiver) = oneshot::channel();
        let boxed: Job = Box::new(move || {
            let _ = sender.send(job());
        });
        self.push(boxed)?;
        receiver.await.map_err(|_| {
            Failure::Status(status(RpcStatusCode::INTERNAL, "a worker thread of this replica panicked or was stopped"))
        })
    }

    fn push(&self, job: Job) -> Answer<()> {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        if state.queue.len() >= shared.queue_max {
            return Err(exhausted(shared.name, shared.queue_max));
        }
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= shared.threads_max {
            shared.wake.notify_one();
            return Ok(());
        }
        let worker = shared.clone();
        let name = format!("{}-{}", shared.name, state.threads);
        match std::thread::Builder::new().name(name).spawn(move || work(&worker)) {
            Ok(_) => state.threads += 1,
            // Without a thread at all the job would wait for ever.
            Err(_) if state.threads == 0 => {
                state.queue.pop_back();
                return Err(exhausted("threads of the operating system", 0));
            }
            Err(_) => shared.wake.notify_one(),
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.wake.notify_all();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A job never runs under the lock, so a poisoned one is still consistent.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(shared: &Shared) {
    let mut state = lock(&shared.state);
    loop {
        if let Some(job) = state.queue.pop_front() {
            drop(state);
            // A panicking job answers its caller (the sender is dropped) and must not take the thread with it.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = lock(&shared.state);
            continue;
        }
        if state.closed {
            return;
        }
        state.idle += 1;
        state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
    }
}

/// A bound on callers of one kind.
#[derive(Clone)]
pub(crate) struct Gate {
    what: &'static str,
    max: usize,
    inside: Arc<AtomicUsize>,
}

/// One admitted caller; leaving is dropping it.
pub(crate) struct Permit {
    inside: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn new(what: &'static str, max: usize) -> Self {
        Self { what, max, inside: Arc::new(AtomicUsize::new(0)) }
    }

    /// Callers that are inside.
    pub(crate) fn count(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// RESOURCE_EXHAUSTED when as many are inside as may be.
    pub(crate) fn admit(&self) -> Answer<Permit> {
        let entered = self
            .inside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |inside| (inside < self.max).then_some(inside + 1));
        match entered {
            Ok(_) => Ok(Permit { inside: self.inside.clone() }),
            Err(_) => Err(exhausted(self.what, self.max)),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use std::sync::mpsc;

    #[test]
    fn a_full_pool_refuses_and_works_on_afterwards() {
        let pool = Arc::new(Pool::new("test", 1, 1));
        let (go, wait) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel::<()>();
        let blocked = pool.clone();
        let first = std::thread::spawn(move || {
            block_on(blocked.run(move || {
                started.send(()).expect("the test listens");
                wait.recv().expect("the test says go");
                1
            }))
        });
        running.recv().expect("the first job runs");
        let queued = pool.clone();
        let (queued_in, queued_done) = mpsc::channel();
        queued.push(Box::new(move || queued_in.send(2).expect("the test listens"))).expect("one job may wait");
        let refused = block_on(pool.run(|| 3)).expect_err("the queue is full");
        assert!(matches!(&refused, Failure::Status(status) if status.code() == RpcStatusCode::RESOURCE_EXHAUSTED));
        go.send(()).expect("the first job waits");
        assert_eq!(first.join().expect("no panic").expect("it ran"), 1);
        assert_eq!(queued_done.recv().expect("it ran"), 2);
        assert_eq!(block_on(pool.run(|| 4)).expect("there is room again"), 4);
    }

    #[test]
    fn a_panicking_job_answers_and_leaves_the_thread_alive() {
        let pool = Pool::new("test", 1, 4);
        let failed = block_on(pool.run(|| -> u32 { std::panic::panic_any("planted") })).expect_err("it panicked");
        assert!(matches!(&failed, Failure::Status(status) if status.code() == RpcStatusCode::INTERNAL));
        assert_eq!(block_on(pool.run(|| 5)).expect("the thread lives"), 5);
    }

    #[test]
    fn a_gate_admits_again_after_a_permit_is_dropped() {
        let gate = Gate::new("uploads", 1);
        let permit = gate.admit().expect("the first");
        assert!(gate.admit().is_err());
        drop(permit);
        assert!(gate.admit().is_ok());
    }
}
