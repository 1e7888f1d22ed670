//! Jobs of a replica that wait for others before they end (uploads, copies, sums): each is a thread, and the baton goes to it and comes back when
//! it waits or ends. So one thread of a world runs at any time, and which one is decided by the world: nothing depends on the machine's scheduler.
//!
//! A job whose replica has crashed is unwound where it waits; what it still does to its disk on the way is lost, like all of its process.

use std::cell::RefCell;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use raftgrid_replica::clock::IsThere;

/// What a job has to do.
pub type Work = Box<dyn FnOnce() + Send>;

/// Stack of a job's thread, in bytes.
const STACK_BYTES: usize = 1 << 20;

enum Said {
    Waits(IsThere, Duration),
    /// With the words of a panic.
    Ended(Option<String>),
}

/// What a job's thread has of the world.
struct Baton {
    go: Receiver<()>,
    said: Sender<Said>,
}

thread_local! {
    static BATON: RefCell<Option<Baton>> = const { RefCell::new(None) };
}

/// Unwinds a job whose process is dead.
struct ProcessGone;

/// Waits, if a job calls: others run until `is_there` says so, or for `most` of the replica's time. False: no job calls.
pub fn stand_by(is_there: IsThere, most: Duration) -> bool {
    BATON.with(|baton| {
        let baton = baton.borrow();
        let Some(Baton { go, said }) = &*baton else { return false };
        // Who is unwound waits for nobody.
        if std::thread::panicking() || is_there() {
            return true;
        }
        if said.send(Said::Waits(is_there, most)).is_err() || go.recv().is_err() {
            resume_unwind(Box::new(ProcessGone));
        }
        true
    })
}

/// How a turn of a job ended.
pub enum Step {
    /// It waits, for so long at most.
    Waits(Duration),
    /// It is done.
    Ended,
    /// It panicked, with these words.
    Panicked(String),
}

/// A job.
pub struct Job {
    go: Option<Sender<()>>,
    said: Receiver<Said>,
    is_there: Option<IsThere>,
    thread: Option<JoinHandle<()>>,
}

impl Job {
    /// A job that has not begun.
    pub fn new(work: Work) -> Self {
        let (go, gone_on) = channel();
        let (tell, said) = channel();
        let run = move || {
            if gone_on.recv().is_err() {
                return;
            }
            let _quiet = crate::panics::quiet();
            BATON.with(|baton| *baton.borrow_mut() = Some(Baton { go: gone_on, said: tell.clone() }));
            let outcome = catch_unwind(AssertUnwindSafe(work));
            let cause = outcome.err().filter(|payload| !payload.is::<ProcessGone>());
            // The world may have dropped the job.
            let _ = tell.send(Said::Ended(cause.map(|_| crate::panics::last())));
        };
        let thread = std::thread::Builder::new().name("job".to_owned()).stack_size(STACK_BYTES).spawn(run);
        let thread = thread.expect("a thread can be started for a job");
        Self { go: Some(go), said, is_there: None, thread: Some(thread) }
    }

    /// Lets it run until it waits or ends.
    pub fn step(&mut self) -> Step {
        self.is_there = None;
        let runs = self.go.as_ref().is_some_and(|go| go.send(()).is_ok());
        match self.said.recv() {
            Ok(Said::Waits(is_there, most)) if runs => {
                self.is_there = Some(is_there);
                Step::Waits(most)
            }
            Ok(Said::Ended(Some(cause))) => Step::Panicked(cause),
            Ok(Said::Waits(..) | Said::Ended(None)) | Err(_) => Step::Ended,
        }
    }

    /// Whether what it waits for has come.
    pub fn is_due(&self) -> bool {
        self.is_there.as_ref().is_some_and(|is_there| is_there())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.go = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the job was caught on its thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_job_runs_only_when_it_is_let_and_waits_where_it_says() {
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let mut job = Job::new(Box::new(move || {
            counted.store(1, Ordering::SeqCst);
            let there = counted.clone();
            assert!(stand_by(Box::new(move || there.load(Ordering::SeqCst) == 2), Duration::from_millis(7)));
            counted.store(3, Ordering::SeqCst);
        }));
        assert_eq!(count.load(Ordering::SeqCst), 0);
        assert!(matches!(job.step(), Step::Waits(most) if most == Duration::from_millis(7)));
        assert!(!job.is_due() && count.load(Ordering::SeqCst) == 1);
        count.store(2, Ordering::SeqCst);
        assert!(job.is_due());
        assert!(matches!(job.step(), Step::Ended));
        assert_eq!(count.load(Ordering::SeqCst), 3);
        assert!(!stand_by(Box::new(|| true), Duration::ZERO), "the world waits for nobody");
    }

    #[test]
    fn a_dropped_job_is_unwound_where_it_waits_and_a_panic_is_told() {
        struct Noted(Arc<AtomicU64>);
        impl Drop for Noted {
            fn drop(&mut self) {
                assert!(stand_by(Box::new(|| false), Duration::from_secs(9)), "who is unwound does not wait");
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicU64::new(0));
        let noted = Noted(dropped.clone());
        let mut job = Job::new(Box::new(move || {
            let _noted = noted;
            stand_by(Box::new(|| false), Duration::from_secs(1));
            unreachable!("its process is gone");
        }));
        assert!(matches!(job.step(), Step::Waits(_)));
        drop(job);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        let mut job = Job::new(Box::new(|| panic!("as planned")));
        assert!(matches!(job.step(), Step::Panicked(cause) if cause.contains("as planned")));
    }
}
