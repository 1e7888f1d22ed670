//! A few threads for work that blocks: disks, peers, sums. Never the raft, apply or gRPC threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crossbeam::channel::{unbounded, Sender};

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool. Clones share it; its threads end when the last clone and slot are gone.
#[derive(Clone)]
pub struct Pool {
    jobs: Sender<Job>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

/// A place in the queue; it is given back when the job starts, or when it is dropped unused.
pub struct Slot {
    pool: Pool,
}

impl Pool {
    /// `threads` threads named `name`, at most `waiting_max` jobs waiting.
    pub fn start(name: &str, threads: usize, waiting_max: usize) -> Self {
        let (jobs, queue) = unbounded::<Job>();
        for number in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    for job in queue {
                        job();
                    }
                })
                .expect("a thread can be started while the process boots");
        }
        Self { jobs, waiting: Arc::default(), waiting_max }
    }

    /// A place, if there is one.
    pub fn slot(&self) -> Option<Slot> {
        let taken = self.waiting.fetch_add(1, Ordering::AcqRel);
        let slot = Slot { pool: self.clone() };
        (taken < self.waiting_max).then_some(slot)
    }
}

impl Slot {
    /// Queues the job.
    pub fn run(self, job: Job) {
        let jobs = self.pool.jobs.clone();
        let queued = jobs.send(Box::new(move || {
            drop(self);
            job();
        }));
        assert!(queued.is_ok(), "the threads of a pool live as long as a slot does");
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::bounded;

    #[test]
    fn a_full_queue_refuses_and_a_started_job_frees_its_place() {
        let pool = Pool::start("test", 1, 1);
        let (go, gate) = bounded::<()>(0);
        let (started, running) = bounded::<()>(0);
        pool.slot().unwrap().run(Box::new(move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
        }));
        running.recv().unwrap();
        let slot = pool.slot().unwrap();
        assert!(pool.slot().is_none(), "one job waits at most");
        let (sender, done) = bounded(1);
        slot.run(Box::new(move || sender.send(7).unwrap()));
        go.send(()).unwrap();
        assert_eq!(done.recv().unwrap(), 7);
        assert!(pool.slot().is_some());
    }
}
