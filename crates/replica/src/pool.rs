//! A few threads for work that blocks: disks, peers, sums. Never the raft, apply or gRPC threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crossbeam::channel::{unbounded, Receiver, Sender};

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool. Clones share it; its threads end when the last clone and slot are gone.
#[derive(Clone)]
pub struct Pool {
    jobs: Sender<Job>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

/// The jobs of a pool without threads: whoever runs the replica by hand runs them.
pub(crate) struct PoolQueue {
    jobs: Receiver<Job>,
    blocks: bool,
}

/// A job for whoever runs the replica by hand.
pub struct PoolJob {
    /// To be called once.
    pub work: Job,
    /// It waits for others (`Clock::stand_by`) before it ends.
    pub blocks: bool,
}

impl PoolQueue {
    /// Jobs that wait.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The oldest job.
    pub(crate) fn take(&self) -> Option<PoolJob> {
        self.jobs.try_recv().ok().map(|work| PoolJob { work, blocks: self.blocks })
    }
}

/// Who runs the jobs of a replica's pools.
pub(crate) enum Hands {
    /// Threads of the pools' own.
    Threads,
    /// Nobody: the queues are collected here.
    Nobody(Vec<PoolQueue>),
}

impl Hands {
    /// A pool whose jobs wait for nobody; see `Pool::start`.
    pub(crate) fn pool(&mut self, name: &str, threads: usize, waiting_max: usize) -> Pool {
        self.make(name, threads, waiting_max, false)
    }

    /// A pool whose jobs wait for commands and for peers.
    pub(crate) fn waiting_pool(&mut self, name: &str, threads: usize, waiting_max: usize) -> Pool {
        self.make(name, threads, waiting_max, true)
    }

    fn make(&mut self, name: &str, threads: usize, waiting_max: usize, blocks: bool) -> Pool {
        match self {
            Self::Threads => Pool::start(name, threads, waiting_max),
            Self::Nobody(queues) => {
                let (jobs, queue) = unbounded();
                queues.push(PoolQueue { jobs: queue, blocks });
                Pool { jobs, waiting: Arc::default(), waiting_max }
            }
        }
    }
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

    /// Jobs that wait for a thread.
    pub fn queued(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
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
        // The threads of a pool live as long as a slot does; a replica that was run by hand may be gone, and its jobs with it.
        let _ = jobs.send(Box::new(move || {
            drop(self);
            job();
        }));
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
